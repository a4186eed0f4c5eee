"""Calibration of patients who weigh differently: Brier, in the large, slope, quantile bins, smooth curve.

Sources: Cox, Biometrika 1958 (intercept and slope); Austin and Steyerberg, Statistics in Medicine 2019 (ICI, E50, E90).
The curve is a logistic regression on a natural cubic spline of the log odds with Harrell's four knots, as in `rms`.
Everything takes weights (…, n), see `weighted_ranks`, and gives (…,): many bootstrap draws are fitted together.
"""

import numpy as np
from scipy.special import expit, logit

KNOTS = (0.05, 0.35, 0.65, 0.95)
"""Quantiles of the log odds (Harrell, Regression Modeling Strategies, table 2.3)."""
_CERTAIN = 1e-8
"""Probabilities are kept so far from 0 and 1, where log odds are infinite."""
_STEPS, _LONGEST, _STILL, _FLAT = 60, 4.0, 1e-7, 1e-10  # a step below _STILL leaves about its square


def log_odds(probabilities) -> np.ndarray:
    """(n,) log odds of probabilities, finite also of 0 and 1."""
    return logit(np.clip(np.asarray(probabilities, np.float64), _CERTAIN, 1 - _CERTAIN))


def weighted_brier(labels, probabilities, weights) -> np.ndarray:
    """Weighted mean of the squared difference between outcome and probability; 0 is perfect."""
    weights, squares = np.asarray(weights, np.float64), (np.asarray(labels) - np.asarray(probabilities)) ** 2
    return _ratio(weights @ squares, weights.sum(-1))


def scaled_brier(labels, probabilities, weights) -> np.ndarray:
    """1 − Brier / Brier of giving everybody the observed rate: 1 is perfect, 0 as good as the rate, below 0 worse."""
    weights = np.asarray(weights, np.float64)
    rate = _ratio(weights @ np.asarray(labels, np.float64), weights.sum(-1))
    return 1 - _ratio(weighted_brier(labels, probabilities, weights), rate * (1 - rate))


def quantile_calibration_error(labels, probabilities, weights, bins: int = 10) -> np.ndarray:
    """Mean over patients of |observed rate − mean probability| of the patient's bin; the bins are tenths of the sample.

    Equal probabilities share a bin. Bins of equal width would hold nearly all patients of a rare outcome in one.
    """
    probabilities, weights = np.asarray(probabilities, np.float64), np.asarray(weights, np.float64)
    edges = np.quantile(probabilities, np.linspace(0, 1, bins + 1)[1:-1])
    bin_of = np.searchsorted(edges, probabilities, side="right")
    gap_of_bin = np.where(bin_of[:, None] == np.arange(bins), (np.asarray(labels) - probabilities)[:, None], 0.0)
    return _ratio(np.abs(weights @ gap_of_bin).sum(-1), weights.sum(-1))


def observed_to_expected(labels, probabilities, weights) -> np.ndarray:
    """Cases that there were over those expected, the sum of the probabilities."""
    weights = np.asarray(weights, np.float64)
    return _ratio(weights @ np.asarray(labels, np.float64), weights @ np.asarray(probabilities, np.float64))


def calibration_in_the_large(labels, probabilities, weights) -> np.ndarray:
    """What has to be added to everybody's log odds for as many cases as there were: 0 is perfect."""
    offset = log_odds(probabilities)
    return fit_logistic(np.ones((len(offset), 1)), labels, weights, offset=offset)[..., 0]


def calibration_slope(labels, probabilities, weights) -> np.ndarray:
    """What everybody's log odds have to be multiplied by, beside an intercept: 1 is perfect, below 1 too extreme."""
    return fit_logistic(np.stack([np.ones(len(labels)), log_odds(probabilities)], 1), labels, weights)[..., 1]


class SmoothCurve:
    """The smooth calibration curve of probabilities (n,); a straight line where there are fewer than four knots."""

    def __init__(self, probabilities):
        """Knots are those of the sample, so that all its draws have the same basis."""
        self._knots = np.unique(np.quantile(log_odds(probabilities), KNOTS))
        self._basis = self.basis(probabilities)

    def basis(self, probabilities) -> np.ndarray:
        """(n, knots) values of the cardinal natural splines; linear outside of the knots."""
        odds, knots = log_odds(probabilities), self._knots
        if len(knots) < len(KNOTS):
            return np.stack([np.ones(len(odds)), odds], 1)
        # Here, because it takes a second to import, for which no training need wait.
        from scipy.interpolate import CubicSpline

        spline = CubicSpline(knots, np.eye(len(knots)), bc_type="natural")
        inside = np.clip(odds, knots[0], knots[-1])
        return spline(inside) + spline(inside, 1) * (odds - inside)[:, None]

    def fit(self, labels, weights) -> np.ndarray:
        """(…, k) coefficients."""
        return fit_logistic(self._basis, labels, weights)

    def observed(self, coefficients: np.ndarray, basis: np.ndarray | None = None) -> np.ndarray:
        """(…, n) observed rate along the curve, at the sample's own probabilities or those of another basis."""
        return expit(coefficients @ (self._basis if basis is None else basis).T)


def curve_errors(probabilities, observed, weights) -> dict[str, np.ndarray]:
    """ici, e50, e90: weighted mean, median and 90 % quantile of |probability − observed rate of the curve|."""
    gaps = np.abs(observed - np.asarray(probabilities, np.float64))
    weights = np.broadcast_to(np.asarray(weights, np.float64), gaps.shape)
    order = np.argsort(gaps, axis=-1)
    ordered, cumulated = np.take_along_axis(gaps, order, -1), np.cumsum(np.take_along_axis(weights, order, -1), -1)
    whole = cumulated[..., -1]
    found = {"ici": _ratio((gaps * weights).sum(-1), whole)}
    for name, share in (("e50", 0.5), ("e90", 0.9)):
        place = (cumulated >= share * whole[..., None] * (1 - 1e-12)).argmax(-1)
        found[name] = np.where(whole > 0, np.take_along_axis(ordered, place[..., None], -1)[..., 0], np.nan)
    return found


def fit_logistic(design, labels, weights, *, offset=0.0) -> np.ndarray:
    """Maximum likelihood of P(label) = expit(offset + design · coefficients), by Newton's steps, all weights at once.

    design (n, k), labels (n,) of 0/1, weights (…, n). Returns (…, k); NaN where there is no maximum, as where one class
    weighs nothing or the design separates the two.
    """
    design, labels = np.asarray(design, np.float64), np.asarray(labels, np.float64)
    weights = np.asarray(weights, np.float64)
    flat, k = weights.reshape(-1, weights.shape[-1]), design.shape[1]
    # Columns that are nearly one would lead the steps astray: orthogonal ones in their place, of mean square 1.
    columns, triangle = np.linalg.qr(design)
    columns, triangle = columns * np.sqrt(len(design)), triangle / np.sqrt(len(design))
    found = np.full((len(flat), k), np.nan)
    if np.abs(np.diag(triangle)).min() > _FLAT * np.abs(triangle).max():
        found = np.linalg.solve(triangle, _newton(columns, labels, flat, offset)[..., None])[..., 0]
    return found.reshape(*weights.shape[:-1], k)


def _newton(columns: np.ndarray, labels: np.ndarray, weights: np.ndarray, offset) -> np.ndarray:
    """(draws, k) coefficients of orthogonal columns (n, k) of mean square 1; NaN without a maximum."""
    k = columns.shape[1]
    products = (columns[:, :, None] * columns[:, None, :]).reshape(len(columns), k * k)
    target, cases, everybody = weights @ (columns * labels[:, None]), weights @ labels, weights.sum(-1)
    found, coefficients = np.full((2, len(weights), k), np.nan)
    going = np.flatnonzero((cases > 0) & (cases < everybody))
    coefficients[:] = 0
    if len(weights) > 1:  # draws lie about their sum: from its maximum it is half as far
        coefficients += np.nan_to_num(_newton(columns, labels, weights.sum(0)[None], offset))
    for _ in range(_STEPS):
        if not len(going):
            break
        here = weights[going]
        rate = expit(offset + coefficients[going] @ columns.T)
        gradient = target[going] - (here * rate) @ columns
        curvature = ((here * rate * (1 - rate)) @ products).reshape(-1, k, k)
        # Where the columns separate cases from controls the likelihood becomes flat, on and on.
        solvable = np.trace(curvature, axis1=1, axis2=2) > _FLAT * everybody[going]
        solvable &= np.linalg.cond(np.where(solvable[:, None, None], curvature, np.eye(k))) < 1e12
        step = np.zeros_like(gradient)
        step[solvable] = np.linalg.solve(curvature[solvable], gradient[solvable][..., None])[..., 0]
        length = np.linalg.norm(step, axis=-1)
        coefficients[going] += step * np.minimum(1, _LONGEST / np.maximum(length, _LONGEST))[:, None]
        still = solvable & (length < _STILL * (1 + np.linalg.norm(coefficients[going], axis=-1)))
        found[going[still]] = coefficients[going[still]]
        going = going[solvable & ~still]
    return found


def _ratio(part, whole) -> np.ndarray:
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
