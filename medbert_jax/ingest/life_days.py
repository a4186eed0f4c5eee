"""Births and deaths that are none: days that stand for "unknown" or "never", and a death that lies before the birth."""

from datetime import date

import polars as pl

from medbert_jax.ehr.days import DEFAULT_DAYS, stands_for_never
from medbert_jax.ehr.schema import EARLIEST, LATEST
from medbert_jax.ingest.ends import LONGEST_STAY

_FIRST_BIRTH = date(1800, 1, 1)
"""Who is over 89 has a birth in the 19th century where calendars are shifted; nobody has one before."""


def births_that_are_some(patients: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """The patients, births before 1800 (a year of two digits) or after 2300 unknown; and how many of these."""
    born, year = pl.col("birth_date"), pl.col("birth_year")
    some = (born >= _FIRST_BIRTH) & (born < LATEST.cast(pl.Date)), year.is_between(_FIRST_BIRTH.year, 2300)
    known = patients.with_columns(pl.when(some[0]).then(born), pl.when(some[1]).then(year))
    has = pl.any_horizontal(born.is_not_null(), year.is_not_null()).sum()
    return known, patients.select(has).item() - known.select(has).item()


def deaths_that_are_some(rows: pl.DataFrame, patients: pl.DataFrame, visits: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """The rows (patient_id, death_date, death_time) that say a day which can be one; and how many say one that cannot.

    It cannot be one before 1900, after 2300 or before the birth; nor a day from which programs count that lies before
    the first visit, nor one that stands for "never" and lies years after the last (nor either of who has none).
    """
    rows = rows.filter(pl.col("death_date").is_not_null() | pl.col("death_time").is_not_null())
    seen = (
        visits.join(rows, on="patient_id", how="semi")
        .group_by("patient_id")
        .agg(first=pl.col("admit_time").min().dt.date(), last=pl.col("admit_time").max().dt.date())
    )
    born = patients.select("patient_id", born=pl.coalesce("birth_date", pl.date("birth_year", 1, 1)))
    day = pl.coalesce("death_date", pl.col("death_time").dt.date())
    none = [
        day < EARLIEST.cast(pl.Date),
        day >= LATEST.cast(pl.Date),
        day < pl.col("born"),
        day.is_in(DEFAULT_DAYS) & (day < pl.col("first")).fill_null(True),
        stands_for_never(day) & (day - pl.col("last") > LONGEST_STAY).fill_null(True),
    ]
    rows = rows.join(born, on="patient_id", how="left").join(seen, on="patient_id", how="left")
    is_none = pl.any_horizontal(one.fill_null(False) for one in none)
    some = rows.filter(~is_none).drop("born", "first", "last")
    return some, rows.height - some.height
