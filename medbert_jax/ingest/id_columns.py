"""Columns of ids: whole numbers or text, alike in all tables that name the same thing."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import polars as pl

from medbert_jax.disk.tables_on_disk import scan_arrow
from medbert_jax.ingest.reader import RawTable, Reader
from medbert_jax.ingest.source_files import Fault, FileFault, RawFile

ZEROS, MENDED, TEXT = "zeros", "mended", "text"
"""What ids are counted as: with zeros in front; read as whole numbers, and written otherwise; no whole numbers."""

Seen = Counter[tuple[str, str, str]]
"""Table, key of the ids (`_key`), one of these → cells."""

# 12.0, 1.23457E+11, 1e+16, 1.2E11; never 1E11 without sign or dot, which an id in hexadecimal may be.
_FLOAT = r"^\s*-?(\d+\.0+|\d\.\d+[eE][+-]?\d+|\d[eE][+-]\d+)\s*$"
_WHOLE = r"^-?\d+$"
_MENDED = r"^(-?)0*(\d+?)(?:\.0+)?$"
# Whole numbers from here on may be two of them that one float stands for.
_EXACT = {pl.Float16: 2**11, pl.Float32: 2**24, pl.Float64: 2**53}
_LEAST_SHARE = 0.05
_PATIENT = "patient"


def ids_as_written(chunk: pl.DataFrame, file: RawFile, whole_ids: bool, seen: Seen) -> pl.DataFrame:
    """The chunk with its patient column as text, and with `whole_ids` its ids as whole numbers.

    What ids look like is added to `seen`. Raises FileFault for ids that are floats or hold NUL, and for those that are
    not whole though all of them should be.
    """
    table = file.table
    ids = [name for name in chunk.columns if name in (table.patient, *table.ids) or name.endswith("_id")]
    for name in ids:
        if isinstance(dtype := chunk.schema[name], pl.Decimal) and not dtype.scale:
            try:
                chunk = chunk.with_columns(pl.col(name).cast(pl.Int64))
            except pl.exceptions.PolarsError:
                chunk = chunk.with_columns(pl.col(name).cast(pl.String))
    texts = [name for name in ids if chunk.schema[name] == pl.String]
    typed = file.name.lower().endswith(".parquet")  # of text files it is known of every byte
    if typed and any(chunk[name].str.contains("\0", literal=True).any() for name in texts):
        raise FileFault(file.name, "unreadable_file", "holds NUL bytes")
    if whole_ids:
        chunk = _as_numbers(chunk, ids, table, seen)
    # Only what a float export looks like: codes in a column of ids may well have a dot.
    written = chunk.select(pl.col(texts).str.contains(_FLOAT).any())
    floats = [name for name in ids if chunk.schema[name].is_float() or isinstance(chunk.schema[name], pl.Decimal)]
    floats += [name for name in texts if written[name][0]]
    if floats:
        inexact = ", not all of them whole and exact" * whole_ids
        raise FileFault(file.name, "float_id", f"column {', '.join(floats)} has ids written as floats{inexact}")
    for name in texts:
        if padded := int((chunk[name].str.starts_with("0") & (chunk[name].str.len_bytes() > 1)).sum()):
            seen[table.name, _key(name, table), ZEROS] += padded
    if not table.patient:
        return chunk
    dtype = chunk.schema[table.patient]
    if not (dtype == pl.String or dtype.is_integer() or dtype == pl.Null):
        raise FileFault(file.name, "unreadable_file", f"column {table.patient} is of type {dtype}")
    return chunk.with_columns(pl.col(table.patient).cast(pl.String))


def _key(column: str, table: RawTable) -> str:
    """What the ids of a column name: the patient, whatever the table calls him, or what the column is called after."""
    return _PATIENT if column == table.patient else column


def _as_numbers(chunk: pl.DataFrame, ids: Sequence[str], table: RawTable, seen: Seen) -> pl.DataFrame:
    """The chunk with ids as whole numbers, in text as in floats; columns of floats that are not stay as they are."""
    for name in ids:
        values, dtype, mended = chunk[name], chunk.schema[name], 0
        if limit := _EXACT.get(type(dtype)):
            if (values.abs() < limit).all() and (values == values.floor()).all():
                chunk, mended = chunk.with_columns(pl.col(name).cast(pl.Int64)), len(values) - values.null_count()
        elif isinstance(dtype, pl.Decimal):
            as_int = values.cast(pl.Int64, strict=False)
            if (as_int == values).all():
                chunk, mended = chunk.with_columns(as_int), len(values) - values.null_count()
        elif dtype == pl.String:
            numbers = values.str.replace(_MENDED, "${1}${2}")
            mended = int((numbers != values).sum())
            seen[table.name, _key(name, table), TEXT] += int((~numbers.str.contains(_WHOLE)).sum())
            chunk = chunk.with_columns(numbers)
        seen[table.name, _key(name, table), MENDED] += mended
    return chunk


def not_whole(seen: Seen, files: Sequence[RawFile]) -> Iterator[Fault]:
    """Ids of which some were read as whole numbers and others, anywhere in the source, are none."""
    for key in sorted({key for _, key, what in seen if what == MENDED}):
        counts = {what: sum(n for (_, k, w), n in seen.items() if (k, w) == (key, what)) for what in (MENDED, TEXT)}
        if all(counts.values()):
            table = min(table for (table, k, what), n in seen.items() if (k, what) == (key, TEXT) and n)
            name = min(file.name for file in files if file.table.name == table)
            yield name, "id_not_whole", f"{counts[TEXT]:,} ids of {key} are no whole numbers"


def unlike_ids(
    reader: Reader, files: Sequence[RawFile], spill: Path, chunks: Mapping[str, Sequence[str]], seen: Seen
) -> tuple[list[Fault], list[str]]:
    """Ids of two tables that would match without the zeros in front: as faults, and where they are few as lines.

    Asked only of ids of which some have zeros in front: `chunks` are the names of each table's scattered rows.
    """
    faults, lines = [], []
    for key in sorted({key for (_, key, what), cells in seen.items() if what == ZEROS and cells}):
        columns = {
            table.name: table.patient if key == _PATIENT else key
            for table in reader.tables
            if chunks.get(table.name) and (table.patient if key == _PATIENT else key in _columns(table))
        }
        ids = {name: _distinct(spill, chunks[name], column) for name, column in columns.items()}
        first, *others = ids  # the table that lists them comes first
        bare = {name: _bare(of) for name, of in ids.items()}
        for name in others:
            written = ids[name].is_in(ids[first].implode())
            without = bare[name].is_in(bare[first].implode())
            gained = int((without & ~written).sum())
            if not gained:
                continue
            as_written, as_numbers = (100 * int(found.sum()) // len(found) for found in (written, without))
            what = (
                f"column {columns[name]}: {as_written} % of its ids are those of {first} as written, "
                f"{as_numbers} % without zeros in front"
            )
            if gained > _LEAST_SHARE * len(written):
                faults.append((min(file.name for file in files if file.table.name == name), "unlike_ids", what))
            else:
                lines.append(f"{name}, {what}: {gained:,} ids stay unlike (--options.whole-ids makes them one)")
    return faults, lines


def _columns(table: RawTable) -> tuple[str, ...]:
    return (*table.required, *table.optional)


def _distinct(spill: Path, names: Sequence[str], column: str) -> pl.Series:
    parts = [scan_arrow(spill / f"{name}.arrow").select(pl.col(column).cast(pl.String)).unique() for name in names]
    return pl.concat(parts).unique().collect()[column].drop_nulls()


def _bare(ids: pl.Series) -> pl.Series:
    return ids.str.replace(_MENDED, "${1}${2}")
