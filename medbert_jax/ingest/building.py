"""One shard's rows, wherever they came from → its EHR tables and its ledger."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import polars as pl

from medbert_jax.attrition.ledger import Ledger
from medbert_jax.disk.tables_on_disk import scan_arrow
from medbert_jax.ehr.schema import EhrSource
from medbert_jax.ehr.shard_files import ShardRecord, write_shard
from medbert_jax.ingest.assembly import assemble
from medbert_jax.ingest.ends import Calendar
from medbert_jax.ingest.formats import get_reader
from medbert_jax.ingest.job import LIBRARY, Job
from medbert_jax.ingest.reader import RawTable, counting_unreadable, reading_as_unknown
from medbert_jax.ingest.source_files import Fault, SourceError


@dataclass(frozen=True)
class Built:
    """What is known of a shard that was written."""

    record: ShardRecord
    source: EhrSource
    splits: pl.DataFrame
    ledger: Ledger
    events: Ledger
    unreadable: Counter[str]
    shapes: Counter[tuple[str, str]]
    """Of dates among the unreadable cells, by column."""
    told: Counter[str]
    unknown_codes: pl.DataFrame | None
    systems: Counter[tuple[str, str]]
    icd9: pl.DataFrame
    titles: pl.DataFrame
    rows: Counter[str]
    lost: Counter[tuple[str, str]]


def build(job: Job, chunks: dict[str, list[str]], calendar: Calendar, shard: int) -> tuple[int, Built]:
    """One shard and its number: its rows of every table → EHR tables, written and checked."""
    reader = get_reader(job.format)
    raw = {table.name: _gather(job, table, chunks[table.name], shard)
           for table in reader.tables if chunks.get(table.name)}  # fmt: skip
    schemas = {name: frame.schema for name, frame in raw.items()}
    assembled = unknown_codes = None
    try:
        with counting_unreadable() as unreadable, reading_as_unknown(job.options.days()):
            rough = reader.build(raw, job.options)
        del raw
        unknown_codes = rough.unknown_codes
        assembled = assemble(
            job.format,
            rough,
            outpatient_los_zero=job.common.outpatient_los_zero,
            restore_zeros=job.options.icd9_zeros == "restore",
            calendar=calendar,
        )
    except LIBRARY:
        pass
    if assembled is None:
        # Parquet may hold anything. Out here, since the library's own words may quote what stands in a cell, and a
        # worker's error takes along what was being handled.
        raise SourceError(job.format, _wrong_types(schemas))
    record = write_shard(assembled.tables, job.new, shard, job.shards)
    return shard, Built(
        record,
        assembled.tables.source,
        assembled.splits,
        assembled.ledger,
        assembled.events,
        unreadable + assembled.unreadable,
        unreadable.shapes,
        assembled.told,
        unknown_codes,
        assembled.systems,
        assembled.icd9,
        assembled.titles,
        assembled.rows,
        assembled.lost,
    )


def _wrong_types(schemas: dict[str, pl.Schema]) -> list[Fault]:
    """The columns that hold what no reader can take; all tables, where none of them is to blame by its type alone."""
    strange = (pl.Time, pl.Duration, pl.Object)
    found = [
        (table, "wrong_type", f"column {column} holds {dtype}")
        for table, schema in schemas.items()
        for column, dtype in schema.items()
        if dtype.is_nested() or dtype in strange
    ]
    return found or [(", ".join(schemas), "wrong_type", "a column holds another type than the format has")]


def _gather(job: Job, table: RawTable, names: list[str], shard: int) -> pl.DataFrame:
    """The shard's rows of one table. Raises SourceError where its files give a column unlike types."""
    parts = []
    for name in names:
        part = scan_arrow(job.spill / f"{name}.arrow")
        if table.patient:
            starts = np.load(job.spill / f"{name}.npy")
            part = part.slice(starts[shard], starts[shard + 1] - starts[shard])
        parts.append(part.collect())
    columns, unlike = [], []
    for column in parts[0].columns:
        try:
            columns.append(pl.concat([part.select(column) for part in parts], how="vertical_relaxed", rechunk=True))
        except LIBRARY:
            unlike.append(column)
    if unlike:
        what = f"column {', '.join(unlike)} is of another type in one file than in another"
        raise SourceError(job.format, [(table.name, "wrong_type", what)])
    return pl.concat(columns, how="horizontal")
