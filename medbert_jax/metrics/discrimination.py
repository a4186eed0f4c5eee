"""How well scores order patients: AUROC with DeLong's interval and paired test, average precision.

Source of the variance: DeLong, DeLong & Clarke-Pearson, Biometrics 1988; of its O(n log n) form by midranks:
Sun & Xu, IEEE Signal Processing Letters 2014. These metrics compare two classes: one alone is an error.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit, ndtr, ndtri

from medbert_jax.metrics.midranks import midranks

_ROUNDING = 8 * float(np.finfo(np.float32).eps)
"""Of what a model computes in float32: a relative difference that one more padded slot can make."""


@dataclass(frozen=True)
class AurocInterval:
    """AUROC, its DeLong standard error, and the two-sided interval, inside [0, 1]."""

    auroc: float
    standard_error: float
    low: float
    high: float


@dataclass(frozen=True)
class AurocDifference:
    """AUROC of a minus AUROC of b on the same patients, interval inside [−1, 1], two-sided p."""

    difference: float
    standard_error: float
    low: float
    high: float
    z: float
    p: float


def check_labels_and_scores(labels, scores, *, name: str = "scores") -> tuple[np.ndarray, np.ndarray]:
    """Labels as (n,) bool and scores as (n,) numbers, or ValueError that lists every fault of the two."""
    labels, scores = np.asarray(labels), np.asarray(scores)
    faults = []
    if labels.ndim != 1 or labels.shape != scores.shape:
        faults.append(f"labels and {name} must be vectors of one length: got {labels.shape} and {scores.shape}")
    strange = np.count_nonzero(~np.isin(labels, (0, 1)))
    if strange:
        faults.append(f"labels must be 0 or 1: got {strange} other values among {labels.size}")
    if scores.dtype.kind not in "fiub":
        faults.append(f"{name} must be real numbers: got dtype {scores.dtype}")
    elif not np.isfinite(scores).all():
        unfit = np.count_nonzero(~np.isfinite(scores))
        faults.append(f"{name} must be finite: got {unfit} NaN or infinite of {scores.size}")
    if faults:
        raise ValueError("; ".join(faults) + f"; give one 0/1 label and one finite number of {name} per patient")
    return labels.astype(bool), scores


def auroc(labels, scores) -> float:
    """Probability that a positive patient scores above a negative one, ties counted half.

    labels (n,) of 0/1, scores (n,) in any unit. ValueError on NaN or when only one class is present.
    """
    labels, scores = check_both_classes(*check_labels_and_scores(labels, scores))
    positives = np.count_nonzero(labels)
    # Midranks are multiples of one half, so the sum is exact and only the division rounds.
    rank_sum = midranks(scores)[labels].sum()
    pairs = positives * (labels.size - positives)
    return float((rank_sum - positives * (positives + 1) / 2) / pairs)


def order_nobody(scores) -> bool:
    """Whether scores (n,) put no patient before another: all equal but for float32's rounding, or some not finite.

    Of equal scores the formula makes an AUROC of one half, of their rounding another, and both read like a finding.
    """
    scores = np.asarray(scores)
    return not (np.isfinite(scores).all() and np.ptp(scores) > _ROUNDING * np.abs(scores).max())


def auroc_where_ordered(labels, scores) -> float:
    """`auroc`; NaN where the scores order nobody: for those who file it or choose by it."""
    return float("nan") if order_nobody(scores) else auroc(labels, scores)


def better(value: float, best: float) -> bool:
    """Whether an AUROC is above the best so far, −inf where there is none; NaN is below every number."""
    return bool(np.nan_to_num(value, nan=-1.0) > np.nan_to_num(best, nan=-1.0))


def auroc_delong(labels, scores, confidence: float = 0.95) -> AurocInterval:
    """AUROC with DeLong's standard error and an interval made on the logit scale, so it never leaves [0, 1].

    At AUROC exactly 1 or 0 the logit is infinite and DeLong's error 0. There the far end is the exact
    (Clopper–Pearson) bound of k independent pairs all ordered alike, k = patients of the smaller class:
    all pairs in order implies that k disjoint pairs are, which has probability AUROC^k at most.
    A class of one patient shows no variance; it is given the largest possible, AUROC·(1 − AUROC).
    ValueError on NaN or when only one class is present.
    """
    check_confidence(confidence)
    labels, scores = check_both_classes(*check_labels_and_scores(labels, scores))
    of_positives, of_negatives = placements(labels, scores)
    area = auroc(labels, scores)
    error = _standard_error(of_positives, of_negatives, single_variance=area * (1 - area))
    if area in (0.0, 1.0):
        far_end = ((1 - confidence) / 2) ** (1 / min(of_positives.size, of_negatives.size))
        low, high = (far_end, 1.0) if area == 1.0 else (0.0, 1 - far_end)
    else:
        low, high = logit_interval(area, error, confidence)
    return AurocInterval(area, error, float(low), float(high))


def delong_difference(labels, a, b, confidence: float = 0.95) -> AurocDifference:
    """AUROC(a) − AUROC(b) for two scores of the same patients, with DeLong's paired z and two-sided p.

    Scores that order the patients alike give z = 0, p = 1. Where the areas differ and the estimated error is
    0 (one score perfect, the other perfectly wrong) the test is undefined: z, p NaN, interval [−1, 1].
    ValueError on NaN or when only one class is present.
    """
    check_confidence(confidence)
    labels, a = check_both_classes(*check_labels_and_scores(labels, a, name="scores a"))
    _, b = check_labels_and_scores(labels, b, name="scores b")
    difference = auroc(labels, a) - auroc(labels, b)
    pairs = zip(placements(labels, a), placements(labels, b), strict=True)
    # Placements of a and b lie in [0, 1]: 1 − difference² is the largest variance their difference can have.
    error = _standard_error(*(of_a - of_b for of_a, of_b in pairs), single_variance=1 - difference**2)
    if error == 0 and difference != 0:
        return AurocDifference(difference, 0.0, -1.0, 1.0, float("nan"), float("nan"))
    z = difference / error if error else 0.0
    half_width = ndtri((1 + confidence) / 2) * error
    low, high = max(-1.0, difference - half_width), min(1.0, difference + half_width)
    return AurocDifference(difference, error, float(low), float(high), float(z), float(2 * ndtr(-abs(z))))


def average_precision(labels, scores) -> float:
    """Area under the precision-recall curve as a step function: Σ (recall_k − recall_{k−1}) · precision_k.

    k runs over the distinct scores from high to low, so ties enter together, as scikit-learn defines it.
    ValueError on NaN or when only one class is present.
    """
    labels, scores = check_both_classes(*check_labels_and_scores(labels, scores))
    order = np.argsort(scores, kind="stable")[::-1]
    last_of_tie = np.append(np.flatnonzero(np.diff(scores[order])), labels.size - 1)
    true_positives = np.cumsum(labels[order])[last_of_tie]
    precision = true_positives / (last_of_tie + 1)
    return float(np.sum(np.diff(true_positives, prepend=0) * precision) / true_positives[-1])


def logit_interval(area: float, error: float, confidence: float) -> tuple[float, float]:
    """The interval of an area strictly between 0 and 1, symmetric on the logit scale."""
    # Delta method: d logit(A)/dA = 1 / (A (1 − A)).
    half_width = ndtri((1 + confidence) / 2) * error / (area * (1 - area))
    return float(expit(logit(area) - half_width)), float(expit(logit(area) + half_width))


def placements(labels, scores) -> tuple[np.ndarray, np.ndarray]:
    """Per positive the share of negatives below it, per negative the share of positives above it."""
    positives, negatives = scores[labels], scores[~labels]
    ranks = midranks(scores)
    of_positives = (ranks[labels] - midranks(positives)) / negatives.size
    of_negatives = 1 - (ranks[~labels] - midranks(negatives)) / positives.size
    return of_positives, of_negatives


def _standard_error(of_positives, of_negatives, *, single_variance: float) -> float:
    variance = 0.0
    for of_rows in (of_positives, of_negatives):
        if of_rows.size == 1:
            variance += single_variance
        elif np.ptp(of_rows) > 0:  # a constant's variance is 0, not the rounding of its mean
            variance += of_rows.var(ddof=1) / of_rows.size
    return float(np.sqrt(variance))


def check_both_classes(labels, scores) -> tuple[np.ndarray, np.ndarray]:
    """Return the two; ValueError when only one class is present."""
    positives = np.count_nonzero(labels)
    if positives in (0, labels.size):
        raise ValueError(
            "ranking metrics need both classes: "
            f"got {positives} positive and {labels.size - positives} negative patients; "
            "use a larger split, or check how the cohort labels its patients"
        )
    return labels, scores


def check_confidence(confidence: float) -> None:
    """ValueError unless it lies between 0 and 1."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1: got {confidence}; use 0.95")
