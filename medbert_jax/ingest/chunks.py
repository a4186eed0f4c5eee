"""The rows of a source's files, in chunks of bounded size, their columns judged."""

from collections.abc import Iterator, Sequence

import polars as pl

from medbert_jax.disk.tables_on_disk import parquet_schema, scan_parquet
from medbert_jax.ingest.columns import Judged, judge
from medbert_jax.ingest.dates import FORMS, shapes
from medbert_jax.ingest.reader import RawTable, SourceOptions
from medbert_jax.ingest.source_files import FileFault, RawFile
from medbert_jax.ingest.text_files import text_chunks

CHUNK_ROWS = 1_000_000
"""Rows of a Parquet file that are read at once."""


def read_chunks(
    file: RawFile,
    files: Sequence[RawFile] = (),
    options: SourceOptions | None = None,
    judged: Judged | None = None,
) -> Iterator[pl.DataFrame]:
    """The table's columns (lower-case names), judged, `patient` as text; at least one chunk, maybe empty.

    Text files give text. Absent optional columns are null. `files` are all those of the source; what is seen of the
    columns is added to `judged`. Raises FileFault.
    """
    table, options, judged = file.table, options or SourceOptions(), Judged() if judged is None else judged
    if table.frames:
        chunks = table.frames(file, files)
    else:
        chunks = _parquet_chunks(file) if file.name.lower().endswith(".parquet") else text_chunks(file, judged)
    for chunk in chunks:
        if table.by_position:
            if chunk.width < len(table.required):
                what = f"has {chunk.width} columns of {len(table.required)}"
                raise FileFault(file.name, "missing_column", what)
            chunk = chunk.rename(dict(zip(chunk.columns, table.required, strict=False)))
        else:
            lower = [name.strip().lower() for name in chunk.columns]
            wanted = {*table.required, *table.optional}
            if twice := sorted({name for name in lower if lower.count(name) > 1} & wanted):
                raise FileFault(file.name, "duplicate_column", f"column {', '.join(twice)} is there more than once")
            chunk = chunk.rename(dict(zip(chunk.columns, lower, strict=True)))
        if missing := [name for name in table.required if name not in chunk.columns]:
            raise FileFault(file.name, "missing_column", f"column {', '.join(missing)} is missing")
        chunk = chunk.select(
            pl.col(name) if name in chunk.columns else pl.lit(None, pl.String).alias(name)
            for name in dict.fromkeys((*table.required, *table.optional))
        )
        chunk = judge(chunk, file, options, judged)
        if faults := [(file.name, *fault) for fault in _strange_types(chunk, table)]:
            raise FileFault(*faults[0], *faults[1:])
        if table.folder:
            chunk = chunk.with_columns(pl.lit(file.name.rpartition("/")[0]).alias(table.folder))
        yield chunk


def _strange_types(chunk: pl.DataFrame, table: RawTable) -> Iterator[tuple[str, str]]:
    """Rule and what is wrong, of columns whose type alone shows that they hold no codes or no dates."""
    for column in table.codes:
        values = chunk[column].drop_nulls()
        values = (values.explode() if isinstance(values.dtype, pl.List) else values).drop_nulls()
        is_float = values.dtype.is_float() or (isinstance(values.dtype, pl.Decimal) and values.dtype.scale)
        if is_float and values.cast(pl.Float64).is_not_nan().any():
            yield "float_code", f"column {column} has codes written as floats"
    for column in table.times:
        dtype = chunk.schema[column]
        if dtype in (pl.Date, pl.String, pl.Null) or isinstance(dtype, pl.Datetime):
            continue
        if dtype.is_numeric():  # 20110503 is a date; days or seconds since whenever are not
            values = chunk[column].cast(pl.Float64, strict=False).fill_nan(None).drop_nulls()
            if values.is_empty() or values.is_between(1000_01_01, 9999_12_31).any():
                continue
            shape = min(shapes(chunk[column].cast(pl.String)))
            yield "wrong_type", f"column {column} holds {dtype} of the shape {shape}, no dates (read are {FORMS})"
            continue
        yield "wrong_type", f"column {column} holds {dtype}, no dates or times"


def _parquet_chunks(file: RawFile) -> Iterator[pl.DataFrame]:
    table = file.table
    try:
        schema = parquet_schema(file.path)
        if table.by_position:
            columns = list(schema)
        else:
            wanted = {*table.required, *table.optional}
            columns = [name for name in schema if name.strip().lower() in wanted]
        lazy = scan_parquet(file.path).select(columns)
        rows = scan_parquet(file.path).select(pl.len()).collect().item()
        for start in range(0, max(rows, 1), CHUNK_ROWS):
            # Categories have no meaning across files: their text has.
            chunk = lazy.slice(start, CHUNK_ROWS).collect()
            named = [name for name, dtype in chunk.schema.items() if dtype in (pl.Categorical, pl.Enum, pl.Binary)]
            yield chunk.with_columns(pl.col(named).cast(pl.String))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError):
        raise FileFault(file.name, "unreadable_file", "is truncated, damaged or no Parquet file") from None
