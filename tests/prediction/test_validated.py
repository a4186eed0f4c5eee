"""Recalibration, thresholds and percentiles on literal and on simulated validation patients."""

import numpy as np
import pytest
from scipy.special import expit, logit

from medbert_jax.prediction.validated import (
    fit_recalibration,
    percentiles,
    recalibrated,
    validated,
    weighted_quantiles,
)


def simulated(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and the risks that they were drawn from."""
    random = np.random.default_rng(seed)
    risk = expit(random.normal(-1.5, 1.2, n))
    return (random.random(n) < risk).astype(int), risk


def test_a_stretched_and_shifted_model_is_brought_back():
    label, risk = simulated(20_000)
    wrong = expit(1.0 + 2.0 * logit(risk))
    by = fit_recalibration(label, wrong, np.ones(len(label)))
    assert by["kind"] == "logistic" and by["slope"] == pytest.approx(0.5, abs=0.03)
    assert np.abs(recalibrated(wrong, by) - risk).max() < 0.05
    large = fit_recalibration(label, wrong, np.ones(len(label)), "in the large")
    assert large["slope"] == 1 and recalibrated(wrong, large).mean() == pytest.approx(label.mean(), abs=1e-6)
    none = fit_recalibration(label, wrong, np.ones(len(label)), "none")
    assert (recalibrated(wrong, none) == wrong).all()


def test_few_cases_have_an_intercept_alone():
    label, risk = simulated(2000)
    (cases,) = np.nonzero(label)
    for few, kind in ((99, "in the large"), (100, "logistic")):
        rows = np.sort(np.concatenate([np.flatnonzero(label == 0), cases[:few]]))
        by = fit_recalibration(label[rows], risk[rows], np.ones(len(rows)))
        assert by["kind"] == kind and bool(by["why"]) == (few < 100)


def test_risks_in_the_wrong_order_get_no_slope():
    label, risk = simulated(3000)
    by = fit_recalibration(label, 1 - risk, np.ones(len(label)))
    assert by["kind"] == "in the large" and "wrong one" in by["why"]


def test_one_class_has_no_recalibration():
    by = fit_recalibration(np.zeros(9), np.full(9, 0.3), np.ones(9))
    assert by["kind"] == "none" and by["why"] == "cases and controls are needed"


def test_weights_are_as_so_many_patients():
    label, risk = simulated(1500)
    weight = np.where(label == 1, 1, 3)
    again = np.repeat(np.arange(len(label)), weight)
    one = validated(label, risk, weight, is_risk=True)
    other = validated(label[again], risk[again], np.ones(len(again)), is_risk=True)
    for name in ("intercept", "slope"):
        assert one["recalibration"][name] == pytest.approx(other["recalibration"][name], abs=1e-8)
    assert one["quantiles"] == pytest.approx(other["quantiles"])
    for mine, theirs in zip(one["thresholds"], other["thresholds"], strict=True):
        assert mine == pytest.approx(theirs)


def test_percentiles_of_literal_risks():
    quantiles = weighted_quantiles(np.arange(1, 101) / 100, np.ones(100), np.linspace(0, 1, 101))
    assert percentiles([0.0, 0.01, 0.5, 0.505, 1.0, 2.0], quantiles).tolist() == [0, 1, 50, 50, 100, 100]
    assert weighted_quantiles([1.0, 2.0, 3.0], [1, 1, 2], [0.0, 0.25, 0.26, 0.5, 0.51]).tolist() == [1, 1, 2, 2, 3]


def test_thresholds_flag_the_share_that_they_are_named_after():
    label, risk = simulated(5000)
    found = validated(label, risk, np.ones(5000), is_risk=True)["thresholds"]
    assert [one["risk"] for one in found] == sorted(one["risk"] for one in found)
    shares = sorted(one["flagged"] for one in found)
    assert all(min(abs(share - asked) for share in shares) < 0.002 for asked in (0.2, 0.1, 0.05, 0.02, 0.01))


def test_a_score_has_neither_thresholds_nor_percentiles():
    label, risk = simulated(500)
    found = validated(label, risk, np.ones(500), is_risk=False)
    assert (found["thresholds"], found["quantiles"]) == ([], []) and found["recalibration"]["kind"] == "none"
