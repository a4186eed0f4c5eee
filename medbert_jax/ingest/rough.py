"""What a reader gives: rough tables of one shard, its columns mapped and no row judged."""

from collections import Counter
from dataclasses import dataclass, field

import polars as pl

from medbert_jax.ingest.linking import Unlinked


@dataclass(frozen=True)
class Left:
    """What a reader itself took out, under a rule of its own."""

    rule: str
    text: str
    patients: int = 0
    visits: int = 0
    codes: int = 0


@dataclass(kw_only=True)
class Rough:
    """What a reader maps its columns to, before any rule. Columns as in `SCHEMAS`; absent ones are unknown.

    `patients` may have "birth_year" (only the year is known) and "split" (the source's own); `visits` has "order" only
    where the source has no dates, and "still_patient" where it says that somebody has not left; codes are as
    published. `deaths` (patient_id, death_date, death_time) are all rows that say when somebody died, `follow_up` all
    periods, which may overlap. `unlinked` is what becomes of diagnoses of no visit, by their "time". `other_ids` are
    the patient ids, row by row, of further tables that only add to `patients`: those without an id, and those not
    listed there, are counted like all others. `told` are counts for the user that no ledger has. `unknown_codes` are
    what the source calls codes and nobody knows (code, rows, patients, description), `titles` what its codes mean
    (code_system, code, title).
    """

    patients: pl.DataFrame
    visits: pl.DataFrame
    diagnoses: pl.DataFrame
    medications: pl.DataFrame | None = None
    measurements: pl.DataFrame | None = None
    procedures: pl.DataFrame | None = None
    deaths: pl.DataFrame | None = None
    follow_up: pl.DataFrame | None = None
    unlinked: Unlinked = "drop"
    has_dates: bool
    age_precision: str
    assumptions: tuple[str, ...] = ()
    left: tuple[Left, ...] = field(default=())
    other_ids: pl.Series = field(default_factory=lambda: pl.Series(dtype=pl.String))
    told: Counter[str] = field(default_factory=Counter)
    unknown_codes: pl.DataFrame | None = None
    titles: pl.DataFrame | None = None
