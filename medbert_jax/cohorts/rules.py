"""A rule's condition as one polars aggregation over the rows of a patient's record."""

import functools
import operator

import polars as pl

from medbert_jax.cohorts.conditions import COUNTS, EVENTS, Condition
from medbert_jax.cohorts.record import event_name, has_code_of
from medbert_jax.cohorts.spec import CohortSpec
from medbert_jax.ehr.schema import EhrSource

# Of visits, by order within the patient; index_order is null where a patient has no index visit.
VISIT_WINDOWS = {
    "whole_record": pl.lit(True),
    "first_visit": pl.col("order") == pl.col("order").min(),
    "before_index": pl.col("order") < pl.col("index_order"),
    "index_visit": pl.col("order") == pl.col("index_order"),
    "through_index": pl.col("order") <= pl.col("index_order"),
    "by_index_date": pl.col("day") <= pl.col("cut_day"),
    "after_index": pl.col("order") > pl.col("index_order"),
}
DAY_WINDOWS = {
    "before_index": pl.col("day") < pl.col("cut_day"),
    "through_index": pl.col("day") <= pl.col("cut_day"),
}
_WITHOUT_INDEX = ("whole_record", "first_visit", "before_first_visit")


def visit_matches(condition: Condition) -> pl.Expr:
    """Per row: is it a visit that has what the condition names? Unknown is no."""
    matches = pl.col("order").is_not_null()  # rows of events have none
    if condition.with_codes is not None:
        matches = matches & pl.col(has_code_of(condition.with_codes))
    if condition.with_disposition is not None:
        matches = matches & pl.col("discharge_disposition").is_in(list(condition.with_disposition))
    if condition.with_type is not None:
        matches = matches & pl.col("visit_type").is_in(list(condition.with_type))
    if condition.with_wrong_times is not None:
        wrong = pl.col("admit_time").is_null() | (pl.col("discharge_time") < pl.col("admit_time"))
        matches = matches & wrong.fill_null(False)
    return matches.fill_null(False)


def row_matches(condition: Condition) -> pl.Expr:
    """Per row: is it one that the condition, a count of visits or events, may count in some window?"""
    if condition.measure not in EVENTS:
        return visit_matches(condition)
    return (pl.col("event") == event_name(condition)).fill_null(False)


def first_day_with(code_set: str | None) -> pl.Expr:
    """Per patient: the day of the first visit, by order, with a code of the set (any visit, without one)."""
    return pl.col("day").filter(visit_matches(Condition(with_codes=code_set))).first()


def holds(condition: Condition) -> pl.Expr:
    """Per patient, as an aggregation over the rows of `record`: does the condition hold?

    A condition that looks at the index visit holds for nobody without one: such a patient leaves under the rule that
    took his last possible index visit.
    """
    if condition.parts():
        any_of = functools.reduce(operator.or_, (holds(part) for part in condition.parts()))
        return any_of if condition.any_of else ~any_of
    return _MEASURES.get(condition.measure, _count_holds)(condition)


def ages_straddle(condition: Condition) -> pl.Expr:
    """Per patient: may his true age lie on the other side of a number that the condition compares it with?"""
    straddles = pl.lit(False)
    for leaf in condition.leaves():
        if leaf.judges_age:
            limit, at = leaf.at_least or leaf.fewer_than, _age_visit(leaf)
            low, high = (pl.col(name).filter(at).first() for name in ("lowest_age", "highest_age"))
            straddles = straddles | ((low < limit) & (high >= limit)).fill_null(False)
    return straddles


def _count_holds(condition: Condition) -> pl.Expr:
    window = condition.window
    if condition.measure == "deaths":
        died, first_day = pl.col("death_date").first(), pl.col("day").first()
        cut = pl.col("cut_day").first()
        within = {
            "whole_record": died.is_not_null(),
            "before_first_visit": died < first_day,
            "before_index": died < cut,
            "through_index": died <= cut,
        }[window]
        count = within.fill_null(False).cast(pl.UInt32)
    else:
        of_visits = condition.measure == "visits" or window == "whole_record"
        inside = (VISIT_WINDOWS if of_visits else DAY_WINDOWS)[window]
        count = (row_matches(condition) & inside).fill_null(False).sum()
    enough = count >= (condition.at_least or condition.fewer_than)
    return _compared(condition, enough, needs_index=window not in _WITHOUT_INDEX)


def _index_holds(condition: Condition) -> pl.Expr:
    there = pl.col("index_order").first().is_not_null()
    enough = there if (condition.at_least or condition.fewer_than) == 1 else pl.lit(False)
    return _compared(condition, enough, needs_index=False)


def _days_hold(condition: Condition) -> pl.Expr:
    if condition.measure == "days_to_index":
        begin, end = pl.col("day").filter(visit_matches(condition)).first(), pl.col("index_date").first()
    elif condition.measure == "days_between":
        begin, end = first_day_with(condition.since_codes), first_day_with(condition.with_codes)
    else:
        begin, end = pl.col("cut_day").first(), pl.col("last_day").first()
    days = (end - begin).dt.total_days()
    if condition.unknown:
        return _compared(condition, days.is_null(), needs_index=False)
    enough = (days >= (condition.at_least or condition.fewer_than)).fill_null(False)
    return _compared(condition, enough, needs_index=condition.measure != "days_between")


def _age_holds(condition: Condition) -> pl.Expr:
    age = pl.col("age").filter(_age_visit(condition)).first()
    if condition.unknown:
        known = age.is_null()
    elif condition.at_least is not None:
        known = (age >= condition.at_least).fill_null(False)
    else:
        known = (age < condition.fewer_than).fill_null(False)
    needs_index = condition.measure == "age_at_index"
    return known & (pl.col("index_order").first().is_not_null() if needs_index else pl.lit(True))


def _age_visit(condition: Condition) -> pl.Expr:
    """Per row: is it a visit at whose admission the age may be taken? It is taken at the first of them."""
    if condition.measure == "age_at_index":
        return (pl.col("order") == pl.col("index_order")).fill_null(False)
    return visit_matches(condition)


def _compared(condition: Condition, enough: pl.Expr, *, needs_index: bool) -> pl.Expr:
    judged = pl.col("index_order").first().is_not_null() if needs_index else pl.lit(True)
    return judged & (~enough if condition.fewer_than is not None else enough)


_MEASURES = {
    **dict.fromkeys(COUNTS, _count_holds),
    "index_visits": _index_holds,
    **dict.fromkeys(("days_to_index", "days_between", "days_of_follow_up"), _days_hold),
    **dict.fromkeys(("age_at_first", "age_at_index"), _age_holds),
}


def refuse_days_without_dates(spec: CohortSpec, source: EhrSource) -> None:
    """ValueError that names every rule and part of the spec which needs days, where the source has no dates."""
    if source.has_dates:
        return
    faults = [f"rule {rule.id!r}" for rule in spec.rules if rule.when.needs_days]
    # The tables carry one such statement of the source itself: readmission within 30 days.
    if spec.outcome.readmitted_within_days not in (None, 30):
        faults.append(f"outcome 'readmitted_within_days: {spec.outcome.readmitted_within_days}'")
    if spec.outcome.is_ahead:
        faults.append(f"outcome 'to_day: {spec.outcome.to_day}'")
    if spec.index.everyone == "first_visit_after":
        faults.append("index 'first_visit_after'")
    if spec.input.gap_days:
        faults.append(f"input 'gap_days: {spec.input.gap_days}'")
    if spec.matching is not None:
        faults.append("matching")
    if spec.split is not None:
        faults.append(f"split 'test_from: {spec.split.test_from}'")
    if faults:
        raise ValueError(
            f"{', '.join(faults)} need{'s' if len(faults) == 1 else ''} days: the source has no dates "
            f"(format {source.format}); leave it out in a copy of the spec {spec.name!r}, or "
            "take a source with dates"
        )
