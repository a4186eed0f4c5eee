"""The one interpreter of cohort specs: EHR tables of one shard → who is in, label, index, input, ledger."""

from datetime import datetime

import polars as pl

from medbert_jax.cohorts.rules import has_code_of, holds, refuse_days_without_dates, visit_matches
from medbert_jax.cohorts.spec import CohortSpec
from medbert_jax.ehr.codes import prefix_expression
from medbert_jax.ehr.ledger import Ledger
from medbert_jax.ehr.schema import EhrTables

_CODE_STRING = pl.concat_str("code_system", "code", separator="/")
_IS_READ = pl.col("order") <= pl.col("input_until")


def select_cohort(tables: EhrTables, spec: CohortSpec) -> tuple[pl.DataFrame, Ledger]:
    """The cohort's patients, one row each, sorted by patient_id, and the attrition ledger.

    Columns: patient_id; label Int32; index_order Int32; input_until Int32, the last visit order that may be
    read, inclusive; index_day Int32, calendar days from the first visit's admission to the index visit's (−1
    unknown); prediction_time Datetime("us"), 1 µs before the index admission or, through the index, its
    discharge (a source without dates: 1970-01-01 + index_order days); flag_<id> Boolean per rule that flags.

    Everyone who leaves is counted once, with visits and codes, under the first rule that applied. The visits
    after the input of those who stay have a line of their own: what the ledger keeps is what may be read.
    On dated sources the input ends before the first visit that was not over at the prediction time, too.

    Raises ValueError for a rule that needs days on a source without dates, RuntimeError for a leak, which is
    a fault of this code.
    """
    refuse_days_without_dates(spec, tables.source)
    visits = _index_of_each(_visits_with_code_sets(tables, spec), spec)
    patients = _judge(tables, visits, spec)
    ledger, kept = _count_attrition(tables, patients, spec)
    frame = kept.select(
        "patient_id",
        pl.col("label").cast(pl.Int32),
        pl.col("index_order").cast(pl.Int32),
        pl.col("input_until").cast(pl.Int32),
        pl.col("index_day").fill_null(-1).cast(pl.Int32),
        pl.col("prediction_time").cast(pl.Datetime("us")),
        *(pl.col(f"rule:{rule.id}").alias(f"flag_{rule.id}") for rule in spec.rules if rule.action == "flag"),
    ).sort("patient_id")
    check_no_leak(tables, frame, spec)
    # Counted afresh from the tables: what a reader of the frame will find.
    readable = tables.visits.join(frame, on="patient_id").filter(_IS_READ)
    codes = tables.diagnoses.join(readable, on=["patient_id", "visit_id"], how="semi").height
    ledger.check(patients=frame.height, visits=readable.height, codes=codes)
    return frame, ledger


def count_flagged(frame: pl.DataFrame, spec: CohortSpec) -> dict[str, int]:
    """How many patients of `select_cohort`'s frame each rule with action "flag" marks: its id → patients."""
    return {rule.id: int(frame[f"flag_{rule.id}"].sum()) for rule in spec.rules if rule.action == "flag"}


def check_no_leak(tables: EhrTables, frame: pl.DataFrame, spec: CohortSpec) -> None:
    """RuntimeError where the input of `frame` reaches past its window, its time, or to an outcome's code."""
    read = tables.visits.join(frame, on="patient_id").filter(_IS_READ)
    past = (
        pl.col("order") >= pl.col("index_order")
        if spec.input.until == "before_index"
        else pl.col("order") > pl.col("index_order")
    )
    faults = {"visits that are not before the end of the input window": read.filter(past)}
    if tables.source.has_dates:
        # Before the index, a discharge may be the index admission itself: a transfer.
        cut = pl.col("prediction_time") + pl.duration(microseconds=int(spec.input.until == "before_index"))
        late = (pl.col("admit_time") > pl.col("prediction_time")) | (pl.col("discharge_time") > cut)
        faults["visits that were not over at the prediction time"] = read.filter(late)
    if spec.outcome.codes is not None:
        prefixes = spec.code_set(spec.outcome.codes).prefixes
        outcome = tables.diagnoses.filter(prefix_expression(_CODE_STRING, prefixes))
        faults["visits with the outcome's codes"] = read.join(outcome, on=["patient_id", "visit_id"], how="semi")
    found = [
        f"{visits['patient_id'].n_unique()} patients with {what}" for what, visits in faults.items() if len(visits)
    ]
    if found:
        raise RuntimeError(
            f"the input of cohort {spec.name!r} must end before the outcome can be seen: "
            f"got {', '.join(found)} in the input, of {frame.height}; correct input_until"
        )


def _visits_with_code_sets(tables: EhrTables, spec: CohortSpec) -> pl.DataFrame:
    """The visits in their order, with one boolean column per code set."""
    sets = [
        prefix_expression(_CODE_STRING, code_set.prefixes).any().alias(has_code_of(code_set.id))
        for code_set in spec.code_sets
    ]
    coded = tables.diagnoses.group_by("patient_id", "visit_id").agg(*sets)
    return (
        tables.visits.join(coded, on=["patient_id", "visit_id"], how="left")
        .with_columns(pl.col(has_code_of(code_set.id)).fill_null(False) for code_set in spec.code_sets)
        .sort("patient_id", "order")
    )


def _index_of_each(visits: pl.DataFrame, spec: CohortSpec) -> pl.DataFrame:
    """`visits` with index_order and the index visit's times; null where no visit can be the index.

    `passed_over` numbers the first rule, in the spec's order, that passes over the visit as an index.
    """
    skips = [
        pl.when(visit_matches(rule.when)).then(pl.lit(number, pl.Int32))
        for number, rule in enumerate(spec.rules)
        if rule.action == "skip_visit"
    ]
    possible = pl.col("passed_over").is_null()
    if spec.outcome.codes is not None:
        outcome = pl.col("order").filter(pl.col(has_code_of(spec.outcome.codes))).min()
        index = pl.coalesce(outcome, pl.col("order").max())
    else:
        index = pl.col("order").filter(possible)
        index = index.min() if spec.index.everyone == "first_visit" else index.max()
    visits = visits.with_columns(pl.coalesce(*skips, pl.lit(None, pl.Int32)).alias("passed_over"))
    at_index = pl.col("order") == pl.col("index_order")
    return visits.with_columns(index.over("patient_id").alias("index_order")).with_columns(
        pl.col("admit_time").filter(at_index).first().over("patient_id").alias("index_admit_time"),
        pl.col("discharge_time").filter(at_index).first().over("patient_id").alias("index_discharge_time"),
    )


def _judge(tables: EhrTables, visits: pl.DataFrame, spec: CohortSpec) -> pl.DataFrame:
    """One row per patient: label, index, input, what each rule says (rule:<id>), counts."""
    dated, through = tables.source.has_dates, spec.input.until == "through_index"
    last_readable = pl.col("index_order") if through else pl.col("index_order") - 1
    index_admit, index_discharge = pl.col("index_admit_time"), pl.col("index_discharge_time")
    rules = []
    for number, rule in enumerate(spec.rules):
        if rule.action == "skip_visit":  # nobody is left to be the index, and this rule took the last one
            last_taken = pl.col("passed_over").max() == number
            expression = pl.col("index_order").first().is_null() & last_taken.fill_null(False)
        else:
            expression = holds(rule.when)
        rules.append(expression.alias(f"rule:{rule.id}"))
    # A visit that is not over at the prediction time is coded after it, whatever its place in the order.
    cut = index_discharge if through else index_admit
    begun = (pl.col("admit_time") <= cut) if through else (pl.col("admit_time") < cut)
    still_open = ~(begun.fill_null(True) & (pl.col("discharge_time") <= cut).fill_null(True))
    first_open = pl.col("order").filter(still_open & (pl.col("order") <= last_readable)).min()
    day_one = pl.col("admit_time").first().dt.date()
    if dated:
        prediction_time = index_discharge.first() if through else index_admit.first() - pl.duration(microseconds=1)
    else:
        prediction_time = pl.lit(datetime(1970, 1, 1)) + pl.duration(days=pl.col("index_order").first())
    judged = visits.group_by("patient_id").agg(
        pl.col("index_order").first(),
        pl.min_horizontal(last_readable.first(), first_open - 1).alias("input_until"),
        (index_admit.first().dt.date() - day_one).dt.total_days().alias("index_day"),
        prediction_time.alias("prediction_time"),
        _label(spec, dated).alias("label"),
        *rules,
    )
    window = visits.join(judged, on="patient_id").filter(_IS_READ)
    read = tables.diagnoses.join(window, on=["patient_id", "visit_id"], how="semi")
    return (
        tables.patients.select("patient_id")
        .join(judged, on="patient_id", how="left")
        .join(visits.group_by("patient_id").agg(pl.len().alias("visits")), on="patient_id", how="left")
        .join(window.group_by("patient_id").agg(pl.len().alias("read_visits")), on="patient_id", how="left")
        .join(tables.diagnoses.group_by("patient_id").agg(pl.len().alias("codes")), on="patient_id", how="left")
        .join(
            read.group_by("patient_id").agg(
                pl.len().alias("read_codes"), _CODE_STRING.n_unique().alias("distinct_codes")
            ),
            on="patient_id",
            how="left",
        )
        .with_columns(pl.col("visits", "read_visits", "codes", "read_codes", "distinct_codes").fill_null(0))
    )


def _label(spec: CohortSpec, dated: bool) -> pl.Expr:
    """The label as an aggregation over a patient's visits; null where the record cannot tell it."""
    outcome, at_index = spec.outcome, pl.col("order") == pl.col("index_order")
    if outcome.codes is not None:
        return pl.col(has_code_of(outcome.codes)).any()
    if outcome.stay_over_days is not None:
        return (pl.col("length_of_stay") > outcome.stay_over_days).filter(at_index).first()
    days = outcome.readmitted_within_days
    stated = pl.col("readmitted_30d").filter(at_index).first() if days == 30 else pl.lit(None, pl.Boolean)
    if not dated:
        return stated
    # Transfers count: an admission on the day of the discharge is an admission.
    gap = (pl.col("admit_time").dt.date() - pl.col("index_discharge_time").dt.date()).dt.total_days()
    later = pl.col("order") > pl.col("index_order")
    if outcome.readmission_types is not None:
        later = later & pl.col("visit_type").is_in(list(outcome.readmission_types))
    again = gap.is_between(0, days).filter(later).any(ignore_nulls=False)
    return pl.coalesce(stated, pl.when(pl.col("index_discharge_time").first().is_not_null()).then(again))


def _count_attrition(tables: EhrTables, patients: pl.DataFrame, spec: CohortSpec) -> tuple[Ledger, pl.DataFrame]:
    """The ledger (its lines depend on spec and source, not on the shard) and the patients who stay."""
    dated, through = tables.source.has_dates, spec.input.until == "through_index"
    lines = [("no_visits", "No visit in the record", "ours", pl.col("visits") == 0)]
    lines += [
        (rule.id, rule.description, rule.tag, pl.col(f"rule:{rule.id}").fill_null(False))
        for rule in spec.rules
        if rule.action != "flag"
    ]
    if dated:
        undated = pl.col("prediction_time").is_null()
        lines.append(("index_undated", "The index visit's date is unknown", "ours", undated))
    if dated and through:
        text = "The index visit or an earlier one was not over at the prediction time"
        lines.append(("visit_open", text, "ours", pl.col("input_until") < pl.col("index_order")))
    if spec.outcome.codes is None:
        text = "The record does not tell the outcome"
        lines.append(("outcome_unknown", text, "ours", pl.col("label").is_null()))
    minimum = spec.input.minimum_codes
    text = f"Fewer than {minimum} diagnosis code{'s' if minimum > 1 else ''} in the input"
    lines.append(("input_codes", text, spec.input.tag, pl.col("distinct_codes") < minimum))
    patients = patients.with_columns(
        pl.coalesce(pl.when(applies).then(pl.lit(id)) for id, _, _, applies in lines).alias("leaves_under")
    )
    ledger = Ledger.start(
        f"{tables.source.format} → {spec.name}",
        patients=tables.patients.height,
        visits=tables.visits.height,
        codes=tables.diagnoses.height,
    )
    for id, text, tag, _ in lines:
        left = patients.filter(pl.col("leaves_under") == id)
        ledger.leave(id, text, tag=tag, patients=left.height, visits=left["visits"].sum(), codes=left["codes"].sum())
    kept = patients.filter(pl.col("leaves_under").is_null())
    ledger.leave(
        "outside_input",
        "Visits that come after the input of those who stay",
        tag=spec.input.tag,
        visits=(kept["visits"] - kept["read_visits"]).sum(),
        codes=(kept["codes"] - kept["read_codes"]).sum(),
    )
    return ledger, kept
