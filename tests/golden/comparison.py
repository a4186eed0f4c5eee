"""This package's numbers beside the golden ones; needs neither pytest nor torch, so that benchmarks can ask too."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from golden import make_bert

from medbert_jax.models.config import ModelConfig
from medbert_jax.models.med_bert import (
    apply,
    masked_code_logits,
    pooled_first_code,
    prolonged_los_logits,
)


def config_of(case) -> ModelConfig:
    sizes = {field.name: getattr(case, field.name) for field in dataclasses.fields(case) if field.name != "name"}
    return ModelConfig(**sizes, max_length=make_bert.MAX_LENGTH, los_pooling="first", pooler=True)


def params_of(case) -> dict:
    params: dict = {}
    for path, value in make_bert.weights(case).items():
        *folders, leaf = path.split("/")
        place = params
        for folder in folders:
            place = place.setdefault(folder, {})
        place[leaf] = jnp.asarray(value)
    return params


def cross_entropy(logits, targets):
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], axis=-1).mean()


def ours(case, length: int, config: ModelConfig, given: dict, *, gradients=True) -> dict[str, np.ndarray]:
    """The arrays of make_bert.reference, by this package."""
    batch = {name: jnp.asarray(given[name]) for name in ("code_ids", "visit_ids", "serialization_ids")}
    batch["positions"] = jnp.broadcast_to(jnp.arange(length), batch["code_ids"].shape)
    batch["patient_slots"] = jnp.ones_like(batch["code_ids"])

    def loss_and_arrays(params):
        hidden, out = apply(params, batch, config=config, capture=("embeddings", "layers"))
        states = jnp.take_along_axis(hidden, given["masked_slots"][:, :, None], axis=1)
        code_logits = masked_code_logits(params, states, config=config)
        los_logits = prolonged_los_logits(params, hidden, batch, config=config, patients=1)[:, 0]
        loss = cross_entropy(code_logits, given["targets"]) + cross_entropy(los_logits, given["los_labels"])
        found = {f"states_{index + 1}": states for index, states in enumerate(out["layers"])}
        found |= {"states_0": out["embeddings"], "code_logits": code_logits, "los_logits": los_logits}
        pooled = pooled_first_code(params, hidden, batch, config=config, patients=1)[:, 0]
        return loss, found | {"pooled": pooled, "loss": loss}

    function = jax.grad(loss_and_arrays, has_aux=True) if gradients else loss_and_arrays
    # The compiler's cheapest level: at these sizes nearly all the time of the test goes into compiling.
    function = jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})
    leaves, found = function(params_of(case))
    if gradients:
        for path, gradient in jax.tree_util.tree_leaves_with_path(leaves):
            found["gradient/" + "/".join(key.key for key in path)] = gradient
    return {name: np.asarray(value) for name, value in found.items()}


def shares(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> dict[str, float]:
    """Largest difference of each array, as a share of the largest entry of the expected one.

    The gradient of a key's bias is 0 by its mathematics (the bias moves no softmax), so it has no scale of its
    own: it gets that of the key's kernel, which sums the same terms.
    """
    found_shares = {}
    for name, value in found.items():
        scale = np.abs(expected[name.replace("key/bias", "key/kernel")]).max()
        found_shares[name] = float(np.abs(value - expected[name]).max() / max(scale, 1e-30))
    return found_shares


def golden_shares(found: dict[str, np.ndarray], case, length: int) -> dict[str, float]:
    """`shares` against the golden file, at the places that it keeps."""
    head = f"{case.name}/{length}/"
    with np.load(make_bert.PATH) as golden:
        expected = {name.removeprefix(head): golden[name] for name in golden.files if name.startswith(head)}
    names = {name for name in expected if "@" not in name}
    assert set(found) == names or set(found) == {name for name in names if "/" not in name}
    kept = {name: value.reshape(-1)[expected.get(f"{name}@places", slice(None))] for name, value in found.items()}
    assert all(kept[name].shape == expected[name].shape for name in kept)
    return shares(kept, expected)
