"""Hugging Face BERT's numbers, to 1e-5 in float32: states, logits and gradients of three small configurations."""

import dataclasses
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import make_bert

from medbert_jax.models.config import ModelConfig
from medbert_jax.models.med_bert import (
    apply,
    init,
    masked_code_logits,
    pooled_first_code,
    prolonged_los_logits,
)

TOLERANCE = 1e-5
CASES = {case.name: case for case in make_bert.CASES}


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


@pytest.mark.parametrize("length", make_bert.LENGTHS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_equals_hugging_face_bert(case, length):
    found = ours(case, length, config_of(case), make_bert.inputs(case, length))
    error = golden_shares(found, case, length)
    name = max(error, key=error.get)
    print(f"largest error {error[name]:.1e} in {name}")
    assert error[name] <= TOLERANCE, name


FAULTS = ("erf_gelu", "epsilon", "visit_ids", "positions_for_ranks", "attention_scale", "untied_decoder")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_seen(fault, monkeypatch):
    case, length = CASES["one_layer"], 7
    config, given = config_of(case), make_bert.inputs(case, length)
    if fault == "erf_gelu":
        gelu = jax.nn.gelu
        monkeypatch.setattr(jax.nn, "gelu", lambda x, approximate: gelu(x, approximate=False))
    elif fault == "epsilon":
        config = dataclasses.replace(config, layer_norm_epsilon=1e-6)
    elif fault == "visit_ids":
        given["visit_ids"] = given["visit_ids"] - 1
    elif fault == "positions_for_ranks":
        config = dataclasses.replace(config, serialization="position")
    elif fault == "attention_scale":
        softmax = jax.nn.softmax
        monkeypatch.setattr(jax.nn, "softmax", lambda x, axis: softmax(x * 1.001, axis=axis))
    elif fault == "untied_decoder":
        monkeypatch.setattr("medbert_jax.models.heads.jnp.einsum", _einsum_without_gradient_to_the_table(jnp.einsum))
    found = ours(case, length, config, given, gradients=fault == "untied_decoder")
    assert max(golden_shares(found, case, length).values()) > 3 * TOLERANCE


def _einsum_without_gradient_to_the_table(einsum):
    def changed(subscripts, *operands, **options):
        if subscripts == "...D,VD->...V":
            operands = (operands[0], jax.lax.stop_gradient(operands[1]))
        return einsum(subscripts, *operands, **options)

    return changed


def test_golden_file_is_small_and_its_tree_is_ours():
    assert make_bert.PATH.stat().st_size < 1_000_000
    for case in CASES.values():
        shapes = jax.eval_shape(lambda key, case=case: init(config_of(case), key), jax.random.key(0))
        ours = jax.tree.map(lambda leaf: leaf.shape, shapes)
        assert ours == jax.tree.map(lambda leaf: leaf.shape, params_of(case))


@pytest.mark.parity
@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("torch", "transformers")),
    reason="torch and transformers (the extra `parity`) are not installed",
)
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_equals_hugging_face_bert_live(case):
    for length in make_bert.LENGTHS:
        expected = make_bert.reference(case, length)
        found = ours(case, length, config_of(case), make_bert.inputs(case, length))
        assert set(found) == set(expected)
        error = shares(found, expected)
        assert max(error.values()) <= TOLERANCE, max(error, key=error.get)
