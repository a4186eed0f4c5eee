"""The built-in cohort dhf-landmark on literal patients: the index, what is known by it, and the year after."""

from datetime import datetime

import polars as pl
import pytest
from drawn_patients import fates, person, tables_of, visit

from medbert_jax.cohorts.leakage import check_no_leak
from medbert_jax.cohorts.loading import load_spec
from medbert_jax.cohorts.select import select_cohort

METFORMIN = (("2010-03-01", "metformin"),)
# 1 January 2011 is day 365 after the first type 2 code.
START = (visit("2010-01-01", "250.00"), visit("2010-02-01", "250.00"))
INDEX = visit("2011-01-01", "401.9")


@pytest.fixture(scope="module")
def landmark():
    return load_spec("dhf-landmark")


def diabetic(*more, drugs=METFORMIN, **what):
    return person(*START, *more, drugs=drugs, **what)


def test_the_index_is_the_first_visit_that_ends_a_year_after_type_2_diabetes(landmark):
    assert fates(
        {
            "day_364": diabetic(visit("2010-12-31", "401.9")),
            "day_365": diabetic(INDEX),
            "ends_on_day_365": diabetic(visit("2010-12-30", "401.9", days=2), visit("2011-03-01", "401.9")),
            "the_first_of_two": diabetic(visit("2010-12-31", "401.9"), INDEX, visit("2012-01-01", "401.9")),
            "discharge_unknown": diabetic(visit("2011-01-01", "401.9", discharge=None)),
            "discharge_unknown_day_364": diabetic(visit("2010-12-31", "401.9", discharge=None)),
            "no_diabetes": person(visit("2010-01-01", "401.9"), INDEX),
            "no_type_2": person(visit("2010-01-01", "250"), visit("2010-01-02", "250"), INDEX, drugs=METFORMIN),
        },
        landmark,
    ) == {
        "day_364": "no_index_visit",
        "day_365": (0, 3, 3),
        "ends_on_day_365": (0, 3, 3),
        "the_first_of_two": (0, 4, 4),
        "discharge_unknown": (0, 3, 3),
        "discharge_unknown_day_364": "no_index_visit",
        "no_diabetes": "no_diabetes",
        "no_type_2": "no_type_2",
    }


def test_the_prediction_is_made_at_the_end_of_the_index(landmark):
    people = {
        "known": diabetic(visit("2010-12-30T09:00", "401.9", discharge="2011-01-01T15:30")),
        "unknown": diabetic(visit("2011-01-01T09:00", "401.9", discharge=None)),
    }
    frame, _ = select_cohort(tables_of(people), landmark)
    assert frame["prediction_time"].to_list() == [datetime(2011, 1, 1, 15, 30), datetime(2011, 1, 1, 9)]
    assert frame["index_day"].to_list() == [363, 365]
    assert frame["weight"].to_list() == [1.0, 1.0]


def hf(day):
    return visit(day, "428.0")


def test_the_outcome_is_heart_failure_on_day_1_to_365(landmark):
    """Day 365 after 1 January 2011 is 1 January 2012."""
    assert fates(
        {
            "day_0": diabetic(INDEX, hf("2011-01-01T20:00")),
            "day_1": diabetic(INDEX, hf("2011-01-02T00:00")),
            "day_365": diabetic(INDEX, hf("2012-01-01T23:00")),
            "day_366": diabetic(INDEX, hf("2012-01-02T00:00")),
            "at_the_index": diabetic(visit("2011-01-01", "428.0")),
            "before": diabetic(hf("2010-05-01"), INDEX, hf("2011-03-01")),
            "one_code_and_unverified": diabetic(INDEX, visit("2011-05-01", "250.00 402.91")),
        },
        landmark,
    ) == {
        "day_0": "hf_before_index",
        "day_1": (1, 3, 3),
        "day_365": (1, 3, 3),
        "day_366": (0, 3, 3),
        "at_the_index": "hf_before_index",
        "before": "hf_before_index",
        "one_code_and_unverified": (1, 3, 3),
    }


def test_death_competes(landmark):
    people = {
        "on_the_day": diabetic(INDEX, died="2011-01-01"),
        "dead_on_day_1": diabetic(INDEX, died="2011-01-02"),
        "dead_on_day_365": diabetic(INDEX, died="2012-01-01"),
        "dead_later": diabetic(INDEX, died="2012-01-02"),
        "heart_failure_first": diabetic(INDEX, hf("2011-03-01"), died="2011-03-01"),
        "code_after_death": diabetic(INDEX, hf("2011-03-02"), died="2011-03-01"),
    }
    assert fates(people, landmark) == {
        "on_the_day": "died_before_index", "dead_on_day_1": (0, 3, 3), "dead_on_day_365": (0, 3, 3),
        "dead_later": (0, 3, 3), "heart_failure_first": (1, 3, 3), "code_after_death": (0, 3, 3),
    }  # fmt: skip
    frame, _ = select_cohort(tables_of(people), landmark)
    assert set(frame.filter("competing_death")["patient_id"]) == {
        "dead_on_day_1", "dead_on_day_365", "code_after_death"
    }  # fmt: skip


def test_what_comes_after_the_index_decides_nothing(landmark):
    other = visit("2011-02-01", "250.01 253.5")
    turned = visit("2011-02-01", "401.9", discharge="2011-01-20")
    assert fates(
        {
            "exclusion_later": diabetic(INDEX, other),
            "exclusion_at_index": diabetic(visit("2011-01-01", "253.5")),
            "wrong_time_later": diabetic(INDEX, turned),
            "drug_on_the_day": diabetic(INDEX, drugs=[("2011-01-01T23:00", "metformin")]),
            "drug_the_day_after": diabetic(INDEX, drugs=[("2011-01-02", "metformin")]),
            "diabetes_once_by_then": person(START[0], INDEX, visit("2011-02-01", "250.00"), drugs=METFORMIN),
            "diabetes_twice_by_then": person(START[0], visit("2011-01-01", "250.00"), drugs=METFORMIN),
            "under_18": diabetic(INDEX, born="1992-01-02"),
            "eighteen": diabetic(INDEX, born="1992-01-01"),
            "age_unknown": diabetic(INDEX, born=None),
        },
        landmark,
    ) == {
        "exclusion_later": (0, 3, 3),
        "exclusion_at_index": "diabetes_insipidus",
        "wrong_time_later": (0, 3, 3),
        "drug_on_the_day": (0, 3, 3),
        "drug_the_day_after": "diabetes_unverified",
        "diabetes_once_by_then": "one_diabetes_encounter",
        "diabetes_twice_by_then": (0, 2, 2),
        "under_18": "under_18",
        "eighteen": (0, 3, 3),
        "age_unknown": "age_unknown",
    }


@pytest.mark.parametrize(("last_day", "fate"), [("2012-01-01", (1, 3, 3)), ("2011-12-31", "short_follow_up")])
def test_follow_up_is_asked_of_everybody_event_or_not(landmark, last_day, fate):
    assert fates({"a": diabetic(INDEX, hf("2011-03-01"))}, landmark, last_day=last_day) == {"a": fate}


def test_a_source_whose_last_day_is_unknown_is_refused(landmark):
    with pytest.raises(ValueError, match=r"no last day of the source.*read the source again"):
        select_cohort(tables_of({"a": diabetic(INDEX)}, last_day=None), landmark)


def test_planted_leaks_are_caught(landmark):
    tables = tables_of({"a": diabetic(INDEX, hf("2011-03-01")), "b": diabetic(INDEX, visit("2011-03-01", "401.9"))})
    frame, _ = select_cohort(tables, landmark)
    check_no_leak(tables, frame, landmark)
    with pytest.raises(RuntimeError, match=r"2 patients with visits that are not before the end .*, 2 patients with"):
        check_no_leak(tables, frame.with_columns(pl.col("input_until") + 1), landmark)
