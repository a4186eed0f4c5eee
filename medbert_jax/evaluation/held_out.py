"""The one reader of the test split when a model is fitted: predictions filed, numbers returned.

`evaluated_patients` reads it again for predictions that are there.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from medbert_jax.data.sequences import PatientSequences
from medbert_jax.data.token_store import open_token_store, read_metadata
from medbert_jax.evaluation.predictions import write_predictions
from medbert_jax.metrics.calibration import brier, expected_calibration_error, log_loss
from medbert_jax.metrics.clusters import auroc_obuchowski
from medbert_jax.metrics.discrimination import auroc, auroc_delong, average_precision, order_nobody
from medbert_jax.metrics.weighted_calibration import (
    SmoothCurve,
    calibration_in_the_large,
    calibration_slope,
    curve_errors,
    observed_to_expected,
    quantile_calibration_error,
    scaled_brier,
)
from medbert_jax.training.progress import say

DEGENERATE = "degenerate"
"""The metric, with value 1, of a split where others do not exist, because its scores are all equal or not finite."""
_AUROC = ("auroc", "auroc_standard_error", "auroc_low", "auroc_high")


def evaluate_test(
    dataset: str | Path,
    predict: Callable[[PatientSequences], np.ndarray],
    predictions: str | Path,
    *,
    cache_dir: str = "",
) -> dict[str, float]:
    """Predict the cohort's test patients, write the predictions (MEDS schema) to RUN_ID.parquet, return metric → value.

    The censored are predicted too, for the bounds that `evaluate` gives, and count in no metric. `predict` maps whole
    sequences to probabilities (n,), in their order; truncating is its business. Probabilities that are not finite are
    not written, for no tool could read them. `cache_dir` as in `open_token_store`.
    """
    test = open_token_store(dataset, "test", cache_dir, say)
    labels, probabilities = np.asarray(test.outcomes["label"]), predict(test)
    if np.isfinite(probabilities).all():
        write_predictions(
            predictions,
            subject_id=test.patient_id,
            prediction_time=test.outcomes["prediction_time"],
            labels=labels,
            probabilities=probabilities,
            time_is_ordinal=read_metadata(dataset)["time_is_ordinal"],
            run_id=Path(predictions).stem,
        )
    known = labels >= 0
    return summarize_predictions(labels[known], probabilities[known], np.asarray(test.patient_id)[known])


def summarize_predictions(
    labels: np.ndarray, probabilities: np.ndarray, subjects: np.ndarray | None = None
) -> dict[str, float]:
    """AUROC with DeLong's 95 % interval, and the rest, of (n,) labels 0/1 and (n,) probabilities.

    With `subjects` (n,) of whom one has several rows the interval is Obuchowski's, and `predictions` counts the rows
    beside `patients`; there is no interval where cases, or controls, are of one subject alone.

    NaN is what does not exist: what ranks, of probabilities that order nobody; all of it, where some are not finite.
    """
    finite, ordered = np.isfinite(probabilities).all(), not order_nobody(probabilities)
    nothing = float("nan")
    people = len(labels) if subjects is None else len(np.unique(subjects))
    several = people < len(labels)
    return {
        **(_auroc(labels, probabilities, subjects if several else None) if ordered else dict.fromkeys(_AUROC, nothing)),
        "average_precision": average_precision(labels, probabilities) if ordered else nothing,
        "brier": brier(labels, probabilities) if finite else nothing,
        "log_loss": log_loss(labels, probabilities) if finite else nothing,
        "expected_calibration_error": expected_calibration_error(labels, probabilities) if finite else nothing,
        "patients": float(people),
        **({"predictions": float(len(labels))} if several else {}),
        "cases": float(np.sum(labels)),
    } | (_calibration(labels, probabilities) if ordered else {})


def _auroc(labels: np.ndarray, probabilities: np.ndarray, subjects: np.ndarray | None) -> dict[str, float]:
    """`_AUROC` by DeLong or, of subjects with several rows, by Obuchowski; the area alone where that does not exist."""
    if subjects is None:
        found = auroc_delong(labels, probabilities)
    elif min(len(np.unique(subjects[labels == label])) for label in (0, 1)) > 1:
        found = auroc_obuchowski(labels, probabilities, subjects)
    else:
        return {"auroc": auroc(labels, probabilities)}
    return dict(zip(_AUROC, (found.auroc, found.standard_error, found.low, found.high), strict=True))


def _calibration(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """What else exists of calibration, without intervals: `evaluate` has them, and looks at the design."""
    ones, curve = np.ones(len(labels)), SmoothCurve(probabilities)
    of = (labels, probabilities, ones)
    found = {
        "scaled_brier": scaled_brier(*of),
        "observed_to_expected": observed_to_expected(*of),
        "calibration_in_the_large": calibration_in_the_large(*of),
        "calibration_slope": calibration_slope(*of),
        "quantile_calibration_error": quantile_calibration_error(*of),
    } | curve_errors(probabilities, curve.observed(curve.fit(labels, ones)), ones)
    # A slope, or a curve, may not exist where scores separate cases from controls: that is no fault of the scores.
    return {name: float(value) for name, value in found.items() if np.isfinite(value)}


def without_degenerate(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics of a split that exist, and the metric `degenerate` where one does not."""
    there = {name: value for name, value in metrics.items() if np.isfinite(value)}
    return there if len(there) == len(metrics) else there | {DEGENERATE: 1.0}


def told(test: Mapping[str, float]) -> str:
    """What `evaluate_test` found, as it is printed: the AUROC, or why there is none and what to do."""
    if np.isfinite(test["auroc"]):
        interval = f" [{test['auroc_low']:.4f}, {test['auroc_high']:.4f}]" if "auroc_low" in test else ""
        return f"test AUROC {test['auroc']:.4f}{interval}"
    got = "the same score for all" if np.isfinite(test["brier"]) else "scores that are not finite, among those"
    return (
        f"no test AUROC, which needs finite scores that differ: got {got} of {test['patients']:.0f} patients (filed as "
        f"{DEGENERATE}); use a lower learning rate, and look whether the training patients have what separates them"
    )
