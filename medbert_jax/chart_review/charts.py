"""A patient's chart as a reviewer sees it: days from the index, what each rule says, and the evidence for it.

Neither ids nor dates leave this module. What counts as evidence says `evidence_rows`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import polars as pl

from medbert_jax.chart_review.evidence_rows import LABEL, dated_events, evidence_rows, part_id, reviewed_rules
from medbert_jax.cohorts.comparisons import Comparison
from medbert_jax.cohorts.counts import Deaths, Events, IndexVisits, Visits
from medbert_jax.cohorts.evidence_sets import CODE_STRING
from medbert_jax.cohorts.judging import Exit
from medbert_jax.cohorts.life import in_life
from medbert_jax.cohorts.record import with_ages
from medbert_jax.cohorts.spans import Age, DaysOfFollowUp, DaysToIndex, EnrolledAtIndex
from medbert_jax.cohorts.spec import CohortSpec, Rule
from medbert_jax.description.chart import Annotation, Chart, Entry, Visit, day_words, person_words
from medbert_jax.ehr.icd import titles
from medbert_jax.ehr.known import input_diagnoses, input_visits
from medbert_jax.ehr.schema import EVENT_TABLES, EhrTables


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


@dataclass(frozen=True, kw_only=True)
class ReviewedChart(Chart):
    """A chart with what a cohort's rules say of the patient."""

    group: str
    """cases | controls | censored | id of the line of the ledger under which he leaves."""
    group_text: str
    label_words: str
    """What the label rests on, in words; empty for those who leave."""
    label_evidence: tuple[Entry, ...]
    """The encounter, or its codes, that makes the label 1."""
    events: tuple[Entry, ...]
    rules: tuple[RuleSaid, ...]
    own_lines: tuple[tuple[str, str, bool], ...]
    """id, text and whether it applies, of the ledger's lines that are no rule of the spec."""


def charts(
    tables: EhrTables, spec: CohortSpec, judged: pl.DataFrame, lines: list[Exit], own_titles: dict[str, str]
) -> Iterator[tuple[str, ReviewedChart]]:
    """(patient_id, chart) of the patients of `tables`, of whom `judged` says what every rule and line says.

    `own_titles` are the source's, for codes without one in ICD-9-CM or ICD-10-CM.
    """
    evidence = _by_patient(evidence_rows(tables, spec, judged))
    born = tables.patients.select("patient_id", "birth_date")
    aged = tables.visits.join(born, on="patient_id").with_columns(day=pl.col("admit_time").dt.date())
    visits = _by_patient(with_ages(aged).sort("patient_id", "order"))
    codes = tables.diagnoses.join(
        tables.visits.select("patient_id", "visit_id", "order"), on=["patient_id", "visit_id"]
    )
    read = input_diagnoses(tables, input_visits(tables, judged.filter(pl.col("index_order").is_not_null())))
    read = read.select("patient_id", "order", code=CODE_STRING).unique().with_columns(is_read=True)
    codes = codes.sort("patient_id", "order", "priority", "code", nulls_last=True)
    said = {"kind": pl.lit("diagnosis"), "value": pl.lit(None, pl.Float64), "unit": pl.lit(None, pl.String)}
    codes = codes.select("patient_id", "order", code=CODE_STRING, **said).unique(maintain_order=True)
    codes = codes.join(read, on=["patient_id", "order", "code"], how="left", maintain_order="left")
    names = codes["code"].unique().drop_nulls().to_list()
    known = own_titles | {name: title for name, title in zip(names, titles(names), strict=True) if title}
    codes = _by_patient(codes)
    dated = [dated_events(tables, name, table) for name, table in tables.present().items() if name in EVENT_TABLES]
    events = _by_patient(pl.concat(dated).unique().sort(pl.all())) if dated else {}
    people = _by_patient(in_life(tables).known())
    for row in judged.iter_rows(named=True):
        id = row["patient_id"]
        parts = [frames.get(id, []) for frames in (people, visits, codes, events, evidence)]
        yield id, _chart(row, *parts, spec=spec, lines=lines, known=known)


def _by_patient(frame: pl.DataFrame) -> dict[str, list[dict]]:
    groups = frame.partition_by("patient_id", as_dict=True, maintain_order=True)
    return {key: group.to_dicts() for (key,), group in groups.items()}


def _chart(
    row, person, visits, codes, events, evidence, *, spec: CohortSpec, lines: list[Exit], known: dict[str, str]
) -> ReviewedChart:
    group = row["leaves_under"] or {True: "cases", False: "controls"}.get(row["label"], "censored")
    zero = row["index_date"] or next((visit["day"] for visit in visits if visit["day"]), None)

    def offset(day) -> int | None:
        return None if day is None or zero is None else (day - zero).days

    cut = row["prediction_time"] if row["index_order"] is not None else None
    until = row["input_until"] if cut is not None else None
    cut = None if cut is None else offset((cut + timedelta(microseconds=1)).date())

    def is_after(order: int | None, day: int | None) -> bool:
        """Whether it is of a visit, or without one of a day, that comes after the input."""
        if until is None:
            return False
        return order > until if order is not None else cut is not None and day is not None and day >= cut

    def entry(one: dict, marks: Iterable[str] = ()) -> Entry:
        about = {name: one[name] for name in ("kind", "code", "value", "unit")}
        order, day = one["order"], offset(one["day"])
        after = one["kind"] != "prediction" and is_after(order, day)
        later = not after and until is not None and one["kind"] == "diagnosis" and (order, one["code"]) not in read
        said = {"role": one.get("role", ""), "is_after": after, "is_known_later": later, "marks": tuple(marks)}
        return Entry(**about, **said, day=day, visit=order, title=known.get(one["code"], ""))

    read = {(one["order"], one["code"]) for one in codes if one["is_read"]}
    counted: dict[tuple, dict[str, None]] = {}
    label = [one for one in evidence if one["rule"] == LABEL and group == "cases"]
    for one in evidence:
        if one["rule"] == LABEL:
            continue
        counted.setdefault(_place(one), {})[one["rule"]] = None
    rules = reviewed_rules(spec)
    own = [line for line in lines if line.id not in {rule.id for rule in rules}]
    texts = {line.id: line.text for line in lines} | {"cases": "Cases", "controls": "Controls", "censored": "Censored"}
    shown = tuple(
        Visit(
            order=visit["order"],
            day=offset(visit["day"]),
            stay=_stay(visit),
            type=visit["visit_type"],
            is_read=None if until is None else visit["order"] <= until,
            is_index=spec.matching is None and visit["order"] == row["index_order"],
            codes=tuple(
                entry(one | {"day": visit["day"]}, counted.get(_place(one), ()))
                for one in codes
                if one["order"] == visit["order"]
            ),
        )
        for visit in visits
    )
    age = visits[0]["age"] if visits else None
    about = person_words(person[0]["sex"], None if age is None else int(age))
    return ReviewedChart(
        person=f"{about} at the first encounter, {len(shown)} encounter{'' if len(shown) == 1 else 's'}",
        outcome=_outcome(group, texts[group], shown, cut),
        from_index=row["index_date"] is not None,
        visits=shown,
        annotations=_annotations(
            spec, row["index_date"] is not None, shown, cut, until, offset(person[0]["death_date"])
        ),
        group=group,
        group_text=texts[group],
        label_words=_label_words(spec, group, row, visits, cut, offset(person[0]["death_date"])),
        label_evidence=tuple(entry(one) for one in label),
        events=tuple(entry(one, counted.get(_place(one), ())) for one in events),
        rules=tuple(_said(rule, row, [one for one in evidence if one["rule"] == rule.id], entry) for rule in rules),
        own_lines=tuple((line.id, line.text, bool(row[f"line:{line.id}"])) for line in own),
    )


def _outcome(group: str, text: str, visits: Sequence[Visit], cut: int | None) -> str:
    """What becomes of the patient: label, index and input, or the line under which he leaves."""
    if group not in ("cases", "controls", "censored"):
        return f"Leaves under {group}: {text}"
    ends = "" if cut is None else f" that ends at {day_words(cut)}"
    read = sum(bool(visit.is_read) for visit in visits)
    label = "unknown" if group == "censored" else int(group == "cases")
    return f"Label {label}; {read} of {len(visits)} encounters are in the input{ends}"


def _label_words(
    spec: CohortSpec, group: str, row: dict, visits: list[dict], cut: int | None, death: int | None
) -> str:
    """What the label rests on; `cut`: day of the prediction, `death`: day of the death, if it is known."""
    if group == "censored":
        return "followed to before the end of the time at risk, without the outcome until then"
    if group not in ("cases", "controls"):
        return ""
    outcome = spec.outcome
    index = next((visit for visit in visits if visit["order"] == row["index_order"]), {})
    stated = outcome.stated_by is not None and index.get(outcome.stated_by) is not None
    if stated:
        return "as the source states it of the index encounter"
    if group == "cases":
        return "the first encounter that makes it 1:"
    words, days = outcome.no_event(), outcome.known_after_days
    if cut is None or not days or outcome.by_case:
        return words
    words += f", until {day_words(cut + days)}"
    died_first = death is not None and cut <= death <= cut + days
    return f"{words}; died first, on {day_words(death)}" if died_first else words


def _annotations(
    spec: CohortSpec, from_index: bool, visits: Sequence[Visit], cut: int | None, until: int | None, death: int | None
) -> tuple[Annotation, ...]:
    """`cut`: first day that may not be read, or day of the discharge with which the input ends; `until`: last visit
    that may be read.
    """
    index = next((visit for visit in visits if visit.is_index), None)
    at = (None, None) if index is None else (index.day, index.order)
    risk = cut + spec.outcome.known_after_days if spec.outcome.asks_follow_up and cut is not None else None
    said = (
        Annotation("index", "index", 0 if from_index else at[0], at[1]),
        Annotation("cut", "input ends", cut, None if until is None else until + 0.5),
        Annotation("risk", "time at risk ends", risk),
        Annotation("death", "death", death),
    )
    return tuple(one for one in said if (one.day, one.visit) != (None, None))


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
    if isinstance(leaf, EnrolledAtIndex):
        return int(bool(days["since"]))
    begin, end = (days[""], [0] * has_index) if isinstance(leaf, DaysToIndex) else (days["since"], days[""])
    if isinstance(leaf, DaysOfFollowUp) or not begin or not end:
        return None  # with the source's last day, days of follow-up would tell the date
    first, last = begin[0], end[0]
    return None if first is None or last is None else last - first
