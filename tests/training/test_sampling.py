"""Whom a run is trained on: nested, with the cohort's share of cases, and what a replicate changes."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from medbert_jax.training.sampling import SamplingConfig, training_patients, training_subset

IDS = np.char.mod("%d", np.arange(500)).astype("S")
LABELS = (np.arange(500) % 8 == 0).astype(np.int32)  # 63 cases
SIZES = (3, 4, 12, 40, 41, 100, 499, 500)
EVERY = [
    SamplingConfig(stratified, resample) for stratified in (False, True) for resample in ("subset", "head", "bootstrap")
]


@pytest.mark.parametrize("sampling", EVERY, ids=str)
def test_subsets_are_nested_and_as_large_as_was_asked(sampling):
    found = [training_patients(IDS, LABELS, size, 2, sampling) for size in SIZES]
    assert [len(one) for one in found] == list(SIZES)
    for small, large in pairwise(found):
        assert (np.diff(small) >= 0).all() and Counter(small.tolist()) <= Counter(large.tolist())
    assert np.array_equal(training_patients(IDS, LABELS, 0, 2, sampling), found[-1])


@pytest.mark.parametrize("resample", ["subset", "head", "bootstrap"])
def test_a_stratified_subset_has_the_cohorts_share_of_cases_and_is_never_enriched(resample):
    for size in (*range(1, 60), *SIZES):
        chosen = training_patients(IDS, LABELS, size, 1, SamplingConfig(True, resample))
        assert abs(LABELS[chosen].sum() - size * 63 / 500) <= 0.5, size
    by_hash = [LABELS[training_patients(IDS, LABELS, 40, replicate, SamplingConfig())].sum() for replicate in range(9)]
    assert len(set(by_hash)) > 2  # the chance that stratifying takes away


@pytest.mark.parametrize("sampling", EVERY, ids=str)
def test_patients_do_not_depend_on_their_order(sampling):
    shuffled = np.random.default_rng(0).permutation(500)
    here = IDS[training_patients(IDS, LABELS, 90, 4, sampling)]
    there = IDS[shuffled][training_patients(IDS[shuffled], LABELS[shuffled], 90, 4, sampling)]
    assert Counter(here) == Counter(there)


@pytest.mark.parametrize("sampling", EVERY, ids=str)
def test_a_patient_is_taken_with_all_his_rows(sampling):
    of_row = np.repeat(np.arange(500), 1 + np.arange(500) % 3)
    labels = LABELS[of_row] * (np.random.default_rng(0).random(len(of_row)) < 0.6)  # of a case not every row is one
    rows = training_patients(IDS[of_row], labels, 90, 4, sampling)
    cases = np.unique(of_row[labels == 1])
    times = np.bincount(rows, minlength=len(of_row))
    per_patient = np.array([times[of_row == patient] for patient in range(500)], dtype=object)
    assert all(len(set(one)) == 1 for one in per_patient)
    taken = np.array([one[0] for one in per_patient])
    assert taken.sum() == 90
    if sampling.stratified:
        assert abs(taken[cases].sum() - 90 * len(cases) / 500) <= 0.5


def test_what_a_replicate_changes():
    def of(resample: str, replicate: int, size: int = 90) -> list[int]:
        return training_patients(IDS, LABELS, size, replicate, SamplingConfig(True, resample)).tolist()

    assert of("subset", 1) != of("subset", 2) and of("bootstrap", 1) != of("bootstrap", 2)
    assert of("head", 1) == of("head", 2) == of("subset", 0)
    assert of("subset", 1, 0) == list(range(500))  # of all patients the heads alone differ
    drawn = np.unique(of("bootstrap", 1, 0))
    assert 0.58 < len(drawn) / 500 < 0.69  # 1 − 1/e of them


def test_without_strata_it_is_the_subset_that_results_on_file_mean():
    assert np.array_equal(training_patients(IDS, LABELS, 50, 3, SamplingConfig()), training_subset(IDS, 50, 3))


def test_patients_of_one_class_are_drawn_too():
    nobody = np.zeros(500)
    for resample in ("subset", "bootstrap"):
        assert len(training_patients(IDS, nobody, 70, 0, SamplingConfig(True, resample))) == 70
