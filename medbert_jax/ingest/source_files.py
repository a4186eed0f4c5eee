"""The files of a source: found by table, read in chunks of bounded size, every fault collected before it stops.

Messages name files, columns and rules, never what stands in a cell.
"""

import csv
import fnmatch
import gzip
import io
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from medbert_jax.attrition.disclosure import masked
from medbert_jax.disk.tables_on_disk import parquet_schema, scan_parquet
from medbert_jax.ingest.reader import RawTable, Reader

BLOCK_BYTES = 32 * 2**20
"""Of a text file that is parsed at once."""
CELL_BYTES = 2**20
"""Of one cell of a text file, at most: one that is longer has a quotation mark too many or a line end too few."""
CHUNK_ROWS = 1_000_000
"""Rows of a Parquet file that are read at once."""

_ENDINGS = (".csv", ".tsv", ".txt", ".parquet", ".csv.gz", ".tsv.gz")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}.*|\d{8}")
# 12.0, 1.23457E+11, 1e+16, 1.2E11; never 1E11 without sign or dot, which an id in hexadecimal may be.
_FLOAT = r"^\s*-?(\d+\.0+|\d\.\d+[eE][+-]?\d+|\d[eE][+-]\d+)\s*$"
# What a patient's id or a date may be, in a name that is not ours.
_TELLING = re.compile(r"\d{6,}|\d{4}-\d{1,2}-\d{1,2}|\d{1,2}\.\d{1,2}\.\d{4}")
_AGAIN = "make it again with the released scripts, or read their raw table with --format med-bert-tsv"
_CURES = {
    "missing_file": "put it there, or name the folder that holds it",
    "two_files": "leave one of them",
    "missing_column": "export it with this column",
    "duplicate_column": "export it with every column once",
    "unreadable_file": "copy or export it again",
    "not_utf8": "export it as UTF-8",
    "float_id": "export ids as whole numbers or text: as floats, long ones lose digits",
    "float_code": "export codes as text: as floats, 250 and 250.0 or 8 and 008 are the same",
    "lost_zeros": (
        "export ICD-9 as text, or choose --options.icd9-zeros restore (zeros come back where one reading alone is a "
        "complete code) or keep"
    ),
    "dotted_codes": "leave --options.icd9-zeros out",
    "duckdb_file": (
        "export its tables (`mkdir omop && cd omop && duckdb -readonly FILE < docs/export/duckdb.sql`; of other "
        "formats `COPY table TO 'table.parquet'` each) and name their folder"
    ),
    "sqlite_file": (
        "export its tables, those with the columns in docs/export/duckdb.sql if they are OMOP's (`sqlite3 -header -csv "
        "-readonly FILE 'SELECT * FROM person' > person.csv` and so on), and name their folder"
    ),
    "empty_table": "export its rows",
    "two_splits": "leave each subject whole in the folder of one split, or give --options.splits table or none",
    "unlike_splits": "say by --options.splits table or folders which of the two counts",
    "wrong_type": "export it with the types that the format's documentation names",
    **dict.fromkeys(
        ("types_form", "record_form", "empty_record", "unequal_lists", "visit_numbers", "not_whole", "day_range",
         "label_value", "shared_lists"), _AGAIN,
    ),
    "executable_pickle": f"never unpickle this file unless you trust who made it; {_AGAIN}",
    "unknown_number": "put the .types of the same run of the released scripts beside it",
    "repeated_patient": "remove what a second run of the released scripts appended",
}  # fmt: skip


class SourceError(ValueError):
    """A source whose files cannot be read as they are; every fault is in the message."""

    def __init__(self, format: str, faults: "list[Fault]"):
        super().__init__(format, faults)  # the arguments alone, so that it can be sent between processes

    def __str__(self) -> str:
        format, faults = self.args
        lines = [f"{_told(file)}: [{rule}] {what}; {_CURES[rule]}" for file, rule, what in sorted(set(faults))]
        return (
            f"a source of format {format} must have its files as published: got {len(lines)} fault(s):\n  - "
            + "\n  - ".join(lines)
        )


class FileFault(Exception):
    """A fault of one file, and those that were found with it."""

    def __init__(self, file: str, rule: str, what: str, *more: "Fault"):
        super().__init__(file, rule, what, *more)
        self.fault = (file, rule, what)
        self.faults = [self.fault, *more]


@dataclass(frozen=True)
class RawFile:
    """One file of one table."""

    table: RawTable
    path: Path
    name: str
    """Below the source's folder."""


Fault = tuple[str, str, str]
"""File, rule, what is wrong."""


def _told(name: str) -> str:
    """The name of a file to be mended, without what may be an id or a date: its number among the parts stays."""
    return _TELLING.sub(lambda found: masked(found[0]), name)


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
    suspects = names.items() if missing or source.is_file() else ()
    if databases := [(name, *fault) for name, path in suspects if (fault := _database(path))]:
        return found, [], databases
    wanted = [" or ".join(table.files) or f"{table.name}.csv or .parquet" for table in missing]
    faults = [(text, "missing_file", f"is not in {source.name}") for text in wanted]
    twins: dict[str, list[str]] = {}
    for file in found:
        ending = next((ending for ending in _ENDINGS[::-1] if file.name.lower().endswith(ending)), "")
        twins.setdefault(file.name.lower().removesuffix(ending), []).append(file.name)
    for first, *others in twins.values():
        faults += [(first, "two_files", f"is there as {', '.join(map(_told, others))} too")] * bool(others)
    taken = {file.name for file in found}
    return found, [name for name in names if name not in taken], faults


def _database(path: Path) -> tuple[str, str] | None:
    """Rule and words where a file is a database, whatever its name; None where it is none."""
    try:
        with path.open("rb") as stream:
            head = stream.read(16)
    except OSError:
        return None
    if head[8:12] == b"DUCK":
        return "duckdb_file", "is a DuckDB database, whose tables are not read out of it"
    if head == b"SQLite format 3\0":
        return "sqlite_file", "is an SQLite database, whose tables are not read out of it"
    return None


def _is_of(table: RawTable, name: str) -> bool:
    lower = name.lower()
    if not lower.endswith(_ENDINGS) and not table.files:
        return False
    folder, _, _ = lower.rpartition("/")
    in_parts = folder.endswith(_ENDINGS) and lower.endswith(_ENDINGS)  # person.parquet/part-0.parquet, as Spark writes
    if table.files:  # "**/" is any folders or none; fnmatch's * crosses them already
        names = (lower, *[folder] * in_parts)
        patterns = [pattern.lower().replace("/**/", "/*") for pattern in table.files]
        return any(fnmatch.fnmatch(name, pattern) for name in names for pattern in patterns)
    first, _, rest = lower.partition("/")
    return (first if rest and not first.endswith(_ENDINGS) else first.partition(".")[0]) == table.name


def size_in_memory(file: RawFile) -> int:
    """Bytes that the file's columns take in memory, roughly: sets the number of shards, nothing else."""
    size = file.path.stat().st_size
    if file.name.lower().endswith(".gz"):
        return 8 * size
    if file.table.frames:
        return 10 * size
    return size if not file.name.lower().endswith(".parquet") else 6 * size


def read_chunks(file: RawFile, files: Sequence[RawFile] = ()) -> Iterator[pl.DataFrame]:
    """The table's columns (lower-case names), `patient` as text without blanks around; at least one chunk, maybe empty.

    Text files give text, blanks around it dropped, "" as null. Absent optional columns are null. `files` are all those
    of the source. Raises FileFault.
    """
    table = file.table
    if table.frames:
        chunks = table.frames(file, files)
    else:
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
        chunk = _plain_ids(chunk, file)
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
        yield "wrong_type", f"column {column} holds {dtype}, no dates or times"


def _plain_ids(chunk: pl.DataFrame, file: RawFile) -> pl.DataFrame:
    """The chunk with its patient column as text. Raises FileFault for ids that are floats or hold NUL."""
    patient = file.table.patient
    ids = [name for name in chunk.columns if name in (patient, *file.table.ids) or name.endswith("_id")]
    decimals = {name: dtype.scale for name in ids if isinstance(dtype := chunk.schema[name], pl.Decimal)}
    floats = [name for name in ids if chunk.schema[name].is_float()]
    floats += [name for name, scale in decimals.items() if scale]
    for name in set(decimals) - set(floats):
        try:
            chunk = chunk.with_columns(pl.col(name).cast(pl.Int64))
        except pl.exceptions.PolarsError:
            chunk = chunk.with_columns(pl.col(name).cast(pl.String))
    texts = [name for name in ids if chunk.schema[name] == pl.String]
    typed = file.name.lower().endswith(".parquet")  # of text files it is known of every byte
    if typed and any(chunk[name].str.contains("\0", literal=True).any() for name in texts):
        raise FileFault(file.name, "unreadable_file", "holds NUL bytes")
    # Only what a float export looks like: codes in a column of ids may well have a dot.
    written = chunk.select(pl.col(texts).str.contains(_FLOAT).any())
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


def _text_chunks(file: RawFile) -> Iterator[pl.DataFrame]:
    pieces, head, separator = _pieces(file), b"", file.table.separator
    for piece in pieces:
        head += piece
        if b"\n" in piece or len(head) > CELL_BYTES:
            break
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise FileFault(file.name, "not_utf8", "is UTF-16")
    first, _, rest = head.removeprefix(b"\xef\xbb\xbf").partition(b"\n")
    if b"\r" in first.rstrip(b"\r"):
        raise FileFault(file.name, "unreadable_file", "ends its lines by carriage returns alone")
    if len(first) > CELL_BYTES:
        raise FileFault(file.name, "unreadable_file", "has no header line")
    header = _utf8(first, file).rstrip("\r")
    if separator not in header and "\t" in header:
        separator = "\t"  # as the vocabulary files of OHDSI's Athena are, under the ending .csv
    # Text between tabs is not quoted, and a quotation mark is one, unless all names of the header are.
    quoted = separator != "\t" or (header.startswith('"') and header.endswith('"'))
    try:
        columns = next(csv.reader([header], delimiter=separator, strict=True)) if quoted else header.split(separator)
    except (csv.Error, StopIteration):
        columns = []
    if not header.strip() or not columns:
        raise FileFault(file.name, "unreadable_file", "has no header line that can be read")
    if file.table.by_position and any(_DATE.fullmatch(name.strip()) for name in columns):
        raise FileFault(file.name, "unreadable_file", "has data in place of a header line")
    numbered = [f"{place}" for place in range(len(columns))]
    wanted = {*file.table.required, *file.table.optional}
    places = range(len(columns))
    if not file.table.by_position:
        places = [place for place in places if columns[place].strip().lower() in wanted]
    # Names may repeat, which a frame cannot hold: found here.
    names = [columns[place].strip().lower() for place in places]
    if file.table.by_position:
        names = [str(place) for place in places]
    elif len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise FileFault(file.name, "duplicate_column", f"column {', '.join(twice)} is there more than once")
    pieces = itertools.chain((rest,), pieces)
    for block, rows in _whole_rows(file, pieces, ord(separator), quoted, len(columns)):
        if b"\0" in block:
            raise FileFault(file.name, "unreadable_file", "holds NUL bytes")
        _utf8(block, file)
        chunk = pl.DataFrame(schema=dict.fromkeys(numbered, pl.String))
        if rows:
            try:
                chunk = pl.read_csv(
                    io.BytesIO(block),
                    has_header=False,
                    schema=chunk.schema,
                    separator=separator,
                    quote_char='"' if quoted else None,
                )
            except pl.exceptions.PolarsError:
                raise FileFault(file.name, "unreadable_file", "has rows that cannot be read") from None
            if chunk.height != rows:
                raise FileFault(file.name, "unreadable_file", f"has {rows} rows where {chunk.height} can be read")
        chunk = chunk.select(pl.nth(list(places)).str.strip_chars().replace("", None))
        yield chunk.rename(dict(zip(chunk.columns, names, strict=True)))


def _whole_rows(
    file: RawFile, pieces: Iterator[bytes], separator: int, quoted: bool, width: int
) -> Iterator[tuple[bytes, int]]:
    """Blocks that end at the end of a row, blank lines left out, and the rows in each; at least one block.

    Rows and fields are counted here, from separators and line ends outside of quotes; no row is read before.
    """

    def fault(what: str) -> FileFault:
        return FileFault(file.name, "unreadable_file", what)

    rest = b""
    for piece in itertools.chain(pieces, (None,)):
        if piece is None and not rest:
            return
        block = rest + (b"\n" if piece is None else piece)
        values = np.frombuffer(block, np.uint8)
        edge, mark = (values == separator) | (values == 10), None  # where a field ends; a quotation mark
        if quoted and b'"' in block:
            mark = values == 34
            inside = _inside(mark)
            edge &= ~inside
        edges = np.flatnonzero(edge)
        ends = np.flatnonzero(values[edges] == 10)  # at which of them a row does
        stops = edges[ends]
        used, fields = (int(stops[-1]) + 1 if len(stops) else 0), np.diff(ends, prepend=-1)
        if piece is None and used < len(block):
            raise fault("has a quotation mark that nothing closes")
        longest = np.diff(stops, prepend=-1, append=len(block)).max()
        if longest > CELL_BYTES and np.diff(edges, prepend=-1, append=len(block)).max() > CELL_BYTES:
            raise fault(f"has a cell of more than {CELL_BYTES:,} bytes, or a quotation mark that nothing closes")
        if mark is not None and used:
            if _is_misplaced(values[:used], mark[:used], inside[:used], edge[:used]):
                raise fault("has quotation marks within a cell: not doubled, or the cell not quoted")
            if _spans_rows(values[:used], mark[:used], inside[:used], stops, separator, width):
                raise fault("has quotation marks that span whole rows")
        begins = np.append(0, stops[:-1] + 1)
        blank = [row for row in np.flatnonzero(fields == 1) if not block[begins[row] : stops[row]].strip()]
        found = np.delete(fields, blank)
        # A row that goes on in the next block may have too many already.
        found = np.append(found, max(width, len(edges) - int(fields.sum()) + 1))
        if (wrong := found[found != width]).size:
            raise fault(f"has rows of {wrong[0]} fields under a header of {width}")
        rest, whole = block[used:], block[:used]
        if blank:
            keep = np.ones(used, bool)
            for row in blank:
                keep[begins[row] : stops[row] + 1] = False
            whole = values[:used][keep].tobytes()
        yield whole, len(found) - 1


def _inside(mark: np.ndarray) -> np.ndarray:
    """Where the number of quotation marks so far is odd: a running parity, 64 bytes at a time."""
    bits = np.packbits(mark, bitorder="little")
    words = np.concatenate([bits, np.zeros(-len(bits) % 8, np.uint8)]).view("<u8")
    for shift in (1, 2, 4, 8, 16, 32):
        words ^= words << np.uint64(shift)
    before = np.bitwise_xor.accumulate(words >> np.uint64(63))
    words[1:] ^= np.where(before[:-1], ~np.uint64(0), np.uint64(0))
    return np.unpackbits(words.view(np.uint8), count=len(mark), bitorder="little").view(bool)


def _is_misplaced(values: np.ndarray, mark: np.ndarray, inside: np.ndarray, edge: np.ndarray) -> bool:
    """Whether a mark of whole rows opens or closes within a cell; two marks in a row are one of the cell's text."""
    begins, closes = edge | mark, mark & ~inside
    stray = (mark & inside)[1:] & ~begins[:-1]
    if stray.any():
        return True
    line_end = values == 13
    line_end[:-1] &= values[1:] == 10
    return bool((closes[:-1] & ~(begins | line_end)[1:]).any())


def _spans_rows(
    values: np.ndarray, mark: np.ndarray, inside: np.ndarray, stops: np.ndarray, separator: int, width: int
) -> bool:
    """Whether each line that some row is spread over would be a row as well, its marks taken as text.

    A quoted cell may hold line ends. But one mark too many in each of two rows makes a cell of all that is between
    them, and both readings hold: neither is taken.
    """
    lines = np.flatnonzero(values == 10)
    if len(lines) == len(stops):
        return False
    marks = np.flatnonzero(mark)
    opens = marks[::2][np.append(True, marks[2::2] != marks[1:-1:2] + 1)]
    broken = np.zeros(len(opens), bool)
    broken[np.searchsorted(opens, lines[inside[lines]]) - 1] = True
    separators = np.flatnonzero(values == separator)
    text = inside[separators]  # separators in a cell of one line are text in both readings
    text[text] = ~broken[np.searchsorted(opens, separators[text]) - 1]
    fields = np.diff(np.searchsorted(separators[~text], lines), prepend=0) + 1
    length = np.diff(lines, prepend=-1)
    blank = (length == 1) | ((length == 2) & (values[lines - 1] == 13))
    row = np.searchsorted(stops, lines)
    unlike = np.bincount(row, (fields != width) & ~blank)
    return bool(((np.bincount(row) > 1) & (unlike == 0)).any())


def _utf8(content: bytes, file: RawFile) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise FileFault(file.name, "not_utf8", "has bytes that are not UTF-8") from None


def _pieces(file: RawFile) -> Iterator[bytes]:
    opened = gzip.open if file.name.lower().endswith(".gz") else open
    try:
        with opened(file.path, "rb") as stream:
            while piece := stream.read(BLOCK_BYTES):
                yield piece
    except (OSError, EOFError, gzip.BadGzipFile):
        raise FileFault(file.name, "unreadable_file", "is truncated, damaged or may not be read") from None
