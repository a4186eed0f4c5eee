"""Faults between the keys of a cohort spec: ids, code prefixes, and parts that do not go together."""

import re
from typing import TYPE_CHECKING

import polars as pl

from medbert_jax.ehr.codes import prefix_expression

if TYPE_CHECKING:
    from medbert_jax.cohorts.spec import CodeSet, CohortSpec, Rule

# Ledger lines that select_cohort adds by itself; a spec's own rules may not take these names.
RESERVED_IDS = (
    "no_visits",
    "index_undated",
    "visit_open",
    "outcome_unknown",
    "input_codes",
    "outside_input",
)
_ID = re.compile(r"[a-z][a-z0-9_]*")
# A system in small letters would match nothing, in silence.
_SYSTEM = re.compile(r"[A-Z][A-Z0-9_]*/")


def faults_between_keys(spec: "CohortSpec") -> list[str]:
    """Every fault that no single key shows. Parts that the reading refused are None and are passed over."""
    faults: list[str] = []
    if spec.name is not None and not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", spec.name):
        faults.append(f"name: must be lower-case words joined by '-'; got {spec.name!r}")
    code_sets = [code_set for code_set in spec.code_sets or () if code_set is not None]
    rules = [rule for rule in spec.rules or () if rule is not None]
    for group, entries in (("code_sets", code_sets), ("rules", rules)):
        ids = [entry.id for entry in entries if entry.id is not None]
        for id in dict.fromkeys(ids):
            if not _ID.fullmatch(id):
                faults.append(f"{group}[{id}].id: must be lower-case letters, digits and _; got {id!r}")
            if ids.count(id) > 1:
                faults.append(f"{group}[{id}].id: given to {ids.count(id)} entries; each needs its own")
            if group == "rules" and id in RESERVED_IDS:
                faults.append(f"rules[{id}].id: the ledger's own line has this name; choose another")
    for code_set in code_sets:
        faults += _prefix_faults(code_set)
    known = [code_set.id for code_set in code_sets]
    used = [(f"rules[{rule.id}].when.with_codes", rule.when.with_codes) for rule in rules if rule.when]
    used += [("outcome.codes", spec.outcome.codes)] if spec.outcome else []
    for key, id in used:
        if id is not None and id not in known:
            faults.append(f"{key}: no code set {id!r}; the code sets are {', '.join(map(str, known)) or 'none'}")
    for rule in rules:
        faults += _rule_faults(rule)
    return faults + _outcome_faults(spec)


def _prefix_faults(code_set: "CodeSet") -> list[str]:
    key, faults = f"code_sets[{code_set.id}].prefixes", []
    if code_set.prefixes == ():
        faults.append(f"{key}: empty; name at least one code")
    for prefix in code_set.prefixes or ():
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


def _rule_faults(rule: "Rule") -> list[str]:
    when, key, faults = rule.when, f"rules[{rule.id}].when", []
    if when is None:
        return faults
    if (when.at_least is None) == (when.fewer_than is None):
        faults.append(f"{key}: needs exactly one of at_least, fewer_than")
    for name in ("at_least", "fewer_than"):
        number = getattr(when, name)
        if number is not None and number < 1:
            faults.append(f"{key}.{name}: must be 1 or more; got {number}")
    if when.needs_days and when.window is not None:
        faults.append(f"{key}.window: measure days_to_index always looks at the whole record; leave the key out")
    if not when.needs_days and when.window is None:
        faults.append(f"{key}.window: missing; measure visits counts within a window")
    for name in ("with_disposition", "with_type"):
        if getattr(when, name) == ():
            faults.append(f"{key}.{name}: empty; name at least one or leave the key out")
    one_visit = when.window in (None, "index_visit") and not when.needs_days and when.at_least in (None, 1)
    if rule.action == "skip_visit" and not (one_visit and when.fewer_than is None):
        faults.append(f"{key}: action skip_visit judges one visit: window index_visit and at_least 1")
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
    by_case = (index.cases is not None and index.controls is not None) and index.everyone is None
    for_all = index.everyone is not None and index.cases is None and index.controls is None
    if outcome.codes is not None and not by_case:
        faults.append("index: an outcome of codes needs cases and controls, and not everyone")
    if outcome.codes is None and not for_all:
        faults.append(f"index: an outcome of {given[0]} needs everyone, and neither cases nor controls")
    skipping = [rule for rule in spec.rules or () if rule is not None and rule.action == "skip_visit"]
    if outcome.codes is not None:
        faults += [f"rules[{rule.id}].action: skip_visit needs index.everyone; use leave" for rule in skipping]
    until = window.until if window is not None else None
    if until == "through_index" and outcome.codes is not None:
        faults.append("input.until: through_index would show the outcome's own codes; use before_index")
    if until == "before_index" and index.everyone == "first_visit" and not skipping:
        faults.append("input.until: nothing comes before index.everyone: first_visit; use through_index")
    return faults
