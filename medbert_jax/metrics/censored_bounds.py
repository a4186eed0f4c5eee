"""What a metric can be at best and at worst, whatever became of those whose outcome is unknown.

Weights by inverse probability of censoring rest on an assumption: that who left is like who stayed. These bounds rest
on none. Every one is reached by some labels of the censored.
"""

import numpy as np

from medbert_jax.metrics.midranks import midranks


def auroc_bounds(labels, scores) -> tuple[float, float]:
    """Least and largest AUROC over all labels of the censored; labels (n,) of 0, 1 and −1 (unknown), scores (n,).

    With a number of cases among the censored the AUROC is least where those of the lowest scores are the cases, and
    largest where those of the highest are: so every number is tried. NaN where no labels give both classes.
    """
    labels, scores = np.asarray(labels), np.asarray(scores)
    ranks = midranks(scores)
    unknown = np.sort(ranks[labels < 0])
    more = np.arange(len(unknown) + 1)
    cases = np.count_nonzero(labels == 1) + more
    controls = len(labels) - cases
    possible = (cases > 0) & (controls > 0)
    if not possible.any():
        return float("nan"), float("nan")
    certain = ranks[labels == 1].sum()
    found = []
    for rising in (unknown, unknown[::-1]):
        rank_sum = certain + np.concatenate([[0.0], np.cumsum(rising)])
        area = (rank_sum - cases * (cases + 1) / 2)[possible] / (cases * controls)[possible]
        found.append(area)
    return float(found[0].min()), float(found[1].max())


def brier_bounds(labels, probabilities) -> tuple[float, float]:
    """Least and largest Brier score over all labels of the censored, as `auroc_bounds`."""
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, np.float64)
    if_case, if_control = (1 - probabilities) ** 2, probabilities**2
    known = np.where(labels == 1, if_case, if_control)
    low, high = (
        float(np.where(labels < 0, of_unknown, known).mean())
        for of_unknown in (np.minimum(if_case, if_control), np.maximum(if_case, if_control))
    )
    return low, high


def observed_to_expected_bounds(labels, probabilities) -> tuple[float, float]:
    """Least and largest ratio of observed to expected cases: none of the censored a case, or all of them."""
    labels, expected = np.asarray(labels), float(np.sum(probabilities))
    cases, unknown = np.count_nonzero(labels == 1), np.count_nonzero(labels < 0)
    return cases / expected, (cases + unknown) / expected
