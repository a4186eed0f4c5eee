"""The columns of a record's rows, visits and events of one patient, as expressions: what each window takes of them."""

from collections.abc import Collection

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
WITHOUT_INDEX = ("whole_record", "first_visit", "before_first_visit")


def has_code_of(code_set_id: str) -> str:
    """Name of the boolean visit column that says whether the visit has a code of that set."""
    return f"has:{code_set_id}"


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


def days_since_1970(day: pl.Expr) -> pl.Expr:
    """A day as a number that can be compared with those of `turning_day`."""
    return day.to_physical().cast(pl.Int64)
