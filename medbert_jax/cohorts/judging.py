"""Every patient of a shard judged by every rule: index, label, input window, and under which line he leaves."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date

import polars as pl

from medbert_jax.cohorts.ahead import CENSORED_DAY
from medbert_jax.cohorts.calendars import is_shifted
from medbert_jax.cohorts.counts import Deaths, Visits
from medbert_jax.cohorts.evidence_sets import CODE_STRING, CodeSet
from medbert_jax.cohorts.follow_up import with_cover
from medbert_jax.cohorts.life import Lives, in_life
from medbert_jax.cohorts.matching import SHORT_AT_RISK, decide_at, decide_matched
from medbert_jax.cohorts.missing_inputs import missing_inputs, refuse_days_without_dates
from medbert_jax.cohorts.record import (
    diagnoses_of,
    events,
    known_at_prediction,
    visits_with_code_sets,
    with_ages,
    without_bill,
)
from medbert_jax.cohorts.record_columns import has_code_of, told_of
from medbert_jax.cohorts.sampling import sample_controls
from medbert_jax.cohorts.spans import Age, DaysOfFollowUp
from medbert_jax.cohorts.spec import CohortSpec, Rule
from medbert_jax.cohorts.windows import had_begun, index_times, last_day_read, over_by, passed_over, prediction_time
from medbert_jax.ehr.known import INPUT_COLUMNS, UNBILLED, input_diagnoses, input_visits
from medbert_jax.ehr.schema import EhrTables

_VISIT = ["patient_id", "visit_id"]
_LOOKS = " (judged by what comes after the index, of one side alone)"


@dataclass(frozen=True)
class Exit:
    """One line of the ledger: whoever of those still there it applies to leaves under it."""

    id: str
    text: str
    tag: str
    applies: pl.Expr


_DIED_BEFORE = Rule(
    id="died_before_first_visit",
    description="Recorded dead before every encounter",
    tag="ours",
    when=Deaths(measure="deaths", window="before_first_visit", at_least=1),
)
NO_VISITS = Exit("no_visits", "No visit in the record", "ours", pl.col("visits") == 0)


def too_few_codes(minimum: int, tag: str) -> Exit:
    """The line of those whose input holds fewer different codes."""
    text = f"Fewer than {minimum} diagnosis code{'s' if minimum > 1 else ''} in the input"
    return Exit("input_codes", text, tag, pl.col("distinct_codes") < minimum)


def judge(tables: EhrTables, spec: CohortSpec, *, every_rule: bool = False) -> tuple[pl.DataFrame, list[Exit]]:
    """One row per patient of the shard, and the ledger's lines, which depend on spec and source alone.

    Columns: patient_id, leaves_under (the line's id; null: stays), label, index_order, input_until, index_day,
    prediction_time, weight, rule:<id> per rule, and counts of visits and codes, in all and in the input. Whoever
    leaves under the first rule for want of a code is judged by the others only where `every_rule` is asked for. What
    comes after a death is judged by nothing: late_visits and late_codes count it.

    Raises ValueError for a rule that the source cannot decide.
    """
    refuse_days_without_dates(spec, tables.source)
    missing_inputs(spec, tables.source, tables.present())
    first = spec.rules[0] if spec.rules and not every_rule else None
    asked_for = None if first is None else _code_set_asked_for(first)
    lives = in_life(tables)
    if tables.source.has_dates:
        spec = replace(spec, rules=(*spec.rules, _DIED_BEFORE))
    looked_at = lives if asked_for is None else _with_a_code(lives, spec.code_set(asked_for))
    decided = _judge(looked_at, spec)
    if spec.outcome.by_case and spec.matching is None:
        assert spec.outcome.code_set is not None  # cases are who has these codes
        late = tables.diagnoses.join(lives.late, on=_VISIT, how="semi")
        late = diagnoses_of(late, [spec.code_set(spec.outcome.code_set)]).select("patient_id").unique()
        decided = decided.join(late.with_columns(has_late=True), on="patient_id", how="left")
        decided = decided.with_columns(outcome_after_death=pl.col("has_late") & ~pl.col("label"))
    patients = with_counts(tables, lives, decided)
    if first is not None and asked_for is not None:
        rule, judged = f"rule:{first.id}", looked_at.tables.patients.select("patient_id", judged=True)
        patients = patients.join(judged, on="patient_id", how="left").with_columns(
            pl.when("judged").then(rule).otherwise(pl.lit(True)).alias(rule)
        )
    lines = _lines(spec, tables.source.has_dates)
    patients = with_leaving(patients, lines)
    if spec.sample is not None:
        patients = sample_controls(patients, spec.sample)
        lines.append(Exit("not_sampled", spec.sample.description, spec.sample.tag, pl.lit(False)))
    return patients, lines


def with_counts(
    whole: EhrTables, lives: Lives, decided: pl.DataFrame, each: Sequence[str] = ("patient_id",)
) -> pl.DataFrame:
    """`decided` (`INPUT_COLUMNS`, …) for every patient, with counts: visits and codes, in all and in the input.

    `each` names a row of `decided`: `PREDICTION` where a patient may have several.

    read_visits, read_codes and distinct_codes are what may be read of whoever has an input, which ends before the first
    visit, by order, that begins after his death; begun_codes are all codes of these visits, whether they were known or
    not. late_visits and late_codes are those of visits that begin after a death.
    """
    tables, late = lives.tables, lives.late
    first_late = late.group_by("patient_id").agg(first_late=pl.col("order").min())
    decided = decided.join(first_late, on="patient_id", how="left").with_columns(
        pl.when(pl.col("input_until").is_not_null()).then(pl.min_horizontal("input_until", pl.col("first_late") - 1))
    )
    columns = [name for name in (*INPUT_COLUMNS, UNBILLED) if name in decided.columns]
    window = input_visits(tables, decided.select(columns))
    begun = tables.diagnoses.select(_VISIT).join(window.select(*_VISIT, "prediction_time"), on=_VISIT)
    read = input_diagnoses(tables, window)
    one_each, who = pl.len(), ("patient_id",)
    counts = (
        (tables.visits, who, {"visits": one_each}),
        (tables.diagnoses, who, {"codes": one_each}),
        (late, who, {"late_visits": one_each}),
        (whole.diagnoses.join(late, on=_VISIT, how="semi"), who, {"late_codes": one_each}),
        (window, each, {"read_visits": one_each}),
        (begun, each, {"begun_codes": one_each}),
        (read, each, {"read_codes": one_each, "distinct_codes": CODE_STRING.n_unique()}),
    )
    patients = tables.patients.select("patient_id").join(decided, on="patient_id", how="left")
    for table, of, counted in counts:
        patients = patients.join(table.group_by(of).agg(**counted), on=of, how="left")
    return patients.with_columns(pl.col(name).fill_null(0) for *_, counted in counts for name in counted)


def with_leaving(patients: pl.DataFrame, lines: list[Exit]) -> pl.DataFrame:
    """`patients` with leaves_under: the id of the first line that applies; null for those who stay."""
    leaves = [pl.when(line.applies.fill_null(False)).then(pl.lit(line.id)) for line in lines]
    return patients.with_columns(pl.coalesce(leaves).alias("leaves_under"))


def _code_set_asked_for(rule: Rule) -> str | None:
    """Id of the set without a code of which everybody leaves under the rule, whatever else is known of him."""
    when = rule.when
    if not isinstance(when, Visits) or when.window != "whole_record" or when.fewer_than is None:
        return None
    return when.with_codes if rule.action == "leave" and rule.among is None else None


def _with_a_code(lives: Lives, code_set: CodeSet) -> Lives:
    """The tables of the patients who have a code of the set."""
    tables = lives.tables
    found = diagnoses_of(tables.diagnoses, [code_set]).select("patient_id").unique()
    frames = {name: table.join(found, on="patient_id", how="semi") for name, table in tables.present().items()}
    return replace(lives, tables=EhrTables(**frames, source=tables.source))


def _judge(lives: Lives, spec: CohortSpec) -> pl.DataFrame:
    """One row per patient with visits: index, label, input, what each rule says."""
    tables, known = lives.tables, lives.known()
    dated = tables.source.has_dates
    visits = visits_with_code_sets(tables, spec).join(known, on="patient_id", how="left", maintain_order="left")
    visits = with_ages(visits).with_columns(passed_over(spec).alias("passed_over"))
    last_day = date.fromisoformat(tables.source.last_day) if tables.source.last_day else None
    if is_shifted(tables.source):  # it is nobody's day
        last_day = None
    # Rows of events come after the visits of their patient, which stay in their order.
    record = pl.concat([visits, events(tables, spec).join(known, on="patient_id")], how="diagonal").with_columns(
        pl.lit(last_day, pl.Date).alias("last_day")
    )
    aged = [leaf.straddles() for leaf in spec.leaves() if isinstance(leaf, Age) and leaf.judges_age]
    facts = [pl.any_horizontal(aged).alias("age_uncertain")] if aged else []
    if spec.matching is not None:
        decide = decide_matched if spec.outcome.given_dates is None else decide_at
        decided = decide(record, tables, spec, facts)
        nothing = pl.lit(None, pl.Datetime("us"))
        decided = decided.with_columns(index_order=pl.lit(None, pl.Int32), cut_time=nothing, read_time=nothing)
    else:
        decided = _decide(record, tables, spec, facts)
    decided = decided.with_columns(last_day_read=last_day_read(spec))
    columns = ("patient_id", "index_order", "cut_time", "last_day_read")
    visits = visits.drop(name(one.id) for one in spec.diagnosis_sets() for name in (has_code_of, told_of))
    visits = visits.join(decided.select(columns), on="patient_id", how="left", maintain_order="left")
    decided = decided.join(_input(visits, spec), on="patient_id", how="left")
    if spec.matching is not None:
        decided = decided.with_columns(index_order=pl.col("input_until") + 1)
    decided = decided.with_columns(
        (pl.col("index_date") - pl.col("day_one")).dt.total_days().alias("index_day"),
        prediction_time(spec, dated).cast(pl.Datetime("us")).alias("prediction_time"),
    ).with_columns(over_by=over_by(spec, dated))
    return decided.with_columns(pl.col("index_order").alias(UNBILLED)) if spec.input.waits_for_bill else decided


def _decide(record: pl.DataFrame, tables: EhrTables, spec: CohortSpec, facts: list[pl.Expr]) -> pl.DataFrame:
    """One row per patient with visits: index_order, index_date, cut_time, label, weight, rule:<id>, and `facts`."""
    dated = tables.source.has_dates
    is_visit = pl.col("order").is_not_null()
    orders = record.filter(is_visit).group_by("patient_id").agg(spec.index.order(spec.outcome).alias("index_order"))
    record = record.join(orders, on="patient_id", how="left", maintain_order="left")
    times = record.filter(is_visit).group_by("patient_id").agg(*index_times(spec))
    index = orders.join(times, on="patient_id").with_columns(cut_day=pl.col("cut_time").dt.date())
    if spec.looks_at_follow_up:
        index = with_cover(index, tables, spec.follow_up)
    record = record.join(index.drop("index_order"), on="patient_id", how="left", maintain_order="left")
    record = without_bill(record, spec)
    if spec.outcome.reads_to_prediction:
        record = known_at_prediction(record, spec)
    facts = [*facts, *(fact.alias(name) for name, fact in spec.outcome.facts(dated).items())]
    facts += [leaves.alias(id) for id, (_, leaves) in spec.outcome.unjudged().items()]
    rules = [_says(rule, number).alias(f"rule:{rule.id}") for number, rule in enumerate(spec.rules)]
    judged = record.group_by("patient_id").agg(spec.outcome.label(dated).alias("label"), *rules, *facts)
    among = {"cases": pl.col("label"), "controls": ~pl.col("label")}
    judged = judged.with_columns(
        (pl.col(f"rule:{rule.id}") & among[rule.among]).alias(f"rule:{rule.id}") for rule in spec.rules if rule.among
    )
    return index.join(judged, on="patient_id", how="left").with_columns(weight=pl.lit(1.0))


def _says(rule: Rule, number: int) -> pl.Expr:
    if rule.action == "skip_visit":  # nobody is left to be the index, and this rule took the last one
        last_taken = pl.col("passed_over").max() == number
        return pl.col("index_order").first().is_null() & last_taken.fill_null(False)
    return rule.when.holds()


def _input(visits: pl.DataFrame, spec: CohortSpec) -> pl.DataFrame:
    """Per patient: input_until, the order of the last visit that may be read, and day_one, that of his first visit."""
    index = pl.col("index_order") if spec.input.until == "through_index" else pl.col("index_order") - 1
    to_come = ~had_begun(spec)
    last = pl.col("order").max() if spec.matching is not None else index.first()
    to_come = to_come if spec.matching is not None else to_come & (pl.col("order") <= index)
    return visits.group_by("patient_id").agg(
        pl.min_horizontal(last, pl.col("order").filter(to_come).min() - 1).alias("input_until"),
        pl.col("day").first().alias("day_one"),
    )


def _lines(spec: CohortSpec, dated: bool) -> list[Exit]:
    through = spec.input.until == "through_index"
    is_drawn = spec.matching is not None and spec.outcome.given_dates is None
    lines = [NO_VISITS]
    lines += [
        Exit(rule.id, rule.description + _LOOKS * rule.looks_after_index, rule.tag, pl.col(f"rule:{rule.id}"))
        for rule in spec.rules
        if rule.action != "flag"
    ]
    if spec.outcome.by_case and spec.matching is None and dated:
        text = "The outcome's codes are of encounters after the death alone"
        lines.append(Exit("outcome_after_death", text, "ours", pl.col("outcome_after_death")))
    if dated:
        undated, text = pl.col("prediction_time").is_null(), "The index visit's date is unknown"
        if is_drawn:
            undated = undated & pl.col("among_cases")
        elif spec.matching is not None:
            text = "No day of the prediction is given, or nothing is recorded before it"
        lines.append(Exit("index_undated", text, "ours", undated))
    if spec.matching is not None and spec.matching.since_age is not None:
        text = (
            f"A case less than {spec.matching.minimum_days} days after the first encounter at {spec.matching.since_age}"
            " years or more, or of unknown age"
        )
        short = pl.col("among_cases") & pl.col(SHORT_AT_RISK)
        lines.append(Exit(SHORT_AT_RISK, text, spec.matching.tag, short))
    if is_drawn:
        text = "May be a case, by the draw of parts, and has no outcome"
        nobody = ~pl.col("among_cases") & ~pl.col("among_controls")
        lines.append(Exit("not_a_case", text, spec.matching.tag, nobody))
        text = "May be a control, by the draw of parts, and was not drawn for a case"
        lines.append(Exit("not_drawn", text, spec.matching.tag, pl.col("among_controls") & ~pl.col("drawn")))
    if dated and through:
        text = "The index visit or an earlier one had not begun at the prediction time"
        lines.append(Exit("visit_open", text, "ours", pl.col("input_until") < pl.col("index_order")))
    asked = any(
        isinstance(leaf, DaysOfFollowUp) and (leaf.fewer_than or 0) >= spec.outcome.known_after_days
        for leaf in spec.leaves()
    )
    lines += [
        Exit(id, text, "ours", pl.col(id))
        for id, (text, _) in spec.outcome.unjudged().items()
        if not (asked and id == "source_ends")
    ]
    if not spec.outcome.always_known:
        text = "The record does not tell the outcome"
        unknown = pl.col("label").is_null()
        if spec.outcome.asks_follow_up and dated:
            unknown = unknown & pl.col(CENSORED_DAY).is_null()
        lines.append(Exit("outcome_unknown", text, "ours", unknown))
    lines.append(too_few_codes(spec.input.minimum_codes, spec.input.tag))
    if is_drawn:
        text = "A case for whom there were too few controls"
        lines.append(Exit("unmatched", text, spec.matching.tag, ~pl.col("drawn")))
    return lines
