"""Planning and packing on the host: seconds per epoch, patients per second, fill, and how equal the steps are.

    python benchmarks/row_plan.py

Made patients of the length model (mean 15 codes, up to 512): 28.5 million for the plan, a million for rows made in
numpy. One process on one core; the first epoch is timed with all that is made once.
"""

import json
import os
import resource
import time
from pathlib import Path

import numpy as np
import tyro
from length_model import length_model
from provenance import machine

from medbert_jax.data.row_plan import RowPlan, RowsConfig, plan_rows
from medbert_jax.data.rows import gather_rows


def lengths_of(patients: int) -> np.ndarray:
    """Lengths of the length model alone."""
    drawn = np.random.default_rng(0).lognormal(np.log(15) - 0.5, 1.0, patients)
    return np.clip(np.round(drawn), 3, 512).astype(np.int64)


def planned(lengths: np.ndarray, config: RowsConfig, epochs: int = 2) -> tuple[RowPlan, dict]:
    """The plan, and what it and its epochs take and come to."""
    began = time.perf_counter()
    plan = plan_rows(lengths, config, max_length=512)
    seconds = {"plan_s": time.perf_counter() - began, "epoch_s": []}
    for epoch in range(epochs):
        began = time.perf_counter()
        tiers = plan.epoch(0, epoch)
        seconds["epoch_s"].append(time.perf_counter() - began)
    per_step = sum((patients >= 0).sum(axis=(1, 2)) for patients in tiers)
    slots = 0
    for tier, rows in zip(plan.tiers, tiers, strict=True):
        computed = (rows >= 0).any(axis=2).sum() if tier.rare else rows.shape[0] * rows.shape[1]
        slots += computed * tier.row_length
    trained = np.concatenate([rows[rows >= 0] for rows in tiers])
    return plan, seconds | {
        "patients": len(lengths),
        "batch_size": config.batch_size,
        "tiers": [(tier.row_length, tier.rows_per_step, tier.share_of_steps) for tier in plan.tiers],
        "steps_per_epoch": plan.steps_per_epoch,
        "fill_of_the_last_epoch": float(lengths[trained].sum() / slots),
        "patients_per_step": float(per_step.mean()),
        "coefficient_of_variation": float(per_step.std() / per_step.mean()),
    }


def main(
    patients: int = 28_500_000,
    out: Path = Path(__file__).parent / "results" / "row_plan.json",
) -> None:
    """Measure and write the JSON.

    Args:
        patients: of the large plans.
        out: where the figures go.
    """
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one core
    record = {"machine": machine(), "plans": {}}
    lengths = lengths_of(patients)
    for batching, batch_size in (("rows", 32), ("rows", 256), ("rows", 4096), ("patients", 32)):
        config = RowsConfig(batching=batching, batch_size=batch_size)
        _, record["plans"][f"{batching}, {batch_size}"] = planned(lengths, config)
        print(batching, batch_size, record["plans"][f"{batching}, {batch_size}"], flush=True)
    record["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    made, config = length_model(1_000_000, 82_603), RowsConfig(batch_size=4096)
    plan, _ = planned(made.lengths, config, epochs=1)
    began = time.perf_counter()
    tiers = plan.epoch(0, 1)
    for step in range(plan.steps_per_epoch):
        for tier, rows in zip(plan.tiers, tiers, strict=True):
            gather_rows(made, rows[step], tier.row_length)
    seconds = time.perf_counter() - began
    record["rows_in_numpy"] = {"patients": len(made), "seconds": seconds, "patients_per_s": len(made) / seconds}
    print(record["rows_in_numpy"])
    out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
