"""A rule's conditions, and the evidence for them, in words; days as offsets, no date and no id."""

from collections.abc import Iterable

from medbert_jax.cohorts.charts import Chart, Entry, Part, RuleSaid
from medbert_jax.cohorts.comparisons import Together
from medbert_jax.cohorts.counts import Events
from medbert_jax.cohorts.spans import Age, DaysOfFollowUp
from medbert_jax.cohorts.spec import CohortSpec
from medbert_jax.ehr.icd import titles
from medbert_jax.evaluation.timelines import OLDEST_SHOWN

_WINDOWS = {
    "whole_record": "in the whole record",
    "first_visit": "at the first encounter",
    "before_first_visit": "before the first encounter",
    "before_index": "before the index",
    "index_visit": "at the index encounter",
    "through_index": "up to the end of the index encounter",
    "by_index_date": "by the day of the prediction",
    "after_index": "after the index encounter",
}


def day(number: int | None) -> str:
    """As "day −12", "day 1,024"."""
    return "day unknown" if number is None else f"day {number:,}".replace("-", "−")


def when(entry: Entry) -> str:
    """The day of an entry, or its encounter where the day is unknown."""
    if entry.day is None and entry.visit is not None:
        return f"encounter {entry.visit}"
    return f"{'from ' * bool(entry.role)}{day(entry.day)}"


def what(part: Part, spec: CohortSpec) -> str:
    """What the condition looks for, without window and number, as "Days with: Diuretics"."""
    sets = (*spec.code_sets, *(spec.drug_sets or ()), *(spec.laboratory_sets or ()))
    return part.condition.words({one.id: one.description for one in sets})


def asked(part: Part, spec: CohortSpec, *, skips: bool = False) -> str:
    """The condition with window and number, what was found, and what is asked for; `skips`: it passes over visits."""
    of, number = part.condition, part.measured
    if skips:
        return f"{what(part, spec)}: {number} passed over"
    window = f", {_WINDOWS[of.window]}" if of.window else ""
    limits = (("at least", of.at_least), ("fewer than", of.fewer_than), ("unknown", of.unknown and ""))
    limit = next(f"{words} {bound}".strip() for words, bound in limits if bound is not None)
    if isinstance(of, Events) and part.holds is None:
        found = "the source has no such table"
    elif isinstance(of, DaysOfFollowUp):
        found = "not shown, it would tell the date"
    elif number is None:
        found = "unknown"
    elif isinstance(of, Age):
        found = f"{number} years" if number <= OLDEST_SHOWN else f"over {OLDEST_SHOWN} years"
    else:
        found = f"{number:,}".replace("-", "−")
    met = "" if part.holds is None else f" ({'met' if part.holds else 'not met'})"
    return f"{what(part, spec)}{window}: {found}; asks for {limit}{met}"


def joined(said: RuleSaid) -> str:
    """How the conditions of the rule go together; empty for a single one."""
    when = said.rule.when
    return f"{'none' if when.NONE else 'any'} of these:" if isinstance(when, Together) else ""


def visit_words(chart: Chart, order: int | None) -> str:
    """As "inpatient, 5 days"."""
    visit = next((visit for visit in chart.visits if visit.order == order), None)
    if visit is None:
        return ""
    days = "" if visit.stay is None else f"{abs(visit.stay)} day{'' if abs(visit.stay) == 1 else 's'}"
    wrong = visit.stay is not None and visit.stay < 0
    stay = f", discharged {days} before the admission" if wrong else f", {days}" if days else ""
    return f"{visit.type or 'type unknown'}{stay}"


def entry_words(entry: Entry, chart: Chart, known: dict[str, str]) -> tuple[str, str]:
    """(code, what it means or its value) of an entry; `known` are the titles of codes."""
    if entry.kind == "measurement":
        value = "no value" if entry.value is None else f"{entry.value:g} {entry.unit or '(no unit)'}"
        return entry.code or "", value
    if entry.kind == "medication":
        return "", entry.code or "drug without a name"
    if entry.kind == "visit":
        return f"encounter {entry.visit}", visit_words(chart, entry.visit)
    if entry.kind == "age":
        return f"encounter {entry.visit}", "age taken here"
    if entry.kind == "death":
        return "", "death"
    return entry.code or "", known.get(entry.code or "", "")


def titles_of(charts: Iterable[Chart]) -> dict[str, str]:
    """Code → title, of every diagnosis in the charts; empty texts for codes that have none."""
    codes = sorted({one.code for chart in charts for visit in chart.visits for one in visit.codes if one.code})
    return dict(zip(codes, titles(codes), strict=True))


def person(chart: Chart) -> str:
    """As "female, 61 years at the first encounter, 8 encounters"."""
    if chart.age is None:
        age = "age unknown"
    else:
        age = f"{chart.age} years" if chart.age <= OLDEST_SHOWN else f"over {OLDEST_SHOWN} years"
    count = len(chart.visits)
    return f"{chart.sex or 'sex unknown'}, {age} at the first encounter, {count} encounter{'' if count == 1 else 's'}"


def outcome_words(chart: Chart) -> str:
    """What becomes of the patient: label, index and input, or the line under which he leaves."""
    if chart.group not in ("cases", "controls"):
        return f"Leaves under {chart.group}: {chart.group_text}"
    read = sum(visit.is_read for visit in chart.visits)
    ends = "" if chart.cut is None else f" that ends at {day(chart.cut)}"
    return f"Label {int(bool(chart.label))}; {read} of {len(chart.visits)} encounters are in the input{ends}"
