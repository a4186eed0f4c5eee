"""Validation of a pretraining on held-out patients; the masks never change, so every evaluation asks the same."""

from collections.abc import Callable

import jax
import numpy as np

from medbert_jax.metrics.discrimination import auroc
from medbert_jax.training.corpus import Corpus
from medbert_jax.training.pace import Pace
from medbert_jax.training.patient_source import PatientSource


def validate(
    eval_dispatch: Callable[[dict, Corpus | None, dict], dict],
    params: dict,
    source: PatientSource,
    pace: Pace,
    *,
    given_up: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
    """Masked-code loss (nats) and accuracy, prolonged-LOS loss (nats) and AUROC (NaN when one class is missing).

    Every patient of the source counts exactly once: one epoch of its plan, in the order of epoch 0. `pace` says how
    many steps a dispatch has. None where `given_up`, asked after every dispatch, says that nobody will read it.
    """
    plan, sums, scores, labels = source.plan, {}, [], []
    outcome, tiers, sent = source.sequences.outcomes["prolonged_los"], plan.epoch(source.seed, 0), []

    def fetch() -> None:
        start, count, out = sent.pop(0)
        out = jax.device_get(out)
        pace.fetched(count)
        for tier, found in zip(tiers, out.pop("prolonged_los_logits"), strict=True):
            patients = tier[start : start + count]
            scores.append(found[:count][patients >= 0])
            labels.append(outcome[patients[patients >= 0]])
        for name, values in out.items():
            sums[name] = sums.get(name, 0.0) + float(values[:count].sum())

    step = 0
    while step < plan.steps_per_epoch:
        count = pace.count(step)
        sent.append((step, count, eval_dispatch(params, source.corpus, source.feed(step, count))))
        if len(sent) == 1:
            pace.sent_alone()
        step += count
        if step < plan.steps_per_epoch:
            source.prepare(step, pace.count(step))
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
