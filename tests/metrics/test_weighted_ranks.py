"""Ranking of patients who weigh differently, against scikit-learn, patients written out several times, and by hand."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from medbert_jax.metrics.discrimination import auroc, average_precision
from medbert_jax.metrics.weighted_ranks import RankedPatients

# Forty patients in twenty pairs, the same that the figures of other packages below are of.
NUMBER = np.arange(40)
LABELS = (NUMBER * 7) % 10 < 3
SCORES = (0.05 + 0.54 * (((NUMBER * 37) % 101) / 101) + 0.25 * LABELS).round(4)


def patients(seed, decimals=None):
    random = np.random.default_rng(seed)
    labels = random.random(300) < 0.3
    scores = random.normal(size=300) + labels
    return labels, scores if decimals is None else scores.round(decimals), random.gamma(1, 1, (5, 300))


@pytest.mark.parametrize("decimals", [None, 1, 0])
@pytest.mark.parametrize("seed", range(3))
def test_equal_to_scikit_learn_with_weights(seed, decimals):
    labels, scores, weights = patients(seed, decimals)
    ranked = RankedPatients(labels, scores)
    for metric, theirs in ((ranked.auroc, roc_auc_score), (ranked.average_precision, average_precision_score)):
        expected = [theirs(labels, scores, sample_weight=one) for one in weights]
        assert metric(weights) == pytest.approx(expected, abs=1e-10)
        assert metric(weights[0]) == pytest.approx(expected[0], abs=1e-10)
        assert metric(np.roll(weights, 1, axis=1))[0] != pytest.approx(expected[0], abs=1e-10)


def test_equal_weights_are_no_weights_and_a_weight_of_three_is_three_patients():
    labels, scores, _ = patients(0, 1)
    ranked, ones = RankedPatients(labels, scores), np.ones(300)
    assert ranked.auroc(ones) == pytest.approx(auroc(labels, scores), abs=1e-12)
    assert ranked.average_precision(ones) == pytest.approx(average_precision(labels, scores), abs=1e-12)
    times = np.arange(300) % 4
    assert ranked.auroc(times) == pytest.approx(auroc(labels.repeat(times), scores.repeat(times)), abs=1e-12)
    assert ranked.average_precision(times) == pytest.approx(
        average_precision(labels.repeat(times), scores.repeat(times)), abs=1e-12
    )


def test_equal_to_meds_evaluation():
    """meds-evaluation 0.0.6, evaluate_binary_classification, samples_equally_weighted."""
    ranked = RankedPatients(LABELS, SCORES)
    assert ranked.auroc(np.ones(40)) == pytest.approx(0.7797619047619048, abs=1e-10)
    assert ranked.average_precision(np.ones(40)) == pytest.approx(0.6934568910198201, abs=1e-10)


def test_without_cases_or_controls_there_is_no_number():
    ranked = RankedPatients([0, 1, 0, 1], [0.1, 0.2, 0.3, 0.4])
    weights = np.array([[1, 0, 1, 0], [0, 1, 0, 1], [0, 0, 0, 0]])
    assert np.isnan(ranked.auroc(weights)).all()
    assert np.isnan(ranked.average_precision(weights)).all()
    assert all(np.isnan(part).all() for part in ranked.at_specificity(weights, 0.9))


def test_sensitivity_at_a_specificity_by_hand():
    # Controls 0.1, 0.2, 0.2, 0.5; cases 0.2, 0.4, 0.6. Three of four controls pass below 0.4.
    ranked = RankedPatients([0, 0, 0, 0, 1, 1, 1], [0.1, 0.2, 0.2, 0.5, 0.2, 0.4, 0.6])
    ones = np.ones(7)
    found = {specificity: ranked.at_specificity(ones, specificity) for specificity in (0.2, 0.25, 0.5, 0.75, 0.76, 1.0)}
    assert {at: (float(threshold), round(float(share), 6)) for at, (threshold, share) in found.items()} == {
        0.2: (0.2, 1.0),
        0.25: (0.2, 1.0),
        0.5: (0.4, 0.666667),
        0.75: (0.4, 0.666667),
        0.76: (0.6, 0.333333),
        1.0: (0.6, 0.333333),
    }
    # A control above everybody leaves nobody to flag.
    threshold, share = RankedPatients([1, 0], [0.3, 0.7]).at_specificity(np.ones(2), 0.9)
    assert (threshold, share) == (np.inf, 0)


def test_every_set_of_weights_has_its_own_threshold():
    labels, scores, weights = patients(4, 1)
    together = RankedPatients(labels, scores).at_specificity(weights, 0.9)
    for number, one in enumerate(weights):
        threshold, share = together[0][number], together[1][number]
        flagged = scores >= threshold
        assert one[~labels & ~flagged].sum() >= 0.9 * one[~labels].sum()
        lower = scores[scores < threshold].max()
        assert one[~labels & (scores < lower)].sum() < 0.9 * one[~labels].sum()
        assert share == pytest.approx(one[labels & flagged].sum() / one[labels].sum(), abs=1e-12)
