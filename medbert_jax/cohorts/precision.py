"""How exactly a model can be judged with so many cases and controls, and how many that needs, before it is trained.

Sample sizes for the validation of a model of a binary outcome: Riley et al., Statistics in Medicine 2021; 40:4230.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

_NORMAL_95 = 1.959964
_GRID = np.linspace(-8, 8, 4001)  # standard deviations of the log odds
_DENSITY = np.exp(-(_GRID**2) / 2)
_DENSITY /= _DENSITY.sum()


def auroc_half_width(cases: int, controls: int, auroc: float = 0.8) -> float:
    """Half the width of the 95 % interval of an AUROC, before anything is measured (Hanley, McNeil 1982).

    Infinite without a case or a control.
    """
    if not cases or not controls:
        return math.inf
    two_cases, two_controls = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    variance = auroc * (1 - auroc)
    variance += (cases - 1) * (two_cases - auroc**2) + (controls - 1) * (two_controls - auroc**2)
    return _NORMAL_95 * math.sqrt(variance / (cases * controls))


@dataclass(frozen=True)
class ValidationSize:
    """Patients that a 95 % interval of the asked width needs, for each figure."""

    observed_to_expected: int
    slope: int
    auroc: int
    net_benefit: int | None = None
    """Standardized, at one risk; None where none was given."""

    @property
    def needed(self) -> int:
        """The most of them."""
        return max(self.observed_to_expected, self.slope, self.auroc, self.net_benefit or 0)


def validation_size(
    prevalence: float,
    auroc: float = 0.8,
    *,
    odds: tuple[float, float] | None = None,
    risk: float | None = None,
    widths: tuple[float, float, float, float] = (0.2, 0.2, 0.1, 0.2),
) -> ValidationSize:
    """The four sample sizes of Riley et al. for a calibrated model.

    Args:
        prevalence: share of cases.
        auroc: that is expected.
        odds: mean and standard deviation of the model's normal log odds; None: those that give prevalence and AUROC.
        risk: at which the net benefit is judged; None: it is not.
        widths: of the 95 % intervals of observed / expected, slope, AUROC and standardized net benefit.

    Raises ValueError unless prevalence, AUROC and risk can be those of a model.
    """
    if not (0 < prevalence < 1 and 0.5 < auroc < 1 and (risk is None or 0 < risk < 1)):
        raise ValueError(
            "prevalence and risk must lie between 0 and 1, an AUROC between one half and 1: got"
            f" {prevalence}, {risk}, {auroc}; give those that are expected"
        )
    mean, deviation = odds or normal_log_odds(prevalence, auroc)
    # exp(1.96 SE) − exp(−1.96 SE) is the width of an interval around 1.
    ratio_error = math.asinh(widths[0] / 2) / _NORMAL_95
    slope_error, auroc_error, benefit_error = (width / (2 * _NORMAL_95) for width in widths[1:])
    risks = expit(mean + deviation * _GRID)
    information = _DENSITY * risks * (1 - risks)
    at_odds = mean + deviation * _GRID
    of_intercept, of_both, of_slope = (float((information * at_odds**power).sum()) for power in (0, 1, 2))
    # Newcombe's variance of an AUROC is quadratic in 1 / n.
    scale = auroc * (1 - auroc) / (prevalence * (1 - prevalence))
    curve = (1 - auroc) / (2 - auroc) + auroc / (1 + auroc)
    half = scale * curve / 2
    root = (half + math.sqrt(half**2 + 4 * auroc_error**2 * scale * (1 - curve))) / (2 * auroc_error**2)
    return ValidationSize(
        observed_to_expected=math.ceil((1 - prevalence) / (prevalence * ratio_error**2)),
        slope=math.ceil(of_intercept / (slope_error**2 * (of_intercept * of_slope - of_both**2))),
        auroc=math.ceil(root),
        net_benefit=None if risk is None else math.ceil(_benefit_variance(prevalence, risks, risk) / benefit_error**2),
    )


@functools.cache
def normal_log_odds(prevalence: float, auroc: float) -> tuple[float, float]:
    """Mean and standard deviation of normal log odds of a calibrated model with that share of cases and AUROC."""

    def mean_of(deviation: float) -> float:
        return brentq(lambda mean: float((_DENSITY * expit(mean + deviation * _GRID)).sum()) - prevalence, -40, 40)

    def auroc_of(deviation: float) -> float:
        risks = expit(mean_of(deviation) + deviation * _GRID)
        cases, controls = _DENSITY * risks / prevalence, _DENSITY * (1 - risks) / (1 - prevalence)
        return float((cases * (np.cumsum(controls) - controls / 2)).sum())

    deviation = brentq(lambda deviation: auroc_of(deviation) - auroc, 1e-3, 8)
    return mean_of(deviation), deviation


def _benefit_variance(prevalence: float, risks: np.ndarray, risk: float) -> float:
    """n times the variance of the standardized net benefit, net benefit over the share of cases."""
    flagged = risks >= risk
    sensitivity = float((_DENSITY * risks * flagged).sum()) / prevalence
    false_rate = float((_DENSITY * (1 - risks) * flagged).sum()) / (1 - prevalence)
    weight = (1 - prevalence) / prevalence * risk / (1 - risk)
    return (
        sensitivity * (1 - sensitivity) / prevalence
        + weight**2 * false_rate * (1 - false_rate) / (1 - prevalence)
        + weight**2 * false_rate**2 / (prevalence * (1 - prevalence))
    )
