"""Times in which a source would have seen what happens to a patient."""

from collections import Counter

import polars as pl

from medbert_jax.ehr.days import stands_for_never
from medbert_jax.ehr.schema import EARLIEST, LATEST, SCHEMAS
from medbert_jax.ingest.ends import Calendar


def follow_up_of(rows: pl.DataFrame, calendar: Calendar | None) -> tuple[pl.DataFrame, Counter[str]]:
    """Periods of `SCHEMAS`, of a patient one after the other; and how many rows of the source came together or left.

    Periods that overlap or meet (one ends on the day before the next begins) are one. An end that is none (a day that
    stands for "never", one after today or long after the last admission) is that last admission's day: up to it the
    source has been watching. Rows without a first or last day, or which end before they begin, say nothing.
    """
    calendar = calendar or Calendar()
    start, end, last = pl.col("start"), pl.col("end"), pl.lit(calendar.last_day, pl.Date)
    never = [(end >= LATEST), stands_for_never(end)]
    if calendar.today:
        never.append((end > calendar.today) & (start <= calendar.today))
    never = pl.any_horizontal(one.fill_null(False) for one in never)
    rows = rows.with_columns(never=never).with_columns(
        end=pl.when("never").then(pl.max_horizontal(start, last)).otherwise(end)
    )
    rows = rows.with_columns(end=pl.when(~pl.col("never") | last.is_not_null()).then("end"))
    told = Counter({"periods of follow-up whose end is none": int(rows["never"].sum())})
    known = rows.filter(((start <= end) & (start >= EARLIEST)).fill_null(False)).sort("patient_id", "start", "end")
    told["periods of follow-up without a first and last day, left out"] = rows.height - known.height
    until = end.cum_max().shift(1).over("patient_id")
    new = (start > until.dt.offset_by("1d")).fill_null(True)
    periods = known.with_columns(period=new.cum_sum().over("patient_id")).group_by("patient_id", "period")
    periods = periods.agg(pl.col("start").min(), pl.col("end").max()).select(SCHEMAS["follow_up"].keys())
    told["periods of follow-up joined to the one before"] = known.height - periods.height
    return periods, told


def from_birth(periods: pl.DataFrame, patients: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """The periods, which begin with the birth where they began before it; and how many did.

    One that ends before the birth stays as it is.
    """
    born = patients.select("patient_id", born="birth_date")
    periods = periods.join(born, on="patient_id", how="left", maintain_order="left")
    early = ((pl.col("start") < pl.col("born")) & (pl.col("born") <= pl.col("end"))).fill_null(False)
    count = int(periods.select(early.sum()).item())
    return periods.with_columns(start=pl.when(early).then("born").otherwise("start")).drop("born"), count
