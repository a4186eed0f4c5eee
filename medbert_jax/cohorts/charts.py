"""A patient's chart as a reviewer sees it: days from the index, what each rule says, and the evidence for it.

Neither ids nor dates leave this module: everything is a day offset. What counts as evidence says `evidence_rows`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import polars as pl

from medbert_jax.cohorts.comparisons import Comparison
from medbert_jax.cohorts.counts import Deaths, Events, IndexVisits, Visits
from medbert_jax.cohorts.evidence_rows import EVENT_TABLES, dated_events, evidence_rows, part_id, reviewed_rules
from medbert_jax.cohorts.evidence_sets import CODE_STRING
from medbert_jax.cohorts.judging import Line
from medbert_jax.cohorts.record import with_ages
from medbert_jax.cohorts.spans import Age, DaysOfFollowUp, DaysToIndex
from medbert_jax.cohorts.spec import CohortSpec, Rule
from medbert_jax.ehr.schema import EhrTables


@dataclass(frozen=True)
class Entry:
    """A code, drug, result, … of the record; `day` from day 0, `visit` its order; None: unknown, or of no visit."""

    kind: str
    day: int | None
    visit: int | None
    code: str | None
    value: float | None
    unit: str | None
    role: str = ""
    rules: tuple[str, ...] = ()
    """Rules that counted it."""


@dataclass(frozen=True)
class Part:
    """A condition within a rule: whether it holds (None: not told by itself), and what it rests on."""

    condition: Comparison
    holds: bool | None
    measured: int | None
    """What was compared: visits, days, or whole years; None: unknown, or (days of follow-up) not to be said."""
    evidence: tuple[Entry, ...]


@dataclass(frozen=True)
class RuleSaid:
    """What a rule says of a patient."""

    rule: Rule
    says: bool
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Visit:
    """A visit: day of its admission from day 0, whole days that it lasted; None is unknown."""

    order: int
    day: int | None
    stay: int | None
    type: str | None
    is_read: bool
    is_index: bool
    codes: tuple[Entry, ...]


@dataclass(frozen=True)
class Chart:
    """One patient. Day 0 is the day of the index, or of the first visit where there is no index."""

    group: str
    """cases | controls | id of the line of the ledger under which he leaves."""
    group_text: str
    from_index: bool
    cut: int | None
    """First day that may not be read, or day of the discharge with which the input ends; None: there is none."""
    read_until: int | None
    """Order of the last visit that may be read; None: there is no index, and so no input."""
    label: bool | None
    sex: str | None
    age: int | None
    """Whole years at the first visit."""
    death: int | None
    visits: tuple[Visit, ...]
    events: tuple[Entry, ...]
    rules: tuple[RuleSaid, ...]
    own_lines: tuple[tuple[str, str, bool], ...]
    """id, text and whether it applies, of the ledger's lines that are no rule of the spec."""
    name: str = ""

    def comes_after(self, entry: Entry) -> bool:
        """Whether the entry is of a visit, or without one of a day, that comes after the input."""
        if self.read_until is None:
            return False
        if entry.visit is not None:
            return entry.visit > self.read_until
        return self.cut is not None and entry.day is not None and entry.day >= self.cut


def charts(tables: EhrTables, spec: CohortSpec, judged: pl.DataFrame, lines: list[Line]) -> Iterator[tuple[str, Chart]]:
    """(patient_id, chart) of the patients of `tables`, of whom `judged` says what every rule and line says."""
    evidence = _by_patient(evidence_rows(tables, spec, judged))
    born = tables.patients.select("patient_id", "birth_date")
    aged = tables.visits.join(born, on="patient_id").with_columns(day=pl.col("admit_time").dt.date())
    visits = _by_patient(with_ages(aged).sort("patient_id", "order"))
    codes = tables.diagnoses.join(
        tables.visits.select("patient_id", "visit_id", "order"), on=["patient_id", "visit_id"]
    )
    codes = codes.sort("patient_id", "order", "priority", "code", nulls_last=True)
    said = {"kind": pl.lit("diagnosis"), "value": pl.lit(None, pl.Float64), "unit": pl.lit(None, pl.String)}
    codes = codes.select("patient_id", "order", code=CODE_STRING, **said).unique(maintain_order=True)
    codes = _by_patient(codes)
    dated = [dated_events(tables, name, table) for name, table in tables.present().items() if name in EVENT_TABLES]
    events = _by_patient(pl.concat(dated).unique().sort(pl.all())) if dated else {}
    people = _by_patient(tables.patients)
    for row in judged.iter_rows(named=True):
        id = row["patient_id"]
        parts = [frames.get(id, []) for frames in (people, visits, codes, events, evidence)]
        yield id, _chart(row, *parts, spec=spec, lines=lines)


def _by_patient(frame: pl.DataFrame) -> dict[str, list[dict]]:
    groups = frame.partition_by("patient_id", as_dict=True, maintain_order=True)
    return {key: group.to_dicts() for (key,), group in groups.items()}


def _chart(row, person, visits, codes, events, evidence, *, spec: CohortSpec, lines: list[Line]) -> Chart:
    zero = row["index_date"] or next((visit["day"] for visit in visits if visit["day"]), None)

    def offset(day) -> int | None:
        return None if day is None or zero is None else (day - zero).days

    def entry(one: dict, rules: tuple[str, ...] = ()) -> Entry:
        about = {name: one[name] for name in ("kind", "code", "value", "unit")}
        return Entry(**about, day=offset(one["day"]), visit=one["order"], role=one.get("role", ""), rules=rules)

    counted: dict[tuple, dict[str, None]] = {}
    for one in evidence:
        counted.setdefault(_place(one), {})[one["rule"]] = None
    rules = reviewed_rules(spec)
    own = [line for line in lines if line.id not in {rule.id for rule in rules}]
    group = row["leaves_under"] or ("cases" if row["label"] else "controls")
    texts = {line.id: line.text for line in lines} | {"cases": "Cases", "controls": "Controls"}
    cut = row["prediction_time"] if row["index_order"] is not None else None
    until = row["input_until"] if cut is not None else None
    age = visits[0]["age"] if visits else None
    return Chart(
        group=group,
        group_text=texts[group],
        from_index=row["index_date"] is not None,
        cut=offset((cut + timedelta(microseconds=1)).date()) if cut is not None else None,
        read_until=until,
        label=row["label"],
        sex=person[0]["sex"],
        age=None if age is None else int(age),
        death=offset(person[0]["death_date"]),
        visits=tuple(
            Visit(
                order=visit["order"],
                day=offset(visit["day"]),
                stay=_stay(visit),
                type=visit["visit_type"],
                is_read=visit["order"] <= (until or 0),
                is_index=spec.matching is None and visit["order"] == row["index_order"],
                codes=tuple(
                    entry(one | {"day": visit["day"]}, tuple(counted.get(_place(one), ())))
                    for one in codes
                    if one["order"] == visit["order"]
                ),
            )
            for visit in visits
        ),
        events=tuple(entry(one, tuple(counted.get(_place(one), ()))) for one in events),
        rules=tuple(_said(rule, row, [one for one in evidence if one["rule"] == rule.id], entry) for rule in rules),
        own_lines=tuple((line.id, line.text, bool(row[f"line:{line.id}"])) for line in own),
    )


def _stay(visit: dict) -> int | None:
    """Whole days from admission to discharge, as the tables say or by their dates; negative where those are wrong."""
    if visit["length_of_stay"] is not None or None in (visit["day"], visit["discharge_time"]):
        return visit["length_of_stay"]
    return (visit["discharge_time"].date() - visit["day"]).days


def _place(one: dict) -> tuple:
    """What finds an entry of the record among the evidence; the day of a diagnosis is that of its visit."""
    day = None if one["kind"] == "diagnosis" else one["day"]
    return one["kind"], one["order"], day, one["code"], one["value"], one["unit"]


def _said(rule: Rule, row: dict, evidence: list[dict], entry) -> RuleSaid:
    parts = []
    for number, leaf in enumerate(rule.when.leaves()):
        own = tuple(entry(one) for one in evidence if one["part"] == number)
        holds = row.get(f"rule:{part_id(rule, number)}")
        parts.append(Part(leaf, holds, measured(leaf, own, row["index_order"] is not None), own))
    # What is looked for beside the rules is judged by its only part.
    return RuleSaid(rule, bool(row.get(f"rule:{rule.id}", parts[0].holds)), tuple(parts))


def measured(leaf: Comparison, evidence: tuple[Entry, ...], has_index: bool) -> int | None:
    """The number that the condition compares, as the evidence shows it; None: unknown, or not to be said."""
    days = {role: [one.day for one in evidence if one.role == role] for role in ("", "since")}
    if isinstance(leaf, Visits):
        return len({one.visit for one in evidence})
    if isinstance(leaf, Events):
        return len({one.day for one in evidence})
    if isinstance(leaf, Deaths | IndexVisits):
        return int(bool(evidence)) if isinstance(leaf, Deaths) else int(has_index)
    if isinstance(leaf, Age):
        return None if not evidence or evidence[0].value is None else int(evidence[0].value)
    begin, end = (days[""], [0] * has_index) if isinstance(leaf, DaysToIndex) else (days["since"], days[""])
    if isinstance(leaf, DaysOfFollowUp) or not begin or not end or None in (begin[0], end[0]):
        return None  # with the source's last day, days of follow-up would tell the date
    return end[0] - begin[0]
