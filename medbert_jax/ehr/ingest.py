"""Any source → EHR tables on disk, in memory set by the shard.

Two steps. Scatter: every file is read in chunks, whose rows are dealt to shards by a hash of the patient id. Build: a
shard's rows, wherever they came from, become its EHR tables and its ledger. Both are run by a process pool; the bytes
that come out do not depend on the number of processes, nor on the order of files or rows.
"""

import functools
import json
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from medbert_jax.ehr.assembly import Assembled, assemble
from medbert_jax.ehr.ledger import Ledger
from medbert_jax.ehr.raw import Reader
from medbert_jax.ehr.raw_files import Fault, FileFault, RawFile, SourceError, find_files, read_chunks, size_in_memory
from medbert_jax.ehr.schema import EhrSource
from medbert_jax.ehr.tables import ShardRecord, open_folder, seal, shard_numbers, write_shard

FORMATS = ("omop", "meds", "mimic-iv", "med-bert-tsv", "desynpuf", "diabetes130")
SHARD_BYTES = 100 * 2**20
"""Raw columns of one shard in memory, about; building it takes several times as much, within 1 GB."""
SMALL_SOURCE = 64 * 2**20
"""Bytes below which starting processes costs more than they save."""

_NO_ORDER = (
    "The source says neither priority nor present on admission nor captured at billing: the codes of a visit have no "
    "order of their own and are put in that of their names."
)


@dataclass(frozen=True)
class IngestOptions:
    """What no source says of itself."""

    outpatient_los_zero: bool = False
    """Whether outpatient visits without a discharge lasted 0 days; else their length of stay is unknown."""


@dataclass(frozen=True)
class _Built:
    record: ShardRecord
    source: EhrSource
    splits: pl.DataFrame
    ledger: Ledger
    events: Ledger


def get_reader(format: str) -> Reader:
    """The reader of a format. Raises ValueError for an unknown one."""
    match format:
        case "omop":
            from medbert_jax.ehr.omop import OMOP as reader
        case "meds":
            from medbert_jax.ehr.meds import MEDS as reader
        case "mimic-iv":
            from medbert_jax.ehr.mimic_iv import MIMIC_IV as reader
        case "med-bert-tsv":
            from medbert_jax.ehr.med_bert_tsv import MED_BERT_TSV as reader
        case "desynpuf":
            from medbert_jax.ehr.desynpuf import DESYNPUF as reader
        case "diabetes130":
            from medbert_jax.ehr.diabetes130 import DIABETES130 as reader
        case _:
            raise ValueError(f"format must be one of {', '.join(FORMATS)}: got {format}; choose the source's")
    return reader


def ingest(
    source,
    out,
    *,
    format: str,
    shards: int = 0,
    workers: int = 0,
    options=None,
    common: IngestOptions | None = None,
    announce: Callable[[str], None] = print,
) -> Ledger:
    """Read a source into EHR tables; returns the ledger of patients, visits and diagnosis codes.

    Beside the tables, `out` holds ledger.json and, for medications, measurements and procedures, events_ledger.json. An
    earlier set of tables there is replaced.

    Args:
        source: folder (or the one file) of the source.
        out: folder that will hold the EHR tables.
        format: one of `FORMATS`.
        shards: parts that the tables are cut into; 0 takes as many as keep a worker below 1 GB.
        workers: processes; 0 takes the number of cores.
        options: of the reader (`get_reader(format).options`).
        common: what holds for all readers.
        announce: gets lines of progress.

    Raises:
        SourceError: files that are missing, unreadable or not as published, every fault listed.
        ValueError: rows of the source that a reader refuses, or no patients, visits or codes left.
    """
    reader, out, common = get_reader(format), Path(out), common or IngestOptions()
    options = options or reader.options()
    files, unused, faults = find_files(reader, Path(source))
    if unused:
        announce(f"not read: {', '.join(unused[:8])}{' …' * (len(unused) > 8)}")
    size = sum(size_in_memory(file) for file in files)
    shards = shards or max(1, -(-size // SHARD_BYTES))
    workers = workers or os.cpu_count() or 1
    if size < SMALL_SOURCE:
        workers = 1
    prefix = f".{out.name}.scattered."
    out.parent.mkdir(parents=True, exist_ok=True)
    for left_behind in out.parent.glob(f"{prefix}*"):
        shutil.rmtree(left_behind)
    # Beside `out`, so that it is on a disk with room; `out` itself is not touched for a source that is refused.
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=prefix) as folder, _Pool(workers) as pool:
        spill, started = Path(folder), time.monotonic()
        chunks: dict[str, list[str]] = {table.name: [] for table in reader.tables}
        rows = dict.fromkeys(chunks, 0)
        work = [(file, number, spill, shards) for number, file in enumerate(files)]
        for done, (file, names, count, found) in enumerate(pool.map(_scatter, work), start=1):
            chunks[file.table.name] += names
            rows[file.table.name] += count
            faults += found
            announce(_progress("read file", done, len(files), sum(rows.values()), "rows", started))
        for table in reader.tables:
            names = [file.name for file in files if file.table is table]
            if table.needed and names and not rows[table.name] and not {name for name, _, _ in faults} & set(names):
                faults.append((names[0], "empty_table", "has no rows"))
        if faults:
            raise SourceError(reader.format, faults)
        open_folder(out)
        built, started = [], time.monotonic()
        work = [(format, options, common, chunks, spill, out, shard, shards) for shard in range(shards)]
        for done, one in enumerate(pool.map(_build, work), start=1):
            built.append(one)
            patients = sum(part.record.rows["patients"] for part in built)
            announce(_progress("built shard", done, shards, patients, "patients", started))
    ledger = functools.reduce(Ledger.merge, (one.ledger for one in built))
    events = functools.reduce(Ledger.merge, (one.events for one in built))
    for name, one in (("ledger", ledger), ("events_ledger", events)):
        (out / f"{name}.json").write_text(json.dumps(one.to_dict(), indent=1, ensure_ascii=False))
    said = tuple(dict.fromkeys(line for one in built for line in one.source.assumptions))
    order = ("priority", "present_on_admission", "captured_at_billing")
    if not any(one.record.known[f"diagnoses.{column}"] for one in built for column in order):
        said += (_NO_ORDER,)
    splits = pl.concat([one.splits for one in built])
    precision = " or ".join(sorted({one.source.age_precision for one in built}))
    described = replace(built[0].source, assumptions=said, age_precision=precision)
    seal(out, described, [one.record for one in built], splits)
    return ledger


class _Pool:
    """`map` in order, by processes, or here where one worker is enough."""

    def __init__(self, workers: int):
        context = multiprocessing.get_context("spawn")
        self._executor = ProcessPoolExecutor(workers, mp_context=context) if workers > 1 else None

    def __enter__(self) -> "_Pool":
        return self

    def map(self, function: Callable, work: list) -> Iterable:
        return self._executor.map(function, work) if self._executor else map(function, work)

    def __exit__(self, kind, *_) -> None:
        if self._executor:
            self._executor.shutdown(cancel_futures=kind is not None)


def _scatter(work) -> tuple[RawFile, list[str], int, list[Fault]]:
    """Deal one file's rows to the shards; returns the chunks written, the rows and the faults."""
    file, number, spill, shards = work
    names, rows = [], 0
    try:
        for place, chunk in enumerate(read_chunks(file)):
            name = f"{number:05d}-{place:05d}"
            starts = np.zeros(shards + 1, np.int64)
            if file.table.patient:
                shard = np.zeros(chunk.height, np.int64)  # rows without a patient: shard 0 counts them
                known = chunk[file.table.patient].is_not_null().to_numpy()
                if known.any():
                    shard[known] = _shards_of(chunk[file.table.patient].filter(pl.Series(known)), shards)
                chunk = chunk[np.argsort(shard, kind="stable")]
                starts[1:] = np.cumsum(np.bincount(shard, minlength=shards))
            chunk.write_ipc(spill / f"{name}.arrow", compression="uncompressed")
            np.save(spill / f"{name}.npy", starts)
            names.append(name)
            rows += chunk.height
    except FileFault as found:
        return file, [], rows, [found.fault]
    return file, names, rows, []


def _shards_of(patient_ids: pl.Series, shards: int) -> np.ndarray:
    """The shard of every row; each different id is hashed once."""
    ids = patient_ids.unique()
    frame = pl.DataFrame({"id": ids, "shard": shard_numbers(ids, shards)})
    return patient_ids.to_frame("id").join(frame, on="id", how="left", maintain_order="left")["shard"].to_numpy()


def _build(work) -> _Built:
    """One shard: its rows of every table → EHR tables, written and checked."""
    format, options, common, chunks, spill, out, shard, shards = work
    reader, raw = get_reader(format), {}
    for table in reader.tables:
        parts = []
        for name in chunks[table.name]:
            starts, part = np.load(spill / f"{name}.npy"), pl.scan_ipc(spill / f"{name}.arrow")
            if table.patient:
                part = part.slice(starts[shard], starts[shard + 1] - starts[shard])
            parts.append(part.collect())
        if parts:
            raw[table.name] = pl.concat(parts, how="vertical_relaxed", rechunk=True)
    try:
        rough = reader.build(raw, options)
    except pl.exceptions.PolarsError:
        # Parquet may hold anything; the library's own words may quote what stands in a cell.
        what = "a column holds another type than the format has"
        raise SourceError(format, [(", ".join(raw), "wrong_type", what)]) from None
    del raw
    assembled: Assembled = assemble(format, rough, outpatient_los_zero=common.outpatient_los_zero)
    record = write_shard(assembled.tables, out, shard, shards)
    return _Built(record, assembled.tables.source, assembled.splits, assembled.ledger, assembled.events)


def _progress(what: str, done: int, of: int, count: int, unit: str, started: float) -> str:
    seconds = max(time.monotonic() - started, 1e-9)
    left = seconds / done * (of - done)
    return f"{what} {done}/{of}: {count:,} {unit}, {count / seconds:,.0f}/s, {left:.0f} s left"
