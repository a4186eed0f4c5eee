"""What a model's validation patients say of its probabilities: recalibration, thresholds, percentiles.

They were not trained on, and the test patients stay unseen. What is given here is told on the patients that it was
fitted on: `external_validation` says what it is worth elsewhere.
"""

from collections.abc import Sequence
from typing import Literal, TypedDict

import numpy as np
from scipy.special import expit

from medbert_jax.metrics.decisions import at_risk
from medbert_jax.metrics.weighted_calibration import calibration_in_the_large, fit_logistic, log_odds

FEWEST_CASES = 100
"""Validation cases under which the intercept alone is fitted: a slope of fewer is known too badly."""
RISKS = (0.05, 0.1, 0.2, 0.3)
FLAGGED = (0.2, 0.1, 0.05, 0.02, 0.01)
"""Shares of the validation patients with the highest risks, whose thresholds are told."""
Kind = Literal["none", "in the large", "logistic"]


class Recalibration(TypedDict):
    """Log odds become intercept + slope · log odds; `kind` says which of the two was fitted, and `why` no more."""

    kind: Kind
    intercept: float
    slope: float
    why: str


class Threshold(TypedDict):
    """What flagging at a recalibrated risk does to the validation patients; null is what does not exist."""

    risk: float
    flagged: float
    sensitivity: float
    specificity: float
    ppv: float | None
    npv: float | None


class Validated(TypedDict):
    """What is known of the probabilities on the validation patients."""

    predictions: int
    cases: int
    recalibration: Recalibration
    thresholds: list[Threshold]
    quantiles: list[float]
    """Recalibrated risks at 0, 1, … 100 percent of the validation patients, by weight; empty for a score."""


NO_RECALIBRATION = Recalibration(kind="none", intercept=0.0, slope=1.0, why="")


def fit_recalibration(labels, probabilities, weights, kind: Kind = "logistic") -> Recalibration:
    """Fitted on labels (n,) of 0/1, probabilities (n,) and weights (n,): of the `kind`, or the most that is possible.

    Sources: Cox, Biometrika 1958; Steyerberg et al., Statistics in Medicine 2004 (updating methods).
    """
    labels, weights = np.asarray(labels, np.float64), np.asarray(weights, np.float64)
    cases, why = int(labels.sum()), ""
    if kind == "none":
        return NO_RECALIBRATION
    if kind == "logistic" and cases < FEWEST_CASES:
        kind, why = "in the large", f"a slope needs {FEWEST_CASES} cases, and there are {cases}"
    if kind == "logistic":
        odds = log_odds(probabilities)
        intercept, slope = fit_logistic(np.stack([np.ones(len(odds)), odds], 1), labels, weights).tolist()
        if slope > 0:
            return Recalibration(kind="logistic", intercept=intercept, slope=slope, why="")
        why = "there is no slope above 0: these probabilities have no order, or the wrong one"
    intercept = float(calibration_in_the_large(labels, probabilities, weights))
    if not np.isfinite(intercept):
        return Recalibration(kind="none", intercept=0.0, slope=1.0, why="cases and controls are needed")
    return Recalibration(kind="in the large", intercept=intercept, slope=1.0, why=why)


def recalibrated(probabilities, by: Recalibration) -> np.ndarray:
    """(n,) probabilities after recalibration; the same ones where there is none."""
    probabilities = np.asarray(probabilities, np.float64)
    if by["kind"] == "none":
        return probabilities
    return expit(by["intercept"] + by["slope"] * log_odds(probabilities))


def validated(labels, probabilities, weights, *, is_risk: bool) -> Validated:
    """What the validation patients (n,) with a known label say; of a score nothing but how many there are."""
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, np.float64)
    weights = np.asarray(weights, np.float64)
    found = Validated(
        predictions=len(labels),
        cases=int(labels.sum()),
        recalibration=NO_RECALIBRATION,
        thresholds=[],
        quantiles=[],
    )
    if is_risk and np.isfinite(probabilities).all():
        found["recalibration"] = fit_recalibration(labels, probabilities, weights)
        risks = recalibrated(probabilities, found["recalibration"])
        found["quantiles"] = weighted_quantiles(risks, weights, np.linspace(0, 1, 101)).tolist()
        chosen = weighted_quantiles(risks, weights, 1 - np.array(FLAGGED))
        found["thresholds"] = thresholds(labels, risks, weights, (*RISKS, *chosen.tolist()))
    return found


def thresholds(labels, risks, weights, at: Sequence[float]) -> list[Threshold]:
    """What flagging at each of these risks does, ascending."""
    rows = []
    for risk in sorted({one for one in at if 0 < one < 1}):
        of = at_risk(labels, risks, weights, risk)
        ppv, npv = (float(of[name]) if np.isfinite(of[name]) else None for name in ("ppv", "npv"))
        told = {name: float(of[name]) for name in ("flagged", "sensitivity", "specificity")}
        rows.append(Threshold(risk=risk, ppv=ppv, npv=npv, **told))  # ty: ignore[missing-typed-dict-key]
    return rows


def weighted_quantiles(values, weights, shares) -> np.ndarray:
    """The least value that at least such a share of the weight does not exceed, for each of the shares."""
    values, weights = np.asarray(values, np.float64), np.asarray(weights, np.float64)
    order = np.argsort(values, kind="stable")
    there = np.cumsum(weights[order]) / weights.sum()
    return values[order][np.minimum(np.searchsorted(there, np.asarray(shares) - 1e-12), len(values) - 1)]


def percentiles(risks, quantiles: Sequence[float]) -> np.ndarray:
    """(n,) percent of the validation patients whose risk is not above each risk."""
    return np.clip(np.searchsorted(np.asarray(quantiles), risks, side="right") - 1, 0, 100).astype(np.int32)
