"""The columns of a record's rows, visits and events of one patient, as expressions: what each window takes of them."""

from collections.abc import Collection
from datetime import datetime

import polars as pl

AT_INDEX = pl.col("order") == pl.col("index_order")
HAS_INDEX = pl.col("index_order").first().is_not_null()

# Of visits, by order within the patient; index_order is null where a patient has no index visit.
VISIT_WINDOWS = {
    "whole_record": pl.lit(True),
    "first_visit": pl.col("order") == pl.col("order").min(),
    "before_index": pl.col("order") < pl.col("index_order"),
    "index_visit": AT_INDEX,
    "through_index": pl.col("order") <= pl.col("index_order"),
    "by_index_date": pl.col("day") <= pl.col("cut_day"),
    "after_index": pl.col("order") > pl.col("index_order"),
}
DAY_WINDOWS = {
    "whole_record": pl.lit(True),
    "before_index": pl.col("day") < pl.col("cut_day"),
    "through_index": pl.col("day") <= pl.col("cut_day"),
}
WITH_VISIT, NEVER = datetime(1, 1, 1), datetime(9999, 12, 31)
WITHOUT_INDEX = ("whole_record", "first_visit", "before_first_visit", "before_last_visit")


def has_code_of(code_set_id: str) -> str:
    """Name of the boolean visit column that says whether the visit has a code of that set."""
    return f"has:{code_set_id}"


def told_of(code_set_id: str) -> str:
    """Name of the visit column that says when the first code of that set was told.

    `WITH_VISIT`: it has no time of its own; `NEVER`: so, in a stay that is still open; null: there is no such code.
    """
    return f"told:{code_set_id}"


def was_told(code_set_id: str, window: str) -> pl.Expr:
    """Per visit with a code of the set: was one told by the end of the window? What has no time was, but in open stays.

    `by_index_date` goes by days, and whatever time is unknown stands for itself there.
    """
    told = pl.col(told_of(code_set_id))
    if window == "by_index_date":
        by = (told.dt.date() <= pl.col("cut_day")) | (told == NEVER)
    elif window in ("before_index", "through_index"):
        at_end = (told <= pl.col("discharge_time")) & (pl.col("discharge_time") <= pl.col("cut_time"))
        by = (told <= pl.col("read_time")) | at_end.fill_null(False)
    else:
        return pl.lit(True)
    return by.fill_null(True) | (told == WITH_VISIT)


def day_told(code_set_id: str | None, window: str = "before_index") -> pl.Expr:
    """Per visit: its day, or the later one on which a code of the set was told; null: never (see `was_told`)."""
    if code_set_id is None:
        return pl.col("day")
    told = pl.col(told_of(code_set_id))
    day = pl.max_horizontal("day", pl.when(told.is_between(WITH_VISIT, NEVER, closed="none")).then(told.dt.date()))
    return day if window == "by_index_date" else pl.when((told != NEVER).fill_null(True)).then(day)


def visits_with(
    codes: str | None = None,
    dispositions: Collection[str] | None = None,
    types: Collection[str] | None = None,
    wrong_times: bool | None = None,
) -> pl.Expr:
    """Per row: is it a visit that has what is given? Unknown is no."""
    matches = pl.col("order").is_not_null()  # rows of events have none
    if codes is not None:
        matches = matches & pl.col(has_code_of(codes))
    if dispositions is not None:
        matches = matches & pl.col("discharge_disposition").is_in(list(dispositions))
    if types is not None:
        matches = matches & pl.col("visit_type").is_in(list(types))
    if wrong_times is not None:
        wrong = pl.col("admit_time").is_null() | (pl.col("discharge_time") < pl.col("admit_time"))
        matches = matches & wrong.fill_null(False)
    return matches.fill_null(False)


def first_day_with(codes: str | None) -> pl.Expr:
    """Per patient: the day of the first visit, by order, with a code of the set (any visit, without one)."""
    return pl.col("day").filter(visits_with(codes)).first()


def first_known_day(codes: str) -> pl.Expr:
    """Per patient: the first day on which he was known to have a code of the set."""
    return day_told(codes).filter(visits_with(codes)).min()


def days_since_1970(day: pl.Expr) -> pl.Expr:
    """A day as a number that can be compared with those of `turning_day`."""
    return day.to_physical().cast(pl.Int64)


def days_ahead(day: pl.Expr, since: pl.Expr) -> pl.Expr:
    """Whole days from one day to another."""
    return (day - since).dt.total_days()


def death_day() -> pl.Expr:
    """Per row: the day of the patient's death; null: none is known."""
    return pl.col("died_at").dt.date()
