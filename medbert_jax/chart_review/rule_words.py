"""A rule's conditions, and the evidence for them, in words; days as offsets, no date and no id."""

from medbert_jax.chart_review.charts import Part, RuleSaid
from medbert_jax.cohorts.comparisons import Together
from medbert_jax.cohorts.counts import Events
from medbert_jax.cohorts.spans import Age, DaysOfFollowUp
from medbert_jax.cohorts.spec import CohortSpec
from medbert_jax.description.chart import Chart, Entry, age_words, day_words

_WINDOWS = {
    "whole_record": "in the whole record",
    "first_visit": "at the first encounter",
    "before_first_visit": "before the first encounter",
    "before_last_visit": "before the last encounter",
    "before_index": "before the index",
    "index_visit": "at the index encounter",
    "through_index": "up to the end of the index encounter",
    "by_index_date": "by the day of the prediction",
    "after_index": "after the index encounter",
}


def when(entry: Entry) -> str:
    """The day of an entry, or its encounter where the day is unknown; a time of follow-up has no day that is said."""
    if entry.kind == "follow_up":
        return "followed"
    if entry.day is None and entry.visit is not None:
        return f"encounter {entry.visit}"
    return f"{'from ' * bool(entry.role)}{day_words(entry.day)}"


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
    elif number is None:
        covered = any(one.kind == "follow_up" and one.role for one in part.evidence)
        hidden = isinstance(of, DaysOfFollowUp) or covered
        found = "not shown, it would tell the date" if hidden else "unknown"
    elif isinstance(of, Age):
        found = age_words(number)
    else:
        found = f"{number:,}".replace("-", "−")
    met = "" if part.holds is None else f" ({'met' if part.holds else 'not met'})"
    return f"{what(part, spec)}{window}: {found}; asks for {limit}{met}"


def joined(said: RuleSaid) -> str:
    """How the conditions of the rule go together; empty for a single one."""
    when = said.rule.when
    return f"{'none' if when.NONE else 'any'} of these:" if isinstance(when, Together) else ""


def later(entry: Entry) -> str:
    """What is said of a diagnosis of a visit in the input that was known only after the prediction; else empty."""
    return "known later, not read" if entry.is_known_later else ""


def entry_words(entry: Entry, chart: Chart) -> tuple[str, str]:
    """(code, what it means or its value) of an entry of the chart."""
    if entry.kind == "measurement":
        value = "no value" if entry.value is None else f"{entry.value:g} {entry.unit or '(no unit)'}"
        return entry.code or "", value
    if entry.kind == "medication":
        return "", entry.code or "drug without a name"
    if entry.kind == "visit":
        return f"encounter {entry.visit}", next(
            (visit.words for visit in chart.visits if visit.order == entry.visit), ""
        )
    if entry.kind == "age":
        return f"encounter {entry.visit}", "age taken here"
    if entry.kind in ("death", "prediction"):
        return "", entry.kind
    if entry.kind == "follow_up":
        return "", entry.code or ""
    return entry.code or "", entry.title
