"""What must hold on any device: packed = padded, nothing crosses from a patient to another, the golden numbers."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from length_model import length_model

from medbert_jax.data.row_plan import RowsConfig, plan_rows
from medbert_jax.data.sequences import PatientSequences
from medbert_jax.models.config import ModelConfig
from medbert_jax.models.med_bert import apply, init
from medbert_jax.training.masking import MaskingConfig
from medbert_jax.training.pretraining import pretraining_losses, step_shapes

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from golden import make_bert
from golden.comparison import config_of, golden_shares, ours
from reference_batches import batches

PRECISION = {"float32": "highest", "bfloat16": "default"}
LOSS, LEAF, CROSSING = "loss, relative difference", "gradients, largest relative difference of a leaf", "crossing"
MOST_FLOAT32 = 1e-5
"""Relative difference between packed and padded, loss and gradients."""
MOST_GOLDEN = 1e-5
"""Largest error of an array, as a share of its largest entry, as the tests have it."""


def exactness(model: ModelConfig, patients: int, lengths: tuple[int, ...]) -> Iterator[tuple[str, object]]:
    """Name and figure, one after the other; AssertionError at the end, with every fault, where one is too large.

    Args:
        model: sizes; of a vocabulary so small that patients share codes.
        patients: made ones, all in one step.
        lengths: of the golden inputs.
    """
    faults = []
    for dtype, precision in PRECISION.items():
        with jax.default_matmul_precision(precision):
            found = packed_and_padded(replace(model, compute_dtype=dtype), patients)
        yield dtype, found
        faults += [f"{dtype}: {CROSSING} {found[CROSSING]:g}"] * (found[CROSSING] != 0)
        if dtype == "float32":
            faults += [f"{name} {found[name]:g}" for name in (LOSS, LEAF) if not found[name] <= MOST_FLOAT32]
    for case in make_bert.CASES:
        for length in lengths:
            with jax.default_matmul_precision("highest"):
                found = ours(case, length, config_of(case), make_bert.inputs(case, length))
            name = f"golden, {case.name}, length {length}: largest error as a share of an array's maximum"
            error = max(golden_shares(found, case, length).values())
            yield name, error
            faults += [f"{name} {error:g}"] * (not error <= MOST_GOLDEN)
    if faults:
        raise AssertionError(
            f"in float32 packed and padded differ by {MOST_FLOAT32:g} at most, the golden numbers by {MOST_GOLDEN:g}, "
            f"and no gradient crosses patients: got {'; '.join(faults)}; look at attention on this device first"
        )


def packed_and_padded(model: ModelConfig, patients: int) -> dict[str, float]:
    """Packed against padded, and what of a patient's loss reaches the others of his row."""
    # Started louder than for training, so that attention matters.
    sequences, model = length_model(patients, model.vocabulary_size), replace(model, initializer_range=0.1)
    params = jax.jit(lambda key: init(model, key))(jax.random.key(0))
    (packed, one), (padded, two) = (
        losses_and_gradients(params, sequences, model, packed=packed) for packed in (True, False)
    )
    shares = jax.tree.map(lambda a, b: float(np.linalg.norm(a - b) / (np.linalg.norm(b) + 1e-30)), one, two)
    # The key's bias has no gradient but rounding: softmax takes it out.
    worst = max(
        share
        for path, share in jax.tree_util.tree_leaves_with_path(shares)
        if not jax.tree_util.keystr(path).endswith("['key']['bias']")
    )
    return {LOSS: abs(packed - padded) / abs(padded), LEAF: worst, CROSSING: crossing(params, sequences, model)}


def losses_and_gradients(
    params: dict, sequences: PatientSequences, model: ModelConfig, *, packed: bool
) -> tuple[float, dict]:
    """The sum of both losses over all patients in one step, without dropout, and its gradient."""
    rows = RowsConfig(batch_size=len(sequences), short_row=128, packed=packed)
    plan, masking = plan_rows(sequences.lengths, rows, max_length=model.max_length), MaskingConfig(share=0.25)
    batch, shapes = next(batches(sequences, plan, seed=0)), step_shapes(plan, masking)

    def loss(params: dict, batch: dict) -> jax.Array:
        parts = pretraining_losses(
            params,
            batch,
            model=model,
            masking=masking,
            shapes=shapes,
            mask_key=jax.random.key(0),
            dropout_key=None,
        )
        return parts["masked_code_sum"] + parts["prolonged_los_sum"]

    value, gradients = jax.jit(jax.value_and_grad(loss))(params, batch)
    return float(value), jax.device_get(gradients)


def crossing(params: dict, sequences: PatientSequences, model: ModelConfig) -> float:
    """The largest gradient of the first patient's outputs with respect to codes that only others of his row have."""
    plan = plan_rows(sequences.lengths, RowsConfig(batch_size=len(sequences), short_row=128), max_length=512)
    rows = next(batches(sequences, plan, seed=0))["tiers"][0]
    rows = {name: np.asarray(rows[name])[:4] for name in rows}

    def outputs(params: dict, rows: dict) -> jax.Array:
        hidden_BLD, _ = apply(params, rows, config=model)
        mine_BL = rows["patient_slots"] == 1
        return jnp.sum(hidden_BLD.astype(jnp.float32) ** 2 * mine_BL[..., None] * jnp.arange(hidden_BLD.shape[-1]))

    table = np.asarray(jax.jit(jax.grad(outputs))(params, rows)["embeddings"]["code_table"])
    mine = rows["code_ids"][rows["patient_slots"] == 1]
    others = np.setdiff1d(rows["code_ids"][rows["patient_slots"] > 1], mine)
    if not len(others) or not np.abs(table[mine]).max() > 0:
        raise RuntimeError("the rows must hold several patients with codes of their own: got none; take more patients")
    return float(np.abs(table[others]).max())
