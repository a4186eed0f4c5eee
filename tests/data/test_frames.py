"""A table with a row for each code → the sequences that the same records have in a dataset; faults all told."""

import numpy as np
import polars as pl
import pytest
from made_ehr import made_tables
from prepared_datasets import prepare_pretraining

import medbert_jax
from medbert_jax.data.sequences import PatientSequences
from medbert_jax.data.serialization import SerializationConfig
from medbert_jax.data.token_store import open_token_store, read_vocabulary
from medbert_jax.data.vocabulary import FIRST_CODE, UNK, Vocabulary
from medbert_jax.ehr.tables import write_tables

WORDS = Vocabulary(("ICD10CM/E11.9", "ICD9CM/428.0", "ICD10CM/I50"), np.ones(3, int), ("",) * 3)
E11, HEART_FAILURE, I50 = range(FIRST_CODE, FIRST_CODE + 3)
ROWS = {
    "patient_id": [20, 20, 20, 3],
    "admit_time": ["2011-05-03", "2011-05-03", "2010-01-01", "2012-01-01"],
    "code_system": ["ICD10CM", "ICD10CM", "ICD9CM", "ICD10CM"],
    "code": ["e119", "I10", "4280", "E11.9"],
    "priority": [2, 1, None, None],
}


def rows(**changes) -> pl.DataFrame:
    """The table with other columns; None: without."""
    return pl.DataFrame({name: values for name, values in (ROWS | changes).items() if values is not None})


def sequences(frame, vocabulary=WORDS, **options) -> PatientSequences:
    return medbert_jax.sequences_from(frame, vocabulary, **({"unknown_code_limit": 1, "announce": str} | options))


def test_sequences_are_those_of_the_dataset_of_the_same_records(tmp_path):
    tables = made_tables(60, seed=3)
    write_tables(tables, tmp_path / "ehr", shards=2)
    dataset = prepare_pretraining(tmp_path / "ehr", "made", data_dir=tmp_path, announce=str)
    stores = [open_token_store(dataset, split) for split in ("train", "validation", "test")]
    of_visits = tables.visits.select("patient_id", "visit_id", "admit_time", "discharge_time", "length_of_stay")
    of_patients = tables.patients.select("patient_id", "birth_date", "sex")
    frame = (
        tables.diagnoses.drop("time").join(of_visits, on=["patient_id", "visit_id"]).join(of_patients, on="patient_id")
    )
    found = sequences(
        frame.sample(fraction=1, shuffle=True, seed=1), read_vocabulary(dataset), serialization=SerializationConfig()
    )
    assert found.patient_id.tolist() == sorted(one for store in stores for one in store.patient_id.tolist())
    place = {patient: number for number, patient in enumerate(found.patient_id.tolist())}
    for store in stores:
        mine = found.take([place[patient] for patient in store.patient_id.tolist()])
        for name in ("code_offsets", "code_ids", "visit_ids", "serialization_ids", "age_days", "length_of_stay", "sex"):
            np.testing.assert_array_equal(getattr(mine, name), getattr(store, name), name)


def test_codes_are_in_order_and_unknown_ones_are_counted_and_told():
    said = []
    found = sequences(rows(), announce=said.append)
    assert found.patient_id.tolist() == [b"20", b"3"]
    assert found.code_ids.tolist() == [HEART_FAILURE, UNK, E11, E11]
    assert found.visit_ids.tolist() == [1, 2, 2, 1] and found.serialization_ids.tolist() == [0, 0, 1, 0]
    assert said[-1].endswith("1 codes (25.0%) that the vocabulary does not know")
    with pytest.raises(ValueError, match=r"at most 20% of the codes may be unknown .*: got of this table 25.0%"):
        sequences(rows(), unknown_code_limit=0.2)


def test_tables_of_other_shapes_say_the_same():
    expected = sequences(rows())
    full = [f"{system}/{code}" for system, code in zip(ROWS["code_system"], ROWS["code"], strict=True)]
    numbered = {"admit_time": None, "visit_id": [7, 7, 5, 1]}
    for frame, options in (
        (rows().to_pandas(), {}),
        (rows().lazy(), {}),
        (rows(code=full, code_system=None), {}),
        (rows(**numbered), {}),
        (rows(visit_id=["b", "b", "a", "a"]), {}),
        (rows(visit_id=["b", "b", "a", "a"], admit_time=None, order=[2, 2, 1, 1]), {}),
    ):
        found = sequences(frame, **options)
        for name in ("patient_id", "code_ids", "visit_ids", "serialization_ids"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    one = sequences(rows(code=["E119", "I10", "E119", "E119"], code_system=None), code_system="ICD10CM")
    assert one.code_ids.tolist() == [E11, UNK, E11, E11]
    either = rows(code=["E119", "I10", "4280", "E119"], code_system=None)
    assert sequences(either, code_system="ICD", us_icd=True).code_ids.tolist() == expected.code_ids.tolist()
    assert I50 in sequences(rows(code=["e119", "I50.9", "4280", "E11.9"]), back_off=True).code_ids


def test_who_leaves_is_told():
    said = []
    found = sequences(rows(code=["e119", "I10", "4280", "??"]), announce=said.append)
    assert found.patient_id.tolist() == [b"20"]
    assert any("1 codes leave" in line for line in said) and any("1 patients" in line for line in said)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"patient_id": None}, "column patient_id is missing"),
        ({"admit_time": None}, "column admit_time is missing, and visit_id too"),
        ({"admit_times": ["2011"] * 4, "admit_time": None}, r"column admit_times has no meaning here \(admit_time\?\)"),
        ({"sex": ["F", "M", "F", "M"]}, "column sex differs within 1 patients"),
        ({"visit_id": [1, 1, 1, 1]}, "column admit_time differs within 1 visits"),
        ({"visit_id": ["a"] * 4, "admit_time": None}, "column visit_id holds no whole numbers"),
        ({"code_system": None}, 'column code has 4 rows that are not "SYSTEM/code"'),
    ],
)
def test_a_table_that_is_none_is_refused_in_words(changes, fault):
    with pytest.raises(ValueError, match=rf"a table of codes must have .*got \d+ fault\(s\):(.|\n)*{fault}"):
        sequences(rows(**changes))


def test_what_is_no_table_and_no_vocabulary_is_refused():
    with pytest.raises(ValueError, match=r"frame: is list, no table of polars"):
        sequences([1])
    with pytest.raises(ValueError, match="got str; give the model"):
        sequences(rows(), "runs/NAME")


def test_what_a_notebook_shows_is_short_and_names_nobody():
    found = sequences(rows())
    assert repr(found) == "PatientSequences(2 patients, 3 visits, 4 codes, 1 to 3 codes each, outcomes prolonged_los)"
    assert repr(found[:0]).startswith("PatientSequences(0 patients")
    assert repr(WORDS).startswith("Vocabulary(3 codes: ICD10CM/E11.9, ICD9CM/428.0, ICD10CM/I50; ids 16 to 18")


def test_rows_are_cut_as_those_of_an_array():
    found = sequences(rows())
    assert found.shape == (2,)
    for cut in (1, -1, slice(1, None), np.array([1]), [False, True], (np.array([1]), ...)):
        assert found[cut].patient_id.tolist() == [b"3"]
    assert [one.patient_id.tolist() for one in found] == [[b"20"], [b"3"]]
    with pytest.raises(IndexError):
        found[2]
