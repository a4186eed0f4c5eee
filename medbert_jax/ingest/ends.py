"""Ends of stays that are none: the patient is still there, or the day is one that the source cannot know."""

from dataclasses import dataclass
from datetime import date, timedelta

import polars as pl

from medbert_jax.ehr.days import DEFAULT_DAYS, stands_for_never
from medbert_jax.ehr.schema import EARLIEST, LATEST

LONGEST_STAY = timedelta(days=3 * 365)
"""A stay that ends on a day which stands for "never" is open if it would have lasted longer."""
AFTER_LAST = timedelta(days=366)
"""So long after the last admission of a source nobody can have been discharged in it."""


@dataclass(frozen=True)
class Calendar:
    """What a whole source says of its days (`stay_days.calendar_of`); None: not known."""

    today: date | None = None
    """On which it is read."""
    last_day: date | None = None
    """Of an admission: the latest that is no placeholder and, unless the calendar is shifted, not after today."""
    cut_off: date | None = None
    """The day, not before `last_day`, on which more than twice as many stays end as on any day of the year before."""


def no_end(calendar: Calendar | None = None) -> pl.Expr:
    """Whether admit_time and discharge_time, maybe with still_patient, say that the stay had no end that is known."""
    calendar = calendar or Calendar()
    admitted, ended = pl.col("admit_time"), pl.col("discharge_time")
    first, last = admitted.dt.date(), ended.dt.date()
    rules = [
        (ended < EARLIEST) | (ended >= LATEST),
        last.is_in(DEFAULT_DAYS) & (last < first),
        stands_for_never(last) & (ended - admitted > LONGEST_STAY),
    ]
    if calendar.today:
        rules.append((last > calendar.today) & (first <= calendar.today))
    if calendar.last_day:
        rules.append(last > calendar.last_day + AFTER_LAST)
    if calendar.cut_off:
        rules.append((last == calendar.cut_off) & (first < last))
    return pl.any_horizontal(rule.fill_null(False) for rule in rules)


def open_stays(visits: pl.DataFrame, calendar: Calendar | None) -> tuple[pl.DataFrame, int]:
    """The visits, end and length unknown where the end is none; and how many of them said one."""
    still_there = pl.col("still_patient").fill_null(False)
    said = pl.col("discharge_time").is_not_null() | pl.col("length_of_stay").is_not_null()
    # Of a visit that leaves for its admission, nothing is counted twice.
    begun = (pl.col("admit_time") >= EARLIEST) & (pl.col("admit_time") < LATEST)
    none = (no_end(calendar) | still_there) & said & begun.fill_null(False)
    visits = visits.with_columns(open=none)
    opened = int(visits["open"].sum())
    if opened:
        visits = visits.with_columns(
            pl.when(~pl.col("open")).then(column).alias(column) for column in ("discharge_time", "length_of_stay")
        )
    return visits.drop("open", "still_patient"), opened
