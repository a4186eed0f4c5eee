"""Several rows of a patient: Obuchowski's variance against DeLong, all pairs written out, and a simulation."""

import numpy as np
import pytest

from medbert_jax.metrics.clusters import auroc_obuchowski, obuchowski_difference, within_set_concordance
from medbert_jax.metrics.discrimination import auroc_delong, delong_difference


def clustered(seed, patients=80, rows=4, sd=1.0):
    """Rows of a patient share a part of their score and of their risk."""
    random = np.random.default_rng(seed)
    own = np.repeat(random.normal(0, sd, patients), rows)
    labels = (own + random.normal(size=own.size) > 0.8).astype(bool)
    return labels, own + random.normal(size=own.size) + labels, np.repeat(np.arange(patients), rows)


def test_one_row_each_is_delong():
    labels, a, _ = clustered(0)
    b = a + np.random.default_rng(1).normal(size=a.size)
    everybody = np.arange(a.size)
    ours, theirs = auroc_obuchowski(labels, a, everybody), auroc_delong(labels, a)
    assert ours.standard_error == pytest.approx(theirs.standard_error, abs=1e-12)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    paired, plain = obuchowski_difference(labels, a, b, everybody), delong_difference(labels, a, b)
    assert (paired.standard_error, paired.p) == pytest.approx((plain.standard_error, plain.p), abs=1e-12)
    assert auroc_obuchowski(labels, a, np.repeat(everybody[: a.size // 2], 2)).standard_error != ours.standard_error


def test_the_variance_is_that_of_the_papers_sums():
    """Obuchowski 1997, (2) to (4), with loops over patients and pairs."""
    labels, scores, patients = clustered(2, patients=12)
    cases, controls = np.flatnonzero(labels), np.flatnonzero(~labels)
    kernel = (scores[cases][:, None] > scores[controls]) + 0.5 * (scores[cases][:, None] == scores[controls])
    area, m, n = kernel.mean(), len(cases), len(controls)
    of_case = dict(zip(cases, kernel.mean(1), strict=True))
    of_control = dict(zip(controls, kernel.mean(0), strict=True))
    s10 = s01 = s11 = 0.0
    with_case = with_control = 0
    for patient in range(12):
        rows = np.flatnonzero(patients == patient)
        up = [of_case[row] - area for row in rows if labels[row]]
        down = [of_control[row] - area for row in rows if not labels[row]]
        with_case, with_control = with_case + bool(up), with_control + bool(down)
        s10, s01, s11 = s10 + sum(up) ** 2, s01 + sum(down) ** 2, s11 + sum(up) * sum(down)
    s10 *= with_case / ((with_case - 1) * m)
    s01 *= with_control / ((with_control - 1) * n)
    s11 *= 12 / 11
    expected = s10 / m + s01 / n + 2 * s11 / (m * n)
    assert auroc_obuchowski(labels, scores, patients).standard_error ** 2 == pytest.approx(expected, abs=1e-12)


def test_plain_delong_is_too_sure_of_copies():
    """Everybody four times tells no more than once."""
    labels, scores, _ = clustered(3, rows=1, patients=200)
    copies = np.repeat(np.arange(200), 4)
    found = auroc_obuchowski(labels[copies], scores[copies], copies)
    once = auroc_delong(labels, scores).standard_error
    assert found.standard_error == pytest.approx(once, rel=0.01)
    assert auroc_delong(labels[copies], scores[copies]).standard_error < 0.55 * once


def test_one_cluster_of_cases_is_refused():
    with pytest.raises(ValueError, match="must be two or more: got 1; take more patients"):
        auroc_obuchowski([1, 1, 0, 0], [1, 2, 3, 0], ["a", "a", "b", "c"])


def test_concordance_within_sets_by_hand():
    labels = [1, 0, 0, 1, 0, 1, 0]
    scores = [0.5, 0.4, 0.6, 0.9, 0.9, 0.1, 0.2]
    names, shares = within_set_concordance(labels, scores, ["x", "x", "x", "y", "y", "alone", "other"])
    assert dict(zip(names, shares, strict=True)) == {"x": 0.5, "y": 0.5}
    # Scores that are of the set alone order nobody within it, whatever the AUROC.
    labels, sets = np.array([1, 0, 0] * 50 + [1, 1, 0] * 50), np.repeat(np.arange(100), 3)
    assert within_set_concordance(labels, (sets < 50) * -1.0, sets)[1].mean() == 0.5
