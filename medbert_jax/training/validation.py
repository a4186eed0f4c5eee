"""Validation of a pretraining on held-out patients; the masks never change, so every evaluation asks the same."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import numpy as np

from medbert_jax.metrics.discrimination import auroc_where_ordered
from medbert_jax.training.corpus import Corpus
from medbert_jax.training.interruption import Interruption
from medbert_jax.training.pace import Pace, dispatched
from medbert_jax.training.patient_source import PatientSource
from medbert_jax.training.progress import Progress, say


def validate(
    eval_dispatch: Callable[[dict, Corpus[jax.Array], dict], dict],
    params: dict,
    source: PatientSource,
    pace: Pace,
    *,
    interruption: Interruption | None = None,
) -> dict[str, float] | None:
    """Masked-code loss (nats) and accuracy, prolonged-LOS loss (nats) and AUROC.

    The AUROC is NaN when one class is missing, or every score is the same.

    Every patient of the source counts exactly once: one epoch of its plan, in the order of epoch 0. `pace` says how
    many steps a dispatch has. None where the `interruption` says that nobody will read it.
    """
    done, parts, scores, labels = 0, {}, [], []
    outcome, tiers = source.sequences.outcomes["prolonged_los"], source.plan.epoch(source.seed, 0)

    def evaluated(params: dict, corpus: Corpus[jax.Array], feed: dict) -> tuple[dict, dict]:
        return params, eval_dispatch(params, corpus, feed)

    for step, _, out in dispatched(evaluated, params, source, pace, interruption=interruption):
        for tier, found in zip(tiers, out.pop("prolonged_los_logits"), strict=True):
            patients = tier[done:step]
            scores.append(found[patients >= 0])
            labels.append(outcome[patients[patients >= 0]])
        for name, values in out.items():
            parts.setdefault(name, []).append(values)
        done = step
    if interruption and interruption.stopping:
        return None
    # Over the values of single steps, in their order: how many of them came back at once must not matter.
    sums = {name: float(np.concatenate(values).sum(dtype=np.float64)) for name, values in parts.items()}
    labels_N, scores_N = np.concatenate(labels), np.concatenate(scores)
    return {
        "masked_code_loss": sums["masked_code_sum"] / sums["masked_code_weight"],
        "masked_code_accuracy": sums["masked_code_correct"] / sums["masked_code_weight"],
        "prolonged_los_loss": sums["prolonged_los_sum"] / sums["prolonged_los_weight"],
        "prolonged_los_auroc": (float("nan") if _of_one_class(labels_N) else auroc_where_ordered(labels_N, scores_N)),
    }


def tell_one_class(outcomes: Mapping[str, np.ndarray]) -> None:
    """Say before the first validation why the prolonged-LOS AUROC will be unknown, where it will."""
    labels = outcomes["prolonged_los"]
    if _of_one_class(labels):
        say(
            "an AUROC needs validation patients with and without a prolonged stay: got "
            f"{int(labels.sum()):,} with one among {len(labels):,}, so prolonged_los_auroc will be unknown "
            "and nothing else changes; raise --validation-size, or prepare more patients, or a source that knows when "
            "they were discharged"
        )


def _of_one_class(labels: np.ndarray) -> bool:
    return not 0 < labels.sum() < len(labels)


@dataclass(frozen=True)
class Validations:
    """The validations of a run: after every so many steps and at the end, each made once, whatever interrupts it."""

    evaluate: Callable[[dict], dict[str, float] | None]
    """`validate` of these parameters."""
    progress: Progress
    every: int
    interruption: Interruption

    def missing(self, step: int) -> bool:
        """Whether a validation is due after `step` steps that was not made."""
        return self.progress.due(step, self.every) and not self.progress.recorded(step, kind="validation")

    def make(self, step: int, params: dict) -> None:
        """Make and record the one that is missing after `step` steps, unless the run is to stop."""
        if self.missing(step) and not self.interruption.stopping and (found := self.evaluate(params)):
            self.progress.record(step, found, kind="validation")
