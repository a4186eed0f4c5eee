"""Columns are judged as columns, before any reader sees them: what is nothing, what is a date, what a decimal comma is.

What was seen adds up over the chunks and files of a source; only together does it say whether a column is sound.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields

import polars as pl

from medbert_jax.ingest.dates import EXCEL, FORMS, read_times, rewritten, shapes, told_shapes
from medbert_jax.ingest.id_columns import ids_as_written
from medbert_jax.ingest.reader import DEFAULT, RawTable, SourceOptions
from medbert_jax.ingest.source_files import Fault, FileFault, RawFile

MARKS = (
    "NULL", "null", "Null", "(null)", "(NULL)", "<null>", "<NULL>", "[NULL]", "[null]", "#NULL!", r"\N",
    "#N/A", "#N/A N/A", "#NA", "<NA>", "#VALUE!", "#REF!", "#DIV/0!", "#NUM!", "#NAME?",
    "NaN", "nan", "NAN", "-NaN", "-nan", "1.#QNAN", "-1.#QNAN", "1.#IND", "-1.#IND", "NaT", "<NaT>",
)  # fmt: skip
"""Spellings of nothing that programs write, and nobody else: so they are read in every column."""
WORDS = ("NA", "N/A", "n/a", "None", "NONE", "none", "-", "--", "---", ".")
"""Spellings of nothing that may be a name: read in every column but those of names (`RawTable.names`)."""

NO_DAYS = (
    "0000-00-00", "0000-00-00 00:00:00", "0000-00-00T00:00:00", "00000000", "00/00/0000", "00.00.0000", "0",
)  # fmt: skip
"""What MySQL and files of fixed width write where there is no day: read as nothing in columns of dates."""

SEPARATORS = {",": "comma", ";": "semicolon", "|": "bar", "\t": "tab"}
"""What may stand between the columns of text files, and its name."""

_SAMPLE = 1000  # cells of a column of dates that are asked before all are


@dataclass
class Judged:
    """What was seen of the columns of some chunks, by table and column."""

    empty: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """And spelling: cells read as empty."""
    dates: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """And shape: cells of chunks without any date; under shape "" chunks in which there is one."""
    ids: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """And what they are (`ingest.id_columns`)."""
    decimals: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """And "comma" or "point": numbers with one, in columns where a comma was read as a point."""
    separators: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By separator and table: text files that have another than their format's."""
    rules: Counter[str] = field(default_factory=Counter)
    """By table: rows of dashes under a header, which are no rows."""
    lines: list[str] = field(default_factory=list)
    """What is known only of the whole source, in words."""

    def add(self, other: "Judged") -> None:
        """Add what was seen elsewhere."""
        for one in fields(self):
            mine, its = getattr(self, one.name), getattr(other, one.name)
            mine.extend(its) if isinstance(mine, list) else mine.update(its)


def judge(chunk: pl.DataFrame, file: RawFile, options: SourceOptions, judged: Judged) -> pl.DataFrame:
    """The chunk with nulls for what is nothing, text without blanks around it, dates in one form, ids as they compare.

    What was seen is added to `judged`. Raises FileFault.
    """
    table = file.table
    chunk = _without_nothings(chunk, table, options.null_spellings, judged)
    for column in table.times:
        chunk = _dates(chunk, column, file, options.date_format, judged)
    return ids_as_written(chunk, file, options.whole_ids, judged.ids)


def _without_nothings(chunk: pl.DataFrame, table: RawTable, spellings: Sequence[str], judged: Judged) -> pl.DataFrame:
    own = tuple(one.strip() for one in spellings if one != DEFAULT)
    marks, words = (own, ()) if DEFAULT not in spellings else ((*own, *MARKS), WORDS)
    texts = [
        name for name, dtype in chunk.schema.items() if dtype == pl.String and chunk[name].null_count() < len(chunk)
    ]
    chunk = chunk.with_columns(pl.col(texts).str.strip_chars())
    days = NO_DAYS if DEFAULT in spellings else ()
    nothing = {
        name: ["", *marks, *(words if name not in table.names else ()), *(days if name in table.times else ())]
        for name in chunk.columns
    }
    found = chunk.select(pl.col(name).is_in(nothing[name]) for name in texts)
    for name in found.columns:
        if found[name].any():
            _count(chunk[name].filter(found[name]), table, judged)
            chunk = chunk.with_columns(pl.when(~found[name]).then(pl.col(name)))
    for name, dtype in chunk.schema.items():
        if dtype.is_float() and (nans := int(chunk[name].is_nan().sum())):
            judged.empty[table.name, name, "NaN"] += nans
            chunk = chunk.with_columns(pl.col(name).fill_nan(None))
        elif dtype == pl.List(pl.String):
            cells = chunk[name].explode().str.strip_chars()
            if (empty := cells.is_in(nothing[name]).fill_null(False)).any():
                _count(cells.filter(empty), table, judged)
                cell = pl.element().str.strip_chars()
                chunk = chunk.with_columns(pl.col(name).list.eval(pl.when(~cell.is_in(nothing[name])).then(cell)))
    return chunk


def _count(cells: pl.Series, table: RawTable, judged: Judged) -> None:
    for spelling, count in cells.value_counts().iter_rows():
        if spelling:
            judged.empty[table.name, cells.name, spelling] += count


def _dates(chunk: pl.DataFrame, column: str, file: RawFile, forms: Sequence[str], judged: Judged) -> pl.DataFrame:
    """The chunk, dates of the option's forms written as all others; where it has no date, its shapes are counted."""
    if EXCEL in forms and chunk.schema[column].is_numeric():
        chunk = chunk.with_columns(pl.col(column).cast(pl.String))
    if forms and chunk.schema[column] == pl.String:
        written, unlike = rewritten(chunk[column], forms)
        if unlike:
            what = f"column {column} has {unlike:,} cells that two forms of --options.date-format read as unlike days"
            raise FileFault(file.name, "two_dates", what)
        chunk = chunk.with_columns(written)
    key = file.table.name, column
    if chunk.schema[column] != pl.String:  # what other types hold no dates is refused by type
        judged.dates[*key, ""] += chunk[column].null_count() < len(chunk)
        return chunk
    values = chunk[column].drop_nulls()
    if any(read_times(some).is_not_null().any() for some in (values.head(_SAMPLE), values[_SAMPLE:])):
        judged.dates[*key, ""] += 1
    else:
        judged.dates.update({(*key, shape): count for shape, count in shapes(values).items()})
    return chunk


def decimal_points(chunk: pl.DataFrame, table: RawTable, judged: Judged) -> pl.DataFrame:
    """The text of a file with semicolons, a decimal comma of its numbers written as a point."""
    for column in set(table.numbers) & set(chunk.columns):
        with_comma = chunk[column].str.contains(r"^\s*[-+]?\d*,\d+\s*$").fill_null(False)
        if with_comma.any():
            judged.decimals[table.name, column, "comma"] += int(with_comma.sum())
            point = pl.col(column).str.replace(",", ".", literal=True)
            chunk = chunk.with_columns(pl.when(with_comma).then(point).otherwise(pl.col(column)))
        judged.decimals[table.name, column, "point"] += int(
            (chunk[column].str.contains(r"^\s*[-+]?\d*\.\d+\s*$").fill_null(False) & ~with_comma).sum()
        )
    return chunk


def dateless(judged: Judged, files: Sequence[RawFile]) -> Iterator[Fault]:
    """The columns of dates that have cells and no date, each as a fault of its table's first file."""
    found: dict[tuple[str, str], Counter[str]] = {}
    for (table, column, shape), count in judged.dates.items():
        found.setdefault((table, column), Counter())[shape] += count
    for (table, column), of_shape in found.items():
        if of_shape.total() and not of_shape[""]:
            name = min(file.name for file in files if file.table.name == table)
            yield name, "no_dates", f"column {column} has no date: {told_shapes(+of_shape)}"


def told(judged: Judged) -> list[str]:
    """What a user should know of columns that were read otherwise than they are written, a line for each."""
    by_separator: dict[str, list[str]] = {}
    for separator, table in sorted(judged.separators):
        by_separator.setdefault(separator, []).append(table)
    lines = [f"columns between {SEPARATORS[sign]}s: {', '.join(tables)}" for sign, tables in by_separator.items()]
    lines += [f"the row of dashes under the header of {table} is no row" for table in sorted(judged.rules)]
    by_column: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for (table, column, spelling), count in judged.empty.items():
        by_column.setdefault((table, column), []).append((-count, spelling))
    for (table, column), found in sorted(by_column.items()):
        said = ", ".join(
            f"{-count:,} {'cell' if count == -1 else 'cells'} {spelling!r}" for count, spelling in sorted(found)
        )
        lines.append(f"column {column} of {table}: {said} read as empty")
    for table, column, _ in sorted(key for key in judged.decimals if key[2] == "comma"):
        commas, points = (judged.decimals[table, column, sign] for sign in ("comma", "point"))
        beside = f", beside {points:,} with a point" * bool(points)
        lines.append(f"column {column} of {table}: {commas:,} numbers with a decimal comma (5,7 is 5.7){beside}")
    return lines + judged.lines


def read_as_empty(judged: Judged) -> dict[str, dict[str, int]]:
    """Cells read as empty by TABLE.COLUMN and spelling, for the ledger."""
    record: dict[str, dict[str, int]] = {}
    for (table, column, spelling), count in sorted(judged.empty.items()):
        record.setdefault(f"{table}.{column}", {})[spelling] = count
    return record


def assumed(options: SourceOptions) -> Iterator[str]:
    """What options say of all columns, for the assumptions of the tables."""
    if options.null_spellings != (DEFAULT,):
        yield f"Empty cells are those that say {', '.join(options.null_spellings)} (default: what is known here)."
    if options.date_format:
        yield f"Dates are read as {', '.join(options.date_format)}, else as {FORMS}."
    if options.whole_ids:
        yield "Ids are whole numbers: 1.0 and 0101 are read as 1 and 101."
