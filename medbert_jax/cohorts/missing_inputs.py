"""What a source cannot tell a cohort's rules: said where something else decides, refused where nothing does."""

from collections.abc import Collection

from medbert_jax.cohorts.conditions import EVENTS, Condition
from medbert_jax.cohorts.spec import CohortSpec
from medbert_jax.ehr.schema import EhrSource

_SAYS = {"medications": "ingredient", "measurements": "value"}
"""The column without which a row of the table is no evidence."""
_NAMES = {"medications": "drugs", "measurements": "laboratory results", "procedures": "procedures"}


def missing_inputs(spec: CohortSpec, source: EhrSource, tables: Collection[str]) -> list[str]:
    """What is missing and what each rule rests on without it, in words.

    `tables` are the names of the tables that are there. One whose rows all lack what rules look at is as good as none.
    Raises ValueError where a rule has nothing left to rest on.
    """
    said, faults = [], []
    shares = {table: source.known.get(f"{table}.{column}", 1.0) for table, column in _SAYS.items() if table in tables}
    asked = {leaf.measure for leaf in spec.leaves()}
    said += [f"{share:.1%} of {table} have {_SAYS[table]}: the others are no evidence for any rule"
             for table, share in shares.items() if 0 < share < 0.995 and table in asked]  # fmt: skip
    tables = {*tables} - {table for table, share in shares.items() if share == 0}
    for rule in spec.rules:
        leaves = list(rule.when.leaves())
        missing = sorted({leaf.measure for leaf in leaves if leaf.measure in EVENTS} - set(tables))
        if not missing:
            continue
        without = [f"no {_SAYS[name]} in {name}" if name in shares else f"no {name} table" for name in missing]
        what = f"{' and '.join(without)}: rule {rule.id}"
        if _decidable(rule.when, tables):
            left = [_NAMES.get(leaf.measure, leaf.measure) for leaf in leaves if leaf.measure not in missing]
            said.append(f"{what} rests on {' and '.join(dict.fromkeys(left))} alone")
        else:
            faults.append(f"{what} has nothing to rest on")
    if needs_last_day(spec) and source.last_day is None:
        faults.append("no last day of the source: how long anybody was followed is unknown")
    if faults:
        raise ValueError(
            f"every rule of a cohort must have evidence to rest on: got {'; '.join(faults)}; read the source again"
            f" with its tables (`medbert ingest`), or leave the rule out in a copy of the spec {spec.name!r}"
        )
    return said


def needs_last_day(spec: CohortSpec) -> bool:
    """Whether the spec asks how long the source goes on."""
    return spec.matching is not None or any(leaf.measure == "days_of_follow_up" for leaf in spec.leaves())


def _decidable(condition: Condition, tables: Collection[str]) -> bool:
    if condition.parts():
        return any(_decidable(part, tables) for part in condition.parts())
    return condition.measure not in EVENTS or condition.measure in tables
