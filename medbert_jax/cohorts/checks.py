"""Faults between the parts of a cohort spec: ids, names of sets, and parts that do not go together.

What a single part can show it checks itself (`parsing.build`). Parts that the reading refused are None.
"""

import dataclasses
from collections.abc import Iterator

from medbert_jax.cohorts.comparisons import Together
from medbert_jax.cohorts.conditions import Condition
from medbert_jax.cohorts.counts import Visits
from medbert_jax.cohorts.laboratory_outcomes import ResultChange
from medbert_jax.cohorts.parsing import names_in
from medbert_jax.cohorts.several_outcomes import Several
from medbert_jax.cohorts.spans import DaysOfLookback, EnrolledAtIndex
from medbert_jax.cohorts.spec import CohortSpec, Rule

# Ledger lines that select_cohort adds by itself; a spec's own rules may not take these names.
RESERVED_IDS = (
    "no_visits",
    "after_death",
    "died_before_first_visit",
    "outcome_after_death",
    "index_undated",
    "visit_open",
    "outcome_unknown",
    "input_codes",
    "not_a_case",
    "not_drawn",
    "unmatched",
    "short_at_risk",
    "not_sampled",
    "outside_input",
    "known_later",
    "age_uncertain",
    "joined_stays",
    "source_ends",
    "no_baseline",
    "censored",
)
# Whether a condition holds at a date that is not drawn yet: it may look at these windows alone.
_WINDOWS_OF_A_DATE = (
    "whole_record",
    "first_visit",
    "before_first_visit",
    "before_last_visit",
    "before_index",
    "by_index_date",
)


def faults_between_keys(spec: CohortSpec) -> list[str]:
    """Every fault that no single part shows."""
    faults = [*_name_faults(spec)]
    for rule in spec.rules or ():
        if rule is not None:
            faults += _rule_faults(rule, spec)
    faults += _outcome_faults(spec)
    if spec.outcome is not None and spec.index is not None:
        faults += _index_faults(spec)
    if spec.input is not None:
        faults += _input_faults(spec)
    faults += _looking_faults(spec)
    return [*faults, *_drawing_faults(spec)]


def _name_faults(spec: CohortSpec) -> Iterator[str]:
    """Ids that are given twice or reserved, and names of sets that are not there."""
    known = {}
    for group in ("code_sets", "drug_sets", "laboratory_sets", "rules"):
        ids = known[group] = [one.id for one in getattr(spec, group) or () if one is not None and one.id is not None]
        for id in dict.fromkeys(ids):
            if ids.count(id) > 1:
                yield f"{group}[{id}].id: given to {ids.count(id)} entries; each needs its own"
            if group == "rules" and id in RESERVED_IDS:
                yield f"rules[{id}].id: the ledger's own line has this name; choose another"
    for key, names, id in names_in(spec):
        if id not in known[names.group]:
            what = names.group.removesuffix("s").replace("_", " ")
            yield f"{key}: no {what} {id!r}; the {what}s are {', '.join(known[names.group]) or 'none'}"


def _rule_faults(rule: Rule, spec: CohortSpec) -> Iterator[str]:
    key, outcome = f"rules[{rule.id}]", spec.outcome
    if rule.among is not None and outcome is not None and not outcome.always_known:
        yield f"{key}.among: cases and controls are there with outcome.codes alone"
    if rule.action == "skip_visit":
        if rule.among is not None:
            yield f"{key}.among: skip_visit judges visits, whoever's they are; leave the key out"
        if rule.when is not None and not _judges_one_visit(rule.when):
            yield f"{key}.when: action skip_visit judges one visit: window index_visit and at_least 1"
        if outcome is not None and outcome.by_case:
            yield f"{key}.action: skip_visit needs index.everyone; use leave"
    if rule.when is not None and spec.matching is not None:
        yield from _faults_at_a_date(rule.when, f"{key}.when")


def _judges_one_visit(when: Condition) -> bool:
    return isinstance(when, Visits) and (when.window, when.at_least) == ("index_visit", 1)


def _faults_at_a_date(when: Condition, key: str) -> Iterator[str]:
    """What cannot be told of a date that is not drawn yet."""
    if not isinstance(when, Together):
        if isinstance(when, DaysOfLookback | EnrolledAtIndex):
            yield f"{key}.measure: {when.measure} is told of index.everyone alone, and not of a date that is drawn"
        if when.window not in (None, *_WINDOWS_OF_A_DATE):
            allowed = ", ".join(_WINDOWS_OF_A_DATE)
            yield f"{key}.window: the index of a matched cohort is a date: use {allowed}; got {when.window}"
        return
    for number, part in enumerate(when.parts(), start=1):
        yield from _faults_at_a_date(part, f"{key}.{when.KNOWN_BY}[{number}]")
    if len(when.directions()) > 1:
        yield (
            f"{key}.{when.KNOWN_BY}: in a matched cohort all parts must become true with time (at_least), or all false"
            " (fewer_than); none_of turns the direction round"
        )


def _index_faults(spec: CohortSpec) -> Iterator[str]:
    outcome, index = spec.outcome, spec.index
    if outcome.by_case != index.by_case:
        by_case, for_all = "cases and controls, and not everyone", "everyone, and neither cases nor controls"
        yield f"index: an outcome of {outcome.KNOWN_BY} needs {by_case if outcome.by_case else for_all}"
    if spec.episodes is not None and index.by_case:
        yield "episodes: goes with index.everyone; the index of cases and controls is a visit with codes, or a date"


def _input_faults(spec: CohortSpec) -> Iterator[str]:
    until, index = spec.input.until, spec.index
    for part in (spec.outcome, index):
        if part is not None and until in part.refused_inputs():
            yield f"input.until: {part.refused_inputs()[until]}"
    skipping = any(rule is not None and rule.action == "skip_visit" for rule in spec.rules or ())
    if until == "before_index" and getattr(index, "everyone", None) == "first_visit" and not skipping:
        yield "input.until: nothing comes before index.everyone: first_visit; use through_index"
    if spec.input.gap_days is not None and spec.matching is not None:
        yield "input.gap_days: a matched cohort's input ends before its date; leave the key out"


def _outcome_faults(spec: CohortSpec) -> Iterator[str]:
    """A change is of values of one unit, which a set must name."""
    outcome = spec.outcome
    parts = outcome.parts() if isinstance(outcome, Several) else (outcome,)
    sets = {one.id: one for one in spec.laboratory_sets or () if one is not None}
    for id in (part.change_of for part in parts if isinstance(part, ResultChange) and part.change_of in sets):
        ranges = [one for one in sets[id].results if one is not None]
        units = {unit.lower() for one in ranges for unit in one.units or ()}
        if len(units) != 1 or any(one.or_unit_unknown for one in ranges):
            yield (
                f"outcome.change_of: a change is of values of one unit; let {id} name one, and or_unit_unknown: false"
            )


def _looking_faults(spec: CohortSpec) -> Iterator[str]:
    """A rule may look after the index where it treats cases and controls alike, or else the spec says it."""
    rules = [rule for rule in spec.rules or () if rule is not None and rule.when is not None]
    ids = ", ".join(rule.id for rule in rules if rule.looks_after_index)
    is_so = dataclasses.replace(spec, rules=tuple(rules)).looking_after_index()
    if spec.looks_after_index != is_so:
        got = f"got {spec.looks_after_index}" if spec.looks_after_index else "got none"
        yield (
            f"looks_after_index: must be {is_so}: rules {ids} judge {is_so} alone by what comes after the index; {got}"
            if is_so
            else f"looks_after_index: no rule judges cases or controls alone by what comes after the index; {got}"
        )


def _drawing_faults(spec: CohortSpec) -> Iterator[str]:
    if (spec.index is not None and spec.index.matched) != (spec.matching is not None):
        yield "matching: goes with index.controls: matched_date, and that with it"
    if spec.sample is None:
        return
    if spec.matching is not None:
        yield "sample: a matched cohort is drawn already; leave the key out"
    if spec.split is not None:
        yield "sample: is drawn whatever the time, so it does not go with split; leave one of them out"
    if spec.outcome is not None and not spec.outcome.always_known:
        yield "sample: cases and controls are there with outcome.codes alone"
