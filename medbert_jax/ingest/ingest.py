"""Any source → EHR tables on disk, in memory set by the shard.

Two steps. Scatter: every file is read in chunks, whose rows are dealt to shards by a hash of the patient id. Build: a
shard's rows, wherever they came from, become its EHR tables and its ledger. Both are run by a process pool; the bytes
that come out do not depend on the number of processes, nor on the order of files or rows. In between, a lookup with a
key is reduced, once, to the rows that some id of the source names.
"""

import functools
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from medbert_jax.attrition.disclosure import masked
from medbert_jax.attrition.ledger import Ledger
from medbert_jax.checked_fields import check_fields
from medbert_jax.disk.tables_on_disk import scan_arrow
from medbert_jax.disk.whole_files import whole_file, write_json
from medbert_jax.ehr.codes import SOURCE
from medbert_jax.ehr.schema import SCHEMAS, EhrSource
from medbert_jax.ehr.shard_files import ShardRecord, new_folder, seal, write_shard
from medbert_jax.ehr.shared_visits import UNIQUE_VISITS, count_shared_visits
from medbert_jax.ehr.text_hash import shard_numbers
from medbert_jax.ehr.workers import Workers
from medbert_jax.ingest.assembly import assemble
from medbert_jax.ingest.chunks import read_chunks
from medbert_jax.ingest.columns import Judged, assumed, dateless, read_as_empty, told
from medbert_jax.ingest.dates import FORMS, told_shapes
from medbert_jax.ingest.ends import Calendar
from medbert_jax.ingest.icd9_zeros import judge
from medbert_jax.ingest.id_columns import not_whole, unlike_ids
from medbert_jax.ingest.losses import find_losses, render_events
from medbert_jax.ingest.reader import RawTable, Reader, counting_unreadable, reading_as_unknown, text, whole
from medbert_jax.ingest.source_files import Fault, FileFault, RawFile, SourceError, find_files, size_in_memory
from medbert_jax.ingest.stay_days import calendar_of, stay_days
from medbert_jax.ingest.unknown_codes import write_unknown_codes

FORMATS = (
    "omop", "meds", "mimic-iv", "med-bert-tsv", "med-bert-pickles", "pytorch-ehr", "desynpuf", "diabetes130",
    "own-tables",
)  # fmt: skip
SHARD_BYTES = 100 * 2**20
"""Raw columns of one shard in memory, about; building it takes several times as much, within 1 GB."""
SMALL_SOURCE = 64 * 2**20
"""Bytes below which starting processes costs more than they save."""

_LIBRARY = (pl.exceptions.PolarsError, pl.exceptions.PanicException)
_NO_ORDER = (
    "The source says neither priority nor present on admission nor captured at billing: the codes of a visit have no "
    "order of their own and are put in that of their names."
)


@dataclass(frozen=True)
class IngestOptions:
    """What no source says of itself."""

    outpatient_los_zero: bool = False
    """Whether outpatient visits without a discharge lasted 0 days; else their length of stay is unknown."""

    def __post_init__(self):
        """Check every field; all faults are in one error."""
        check_fields(self)


@dataclass(frozen=True)
class _Job:
    """What all tasks of a run have in common; sent to every process."""

    format: str
    options: Any
    common: IngestOptions
    files: list[RawFile]
    shards: int
    spill: Path
    """Folder of the scattered rows."""
    new: Path
    """Folder of the EHR tables to be."""


@dataclass(frozen=True)
class _Built:
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


def get_reader(format: str) -> Reader:
    """The reader of a format. Raises ValueError for an unknown one."""
    match format:
        case "omop":
            from medbert_jax.ingest.readers.omop import OMOP as reader
        case "meds":
            from medbert_jax.ingest.readers.meds import MEDS as reader
        case "mimic-iv":
            from medbert_jax.ingest.readers.mimic_iv import MIMIC_IV as reader
        case "med-bert-tsv":
            from medbert_jax.ingest.readers.med_bert_tsv import MED_BERT_TSV as reader
        case "med-bert-pickles":
            from medbert_jax.ingest.readers.med_bert_pickles import MED_BERT_PICKLES as reader
        case "pytorch-ehr":
            from medbert_jax.ingest.readers.pytorch_ehr import PYTORCH_EHR as reader
        case "desynpuf":
            from medbert_jax.ingest.readers.desynpuf import DESYNPUF as reader
        case "diabetes130":
            from medbert_jax.ingest.readers.diabetes130 import DIABETES130 as reader
        case "own-tables":
            from medbert_jax.ingest.readers.own_tables import OWN_TABLES as reader
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
        job = _Job(format, options, common, files, shards, spill, new)
        chunks, judged = _scatter_all(reader, job, faults, each, announce)
        calendar = calendar_of((scan_arrow(path).collect() for path in spill.glob("*.stays")), today or date.today())
        built, started = {}, time.monotonic()
        try:
            for shard, one in each(functools.partial(_build, job, chunks, calendar), range(shards)):
                built[shard] = one
                patients = sum(part.record.rows["patients"] for part in built.values())
                announce(_progress("built shard", len(built), shards, patients, "patients", started))
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
        return _seal(job, parts, judged, reader, advice, announce)


def summary(ledger: Ledger, written: EhrSource) -> Iterator[str]:
    """What the user is told of tables that were written: who left, what was assumed, what is known."""
    yield ledger.render()
    yield from (f"assumed: {line}" for line in written.assumptions)
    yield "known: " + ", ".join(f"{column} {share:.1%}" for column, share in written.known.items())


def _scatter_all(
    reader: Reader, job: _Job, faults: list[Fault], each: Workers, announce: Callable[[str], None]
) -> tuple[dict[str, list[str]], Judged]:
    """Scatter every file, reduce the lookups; returns the names of each table's chunks, and what its columns are.

    Raises SourceError.
    """
    names: dict[int, list[str]] = {}
    judged = Judged()
    rows, started = {table.name: 0 for table in reader.tables}, time.monotonic()
    for number, found, count, wrong, seen in each(functools.partial(_scatter, job), range(len(job.files))):
        names[number] = found
        rows[job.files[number].table.name] += count
        faults += wrong
        judged.add(seen)
        announce(_progress("read file", len(names), len(job.files), sum(rows.values()), "rows", started))
    for table in reader.tables:
        its = [file.name for file in job.files if file.table.name == table.name]
        if table.needed and its and not rows[table.name] and not {name for name, _, _ in faults} & set(its):
            faults.append((its[0], "empty_table", "has no rows"))
    faults += [*dateless(judged, job.files), *not_whole(judged.ids, job.files)]
    chunks: dict[str, list[str]] = {table.name: [] for table in reader.tables}
    for number, file in enumerate(job.files):
        chunks[file.table.name] += names[number]
    if not faults:
        faults, judged.lines = unlike_ids(reader, job.files, job.spill, chunks, judged.ids)
    if faults:
        raise SourceError(reader.format, faults)
    for table in reader.tables:
        if table.key and chunks[table.name]:
            named = [scan_arrow(path).collect() for path in job.spill.glob(f"*.{table.key}.named")]
            if named:
                named = pl.concat(named).unique()
                named.write_ipc(job.spill / f"{table.key}.named")
                for link in reader.tables:
                    if link.leads[:1] == (table.key,) and chunks[link.name]:
                        step = functools.partial(_led_to, job.spill, link.leads)
                        named = pl.concat([named, *each(step, chunks[link.name])]).unique()
                        named.write_ipc(job.spill / f"{table.key}.named")
                        list(each(functools.partial(_reduce, job.spill, table.key, link.leads[2]), chunks[link.name]))
                list(each(functools.partial(_reduce, job.spill, table.key, table.key), chunks[table.name]))
    return chunks, judged


def _seal(
    job: _Job,
    built: list[_Built],
    judged: Judged,
    reader: Reader,
    advice: tuple[str, ...],
    announce: Callable[[str], None],
) -> Ledger:
    """Write what is said of all shards together; returns their ledger."""
    new = job.new
    for line in (*told(judged), *advice):
        announce(line)
    unreadable = sum((one.unreadable for one in built), Counter())
    if unreadable:
        said = ", ".join(f"{column} {count:,}" for column, count in sorted(unreadable.items()))
        announce(f"unknown now, because nothing could be made of what is written there: {said}")
    of_dates: dict[str, Counter[str]] = {}
    for (column, shape), cells in sorted(sum((one.shapes for one in built), Counter()).items()):
        of_dates.setdefault(column, Counter())[shape] = cells
    for column, found in of_dates.items():
        announce(f"no dates in {column}: {told_shapes(found)}; read are {FORMS}, others by --options.date-format")
    unknown_codes = [one.unknown_codes for one in built if one.unknown_codes is not None]
    if unknown_codes and (line := write_unknown_codes(unknown_codes, new)):
        announce(line)
    ledger = functools.reduce(Ledger.merge, (one.ledger for one in built))
    _refuse_empty(ledger, sum((Counter(one.record.rows) for one in built), Counter()), unreadable)
    events = functools.reduce(Ledger.merge, (one.events for one in built))
    systems = _by_table(sum((one.systems for one in built), Counter()))
    shared = None
    if built[0].source.format in UNIQUE_VISITS:
        files = [file for one in built for file in one.record.files if file.startswith("visits/")]
        if shared := sum(count_shared_visits(new, files, once=True).values()):
            announce(f"[shared_visit_id] {shared:,} visits have an id that another patient's visit has too: they stay")
    rows, lost = (sum((getattr(one, name) for one in built), Counter()) for name in ("rows", "lost"))
    if events.came.codes:
        announce(render_events(events.title, rows, lost))
    for name, whole_one, parts in (
        ("ledger", ledger, [one.ledger for one in built]),
        ("events_ledger", events, [one.events for one in built]),
    ):
        record = {**whole_one.to_dict(), "by_shard": [part.to_dict() for part in parts]}
        if name == "ledger":
            record["unreadable_cells"] = dict(sorted(unreadable.items()))
            record["unreadable_dates"] = {column: dict(found) for column, found in of_dates.items()}
            record["read_as_empty"] = read_as_empty(judged)
            record["code_systems"] = systems
            if shared is not None:
                record["shared_visit_ids"] = shared
            record["losses"] = find_losses(rows, lost, reader.remedies)
        write_json(new / f"{name}.json", record)
    # A shard without patients has nothing to say of the source.
    telling = [one for one in built if one.record.rows["patients"]] or built
    said = tuple(dict.fromkeys(line for one in telling for line in one.source.assumptions)) + advice
    order = ("priority", "present_on_admission", "captured_at_billing")
    if not any(one.record.known[f"diagnoses.{column}"] for one in built for column in order):
        said += (_NO_ORDER,)
    if counted := sum((one.told for one in built), Counter()):
        said += (
            f"Counted in the source: {', '.join(f'{what} {count:,}' for what, count in sorted(counted.items()))}.",
        )
    said += tuple(assumed(job.options))
    splits = pl.concat([one.splits for one in built])
    precision = " or ".join(sorted({one.source.age_precision for one in telling}))
    described = replace(telling[0].source, assumptions=said, age_precision=precision)
    titles = pl.concat([one.titles for one in built]).sort(pl.all()).unique(["code_system", "code"], keep="first")
    seal(new, described, [one.record for one in built], splits, titles)
    for table, rows in systems.items():
        shares = ", ".join(f"{system} {count / sum(rows.values()):.1%}" for system, count in rows.items())
        announce(f"{table}: {shares}{' (SOURCE left: of no named system)' * (SOURCE in rows)}")
    return ledger


def _by_table(systems: Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
    """Table → code system → rows, the most frequent first."""
    tables: dict[str, dict[str, int]] = {}
    for (table, system), rows in sorted(
        systems.items(), key=lambda one: (list(SCHEMAS).index(one[0][0]), -one[1], one[0])
    ):
        tables.setdefault(table, {})[system] = rows
    return tables


def _refuse_empty(ledger: Ledger, rows: Counter[str], unreadable: Counter[str]) -> None:
    """Raise ValueError, with all that is known of why, where a table that must have rows has none."""
    lines = []
    for table, level in (("patients", "patients"), ("visits", "visits"), ("diagnoses", "codes")):
        if not rows[table]:
            by_rule = [(line, getattr(line.left, level)) for line in ledger.lines]
            left = ", ".join(f"{line.rule} {count:,} ({line.text})" for line, count in by_rule if count)
            came = f"all {getattr(ledger.came, level):,} rows left: {left}" if left else "the source has no such rows"
            lines.append(f"{table}: [empty_table] {came}")
    if lines and unreadable:
        cells = ", ".join(f"{column} {count:,}" for column, count in sorted(unreadable.items()))
        lines.append(f"cells of which nothing could be made: {cells}")
    if lines:
        raise ValueError(
            "EHR tables must have rows, and nothing was written: got none in some:\n  - "
            + "\n  - ".join(lines)
            + "\nmend these in the source, then ingest again"
        )


def _scatter(job: _Job, number: int) -> tuple[int, list[str], int, list[Fault], Judged]:
    """Deal one file's rows to the shards; returns its number, the chunks written, the rows, faults, what was judged."""
    file, shards, names, rows, judged = job.files[number], job.shards, [], 0, Judged()
    keys = {table.key for table in get_reader(job.format).tables if table.key} - {file.table.key}
    named: dict[str, pl.DataFrame] = {}
    stays = []
    try:
        for place, chunk in enumerate(read_chunks(file, job.files, job.options, judged)):
            name = f"{number:05d}-{place:05d}"
            if file.table.only:
                column, value = file.table.only
                chunk = chunk.filter(text(chunk[column]) == value)
            if file.table.of_name:
                column, pattern = file.table.of_name
                of_name = re.search(pattern, file.name)
                said = pl.lit(of_name[1] if of_name else None, pl.String)
                chunk = chunk.with_columns(pl.coalesce(pl.col(column).cast(pl.String), said).alias(column))
            for key in keys:
                columns = [name for name in chunk.columns if name == key or name.endswith(f"_{key}")]
                if ids := [_ids(chunk[column].unique(), file).to_frame("id") for column in columns]:
                    named[key] = pl.concat([*ids, *([named[key]] if key in named else [])]).unique()
            if file.table.key:
                _ids(chunk[file.table.key].head(1), file)  # of a type that `_reduce` can compare
            if file.table.stay:
                stays.append(stay_days(chunk, file.table.patient, *file.table.stay))
            starts = np.zeros(shards + 1, np.int64)
            if file.table.patient:
                shard = np.zeros(chunk.height, np.int64)  # rows without a patient: shard 0 counts them
                known = chunk[file.table.patient].is_not_null().to_numpy()
                if known.any():
                    shard[known] = shard_numbers(chunk[file.table.patient].filter(pl.Series(known)), shards)
                chunk = chunk[np.argsort(shard, kind="stable")]
                starts[1:] = np.cumsum(np.bincount(shard, minlength=shards))
            chunk.write_ipc(job.spill / f"{name}.arrow", compression="uncompressed")
            np.save(job.spill / f"{name}.npy", starts)
            names.append(name)
            rows += chunk.height
    except FileFault as found:
        return number, [], rows, found.faults, judged
    for key, ids in named.items():
        ids.write_ipc(job.spill / f"{number:05d}.{key}.named")
    if stays:
        pl.concat(stays).write_ipc(job.spill / f"{number:05d}.stays")
    return number, names, rows, [], judged


def _ids(values: pl.Series, file: RawFile | None = None) -> pl.Series:
    """Ids as text that compares, whatever types two files give them: 7, "7" and " 07" are one.

    Raises FileFault, for `file`, where the column is of a type that no id has.
    """
    try:
        texts = text(values)
        numbers = texts.cast(pl.Int64, strict=False)
        numbers = numbers.zip_with(numbers.is_not_null(), whole(values)).cast(pl.String)
    except _LIBRARY:
        if file is None:
            raise
        raise FileFault(file.name, "wrong_type", f"column {values.name} holds no ids") from None
    return numbers.zip_with(numbers.is_not_null(), texts)


def _named_rows(spill: Path, key: str, column: str, name: str) -> pl.DataFrame:
    """The rows of one chunk of a lookup whose `column` holds an id of `key` that is named somewhere."""
    chunk = scan_arrow(spill / f"{name}.arrow").collect()
    named = scan_arrow(spill / f"{key}.named").collect()["id"].drop_nulls()
    return chunk.filter(_ids(chunk[column]).is_in(named.implode()))


def _led_to(spill: Path, leads: tuple[str, ...], name: str) -> pl.DataFrame:
    """The ids to which one chunk leads from those that are named."""
    key, start, end = leads
    return _ids(_named_rows(spill, key, start, name)[end].unique()).to_frame("id")


def _reduce(spill: Path, key: str, column: str, name: str) -> None:
    """Keep of one chunk `_named_rows` alone."""
    kept = _named_rows(spill, key, column, name)
    with whole_file(spill / f"{name}.arrow") as partial:  # not written over: the chunk may be a memory map
        kept.write_ipc(partial, compression="uncompressed")


def _build(job: _Job, chunks: dict[str, list[str]], calendar: Calendar, shard: int) -> tuple[int, _Built]:
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
    except _LIBRARY:
        pass
    if assembled is None:
        # Parquet may hold anything. Out here, since the library's own words may quote what stands in a cell, and a
        # worker's error takes along what was being handled.
        raise SourceError(job.format, _wrong_types(schemas))
    record = write_shard(assembled.tables, job.new, shard, job.shards)
    return shard, _Built(
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


def _gather(job: _Job, table: RawTable, names: list[str], shard: int) -> pl.DataFrame:
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
        except _LIBRARY:
            unlike.append(column)
    if unlike:
        what = f"column {', '.join(unlike)} is of another type in one file than in another"
        raise SourceError(job.format, [(table.name, "wrong_type", what)])
    return pl.concat(columns, how="horizontal")


def _progress(what: str, done: int, of: int, count: int, unit: str, started: float) -> str:
    seconds = max(time.monotonic() - started, 1e-9)
    left = seconds / done * (of - done)
    return f"{what} {done}/{of}: {count:,} {unit}, {count / seconds:,.0f}/s, {left:.0f} s left"
