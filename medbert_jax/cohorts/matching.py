"""A matched cohort, as a nested case-control study: controls at risk at the same time, drawn within the shard."""

from datetime import date

import numpy as np
import polars as pl

from medbert_jax.cohorts.comparisons import FOREVER, holds_at
from medbert_jax.cohorts.evidence_sets import CODE_STRING
from medbert_jax.cohorts.record_columns import days_since_1970, first_day_with, has_code_of, visits_with
from medbert_jax.cohorts.spec import CohortSpec, Matching
from medbert_jax.ehr.hashing import patient_hash
from medbert_jax.ehr.known import KNOWN_FROM
from medbert_jax.ehr.schema import EhrTables

SHORT_AT_RISK = "short_at_risk"
"""Column of `decide_matched`: too little time at risk by the date, where that begins with an age."""
SET_ID = "set_id"
"""Column of a matched cohort: a case and his controls have one value."""


def in_control_pool(patient_ids: pl.Series, matching: Matching) -> np.ndarray:
    """Whether each patient may be a control and no case (n,): by a keyed hash of his id, before anything is known."""
    uniform = patient_hash(patient_ids, f"{matching.key}/role").astype(np.float64) / 2.0**64
    return uniform < matching.control_pool


def decide_matched(record: pl.DataFrame, tables: EhrTables, spec: CohortSpec, facts: list[pl.Expr]) -> pl.DataFrame:
    """One row per patient: his part, his date, and what each rule says at it.

    Columns: patient_id, index_date (null: none), label (a case), weight, set_id (of his case), among_cases,
    among_controls, drawn (a case with his controls, or a control), too_few_codes, rule:<id>, and `facts`, aggregations
    over the record.

    `record` has last_day beside the columns of the rules. A rule that looks at the index says nothing of those who
    have no date.
    """
    matching, outcome = spec.matching, spec.outcome.code_set
    assert matching is not None and outcome is not None  # `checks`: a control is matched to a case, who has these codes
    turning = {rule.id: rule.when.turning_day() for rule in spec.rules}
    decided = record.group_by("patient_id").agg(
        pl.col(has_code_of(outcome)).any().alias("outcome"),
        first_day_with(outcome).alias("event_day"),
        _begin(matching).alias("begin"),
        *(day.alias(f"turn:{id}") for id, (day, _) in turning.items()),
        *facts,
    )
    decided = decided.join(_first_readable(record, tables, spec), on="patient_id", how="left").sort("patient_id")
    decided = decided.with_columns(
        pl.col("readable_after").fill_null(FOREVER),
        among_controls=in_control_pool(decided["patient_id"], matching),
    ).with_columns(among_cases=pl.col("outcome") & ~pl.col("among_controls"))
    cases = _at_date(decided.with_columns(index_date=pl.when("among_cases").then("event_day")), spec, turning)
    leaves = [f"rule:{rule.id}" for rule in spec.rules if rule.action == "leave"]
    stays = ~pl.any_horizontal(*leaves, "too_few_codes", SHORT_AT_RISK)
    drawing = cases.filter("among_cases", stays, pl.col("index_date").is_not_null())
    controls = _with_stretch(decided.filter("among_controls"), spec, turning)
    drawn = _draw(drawing, controls, matching, record.select(pl.col("last_day").first()).item())
    decided = decided.join(drawn, on="patient_id", how="left").with_columns(
        index_date=pl.coalesce("control_date", pl.when("among_cases").then("event_day")),
        drawn=pl.col("weight").is_not_null(),
        label=pl.col("among_cases"),
    )
    return _at_date(decided, spec, turning)


def decide_at(record: pl.DataFrame, tables: EhrTables, spec: CohortSpec, facts: list[pl.Expr]) -> pl.DataFrame:
    """As `decide_matched`, of patients without labels: each at the day that is given for him, of which, as of later
    ones, nothing is read. Nobody is drawn, and all are judged as cases are."""
    matching, dates = spec.matching, spec.outcome.given_dates
    assert matching is not None and dates is not None
    record = record.join(dates, on="patient_id", how="left", maintain_order="left")
    record = record.filter((pl.col("day") < pl.col("given_date")).fill_null(True))
    turning = {rule.id: rule.when.turning_day() for rule in spec.rules}
    decided = record.group_by("patient_id").agg(
        pl.col("given_date").first().alias("index_date"),
        _begin(matching).alias("begin"),
        *(day.alias(f"turn:{id}") for id, (day, _) in turning.items()),
        *facts,
    )
    decided = decided.join(_first_readable(record, tables, spec), on="patient_id", how="left").with_columns(
        pl.col("readable_after").fill_null(FOREVER),
        label=pl.lit(None, pl.Boolean),
        weight=pl.lit(1.0),
        among_cases=pl.lit(True),
        among_controls=pl.lit(False),
        drawn=pl.lit(True),
    )
    return _at_date(decided.sort("patient_id"), spec, turning)


def _begin(matching: Matching) -> pl.Expr:
    """Per patient: the day on which the time at risk begins."""
    if matching.since_age is None:
        return first_day_with(matching.since_codes)
    old_enough = visits_with() & (pl.col("age") >= matching.since_age).fill_null(False)
    return pl.col("day").filter(old_enough).first()


def _at_date(decided: pl.DataFrame, spec: CohortSpec, turning: dict[str, tuple[pl.Expr, bool]]) -> pl.DataFrame:
    """`decided` with rule:<id>, too_few_codes and short_at_risk as of index_date."""
    at = days_since_1970(pl.col("index_date"))
    rules = []
    for rule in spec.rules:
        turn = pl.col(f"turn:{rule.id}")
        whatever_date = pl.when(turn.abs() == FOREVER).then((turn < 0) == turning[rule.id][1])
        says = pl.coalesce(holds_at(at, turn, turning[rule.id][1]), whatever_date).fill_null(False)
        if rule.among is not None:
            says = says & pl.col(f"among_{rule.among}")
        rules.append(says.alias(f"rule:{rule.id}"))
    assert spec.matching is not None
    # Of a time since codes the rules of the spec ask it.
    short = pl.lit(False)
    if spec.matching.since_age is not None:
        short = (at - days_since_1970(pl.col("begin")) < spec.matching.minimum_days).fill_null(True)
    return decided.with_columns(
        *rules,
        short.alias(SHORT_AT_RISK),
        too_few_codes=(at <= pl.col("readable_after")).fill_null(True),
    )


def _first_readable(record: pl.DataFrame, tables: EhrTables, spec: CohortSpec) -> pl.DataFrame:
    """patient_id, readable_after: at dates after that day the input holds enough different codes."""
    begun = pl.coalesce("admit_time", "discharge_time").dt.date().to_physical().cast(pl.Int64)
    # All visits up to this one, in their order, have begun by then; a visit without any time never has.
    begun_by = begun.fill_null(FOREVER).cum_max().over("patient_id")
    visits = record.filter(pl.col("order").is_not_null()).with_columns(begun_by=begun_by)
    times = ("visit_type", "admit_time", "discharge_time", "begun_by")
    coded = tables.diagnoses.join(visits.select("patient_id", "visit_id", *times), on=["patient_id", "visit_id"])
    known = KNOWN_FROM.dt.date().to_physical().cast(pl.Int64).fill_null(FOREVER)
    coded = coded.select("patient_id", CODE_STRING.alias("full_code"), known=pl.max_horizontal("begun_by", known))
    first_seen = coded.group_by("patient_id", "full_code").agg(pl.col("known").min())
    enough = pl.col("known").sort().get(spec.input.minimum_codes - 1, null_on_oob=True)
    return first_seen.group_by("patient_id").agg(enough.alias("readable_after"))


def _with_stretch(controls: pl.DataFrame, spec: CohortSpec, turning: dict[str, tuple[pl.Expr, bool]]) -> pl.DataFrame:
    """`controls` with `above` and `latest`: no rule takes them at dates above the one, up to the other."""
    above, latest = [pl.col("readable_after")], [pl.lit(FOREVER)]
    for rule in spec.rules:
        if rule.action == "leave" and rule.among != "cases":
            (latest if turning[rule.id][1] else above).append(pl.col(f"turn:{rule.id}"))
    stretch = controls.with_columns(above=pl.max_horizontal(above), latest=pl.min_horizontal(latest))
    return stretch.filter(pl.col("above") < pl.col("latest"), pl.col("begin").is_not_null())


def _draw(cases: pl.DataFrame, controls: pl.DataFrame, matching: Matching, last_day: date | None) -> pl.DataFrame:
    """patient_id, weight, control_date, set_id of the cases that found all their controls, and of these.

    A set is known by a hash of its case's id. Weights make the drawn stand for those whom they were drawn from: a case
    for the cases of both pools, a control for all who could have been taken for his case at that moment.
    """
    cases, controls = (_in_drawing_order(frame, matching) for frame in (cases, controls))
    begin, above, latest = (
        controls[name].to_physical().to_numpy().astype(np.int64) for name in ("begin", "above", "latest")
    )
    used, found = np.zeros(len(controls), bool), []
    end = (last_day - date(1970, 1, 1)).days if last_day else FOREVER
    rows = cases.select("patient_id", "index_date", pl.col("index_date", "begin").to_physical().name.suffix("_day"))
    # One case after the other: whom one takes, the next cannot have.
    for patient, day, day_number, case_begin in rows.iter_rows():
        wanted = begin + (day_number - case_begin)
        low = np.maximum(wanted - matching.within_days, begin + matching.minimum_days)
        high = np.minimum(wanted + matching.within_days, end)
        if matching.same_calendar_year:
            low = np.maximum(low, (date(day.year, 1, 1) - date(1970, 1, 1)).days)
            high = np.minimum(high, (date(day.year, 12, 31) - date(1970, 1, 1)).days)
        # As near to the case's own date as can be: the time of year must not tell the two apart.
        at = np.clip(day_number, low, high)
        eligible = np.flatnonzero((low <= high) & (above < at) & (at <= latest) & ~used)
        # Smaller sets would be those of long times at risk, which few controls reach: the time would tell cases.
        if len(eligible) < matching.controls_per_case:
            continue
        taken = eligible[: matching.controls_per_case]
        used[taken] = True
        of_set = int(patient_hash([patient], f"{matching.key}/set")[0])
        found.append((patient, 1 / (1 - matching.control_pool), None, of_set))
        found += [(controls["patient_id"][int(i)], len(eligible) / len(taken), int(at[i]), of_set) for i in taken]
    schema = {"patient_id": pl.String, "weight": pl.Float64, "control_date": pl.Int32, SET_ID: pl.UInt64}
    return pl.DataFrame(found, schema=schema, orient="row").with_columns(pl.col("control_date").cast(pl.Date))


def _in_drawing_order(frame: pl.DataFrame, matching: Matching) -> pl.DataFrame:
    order = patient_hash(frame["patient_id"], f"{matching.key}/draw") if len(frame) else np.zeros(0, np.uint64)
    return frame.with_columns(drawing_order=order).sort("drawing_order")
