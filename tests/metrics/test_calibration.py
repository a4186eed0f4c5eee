"""Brier, log loss and calibration error against scikit-learn and bins counted by hand."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss
from sklearn.metrics import log_loss as sklearn_log_loss

from medbert_jax.metrics.calibration import brier, expected_calibration_error, log_loss


@pytest.fixture
def patients():
    random = np.random.default_rng(0)
    probabilities = random.beta(1, 3, 500)
    return (random.random(500) < probabilities).astype(int), probabilities


def test_equal_to_scikit_learn(patients):
    labels, probabilities = patients
    probabilities[:4] = (0, 1, 0, 1)
    labels[:4] = (0, 0, 1, 1)
    pairs = [
        (brier, brier_score_loss(labels, probabilities)),
        (log_loss, sklearn_log_loss(labels, probabilities)),
    ]
    planted = probabilities.copy()
    planted[10] += 1e-6
    for metric, expected in pairs:
        assert metric(labels, probabilities) == pytest.approx(expected, abs=1e-12)
        assert metric(labels, planted) != pytest.approx(expected, abs=1e-12)


def test_single_precision_is_kept_from_the_ends_by_its_own_epsilon():
    assert log_loss([0], np.float32([1])) == pytest.approx(-np.log(np.finfo(np.float32).eps), rel=1e-6)
    assert log_loss([0, 1], [0, 1]) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_calibration_error_is_the_weighted_gap_of_the_calibration_curve(patients, strategy):
    labels, probabilities = patients
    bins = 10
    edges = np.linspace(0, 1, bins + 1)
    edges = edges if strategy == "uniform" else np.quantile(probabilities, edges)
    weights = np.histogram(probabilities, edges)[0]
    rates, means = calibration_curve(labels, probabilities, n_bins=bins, strategy=strategy)
    expected = np.sum(weights[weights > 0] * np.abs(rates - means)) / labels.size
    found = expected_calibration_error(labels, probabilities, bins=bins, strategy=strategy)
    assert found == pytest.approx(expected, abs=1e-12)
    assert found != pytest.approx(
        expected_calibration_error(labels, probabilities, bins=7, strategy=strategy), abs=1e-12
    )


def test_calibration_error_by_hand():
    # Bins [0, ½) and [½, 1]: |0 − 0.4| for two patients, |1 + 0 − 0.5 − 1.0| / 2 for the other two.
    found = expected_calibration_error([0, 0, 1, 0], [0.4, 0.4, 0.5, 1.0], bins=2)
    assert found == pytest.approx((0.8 + 0.5) / 4)
    assert expected_calibration_error([0, 1, 1, 0], [0.5] * 4, strategy="quantile") == 0


def test_one_class_is_enough():
    assert brier([1, 1], [0.5, 1]) == 0.125
    assert log_loss([1], [0.5]) == pytest.approx(np.log(2))


@pytest.mark.parametrize("metric", [brier, log_loss, expected_calibration_error])
def test_wrong_input_is_refused(metric):
    with pytest.raises(ValueError, match=r"in \[0, 1\]: got 2 of 3 outside; turn logits"):
        metric([0, 1, 1], [-0.1, 0.5, 3])
    with pytest.raises(ValueError, match="probabilities must be finite: got 1 NaN"):
        metric([0, 1], [0.1, np.nan])
    with pytest.raises(ValueError, match="got 0; check the split"):
        metric([], [])


def test_unknown_strategy_is_refused():
    with pytest.raises(ValueError, match="strategy='even'; use bins=10"):
        expected_calibration_error([0], [0.1], strategy="even")
