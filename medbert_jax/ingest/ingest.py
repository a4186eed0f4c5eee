"""Any source → EHR tables on disk, in memory set by the shard.

Two steps. Scatter: every file is read in chunks, whose rows are dealt to shards by a hash of the patient id. Build: a
shard's rows, wherever they came from, become its EHR tables and its ledger. Both are run by a process pool; the bytes
that come out do not depend on the number of processes, nor on the order of files or rows. In between, a lookup with a
key is reduced, once, to the rows that some id of the source names.
"""

import functools
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import polars as pl

from medbert_jax.attrition.disclosure import masked
from medbert_jax.attrition.ledger import Ledger
from medbert_jax.disk.tables_on_disk import scan_arrow
from medbert_jax.ehr.schema import EhrSource
from medbert_jax.ehr.shard_files import new_folder
from medbert_jax.ehr.workers import Workers
from medbert_jax.ingest.building import build
from medbert_jax.ingest.formats import get_reader
from medbert_jax.ingest.icd9_zeros import judge
from medbert_jax.ingest.job import IngestOptions, Job, progress
from medbert_jax.ingest.scattering import scatter_all
from medbert_jax.ingest.sealing import seal_all
from medbert_jax.ingest.source_files import SourceError, find_files, size_in_memory
from medbert_jax.ingest.stay_days import calendar_of

SHARD_BYTES = 100 * 2**20
"""Raw columns of one shard in memory, about; building it takes several times as much, within 1 GB."""
SMALL_SOURCE = 64 * 2**20
"""Bytes below which starting processes costs more than they save."""


def ingest(
    source,
    out,
    *,
    format: str,
    shards: int = 0,
    workers: int = 0,
    options=None,
    common: IngestOptions | None = None,
    today: date | None = None,
    announce: Callable[[str], None] = print,
) -> Ledger:
    """Read a source into EHR tables; returns the ledger of patients, visits and diagnosis codes.

    Beside the tables, `out` holds ledger.json and, for medications, measurements and procedures, events_ledger.json;
    the ledger of every shard stands in them under "by_shard"; of MEDS, unknown_codes.csv lists the codes that no
    pattern knows. Cells of which nothing could be made (a date that is none) are unknown; ledger.json counts them by
    column under "unreadable_cells" (dates by their shape too, "unreadable_dates"), under "read_as_empty" cells that
    spell nothing, rows by code system under "code_systems", under "shared_visit_ids" visits whose id
    another patient has too, in formats where none should, and under "losses" tables of which many rows left that
    should not. An earlier set of tables there is replaced when the new one is whole: a source that is refused and a run
    that is killed leave it as it was.

    Args:
        source: folder (or the one file) of the source.
        out: folder that will hold the EHR tables.
        format: one of `FORMATS`.
        shards: parts that the tables are cut into; 0 takes as many as keep a worker below 1 GB.
        workers: processes; 0 takes the number of cores, one for a small source.
        options: of the reader (`get_reader(format).options`).
        common: what holds for all readers.
        today: a stay that began by then and ends later is still open; the day of the run if not given.
        announce: gets lines of progress.

    Raises:
        SourceError: files that are missing, unreadable or not as published, every fault listed.
        ValueError: rows of the source that a reader refuses, or no patients, visits or codes left.
        BlockingIOError: another process is writing `out`.
        ChildProcessError: a worker died, mostly for want of memory.
    """
    reader, common = get_reader(format), common or IngestOptions()
    options = options or reader.options()
    asked = (table for table in reader.tables if not table.option or getattr(options, table.option))
    reader = replace(reader, tables=tuple(replace(table, needed=table.needed or bool(table.option)) for table in asked))
    files, unused, faults = find_files(reader, Path(source))
    if unused:
        announce(f"not read: {', '.join(map(masked, unused[:8]))}{' …' * (len(unused) > 8)}")
    size = sum(size_in_memory(file) for file in files if file.table.patient)
    shards = shards or max(1, -(-size // SHARD_BYTES))
    with new_folder(out) as new, Workers(workers or int(size < SMALL_SOURCE)) as each:
        # The scattered rows stand beside `out`: on a disk with room.
        spill = new.with_name("scattered")
        spill.mkdir()
        job = Job(format, options, common, files, shards, spill, new)
        chunks, judged = scatter_all(reader, job, faults, each, announce)
        calendar = calendar_of((scan_arrow(path).collect() for path in spill.glob("*.stays")), today or date.today())
        built, started = {}, time.monotonic()
        try:
            for shard, one in each(functools.partial(build, job, chunks, calendar), range(shards)):
                built[shard] = one
                patients = sum(part.record.rows["patients"] for part in built.values())
                announce(progress("built shard", len(built), shards, patients, "patients", started))
        except SourceError as refusal:
            refusal.__cause__ = None  # the worker's traceback, of no use to who made the files
            raise
        parts = [built[shard] for shard in range(shards)]
        zeros, option = judge(pl.concat([one.icd9 for one in parts])), job.options.icd9_zeros
        if lost := [fault for one in zeros for fault in one.faults(option)]:
            raise SourceError(format, lost)
        advice = tuple(line for one in zeros for line in one.lines(option))
        if reader.check:
            advice += tuple(reader.check(sum((one.told for one in parts), Counter()), job.options))
        return seal_all(job, parts, judged, reader, advice, announce)


def summary(ledger: Ledger, written: EhrSource) -> Iterator[str]:
    """What the user is told of tables that were written: who left, what was assumed, what is known."""
    yield ledger.render()
    yield from (f"assumed: {line}" for line in written.assumptions)
    yield "known: " + ", ".join(f"{column} {share:.1%}" for column, share in written.known.items())
