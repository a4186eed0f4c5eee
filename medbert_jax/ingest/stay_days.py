"""On which days stays begin and end in a whole source: counted while its files are scattered, told to every shard."""

from collections.abc import Iterable
from datetime import date

import polars as pl

from medbert_jax.ehr.days import stands_for_never
from medbert_jax.ehr.schema import EARLIEST, LATEST
from medbert_jax.ingest.ends import AFTER_LAST, Calendar
from medbert_jax.ingest.reader import day

MANY_AT_ONCE = 10
"""Ends on one day below which it is none on which open stays were cut off."""
_SCHEMA = {"day": pl.Date(), "begin": pl.UInt32(), "end": pl.UInt32()}


def stay_days(chunk: pl.DataFrame, patient: str, first: str, last: str) -> pl.DataFrame:
    """day, begin, end: stays of a chunk that begin on the day, and those of more than one day that end on it.

    Stays of one day end on their day whatever was cut off. `patient`, `first` and `last` are columns.
    """
    begins = chunk[first].drop_nulls().value_counts(name="begin")
    begins = begins.select(day=day(begins[first]), begin="begin")
    if chunk.schema[first] == chunk.schema[last]:  # else they are only compared once they are days
        chunk = chunk.filter((pl.col(first) != pl.col(last)).fill_null(False))
    ends = chunk.select(patient, first, last).unique()
    ends = pl.DataFrame({"from": day(ends[first]), "day": day(ends[last])}).filter(pl.col("day") > pl.col("from"))
    ends = ends.group_by("day").agg(end=pl.len())
    return _summed([begins, ends])


def calendar_of(counts: Iterable[pl.DataFrame], today: date) -> Calendar:
    """The calendar of a source, from the `stay_days` of all its chunks."""
    days = _summed([pl.DataFrame(schema=_SCHEMA), *counts])
    days = days.filter((pl.col("day") >= EARLIEST) & (pl.col("day") < LATEST))
    past = days.filter(pl.col("day") <= today)
    shifted = 2 * past["begin"].sum() < days["begin"].sum()
    begins = (days if shifted else past).filter((pl.col("begin") > 0) & ~stands_for_never(pl.col("day")))
    last = begins.select(pl.col("day").max()).item()
    if last is None:
        return Calendar(today)
    ends = days.filter((pl.col("end") > 0) & (pl.col("day") <= last + AFTER_LAST)).sort("end", "day")
    at_end = ends.filter(pl.col("day") >= last)
    if at_end.is_empty():
        return Calendar(today, last)
    most, number = at_end[-1, "day"], at_end[-1, "end"]
    before = ends.filter((pl.col("day") != most) & (pl.col("day") >= most - AFTER_LAST))
    usual = before.select(pl.col("end").max()).item() or 0
    return Calendar(today, last, most if number >= MANY_AT_ONCE and number > 2 * usual else None)


def _summed(counts: Iterable[pl.DataFrame]) -> pl.DataFrame:
    days = pl.concat(counts, how="diagonal_relaxed").drop_nulls("day")
    days = days.group_by("day").agg(pl.col("begin", "end").cast(pl.Int64).sum())
    return days.select(pl.col(name).cast(dtype) for name, dtype in _SCHEMA.items())
