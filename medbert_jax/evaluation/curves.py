"""The points that a page draws: ROC, precision-recall, smooth calibration, decision curve, thresholds, histogram."""

import numpy as np

from medbert_jax.evaluation.figures import Judged
from medbert_jax.metrics.bootstrap import percentile_interval
from medbert_jax.metrics.weighted_ranks import RankedPatients

ROC_POINTS = 200
THRESHOLDS = np.round(np.arange(1, 100) / 100, 2)
BINS = np.linspace(0, 1, 51)


def curve_rows(model: str, stratum: str, judged: Judged) -> list[tuple]:
    """Rows of `CURVE_SCHEMA`, of the first replicate where a curve is of one model's order of patients.

    roc: x false, y true positive rate. precision_recall: x recall, y precision. calibration: x risk, y observed rate.
    decision, decision_all: x risk, y net benefit. sensitivity, specificity, ppv, npv, flagged: by threshold x.
    histogram: y share of the patients whose risk is x or more, up to the next x. n: patients (rows) that a point stands
    for, of thresholds those flagged. What depends on the share of cases is there only where that may be judged.
    """
    absolute = ("brier", None) in judged.sample
    named = (model, stratum)
    rows = []
    for (metric, at), value in judged.sample.items():
        if metric in ("calibration", "decision", "decision_all"):
            interval = percentile_interval(value, judged.draws[metric, at])
            rows.append((*named, metric, at, *map(_finite, (interval.value, interval.low, interval.high)), None))
    rows += [(*named, *row) for row in _by_threshold(judged, absolute)]
    if absolute:
        counts, _ = np.histogram(judged.probabilities[0], BINS)
        shares, _ = np.histogram(judged.probabilities[0], BINS, weights=judged.weights / judged.weights.sum())
        for edge, share, count in zip(BINS, shares, counts, strict=False):
            rows.append((*named, "histogram", float(round(edge, 2)), float(share), None, None, int(count)))
    return rows


def _by_threshold(judged: Judged, absolute: bool):
    """Rows without model and stratum of what flags those above a score."""
    ranked = RankedPatients(judged.labels, judged.probabilities[0])
    cases, controls = ranked.by_score(judged.weights)
    rows_at, _ = np.histogram(judged.probabilities[0], np.append(ranked.distinct_scores, np.inf))
    caught, false, flagged = (
        np.append(np.cumsum(of[::-1])[::-1], 0.0) for of in (cases, controls, rows_at.astype(np.float64))
    )
    recall, rate = caught / caught[0], false / false[0]
    step = max(1, len(recall) // ROC_POINTS)
    places = np.unique(np.append(np.arange(0, len(recall), step), len(recall) - 1))
    for place in places:
        yield "roc", float(rate[place]), float(recall[place]), None, None, int(flagged[place])
        if absolute and flagged[place]:
            precision = caught[place] / (caught[place] + false[place])
            yield "precision_recall", float(recall[place]), float(precision), None, None, int(flagged[place])
    at = np.searchsorted(ranked.distinct_scores, THRESHOLDS)
    for threshold, place in zip(THRESHOLDS, at, strict=True):
        everybody, over = caught[0] + false[0], caught[place] + false[place]
        shares = {"sensitivity": recall[place], "specificity": 1 - rate[place]}
        if absolute:
            shares |= {"flagged": over / everybody}
            shares |= {"ppv": caught[place] / over} if over else {}
            under = everybody - over
            shares |= {"npv": (false[0] - false[place]) / under} if under > 0 else {}
        for name, share in shares.items():
            yield name, float(threshold), float(share), None, None, int(flagged[place])


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
