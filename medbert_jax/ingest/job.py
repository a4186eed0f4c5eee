"""What all tasks of a run have in common."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from medbert_jax.checked_fields import check_fields
from medbert_jax.ingest.source_files import RawFile

LIBRARY = (pl.exceptions.PolarsError, pl.exceptions.PanicException)
"""What the library of tables raises where a file or a column is not what it should be."""


@dataclass(frozen=True)
class IngestOptions:
    """What no source says of itself."""

    outpatient_los_zero: bool = False
    """Whether outpatient visits without a discharge lasted 0 days; else their length of stay is unknown."""

    def __post_init__(self):
        """Check every field; all faults are in one error."""
        check_fields(self)


@dataclass(frozen=True)
class Job:
    """Sent to every process."""

    format: str
    options: Any
    common: IngestOptions
    files: list[RawFile]
    shards: int
    spill: Path
    """Folder of the scattered rows."""
    new: Path
    """Folder of the EHR tables to be."""


def progress(what: str, done: int, of: int, count: int, unit: str, started: float) -> str:
    """A line on work that began at `started` (monotonic): how much is done, its rate, what is left."""
    seconds = max(time.monotonic() - started, 1e-9)
    left = seconds / done * (of - done)
    return f"{what} {done}/{of}: {count:,} {unit}, {count / seconds:,.0f}/s, {left:.0f} s left"
