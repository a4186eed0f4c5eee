"""How well scores order patients who weigh differently, for many sets of weights at once.

Weights are how many patients one stands for: inverse probabilities of being sampled or of being followed, times how
often a bootstrap drew him. With weights of one everything is as in `discrimination`.
"""

from functools import cached_property

import numpy as np

from medbert_jax.metrics.discrimination import check_labels_and_scores


class RankedPatients:
    """Labels (n,) of 0/1 and scores (n,), sorted once; every method takes weights (…, n) and gives (…,)."""

    def __init__(self, labels, scores):
        """ValueError lists every fault of the two."""
        labels, scores = check_labels_and_scores(labels, scores)
        self._order = np.argsort(scores, kind="stable")
        self._labels, self._scores = labels[self._order], scores[self._order]
        self._seen: tuple[np.ndarray, tuple[np.ndarray, np.ndarray]] | None = None

    @cached_property
    def _starts(self) -> np.ndarray:
        """Where the patients of each distinct score begin."""
        return np.flatnonzero(np.diff(self._scores, prepend=np.nan) != 0)

    def by_score(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weight of the cases and of the controls at each distinct score, from low to high: two of (…, scores)."""
        if self._seen is not None and self._seen[0] is weights:  # every metric asks for the same
            return self._seen[1]
        sorted_weights = np.asarray(weights, np.float64)[..., self._order]
        cases, controls = sorted_weights * self._labels, sorted_weights * ~self._labels
        if len(self._starts) < len(self._labels):
            cases, controls = (np.add.reduceat(of, self._starts, axis=-1) for of in (cases, controls))
        self._seen = weights, (cases, controls)
        return cases, controls

    @property
    def distinct_scores(self) -> np.ndarray:
        """The scores that `by_score` is of."""
        return self._scores[self._starts]

    def auroc(self, weights: np.ndarray) -> np.ndarray:
        """Weighted share of pairs of a case and a control in which the case scores higher, ties counted half.

        NaN where cases or controls weigh nothing.
        """
        cases, controls = self.by_score(weights)
        below = np.cumsum(controls, axis=-1) - controls / 2
        pairs = cases.sum(axis=-1) * controls.sum(axis=-1)
        return _ratio((cases * below).sum(axis=-1), pairs)

    def average_precision(self, weights: np.ndarray) -> np.ndarray:
        """Area under the precision-recall curve as a step function, as `discrimination.average_precision`."""
        cases, controls = self.by_score(weights)
        caught = np.cumsum(cases[..., ::-1], axis=-1)[..., ::-1]
        flagged = caught + np.cumsum(controls[..., ::-1], axis=-1)[..., ::-1]
        precision = np.divide(caught, flagged, out=np.zeros_like(caught), where=flagged > 0)
        controls_too = np.where(controls.sum(axis=-1) > 0, cases.sum(axis=-1), 0.0)
        return _ratio((cases * precision).sum(axis=-1), controls_too)

    def at_specificity(self, weights: np.ndarray, specificity: float) -> tuple[np.ndarray, np.ndarray]:
        """The lowest threshold with at least that specificity, and the sensitivity there; each (…,).

        Who scores the threshold or higher is flagged. The threshold is found anew for each set of weights; above the
        highest score, where nobody is flagged, it is infinite.
        """
        cases, controls = self.by_score(weights)
        caught, passed = (_with_zero(of) for of in (cases, controls))
        all_cases, all_controls = caught[..., -1], passed[..., -1]
        # Rounding of sums must not ask for one score more.
        enough = passed >= specificity * all_controls[..., None] * (1 - 1e-12)
        place = enough.argmax(axis=-1)
        missed = np.take_along_axis(caught, place[..., None], axis=-1)[..., 0]
        threshold = np.append(self.distinct_scores.astype(np.float64), np.inf)[place]
        sensitivity = _ratio(all_cases - missed, np.where(all_controls > 0, all_cases, 0.0))
        return np.where(np.isnan(sensitivity), np.nan, threshold), sensitivity


def _with_zero(counts: np.ndarray) -> np.ndarray:
    """Weight below each distinct score, and of all."""
    return np.concatenate([np.zeros((*counts.shape[:-1], 1)), np.cumsum(counts, axis=-1)], axis=-1)


def _ratio(numerator, denominator) -> np.ndarray:
    numerator, denominator = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)
