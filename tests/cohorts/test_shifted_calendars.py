"""Where each patient's calendar is shifted by a span of his own, nothing compares the days of two patients."""

import re
from datetime import date
from pathlib import Path

import pytest
from cohorts.test_follow_up import ABOUT, STROKE, ahead, rule, times
from drawn_patients import fates, person, tables_of, visit

from medbert_jax.cohorts.loading import changed_spec, load_spec
from medbert_jax.cohorts.select import select_cohort

INDEX = visit("2150-01-01", "427.31")
PEOPLE = {"event": person(INDEX, visit("2150-02-01", STROKE)), "nothing": person(INDEX)}
SHIFTED = {"last_day": "2201-05-05"}
CONTACT = {"until": "contact", **ABOUT}


def refusal(spec, people=PEOPLE):
    with pytest.raises(ValueError, match="patients' calendars must be one to be compared") as error:
        select_cohort(tables_of(people, **SHIFTED), spec)
    return str(error.value)


def test_what_compares_calendars_is_refused_by_name_with_what_to_do():
    text = refusal(ahead(rules=[rule(measure="days_of_follow_up", fewer_than=100)], follow_up=CONTACT))
    assert "rule rule asks when the source ends: leave it out in a copy of the spec 'made'" in text
    split = {"test_from": "2015-01-01", **ABOUT}
    assert "split.test_from (--test-from)" in refusal(ahead(split=split, follow_up=CONTACT))
    assert "matching asks when the source ends" in refusal(load_spec("dhf-matched"))
    assert "take tables with follow_up" in refusal(ahead())


def test_the_refusal_of_mortality_says_the_way_and_the_way_goes(tmp_path):
    stay = visit("2150-01-01", "410.9", 3, kind="inpatient")
    people = {"dies": person(stay, died="2150-01-20", born="2100-01-01"), "lives": person(stay, born="2100-01-01")}
    spec = load_spec("mortality-30d")
    way = (
        r"rule short_follow_up asks .* leave it out in a copy of the spec 'mortality-30d' \((.*)\), and what the source"
    )
    said = re.search(f"{way} records of each patient is taken for all that came ", refusal(spec, people))
    assert said
    text = Path(said[1]).read_text()
    rule_text = text[text.index("  - id: short_follow_up") :]
    assert rule_text.count("- id:") == 1  # the last one
    copied = tmp_path / "copy.yaml"
    copied.write_text(text.removesuffix(rule_text))
    assert fates(people, load_spec(str(copied)), **SHIFTED) == {"dies": (1, 1, 1), "lives": (0, 1, 1)}
    followed = {
        "leaves": person(stay, born="2100-01-01", followed=[("2149-01-01", "2150-01-20")]),
        "dies_then": person(stay, born="2100-01-01", died="2150-01-22", followed=[("2149-01-01", "2150-01-20")]),
        "stays": person(stay, born="2100-01-01", followed=[("2149-01-01", "2150-02-20")]),
    }
    assert "and the table follow_up says who is censored" in refusal(spec, followed)
    assert fates(followed, load_spec(str(copied)), **SHIFTED) == {
        "leaves": (-1, 1, 1), "dies_then": (-1, 1, 1), "stays": (0, 1, 1)
    }  # fmt: skip


def test_by_test_from():
    spec = changed_spec(load_spec("readmission-30d"), test_from=date(2015, 1, 1))
    assert "split by patient" in refusal(spec)


def test_what_is_told_of_each_patient_alone_is_not_refused():
    followed = {
        "event": person(INDEX, visit("2150-02-01", STROKE), followed=[("2149-01-01", "2150-12-31")]),
        "leaves": person(INDEX, followed=[("2149-01-01", "2150-01-31")]),
    }
    assert times(followed, ahead(), **SHIFTED) == {"event": (1, 31, None, None), "leaves": (-1, None, None, 30)}
    deaths = ahead(code_sets=[], outcome={"died_within_days": 30, **ABOUT})
    people = {"dies": person(INDEX, died="2150-01-20"), "lives": person(INDEX)}
    assert fates(people, deaths, **SHIFTED) == {"dies": (1, 1, 1), "lives": (0, 1, 1)}


def test_a_source_that_ends_by_today_is_not_shifted():
    people = {"event": person(visit("2010-01-01", "427.31"), visit("2010-02-01", STROKE))}
    assert fates(people, ahead(), last_day="2017-12-31") == {"event": (1, 1, 1)}
