"""When a patient is predicted, given his index, and which visits had begun; what was known then says `ehr.known`."""

from datetime import datetime, timedelta

import polars as pl

from medbert_jax.cohorts.counts import Visits
from medbert_jax.cohorts.record_columns import AT_INDEX
from medbert_jax.cohorts.spec import CohortSpec

_ONE_MICROSECOND = timedelta(microseconds=1)


def passed_over(spec: CohortSpec) -> pl.Expr:
    """Per visit: the number of the first rule, in the spec's order, that passes over it as an index; else null. Of an
    episode the visit that stands for it is judged."""
    skips = [
        pl.when(rule.when.rows()).then(pl.lit(number, pl.Int32))
        for number, rule in enumerate(spec.rules)
        if rule.action == "skip_visit" and isinstance(rule.when, Visits)  # `checks`: it judges nothing else
    ]
    return pl.when("stands").then(pl.coalesce(*skips, pl.lit(None, pl.Int32)))


def index_times(spec: CohortSpec) -> list[pl.Expr]:
    """Per patient: index_date, index_discharge, cut_time, when the index begins or, read through, ends, read_time, the
    last moment of which something was known then, index_episode, and joined_stays: are there several in it?"""
    admitted, left = pl.col("admit_time").filter(AT_INDEX).first(), spec.index.discharge()
    through = spec.input.until == "through_index"
    cut = left if through else admitted
    read = cut if through else cut - _ONE_MICROSECOND
    episode, stays = (pl.col(name).filter(AT_INDEX).first() for name in ("episode", "stays"))
    return [
        admitted.dt.date().alias("index_date"),
        left.alias("index_discharge"),
        cut.alias("cut_time"),
        read.alias("read_time"),
        episode.alias("index_episode"),
        (stays > 1).alias("joined_stays"),
    ]


def had_begun(spec: CohortSpec) -> pl.Expr:
    """Per visit: had it begun when the prediction is made? Before an index, earlier than it, whatever their order.

    Before a date, or a gap of days, the last day that may be read is `last_day_read`; there a visit without any time
    was not shown to have begun.
    """
    if reads_whole_days(spec):
        begun = pl.coalesce("admit_time", "discharge_time").dt.date()
        return (begun <= pl.col("last_day_read")).fill_null(False)
    admitted, cut = pl.col("admit_time"), pl.col("cut_time")
    return ((admitted <= cut) if spec.input.until == "through_index" else (admitted < cut)).fill_null(True)


def over_by(spec: CohortSpec, dated: bool) -> pl.Expr:
    """The latest discharge that was one when the prediction is made; it may be the index admission: a transfer."""
    return pl.col("prediction_time") if reads_whole_days(spec) or not dated else pl.col("cut_time")


def reads_whole_days(spec: CohortSpec) -> bool:
    """Whether the input ends with a day and not with a visit's admission or discharge."""
    return bool(spec.matching is not None or spec.input.gap_days)


def last_day_read(spec: CohortSpec) -> pl.Expr:
    """The last day of the input, where it ends with a day."""
    return pl.col("index_date") - pl.duration(days=1 if spec.matching is not None else spec.input.gap_days or 0)


def prediction_time(spec: CohortSpec, dated: bool) -> pl.Expr:
    """When the prediction is made: inclusive, so everything up to this time may be read."""
    if not dated:
        return pl.lit(datetime(1970, 1, 1)) + pl.duration(days=pl.col("index_order"))
    if reads_whole_days(spec):
        return (last_day_read(spec) + pl.duration(days=1)).cast(pl.Datetime("us")) - _ONE_MICROSECOND
    return pl.col("read_time")
