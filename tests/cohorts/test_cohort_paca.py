"""The built-in cohort paca on literal patients, and gaps between input and index."""

from dataclasses import replace
from datetime import datetime

import polars as pl
import pytest
from drawn_patients import fates, person, tables_of, visit

from medbert_jax.cohorts.leakage import check_no_leak
from medbert_jax.cohorts.loading import load_spec
from medbert_jax.cohorts.select import select_cohort
from medbert_jax.ehr.known import input_diagnoses, input_visits

FIRST = visit("2010-01-01", "401.9")


@pytest.fixture(scope="module")
def paca():
    return load_spec("paca")


def with_gap(spec, days):
    return replace(spec, input=replace(spec.input, gap_days=days))


def test_cases_controls_and_other_cancers(paca):
    cancer, late = visit("2012-01-01", "157.9"), visit("2013-01-01", "401.9")
    assert fates(
        {
            "case": person(FIRST, cancer, late),
            "case_icd10": person(FIRST, visit("2016-01-01", "ICD10CM/C25.0")),
            "control": person(FIRST, visit("2011-01-01", "250.00"), late),
            "other_before": person(visit("2010-01-01", "174.9"), cancer),
            "other_with_it": person(FIRST, visit("2012-01-01", "157.9 197.7")),
            "other_after": person(FIRST, cancer, visit("2012-02-01", "197.7")),
            "other_alone": person(FIRST, late, visit("2014-01-01", "ICD10CM/C50.919")),
            "skin": person(visit("2010-01-01", "173.3 ICD10CM/C44.91"), cancer),
            "skin_of_a_control": person(visit("2010-01-01", "173.3 ICD10CM/C44"), late),
            "first_and_last": person(visit("2010-01-01", "140.0"), late),
            "last_of_icd9": person(visit("2010-01-01", "209.30"), late),
            "last_of_icd10": person(visit("2010-01-01", "ICD10CM/C97"), late),
            "merkel_cell": person(visit("2010-01-01", "ICD10CM/C4A.9"), late),
            "neighbours": person(
                visit("2010-01-01", "139.8 210.0 235.2 239.0 V10.3 E849.0 ICD10CM/D01.0 ICD10CM/B99.9"),
                late,
            ),
            "no_codes": person(visit("2010-01-01"), cancer),
            "turned": person(visit("2010-01-02", "401.9", discharge="2010-01-01"), cancer),
        },
        paca,
    ) == {
        "case": (1, 2, 1),
        "case_icd10": (1, 2, 1),
        "control": (0, 3, 2),
        "other_before": "paca_other_cancer_before",
        "other_with_it": (1, 2, 1),
        "other_after": (1, 2, 1),
        "other_alone": "other_cancer",
        "skin": (1, 2, 1),
        "skin_of_a_control": (0, 2, 1),
        "first_and_last": "other_cancer",
        "last_of_icd9": "other_cancer",
        "last_of_icd10": "other_cancer",
        "merkel_cell": "other_cancer",
        "neighbours": (0, 2, 1),
        "no_codes": "input_codes",
        "turned": "incorrect_times",
    }  # fmt: skip


def test_age_at_the_index(paca):
    def on(day, **what):
        return person(FIRST, visit(day, "157.0"), **what)

    def stated(days, precision=None):
        return person(FIRST, visit("2012-01-01", "157.0", age_days=days, precision=precision), born=None)

    people = {
        "under": on("2012-06-14", born="1967-06-15"),
        "on_the_birthday": on("2012-06-15", born="1967-06-15"),
        "leap_day_28_february": on("2013-02-28", born="1968-02-29"),
        "leap_day_1_march": on("2013-03-01", born="1968-02-29"),
        "leap_day_29_february": on("2016-02-29", born="1971-03-01"),
        "control_by_the_last": person(FIRST, visit("2011-01-01", "401.9"), born="1966-01-01"),
        "control_too_young": person(FIRST, visit("2010-12-31", "401.9"), born="1966-01-01"),
        "unknown": on("2012-06-15", born=None),
        "july_of_the_year_over": stated(16437, 365),
        "july_of_the_year_under": stated(16436, 365),
    }
    assert fates(people, paca) == {
        "under": "under_45", "on_the_birthday": (1, 2, 1), "leap_day_28_february": "under_45",
        "leap_day_1_march": (1, 2, 1), "leap_day_29_february": "under_45", "control_by_the_last": (0, 2, 1),
        "control_too_young": "under_45", "unknown": "age_unknown", "july_of_the_year_over": (1, 2, 1),
        "july_of_the_year_under": "under_45",
    }  # fmt: skip
    frame, _ = select_cohort(tables_of(people), paca)
    assert frame.filter("flag_age_uncertain")["patient_id"].to_list() == ["july_of_the_year_over"]


def test_the_input_ends_so_many_days_before_the_index(paca):
    """1 December 2011 is day −31 of 1 January 2012, 2 December day −30, 3 December day −29."""
    index = visit("2012-01-01T10:00", "157.0")
    people = {
        "day_30": person(FIRST, visit("2011-12-02T23:00", "401.9"), index),
        "day_29": person(FIRST, visit("2011-12-03T00:00", "401.9"), index),
        "discharged_on_day_29": person(FIRST, visit("2011-12-01", "401.9", days=2), index),
        "discharge_unknown": person(FIRST, visit("2011-12-02", "401.9", discharge=None), index),
        "nothing_left": person(visit("2011-12-03", "401.9"), index),
        "what_was_over_beside_an_open_one": person(
            FIRST, visit("2011-01-01", "401.9", days=340), visit("2011-06-01", "401.9"), index
        ),
    }
    gap = with_gap(paca, 30)
    assert fates(people, gap) == {
        "day_30": (1, 3, 2), "day_29": (1, 3, 1), "discharged_on_day_29": (1, 3, 2), "discharge_unknown": (1, 3, 2),
        "nothing_left": "input_codes", "what_was_over_beside_an_open_one": (1, 4, 3),
    }  # fmt: skip
    tables = tables_of(people)
    frame, _ = select_cohort(tables, gap)
    read = input_diagnoses(tables, input_visits(tables, frame)).group_by("patient_id").agg(pl.col("order").sort())
    assert dict(read.iter_rows()) == {
        "day_30": [1, 2], "day_29": [1], "discharged_on_day_29": [1], "discharge_unknown": [1, 2],
        "what_was_over_beside_an_open_one": [1, 3],
    }  # fmt: skip
    assert set(frame["prediction_time"]) == {datetime(2011, 12, 2, 23, 59, 59, 999999)}
    near = frame.with_columns(pl.col("index_order").alias("input_until") - 1)
    with pytest.raises(RuntimeError, match="1 patients with visits that had not begun"):
        check_no_leak(tables, near, gap)
    later = near.with_columns(pl.col("prediction_time", "over_by") + pl.duration(days=10))
    with pytest.raises(RuntimeError, match="got 3 patients with diagnoses known less than 30 days before the index"):
        check_no_leak(tables, later, gap)
    at_once, _ = select_cohort(tables, paca)
    assert set(at_once["prediction_time"]) == {datetime(2012, 1, 1, 9, 59, 59, 999999)}
