"""What is found of one model in one group of patients, and the rows that it is stored as."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medbert_jax.evaluation.measures import Key
from medbert_jax.metrics.bootstrap import Interval
from medbert_jax.metrics.clusters import auroc_obuchowski
from medbert_jax.metrics.discrimination import auroc_delong, order_nobody

FIGURE, MODEL_DIFFERENCE, GROUP_DIFFERENCE, BOUND = "figure", "difference of models", "difference of groups", "bound"
"""Kinds of rows."""
EVERYONE = "everyone"
"""The stratum of all patients."""
DELONG, OBUCHOWSKI = "DeLong", "Obuchowski, clustered by subject"


@dataclass(frozen=True, eq=False)
class Judged:
    """A model in a stratum of n rows: the mean over its replicates, of the sample and of every draw."""

    sample: dict[Key, float]
    draws: dict[Key, np.ndarray]
    """Key → (draws,)."""
    labels: np.ndarray
    """(n,) of 0/1."""
    probabilities: Sequence[np.ndarray]
    """(n,) of each replicate."""
    subjects: np.ndarray
    weights: np.ndarray
    """(n,) of the design."""
    plain: bool
    """Whether everybody stands for himself and nobody is matched: DeLong and Obuchowski need it."""

    @classmethod
    def of_replicates(cls, found: Sequence[tuple[dict, dict]], picked: np.ndarray, **about) -> "Judged":
        """From (sample, draws) of each replicate; `picked` (draws, replicates): the shares of every draw."""
        keys = found[0][0]
        sample = {key: float(np.mean([of_sample[key] for of_sample, _ in found])) for key in keys}
        draws = {key: (picked.T * np.stack([of_draws[key] for _, of_draws in found])).sum(0) for key in keys}
        return cls(sample, draws, **about)

    @property
    def counts(self) -> tuple[int, int]:
        """Rows, and cases among them."""
        return len(self.labels), int(self.labels.sum())

    @property
    def is_one(self) -> bool:
        """Whether there is one replicate."""
        return len(self.probabilities) == 1

    @property
    def formula(self) -> str:
        """By which formula the AUROC has its interval: DeLong's, Obuchowski's, or none, where none holds."""
        if not (self.is_one and self.plain) or order_nobody(self.probabilities[0]):
            return ""
        if len(np.unique(self.subjects)) == len(self.subjects):
            return DELONG
        several = min(len(np.unique(self.subjects[self.labels == label])) for label in (0, 1))
        return OBUCHOWSKI if several > 1 else ""

    @property
    def bootstrap_words(self) -> str:
        """How an interval came about that percentiles of draws give."""
        return "bootstrap" if self.is_one else "bootstrap of patients and replicates"


def auroc_interval(judged: Judged, bootstrap: Interval) -> tuple[Interval, str]:
    """The interval of an AUROC, and how it was made; `bootstrap` where no formula holds."""
    if not judged.formula:
        return bootstrap, judged.bootstrap_words
    if judged.formula == DELONG:
        found = auroc_delong(judged.labels, judged.probabilities[0])
    else:
        found = auroc_obuchowski(judged.labels, judged.probabilities[0], judged.subjects)
    return Interval(found.auroc, found.low, found.high), judged.formula


def figure_row(
    kind: str,
    model: str,
    reference: str,
    stratum: str,
    metric: str,
    at: float | None,
    interval: Interval | tuple,
    how: str,
    counts: tuple[int, int],
    *,
    p: float | None = None,
    family: str = "",
) -> tuple:
    """One row of `FIGURE_SCHEMA`; `counts`: rows, and cases among them. What is not finite is null."""
    value, low, high = (interval.value, interval.low, interval.high) if isinstance(interval, Interval) else interval
    numbers = (_finite(value), _finite(low), _finite(high))
    return (kind, model, reference, stratum, metric, at, *numbers, how, *counts, _finite(p), None, family)


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and np.isfinite(value) else None
