"""Visits: each once, in order, and by which rule some leave."""

import numpy as np
import polars as pl

from medbert_jax.ehr.schema import EARLIEST, LATEST

VISIT_RULES = ("no_admission", "implausible_time", "before_birth", "after_death")
OF_VISIT = ["rule", "visit"]
"""What rows of codes are told of their visit: by which rule it leaves, and its place among all by patient and id."""


def once_each(visits: pl.DataFrame, time_order: list[str]) -> pl.DataFrame:
    """The visits by patient and id, of several rows with one id the first by time and then by all else."""
    keys = ["patient_id", "visit_id"]
    visits = visits.sort(keys, maintain_order=False)
    if not visits.select(pl.all_horizontal(pl.col(keys) == pl.col(keys).shift()).any()).item():
        return visits
    rest = [column for column in visits.columns if column not in (*keys, *time_order)]
    visits = visits.sort([*keys, *time_order, *rest], nulls_last=True, maintain_order=False)
    return visits.unique(keys, keep="first", maintain_order=True)


def in_order(visits: pl.DataFrame, time_order: list[str]) -> pl.DataFrame:
    """Visits that are in order of patient and id, numbered so as `visit`: now by patient, time and id, null last."""
    visits = visits.drop("visit", strict=False).with_row_index("visit")
    times = [visits[name].to_physical().cast(pl.Int64).fill_null(np.iinfo(np.int64).max) for name in time_order]
    # Several times as fast as sorting a table by text; it keeps what is equal in order.
    order = np.lexsort([*(time.to_numpy() for time in reversed(times)), visits["patient_id"].rle_id().to_numpy()])
    return visits[order]


def rule_of_visit(has_dates: bool) -> pl.Expr:
    """The first rule (place in VISIT_RULES) by which a visit leaves; −1 for none."""
    admitted = pl.col("admit_time")
    if not has_dates:
        return pl.lit(-1, pl.Int8).alias("rule")
    outside = (admitted < EARLIEST) | (admitted >= LATEST)
    born = (admitted.dt.date() < pl.col("birth_date")) | (admitted.dt.year() < pl.col("birth_year")).fill_null(False)
    died = (admitted > pl.col("death_time")).fill_null(admitted.dt.date() > pl.col("death_date"))
    rules = (admitted.is_null(), outside, born, died)
    rule = pl.lit(-1, pl.Int8)
    for number, applies in reversed(list(enumerate(rules))):
        rule = pl.when(applies.fill_null(False)).then(pl.lit(number, pl.Int8)).otherwise(rule)
    return rule.alias("rule")


def stays(has_dates: bool, outpatient_los_zero: bool) -> list[pl.Expr]:
    """Order, length of stay and age of visits that are sorted by patient and time."""
    admitted, discharged = pl.col("admit_time").dt.date(), pl.col("discharge_time").dt.date()
    stay = pl.coalesce(pl.col("length_of_stay"), (discharged - admitted).dt.total_days())
    if outpatient_los_zero:
        stay = pl.when((pl.col("visit_type") == "outpatient") & stay.is_null()).then(0).otherwise(stay)
    patient = pl.col("patient_id").rle_id()
    before = patient.search_sorted(patient)  # visits of patients that come before
    exprs = [
        (pl.int_range(1, pl.len() + 1) - before).cast(pl.Int32).alias("order"),
        stay.cast(pl.Int32).alias("length_of_stay"),
    ]
    if has_dates:
        year_only = pl.col("birth_year").is_not_null() & pl.col("birth_date").is_null()
        since_july = (admitted - pl.date(pl.col("birth_year"), 7, 1)).dt.total_days().clip(lower_bound=0)
        exprs += [
            pl.when(year_only).then(since_july.cast(pl.Int32)).otherwise("age_days").alias("age_days"),
            pl.when(year_only).then(pl.lit(365, pl.Int32)).otherwise("age_precision_days").alias("age_precision_days"),
        ]
    return exprs
