"""Draws of patients: the same for all, whole, and of the right size; Holm against statsmodels."""

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from medbert_jax.metrics import bootstrap
from medbert_jax.metrics.bootstrap import Draws, bootstrap_p, holm, percentile_interval


def test_draws_are_a_function_of_the_patients_alone(monkeypatch):
    patients = np.array(["a", "b", "c", "b", "d"])
    whole = np.concatenate(list(Draws(patients, number=60).weights()))
    monkeypatch.setattr(bootstrap, "_AT_ONCE", 17)  # three draws at a time
    parts = list(Draws(patients, number=60).weights())
    assert len(parts) == 20 and np.array_equal(np.concatenate(parts), whole)
    assert not np.array_equal(np.concatenate(list(Draws(patients, number=60, seed=1).weights())), whole)


def test_a_patient_is_drawn_with_all_his_rows_and_as_many_as_there_are():
    weights = np.concatenate(list(Draws(np.array([7, 8, 9, 8, 5]), number=4000).weights()))
    assert np.array_equal(weights[:, 1], weights[:, 3])
    assert (weights[:, [0, 1, 2, 4]].sum(1) == 4).all()
    # Multinomial: mean 1, variance (n − 1)/n, covariance −1/n, of n = 4 patients.
    covariance = np.cov(weights[:, [0, 1, 2, 4]].T)
    assert weights.mean(0) == pytest.approx(np.ones(5), abs=0.06)
    assert covariance == pytest.approx(np.eye(4) - 0.25, abs=0.06)


def test_the_interval_of_a_mean_is_that_of_theory():
    values = np.random.default_rng(0).normal(3, 2, 400)
    drawn = np.concatenate([part @ values / part.sum(1) for part in Draws(np.arange(400)).weights()])
    found, error = percentile_interval(values.mean(), drawn), values.std() / 20
    assert (found.low, found.high) == pytest.approx(
        (values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.12 * error
    )
    assert bootstrap_p(drawn) == pytest.approx(2 / 2001) and bootstrap_p(drawn - values.mean()) > 0.9


def test_without_enough_draws_that_have_a_value_there_is_no_interval():
    drawn = np.arange(100.0)
    drawn[:5] = np.nan
    assert np.isfinite(percentile_interval(1.0, drawn).low)
    drawn[5] = np.nan
    assert np.isnan(percentile_interval(1.0, drawn).low) and np.isnan(bootstrap_p(drawn))
    assert np.isnan(percentile_interval(float("nan"), np.arange(9.0)).high)


def test_holm_equal_to_statsmodels():
    p_values = np.array([0.01, 0.04, 0.03, 0.005, 0.2, 0.9])
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1], abs=1e-12)
    assert holm([0.02, np.nan, 0.03]) == pytest.approx([0.04, np.nan, 0.04], nan_ok=True)
    assert holm([]).size == 0
