"""Validation of a pretraining on held-out patients; the masks never change, so every evaluation asks the same."""

from collections.abc import Callable

import jax
import numpy as np

from medbert_jax.metrics.discrimination import auroc
from medbert_jax.training.corpus import Corpus
from medbert_jax.training.patient_source import PatientSource


def validate(
    eval_dispatch: Callable[[dict, Corpus | None, dict], dict],
    params: dict,
    source: PatientSource,
    *,
    given_up: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
    """Masked-code loss (nats) and accuracy, prolonged-LOS loss (nats) and AUROC (NaN when one class is missing).

    Every patient of the source counts exactly once: one epoch of its plan, in the order of epoch 0. None where
    `given_up`, which is asked after every dispatch, says that nobody will read the result.
    """
    plan, sums, scores, labels = source.plan, {}, [], []
    outcome, tiers, sent = source.sequences.outcomes["prolonged_los"], plan.epoch(source.seed, 0), []

    def fetch() -> None:
        start, count, out = sent.pop(0)
        for tier, found in zip(tiers, out.pop("prolonged_los_logits"), strict=True):
            patients = tier[start : start + count]
            scores.append(np.asarray(found)[:count][patients >= 0])
            labels.append(outcome[patients[patients >= 0]])
        for name, values in jax.device_get(out).items():
            sums[name] = sums.get(name, 0.0) + float(values[:count].sum())

    for start in range(0, plan.steps_per_epoch, source.steps):
        count = min(source.steps, plan.steps_per_epoch - start)
        sent.append((start, count, eval_dispatch(params, source.corpus, source.feed(start, count))))
        if left := plan.steps_per_epoch - start - count:
            source.prepare(start + count, min(source.steps, left))
        if len(sent) > 1:
            fetch()
        if given_up():
            return None
    while sent:
        fetch()
    labels_N, scores_N = np.concatenate(labels), np.concatenate(scores)
    return {
        "masked_code_loss": sums["masked_code_sum"] / sums["masked_code_weight"],
        "masked_code_accuracy": sums["masked_code_correct"] / sums["masked_code_weight"],
        "prolonged_los_loss": sums["prolonged_los_sum"] / sums["prolonged_los_weight"],
        "prolonged_los_auroc": auroc(labels_N, scores_N) if 0 < labels_N.sum() < len(labels_N) else float("nan"),
    }
