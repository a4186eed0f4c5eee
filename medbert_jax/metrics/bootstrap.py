"""Intervals by drawing patients again: one set of draws for all models, so that their differences are paired.

A draw is a weight for every row: how often its patient, with all his rows, was drawn (Efron, Tibshirani 1993).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

DRAWS = 2000
SEED = 0
CONFIDENCE = 0.95
_AT_ONCE = 1_000_000  # weights: fastest, and what is made on the way stays small
_FEWEST_DEFINED = 0.95


@dataclass(frozen=True)
class Interval:
    """A value, and the ends of its two-sided interval; NaN where there is none."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Draws:
    """Draws with replacement of clusters, stratified by nothing; a function of the fields alone.

    Where controls were sampled, a draw is of the whole cohort, most of whom nobody sees: how often those who are seen
    are in it are independent Poisson numbers, and who was sampled stands for all of the cohort who are not seen as
    themselves. A draw of the sample alone would let the share of cases vary with the size of the sample.
    """

    clusters: np.ndarray
    """(n,) of any kind: rows of one value are drawn together. A patient's rows, or a matched set's."""
    number: int = DRAWS
    seed: int = SEED
    weight: np.ndarray | None = None
    """(n,) for how many patients each row stands; None: for himself."""
    sampled: np.ndarray | None = None
    """(n,) bool: who was sampled; None: nobody."""

    def weights(self) -> Iterator[np.ndarray]:
        """Yield for how many each row stands in a draw, (draws of this part, n) float64, until all draws are there."""
        names, cluster = np.unique(self.clusters, return_inverse=True)
        several, rng = len(names), np.random.default_rng(self.seed)
        step = max(1, _AT_ONCE // max(len(cluster), 1))
        for start in range(0, self.number, step):
            rows = min(step, self.number - start)
            if self.sampled is None:
                drawn = rng.integers(0, several, (rows, several)) + several * np.arange(rows)[:, None]
                counts = np.bincount(drawn.ravel(), minlength=rows * several).reshape(rows, several)
            else:
                counts = rng.poisson(1.0, (rows, several))
            weights = counts[:, cluster] * (1.0 if self.weight is None else self.weight)
            if self.weight is not None and self.sampled is not None:
                weights = _of_cohort(weights, self.sampled, float(self.weight.sum()))
            yield weights


def _of_cohort(weights: np.ndarray, sampled: np.ndarray, everybody: float) -> np.ndarray:
    """The weights (draws, n) with those of the sampled scaled, so that all together are `everybody`."""
    of_sampled, of_others = weights @ sampled, weights @ ~sampled
    left = np.maximum(everybody - of_others, 0)
    scale = np.divide(left, of_sampled, out=np.zeros_like(left), where=of_sampled > 0)
    return np.where(sampled, weights * scale[:, None], weights)


def replicate_weights(replicates: int, draws: int = DRAWS, seed: int = SEED) -> np.ndarray:
    """(draws, replicates) shares that sum to 1: the replicates drawn again with every draw of patients.

    Models of as many replicates get the same ones, so that pairs trained on one subset stay pairs.
    """
    rng = np.random.default_rng([seed, replicates])
    places = rng.integers(0, replicates, (draws, replicates))
    return (places[:, :, None] == np.arange(replicates)).mean(1)


def percentile_interval(value: float, drawn: np.ndarray, confidence: float = CONFIDENCE) -> Interval:
    """The percentiles of what the draws (draws,) gave, around the value of the sample itself.

    Draws without a value, as an AUROC without cases, are left out; where they are more than one in twenty there is no
    interval.
    """
    defined = drawn[np.isfinite(drawn)]
    if not np.isfinite(value) or len(defined) < _FEWEST_DEFINED * len(drawn) or not len(defined):
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value, float(low), float(high))


def bootstrap_p(drawn: np.ndarray) -> float:
    """Two-sided p of a difference: twice the share of draws (draws,) on the other side of 0, the sample counted once.

    It is below 0.05 where the percentile interval leaves 0 out, but for rounding; never below 2 / (draws + 1).
    """
    defined = drawn[np.isfinite(drawn)]
    if len(defined) < _FEWEST_DEFINED * len(drawn) or not len(defined):
        return float("nan")
    tail = min(np.count_nonzero(defined <= 0), np.count_nonzero(defined >= 0))
    return float(min(1.0, 2 * (tail + 1) / (len(defined) + 1)))


def holm(p_values) -> np.ndarray:
    """Holm's adjusted p (n,) of one family of n tests (Scandinavian Journal of Statistics 1979); NaN is no test."""
    p_values = np.asarray(p_values, np.float64)
    adjusted = np.full(len(p_values), np.nan)
    order = [place for place in np.argsort(p_values, kind="stable") if np.isfinite(p_values[place])]
    steps = np.array([(len(order) - rank) * p_values[place] for rank, place in enumerate(order)])
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps)) if order else []
    return adjusted
