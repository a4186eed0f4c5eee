"""Best and worst case against every labelling of the censored, written out."""

from itertools import product

import numpy as np
import pytest

from medbert_jax.metrics.censored_bounds import auroc_bounds, brier_bounds, observed_to_expected_bounds
from medbert_jax.metrics.discrimination import auroc


@pytest.mark.parametrize("seed", range(4))
def test_bounds_are_the_extremes_of_all_labellings(seed):
    random = np.random.default_rng(seed)
    labels, probabilities = random.integers(0, 2, 12), random.random(12).round(1)
    labels[:2] = (0, 1)
    unknown = random.choice(np.arange(2, 12), 6, replace=False)
    labels[unknown] = -1
    found = []
    for guess in product((0, 1), repeat=6):
        filled = labels.copy()
        filled[unknown] = guess
        brier = np.mean((filled - probabilities) ** 2)
        found.append((auroc(filled, probabilities), brier, filled.sum() / probabilities.sum()))
    least, largest = np.min(found, axis=0), np.max(found, axis=0)
    for place, bounds in enumerate((auroc_bounds, brier_bounds, observed_to_expected_bounds)):
        assert bounds(labels, probabilities) == pytest.approx((least[place], largest[place]), abs=1e-12)


def test_without_the_censored_both_bounds_are_the_metric():
    labels, scores = np.array([0, 1, 0, 1]), np.array([0.1, 0.3, 0.4, 0.8])
    assert auroc_bounds(labels, scores) == pytest.approx((0.75, 0.75))
    assert np.isnan(auroc_bounds(np.zeros(3), np.arange(3))).all()
