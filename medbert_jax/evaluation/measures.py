"""Every metric of one model's probabilities, for the sample itself and for all draws of a bootstrap at once."""

from collections.abc import Mapping, Sequence

import numpy as np

from medbert_jax.metrics.bootstrap import Draws
from medbert_jax.metrics.clusters import within_set_concordance
from medbert_jax.metrics.decisions import at_risk, decision_curve
from medbert_jax.metrics.weighted_calibration import (
    SmoothCurve,
    calibration_in_the_large,
    calibration_slope,
    curve_errors,
    observed_to_expected,
    quantile_calibration_error,
    scaled_brier,
    weighted_brier,
)
from medbert_jax.metrics.weighted_ranks import RankedPatients

Key = tuple[str, float | None]
"""Metric, and the risk or specificity that it is taken at."""
DECISION_RISKS = tuple(round(0.01 * step, 2) for step in range(1, 51))
"""Of the decision curve."""
CURVE_POINTS = 40
OF_RISK = ("ppv", "npv", "flagged", "net_benefit", "net_benefit_over_all")
"""What a threshold of risk shows that depends on the share of cases."""


class Measures:
    """The metrics of labels (n,) of 0/1 and probabilities (n,)."""

    def __init__(
        self,
        labels: np.ndarray,
        probabilities: np.ndarray,
        *,
        absolute: bool,
        risks: Sequence[float],
        specificities: Sequence[float] = (),
        sets: np.ndarray | None = None,
        full: bool = True,
        curve_risks: np.ndarray | None = None,
    ):
        """`absolute`: also what depends on the share of cases. `full`: also what needs many patients. `curve_risks`:
        where the smooth calibration curve is taken; None: from the least to the largest probability."""
        self.labels, self.probabilities = np.asarray(labels, np.float64), np.asarray(probabilities, np.float64)
        self._absolute, self._full = absolute, full
        self._risks, self._specificities = tuple(risks), tuple(specificities)
        self._ranked = RankedPatients(self.labels, self.probabilities)
        self._curve = SmoothCurve(self.probabilities) if full and absolute else None
        self._fitted: tuple[np.ndarray, np.ndarray] | None = None
        self._sets = sets
        self.curve_risks = spread(self.probabilities) if curve_risks is None else curve_risks

    def __call__(self, weights: np.ndarray) -> dict[Key, np.ndarray]:
        """Key → metric (…,) for weights (…, n)."""
        found: dict[Key, np.ndarray] = {("auroc", None): self._ranked.auroc(weights)}
        if self._sets is not None:
            found["concordance_within_sets", None] = self._within_sets(weights)
        for specificity in self._specificities:
            found["sensitivity_at_specificity", specificity] = self._ranked.at_specificity(weights, specificity)[1]
        for risk in self._risks:
            found |= self._at(weights, risk)
        return found | self._of_risks(weights) if self._absolute else found

    def _at(self, weights: np.ndarray, risk: float) -> dict[Key, np.ndarray]:
        of = at_risk(self.labels, self.probabilities, weights, risk)
        of["net_benefit_over_all"] = of["net_benefit"] - of.pop("net_benefit_all")
        return {(name, risk): values for name, values in of.items() if self._absolute or name not in OF_RISK}

    def _of_risks(self, weights: np.ndarray) -> dict[Key, np.ndarray]:
        of = (self.labels, self.probabilities, weights)
        found = {
            "brier": weighted_brier(*of),
            "scaled_brier": scaled_brier(*of),
            "observed_to_expected": observed_to_expected(*of),
        }
        if self._curve is not None:
            observed = self._curve.observed(self._coefficients(weights))
            found |= {
                "average_precision": self._ranked.average_precision(weights),
                "calibration_in_the_large": calibration_in_the_large(*of),
                "calibration_slope": calibration_slope(*of),
                "quantile_calibration_error": quantile_calibration_error(*of),
            } | curve_errors(self.probabilities, observed, weights)
        return {(name, None): values for name, values in found.items()}

    def curves(self, weights: np.ndarray) -> dict[Key, np.ndarray]:
        """The smooth calibration curve at `curve_risks`, and the decision curves; keys as those of metrics."""
        if self._curve is None:
            return {}
        found: dict[Key, np.ndarray] = {}
        along = self._curve.observed(self._coefficients(weights), self._curve.basis(self.curve_risks))
        found |= {("calibration", float(risk)): along[..., place] for place, risk in enumerate(self.curve_risks)}
        benefits = decision_curve(self.labels, self.probabilities, weights, DECISION_RISKS)
        for name, along in zip(("decision", "decision_all"), benefits, strict=True):
            found |= {(name, risk): along[..., place] for place, risk in enumerate(DECISION_RISKS)}
        return found

    def _coefficients(self, weights: np.ndarray) -> np.ndarray:
        """Of the smooth curve, fitted once for its errors and its points."""
        assert self._curve is not None
        if self._fitted is None or self._fitted[0] is not weights:
            self._fitted = weights, self._curve.fit(self.labels, weights)
        return self._fitted[1]

    def _within_sets(self, weights: np.ndarray) -> np.ndarray:
        """Mean over sets; a set weighs as its rows, which are drawn together."""
        assert self._sets is not None
        names, shares = within_set_concordance(self.labels, self.probabilities, self._sets)
        place = {name: row for row, name in enumerate(self._sets.tolist())}
        of_sets = np.asarray(weights)[..., [place[name] for name in names.tolist()]]
        whole = of_sets.sum(-1)
        return np.divide(of_sets @ shares, whole, out=np.full(whole.shape, np.nan), where=whole > 0)


def spread(probabilities: np.ndarray) -> np.ndarray:
    """Risks between the least and the largest, evenly spread over the patients and over the range."""
    by_patient = np.quantile(probabilities, np.linspace(0, 1, CURVE_POINTS // 2))
    return np.unique(np.concatenate([by_patient, np.linspace(*by_patient[[0, -1]], CURVE_POINTS // 2)]))


def drawn(
    measures: Mapping[str, Measures], rows: Mapping[str, np.ndarray], draws: Draws, *, curves=False
) -> tuple[dict[str, dict[Key, float]], dict[str, dict[Key, np.ndarray]]]:
    """Name → key → value of the sample, and the same of every draw (draws,): all measures on the same draws.

    rows: which of the patients (n,) each is of. `curves`: also the points of curves.
    """

    def all_of(name: str, weights: np.ndarray) -> dict[Key, np.ndarray]:
        weights = weights[..., rows[name]]
        found = measures[name](weights)
        return found | measures[name].curves(weights) if curves else found

    weight = np.ones(len(draws.clusters)) if draws.weight is None else draws.weight
    sample = {name: {key: float(one) for key, one in all_of(name, weight).items()} for name in measures}
    parts: dict[str, dict[Key, list]] = {name: {key: [] for key in of} for name, of in sample.items()}
    for weights in draws.weights():
        for name in measures:
            for key, values in all_of(name, weights).items():
                parts[name][key].append(values)
    return sample, {name: {key: np.concatenate(of) for key, of in keys.items()} for name, keys in parts.items()}
