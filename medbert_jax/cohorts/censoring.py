"""Weights by inverse probability of censoring: those whose label is known stand for those who left before it was."""

import numpy as np
import polars as pl

from medbert_jax.cohorts.ahead import CENSORED_DAY, DEATH_DAY, EVENT_DAY

CENSORING_WEIGHT = "censoring_weight"


def with_censoring_weights(rows: pl.DataFrame, horizon: int) -> pl.DataFrame:
    """The cohort's rows, of all shards, with `censoring_weight`: 1 / G(t-) of whose label is known, 0 of the censored.

    G is Kaplan and Meier's estimate, over the whole cohort, each with his `weight`, of being still followed; t the day
    of the event, of the death or of the horizon. Who has his event on a day was not at risk of leaving on it.
    """
    censored = rows[CENSORED_DAY].is_not_null().to_numpy()
    days = pl.coalesce(EVENT_DAY, DEATH_DAY, CENSORED_DAY, pl.lit(horizon, pl.Int32)).alias("days")
    day, weight = rows.select(days)["days"].to_numpy(), rows["weight"].to_numpy()
    left = np.bincount(day[censored], weight[censored], minlength=horizon + 1)
    known = np.bincount(day[~censored], weight[~censored], minlength=horizon + 1)
    here = np.cumsum((left + known)[::-1])[::-1]  # on each day, at its begin
    at_risk = here - known
    stay = 1 - np.divide(left, at_risk, out=np.zeros(horizon + 1), where=at_risk > 0)
    before = np.concatenate([[1.0], np.cumprod(stay)[:-1]])  # G(t-)
    of_known = np.divide(1.0, before[day], out=np.zeros(len(day)), where=~censored & (before[day] > 0))
    return rows.with_columns(pl.Series(CENSORING_WEIGHT, of_known))
