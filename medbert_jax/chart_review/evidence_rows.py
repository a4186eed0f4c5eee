"""The rows of a patient's record that a rule counted, for those who review a chart.

Which visits and days a condition counts is said by the interpreter's own expressions (its `rows` and windows), and
which codes, drugs and results by the `matches` of its sets: nothing is read a second time here.
"""

from dataclasses import replace

import polars as pl

from medbert_jax.cohorts.comparisons import Comparison
from medbert_jax.cohorts.counts import CountOfRows, Deaths, Events, Visits
from medbert_jax.cohorts.derived import rows_with_derived
from medbert_jax.cohorts.evidence_sets import CODE_STRING, Tag
from medbert_jax.cohorts.follow_up import followed_times
from medbert_jax.cohorts.life import Lives, in_life
from medbert_jax.cohorts.record import events, visits_with_code_sets, with_ages, without_bill
from medbert_jax.cohorts.record_columns import AT_INDEX, visits_with
from medbert_jax.cohorts.spans import Age, DaysBetween, DaysOfLookback, DaysToIndex, EnrolledAtIndex
from medbert_jax.cohorts.spec import CohortSpec, Rule
from medbert_jax.cohorts.windows import index_times, passed_over
from medbert_jax.ehr.schema import EhrTables

EVIDENCE = {
    "patient_id": pl.String(),
    "rule": pl.String(),
    "part": pl.Int32(),  # place of the condition among the leaves of the rule, from 0
    "role": pl.String(),  # since: where a number of days begins; else empty
    # visit | diagnosis | medication | measurement | procedure | age | death | follow_up | prediction
    "kind": pl.String(),
    "order": pl.Int32(),  # of the visit, where it is of one
    "day": pl.Date(),
    "code": pl.String(),  # system/code; of a drug its ingredient, of a time of follow-up what decides of it
    "value": pl.Float64(),  # of a result, or an age in whole years
    "unit": pl.String(),
}
LABEL = "what the label rests on"
OUTCOME, SINCE = "codes of the outcome", "codes that the index goes by"
"""Names beside those of the rules, which hold no blank."""
_VISIT = ["patient_id", "visit_id"]
_TEXT, _NUMBER = pl.lit(None, pl.String), pl.lit(None, pl.Float64)


def reviewed_rules(spec: CohortSpec) -> tuple[Rule, ...]:
    """The spec's rules, after what looks for the codes of the outcome and for those that the index goes by."""
    looks: list[tuple[str, str | None, Tag]] = [
        (OUTCOME, spec.outcome.code_set, spec.outcome.tag),
        (SINCE, spec.index.code_set, spec.index.tag),
    ]
    if spec.matching is not None:
        looks.append((SINCE, spec.matching.since_codes, spec.matching.tag))
    there = (
        Rule(
            id=id,
            description=spec.code_set(codes).description,
            tag=tag,
            when=Visits(with_codes=codes, window="whole_record", at_least=1),
            action="flag",
        )
        for id, codes, tag in looks
        if codes
    )
    return (*there, *spec.rules)


def part_id(rule: Rule, part: int) -> str:
    """Id of the flag of `with_parts` that says whether that condition of the rule holds."""
    return f"{rule.id}/{part}"


def with_parts(spec: CohortSpec, tables: EhrTables) -> CohortSpec:
    """The spec with one more flag for every condition within a rule, so that the interpreter judges each by itself.

    Flags let nobody leave. A condition on a table that is not there has none, and neither has one that passes over
    visits. A condition on deaths has a second one, `/there`: whether there is a death in its window.
    """
    flags = []
    for rule in reviewed_rules(spec):
        for part, leaf in enumerate(rule.when.leaves()):
            if rule.action == "skip_visit" or not leaf.decidable(tables.present()):
                continue
            flags.append(Rule(part_id(rule, part), rule.description, rule.tag, leaf, action="flag"))
            if isinstance(leaf, Deaths):
                there = replace(leaf, at_least=1, fewer_than=None)
                flags.append(replace(flags[-1], id=f"{part_id(rule, part)}/there", when=there))
    return replace(spec, rules=(*spec.rules, *flags))


def evidence_rows(tables: EhrTables, spec: CohortSpec, judged: pl.DataFrame) -> pl.DataFrame:
    """One row per piece of evidence, columns of `EVIDENCE`, of the patients of `tables`: of the rules, and under
    `LABEL` the first visit, or the codes of it, that makes a label 1.

    `judged` is what `judge` says of them under `with_parts(spec, …)`; the tables may hold fewer patients than it.
    """
    lives = in_life(tables)
    tables, record = lives.tables, _record(lives, spec, judged)
    event = _of_visits(_first(record, spec.outcome.event()), spec.outcome.code_set, tables, spec)
    found = [pl.DataFrame(schema=EVIDENCE), _as_evidence(event, LABEL, 0, "")]
    for rule in reviewed_rules(spec):
        for part, leaf in enumerate(rule.when.leaves()):
            if rule.action == "skip_visit":
                assert isinstance(leaf, Visits)  # `checks`: it judges nothing else
                passed = pl.col("passed_over") == spec.rules.index(rule)
                rows = [_of_visits(record.filter(passed), leaf.with_codes, tables, spec)]
            elif isinstance(leaf, Deaths):
                column = f"rule:{part_id(rule, part)}/there"
                there = judged.filter(pl.col(column).fill_null(False)).select("patient_id")
                rows = [_deaths(lives.known().join(there, on="patient_id", how="semi"))]
            else:
                rows = _of_leaf(leaf, record, tables, spec)
            for role, one in zip(("", "since"), rows, strict=False):
                found.append(_as_evidence(one, rule.id, part, role))
    return pl.concat(found).unique().sort("patient_id", "rule", "part", "role", "day", "order", "code", "value")


def _as_evidence(rows: pl.DataFrame, rule: str, part: int, role: str) -> pl.DataFrame:
    about = {"rule": pl.lit(rule), "part": pl.lit(part, pl.Int32), "role": pl.lit(role)}
    return rows.with_columns(**about).select(pl.col(name).cast(EVIDENCE[name]) for name in EVIDENCE)


def _record(lives: Lives, spec: CohortSpec, judged: pl.DataFrame) -> pl.DataFrame:
    """The rows that the rules looked at: visits in their order, then events, with the index and the day of the cut."""
    tables, known = lives.tables, lives.known()
    visits = visits_with_code_sets(tables, spec).join(known, on="patient_id", how="left", maintain_order="left")
    visits = with_ages(visits).with_columns(passed_over(spec).alias("passed_over"))
    record = pl.concat([visits, events(tables, spec)], how="diagonal")
    if spec.matching is not None:  # the index is a date there, and everything goes by days
        nothing = {name: pl.lit(None, pl.Datetime("us")) for name in ("cut_time", "read_time")}
        nothing["index_order"] = pl.lit(None, pl.Int32)
        index = judged.select("patient_id", "index_date", cut_day="index_date", **nothing)
    else:
        orders = judged.select("patient_id", "index_order")
        times = visits.join(orders, on="patient_id", how="left", maintain_order="left")
        times = times.group_by("patient_id").agg(*index_times(spec))
        days = times.with_columns(cut_day=pl.col("cut_time").dt.date())
        index = orders.join(days, on="patient_id", how="left")
    return without_bill(record.join(index, on="patient_id", how="left", maintain_order="left"), spec)


def counted(leaf: CountOfRows, spec: CohortSpec) -> pl.Expr:
    """Per row of the record: does the condition, a count of visits or of days, count it?"""
    inside = leaf.counted(by_day=spec.matching is not None)
    return inside.over("patient_id").fill_null(False)


def _of_leaf(leaf: Comparison, record: pl.DataFrame, tables: EhrTables, spec: CohortSpec) -> list[pl.DataFrame]:
    """What the condition rests on; of a number of days first its end and then, where it is a visit, its beginning."""
    if isinstance(leaf, Visits):
        return [_of_visits(record.filter(counted(leaf, spec)), leaf.with_codes, tables, spec)]
    if isinstance(leaf, Events):
        return [_of_events(record.filter(counted(leaf, spec)), leaf, tables, spec)]
    if isinstance(leaf, DaysToIndex):
        return [_of_visits(_first(record, leaf.rows()), leaf.with_codes, tables, spec)]
    if isinstance(leaf, DaysBetween):
        ends = (leaf.with_codes, leaf.since_codes)
        return [_of_visits(_first(record, visits_with(codes)), codes, tables, spec) for codes in ends]
    if isinstance(leaf, DaysOfLookback | EnrolledAtIndex):
        return _of_follow_up(leaf, record, tables, spec)
    if not isinstance(leaf, Age):  # is there an index, how long was he followed from there
        return [_of_visits(record.filter(AT_INDEX), None, tables, spec)]
    rows = _first(record, leaf.rows())
    return [rows.select("patient_id", "order", "day", kind=pl.lit("age"), code=_TEXT, value="age", unit=_TEXT)]


def _of_follow_up(
    leaf: DaysOfLookback | EnrolledAtIndex, record: pl.DataFrame, tables: EhrTables, spec: CohortSpec
) -> list[pl.DataFrame]:
    """The prediction and what covers it: the time of follow-up, or else the times that do not, or the first visit.

    Of times only what decides is said: days to the begin or the end of a source's own time would tell the date.
    """
    predicted = record.filter(pl.col("cut_day").is_not_null()).unique("patient_id").select("patient_id", "cut_day")
    nothing = {"order": pl.lit(None, pl.Int32), "code": _TEXT, "value": _NUMBER, "unit": _TEXT}
    end = predicted.select("patient_id", kind=pl.lit("prediction"), day="cut_day", **nothing)
    times = followed_times(tables, spec.follow_up)
    if times is None:
        seen = pl.min_horizontal("admit_time", "discharge_time").dt.date()
        first = tables.visits.with_columns(day=seen).drop_nulls("day").sort("day", "order")
        first = _first(first.join(predicted, on="patient_id", how="semi", maintain_order="left"), pl.lit(True))
        return [end, _of_visits(first, None, tables, spec)]
    begun = (pl.col("cut_day") - pl.col("start")).dt.total_days()
    covers = pl.lit("a time that covers the day of the prediction")
    if isinstance(leaf, DaysOfLookback) and leaf.limit:
        enough = pl.when(begun >= leaf.limit).then(pl.lit(f"{leaf.limit:,} days or more"))
        enough = enough.otherwise(pl.lit(f"less than {leaf.limit:,} days"))
        covers = pl.format("{} and begins {} before it", covers, enough)
    words = (
        pl.when(begun < 0).then(pl.lit("a time that begins after the day of the prediction"))
        .when(pl.col("end") < pl.col("cut_day")).then(pl.lit("a time that ends before the day of the prediction"))
        .otherwise(covers)
    )  # fmt: skip
    times = times.join(predicted, on="patient_id")
    covering = pl.col("cut_day").is_between("start", "end")
    rows = times.with_columns(covers=covering, any=covering.any().over("patient_id"))
    nothing |= {"code": words, "day": pl.lit(None, pl.Date), "kind": pl.lit("follow_up")}
    other = rows.filter(~pl.col("any")).select("patient_id", **nothing)
    return [pl.concat([end.select(other.columns), other]), rows.filter("covers").select("patient_id", **nothing)]


def _first(record: pl.DataFrame, rows: pl.Expr) -> pl.DataFrame:
    return record.filter(rows).unique("patient_id", keep="first", maintain_order=True)


def _of_visits(visits: pl.DataFrame, codes: str | None, tables: EhrTables, spec: CohortSpec) -> pl.DataFrame:
    """The visits, or the codes of them that are in the set."""
    if codes is None:
        said = {"kind": pl.lit("visit"), "code": _TEXT, "value": _NUMBER, "unit": _TEXT}
        return visits.select("patient_id", "order", "day", **said)
    named = tables.diagnoses.filter(spec.code_set(codes).matches()).select(*_VISIT, code=CODE_STRING).unique()
    found = visits.select(*_VISIT, "order", "day").join(named, on=_VISIT)
    return found.with_columns(kind=pl.lit("diagnosis"), value=_NUMBER, unit=_TEXT)


def _of_events(days: pl.DataFrame, leaf: Events, tables: EhrTables, spec: CohortSpec) -> pl.DataFrame:
    """The drugs, results or procedures of the set on the days that were counted."""
    days, wanted = days.select("patient_id", "day"), spec.entry(*leaf.looked_for)
    table = rows_with_derived(tables, spec, leaf.table)
    rows = dated_events(tables, leaf.table, table.filter(wanted.matches())) if table is not None else None
    if rows is None:
        return pl.DataFrame(schema=EVIDENCE)
    return rows.join(days, on=["patient_id", "day"], how="semi", nulls_equal=True)


def dated_events(tables: EhrTables, name: str, rows: pl.DataFrame) -> pl.DataFrame:
    """`rows` of the table of that name, with the columns of `EVIDENCE` but rule, part and role."""
    visits = tables.visits.select(*_VISIT, "order", "admit_time")
    rows = rows.join(visits, on=_VISIT, how="left")
    measured = name == "measurements"
    return rows.select(
        "patient_id",
        "order",
        pl.coalesce("time", "admit_time").dt.date().alias("day"),
        kind=pl.lit(name.removesuffix("s")),
        code=pl.coalesce("ingredient", CODE_STRING) if name == "medications" else CODE_STRING,
        value=pl.col("value") if measured else _NUMBER,
        unit=pl.col("unit") if measured else _TEXT,
    )


def _deaths(patients: pl.DataFrame) -> pl.DataFrame:
    return patients.select(
        "patient_id", order=pl.lit(None, pl.Int32), day="death_date", kind=pl.lit("death"), code=_TEXT,
        value=_NUMBER, unit=_TEXT,
    )  # fmt: skip
