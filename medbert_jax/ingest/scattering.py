"""Every file of a source is read in chunks, whose rows are dealt to shards by a hash of the patient id.

A chunk is written whole, sorted by shard, with the places where each begins. A lookup with a key is reduced, once, to
the rows that some id of the source names.
"""

import functools
import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from medbert_jax.disk.tables_on_disk import scan_arrow
from medbert_jax.disk.whole_files import whole_file
from medbert_jax.ehr.text_hash import shard_numbers
from medbert_jax.ehr.workers import Workers
from medbert_jax.ingest.chunks import read_chunks
from medbert_jax.ingest.columns import Judged, dateless
from medbert_jax.ingest.formats import get_reader
from medbert_jax.ingest.id_columns import not_whole, unlike_ids
from medbert_jax.ingest.job import LIBRARY, Job, progress
from medbert_jax.ingest.reader import Reader, text, whole
from medbert_jax.ingest.source_files import Fault, FileFault, RawFile, SourceError
from medbert_jax.ingest.stay_days import stay_days


def scatter_all(
    reader: Reader, job: Job, faults: list[Fault], each: Workers, announce: Callable[[str], None]
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
        announce(progress("read file", len(names), len(job.files), sum(rows.values()), "rows", started))
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


def _scatter(job: Job, number: int) -> tuple[int, list[str], int, list[Fault], Judged]:
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
    except LIBRARY:
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
