"""Golden numbers of Hugging Face BERT, and the recipe that makes weights and inputs without storing them.

Command, in an environment with the extra `parity` (torch, transformers); writes bert.npz beside this file:

    python tests/golden/make_bert.py

The reference is BertForPreTraining with hidden_act "gelu_pytorch_tanh", no dropout, layer_norm_eps 1e-12, eager
attention, explicit position_ids (= serialization ids) and token_type_ids (= visit ids), run in float64 so that the
stored numbers carry no rounding of their own. Only `reference` imports torch: the tests read the rest without it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SEED = 20_210_520
PATH = Path(__file__).with_name("bert.npz")
LENGTHS = (1, 7, 512)
MAX_LENGTH = 512
KEPT_ENTRIES = 300
"""Arrays with more entries are stored at this many places, drawn from a generator seeded by their name."""


@dataclass(frozen=True)
class Case:
    """One small BERT."""

    name: str
    vocabulary_size: int
    hidden_size: int
    layers: int
    heads: int
    feed_forward_size: int
    max_visits: int


CASES = (
    Case("one_layer", 23, 48, 1, 3, 32, 150),
    Case("narrow_feed_forward", 61, 96, 2, 6, 32, 130),  # as Med-BERT: feed-forward smaller than hidden
    Case("wide_feed_forward", 37, 64, 1, 2, 128, 140),
)


def names(case: Case) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Path of each parameter in medbert_jax → its Hugging Face name and its shape here (kernels: inputs, outputs)."""
    width, inner = case.hidden_size, case.feed_forward_size
    found: dict[str, tuple[str, tuple[int, ...]]] = {}

    def dense(path: str, name: str, inputs: int, outputs: int) -> None:
        found[f"{path}/kernel"] = (f"{name}.weight", (inputs, outputs))
        found[f"{path}/bias"] = (f"{name}.bias", (outputs,))

    def norm(path: str, name: str) -> None:
        found[f"{path}/scale"] = (f"{name}.weight", (width,))
        found[f"{path}/bias"] = (f"{name}.bias", (width,))

    for table, name, rows in (
        ("code_table", "word_embeddings", case.vocabulary_size),
        ("visit_table", "token_type_embeddings", case.max_visits),
        ("serialization_table", "position_embeddings", MAX_LENGTH),
    ):
        found[f"embeddings/{table}"] = (f"bert.embeddings.{name}.weight", (rows, width))
    norm("embeddings/layer_norm", "bert.embeddings.LayerNorm")
    for index in range(case.layers):
        ours, theirs = f"encoder/layer_{index}", f"bert.encoder.layer.{index}"
        for part in ("query", "key", "value"):
            dense(f"{ours}/{part}", f"{theirs}.attention.self.{part}", width, width)
        dense(f"{ours}/output", f"{theirs}.attention.output.dense", width, width)
        norm(f"{ours}/attention_layer_norm", f"{theirs}.attention.output.LayerNorm")
        dense(f"{ours}/feed_forward_in", f"{theirs}.intermediate.dense", width, inner)
        dense(f"{ours}/feed_forward_out", f"{theirs}.output.dense", inner, width)
        norm(f"{ours}/feed_forward_layer_norm", f"{theirs}.output.LayerNorm")
    dense("pooler/dense", "bert.pooler.dense", width, width)
    dense("masked_code_head/dense", "cls.predictions.transform.dense", width, width)
    norm("masked_code_head/layer_norm", "cls.predictions.transform.LayerNorm")
    found["masked_code_head/bias"] = ("cls.predictions.bias", (case.vocabulary_size,))
    dense("prolonged_los_head/dense", "cls.seq_relationship", width, 2)
    return found


def weights(case: Case) -> dict[str, np.ndarray]:
    """Weights by path, float32, drawn in the order of `names` from default_rng([SEED, number of the case]).

    Tables have standard deviation 0.02, so that the variance under the first LayerNorm is small and its epsilon
    shows; kernels 1/sqrt(inputs), so that gelu and softmax leave their linear part; biases 0.1; LayerNorm scales
    1 ± 0.1.
    """
    rng = np.random.default_rng([SEED, CASES.index(case)])
    made = {}
    for path, (_, shape) in names(case).items():
        kind = path.rsplit("/")[-1].split("_")[-1]
        spread = {"table": 0.02, "kernel": shape[0] ** -0.5, "scale": 0.1, "bias": 0.1}[kind]
        made[path] = (spread * rng.standard_normal(shape) + (kind == "scale")).astype(np.float32)
    return made


def inputs(case: Case, length: int) -> dict[str, np.ndarray]:
    """Rows of one patient each, no padding: ids (B, L), masked slots and targets (B, M), LOS labels (B,)."""
    rng = np.random.default_rng([SEED, CASES.index(case), length])
    rows, masked = (1 if length > 100 else 2), math.ceil(length / 60)
    starts = rng.random((rows, length)) < 0.25
    starts[:, 0] = True
    places = np.broadcast_to(np.arange(length), starts.shape)
    return {
        "code_ids": rng.integers(0, case.vocabulary_size, (rows, length)).astype(np.int32),
        "visit_ids": np.minimum(np.cumsum(starts, axis=1), case.max_visits - 1).astype(np.int32),
        "serialization_ids": (places - np.maximum.accumulate(np.where(starts, places, 0), axis=1)).astype(np.int32),
        "masked_slots": rng.integers(0, length, (rows, masked)).astype(np.int32),
        "targets": rng.integers(0, case.vocabulary_size, (rows, masked)).astype(np.int32),
        "los_labels": rng.integers(0, 2, rows).astype(np.int32),
    }


def reference(case: Case, length: int) -> dict[str, np.ndarray]:
    """Hugging Face's numbers in float64: states, logits, and the gradient of the loss for every parameter.

    The loss is the mean cross-entropy of `targets` at `masked_slots` plus that of `los_labels`.
    """
    import torch
    from transformers import BertConfig, BertForPreTraining

    config = BertConfig(
        vocab_size=case.vocabulary_size,
        hidden_size=case.hidden_size,
        num_hidden_layers=case.layers,
        num_attention_heads=case.heads,
        intermediate_size=case.feed_forward_size,
        type_vocab_size=case.max_visits,
        max_position_embeddings=MAX_LENGTH,
        hidden_act="gelu_pytorch_tanh",
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        layer_norm_eps=1e-12,
        pad_token_id=None,  # torch would give the row of the padding id no gradient
        attn_implementation="eager",
    )
    model = BertForPreTraining(config).double()
    parameters, values = dict(model.named_parameters()), weights(case)
    with torch.no_grad():
        for path, (name, _) in names(case).items():
            value = values[path].T if path.endswith("kernel") else values[path]
            assert parameters[name].shape == value.shape, (path, name)
            parameters[name].copy_(torch.from_numpy(np.ascontiguousarray(value)))
    assert {name for name, _ in names(case).values()} == set(parameters)

    batch = {key: torch.from_numpy(value).long() for key, value in inputs(case, length).items()}
    out = model.bert(
        input_ids=batch["code_ids"],
        attention_mask=torch.ones_like(batch["code_ids"]),
        token_type_ids=batch["visit_ids"],
        position_ids=batch["serialization_ids"],
        output_hidden_states=True,
    )
    states = torch.take_along_dim(out.last_hidden_state, batch["masked_slots"][:, :, None], dim=1)
    code_logits, los_logits = model.cls(states, out.pooler_output)
    cross_entropy = torch.nn.functional.cross_entropy
    loss = cross_entropy(code_logits.flatten(0, 1), batch["targets"].flatten())
    loss = loss + cross_entropy(los_logits, batch["los_labels"])
    loss.backward()

    found = {f"states_{index}": states for index, states in enumerate(out.hidden_states)}
    found |= {"pooled": out.pooler_output, "code_logits": code_logits, "los_logits": los_logits, "loss": loss}
    for path, (name, _) in names(case).items():
        gradient = parameters[name].grad
        found[f"gradient/{path}"] = gradient.T if path.endswith("kernel") else gradient
    return {name: value.detach().numpy() for name, value in found.items()}


def kept_places(name: str, value: np.ndarray) -> np.ndarray:
    """Flat places of the entries that the golden file keeps of an array: all, or some drawn for its name.

    A table's gradient is 0 but in the rows that the batch read: half of its places are drawn among the others.
    """
    if value.size <= KEPT_ENTRIES:
        return np.arange(value.size)
    rng = np.random.default_rng([SEED, *name.encode()])
    places = rng.choice(value.size, KEPT_ENTRIES, replace=False)
    if name.endswith("_table"):
        places[::2] = rng.choice(np.flatnonzero(value), KEPT_ENTRIES // 2)
    return np.unique(places)


def main() -> None:
    """Write bert.npz: for every case, length and array the places kept (where not all) and the values there."""
    arrays: dict[str, np.ndarray] = {}
    for case in CASES:
        for length in LENGTHS:
            for name, value in reference(case, length).items():
                key, places = f"{case.name}/{length}/{name}", kept_places(name, value)
                arrays[key] = value.reshape(-1)[places].astype(np.float32)
                if places.size < value.size:
                    arrays[f"{key}@places"] = places.astype(np.int32)
    np.savez_compressed(PATH, **arrays)
    print(f"{PATH}: {len(arrays)} arrays, {PATH.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
