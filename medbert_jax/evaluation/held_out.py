"""The one reader of the test split: predictions filed, numbers returned."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from medbert_jax.data.sequences import PatientSequences
from medbert_jax.data.token_store import open_token_store, read_metadata
from medbert_jax.evaluation.predictions import write_predictions
from medbert_jax.metrics.calibration import brier, expected_calibration_error, log_loss
from medbert_jax.metrics.discrimination import auroc_delong, average_precision


def evaluate_test(
    dataset: str | Path,
    predict: Callable[[PatientSequences], np.ndarray],
    predictions: str | Path,
    *,
    cache_dir: str = "",
) -> dict[str, float]:
    """Predict the cohort's test patients, write the predictions (MEDS schema), return metric name → value.

    `predict` maps whole sequences to probabilities (n,), in their order; truncating is its business. `cache_dir` as in
    `open_token_store`.
    """
    test = open_token_store(dataset, "test", cache_dir)
    labels, probabilities = test.outcomes["label"], predict(test)
    write_predictions(
        predictions,
        subject_id=test.patient_id,
        prediction_time=test.outcomes["prediction_time"],
        labels=labels,
        probabilities=probabilities,
        time_is_ordinal=read_metadata(dataset)["time_is_ordinal"],
    )
    return summarize_predictions(labels, probabilities)


def summarize_predictions(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """AUROC with DeLong's 95 % interval, and the rest, of (n,) labels 0/1 and (n,) probabilities."""
    interval = auroc_delong(labels, probabilities)
    return {
        "auroc": interval.auroc,
        "auroc_standard_error": interval.standard_error,
        "auroc_low": interval.low,
        "auroc_high": interval.high,
        "average_precision": average_precision(labels, probabilities),
        "brier": brier(labels, probabilities),
        "log_loss": log_loss(labels, probabilities),
        "expected_calibration_error": expected_calibration_error(labels, probabilities),
        "patients": float(len(labels)),
        "cases": float(np.sum(labels)),
    }
