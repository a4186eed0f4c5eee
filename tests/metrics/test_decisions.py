"""Acting at a risk: against dcurves, scikit-learn and theory."""

import numpy as np
import pytest
from metrics.test_weighted_ranks import LABELS, SCORES
from sklearn.metrics import confusion_matrix

from medbert_jax.metrics.decisions import at_risk, decision_curve

# dcurves 1.1.7, dca(thresholds=…): threshold → share flagged, true and false positives a patient, net benefit, of all
DCURVES = {
    0.10: (0.950, 0.30, 0.650, 0.227778, 0.222222),
    0.20: (0.850, 0.30, 0.550, 0.162500, 0.125000),
    0.35: (0.575, 0.25, 0.325, 0.075000, -0.076923),
    0.50: (0.250, 0.15, 0.100, 0.050000, -0.400000),
}


@pytest.mark.parametrize("threshold", DCURVES)
def test_equal_to_dcurves(threshold):
    flagged, true, false, benefit, of_all = DCURVES[threshold]
    found = at_risk(LABELS, SCORES, np.ones(40), threshold)
    assert found["flagged"] == pytest.approx(flagged, abs=1e-12)
    assert found["sensitivity"] == pytest.approx(true / 0.3, abs=1e-12)
    assert 1 - found["specificity"] == pytest.approx(false / 0.7, abs=1e-12)
    assert found["net_benefit"] == pytest.approx(benefit, abs=5e-7)
    assert found["net_benefit_all"] == pytest.approx(of_all, abs=5e-7)


def test_equal_to_the_confusion_matrix_of_scikit_learn_with_weights():
    weights = np.random.default_rng(0).gamma(1, 1, (3, 40))
    found = at_risk(LABELS, SCORES, weights, 0.3)
    for number, one in enumerate(weights):
        tn, fp, fn, tp = confusion_matrix(LABELS, SCORES >= 0.3, sample_weight=one).ravel()
        expected = {"sensitivity": tp / (tp + fn), "specificity": tn / (tn + fp), "ppv": tp / (tp + fp)}
        expected |= {"npv": tn / (tn + fn), "flagged": (tp + fp) / one.sum()}
        expected["net_benefit"] = (tp - fp * 0.3 / 0.7) / one.sum()
        assert {name: found[name][number] for name in expected} == pytest.approx(expected, abs=1e-10)


def test_the_decision_curve_is_the_net_benefit_at_every_threshold():
    weights = np.random.default_rng(1).gamma(1, 1, (3, 40))
    benefit, of_all = decision_curve(LABELS, SCORES, weights, (0.1, 0.35))
    for place, threshold in enumerate((0.1, 0.35)):
        expected = at_risk(LABELS, SCORES, weights, threshold)
        assert benefit[:, place] == pytest.approx(expected["net_benefit"], abs=1e-12)
        assert of_all[:, place] == pytest.approx(expected["net_benefit_all"], abs=1e-12)


def test_nobody_flagged_has_no_predictive_value_and_no_benefit():
    found = at_risk([0, 1], [0.1, 0.2], np.ones(2), 0.5)
    assert np.isnan(found["ppv"]) and found["net_benefit"] == 0 and found["npv"] == 0.5


@pytest.mark.parametrize("threshold", [0, 1, -0.1])
def test_a_threshold_that_is_no_risk_is_refused(threshold):
    with pytest.raises(ValueError, match="a threshold of risk must lie between 0 and 1: got"):
        at_risk([0, 1], [0.1, 0.2], np.ones(2), threshold)
