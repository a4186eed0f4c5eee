"""Conditions by themselves: each kind can be read, judged and said; and each turns on the day that it says."""

from datetime import date, timedelta
from random import Random
from typing import get_args

import polars as pl
import pytest

from medbert_jax.cohorts.comparisons import Together, holds_at
from medbert_jax.cohorts.conditions import AnyOf, Condition, NoneOf
from medbert_jax.cohorts.counts import Deaths, Medications, Visits
from medbert_jax.cohorts.parsing import build
from medbert_jax.cohorts.spans import DaysOfFollowUp, DaysToIndex

FIRST = date(2010, 1, 1)
WRITTEN = {
    "visits": {"with_codes": "a", "with_type": ["inpatient"], "window": "through_index"},
    "medications": {"with_drugs": "a", "window": "whole_record"},
    "measurements": {"with_results": "a", "window": "before_index"},
    "procedures": {"with_codes": "a", "window": "through_index"},
    "deaths": {"window": "before_first_visit"},
    "index_visits": {},
    "days_to_index": {"with_codes": "a"},
    "days_between": {"since_codes": "a", "with_codes": "b"},
    "days_of_follow_up": {},
    "days_of_lookback": {},
    "enrolled_at_index": {},
    "age_at_first": {"with_codes": "a"},
    "age_at_index": {},
}
WORDS = {
    "visits": "Encounters: A, of type inpatient",
    "medications": "Days with: A",
    "measurements": "Days with: A",
    "procedures": "Days with: A",
    "deaths": "Death",
    "index_visits": "Index encounters",
    "days_to_index": "Days to the index since the first of: A",
    "days_between": "Days to: B, since the first of: A",
    "days_of_follow_up": "Days from the prediction to the end of the source",
    "days_of_lookback": "Days of follow-up before the prediction",
    "enrolled_at_index": "Followed on the day of the prediction",
    "age_at_first": "Age at the first encounter with: A",
    "age_at_index": "Age at the index",
}


def record(visits=(0, 10, 20), drugs=(5, 15), died=None, cut=20) -> pl.DataFrame:
    """One patient's rows: days from the first, the last visit his index."""
    day = {"patient_id": "p", "index_order": len(visits), "has:a": False, "has:b": False, "event": None, "order": None}
    day |= {"visit_type": "inpatient", "discharge_disposition": None, "age": 40.0, "admit_time": None}
    day |= {"seen_after_death": False}
    rows = [day | {"order": order, "day": number} for order, number in enumerate(visits, 1)]
    day |= {"told:a": None, "told:b": None, "cut_time": None, "read_time": None, "discharge_time": None}
    rows += [day | {"event": "medications:a", "day": number} for number in drugs]
    rows[0]["has:a"] = rows[-len(drugs) - 1]["has:b"] = True
    frame = pl.DataFrame(rows, infer_schema_length=None, schema_overrides={"event": pl.String, "order": pl.Int32})
    days = {"day": pl.col("day"), "cut_day": cut, "index_date": cut, "last_day": 40, "death_date": died}
    days |= {"covered_from": 0, "died_at": died, "admit_time": pl.col("day")}
    return frame.with_columns(
        (pl.lit(FIRST) + pl.duration(days=value)).cast(pl.Date).alias(name) for name, value in days.items()
    )


def judged(when, **of) -> bool:
    return record(**of).group_by("patient_id").agg(when.holds().alias("says"))["says"].item()


def test_every_kind_is_written_here():
    kinds = [kind for kind in get_args(Condition) if not issubclass(kind, Together)]
    assert sorted(get_args(kind.__annotations__["measure"])[0] for kind in kinds) == sorted(WRITTEN)
    assert {kind.KNOWN_BY for kind in get_args(Condition)} == {"measure", "any_of", "none_of"}


@pytest.mark.parametrize("measure", WRITTEN)
def test_every_kind_is_read_judged_and_said(measure):
    faults, written = [], {"measure": measure, **WRITTEN[measure], "at_least": 1}
    when = build(Condition, written, "when", faults)
    assert faults == [] and when.measure == measure and when.words({"a": "A", "b": "B"}) == WORDS[measure]
    fewer = build(Condition, {**written, "fewer_than": 1} | {"at_least": None}, "when", faults)
    assert faults.pop().startswith("when.at_least: empty") and not faults
    del written["at_least"]
    fewer = build(Condition, {**written, "fewer_than": 1}, "when", faults)
    assert {judged(when), judged(fewer)} == {True, False}  # nothing is unknown here
    assert build(Condition, {**written, "unknown": True}, "when", faults).unknown is True or faults


@pytest.mark.parametrize(("died", "number"), [(None, 1), (None, 2), (12, 1), (12, 2)])
def test_a_condition_turns_on_its_day(died, number):
    """At every date: what the turning day says, and what is found where the record is read at that date."""
    random = Random(f"{died} {number}")

    def drawn(depth: int):
        compared = {random.choice(("at_least", "fewer_than")): number}
        if depth and random.random() < 0.7:
            parts = tuple(drawn(depth - 1) for _ in range(random.randint(1, 3)))
            return random.choice((AnyOf(any_of=parts), NoneOf(none_of=parts)))
        kind = random.choice(("drug", "death", "static", "since", "follow_up"))
        return {
            "drug": lambda: Medications(measure="medications", with_drugs="a", window="before_index", **compared),
            "death": lambda: Deaths(measure="deaths", window="before_index", **compared),
            "static": lambda: Visits(window="whole_record", with_codes="a", **compared),
            "since": lambda: DaysToIndex(measure="days_to_index", **compared),
            "follow_up": lambda: DaysOfFollowUp(measure="days_of_follow_up", **compared),
        }[kind]()

    def direction(when) -> set[bool]:
        """Whether it becomes true or false with time; both is not to be told by one day."""
        if isinstance(when, Together):
            return {of != when.NONE for part in when.parts() for of in direction(part)}
        return {when.rises} if when.looks_at_date else set()

    seen = set()
    for _ in range(150):
        when = drawn(3)
        if len(direction(when)) > 1:
            continue
        day, after = when.turning_day()
        of = record(died=died)
        turns = of.group_by("patient_id").agg(day.alias("turns"))["turns"].item()
        for later in range(0, 45, 3):
            at = (FIRST + timedelta(days=later) - date(1970, 1, 1)).days
            says = pl.select(holds_at(pl.lit(at), pl.lit(turns), after)).item()
            assert says == judged(when, died=died, cut=later), (when, later)
            seen.add((type(when).__name__, says))
    assert len(seen) > 9
