"""Death and early readmission of a whole record, by patients drawn by hand."""

from datetime import date, datetime

import polars as pl
import pytest

from medbert_jax.cohorts.pretraining_labels import patient_labels, write_patient_labels
from medbert_jax.ehr.schema import SCHEMAS, EhrSource, EhrTables


def tables(visits, deaths=None) -> EhrTables:
    """visits: patient → (admitted, discharged, type, disposition) as days from 1 January 2010; None is unknown."""
    deaths = deaths or {}
    rows = [
        {
            "visit_id": f"{patient}{order}",
            "patient_id": patient,
            "order": order,
            "admit_time": day(admitted),
            "discharge_time": day(discharged),
            "visit_type": kind,
            "discharge_disposition": ended,
        }
        for patient, of_patient in visits.items()
        for order, (admitted, discharged, kind, ended) in enumerate(of_patient, start=1)
    ]
    people = [{"patient_id": patient, "death_date": deaths.get(patient)} for patient in visits]
    return EhrTables(
        patients=pl.DataFrame(people, schema=SCHEMAS["patients"]),
        visits=pl.DataFrame(rows, schema=SCHEMAS["visits"]),
        diagnoses=pl.DataFrame(schema=SCHEMAS["diagnoses"]),
        source=EhrSource("drawn", True, "days"),
    )


def day(number: int | None) -> datetime | None:
    return None if number is None else datetime.fromordinal(date(2010, 1, 1).toordinal() + number)


def labels(made, which) -> dict[str, int]:
    return dict(patient_labels(made, which).iter_rows())


STAY = ("inpatient", "home")


def test_a_patient_is_readmitted_1_to_30_days_after_a_discharge_of_a_stay():
    found = labels(
        tables(
            {
                "day 0": [(0, 5, *STAY), (5, 9, *STAY)],
                "day 1": [(0, 5, *STAY), (6, 9, *STAY)],
                "day 30": [(0, 5, *STAY), (35, 39, *STAY)],
                "day 31": [(0, 5, *STAY), (36, 39, *STAY)],
                "to a contact": [(0, 5, *STAY), (10, 10, "outpatient", "home")],
                "after a contact": [(0, 0, "outpatient", "home"), (10, 12, *STAY)],
                "with one between": [(0, 5, *STAY), (8, 8, "outpatient", "home"), (12, 13, *STAY)],
                "within another": [(0, 60, *STAY), (10, 11, *STAY), (70, 71, *STAY)],
                "within another alone": [(0, 60, *STAY), (10, 11, *STAY), (40, 41, *STAY)],
                "discharge unknown": [(0, None, *STAY), (10, 12, *STAY)],
                "one stay": [(0, 5, *STAY)],
                "later": [(0, 5, *STAY), (100, 101, *STAY), (110, 112, *STAY)],
            }
        ),
        "readmission",
    )
    assert {patient for patient, label in found.items() if label} == {
        "day 1", "day 30", "with one between", "within another", "later"}  # fmt: skip
    assert len(found) == 12


def test_a_patient_died_by_the_record_of_a_death_or_the_end_of_a_visit():
    alive = [(0, 5, *STAY)]
    made = tables({"alive": alive, "recorded": alive, "in a stay": [(0, 5, "inpatient", "expired")]},
                  {"recorded": date(2011, 1, 1)})  # fmt: skip
    assert labels(made, "mortality") == {"alive": 0, "recorded": 1, "in a stay": 1}


def test_the_labels_of_all_shards_are_one_file(tmp_path):
    shards = [tables({name: [(0, 5, *STAY)]}, {"b": date(2011, 1, 1)}) for name in ("b", "a")]
    write_patient_labels(tmp_path / "labels.parquet", shards, "mortality")
    assert pl.read_parquet(tmp_path / "labels.parquet").rows() == [("a", 0), ("b", 1)]


@pytest.mark.parametrize("which", ["mortality", "readmission"])
def test_a_shard_of_nobody_has_no_labels(which):
    assert patient_labels(tables({}), which).is_empty()
