"""Faults between the keys of a cohort spec: ids, code prefixes, and parts that do not go together."""

import re
from typing import TYPE_CHECKING

import polars as pl

from medbert_jax.cohorts.condition_checks import condition_faults
from medbert_jax.ehr.codes import prefix_expression

if TYPE_CHECKING:
    from medbert_jax.cohorts.spec import CodeSet, CohortSpec, LaboratorySet

# Ledger lines that select_cohort adds by itself; a spec's own rules may not take these names.
RESERVED_IDS = (
    "no_visits",
    "index_undated",
    "visit_open",
    "outcome_unknown",
    "input_codes",
    "not_a_case",
    "not_drawn",
    "unmatched",
    "not_sampled",
    "outside_input",
    "age_uncertain",
)
_ID = re.compile(r"[a-z][a-z0-9_]*")
# A system in small letters would match nothing, in silence.
_SYSTEM = re.compile(r"[A-Z][A-Za-z0-9_]*/")


def faults_between_keys(spec: "CohortSpec") -> list[str]:
    """Every fault that no single key shows. Parts that the reading refused are None and are passed over."""
    faults: list[str] = []
    if spec.name is not None and not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", spec.name):
        faults.append(f"name: must be lower-case words joined by '-'; got {spec.name!r}")
    known = {}
    for group in ("code_sets", "drug_sets", "laboratory_sets", "rules"):
        entries = [entry for entry in getattr(spec, group) or () if entry is not None]
        ids = known[group] = [entry.id for entry in entries if entry.id is not None]
        for id in dict.fromkeys(ids):
            if not _ID.fullmatch(id):
                faults.append(f"{group}[{id}].id: must be lower-case letters, digits and _; got {id!r}")
            if ids.count(id) > 1:
                faults.append(f"{group}[{id}].id: given to {ids.count(id)} entries; each needs its own")
            if group == "rules" and id in RESERVED_IDS:
                faults.append(f"rules[{id}].id: the ledger's own line has this name; choose another")
    for code_set in (entry for entry in spec.code_sets or () if entry is not None):
        faults += _code_set_faults(code_set)
    for drug_set in (entry for entry in spec.drug_sets or () if entry is not None):
        if drug_set.ingredients == ():
            faults.append(f"drug_sets[{drug_set.id}].ingredients: empty; name at least one")
    for laboratory_set in (entry for entry in spec.laboratory_sets or () if entry is not None):
        faults += _laboratory_faults(laboratory_set)
    for key, group, id in _references(spec):
        if id is not None and id not in known[group]:
            what = group.removesuffix("s").replace("_", " ")
            faults.append(f"{key}: no {what} {id!r}; the {what}s are {', '.join(known[group]) or 'none'}")
    for rule in (entry for entry in spec.rules or () if entry is not None):
        if rule.when is not None:
            faults += condition_faults(rule.when, f"rules[{rule.id}].when", spec)
        if rule.action == "skip_visit":
            faults += _skip_faults(rule, spec)
        if rule.among is not None and spec.outcome is not None and spec.outcome.codes is None:
            faults.append(f"rules[{rule.id}].among: cases and controls are there with outcome.codes alone")
    return faults + _outcome_faults(spec) + _index_faults(spec) + _drawing_faults(spec)


def _references(spec: "CohortSpec") -> list[tuple[str, str, str | None]]:
    """Every place that names a set: its key, the group of sets, the id."""
    places = []
    for rule in (rule for rule in spec.rules or () if rule is not None and rule.when is not None):
        key = f"rules[{rule.id}].when"
        for leaf in rule.when.leaves():
            places += [(f"{key}.{name}", "code_sets", getattr(leaf, name)) for name in ("with_codes", "since_codes")]
            places.append((f"{key}.with_drugs", "drug_sets", leaf.with_drugs))
            places.append((f"{key}.with_results", "laboratory_sets", leaf.with_results))
    if spec.outcome:
        places.append(("outcome.codes", "code_sets", spec.outcome.codes))
    if spec.index:
        places.append(("index.after_codes", "code_sets", spec.index.after_codes))
    if spec.matching:
        places.append(("matching.since_codes", "code_sets", spec.matching.since_codes))
    return places


def _code_set_faults(code_set: "CodeSet") -> list[str]:
    key = f"code_sets[{code_set.id}]"
    faults = _prefix_faults(code_set.prefixes, f"{key}.prefixes") + _prefix_faults(code_set.without, f"{key}.without")
    if code_set.prefixes == () and not code_set.ranges:
        faults.append(f"{key}.prefixes: empty; name at least one code")
    for number, part in enumerate(code_set.ranges or (), start=1):
        if part is None or None in (part.system, part.first, part.last):
            continue
        whole = re.fullmatch(r"\d+|[A-Z][0-9A-Z]+", part.first) and re.fullmatch(r"\d+|[A-Z][0-9A-Z]+", part.last)
        alike = len(part.first) == len(part.last) and part.first.isdigit() == part.last.isdigit()
        if not (_SYSTEM.match(f"{part.system}/") and whole and alike and part.first <= part.last):
            faults.append(
                f"{key}.ranges[{number}]: must be a code system and its first and last category, or code without a"
                f" dot, of one length, as ICD9CM 140 to 209; got {part.system} {part.first} to {part.last}"
            )
    return faults


def _prefix_faults(prefixes: tuple[str | None, ...] | None, key: str) -> list[str]:
    faults = []
    for prefix in prefixes or ():
        if prefix is None:
            continue
        try:
            prefix_expression(pl.lit(""), [prefix])
            wrong = _SYSTEM.match(prefix) is None
        except ValueError:
            wrong = True
        if wrong:
            faults.append(
                f"{key}: {prefix!r} must be a code system, '/' and at least a whole category with its dot, "
                "such as ICD9CM/428, ICD9CM/250.1, ICD10CM/I50"
            )
    return faults


def _laboratory_faults(laboratory_set: "LaboratorySet") -> list[str]:
    key, faults = f"laboratory_sets[{laboratory_set.id}].results", []
    if laboratory_set.results == ():
        faults.append(f"{key}: empty; name at least one range")
    for number, part in enumerate(laboratory_set.results or (), start=1):
        if part is None:
            continue
        here = f"{key}[{number}]"
        faults += _prefix_faults(part.codes, f"{here}.codes")
        if part.codes == ():
            faults.append(f"{here}.codes: empty; name at least one code")
        if part.units == () and not part.or_unit_unknown:
            faults.append(f"{here}.units: empty; name a unit, or say or_unit_unknown: true")
        if (part.at_least is None) == (part.more_than is None):
            faults.append(f"{here}: needs exactly one of at_least, more_than")
    return faults


def _skip_faults(rule, spec: "CohortSpec") -> list[str]:
    when, key = rule.when, f"rules[{rule.id}]"
    faults = []
    if rule.among is not None:
        faults.append(f"{key}.among: skip_visit judges visits, whoever's they are; leave the key out")
    if when is None:
        return faults
    one_visit = when.measure == "visits" and when.window in (None, "index_visit") and when.at_least in (None, 1)
    if not one_visit or when.fewer_than is not None or when.unknown is not None or when.parts():
        faults.append(f"{key}.when: action skip_visit judges one visit: window index_visit and at_least 1")
    return faults


def _outcome_faults(spec: "CohortSpec") -> list[str]:
    outcome, index, window, faults = spec.outcome, spec.index, spec.input, []
    kinds = ("codes", "stay_over_days", "readmitted_within_days")
    if window is not None and window.minimum_codes is not None and window.minimum_codes < 1:
        faults.append(f"input.minimum_codes: must be 1 or more; got {window.minimum_codes}")
    if outcome is None or index is None:
        return faults
    given = [kind for kind in kinds if getattr(outcome, kind) is not None]
    if len(given) != 1:
        return [
            *faults,
            f"outcome: needs exactly one of {', '.join(kinds)}; got {', '.join(given) or 'none'}",
        ]
    if given[0] != "codes" and getattr(outcome, given[0]) < 0:
        faults.append(f"outcome.{given[0]}: must be 0 or more; got {getattr(outcome, given[0])}")
    if outcome.readmission_types is not None and outcome.readmitted_within_days is None:
        faults.append("outcome.readmission_types: goes with readmitted_within_days alone")
    if outcome.readmission_types == ():
        faults.append("outcome.readmission_types: empty; name at least one or leave the key out")
    risk = (outcome.from_day, outcome.to_day)
    if risk != (None, None) and (outcome.codes is None or None in risk or not 1 <= risk[0] <= risk[1]):
        faults.append(
            f"outcome: from_day and to_day go together, with codes, from day 1 on; got {risk[0]} to {risk[1]}"
        )
    if outcome.death is not None and not outcome.is_ahead:
        faults.append("outcome.death: competes within from_day and to_day; give them")
    by_case = (index.cases is not None and index.controls is not None) and index.everyone is None
    for_all = index.everyone is not None and index.cases is None and index.controls is None
    if outcome.codes is not None and not outcome.is_ahead and not by_case:
        faults.append("index: an outcome of codes needs cases and controls, and not everyone")
    if outcome.is_ahead and not for_all:
        faults.append("index: an outcome ahead (to_day) needs everyone, and neither cases nor controls")
    if outcome.codes is None and not for_all:
        faults.append(f"index: an outcome of {given[0]} needs everyone, and neither cases nor controls")
    skipping = [rule for rule in spec.rules or () if rule is not None and rule.action == "skip_visit"]
    if outcome.codes is not None:
        faults += [f"rules[{rule.id}].action: skip_visit needs index.everyone; use leave" for rule in skipping]
    until = window.until if window is not None else None
    if until == "through_index" and outcome.codes is not None and not outcome.is_ahead:
        faults.append("input.until: through_index would show the outcome's own codes; use before_index")
    if until == "before_index" and index.everyone == "first_visit" and not skipping:
        faults.append("input.until: nothing comes before index.everyone: first_visit; use through_index")
    if until == "before_index" and outcome.is_ahead:
        faults.append("input.until: days to the outcome are counted from the end of the index; use through_index")
    if window is not None and window.gap_days is not None and (window.gap_days < 0 or until == "through_index"):
        faults.append(f"input.gap_days: must be 0 or more, with until: before_index; got {window.gap_days}")
    return faults


def _index_faults(spec: "CohortSpec") -> list[str]:
    index = spec.index
    if index is None:
        return []
    after, faults = (index.after_days, index.after_codes), []
    if index.everyone == "first_visit_after":
        if None in after or index.after_days < 0:
            faults.append("index: first_visit_after needs after_days, 0 or more, and after_codes")
        if spec.input is not None and spec.input.until == "before_index":
            faults.append("input.until: first_visit_after is read itself; use through_index")
    elif after != (None, None):
        faults.append("index: after_days and after_codes go with everyone: first_visit_after alone")
    return faults


def _drawing_faults(spec: "CohortSpec") -> list[str]:
    faults, matching, sample = [], spec.matching, spec.sample
    dated = spec.index is not None and spec.index.controls == "matched_date"
    if dated != (matching is not None):
        faults.append("matching: goes with index.controls: matched_date, and that with it")
    if matching is not None:
        share = matching.control_pool
        if share is not None and not 0 < share < 1:
            faults.append(f"matching.control_pool: must lie between 0 and 1; got {share}")
        for name, least in (("controls_per_case", 1), ("within_days", 0), ("minimum_days", 0)):
            if getattr(matching, name) is not None and getattr(matching, name) < least:
                faults.append(f"matching.{name}: must be {least} or more; got {getattr(matching, name)}")
        if sample is not None:
            faults.append("sample: a matched cohort is drawn already; leave the key out")
        if spec.input is not None and spec.input.gap_days is not None:
            faults.append("input.gap_days: a matched cohort's input ends before its date; leave the key out")
    if sample is not None:
        if sample.controls_per_case is not None and sample.controls_per_case < 1:
            faults.append(f"sample.controls_per_case: must be 1 or more; got {sample.controls_per_case}")
        if spec.split is not None:
            faults.append("sample: is drawn whatever the time, so it does not go with split; leave one of them out")
        if spec.outcome is not None and spec.outcome.codes is None:
            faults.append("sample: cases and controls are there with outcome.codes alone")
    return faults
