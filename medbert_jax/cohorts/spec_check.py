"""A dry run of a spec against EHR tables: what each part of it finds there, who would be in, and no dataset."""

import functools
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

import polars as pl

from medbert_jax.attrition.ledger import Ledger
from medbert_jax.cohorts.ahead import DEATH_DAY
from medbert_jax.cohorts.known_names import unknown_names
from medbert_jax.cohorts.looked_for import Found, Match, count_found, looked_for, merged, unused_sets
from medbert_jax.cohorts.missing_inputs import missing_inputs, refuse_days_without_dates, tables_there
from medbert_jax.cohorts.own_limits import own_limits
from medbert_jax.cohorts.select import UNKNOWN, select_cohort
from medbert_jax.cohorts.spans import Age
from medbert_jax.cohorts.spec import CohortSpec
from medbert_jax.cohorts.unmatched import unmatched
from medbert_jax.ehr.schema import EhrTables
from medbert_jax.ehr.tables import read_shard, read_source
from medbert_jax.ehr.workers import Workers
from medbert_jax.printed_tables import Table


@dataclass(frozen=True)
class Selected:
    """Who is in: counts of patients."""

    patients: int = 0
    cases: int = 0
    competing_deaths: int | None = None
    """Without the outcome, and dead before the end of the time at risk; None: the outcome has no such time."""
    age_unknown: int = 0
    """With neither a birth date nor an age at any visit."""
    censored: int = 0
    """Followed to before the end of the time at risk, without event: of unknown label."""

    def __add__(self, other: "Selected") -> "Selected":
        deaths = [one.competing_deaths for one in (self, other) if one.competing_deaths is not None]
        return Selected(
            self.patients + other.patients,
            self.cases + other.cases,
            sum(deaths) if deaths else None,
            self.age_unknown + other.age_unknown,
            self.censored + other.censored,
        )


@dataclass(frozen=True)
class SpecCheck:
    """What the dry run found."""

    name: str
    matches: tuple[Match, ...]
    refused: tuple[str, ...]
    """Why no cohort comes of it; empty: nothing stands in the way."""
    warned: tuple[str, ...]
    told: tuple[str, ...]
    selected: Selected | None = None
    """None: not selected, since the spec cannot be decided on these tables."""
    ledger: Ledger | None = None

    def table(self) -> Table:
        """Rows and patients of every set and part; a set of one part is one row."""
        parts = Counter((one.of.key, one.of.table) for one in self.matches if one.of.part)
        rows = []
        for one in self.matches:
            sought, count = one.of, parts[one.of.key, one.of.table]
            if not sought.part and count == 1:
                continue
            begins = not sought.part or count == 1
            words = f"{sought.part} in {sought.units}" if sought.units else sought.part or "all"
            about = (sought.key * begins, words, sought.table, f"{one.rows:,}", f"{one.patients:,}")
            rows.append((*about, ", ".join(sought.rests_on_it) * begins))
        columns = ("looked for", "", "in", "rows", "patients", "for")
        return Table(f"What {self.name} looks for", columns, tuple(rows), "<<<>><")

    def lines(self) -> list[str]:
        """What is said beside the tables; what is refused says `raise_if_refused`."""
        return [*self.told, *(f"warning: {line}" for line in self.warned)]

    def to_dict(self) -> dict:
        """JSON-ready data."""
        matches = [
            {
                "set": one.of.key,
                "part": one.of.part,
                "units": one.of.units,
                "table": one.of.table,
                "rows": one.rows,
                "patients": one.patients,
                "for": list(one.of.rests_on_it),
            }
            for one in self.matches
        ]
        return {
            "cohort": self.name,
            "matches": matches,
            "refused": list(self.refused),
            "warnings": list(self.warned),
            "told": list(self.told),
            "selected": None if self.selected is None else asdict(self.selected),
            "ledger": None if self.ledger is None else self.ledger.to_dict(),
        }

    def raise_if_refused(self) -> None:
        """ValueError that lists every reason."""
        if self.refused:
            raise ValueError(
                f"a cohort spec must be decidable, and its outcome, index and input rest on rows of the tables: got"
                f" {len(self.refused)} fault(s) of {self.name!r};\n  " + "\n  ".join(self.refused)
                + "\ncorrect these keys, or take tables that have what they name"
            )  # fmt: skip


@dataclass(frozen=True)
class _OfShard:
    found: Found
    age_unknown: int
    selected: Selected = field(default_factory=Selected)
    ledger: Ledger | None = None

    def __add__(self, other: "_OfShard") -> "_OfShard":
        ledger = None if self.ledger is None or other.ledger is None else self.ledger.merge(other.ledger)
        return _OfShard(
            merged(self.found, other.found),
            self.age_unknown + other.age_unknown,
            self.selected + other.selected,
            ledger,
        )


def check_spec(ehr_directory: Path, spec: CohortSpec, *, select: bool = True, workers: int = 0) -> SpecCheck:
    """Count what the spec looks for and, with `select`, who would be in; shard by shard, in processes.

    Errors as `read_shard`; what is wrong with the spec is in `refused`.
    """
    source, there = read_source(ehr_directory), tables_there(ehr_directory)
    refused, told = unknown_names(spec, ehr_directory), []
    try:
        refuse_days_without_dates(spec, source)
        told += missing_inputs(spec, source, there)
    except ValueError as error:
        refused.append(str(error))
    task = functools.partial(_of_shard, ehr_directory, spec, select and not refused)
    with Workers(workers) as run:
        whole = functools.reduce(_OfShard.__add__, run(task, range(source.shards)))
    counted = zip(looked_for(spec), whole.found.counts, strict=True)
    matches = tuple(Match(one, rows, patients) for one, (rows, patients) in counted)
    nothing, few = unmatched(matches, whole.found, there)
    told += [f"{one}: nothing looks for it" for one in unused_sets(spec)] + own_limits(spec)
    if whole.ledger is not None:
        told.append(_about(whole.selected))
    if spec.judges_age and whole.age_unknown:
        few.append(_about_ages(spec, whole))
    selected = None if whole.ledger is None else whole.selected
    return SpecCheck(spec.name, matches, (*refused, *nothing), tuple(few), tuple(told), selected, whole.ledger)


def _of_shard(ehr_directory: Path, spec: CohortSpec, select: bool, shard: int) -> _OfShard:
    tables = read_shard(ehr_directory, shard)
    found, ageless = count_found(tables, spec, looked_for(spec)), _of_unknown_age(tables)
    if not select:
        return _OfShard(found, len(ageless))
    frame, ledger = select_cohort(tables, spec)
    deaths = frame[DEATH_DAY].count() if DEATH_DAY in frame.columns else None
    censored = int((frame["label"] == UNKNOWN).sum())
    unknown = frame.join(ageless, on="patient_id", how="semi").height
    selected = Selected(frame.height, int((frame["label"] == 1).sum()), deaths, unknown, censored)
    return _OfShard(found, len(ageless), selected, ledger)


def _of_unknown_age(tables: EhrTables) -> pl.DataFrame:
    """patient_id of those with neither a birth date nor an age at any visit."""
    aged = tables.visits.filter(pl.col("age_days").is_not_null()).select("patient_id")
    return tables.patients.filter(pl.col("birth_date").is_null()).select("patient_id").join(
        aged, on="patient_id", how="anti"
    )  # fmt: skip


def _about(selected: Selected) -> str:
    died = selected.competing_deaths
    without = selected.patients - selected.cases - selected.censored
    first = f", of whom {died:,} died first within the time at risk (competing)" if died is not None else ""
    return (
        f"{selected.patients:,} patients would be in: {selected.cases:,} with the outcome, {without:,} without{first}"
        f"{f'; {selected.censored:,} censored, of unknown label' if selected.censored else ''}"
    )


def _about_ages(spec: CohortSpec, whole: _OfShard) -> str:
    line = f"{whole.age_unknown:,} patients have neither a birth date nor a stated age, and rules compare ages"
    if whole.ledger is None or any(leaf.unknown for leaf in spec.leaves() if isinstance(leaf, Age)):
        return line
    return f"{line}: none takes them (unknown: true), and {whole.selected.age_unknown:,} of them are in"
