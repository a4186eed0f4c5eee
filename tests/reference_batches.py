"""The slow path that the fast ones must equal: one host batch per step, straight from the plan."""

from collections.abc import Iterator
from itertools import count

import numpy as np

from medbert_jax.data.row_plan import RowPlan
from medbert_jax.data.rows import gather_rows
from medbert_jax.data.sequences import PatientSequences


def batches(sequences: PatientSequences, plan: RowPlan, *, seed: int, start: int = 0) -> Iterator[dict]:
    """Endless host batches of the training step from step `start` on."""
    outcome = sequences.outcomes["prolonged_los"]
    for number in count(start):
        epoch, step = divmod(number, plan.steps_per_epoch)
        tiers = tuple(
            gather_rows(sequences, patients[step], tier.row_length)
            | {"prolonged_los": np.where(patients[step] < 0, 0, outcome[patients[step]]).astype(np.int32)}
            for tier, patients in zip(plan.tiers, plan.epoch(seed, epoch), strict=True)
        )
        yield {"tiers": tiers, "epoch": np.int32(epoch)}
