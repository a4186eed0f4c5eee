"""The built-in cohorts in the shape of published lists, on literal patients."""

import pytest
from cohorts.test_follow_up import times
from drawn_patients import fates, person, visit

from medbert_jax.cohorts.loading import load_spec

NEW = {  # an acute or first code of it, one that is none, one that was there before and lets him leave
    "acute-mi-1y": ("410.71", "411.1", "ICD10CM/I21.4"),
    "ischaemic-stroke-1y": ("434.91", "434.90", "ICD10CM/I63.9"),
    "hypertension-1y": ("401.9", "406", "ICD10CM/I10"),
    "type-2-diabetes-1y": ("250.00", "250.01", "ICD10CM/E10.9"),
}


def stay(day, codes="786.50", days=3, how="home", **what):
    return {**visit(day, codes, days, kind="inpatient", **what), "discharge_disposition": how}


PAST = visit("2009-01-01", "786.50")  # a year and more before
STAY = stay("2010-01-10")  # it ends on 13 January


@pytest.mark.parametrize("name", NEW)
def test_a_new_diagnosis_within_a_year_of_the_first_stay(name):
    code, other, earlier = NEW[name]
    before = {
        "acute-mi-1y": "acute_mi_before",
        "ischaemic-stroke-1y": "ischaemic_stroke_before",
        "hypertension-1y": "hypertension_before",
        "type-2-diabetes-1y": "diabetes_before",
    }[name]
    assert fates(
        {
            "day_1": person(PAST, STAY, visit("2010-01-14", code)),
            "day_365": person(PAST, STAY, visit("2011-01-13", code)),
            "day_366": person(PAST, STAY, visit("2011-01-14", code)),
            "neighbour": person(PAST, STAY, visit("2010-02-01", other)),
            "had_it": person(PAST, visit("2009-05-01", earlier), STAY, visit("2010-02-01", code)),
            "at_the_stay": person(PAST, stay("2010-01-10", earlier), visit("2010-02-01", code)),
            "no_stay": person(PAST, visit("2010-01-10", "786.50"), visit("2010-02-01", code)),
            "emergency": person(PAST, visit("2010-01-10", "786.50", kind="emergency"), visit("2010-02-01", code)),
            "died_in_it": person(PAST, stay("2010-01-10", how="expired")),
            "364_days_before": person(visit("2009-01-14", "786.50"), STAY),
            "365_days_before": person(visit("2009-01-13", "786.50"), STAY),
            "under_18": person(PAST, STAY, born="1992-01-11"),
            "age_unknown": person(PAST, STAY, born=None),
        },
        load_spec(name),
    ) == {
        "day_1": (1, 2, 2), "day_365": (1, 2, 2), "day_366": (0, 2, 2), "neighbour": (0, 2, 2), "had_it": before,
        "at_the_stay": before, "no_stay": "outpatient", "emergency": "outpatient", "died_in_it": "died_at_index",
        "364_days_before": "short_lookback", "365_days_before": (0, 2, 2), "under_18": "under_18",
        "age_unknown": "age_unknown",
    }  # fmt: skip


def test_fibrillation_within_a_year_of_hypertension():
    first = visit("2010-01-01", "401.9")
    assert fates(
        {
            "case": person(first, visit("2011-01-01", "427.31")),
            "late": person(first, visit("2011-01-02", "427.31")),
            "other_arrhythmia": person(first, visit("2010-02-01", "427.5")),
            "had_it": person(visit("2009-01-01", "427.32"), first),
            "same_day": person(first, visit("2010-01-01T20:00", "ICD10CM/I48.91")),
            "none": person(visit("2010-01-01", "786.50")),
            "open": person(visit("2010-01-01", "401.9@2010-01-02", kind="inpatient", discharge=None)),
        },
        load_spec("af-after-hypertension"),
    ) == {
        "case": (1, 1, 1), "late": (0, 1, 1), "other_arrhythmia": (0, 1, 1), "had_it": "fibrillation_before",
        "same_day": "fibrillation_before", "none": "no_hypertension", "open": "no_index_visit",
    }  # fmt: skip


def creatinine(*days, value=4.0):
    return [(day, "2160-0", value, "mg/dL") for day in days]


def test_progression_of_kidney_disease_by_codes_or_by_rates():
    first, spec = visit("2010-01-01", "585.3"), load_spec("ckd-progression")
    people = {
        "coded": person(first, visit("2012-12-31", "585.6")),
        "coded_late": person(first, visit("2013-01-01", "585.6")),
        "rates": person(first, sex="male", results=creatinine("2010-02-01", "2010-05-02")),
        "too_close": person(first, sex="male", results=creatinine("2010-02-01", "2010-05-01")),
        "sex_unknown": person(first, results=creatinine("2010-02-01", "2010-05-02")),
        "had_it": person(visit("2009-01-01", "ICD10CM/N18.4"), first),
        "stage_2": person(visit("2010-01-01", "585.2")),
    }
    assert fates(people, spec) == {
        "coded": (1, 1, 1), "coded_late": (0, 1, 1), "rates": (1, 1, 1), "too_close": (0, 1, 1),
        "sex_unknown": (0, 1, 1), "had_it": "stage_4_before", "stage_2": "no_stage_3",
    }  # fmt: skip
    codes_alone = fates(people, spec, without=("measurements",))
    assert codes_alone["coded"] == (1, 1, 1) and codes_alone["rates"] == (0, 1, 1)


def test_death_within_30_days_of_the_discharge():
    spec = load_spec("mortality-30d")
    assert times(
        {
            "day_30": person(STAY, died="2010-02-12"),
            "day_31": person(STAY, died="2010-02-13"),
            "lives": person(STAY),
            "transferred": person(STAY, stay("2010-01-13T20:00"), died="2010-02-14"),  # that ends on 16 January
        },
        spec,
    ) == {
        "day_30": (1, 30, None, None), "day_31": (0, None, None, None), "lives": (0, None, None, None),
        "transferred": (1, 29, None, None),
    }  # fmt: skip
    assert fates(
        {
            "in_the_stay": person(stay("2010-01-10", how="expired")),
            "in_the_stay_by_its_day": person(STAY, died="2010-01-13"),
            "contact": person(visit("2010-01-10", "786.50"), died="2010-01-12"),
        },
        spec,
    ) == {"in_the_stay": "died_at_index", "in_the_stay_by_its_day": "died_at_index", "contact": "outpatient"}


def test_death_in_the_second_stay():
    second = stay("2010-03-01", how="expired")
    assert fates(
        {
            "dies": person(STAY, second),
            "leaves": person(STAY, stay("2010-03-01")),
            "by_the_recorded_death": person(STAY, stay("2010-03-01", how=None), died="2010-03-02"),
            "transfer_is_no_second": person(STAY, stay("2010-01-13T20:00", how="expired")),
            "dies_after_a_transfer": person(STAY, stay("2010-03-01"), stay("2010-03-04T20:00", how="expired")),
            "one": person(STAY),
        },
        load_spec("in-hospital-mortality"),
    ) == {
        "dies": (1, 2, 1), "leaves": (0, 2, 1), "by_the_recorded_death": (1, 2, 1),
        "transfer_is_no_second": "no_second_stay", "dies_after_a_transfer": (1, 2, 1), "one": "no_second_stay",
    }  # fmt: skip
