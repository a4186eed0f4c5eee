"""How long a person is followed: what comes first in the time at risk, and who is followed at the prediction."""

import polars as pl
import pytest
from drawn_patients import fates, person, tables_of, visit

from medbert_jax.cohorts.censoring import with_censoring_weights
from medbert_jax.cohorts.loading import parse_spec
from medbert_jax.cohorts.missing_inputs import missing_inputs
from medbert_jax.cohorts.select import select_cohort

INDEX, STROKE = visit("2010-01-01", "427.31"), "434.91"
ABOUT = {"description": "x", "tag": "ours"}
TIMES = ("label", "event_day", "death_day", "censored_day")


def ahead(**changes):
    """Stroke within 100 days after the first visit."""
    spec = {
        "name": "made",
        "title": "Made",
        "description": "Made",
        "code_sets": [{"id": "stroke", "prefixes": ["ICD9CM/434"], **ABOUT}],
        "outcome": {"codes": "stroke", "from_day": 1, "to_day": 100, "death": "competes", **ABOUT},
        "index": {"everyone": "first_visit", **ABOUT},
        "input": {"until": "through_index", **ABOUT},
        "rules": [],
    }
    return parse_spec(spec | changes, source="made")


def rule(**when):
    return {"id": "rule", "description": "x", "tag": "ours", "when": when}


def times(people, spec, **settings):
    frame, ledger = select_cohort(tables_of(people, **settings), spec)
    assert sum(line.left.patients for line in ledger.lines) + frame.height == len(people)
    return {row[0]: row[1:] for row in frame.select("patient_id", *TIMES).iter_rows()}


def followed(until, *more, since="2009-01-01", **what):
    return person(INDEX, *more, followed=[(since, until)], **what)


def test_what_comes_first_counts():
    """Day 100 is 11 April 2010, day 31 1 February."""
    assert times(
        {
            "nothing": followed("2010-04-11"),
            "event": followed("2010-04-11", visit("2010-02-01", STROKE)),
            "event_then_end": followed("2010-02-01", visit("2010-02-01", STROKE)),
            "end_then_event": followed("2010-01-31", visit("2010-02-01", STROKE)),
            "death": followed("2012-01-01", died="2010-02-01"),
            "death_ends_it": followed("2010-02-01", died="2010-02-01"),
            "end_then_death": followed("2010-01-31", died="2010-02-01"),
            "event_then_death": followed("2012-01-01", visit("2010-02-01", STROKE), died="2010-02-02"),
            "leaves_on_the_last_day_but_one": followed("2010-04-10"),
            "not_followed_then": followed("2009-12-31", visit("2010-02-01", STROKE)),
            "not_followed_at_all": person(INDEX, visit("2010-02-01", STROKE)),
        },
        ahead(),
    ) == {
        "nothing": (0, None, None, None),
        "event": (1, 31, None, None),
        "event_then_end": (1, 31, None, None),
        "end_then_event": (-1, None, None, 30),
        "death": (0, None, 31, None),
        "death_ends_it": (0, None, 31, None),
        "end_then_death": (-1, None, None, 30),
        "event_then_death": (1, 31, None, None),
        "leaves_on_the_last_day_but_one": (-1, None, None, 99),
        "not_followed_then": (-1, None, None, 0),
        "not_followed_at_all": (-1, None, None, 0),
    }


def test_without_the_table_nobody_is_censored_and_the_end_of_the_source_lets_all_leave_alike():
    people = {"event": person(INDEX, visit("2010-02-01", STROKE)), "nothing": person(INDEX)}
    assert times(people, ahead()) == {"event": (1, 31, None, None), "nothing": (0, None, None, None)}
    assert fates(people, ahead(), last_day="2010-04-11") == {"event": (1, 1, 1), "nothing": (0, 1, 1)}
    assert fates(people, ahead(), last_day="2010-04-10") == dict.fromkeys(people, "source_ends")


def test_times_that_nearly_meet_are_bridged_where_the_spec_says_so():
    apart = person(INDEX, followed=[("2009-01-01", "2010-01-31"), ("2010-03-03", "2011-01-01")])  # 30 days between
    follow_up = ABOUT
    specs = {days: ahead(follow_up={**follow_up, "bridge_days": days}) for days in (29, 30)}
    assert {days: times({"a": apart}, spec)["a"] for days, spec in specs.items()} == {
        29: (-1, None, None, 30), 30: (0, None, None, None)
    }  # fmt: skip


def test_by_contact_who_is_seen_no_more_is_censored_and_the_command_says_what_that_means():
    spec = ahead(follow_up={"until": "contact", "description": "x", "tag": "ours"})
    people = {
        "seen_no_more": person(INDEX),
        "seen_later": person(INDEX, visit("2010-06-01", "401.9")),
        "event_is_a_contact": person(INDEX, visit("2010-02-01", STROKE)),
    }
    assert times(people, spec) == {
        "seen_no_more": (-1, None, None, 0),
        "seen_later": (0, None, None, None),
        "event_is_a_contact": (1, 31, None, None),
    }
    tables = tables_of(people)
    assert any(
        "use of care is part of the label" in line for line in missing_inputs(spec, tables.source, tables.present())
    )


@pytest.mark.parametrize(("since", "fate"), [("2009-01-01", (0, 1, 1)), ("2009-01-02", "rule")])
def test_lookback_is_covered_time_before_the_prediction(since, fate):
    spec = ahead(rules=[rule(measure="days_of_lookback", fewer_than=365)])
    assert fates({"a": followed("2011-01-01", since=since)}, spec) == {"a": fate}


def test_lookback_without_the_table_begins_with_the_first_visit_and_the_command_says_so():
    spec = ahead(
        index={"everyone": "second_visit", "description": "x", "tag": "ours"},
        rules=[rule(measure="days_of_lookback", fewer_than=365)],
    )
    people = {
        "364": person(visit("2009-01-02", "401.9"), INDEX),
        "365": person(visit("2009-01-01", "401.9"), INDEX),
        "no_second": person(INDEX),
    }
    assert fates(people, spec) == {"364": "rule", "365": (0, 2, 2), "no_second": "index_undated"}
    tables = tables_of(people)
    assert "no follow_up table" in "".join(missing_inputs(spec, tables.source, tables.present()))


def test_enrolled_at_the_prediction():
    spec = ahead(rules=[rule(measure="enrolled_at_index", fewer_than=1)])
    people = {"last_day": followed("2010-01-01"), "day_before": followed("2009-12-31")}
    assert fates(people, spec) == {"last_day": (-1, 1, 1), "day_before": "rule"}
    with pytest.raises(ValueError, match="no follow_up table: rule rule has nothing to rest on"):
        select_cohort(tables_of({"a": person(INDEX)}), spec)


def test_eligibility_does_not_look_after_the_prediction():
    spec = ahead(
        rules=[
            rule(measure="days_of_lookback", fewer_than=365),
            {**rule(measure="enrolled_at_index", fewer_than=1), "id": "enrolled"},
        ]
    )
    people = {day: followed(day) for day in ("2010-01-01", "2010-01-02", "2015-01-01")}
    assert not {fate for fate in fates(people, spec).values() if isinstance(fate, str)}


def test_weights_make_the_known_stand_for_the_censored():
    """Four at risk on day 10, of whom one leaves; then three, of whom one has the event on day 20, and so on."""
    rows = pl.DataFrame(
        {"event_day": [5, None, 20, None, None], "death_day": [None, None, None, None, 30],
         "censored_day": [None, 10, None, None, None], "weight": [1.0] * 5},
        schema_overrides=dict.fromkeys(("event_day", "death_day", "censored_day"), pl.Int32),
    )  # fmt: skip
    weights = with_censoring_weights(rows, 100)["censoring_weight"].to_list()
    assert weights == pytest.approx([1.0, 0.0, 4 / 3, 4 / 3, 4 / 3])
    assert sum(weights) == pytest.approx(5)


def test_an_event_on_the_day_on_which_another_leaves_was_not_at_risk_of_leaving():
    rows = pl.DataFrame(
        {"event_day": [10, None, None], "death_day": [None] * 3, "censored_day": [None, 10, None],
         "weight": [1.0, 1.0, 3.0]},
        schema_overrides=dict.fromkeys(("event_day", "death_day", "censored_day"), pl.Int32),
    )  # fmt: skip
    assert with_censoring_weights(rows, 10)["censoring_weight"].to_list() == pytest.approx([1.0, 0.0, 1.0])
    assert with_censoring_weights(rows, 11)["censoring_weight"].to_list() == pytest.approx([1.0, 0.0, 4 / 3])


def test_where_nobody_is_censored_everybody_stands_for_himself():
    """A source without follow_up; and one of whose cohort everybody is censored."""
    nothing = {name: [None, None] for name in ("event_day", "death_day", "censored_day")}
    schema = dict.fromkeys(nothing, pl.Int32) | {"weight": pl.Float64}
    for days, weights in (({"event_day": [3, None]}, [1.0, 1.0]), ({"censored_day": [3, 0]}, [0.0, 0.0])):
        rows = pl.DataFrame(nothing | days | {"weight": [1.0, 2.0]}, schema=schema)
        assert with_censoring_weights(rows, 30)["censoring_weight"].to_list() == weights
