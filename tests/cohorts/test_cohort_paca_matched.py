"""The built-in cohort paca-matched on literal patients: since 45 years, at the same time, cancer-free by then."""

from dataclasses import replace
from datetime import timedelta

import polars as pl
import pytest
from drawn_patients import fates, person, tables_of, visit

from medbert_jax.cohorts.loading import load_spec, parse_spec
from medbert_jax.cohorts.matching import in_control_pool
from medbert_jax.cohorts.select import select_cohort
from medbert_jax.ehr.hashing import patient_hash

BORN = "1960-06-15"  # 45 on 15 June 2005


@pytest.fixture(scope="module")
def matched():
    return load_spec("paca-matched")


@pytest.fixture(scope="module")
def paired(matched):
    """With one control for each case: who may be one shows without a second."""
    return replace(matched, matching=replace(matched.matching, controls_per_case=1))


@pytest.fixture(scope="module")
def ids(matched):
    """A patient who may be a case, and one who may be a control."""
    names = pl.Series([f"p{number}" for number in range(80)])
    pool = pl.Series(in_control_pool(names, matched.matching))
    return names.filter(~pool)[0], names.filter(pool)[0]


def seen(*visits, born=BORN, **what):
    return person(*visits, born=born, **what)


# His time at risk begins on 1 July 2005, when he is 45 and seen, and lasts 100 days.
CASE = seen(visit("2005-06-14", "401.9"), visit("2005-07-01", "401.9"), visit("2005-10-09", "157.0"))


def alone(matched, ids, control, case=CASE, **settings):
    """The date of a control beside one case, or None where he is not drawn."""
    case_id, control_id = ids
    frame, _ = select_cohort(tables_of({case_id: case, control_id: control}, **settings), matched)
    assert frame.height in (0, 2) and frame["set_id"].n_unique() == frame.height // 2
    times = frame.filter(pl.col("label") == 0)["prediction_time"]
    return (times[0] + timedelta(microseconds=1)).isoformat()[:10] if len(times) else None


def test_the_time_at_risk_begins_with_the_first_encounter_at_45(paired, ids):
    # 100 days after 15 June, the day itself counted as 45; a day younger nothing begins.
    assert alone(paired, ids, seen(visit("2005-06-15", "401.9"))) == "2005-09-23"
    assert alone(paired, ids, seen(visit("2005-06-14", "401.9"))) is None
    assert alone(paired, ids, seen(visit("2005-06-14", "401.9"), visit("2005-08-01", "401.9"))) == "2005-11-09"
    # 100 days later is another year; so is the same time in a year before.
    assert alone(paired, ids, seen(visit("2005-10-01", "401.9"))) is None
    assert alone(paired, ids, seen(visit("2004-07-01", "401.9"), born="1950-01-01")) is None
    assert alone(paired, ids, seen(visit("2005-07-01", "401.9"), born=None)) is None  # age unknown


def test_a_control_is_cancer_free_and_alive_at_his_date_and_may_have_it_later(paired, ids):
    """His date is 9 October 2005, that of the case."""
    first = visit("2005-07-01", "401.9")
    drawn = {
        "the day after": seen(first, visit("2005-10-10", "157.9")),
        "skin": seen(first, visit("2005-08-01", "173.3")),
        "another on the date": seen(first, visit("2005-10-09", "174.9")),
        "dead on the date": seen(first, died="2005-10-09"),
    }
    for name, one in drawn.items():
        assert alone(paired, ids, one) == "2005-10-09", name
    not_drawn = {
        "on the date": seen(first, visit("2005-10-09", "157.9")),
        "before": seen(first, visit("2005-09-01", "157.9")),
        "another the day before": seen(first, visit("2005-10-08", "174.9")),
        "another in ICD-10": seen(first, visit("2005-09-01", "ICD10CM/C50.9")),
        "dead the day before": seen(first, died="2005-10-08"),
        "no code": seen(visit("2005-07-01", "")),
    }
    for name, one in not_drawn.items():
        assert alone(paired, ids, one) is None, name


@pytest.mark.parametrize(
    ("case", "fate"),
    [
        (seen(visit("2005-09-09", "401.9"), visit("2005-10-08", "157.0")), "short_at_risk"),  # 29 days
        (seen(visit("2005-06-14", "401.9"), visit("2005-06-20", "157.0")), "short_at_risk"),
        (seen(visit("2005-07-01", "401.9"), visit("2005-10-09", "157.0"), born=None), "short_at_risk"),
        (seen(visit("2005-07-01", "174.9"), visit("2005-10-09", "157.0")), "other_cancer_before"),
        (seen(visit("2005-07-01", "401.9")), "not_a_case"),
        (seen(visit("2005-09-09", "401.9"), visit("2005-10-09", "157.0")), "unmatched"),  # 30 days, and nobody there
    ],
)
def test_why_a_case_leaves(matched, ids, case, fate):
    case_id, control_id = ids
    others = {control_id: seen(visit("2005-07-01", "401.9"), visit("2005-07-10", "174.9"))}
    assert fates({case_id: case, **others}, matched)[case_id] == fate


def test_the_weights_and_the_draw_are_those_of_dhf_matched(matched):
    names = pl.Series([f"p{number}" for number in range(200)])
    pool = pl.Series(in_control_pool(names, matched.matching))
    cases = sorted(names.filter(~pool)[:2].to_list(), key=lambda id: int(patient_hash([id], "paca-matched/draw")[0]))
    controls = sorted(names.filter(pool)[:5].to_list(), key=lambda id: int(patient_hash([id], "paca-matched/draw")[0]))
    people = dict.fromkeys(cases, CASE) | dict.fromkeys(controls, seen(visit("2005-07-01", "401.9")))
    frame, _ = select_cohort(tables_of(people), matched)
    weights = dict(frame.select("patient_id", "weight").iter_rows())
    assert [weights.get(one) for one in controls] == [5 / 2, 5 / 2, 3 / 2, 3 / 2, None]
    assert [weights[one] for one in cases] == pytest.approx([1 / 0.7] * 2)


def test_matching_goes_since_codes_or_since_an_age(matched):
    data = matched.to_dict()
    data["matching"]["since_codes"] = "pancreatic_cancer"
    with pytest.raises(ValueError, match="matching: needs exactly one of since_codes, since_age"):
        parse_spec(data, source="both")
    del data["matching"]["since_codes"], data["matching"]["since_age"]
    with pytest.raises(ValueError, match="matching: needs exactly one of since_codes, since_age"):
        parse_spec(data, source="neither")
