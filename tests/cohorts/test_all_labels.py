"""All prediction times of a subject: each row is what its label alone would give, and the ledger adds up."""

from datetime import datetime, timedelta
from random import Random

import numpy as np
import polars as pl
import pytest
from cohorts.independent.literal_patients import rows_of, tables_of_rows
from cohorts.independent.messy_patients import messy_patients, with_times

from medbert_jax.attrition.ledger import Counts
from medbert_jax.cohorts.loading import load_cohort
from medbert_jax.cohorts.meds_labels import LabelFolder
from medbert_jax.cohorts.select import select_cohort
from medbert_jax.data.example_records import encode_records
from medbert_jax.data.serialization import SerializationConfig, order_histories, with_vocabulary
from medbert_jax.data.vocabulary import fit_vocabulary
from medbert_jax.ehr.schema import SCHEMAS

SETTINGS = [
    SerializationConfig(minimum_codes=1),
    SerializationConfig(minimum_codes=3, code_order="random"),
    SerializationConfig(minimum_codes=1, visit_rule="discharge_date"),
]


def write(folder, rows) -> LabelFolder:
    folder.mkdir(parents=True)
    labels = pl.DataFrame(rows, schema=("subject_id", "prediction_time", "boolean_value"), orient="row")
    labels.with_columns(pl.col("prediction_time").cast(pl.Datetime("us"))).write_parquet(folder / "0.parquet")
    return LabelFolder.find(folder, "all")


@pytest.fixture(scope="module")
def tables():
    texts = with_times({str(number): text for number, text in enumerate(messy_patients(120, seed=3).values())}, seed=5)
    rows = {name: [] for name in SCHEMAS}
    for patient_id, text in texts.items():
        for name, some in rows_of(patient_id, text).items():
            rows[name] += some
    return tables_of_rows(rows)


@pytest.fixture(scope="module")
def labelled(tables):
    """One to six labels of two patients in three, at admissions, ends and any other time; and of a stranger."""
    chance, rows = Random(8), []
    moments = pl.concat([tables.visits.select("patient_id", time=pl.col(name).cast(pl.Datetime("us")))
                         for name in ("admit_time", "discharge_time")]).drop_nulls()  # fmt: skip
    of = {patient: group["time"].to_list() for (patient,), group in moments.group_by("patient_id")}
    for patient in tables.patients["patient_id"]:
        some = [*of.get(patient, []), datetime(2008, 1, 1) + timedelta(days=chance.randrange(4000), hours=3)]
        times = sorted({chance.choice(some) for _ in range(chance.randrange(1, 7))})
        if chance.random() < 0.66:
            rows += [(patient, time, chance.random() < 0.3) for time in times]
    return [*rows, ("stranger", datetime(2010, 1, 1), True)]


@pytest.fixture(scope="module")
def labels(labelled, tmp_path_factory):
    return write(tmp_path_factory.mktemp("labels") / "many", labelled)


@pytest.fixture(scope="module")
def vocabulary(tables):
    codes = tables.diagnoses.select(pl.concat_str("code_system", "code", separator="/").unique().sort()).to_series()
    return fit_vocabulary([(codes.to_numpy().astype(str), np.ones(len(codes), np.int64))])


def records_of(tables, labels, config, vocabulary) -> dict:
    """(id, time) → the record of each row, in the order of the dataset."""
    frame, _ = select_cohort(tables, labels)
    histories, codes, _ = order_histories(tables, config, until=frame, several=labels.all_times)
    sequences = with_vocabulary(histories, codes, vocabulary)
    rows = zip(sequences.patient_id.tolist(), sequences.outcomes["prediction_time"].tolist(), strict=True)
    return dict(zip(rows, encode_records(sequences), strict=True))


@pytest.mark.parametrize("config", SETTINGS, ids=("encounters", "random order", "discharge dates"))
def test_each_row_is_what_its_label_alone_gives_in_every_byte(tables, labelled, labels, vocabulary, config, tmp_path):
    together, alone = records_of(tables, labels, config, vocabulary), {}
    for number, row in enumerate(labelled):
        one = write(tmp_path / str(number), [row])
        assert not one.all_times
        alone |= records_of(tables, one, config, vocabulary)
    assert len(together) > 1.5 * len({patient for patient, _ in together}) > 45
    assert together == alone
    assert [*together] == sorted(together)


def test_nothing_after_its_own_time_is_in_a_row(tables, labels, vocabulary):
    """Counted in loops: every visit of a row had begun, and every code of it was told by then, or with such a visit."""
    frame, _ = select_cohort(tables, labels)
    histories, codes, _ = order_histories(tables, SETTINGS[0], until=frame, several=True)
    visits = {(row["patient_id"], row["visit_id"]): row for row in tables.visits.to_dicts()}
    later = {}
    for row in tables.diagnoses.to_dicts():
        visit = visits[row["patient_id"], row["visit_id"]]
        told = [time for time in (visit["admit_time"], row["time"]) if time is not None]
        later.setdefault(row["patient_id"], []).append((f"{row['code_system']}/{row['code']}", told))
    hidden = 0
    for number, (patient, time) in enumerate(
        zip(histories.patient_id.tolist(), histories.outcomes["prediction_time"].tolist(), strict=True)
    ):
        at = datetime(1970, 1, 1) + timedelta(microseconds=time)
        may = {code for code, told in later[patient.decode()] if not told or min(told) <= at}
        within = slice(*histories.code_offsets[number : number + 2])
        assert {str(codes[id]) for id in histories.code_ids[within]} <= may
        hidden += len(may) < len({code for code, _ in later[patient.decode()]})
    assert hidden > 20


def test_the_ledger_adds_up_in_patients_and_predictions(tables, labelled, labels):
    frame, ledger = select_cohort(tables, labels)
    here = [row for row in labelled if row[0] != "stranger"]
    assert ledger.came == Counts(tables.patients.height, tables.visits.height, tables.diagnoses.height)
    lines = {line.rule: line.left for line in ledger.lines}
    assert lines["not_labelled"].predictions == 0
    assert tables.patients.height - lines["not_labelled"].patients == len({patient for patient, *_ in here})
    assert lines["each_prediction"].predictions == -len(here) and lines["each_prediction"].patients == 0
    assert (ledger.kept.patients, ledger.kept.predictions) == (frame["patient_id"].n_unique(), len(frame))
    gone = {patient for patient, *_ in here} - set(frame["patient_id"])
    leaving = ("predicted_after_death", "no_visits", "input_codes")
    assert sum(lines[rule].patients for rule in leaving) == len(gone) > 0
    assert sum(lines[rule].predictions for rule in leaving) == len(here) - len(frame) > len(gone)
    _, _, serialized = order_histories(tables, SETTINGS[1], until=frame, several=True)
    assert serialized.came == ledger.kept
    few = next(line.left for line in serialized.lines if line.rule == "minimum_codes")
    assert few.predictions > few.patients > 0
    assert "+" in ledger.render() and "predictions" in ledger.render()


def test_where_nobody_has_several_all_is_as_first(tmp_path, tables, labelled):
    single = {patient: (patient, time, label) for patient, time, label in labelled}
    labels = write(tmp_path / "single", [*single.values()])
    assert labels == load_cohort(str(tmp_path / "single"))
    assert "labels" not in labels.to_dict()
    _, ledger = select_cohort(tables, labels)
    assert "predictions" not in ledger.kept.to_dict()


@pytest.mark.parametrize("which", ["first", "last", "random"])
def test_a_time_at_which_a_subject_is_both_is_refused_and_one_that_is_said_twice_is_one(tmp_path, labelled, which):
    write(tmp_path / "both", [*labelled])
    patient, time, label = labelled[0]
    write_again = pl.DataFrame({"subject_id": [patient], "prediction_time": [time], "boolean_value": [label]})
    write_again.write_parquet(tmp_path / "both" / "again.parquet")
    before = LabelFolder.find(tmp_path / "both", which).read()
    (tmp_path / "both" / "again.parquet").unlink()
    assert before.equals(LabelFolder.find(tmp_path / "both", which).read())
    write_again.with_columns(~pl.col("boolean_value")).write_parquet(tmp_path / "both" / "again.parquet")
    with pytest.raises(ValueError, match="must be one for each subject and time: got 2 rows of the same"):
        LabelFolder.find(tmp_path / "both", which)


def test_several_labels_of_one_time_are_refused(tmp_path, labelled):
    with pytest.raises(ValueError, match="must be one for each subject and time: got 2 rows of the same"):
        write(tmp_path / "twice", [*labelled, (labelled[0][0], labelled[0][1], not labelled[0][2])])
