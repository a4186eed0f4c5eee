"""Validation of a pretraining on held-out patients; the masks never change, so every evaluation asks the same."""

from collections.abc import Callable

import numpy as np
from jax.sharding import Mesh

from medbert_jax.data.rows import RowPlan
from medbert_jax.data.sequences import PatientSequences
from medbert_jax.metrics.discrimination import auroc
from medbert_jax.training.pretraining import batches
from medbert_jax.training.sharding import put_batch


def validate(
    eval_step: Callable[[dict, dict], dict],
    params: dict,
    sequences: PatientSequences,
    plan: RowPlan,
    mesh: Mesh,
) -> dict[str, float]:
    """Masked-code loss (nats) and accuracy, prolonged-LOS loss (nats) and AUROC (NaN when one class is missing).

    Every patient of `sequences` counts exactly once: one epoch of `plan`, in the order of epoch 0.
    """
    stream, pending, labels = batches(sequences, plan, seed=0), [], []
    for _, batch in zip(range(plan.steps_per_epoch), stream, strict=False):
        labels.append(np.concatenate([rows["prolonged_los"][rows["patients"] >= 0] for rows in batch["tiers"]]))
        real = [rows["patients"] >= 0 for rows in batch["tiers"]]
        pending.append((real, eval_step(params, put_batch(batch, mesh))))
    sums: dict[str, float] = {}
    scores = []
    for real, out in pending:
        logits = out.pop("prolonged_los_logits")
        scores.append(np.concatenate([np.asarray(tier)[mask] for tier, mask in zip(logits, real, strict=True)]))
        for name, value in out.items():
            sums[name] = sums.get(name, 0.0) + float(value)
    labels_N, scores_N = np.concatenate(labels), np.concatenate(scores)
    return {
        "masked_code_loss": sums["masked_code_sum"] / sums["masked_code_weight"],
        "masked_code_accuracy": sums["masked_code_correct"] / sums["masked_code_weight"],
        "prolonged_los_loss": sums["prolonged_los_sum"] / sums["prolonged_los_weight"],
        "prolonged_los_auroc": auroc(labels_N, scores_N) if 0 < labels_N.sum() < len(labels_N) else float("nan"),
    }
