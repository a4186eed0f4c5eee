"""What was known at a prediction, visit by visit and code by code: each line of the table in docs/cohorts.md."""

from datetime import datetime, timedelta

import polars as pl
import pytest
from drawn_patients import person, tables_of, visit

from medbert_jax.ehr.known import UNBILLED, input_diagnoses, input_visits

INDEX = datetime(2010, 6, 1, 8)
BEFORE = INDEX - timedelta(microseconds=1)


def read(*visits, over_by=INDEX, unbilled=None, dates=True) -> list[str]:
    """The codes that are read, where all visits had begun and the index came after them."""
    tables = tables_of({"a": person(*visits)}, dates=dates)
    until = pl.DataFrame(
        {"patient_id": ["a"], "index_order": len(visits) + 1, "input_until": len(visits), "prediction_time": [BEFORE]}
    ).with_columns(over_by=pl.lit(over_by), **({UNBILLED: pl.lit(unbilled)} if unbilled else {}))
    return input_diagnoses(tables, input_visits(tables, until))["code"].to_list()


@pytest.mark.parametrize(
    ("kind", "discharge", "codes", "known"),
    [
        ("inpatient", "2010-05-04", "1 2@2010-05-02 3@2010-05-04 4@2009-01-01", ["1", "2", "3", "4"]),
        ("inpatient", "2010-05-04", "1@2010-05-20 2@2010-06-01T07:59 3@2010-06-01T08:00", ["1", "2"]),
        ("inpatient", "2010-06-01T08:00", "1 2@2010-06-01T08:00 3@2010-06-01T08:01", ["1", "2"]),  # a transfer
        ("inpatient", "2010-06-01T08:01", "1 2@2010-05-31 3@2010-06-01T08:00", ["2"]),
        ("inpatient", "2011-01-01", "1 2@2010-05-31 3@2010-06-02", ["2"]),
        ("inpatient", None, "1 2@2010-05-31 3@2010-06-01T08:00 4@2013-03-03", ["2"]),
        ("inpatient", None, "1@2010-05-02$ 2@2010-05-02!", ["2"]),
        ("inpatient", "2011-01-01", "1@2010-05-02$ 2@2010-05-02!", ["2"]),
        ("inpatient", "2010-05-04", "1@2010-05-02$ 2@2010-05-20$ 3@2010-07-01$", ["1", "2"]),
        ("outpatient", None, "1 2@2010-05-31 3@2010-06-02", ["1", "2"]),
        (None, None, "1 2@2010-05-31 3@2010-06-02", ["1", "2"]),
    ],
)
def test_each_line_of_the_table(kind, discharge, codes, known):
    assert read(visit("2010-05-01", codes, discharge=discharge, kind=kind)) == known


def test_a_discharge_on_the_index_is_one_only_where_it_may_be():
    stay = visit("2010-05-01", "1", discharge="2010-06-01T08:00", kind="inpatient")
    assert read(stay, over_by=INDEX) == ["1"] and read(stay, over_by=BEFORE) == []


def test_the_bill_of_one_visit_comes_later():
    visits = (visit("2010-05-01", "1$ 2! 3"), visit("2010-05-09", "4$ 5! 6"))
    assert read(*visits, unbilled=2) == ["1", "2", "3", "5"]
    assert read(*visits) == ["1", "2", "3", "4", "5", "6"]


def test_what_was_not_over_has_no_end():
    tables = tables_of({"a": person(visit("2010-05-01", "1", days=100), visit("2010-05-02", "1", days=1))})
    until = {
        "patient_id": ["a"],
        "index_order": [3],
        "input_until": [2],
        "prediction_time": [BEFORE],
        "over_by": [INDEX],
    }
    visits = input_visits(tables, pl.DataFrame(until)).sort("order")
    assert visits["discharge_time"].to_list() == [None, datetime(2010, 5, 3, 12)]
    assert visits["is_over"].to_list() == [False, True]


def test_a_source_without_dates_knows_the_order_alone():
    assert read(visit(None, "1", kind="inpatient"), dates=False) == ["1"]
