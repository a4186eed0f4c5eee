"""Outcomes on literal patients: death, laboratory results, several together, death in a stay; eGFR by its formula."""

import pytest
from cohorts.test_follow_up import ABOUT, INDEX, STROKE, ahead, rule, times
from drawn_patients import fates, person, tables_of, visit

from medbert_jax.cohorts.derived import rows_with_derived
from medbert_jax.cohorts.loading import parse_spec
from medbert_jax.cohorts.select import select_cohort

EGFR = "DERIVED/EGFR_CKD_EPI_2021"
CREATININE = "2160-0"


def sets(*ranges):
    return [
        {"id": id, **ABOUT, "results": [{"codes": [code], "units": [unit], "or_unit_unknown": False, side: limit}]}
        for id, code, unit, side, limit in ranges
    ]


def result(day, value, unit="mg/dL", code=CREATININE):
    return (day, code, value, unit)


def test_death_within_days_of_the_prediction():
    spec = ahead(code_sets=[], outcome={"died_within_days": 30, **ABOUT})
    assert times(
        {
            "same_day": person(INDEX, died="2010-01-01"),
            "day_30": person(INDEX, died="2010-01-31"),
            "day_31": person(INDEX, died="2010-02-01"),
            "alive": person(INDEX),
            "left_before": person(INDEX, followed=[("2009-01-01", "2010-01-30")]),
            "left_and_died": person(INDEX, died="2010-01-20", followed=[("2009-01-01", "2010-01-19")]),
            "died_as_it_ended": person(INDEX, died="2010-01-20", followed=[("2009-01-01", "2010-01-20")]),
        },
        spec,
    ) == {
        # The table is there, so who has no time in it was not followed.
        "same_day": (-1, None, None, 0),
        "day_30": (-1, None, None, 0),
        "day_31": (-1, None, None, 0),
        "alive": (-1, None, None, 0),
        "left_before": (-1, None, None, 29),
        "left_and_died": (-1, None, None, 18),
        "died_as_it_ended": (1, 19, None, None),
    }


def test_death_within_days_in_a_source_that_does_not_say_who_is_followed():
    spec = ahead(code_sets=[], outcome={"died_within_days": 30, **ABOUT})
    people = {
        "day_30": person(INDEX, died="2010-01-31"),
        "day_31": person(INDEX, died="2010-02-01"),
        "alive": person(INDEX),
    }
    assert times(people, spec) == {
        "day_30": (1, 30, None, None), "day_31": (0, None, None, None), "alive": (0, None, None, None)
    }  # fmt: skip
    assert fates(people, spec, last_day="2010-01-30") == dict.fromkeys(people, "source_ends")


LAB = {"from_day": 1, "to_day": 100, **ABOUT}
HIGH, LOW, ANY = ("high", "LOINC/2160-0", "mg/dL", "at_least", 2), ("low", "LOINC/718-7", "g/dL", "less_than", 7), (
    "any", "LOINC/2160-0", "mg/dL", "at_least", 0)  # fmt: skip


def test_a_result_on_one_side_of_a_limit():
    spec = ahead(code_sets=[], laboratory_sets=sets(HIGH), outcome={"results": "high", **LAB})
    low = ahead(code_sets=[], laboratory_sets=sets(LOW), outcome={"results": "low", **LAB})
    people = {
        "on_the_day": person(INDEX, results=[result("2010-01-01", 3.0)]),
        "day_1": person(INDEX, results=[result("2010-01-02", 2.0), result("2010-01-05", 2.0)]),
        "below": person(INDEX, results=[result("2010-01-02", 1.99)]),
        "day_101": person(INDEX, results=[result("2010-04-12", 3.0)]),
        "other_unit": person(INDEX, results=[result("2010-01-02", 3.0, "umol/L")]),
    }
    nothing = (0, None, None, None)
    assert times(people, spec) == dict.fromkeys(people, nothing) | {"day_1": (1, 1, None, None)}
    people = {
        name: person(INDEX, results=[result("2010-01-11", value, "g/dL", "718-7")])
        for name, value in (("less", 6.9), ("not_less", 7.0))
    }
    assert times(people, low) == {"less": (1, 10, None, None), "not_less": nothing}


def test_two_results_so_many_days_apart():
    """The first of the time at risk and one 90 days later: 2 January and 2 April are days 1 and 91."""
    spec = ahead(
        code_sets=[], laboratory_sets=sets(HIGH), outcome={"results": "high", "days_apart": 90, **LAB, "to_day": 200}
    )

    def on(*days):
        return person(INDEX, results=[result(day, 2.5) for day in days])

    assert times(
        {
            "one": on("2010-01-02"),
            "89_days": on("2010-01-02", "2010-04-01"),
            "90_days": on("2010-01-02", "2010-04-02"),
            "first_before_the_time": on("2009-12-01", "2010-04-02"),
            "third": on("2010-01-02", "2010-02-02", "2010-05-02"),
        },
        spec,
    ) == {
        "one": (0, None, None, None),
        "89_days": (0, None, None, None),
        "90_days": (1, 91, None, None),
        "first_before_the_time": (0, None, None, None),
        "third": (1, 121, None, None),
    }


def test_a_relative_change():
    """50 % above the last result by the day of the prediction, the mean of a day."""
    rise = ahead(code_sets=[], laboratory_sets=sets(ANY), outcome={"change_of": "any", "rise_percent": 50, **LAB})
    fall = ahead(code_sets=[], laboratory_sets=sets(ANY), outcome={"change_of": "any", "fall_percent": 50, **LAB})
    before = result("2009-06-01", 9.0), result("2010-01-01", 1.0)
    people = {
        "149": person(INDEX, results=[*before, result("2010-01-11", 1.49)]),
        "150": person(INDEX, results=[*before, result("2010-01-11", 1.5)]),
        "mean": person(INDEX, results=[*before, result("2010-01-11T08:00", 1.0), result("2010-01-11T09:00", 2.0)]),
        "half": person(INDEX, results=[*before, result("2010-01-11", 0.5)]),
        "no_baseline": person(INDEX, results=[result("2010-01-02", 1.0), result("2010-01-11", 5.0)]),
    }
    case, control = (1, 1, 1), (0, 1, 1)
    assert fates(people, rise) == {
        "149": control, "150": case, "mean": case, "half": control, "no_baseline": "no_baseline"
    }  # fmt: skip
    assert fates(people, fall) == {
        "149": control, "150": control, "mean": control, "half": case, "no_baseline": "no_baseline"
    }  # fmt: skip


def test_a_change_is_of_one_unit():
    both = sets(ANY)
    both[0]["results"][0]["units"] = ["mg/dL", "umol/L"]
    with pytest.raises(ValueError, match=r"outcome.change_of: a change is of values of one unit"):
        ahead(code_sets=[], laboratory_sets=both, outcome={"change_of": "any", "rise_percent": 50, **LAB})


# By the published formula, computed by hand elsewhere: 142 · min(S/k, 1)^a · max(S/k, 1)^−1.2 · 0.9938^age [· 1.012].
@pytest.mark.parametrize(
    ("sex", "born", "value", "unit", "rate"),
    [
        ("female", "1960-01-01", 1.0, "mg/dL", 68.6),
        ("male", "1960-01-01", 1.0, "mg/dL", 91.7),
        ("male", "1960-01-01", 88.4, "µmol/L", 91.7),
        ("male", "1960-01-01", 88.4, "umol/L", 91.7),
        ("female", "1960-01-01", 0.5, "mg/dL", 114.2),
        ("male", "1960-01-02", 1.0, "mg/dL", 92.3),  # 49 years old still
        ("male", "1960-01-01", 1.0, None, None),
        ("male", "1960-01-01", 1.0, "mg/L", None),
        (None, "1960-01-01", 1.0, "mg/dL", None),
        ("male", None, 1.0, "mg/dL", None),
        ("male", "1992-01-02", 1.0, "mg/dL", None),  # 17
        ("male", "1960-01-01", 0.0, "mg/dL", None),
    ],
)
def test_egfr(sex, born, value, unit, rate):
    people = {"a": person(INDEX, born=born, sex=sex, results=[result("2010-01-01", value, unit)])}
    spec = ahead(
        code_sets=[],
        laboratory_sets=sets(("stage_3", EGFR, "mL/min/1.73m2", "less_than", 60)),
        outcome={"results": "stage_3", **LAB},
    )
    rows = rows_with_derived(tables_of(people), spec, "measurements")
    found = rows.filter(rows["code_system"] == "DERIVED")["value"].to_list()
    assert found == ([] if rate is None else [pytest.approx(rate, abs=0.1)])


def test_egfr_is_a_result_of_laboratory_sets():
    spec = ahead(
        code_sets=[],
        laboratory_sets=sets(("stage_4", EGFR, "mL/min/1.73m2", "less_than", 30)),
        outcome={"results": "stage_4", "days_apart": 90, **LAB, "to_day": 365},
        rules=[rule(measure="measurements", with_results="stage_4", window="through_index", at_least=1)],
    )
    high = [result("2010-02-01", 4.0), result("2010-06-01", 354.0, "umol/L")]
    people = {
        "falls": person(INDEX, sex="male", results=high),
        "had": person(INDEX, sex="male", results=[result("2009-02-01", 4.0), *high]),
    }
    assert fates(people, spec) == {"falls": (1, 1, 1), "had": "rule"}


PARTS = [
    {"codes": "stroke", "from_day": 1, "to_day": 50, **ABOUT},
    {"died_within_days": 100, **ABOUT},
]


def test_any_of_outcomes_is_the_first_and_its_death_does_not_compete():
    people = {
        "stroke": person(INDEX, visit("2010-02-01", STROKE), died="2010-03-01"),
        "death": person(INDEX, died="2010-03-02"),
        "late_stroke": person(INDEX, visit("2010-02-21", STROKE)),
        "nothing": person(INDEX),
    }
    assert times(people, ahead(outcome={"any_of": PARTS, **ABOUT})) == {
        "stroke": (1, 31, None, None), "death": (1, 60, None, None), "late_stroke": (0, None, None, None),
        "nothing": (0, None, None, None),
    }  # fmt: skip


def test_all_of_outcomes_is_the_last_and_a_death_before_competes():
    results = sets(HIGH)
    parts = [PARTS[0], {"results": "high", **LAB}]
    high = [result("2010-03-02", 2.0)]
    people = {
        "both": person(INDEX, visit("2010-02-01", STROKE), results=high),
        "one": person(INDEX, results=high),
        "died_between": person(INDEX, visit("2010-02-01", STROKE), died="2010-02-11"),
        "left_between": person(INDEX, visit("2010-02-01", STROKE), results=high),
    }
    spec = ahead(laboratory_sets=results, outcome={"all_of": parts, **ABOUT})
    assert times(people, spec) == {
        "both": (1, 60, None, None), "one": (0, None, None, None), "died_between": (0, None, 41, None),
        "left_between": (1, 60, None, None),
    }  # fmt: skip
    left = {"a": person(*people["both"]["visits"], results=high, followed=[("2009-01-01", "2010-02-20")])}
    assert times(left, spec) == {"a": (-1, None, None, 50)}


def test_parts_are_outcomes_ahead():
    with pytest.raises(ValueError, match="needs exactly one of"):
        ahead(outcome={"any_of": [{"stay_over_days": 7, **ABOUT}], **ABOUT})
    with pytest.raises(ValueError, match="use through_index"):
        ahead(outcome={"any_of": PARTS, **ABOUT}, input={"until": "before_index", **ABOUT},
              index={"everyone": "last_visit", **ABOUT})  # fmt: skip


def test_death_in_the_stay():
    spec = ahead(
        code_sets=[],
        outcome={"died_in_stay": True, **ABOUT},
        index={"everyone": "second_visit", **ABOUT},
        input={"until": "before_index", **ABOUT},
        rules=[
            {"action": "skip_visit"}
            | rule(measure="visits", with_type=["outpatient"], window="index_visit", at_least=1)
        ],
    )

    def stay(day, *codes, how="home", **what):
        return {**visit(day, "401.9", 3, kind="inpatient", **what), "discharge_disposition": how}

    first = stay("2009-01-01")
    people = {
        "dies": person(first, stay("2010-01-01", how="expired")),
        "leaves": person(first, stay("2010-01-01")),
        "unknown_end": person(first, stay("2010-01-01", how=None, discharge=None)),
        "unknown_disposition": person(first, stay("2010-01-01", how=None)),
        "first_stay": person(stay("2010-01-01", how="expired")),
        "contact_between": person(first, INDEX, stay("2010-02-01", how="expired")),
        "third": person(first, stay("2010-01-01"), stay("2010-02-01", how="expired")),
    }
    assert fates(people, spec) == {
        "dies": (1, 2, 1), "leaves": (0, 2, 1), "unknown_end": "outcome_unknown", "unknown_disposition": (0, 2, 1),
        "first_stay": "index_undated", "contact_between": (1, 3, 2), "third": (0, 2, 1),
    }  # fmt: skip


def test_a_spec_of_deaths_without_rules_is_read():
    spec = {
        "name": "mortality-30d", "title": "Death", "description": "Death", "rules": [],
        "outcome": {"died_within_days": 30, **ABOUT}, "index": {"everyone": "first_visit", **ABOUT},
        "input": {"until": "through_index", "minimum_codes": 1, **ABOUT},
    }  # fmt: skip
    frame, _ = select_cohort(tables_of({"a": person(INDEX, died="2010-01-05")}), parse_spec(spec, source="made"))
    assert frame["label"].to_list() == [1]
