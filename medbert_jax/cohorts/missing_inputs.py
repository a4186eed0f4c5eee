"""What a source cannot tell a cohort's rules: said where something else decides, refused where nothing does."""

from collections.abc import Collection
from pathlib import Path

from medbert_jax.cohorts.calendars import faults_of_shifted
from medbert_jax.cohorts.counts import Events
from medbert_jax.cohorts.follow_up import said_of_follow_up
from medbert_jax.cohorts.spans import DaysOfFollowUp
from medbert_jax.cohorts.spec import CohortSpec
from medbert_jax.ehr.schema import SCHEMAS, EhrSource


def tables_there(ehr_directory: Path) -> list[str]:
    """Names of the tables that a folder of EHR tables has."""
    return [table for table in SCHEMAS if any((Path(ehr_directory) / table).glob("*.parquet"))]


def missing_inputs(spec: CohortSpec, source: EhrSource, tables: Collection[str]) -> list[str]:
    """What is missing and what each rule rests on without it, in words.

    `tables` are the names of the tables that are there. One whose rows all lack what rules look at is as good as none.
    Raises ValueError where a rule has nothing left to rest on.
    """
    said, faults = [], []
    kinds = {leaf.measure: leaf for leaf in spec.leaves() if isinstance(leaf, Events)}
    shares = {
        name: source.known.get(f"{name}.{kind.SAID_BY}", 1.0)
        for name, kind in kinds.items()
        if name in tables and kind.SAID_BY
    }
    said += [
        f"{share:.1%} of {table} have {kinds[table].SAID_BY}: the others are no evidence for any rule"
        for table, share in sorted(shares.items(), reverse=True)
        if 0 < share < 0.995
    ]
    tables = {*tables} - {table for table, share in shares.items() if share == 0}
    for rule in spec.rules:
        leaves = list(rule.when.leaves())
        missing = sorted({getattr(leaf, "table", leaf.measure) for leaf in leaves if not leaf.decidable(tables)})
        if not missing:
            continue
        without = [f"no {kinds[name].SAID_BY} in {name}" if name in shares else f"no {name} table" for name in missing]
        what = f"{' and '.join(without)}: rule {rule.id}"
        if any(leaf.decidable(tables) for leaf in leaves):
            left = [getattr(leaf, "CALLED", leaf.measure) for leaf in leaves if leaf.decidable(tables)]
            said.append(f"{what} rests on {' and '.join(dict.fromkeys(left))} alone")
        else:
            faults.append(f"{what} has nothing to rest on")
    without = sorted({leaf.table for leaf in spec.outcome.evidence() if not leaf.decidable(tables)})
    if without and spec.outcome.decidable(tables):
        said.append(f"no {' and no '.join(without)} table: the outcome rests on its other parts alone")
    elif without:
        faults.append(f"no {' and no '.join(without)} table: the outcome has nothing to rest on")
    said += said_of_follow_up(spec, source, tables)
    followed = (
        spec.matching is not None
        or spec.outcome.is_ahead
        or any(isinstance(leaf, DaysOfFollowUp) for leaf in spec.leaves())
    )
    if shifted := faults_of_shifted(spec, source, tables):
        raise ValueError(
            f"patients' calendars must be one to be compared: got a source that goes on for years after today,"
            f" so that each patient's is shifted by a span of his own, and {'; '.join(shifted)} (if none is shifted, an"
            " admission is dated into the future: see `medbert validate`)"
        )
    if followed and source.last_day is None:
        faults.append("no last day of the source: how long anybody was followed is unknown")
    if faults:
        raise ValueError(
            f"every rule of a cohort must have evidence to rest on: got {'; '.join(faults)}; read the source again"
            f" with its tables (`medbert ingest`), or leave the rule out in a copy of the spec {spec.name!r}"
        )
    return said


def refuse_days_without_dates(spec: CohortSpec, source: EhrSource) -> None:
    """ValueError that names every rule and part of the spec which needs days, where the source has no dates."""
    if source.has_dates:
        return
    faults = [f"rule {rule.id!r}" for rule in spec.rules if any(leaf.needs_days for leaf in rule.when.leaves())]
    if spec.outcome.needs_days:
        faults.append(f"outcome '{spec.outcome.KNOWN_BY}: {getattr(spec.outcome, spec.outcome.KNOWN_BY)}'")
    if spec.index.needs_days:
        faults.append(f"index {getattr(spec.index, spec.index.KNOWN_BY)!r}")
    if spec.input.gap_days:
        faults.append(f"input 'gap_days: {spec.input.gap_days}'")
    if spec.matching is not None:
        faults.append("matching")
    if spec.split is not None:
        faults.append(f"split 'test_from: {spec.split.test_from}'")
    if faults:
        raise ValueError(
            f"{', '.join(faults)} need{'s' if len(faults) == 1 else ''} days: the source has no dates "
            f"(format {source.format}); leave it out in a copy of the spec {spec.name!r}, or "
            "take a source with dates"
        )
