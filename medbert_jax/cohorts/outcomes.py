"""The label, as an aggregation over the rows of a patient's record."""

import polars as pl

from medbert_jax.cohorts.record import has_code_of
from medbert_jax.cohorts.spec import CohortSpec

_AT_INDEX = pl.col("order") == pl.col("index_order")


def label(spec: CohortSpec, dated: bool) -> pl.Expr:
    """Per patient: the label; null where the record cannot tell it."""
    outcome = spec.outcome
    if outcome.is_ahead:
        return _within_time_at_risk(spec).any()
    if outcome.codes is not None:
        return pl.col(has_code_of(outcome.codes)).any()
    if outcome.stay_over_days is not None:
        return (pl.col("length_of_stay") > outcome.stay_over_days).filter(_AT_INDEX).first()
    days = outcome.readmitted_within_days
    stated = pl.col("readmitted_30d").filter(_AT_INDEX).first() if days == 30 else pl.lit(None, pl.Boolean)
    if not dated:
        return stated
    # Transfers count: an admission on the day of the discharge is an admission.
    gap = (pl.col("day") - pl.col("index_discharge").dt.date()).dt.total_days()
    later = pl.col("order") > pl.col("index_order")
    if outcome.readmission_types is not None:
        later = later & pl.col("visit_type").is_in(list(outcome.readmission_types))
    again = gap.is_between(0, days).filter(later).any(ignore_nulls=False)
    # Where the source ends earlier it is unknown, for those who came back too: a time that only cases can be of would
    # tell the calendar.
    followed = (pl.col("last_day").first() - pl.col("index_discharge").first().dt.date()).dt.total_days() >= days
    again = pl.when(followed.fill_null(True)).then(again)
    return pl.coalesce(stated, pl.when(pl.col("index_discharge").first().is_not_null()).then(again))


def competing_death(spec: CohortSpec) -> pl.Expr:
    """Per patient: did death within the time at risk come before any outcome?"""
    died = (pl.col("death_date").first() - pl.col("cut_day").first()).dt.total_days()
    in_time = died.is_between(spec.outcome.from_day, spec.outcome.to_day).fill_null(False)
    return in_time & ~_within_time_at_risk(spec).any()


def _within_time_at_risk(spec: CohortSpec) -> pl.Expr:
    """Per row: is it a visit with the outcome's codes, admitted within the days at risk (and not after death)?"""
    outcome, day = spec.outcome, pl.col("day")
    days = (day - pl.col("cut_day")).dt.total_days()
    within = pl.col(has_code_of(outcome.codes)) & days.is_between(outcome.from_day, outcome.to_day)
    if outcome.death == "competes":  # codes that were recorded after a death are nobody's outcome
        within = within & (day <= pl.col("death_date")).fill_null(True)
    return within.fill_null(False)
