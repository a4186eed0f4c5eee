"""AUROC of several predictions per patient: Obuchowski's variance (Biometrics 1997), and concordance within sets.

Rows of one patient are not independent; plain DeLong would take them for as many patients. Where every cluster has one
row the two are equal.
"""

import numpy as np
from scipy.special import ndtr, ndtri

from medbert_jax.metrics.discrimination import (
    AurocDifference,
    AurocInterval,
    auroc,
    check_both_classes,
    check_confidence,
    check_labels_and_scores,
    logit_interval,
    placements,
)


def auroc_obuchowski(labels, scores, clusters, confidence: float = 0.95) -> AurocInterval:
    """AUROC over all rows, with the standard error of clusters (n,) and an interval on the logit scale.

    ValueError on NaN, when only one class is present, or when all cases or all controls are of one cluster.
    """
    check_confidence(confidence)
    labels, scores = check_both_classes(*check_labels_and_scores(labels, scores))
    area = auroc(labels, scores)
    error = _standard_error(labels, placements(labels, scores), clusters, area)
    if area in (0.0, 1.0):  # no pair shows how it could be otherwise
        return AurocInterval(area, error, float("nan"), float("nan"))
    return AurocInterval(area, error, *logit_interval(area, error, confidence))


def obuchowski_difference(labels, a, b, clusters, confidence: float = 0.95) -> AurocDifference:
    """AUROC(a) − AUROC(b) for two scores of the same rows, with the paired z and two-sided p of clusters (n,)."""
    check_confidence(confidence)
    labels, a = check_both_classes(*check_labels_and_scores(labels, a, name="scores a"))
    _, b = check_labels_and_scores(labels, b, name="scores b")
    difference = auroc(labels, a) - auroc(labels, b)
    of_pairs = tuple(one - other for one, other in zip(placements(labels, a), placements(labels, b), strict=True))
    error = _standard_error(labels, of_pairs, clusters, difference)
    if error == 0 and difference != 0:
        return AurocDifference(difference, 0.0, -1.0, 1.0, float("nan"), float("nan"))
    z = difference / error if error else 0.0
    half_width = ndtri((1 + confidence) / 2) * error
    low, high = max(-1.0, difference - half_width), min(1.0, difference + half_width)
    return AurocDifference(difference, error, float(low), float(high), float(z), float(2 * ndtr(-abs(z))))


def _standard_error(labels, of_rows: tuple[np.ndarray, np.ndarray], clusters, mean: float) -> float:
    """Of the mean of placements; of_rows: those of the cases, those of the controls (or differences of two models')."""
    names, cluster = np.unique(np.asarray(clusters), return_inverse=True)
    totals, counts = [], []
    for rows, values in zip((labels, ~labels), of_rows, strict=True):
        counts.append(np.bincount(cluster[rows], minlength=len(names)))
        totals.append(np.bincount(cluster[rows], values, minlength=len(names)))
    variance = 0.0
    of_case, of_control = (total - count * mean for total, count in zip(totals, counts, strict=True))
    for off, count in ((of_case, counts[0]), (of_control, counts[1])):
        with_some = np.count_nonzero(count)
        if with_some < 2:
            raise ValueError(
                f"clusters with cases, and with controls, must be two or more: got {with_some}; take more patients"
            )
        variance += with_some / (with_some - 1) * np.sum(off**2) / count.sum() ** 2
    both = len(names) / (len(names) - 1) * np.sum(of_case * of_control) / (counts[0].sum() * counts[1].sum())
    return float(np.sqrt(max(0.0, variance + 2 * both)))


def within_set_concordance(labels, scores, sets) -> tuple[np.ndarray, np.ndarray]:
    """Of each set with a case and a control, its name and the share of its pairs in which the case scores higher.

    labels (n,) of 0/1, scores (n,), sets (n,) of any kind. Ties count half. The concordance of a matched design is the
    mean of the shares, each set counting once: the AUROC compares also patients who were never matched to each other.
    """
    labels, scores = check_labels_and_scores(labels, scores)
    names, of_set = np.unique(np.asarray(sets), return_inverse=True)
    cases, controls = (np.flatnonzero(of)[np.argsort(of_set[of], kind="stable")] for of in (labels, ~labels))
    controls_of_set = np.bincount(of_set[controls], minlength=len(names))
    begin = np.cumsum(controls_of_set) - controls_of_set
    # Every case beside every control of his set.
    times = controls_of_set[of_set[cases]]
    case = np.repeat(cases, times)
    place = np.arange(len(case)) - np.repeat(np.cumsum(times) - times, times)
    control = controls[begin[of_set[case]] + place]
    higher = (scores[case] > scores[control]) + (scores[case] == scores[control]) / 2
    pairs = np.bincount(of_set[case], minlength=len(names))
    shares = np.bincount(of_set[case], higher, minlength=len(names))
    there = pairs > 0
    return names[there], shares[there] / pairs[there]
