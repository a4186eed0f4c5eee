"""The files of a source: found by table, read in chunks of bounded size, every fault collected before it stops.

Messages name files, columns and rules, never what stands in a cell.
"""

import csv
import fnmatch
import gzip
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from medbert_jax.ehr.raw import RawTable, Reader

BLOCK_BYTES = 32 * 2**20
"""Of a text file that is parsed at once."""
CHUNK_ROWS = 1_000_000
"""Rows of a Parquet file that are read at once."""

_ENDINGS = (".csv", ".tsv", ".txt", ".parquet", ".csv.gz", ".tsv.gz")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}.*|\d{8}")
_CURES = {
    "missing_file": "put it there, or name the folder that holds it",
    "two_files": "leave one of them",
    "missing_column": "export it with this column",
    "duplicate_column": "export it with every column once",
    "unreadable_file": "copy or export it again",
    "not_utf8": "export it as UTF-8",
    "float_id": "export ids as whole numbers or text: as floats, long ones lose digits",
    "empty_table": "export its rows",
    "wrong_type": "export it with the types that the format's documentation names",
}


class SourceError(ValueError):
    """A source whose files cannot be read as they are; every fault is in the message."""

    def __init__(self, format: str, faults: "list[Fault]"):
        lines = [f"{file}: [{rule}] {what}; {_CURES[rule]}" for file, rule, what in sorted(set(faults))]
        super().__init__(
            f"a source of format {format} must have its files as published: got {len(lines)} fault(s):\n  - "
            + "\n  - ".join(lines)
        )


class FileFault(Exception):
    """One fault of one file."""

    def __init__(self, file: str, rule: str, what: str):
        super().__init__(file, rule, what)
        self.fault = (file, rule, what)


@dataclass(frozen=True)
class RawFile:
    """One file of one table."""

    table: RawTable
    path: Path
    name: str
    """Below the source's folder."""


Fault = tuple[str, str, str]
"""File, rule, what is wrong."""


def find_files(reader: Reader, source: Path) -> tuple[list[RawFile], list[str], list[Fault]]:
    """The files of every table, the names of those that no table takes, and what is missing or there twice."""
    if source.is_file():
        within, paths = source.parent, [source]
    elif source.is_dir():
        within, paths = source, sorted(path for path in source.rglob("*") if path.is_file())
    else:
        return [], [], [(source.name, "missing_file", "there is no such file or folder")]
    names = {path.relative_to(within).as_posix(): path for path in paths if not path.name.startswith(".")}
    found = []
    for table in reader.tables:
        # A file that the user names is the table, whatever it is called.
        alone = source.is_file() and len(reader.tables) == 1
        found += [RawFile(table, path, name) for name, path in names.items() if alone or _is_of(table, name)]
    tables = {file.table.name for file in found}
    missing = [table for table in reader.tables if table.needed and table.name not in tables]
    wanted = [" or ".join(table.files) or f"{table.name}.csv or .parquet" for table in missing]
    faults = [(text, "missing_file", f"is not in {source.name}") for text in wanted]
    twins: dict[str, list[str]] = {}
    for file in found:
        ending = next((ending for ending in _ENDINGS[::-1] if file.name.lower().endswith(ending)), "")
        twins.setdefault(file.name.lower().removesuffix(ending), []).append(file.name)
    for first, *others in twins.values():
        faults += [(first, "two_files", f"is there as {', '.join(others)} too")] * bool(others)
    taken = {file.name for file in found}
    return found, [name for name in names if name not in taken], faults


def _is_of(table: RawTable, name: str) -> bool:
    lower = name.lower()
    if not lower.endswith(_ENDINGS) and not table.files:
        return False
    if table.files:  # "**/" is any folders or none; fnmatch's * crosses them already
        return any(fnmatch.fnmatch(lower, pattern.lower().replace("/**/", "/*")) for pattern in table.files)
    first, _, rest = lower.partition("/")
    return (first if rest else first.partition(".")[0]) == table.name


def size_in_memory(file: RawFile) -> int:
    """Bytes that the file's columns take in memory, roughly: sets the number of shards, nothing else."""
    size = file.path.stat().st_size
    if file.name.lower().endswith(".gz"):
        return 8 * size
    return size if not file.name.lower().endswith(".parquet") else 6 * size


def read_chunks(file: RawFile) -> Iterator[pl.DataFrame]:
    """The table's columns (lower-case names), `patient` as text without blanks around; at least one chunk, maybe empty.

    Text files give text, blanks around it dropped, "" as null. Absent optional columns are null. Raises FileFault.
    """
    table = file.table
    chunks = _parquet_chunks(file) if file.name.lower().endswith(".parquet") else _text_chunks(file)
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
        yield _plain_ids(chunk, file)


def _plain_ids(chunk: pl.DataFrame, file: RawFile) -> pl.DataFrame:
    """The chunk with its patient column as text. Raises FileFault for ids that are floats."""
    patient = file.table.patient
    ids = [name for name in chunk.columns if name == patient or name.endswith("_id")]
    floats = [name for name in ids if chunk.schema[name].is_float()]
    texts = [name for name in ids if chunk.schema[name] == pl.String]
    # Only what a float export looks like: codes in a column of ids may well have a dot.
    written = chunk.select(pl.col(texts).str.contains(r"^\s*\d+\.0+\s*$").any())
    floats += [name for name in texts if written[name][0]]
    if floats:
        raise FileFault(file.name, "float_id", f"column {', '.join(floats)} has ids written as floats")
    if not patient:
        return chunk
    dtype = chunk.schema[patient]
    if not (dtype == pl.String or dtype.is_integer() or dtype == pl.Null):
        raise FileFault(file.name, "unreadable_file", f"column {patient} is of type {dtype}")
    return chunk.with_columns(pl.col(patient).cast(pl.String).str.strip_chars().replace("", None))


def _parquet_chunks(file: RawFile) -> Iterator[pl.DataFrame]:
    table = file.table
    try:
        schema = pl.read_parquet_schema(file.path)
        if table.by_position:
            columns = list(schema)
        else:
            wanted = {*table.required, *table.optional}
            columns = [name for name in schema if name.strip().lower() in wanted]
        lazy = pl.scan_parquet(file.path).select(columns)
        rows = pl.scan_parquet(file.path).select(pl.len()).collect().item()
        for start in range(0, max(rows, 1), CHUNK_ROWS):
            # Categories have no meaning across files: their text has.
            chunk = lazy.slice(start, CHUNK_ROWS).collect()
            named = [name for name, dtype in chunk.schema.items() if dtype in (pl.Categorical, pl.Enum, pl.Binary)]
            yield chunk.with_columns(pl.col(named).cast(pl.String))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError):
        raise FileFault(file.name, "unreadable_file", "is truncated, damaged or no Parquet file") from None


def _text_chunks(file: RawFile) -> Iterator[pl.DataFrame]:
    separator, columns = file.table.separator, None
    for block in _blocks(file):
        if columns is None:
            if block[:2] in (b"\xff\xfe", b"\xfe\xff"):
                raise FileFault(file.name, "not_utf8", "is UTF-16")
            first, _, block = block.removeprefix(b"\xef\xbb\xbf").partition(b"\n")
            header = _utf8(first, file).rstrip("\r")
            if separator not in header and "\t" in header:
                separator = "\t"  # as the vocabulary files of OHDSI's Athena are, under the ending .csv
            columns = next(csv.reader([header], delimiter=separator), [])
            if not columns:
                raise FileFault(file.name, "unreadable_file", "has no header line")
            if file.table.by_position and any(_DATE.fullmatch(name.strip()) for name in columns):
                raise FileFault(file.name, "unreadable_file", "has data in place of a header line")
            # Text between tabs is not quoted, and a quotation mark is one, unless all names of the header are.
            quoted = separator != "\t" or (header.startswith('"') and header.endswith('"'))
        if b"\0" in block:
            raise FileFault(file.name, "unreadable_file", "holds NUL bytes")
        _utf8(block, file)
        numbered = [f"{place}" for place in range(len(columns))]
        chunk = pl.DataFrame(schema=dict.fromkeys(numbered, pl.String))
        if block.strip():
            try:
                chunk = pl.read_csv(
                    io.BytesIO(block),
                    has_header=False,
                    new_columns=numbered,
                    infer_schema=False,
                    separator=separator,
                    quote_char='"' if quoted else None,
                )
            except pl.exceptions.PolarsError:
                raise FileFault(file.name, "unreadable_file", "has rows of more fields than its header") from None
            if chunk.width != len(columns):
                what = f"has rows of {chunk.width} fields under a header of {len(columns)}"
                raise FileFault(file.name, "unreadable_file", what)
        # Blank lines come as rows of nulls.
        chunk = chunk.select(pl.all().str.strip_chars().replace("", None))
        chunk = chunk.filter(~pl.all_horizontal(pl.all().is_null()))
        wanted = {*file.table.required, *file.table.optional}
        places = range(len(columns))
        if not file.table.by_position:
            places = [place for place in places if columns[place].strip().lower() in wanted]
        data = [chunk.to_series(place) for place in places]
        # Names may repeat, which a frame cannot hold: found here.
        names = [columns[place].strip().lower() for place in places]
        if file.table.by_position:
            names = [str(place) for place in places]
        elif len(set(names)) < len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise FileFault(file.name, "duplicate_column", f"column {', '.join(twice)} is there more than once")
        yield pl.DataFrame(dict(zip(names, data, strict=True)))
    if columns is None:
        raise FileFault(file.name, "unreadable_file", "has no header line")


def _utf8(content: bytes, file: RawFile) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise FileFault(file.name, "not_utf8", "has bytes that are not UTF-8") from None


def _blocks(file: RawFile) -> Iterator[bytes]:
    """The file in blocks that end at line ends outside of quotes."""
    opened = gzip.open if file.name.lower().endswith(".gz") else open
    try:
        with opened(file.path, "rb") as stream:
            rest, quoted = b"", None
            while block := stream.read(BLOCK_BYTES):
                block = rest + block
                if quoted is None:
                    quoted = file.table.separator != "\t" and b"\t" not in block.partition(b"\n")[0]
                end = block.rfind(b"\n")
                while quoted and end >= 0 and block.count(b'"', 0, end) % 2:
                    end = block.rfind(b"\n", 0, end)
                if end >= 0:
                    yield block[: end + 1]
                rest = block[end + 1 :]
            if rest:
                yield rest
    except (OSError, EOFError, gzip.BadGzipFile):
        raise FileFault(file.name, "unreadable_file", "is truncated, damaged or may not be read") from None
