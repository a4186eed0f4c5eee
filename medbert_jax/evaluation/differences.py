"""Differences of models on the same patients, and of groups under the same model, each named with its test."""

from collections.abc import Iterator, Mapping

import numpy as np

from medbert_jax.evaluation.figures import DELONG, EVERYONE, GROUP_DIFFERENCE, MODEL_DIFFERENCE, Judged, figure_row
from medbert_jax.evaluation.stored_evaluation import FIGURE_SCHEMA
from medbert_jax.metrics.bootstrap import Interval, bootstrap_p, holm, percentile_interval
from medbert_jax.metrics.clusters import obuchowski_difference
from medbert_jax.metrics.discrimination import delong_difference

COMPARED = ("auroc", "concordance_within_sets", "brier", "net_benefit")
"""Metrics of which models are compared."""
OF_GROUPS = ("auroc", "brier", "observed_to_expected", "sensitivity", "specificity", "flagged", "ppv")
"""Metrics of which groups are."""
_P, _P_HOLM, _FAMILY = (list(FIGURE_SCHEMA).index(name) for name in ("p", "p_holm", "family"))


def model_differences(name: str, reference: str, one: Judged, other: Judged) -> Iterator[tuple]:
    """Rows of model − reference, paired by patient: DeLong or Obuchowski for an AUROC, else the draws of both."""
    for metric, at in one.sample:
        if metric not in COMPARED or (metric, at) not in other.sample:
            continue
        drawn = one.draws[metric, at] - other.draws[metric, at]
        interval = percentile_interval(one.sample[metric, at] - other.sample[metric, at], drawn)
        how, p = "paired bootstrap", bootstrap_p(drawn)
        if not (one.is_one and other.is_one):
            how = "paired bootstrap of patients and replicates"
        elif metric == "auroc" and one.formula and other.formula:
            interval, how, p = _of_aurocs(one, other)
        family = f"{metric.replace('_', ' ')}, against {reference}"
        yield figure_row(
            MODEL_DIFFERENCE, name, reference, EVERYONE, metric, at, interval, how, one.counts, p=p, family=family
        )


def _of_aurocs(one: Judged, other: Judged) -> tuple[Interval, str, float]:
    scores = one.probabilities[0], other.probabilities[0]
    if one.formula == DELONG:
        found, how = delong_difference(one.labels, *scores), "DeLong's paired test"
    else:
        found, how = obuchowski_difference(one.labels, *scores, one.subjects), "Obuchowski's paired test"
    return Interval(found.difference, found.low, found.high), how, found.p


def group_differences(
    name: str, judged: Mapping[str, Judged], groups: Mapping[str, Mapping[str, np.ndarray]]
) -> Iterator[tuple]:
    """Rows of level − the largest level of its group, on draws of all patients."""
    for group, levels in groups.items():
        largest = max(levels, key=lambda level: (len(levels[level]), level))
        base = judged[f"{group}: {largest}"]
        for level in levels:
            if level == largest:
                continue
            one = judged[f"{group}: {level}"]
            for metric, at in one.sample:
                if metric in OF_GROUPS:
                    drawn = one.draws[metric, at] - base.draws[metric, at]
                    interval = percentile_interval(one.sample[metric, at] - base.sample[metric, at], drawn)
                    stratum, reference = f"{group}: {level}", f"{group}: {largest}"
                    yield figure_row(
                        GROUP_DIFFERENCE,
                        name,
                        reference,
                        stratum,
                        metric,
                        at,
                        interval,
                        one.bootstrap_words,
                        one.counts,
                    )


def with_holm(rows: list[tuple]) -> list[tuple]:
    """The rows with Holm's adjusted p within each family."""
    families: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        if row[_FAMILY]:
            families.setdefault(row[_FAMILY], []).append(number)
    changed = list(rows)
    for numbers in families.values():
        adjusted = holm([float("nan") if rows[number][_P] is None else rows[number][_P] for number in numbers])
        for number, p in zip(numbers, adjusted, strict=True):
            if np.isfinite(p):
                changed[number] = (*rows[number][:_P_HOLM], float(p), *rows[number][_P_HOLM + 1 :])
    return changed
