"""Calibration against statsmodels and scikit-learn, and against what theory says of a model of known faults."""

import numpy as np
import pytest
import statsmodels.api as sm
from metrics.test_weighted_ranks import LABELS, SCORES
from scipy.special import expit, logit
from sklearn.metrics import brier_score_loss

from medbert_jax.metrics.calibration import expected_calibration_error
from medbert_jax.metrics.decisions import at_risk
from medbert_jax.metrics.weighted_calibration import (
    KNOTS,
    SmoothCurve,
    calibration_in_the_large,
    calibration_slope,
    curve_errors,
    fit_logistic,
    log_odds,
    observed_to_expected,
    quantile_calibration_error,
    scaled_brier,
    weighted_brier,
)
from medbert_jax.metrics.weighted_ranks import RankedPatients


@pytest.fixture(scope="module")
def patients():
    random = np.random.default_rng(0)
    probabilities = random.beta(1, 4, 600)
    labels = random.random(600) < expit(0.4 + 0.7 * logit(probabilities))
    return labels.astype(int), probabilities, random.gamma(1, 1, (4, 600))


def glm(design, labels, weights, offset=None):
    return sm.GLM(labels, design, family=sm.families.Binomial(), freq_weights=weights, offset=offset).fit(tol=1e-14)


def test_intercept_and_slope_equal_to_statsmodels(patients):
    labels, probabilities, weights = patients
    odds = logit(probabilities)
    large, slope = (of(labels, probabilities, weights) for of in (calibration_in_the_large, calibration_slope))
    for number, one in enumerate(weights):
        assert large[number] == pytest.approx(glm(np.ones(600), labels, one, odds).params[0], abs=1e-10)
        assert slope[number] == pytest.approx(glm(sm.add_constant(odds), labels, one).params[1], abs=1e-10)
    assert calibration_slope(labels, probabilities, weights[0]) == pytest.approx(slope[0], abs=1e-12)
    assert slope[0] != pytest.approx(slope[1], abs=1e-3)


def test_the_smooth_curve_is_a_logistic_regression_on_harrells_spline(patients):
    """Truncated cubes as Harrell prints them (Regression Modeling Strategies, 2.25), as `rms::rcs`, by statsmodels."""
    labels, probabilities, weights = patients
    odds = logit(probabilities)
    a, b, c, d = np.quantile(odds, KNOTS)

    def truncated(knot):
        of_knot, of_c, of_d = (np.maximum(odds - one, 0) ** 3 for one in (knot, c, d))
        return of_knot - of_c * (d - knot) / (d - c) + of_d * (c - knot) / (d - c)

    design = sm.add_constant(np.stack([odds, truncated(a), truncated(b)], 1))
    curve = SmoothCurve(probabilities)
    observed = curve.observed(curve.fit(labels, weights))
    for number, one in enumerate(weights):
        expected = glm(design, labels, one).fittedvalues
        assert observed[number] == pytest.approx(expected, abs=1e-8)
        gaps = np.abs(expected - probabilities)
        found = curve_errors(probabilities, observed[number], one)
        assert found["ici"] == pytest.approx(np.average(gaps, weights=one), abs=1e-8)
    found = curve_errors(probabilities, observed[0], np.ones(600))
    assert found["e50"] == pytest.approx(np.quantile(np.abs(observed[0] - probabilities), 0.5, method="inverted_cdf"))
    assert found["e90"] == pytest.approx(np.quantile(np.abs(observed[0] - probabilities), 0.9, method="inverted_cdf"))


def test_of_few_different_risks_the_curve_is_a_line():
    labels, probabilities = np.array([0, 0, 1, 0, 1, 1]), np.array([0.1, 0.1, 0.1, 0.6, 0.6, 0.6])
    curve = SmoothCurve(probabilities)
    assert curve.observed(curve.fit(labels, np.ones(6))) == pytest.approx([1 / 3] * 3 + [2 / 3] * 3, abs=1e-9)


def test_brier_equal_to_scikit_learn_and_meds_evaluation(patients):
    labels, probabilities, weights = patients
    expected = [brier_score_loss(labels, probabilities, sample_weight=one) for one in weights]
    assert weighted_brier(labels, probabilities, weights) == pytest.approx(expected, abs=1e-12)
    # meds-evaluation 0.0.6, which computes it in float32
    assert weighted_brier(LABELS, SCORES, np.ones(40)) == pytest.approx(0.1674356410900529, abs=1e-8)
    rate = np.average(labels, weights=weights[0])
    assert scaled_brier(labels, probabilities, weights)[0] == pytest.approx(1 - expected[0] / (rate * (1 - rate)))


def test_quantile_bins_are_those_of_the_unweighted_error(patients):
    labels, probabilities, _ = patients
    expected = expected_calibration_error(labels, probabilities, strategy="quantile")
    assert quantile_calibration_error(labels, probabilities, np.ones(600)) == pytest.approx(expected, abs=1e-12)
    twice = np.where(np.arange(600) < 300, 2.0, 1.0)
    assert quantile_calibration_error(labels, probabilities, twice) != pytest.approx(expected, abs=1e-6)


def test_where_there_is_no_maximum_there_is_no_number():
    # Cases and controls separated; one class alone; somebody who weighs nothing between them.
    weights = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]])
    found = fit_logistic(np.stack([np.ones(4), np.arange(4)], 1), [0, 0, 1, 1], weights)
    assert np.isnan(found).all()
    assert np.isfinite(fit_logistic(np.ones((4, 1)), [0, 0, 1, 1], weights[0])).all()


def test_risks_that_hardly_differ_have_a_steep_slope_as_in_statsmodels():
    random = np.random.default_rng(2)
    odds = np.repeat(np.linspace(-2.22, -1.99, 15), 20)
    labels = random.random(300) < expit(26 + 13 * odds)
    found = calibration_slope(labels, expit(odds), np.ones(300))
    assert found == pytest.approx(glm(sm.add_constant(odds), labels.astype(int), np.ones(300)).params[1], rel=1e-8)
    assert found > 5
    assert np.isnan(calibration_slope(labels, np.full(300, 0.2), np.ones(300)))  # none that differ


def test_certain_probabilities_have_log_odds():
    assert np.isfinite(log_odds([0, 1])).all()
    assert np.isfinite(calibration_slope([0, 1, 1, 0], [0, 1, 0.3, 0.4], np.ones(4)))


# ── A simulated model of known calibration, 2 % of 100,000 patients cases ─────────────────────────────────────────────


@pytest.fixture(scope="module")
def rare():
    random = np.random.default_rng(1)
    odds = random.normal(-4.6, 1.1, 100_000)
    risk = expit(odds)
    assert risk.mean() == pytest.approx(0.018, abs=0.002)
    return (random.random(len(risk)) < risk).astype(int), risk


def figures(labels, probabilities):
    ones = np.ones(len(labels))
    curve = SmoothCurve(probabilities)
    return {
        "auroc": RankedPatients(labels, probabilities).auroc(ones),
        "brier": weighted_brier(labels, probabilities, ones),
        "scaled": scaled_brier(labels, probabilities, ones),
        "large": calibration_in_the_large(labels, probabilities, ones),
        "ratio": observed_to_expected(labels, probabilities, ones),
        "slope": calibration_slope(labels, probabilities, ones),
        "bins": quantile_calibration_error(labels, probabilities, ones),
        "uniform": expected_calibration_error(labels, probabilities),
        "benefit": at_risk(labels, probabilities, ones, 0.05)["net_benefit"],
    } | curve_errors(probabilities, curve.observed(curve.fit(labels, ones)), ones)


def test_every_metric_moves_as_theory_says(rare):
    """Tolerances are four standard errors of about 1,800 cases."""
    labels, risk = rare
    true = figures(labels, risk)
    assert true["large"] == pytest.approx(0, abs=0.1) and true["slope"] == pytest.approx(1, abs=0.1)
    assert true["ratio"] == pytest.approx(1, abs=0.1) and true["ici"] < 0.0015 and true["bins"] < 0.002
    # What the true risks reach is the least Brier of all, E[p(1 − p)].
    assert true["brier"] == pytest.approx(np.mean(risk * (1 - risk)), abs=0.001)
    # Log odds one and a half times as far from 0: too extreme. The order, and what only orders, stays.
    extreme = figures(labels, expit(1.5 * logit(risk)))
    assert extreme["slope"] == pytest.approx(true["slope"] / 1.5, abs=1e-6)
    assert extreme["auroc"] == pytest.approx(true["auroc"], abs=1e-12)
    # Risks raised to a power: too low, and of low risks the log odds are about the power times as large.
    powered = figures(labels, risk**1.5)
    assert powered["slope"] == pytest.approx(true["slope"] / 1.5, abs=0.05)
    assert powered["large"] > 1 and powered["ratio"] > 3
    # All log odds raised by 1: too many cases expected by as much; the slope stays.
    shifted = figures(labels, expit(logit(risk) + 1))
    assert shifted["large"] == pytest.approx(true["large"] - 1, abs=1e-6)
    assert shifted["slope"] == pytest.approx(true["slope"], abs=1e-6)
    assert shifted["ratio"] < 0.5
    # Risks inverted about their median, as common as the true ones.
    inverted = figures(labels, np.sort(risk)[::-1][np.argsort(np.argsort(risk))])
    assert inverted["auroc"] == pytest.approx(1 - true["auroc"], abs=1e-9)
    assert inverted["slope"] < -0.5 and inverted["ratio"] == pytest.approx(true["ratio"], abs=1e-9)
    for worse in (extreme, powered, shifted, inverted):
        assert worse["brier"] > true["brier"] and worse["scaled"] < true["scaled"]
        assert worse["benefit"] < true["benefit"]
        assert worse["ici"] > 3 * true["ici"] and worse["e90"] > 3 * true["e90"] and worse["bins"] > 5 * true["bins"]


def test_quantile_bins_tell_inverted_risks_of_a_rare_outcome_and_equal_bins_do_not(rare):
    labels, risk = rare
    inverted = np.sort(risk)[::-1][np.argsort(np.argsort(risk))]
    common = risk < 0.1  # all in the first of ten equal bins
    true, other = figures(labels[common], risk[common]), figures(labels[common], inverted[common])
    assert other["bins"] > 10 * true["bins"]
    flat = figures(labels[common], np.full(common.sum(), labels[common].mean() + true["uniform"]))
    # One bin: whoever has the mean right is right, whichever order he gives.
    assert flat["uniform"] == pytest.approx(true["uniform"], abs=1e-9)
