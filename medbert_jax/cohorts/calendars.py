"""Calendars that were shifted, each patient's by another span: nothing of one patient's day is known of another's."""

from collections.abc import Collection
from datetime import date
from pathlib import Path

from medbert_jax.cohorts.follow_up import BY_CONTACT
from medbert_jax.cohorts.spans import DaysOfFollowUp
from medbert_jax.cohorts.spec import CohortSpec
from medbert_jax.ehr.schema import EhrSource


def is_shifted(source: EhrSource) -> bool:
    """Whether the source goes on for years after today, which no calendar does that is not shifted."""
    return source.last_day is not None and date.fromisoformat(source.last_day).year > date.today().year + 1


def faults_of_shifted(spec: CohortSpec, source: EhrSource, tables: Collection[str]) -> list[str]:
    """Rules and parts of the spec that compare patients' calendars, where those are shifted, each with what to do."""
    if not is_shifted(source):
        return []
    copy = f"in a copy of the spec {spec.name!r}"
    built_in = Path(__file__).with_name("specs") / f"{spec.name}.yaml"
    where = f" ({built_in})" if built_in.is_file() else ""
    instead = _instead(spec, tables)
    faults = [
        f"rule {rule.id} asks when the source ends: leave it out {copy}{where}{instead}"
        for rule in spec.rules
        if any(isinstance(leaf, DaysOfFollowUp) for leaf in rule.when.leaves())
    ]
    if spec.split is not None:
        faults.append("split.test_from (--test-from) is a day of all patients: split by patient")
    if spec.matching is not None:
        faults.append("matching asks when the source ends and for the calendar year: take a spec without it")
    by_contact = spec.follow_up is not None and spec.follow_up.until == BY_CONTACT
    if spec.outcome.needs_own_follow_up and "follow_up" not in tables and not by_contact:
        faults.append(
            "until when a patient is followed, whom the outcome is looked for in a time at risk: take tables with"
            f" follow_up, or write follow_up: {{until: contact, …}} {copy}"
        )
    return faults


def _instead(spec: CohortSpec, tables: Collection[str]) -> str:
    """What then decides how long somebody is followed, who was to leave where the source ends too early."""
    if not spec.outcome.asks_follow_up:
        return ""
    if "follow_up" in tables:
        return ", and the table follow_up says who is censored"
    if spec.outcome.needs_own_follow_up:
        return ""
    return ", and what the source records of each patient is taken for all that came"
