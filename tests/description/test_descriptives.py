"""What is counted of a dataset, against figures worked out by hand."""

import itertools

import numpy as np
import pytest
from made_datasets import Drawn, drawn_sequences, write_drawn
from made_sequences import made_sequences

from medbert_jax.description import descriptives
from medbert_jax.description.descriptives import describe_dataset, describe_datasets, tally_patients
from medbert_jax.description.distributions import Distribution, Share

CODES = ("ICD9CM/250.00", "ICD10CM/E11.9", "ICD10CM/I10", "LOCAL/x", "ICD10PCS/5A1D00Z", "ICD10GM/Z00")
ICD9, E11, I10, LOCAL, PROCEDURE, NEVER_USED, UNK = *range(16, 22), 2
ANNA = Drawn([(0, 20_000, 0, [ICD9, I10]), (10, 20_010, 8, [ICD9])], sex=1, race=1, event=1, index_day=30)
BERT = Drawn([(0, -1, -1, [E11])], sex=2, race=0, event=0, index_day=5)
CARL = Drawn([(0, 30_000, 3, [LOCAL, UNK]), (-1, -1, 1, [PROCEDURE]), (100, 30_100, 2, [E11, I10, ICD9])],
             sex=0, race=2, event=0, index_day=150)  # fmt: skip
DORA = Drawn([(0, 25_000, 9, [ICD9, E11, I10, LOCAL])], sex=2, race=1, event=1)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    directory = tmp_path_factory.mktemp("made") / "disease_cohort" / "hf" / "1.0.0"
    splits = {"train": [ANNA, BERT, CARL], "test": [DORA]}
    return write_drawn(directory, splits, kind="cohort", codes=CODES, races=("Amber", "Jade"))


def test_a_drawn_cohort_is_counted_as_by_hand(cohort):
    about = describe_dataset(cohort, max_length=3)
    tally, of = about.tally, about.tally.distributions
    assert (about.name, about.patients, about.is_cohort) == ("hf", 4, True)
    assert tally.sex.tolist() == [1, 1, 2] and tally.race.tolist() == [1, 2, 1]
    assert tally.code_uses[16:].tolist() == [4, 3, 3, 2, 1, 0]
    # At the index: Anna 20,010 + 20; Bert unknown; Carl 30,100 + 50; Dora's index has no day: her last visit's.
    assert of["age"].number == 3 and of["age"].mean == 25_060
    assert of["age"].standard_deviation == pytest.approx(np.sqrt((5030**2 + 5090**2 + 60**2) / 2), rel=1e-12)
    assert (of["visits"].mean, of["codes"].mean, of["codes_per_visit"].mean) == (1.75, 3.5, 2.0)
    # Carl's second visit has no day, so neither of his gaps is known.
    assert (of["gaps"].number, of["gaps"].mean, of["gaps"].patients) == (1, 10, 1)
    assert (of["history"].number, of["history"].mean, of["stays"].mean) == (4, 27.5, 23 / 6)
    # Of three codes Carl keeps his last visit, Dora three of her only one.
    assert tally.shares == {
        "event": Share(2, 4, 2, 2),
        "too_long": Share(2, 4, 2, 2),
        "codes_cut": Share(4, 14, 2, 2),
        "unknown_codes": Share(1, 14, 1, 4),
        "icd10": Share(6, 13, 4, 3),  # of the codes that are known; Bert has no others, and procedures are none
        "of_system ICD9CM": Share(4, 13, 3, 4),
        "of_system ICD10CM": Share(6, 13, 4, 3),
        "of_system LOCAL": Share(2, 13, 2, 4),
        "of_system ICD10PCS": Share(1, 13, 1, 4),
        "of_system ICD10GM": Share(0, 13, 0, 4),
        "no_day": Share(1, 7, 1, 4),
        "no_age": Share(2, 7, 2, 3),
        "no_stay": Share(1, 7, 1, 3),
    }


def test_the_age_of_a_pretraining_patient_is_that_at_the_last_visit():
    metadata = {"kind": "pretraining", "races": ["Amber", "Jade"]}
    tally = tally_patients(drawn_sequences([ANNA, BERT, CARL]), metadata, np.zeros(22, bool), 512)
    assert tally.distributions["age"].mean == (20_010 + 30_100) / 2
    assert tally.shares["event"] == Share(1, 3, 1, 2) and tally.shares["too_long"] == Share(0, 3, 0, 3)


def test_slices_add_up_to_the_whole(cohort, monkeypatch):
    whole = describe_dataset(cohort, max_length=3).tally
    monkeypatch.setattr(descriptives, "_PATIENTS_AT_ONCE", 1)
    sliced = describe_dataset(cohort, max_length=3).tally
    assert sliced.shares == whole.shares
    for name in whole.distributions:
        for column in ("counts", "lowest", "highest"):
            one, other = (getattr(tally.distributions[name], column) for tally in (whole, sliced))
            assert np.array_equal(one, other), (name, column)
    monkeypatch.setattr(Share, "__add__", lambda one, other: one)  # a planted fault
    assert describe_dataset(cohort, max_length=3).tally.shares != whole.shares


def test_many_patients_are_counted_as_by_loops():
    patients = made_sequences(300, seed=3)
    rng = np.random.default_rng(4)
    days = np.concatenate([np.cumsum(rng.integers(0, 90, n)) for n in np.diff(patients.visit_offsets)])
    days[rng.random(len(days)) < 0.1] = -1
    patients = type(patients)(**vars(patients) | {"visit_days": days.astype(np.int32)})
    metadata = {"kind": "pretraining", "races": []}
    tally = tally_patients(patients, metadata, np.arange(64) % 3 == 0, 10)
    gaps, icd10, cut = [], 0, 0
    for n in range(len(patients)):
        one = patients.take([n])
        known = one.visit_days.tolist()
        gaps += [b - a for a, b in itertools.pairwise(known) if a >= 0 and b >= 0]
        icd10 += sum(code % 3 == 0 for code in one.code_ids.tolist())
        cut += len(one.code_ids) - len(one.truncate(10).code_ids)
    assert tally.distributions["gaps"].counts.tolist() == np.bincount(gaps).tolist()
    assert tally.distributions["gaps"].standard_deviation == pytest.approx(np.std(gaps, ddof=1), rel=1e-12)
    assert (tally.shares["icd10"].count, tally.shares["codes_cut"].count) == (icd10, cut)
    assert tally.shares["too_long"].count == (patients.lengths > 10).sum() > 0


def test_percentiles_are_values_that_are_there():
    of = Distribution.of(np.array([3, 1, 4, 1, 5, 9, 2, 6, -1]))
    assert [of.percentile(percent) for percent in (0, 25, 26, 50, 51, 99, 100)] == [1, 1, 2, 3, 4, 9, 9]
    assert (of.number, of.mean) == (8, 31 / 8)
    nothing = Distribution.of(np.array([-1, -1]))
    assert (nothing.mean, nothing.standard_deviation, nothing.percentile(50), nothing.number) == (None,) * 3 + (0,)
    assert Distribution.of(np.array([7])).standard_deviation is None
    for percent in (1, 10, 33, 75):
        values = np.random.default_rng(percent).integers(0, 50, 101)
        expected = np.percentile(values, percent, method="inverted_cdf")
        assert Distribution.of(values).percentile(percent) == expected


def test_a_figure_rests_on_the_patients_at_or_beyond_it():
    # Patient 0 alone has every value above 4; the others have 0 … 4.
    values = np.array([9, 8, 7, 6, 5, 5, 5, 5, 5, 5, 5, 5, *range(5), *range(5), *range(5), *range(5)] + [4] * 8)
    owner = np.array([0] * 12 + [n for n in range(1, 5) for _ in range(5)] + [*range(5, 13)])
    of = Distribution.of(values, owner)
    assert of.patients == 13 and of.number == 40
    assert not of.may_be_shared(5)  # 12 values, one patient
    assert of.may_be_shared(4)  # 13 patients reach it, 12 do not exceed it
    assert not of.may_be_shared(3)  # 4 patients have so low a value


def test_two_datasets_of_one_name_are_told_apart(cohort, tmp_path):
    other = write_drawn(tmp_path / "ehr_pretraining" / "hf" / "1.0.0", {"test": [ANNA]}, codes=CODES, races=("Amber",))
    names = [about.name for about in describe_datasets([cohort, other])]
    assert names == ["disease_cohort/hf", "ehr_pretraining/hf"]
    with pytest.raises(ValueError, match="datasets must be different ones: got hf, hf; name each once"):
        describe_datasets([cohort, cohort])
    empty = write_drawn(tmp_path / "empty" / "1.0.0", {}, codes=CODES)
    with pytest.raises(ValueError, match="that is described must have patients: got none in"):
        describe_dataset(empty)
