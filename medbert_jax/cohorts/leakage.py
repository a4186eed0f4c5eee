"""The check that a cohort's input ends before anything of its outcome can be seen."""

import polars as pl

from medbert_jax.cohorts.spec import CohortSpec
from medbert_jax.cohorts.windows import reads_whole_days
from medbert_jax.ehr.known import IS_OPEN, KNOWN_FROM, input_diagnoses, input_visits
from medbert_jax.ehr.schema import EhrTables


def check_no_leak(tables: EhrTables, frame: pl.DataFrame, spec: CohortSpec) -> None:
    """RuntimeError where the input of `frame` reaches past its window, its time, its gap, or to an outcome's code."""
    visits = input_visits(tables, frame)
    codes = input_diagnoses(tables, visits)
    # As they are in the tables, and not as `ehr.known` gives them.
    read = tables.visits.join(frame, on="patient_id").filter(pl.col("order") <= pl.col("input_until"))
    coded = codes.join(read.drop("order"), on=["patient_id", "visit_id"])
    past = (
        pl.col("order") >= pl.col("index_order")
        if spec.input.until == "before_index"
        else pl.col("order") > pl.col("index_order")
    )
    faults = {"visits that are not before the end of the input window": read.filter(past)}
    if tables.source.has_dates:
        # Before an index visit, a discharge may be the index admission itself: a transfer.
        transfer = spec.input.until == "before_index" and not reads_whole_days(spec)
        predicted = pl.col("prediction_time")
        cut = predicted + pl.duration(microseconds=int(transfer))
        ended, timed = pl.col("discharge_time"), pl.col("time").is_not_null()
        faults["visits that had not begun at the prediction time"] = read.filter(pl.col("admit_time") > predicted)
        faults["visits that were not over at the prediction time"] = coded.filter(~timed & (IS_OPEN | (ended > cut)))
        late = (pl.col("time") > predicted) & ~((pl.col("time") <= ended) & (ended <= cut)).fill_null(False)
        faults["diagnoses of a later time than the prediction"] = coded.filter(late)
        if spec.input.gap_days and spec.matching is None:
            index = tables.visits.select("patient_id", index_order="order", index_day_of="admit_time")
            since = (pl.col("index_day_of").dt.date() - KNOWN_FROM.dt.date()).dt.total_days()
            near = coded.join(index, on=["patient_id", "index_order"]).filter(since < spec.input.gap_days)
            faults[f"diagnoses known less than {spec.input.gap_days} days before the index"] = near
    if spec.outcome.by_case:
        pairs = tables.diagnoses.select("code_system", "code").unique()
        assert spec.outcome.code_set is not None  # cases are who has these codes
        outcome = pairs.filter(spec.code_set(spec.outcome.code_set).matches())
        faults["visits with the outcome's codes"] = codes.join(outcome, on=["code_system", "code"], how="semi")
    found = [
        f"{visits['patient_id'].n_unique()} patients with {what}" for what, visits in faults.items() if len(visits)
    ]
    if found:
        raise RuntimeError(
            f"the input of cohort {spec.name!r} must end before the outcome can be seen: "
            f"got {', '.join(found)} in the input, of {frame.height}; correct input_until"
        )
