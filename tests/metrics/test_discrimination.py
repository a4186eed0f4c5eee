"""AUROC, DeLong and average precision against scikit-learn, brute force and simulation."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from medbert_jax.metrics.discrimination import (
    auroc,
    auroc_delong,
    auroc_where_ordered,
    average_precision,
    better,
    delong_difference,
    order_nobody,
)


def patients(seed, n=300, *, decimals=None, dtype=np.float64):
    random = np.random.default_rng(seed)
    labels = np.arange(n) % random.integers(2, 9) == 0
    scores = random.normal(size=n) + labels
    return labels, (scores if decimals is None else scores.round(decimals)).astype(dtype)


def brute_kernel(labels, scores):
    """ψ of every pair: 1, ½ or 0, positives down, negatives across."""
    difference = scores[labels][:, None] - scores[~labels][None, :]
    return (difference > 0) + 0.5 * (difference == 0)


def brute_covariance(labels, a, b):
    kernel_a, kernel_b = brute_kernel(labels, a), brute_kernel(labels, b)
    m, n = kernel_a.shape
    by_positive = np.cov(kernel_a.mean(1), kernel_b.mean(1))[0, 1] / m
    by_negative = np.cov(kernel_a.mean(0), kernel_b.mean(0))[0, 1] / n
    return by_positive + by_negative


@pytest.mark.parametrize("decimals", [None, 1, 0])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("seed", range(5))
def test_equal_to_scikit_learn_with_and_without_ties(seed, dtype, decimals):
    labels, scores = patients(seed, decimals=decimals, dtype=dtype)
    assert auroc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert average_precision(labels, scores) == pytest.approx(average_precision_score(labels, scores), abs=1e-12)


def test_the_comparison_with_scikit_learn_sees_one_exchanged_label():
    labels, scores = patients(0)
    planted = labels.copy()
    planted[[0, 1]] = planted[[1, 0]]
    assert auroc(planted, scores) != pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert average_precision(planted, scores) != pytest.approx(average_precision_score(labels, scores), abs=1e-12)


@pytest.mark.parametrize("decimals", [None, 1, 0])
def test_delong_variance_is_that_of_all_pairs(decimals):
    labels, a = patients(1, decimals=decimals)
    b = a + np.random.default_rng(2).normal(size=a.size).round(decimals or 3)
    variance = brute_covariance(labels, a, a)
    assert auroc_delong(labels, a).standard_error == pytest.approx(np.sqrt(variance), abs=1e-12)
    paired = variance + brute_covariance(labels, b, b) - 2 * brute_covariance(labels, a, b)
    found = delong_difference(labels, a, b)
    assert found.standard_error == pytest.approx(np.sqrt(paired), abs=1e-12)
    assert found.z == pytest.approx(found.difference / np.sqrt(paired), abs=1e-9)
    # An unpaired test would miss the covariance.
    assert found.standard_error != pytest.approx(np.sqrt(paired + 2 * brute_covariance(labels, a, b)), rel=0.05)


def test_interval_covers_the_true_auroc():
    random = np.random.default_rng(3)
    labels = np.arange(90) < 30
    # Two unit normals, 1.19 apart: AUROC = Φ(1.19 / √2) = 0.8.
    truth, runs = 0.79995, 1000
    covered = 0
    for _ in range(runs):
        interval = auroc_delong(labels, random.normal(size=90) + 1.19 * labels)
        covered += interval.low <= truth <= interval.high
    assert 0.93 <= covered / runs <= 0.975


def test_paired_test_rejects_as_often_as_it_says():
    random = np.random.default_rng(4)
    labels = np.arange(120) < 50
    shared = random.normal(size=(800, 120)) + labels
    p = [delong_difference(labels, x + random.normal(size=120), x + random.normal(size=120)).p for x in shared]
    assert 0.03 <= np.mean(np.array(p) < 0.05) <= 0.075


@pytest.mark.parametrize("positives, negatives", [(1, 1), (1, 40), (40, 1), (5, 30), (500, 500)])
def test_interval_stays_inside_at_the_ends(positives, negatives):
    labels = np.arange(positives + negatives) < positives
    perfect = auroc_delong(labels, labels * 1.0)
    assert (perfect.auroc, perfect.high) == (1.0, 1.0)
    assert perfect.low == pytest.approx(0.025 ** (1 / min(positives, negatives)))
    wrong = auroc_delong(labels, 0.0 - labels)
    assert (wrong.auroc, wrong.low, wrong.high) == (0.0, 0.0, pytest.approx(1 - perfect.low))


def test_intervals_are_ordered_and_inside_for_small_classes():
    random = np.random.default_rng(5)
    for _ in range(200):
        n = random.integers(2, 12)
        labels = np.arange(n) < random.integers(1, n)
        scores = random.integers(0, 4, n)
        interval = auroc_delong(labels, scores)
        assert 0 <= interval.low <= interval.auroc <= interval.high <= 1
        difference = delong_difference(labels, scores, random.integers(0, 4, n))
        assert -1 <= difference.low <= difference.difference <= difference.high <= 1


def test_one_patient_of_a_class_gets_a_wide_interval():
    labels = np.arange(101) == 0
    scores = np.arange(101.0)
    scores[0] = 80.5
    interval = auroc_delong(labels, scores)
    assert interval.auroc == 0.8
    assert interval.standard_error >= 0.4
    assert interval.high - interval.low > 0.7


def test_same_order_is_no_difference_and_a_reversed_perfect_one_is_undefined():
    labels, scores = patients(6)
    same = delong_difference(labels, scores, np.exp(scores))
    assert (same.difference, same.z, same.p, same.low, same.high) == (0, 0, 1, 0, 0)
    there, back = delong_difference(labels, scores, -scores), delong_difference(labels, -scores, scores)
    assert (there.z, there.p) == (-back.z, back.p)
    undefined = delong_difference(labels, labels * 1, labels * -1)
    assert undefined.difference == 1 and np.isnan([undefined.z, undefined.p]).all()
    assert (undefined.low, undefined.high) == (-1, 1)


def test_wider_confidence_is_a_wider_interval():
    labels, scores = patients(7)
    narrow, wide = auroc_delong(labels, scores, 0.5), auroc_delong(labels, scores, 0.99)
    assert wide.low < narrow.low < narrow.high < wide.high
    with pytest.raises(ValueError, match=r"between 0 and 1: got 95; use 0\.95"):
        auroc_delong(labels, scores, 95)


@pytest.mark.parametrize("metric", [auroc, auroc_delong, average_precision])
def test_one_class_is_refused_with_its_counts(metric):
    with pytest.raises(ValueError, match=r"both classes: got 3 positive and 0 negative patients; use"):
        metric([1, 1, 1], [0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="got 0 positive and 0 negative"):
        metric([], [])


def test_all_faults_are_listed_at_once():
    with pytest.raises(ValueError, match=r"got 1 other values among 3; .*got 2 NaN or infinite of 3; give"):
        auroc([0, 1, 2], [np.nan, 1.0, np.inf])
    with pytest.raises(ValueError, match=r"one length: got \(2,\) and \(3,\)"):
        auroc([0, 1], [0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="scores b must be finite: got 1 NaN"):
        delong_difference([0, 1], [0.1, 0.2], [0.1, np.nan])


def test_half_a_million_patients_take_seconds():
    labels, scores = patients(8, n=500_000)
    assert auroc_delong(labels, scores).standard_error < 0.01


@pytest.mark.parametrize(
    "scores",
    [[0.3] * 4, [0, 0, 0, 0], [0.1, np.nan, 0.3, 0.4], [0.1, np.inf, 0.3, 0.4], [0.3, 0.3, 0.3, 0.3 * (1 + 1e-7)]],
)
def test_scores_that_order_nobody_have_no_auroc_to_choose_by(scores):
    assert order_nobody(scores) and np.isnan(auroc_where_ordered([0, 1, 0, 1], scores))


def test_scores_that_differ_are_ordered_however_small_they_are():
    assert auroc_where_ordered([0, 1, 0, 1], np.array([1e-9, 2e-9, 1e-9, 2e-9])) == 1
    assert not order_nobody([0, 0, 0, 1e-30])


def test_nan_is_below_every_auroc_and_above_none_at_all():
    nan = float("nan")
    assert better(nan, -np.inf) and better(0.0, nan) and better(0.6, 0.5)
    assert not better(nan, nan) and not better(nan, 0.0) and not better(0.5, 0.5)
