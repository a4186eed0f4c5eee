"""Conditions as functions of a date that is not chosen yet: each turns once, on a day that the record tells.

Whoever is to be a control can be given any date. "At least two visits with diabetes before it" becomes true with the
day after the second one and stays so; "no heart failure before it" becomes false. So a condition is one day per
patient, and all conditions together leave him a stretch of days: nobody's record is read again for every case.
"""

import polars as pl

from medbert_jax.cohorts.conditions import Condition
from medbert_jax.cohorts.rules import holds, row_matches, visit_matches

FOREVER = 10**8
"""More days than any date has since 1970."""


def turning_day(condition: Condition) -> tuple[pl.Expr, bool]:
    """Per patient, over the rows of `record`: (day, after), days since 1970.

    With `after` the condition holds at dates after that day, else at that day and before it; a condition that looks at
    no date has ±FOREVER.
    """
    if not condition.parts():
        return _of_leaf(condition)
    # What looks at no date takes the direction of the rest.
    parts = [(_of_leaf(leaf), _looks_at_date(leaf)) for leaf in condition.parts()]
    after = next((after for (_, after), dated in parts if dated), True)
    days = [day if dated or after else -day for (day, _), dated in parts]
    day = (pl.min_horizontal if after else pl.max_horizontal)(days)
    return (day, after) if condition.any_of else (day, not after)


def holds_at(date: pl.Expr, day: pl.Expr, after: bool) -> pl.Expr:
    """Whether a condition with that turning day holds at a date (days since 1970)."""
    return (date > day) if after else (date <= day)


def _looks_at_date(leaf: Condition) -> bool:
    dated = ("days_to_index", "days_of_follow_up")
    return leaf.measure in dated or leaf.window in ("before_index", "by_index_date")


def _of_leaf(leaf: Condition) -> tuple[pl.Expr, bool]:
    number, at_least = leaf.at_least or leaf.fewer_than, leaf.at_least is not None
    if not _looks_at_date(leaf) or leaf.unknown:
        return pl.when(holds(leaf)).then(-FOREVER).otherwise(FOREVER), True
    day = pl.col("day").to_physical().cast(pl.Int64)
    if leaf.measure == "days_of_follow_up":
        last = pl.col("last_day").first().to_physical().cast(pl.Int64)
        return last - number, not at_least
    if leaf.measure == "days_to_index":
        turns = day.filter(visit_matches(leaf)).first() + number - 1
    elif leaf.measure == "deaths":
        died = pl.col("death_date").first().to_physical().cast(pl.Int64)
        turns = died if number == 1 else pl.lit(None, pl.Int64)
    else:
        # On the n-th of these days there are not yet n before it.
        there = day.filter(row_matches(leaf)).drop_nulls()
        turns = there.min() if number == 1 else there.sort().get(number - 1, null_on_oob=True)
        turns = turns - (leaf.window == "by_index_date")
    return turns.fill_null(FOREVER), at_least
