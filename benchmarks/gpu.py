"""On an accelerator: is packing exact there, how fast is the paper's size, and are the golden numbers kept?

    python benchmarks/gpu.py --out benchmarks/results/gpu.json

Made patients of the length model, V = 82,603, one masked code each, bf16 products, the corpus on the device. Figures:

- packed = padded: relative differences of the loss and of every gradient, in float32 (highest matmul precision) and
  bfloat16, and the largest gradient of one patient's loss with respect to another patient in the row, which must be 0;
- patients per second, step time and peak memory from 32 to 4,096 patients a step, and 32 exactly, as the paper has it;
- a run of two minutes on 4 million patients;
- the largest error against the golden files in float32.

Needs neither TFDS nor polars nor torch. `--rehearse` takes a minute and small numbers, to try the script on a CPU.
"""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from length_model import length_model
from provenance import machine
from step_rate import TimedStep, timed_step

from medbert_jax.data.row_plan import RowsConfig, plan_rows
from medbert_jax.data.sequences import PatientSequences
from medbert_jax.models.config import ModelConfig, preset
from medbert_jax.models.med_bert import apply, init
from medbert_jax.training.masking import MaskingConfig
from medbert_jax.training.pretraining import pretraining_losses, step_shapes

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from golden import make_bert  # noqa: E402  (beside the tests, which are no package)
from golden.comparison import config_of, golden_shares, ours  # noqa: E402
from reference_batches import batches  # noqa: E402


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


def exactness(model: ModelConfig, patients: int) -> dict[str, float]:
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
    return {
        "loss, relative difference": abs(packed - padded) / abs(padded),
        "gradients, largest relative difference of a leaf": worst,
        "gradient that reaches another patient": crossing(params, sequences, model),
    }


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


def timed(one: TimedStep, seconds: float) -> dict[str, float | None]:
    """Train for so long; rates, and the peak of the device's memory so far."""
    steps, trained, spent = 0, 0.0, 0.0
    while spent < seconds:
        done, took = one.run(one.source.steps)
        steps, trained, spent = steps + one.source.steps, trained + done, spent + took
    stats = jax.devices()[0].memory_stats() or {}
    return {
        "patients_per_s": trained / spent,
        "step_ms": 1e3 * spent / steps,
        "seconds": spent,
        "compile_s": one.compile_s,
        "fill": one.fill,
        "peak_bytes_so_far": stats.get("peak_bytes_in_use"),
    }


def main(out: Path = ROOT / "benchmarks" / "results" / "gpu.json", rehearse: bool = False) -> None:
    """Measure and write the JSON, after every part, so that a run that is cut short leaves what it has.

    Args:
        out: where the figures go.
        rehearse: small numbers, on any device.
    """
    began = time.monotonic()
    vocabulary, patients, seconds = (2_000, 4_000, 3.0) if rehearse else (82_603, 4_000_000, 12.0)
    record = {"machine": machine(), "rehearsal": rehearse, "exactness": {}, "pretraining": {}}
    out.parent.mkdir(parents=True, exist_ok=True)

    def note(part: str, name: str, found: object) -> None:
        record[part][name] = found
        record["seconds"] = time.monotonic() - began
        out.write_text(json.dumps(record, indent=1) + "\n")
        print(part, name, found, flush=True)

    for dtype in ("float32", "bfloat16"):
        model = replace(preset("paper", 2_000), compute_dtype=dtype)
        with jax.default_matmul_precision("highest" if dtype == "float32" else "default"):
            note("exactness", dtype, exactness(model, 60 if rehearse else 400))
    with jax.default_matmul_precision("highest"):
        errors = {
            f"{case.name}, length {length}": max(
                golden_shares(
                    ours(case, length, config_of(case), make_bert.inputs(case, length)), case, length
                ).values()
            )
            for case in make_bert.CASES
            for length in ((7,) if rehearse else make_bert.LENGTHS)
        }
    note("exactness", "largest error of an array's maximum against the golden files", errors)
    made = length_model(patients, vocabulary)
    model = replace(preset("paper", vocabulary), compute_dtype="bfloat16")
    layouts = {f"{size} a step": RowsConfig(batch_size=size) for size in ((32,) if rehearse else (32, 256, 1024))}
    layouts["32 exactly"] = RowsConfig(batching="patients", batch_size=32)
    for name, layout in layouts.items():
        one = timed_step(made, model, layout)
        note("pretraining", name, timed(one, seconds))
        one.source.close()
    if not rehearse:
        one = timed_step(made, model, RowsConfig(batch_size=4096))
        note("pretraining", "4096 a step, two minutes", timed(one, 120.0))


if __name__ == "__main__":
    tyro.cli(main)
