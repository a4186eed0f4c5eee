"""What a reader is: the raw tables of a source, and one function from a shard's raw rows to rough EHR tables."""

from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal

import polars as pl

from medbert_jax.checked_fields import check_fields
from medbert_jax.ingest.dates import form_faults, read_times, shapes
from medbert_jax.ingest.rough import Rough

_UNREADABLE: ContextVar["dict[tuple[str, int, int], tuple[int, Counter[str]]] | None"] = ContextVar(
    "unreadable", default=None
)
_UNKNOWN_DAYS: ContextVar[tuple[date, ...]] = ContextVar("unknown_days", default=())
DEFAULT = "default"
"""Among the spellings of nothing: those that are known here (`ingest.columns`)."""


@dataclass(frozen=True)
class RawTable:
    """One table of a source, in one file or many."""

    name: str
    """Lower case; the name of its file without extension, or of its folder, where `files` says nothing else."""
    patient: str
    """Column that names the patient; "" for a lookup, which every shard gets whole."""
    required: tuple[str, ...]
    """Columns (lower case) without which the source is refused."""
    optional: tuple[str, ...] = ()
    """Columns taken where they are there; they arrive as nulls where not."""
    needed: bool = True
    """Whether the source is refused without this table."""
    files: tuple[str, ...] = ()
    """Patterns of its files below the source folder, in place of its name."""
    separator: str = ","
    """Between the columns of its text files."""
    by_position: bool = False
    """Whether the columns are `required`, in this order, whatever the header calls them."""
    times: tuple[str, ...] = ()
    """Columns of dates or times: refused with a type of their own, and where none of a column's cells is a date."""
    numbers: tuple[str, ...] = ()
    """Columns of numbers, in which text files with semicolons may have a decimal comma."""
    names: tuple[str, ...] = ()
    """Columns of names that somebody gave to things: None and NA are names there, and NULL is nothing everywhere."""
    codes: tuple[str, ...] = ()
    """Columns of codes: refused as floats, of which 250 and 250.0 are the same."""
    ids: tuple[str, ...] = ()
    """Columns of ids beside the patient's and those named …_id: refused as floats."""
    stay: tuple[str, str] | None = None
    """Columns of the first and the last day of a stay, where a row of the table tells of one."""
    of_name: tuple[str, str] | None = None
    """A column of texts that the name of a file says where the file does not, and the expression whose group it is."""
    folder: str = ""
    """Column that is given the folder of each row's file, below the source's; "": none."""
    key: str = ""
    """Of a lookup: the column of its ids; only rows that a column KEY or …_KEY of another table names are kept."""
    leads: tuple[str, ...] = ()
    """Of a lookup that leads from ids of another to more of its ids: the other's key, the columns from and to. What is
    led to counts as named, and all rows that lead to it are kept."""
    only: tuple[str, ...] = ()
    """A column and its value: other rows are not taken."""
    option: str = ""
    """The reader's option that asks for the table, which is then needed; not read without."""
    frames: Callable[[Any, Any], Iterator[pl.DataFrame]] | None = None
    """Of files that are neither text nor Parquet: one of them and all files of the source (`source_files.RawFile`) →
    its rows, in chunks. Raises FileFault."""


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """Options of every reader; those of one alone are a class under this one."""

    icd9_zeros: Literal["refuse", "restore", "keep"] = "refuse"
    """What becomes of a source whose ICD-9 codes, written without a dot, lost the zeros that they began with: it is
    refused; zeros are put back where of a code as written and with zeros before it one alone is billable; or all codes
    stay as written."""
    unknown_days: str = ""
    """Days that stand for "unknown" in this source, with commas between them (1970-01-01,1900-01-01): a date or time of
    such a day is read as unknown, and counted."""
    null_spellings: tuple[str, ...] = (DEFAULT,)
    """What stands for an empty cell, as it is written; `default` are NULL, \\N, NA, N/A, #N/A, None, NaN, -, . and the
    like. `default ? unk` adds two of the site's own, `?` alone takes the place of all."""
    date_format: tuple[str, ...] = ()
    """Forms of dates beside 2011-05-03 and 20110503, tried first: '%d.%m.%Y', '%d-%b-%y' (03-MAY-11; years 69 to 99 are
    of the last century), '%m/%d/%Y %H:%M'; excel for the day numbers of a spreadsheet (40666 is 2011-05-03)."""
    whole_ids: bool = False
    """Whether ids are whole numbers: 1.0 and 0101 are read as 1 and 101. Every value of a column that has any of these
    must be a whole number then, or the source is refused."""

    def __post_init__(self):
        """Check every field; all faults are in one error."""
        check_fields(self, also=self._faults())

    def days(self) -> tuple[date, ...]:
        """Of `unknown_days`. Raises ValueError."""
        return tuple(date.fromisoformat(one) for one in self.unknown_days.replace(",", " ").split())

    def _faults(self) -> Iterator[str]:
        """Lines on rules that no annotation says; those of a reader's own options follow."""
        try:
            self.days()
        except ValueError:
            yield (
                "unknown_days must be days like 1970-01-01, with commas between them: got "
                f"{self.unknown_days!r}; write year, month and day of each"
            )
        yield from form_faults(self.date_format)


@dataclass(frozen=True)
class Reader:
    """A source format."""

    format: str
    tables: tuple[RawTable, ...]
    build: Callable[[dict[str, pl.DataFrame], Any], Rough]
    """Raw tables of one shard by name, and the options → rough tables. Pure; drops no bad row."""
    options: type = SourceOptions
    """Frozen dataclass with defaults, `SourceOptions` or under it."""
    check: Callable[[Counter[str], Any], Iterable[str]] | None = None
    """Raises SourceError where `Rough.told`, summed over all shards, shows that the options do not fit the source;
    gives lines for the user where it shows that others would fit better."""
    remedies: Mapping[str, str] = field(default_factory=dict)
    """Rule under which rows leave → the option, or the file, that would keep them."""


class Unreadable(Counter[str]):
    """By column, cells that hold something of which nothing could be made."""

    def __init__(self):
        super().__init__()
        self.shapes: Counter[tuple[str, str]] = Counter()
        """By column and shape (`ingest.dates.shapes`), those that are no date."""


@contextmanager
def counting_unreadable() -> Generator[Unreadable]:
    """Count by column, while the block runs, the cells that hold something of which a conversion below makes null."""
    found, counts = {}, Unreadable()
    token = _UNREADABLE.set(found)
    try:
        yield counts
    finally:
        _UNREADABLE.reset(token)
        for (column, *_), (cells, of_shape) in found.items():
            counts[column] += cells
            for shape, count in of_shape.items():
                counts.shapes[column, shape] += count


@contextmanager
def reading_as_unknown(days: tuple[date, ...]) -> Generator[None]:
    """Read dates and times of these days as null, while the block runs; they are counted as unreadable."""
    token = _UNKNOWN_DAYS.set(days)
    try:
        yield
    finally:
        _UNKNOWN_DAYS.reset(token)


def count_unknown(what: str, cells: int) -> None:
    """Count cells that can be read, but cannot be so (a time of another day than its date), beside the unreadable."""
    found = _UNREADABLE.get()
    if found is not None and cells:
        found[what, -len(found), cells] = cells, Counter()


def _counted(written: pl.Series, read: pl.Series, date: pl.Series | None = None) -> pl.Series:
    """`read`, its unreadable cells counted; with their shapes, where they are a `date`'s text."""
    found = _UNREADABLE.get()
    if found is not None and read.null_count() > written.null_count():
        said = written.is_not_nan() & written.is_not_null() if written.dtype.is_float() else text(written).is_not_null()
        lost = read.is_null() & said.fill_null(False)
        if cells := int(lost.sum()):
            of_shape = Counter() if date is None else shapes(date.filter(lost))
            found[written.name, len(written), cells] = cells, of_shape  # a reader may convert a column twice
    return read


def text(values: pl.Series) -> pl.Series:
    """As text without blanks around it; null where nothing is left."""
    if values.dtype == pl.Binary:
        values = values.cast(pl.String, strict=False)
    if values.null_count() == len(values):
        return values.cast(pl.String)
    stripped = values.cast(pl.String).str.strip_chars()
    return stripped.set(stripped == "", None)


def number(values: pl.Series) -> pl.Series:
    """As Float64; null where it is no finite number."""
    return _counted(values, _number(values))


def _number(values: pl.Series) -> pl.Series:
    # A narrow float, and a decimal, is the number that it is written as: 5.7, not 5.699999809265137.
    narrow = values.dtype in (pl.Float32, pl.Float16) or isinstance(values.dtype, pl.Decimal)
    as_it_is = values.dtype.is_numeric() and not narrow
    read = (values if as_it_is else text(values)).cast(pl.Float64, strict=False)
    return read.set(~read.is_finite().fill_null(True), None)


def whole(values: pl.Series) -> pl.Series:
    """As Int64; null where it is no whole number ("3.0" is one)."""
    if values.dtype.is_integer():
        return _counted(values, values.cast(pl.Int64, strict=False))
    read = _number(values)
    return _counted(values, read.set(read != read.round(), None).cast(pl.Int64, strict=False))


def moment(values: pl.Series) -> pl.Series:
    """As naive Datetime in µs; null where it is no time. Unreadable text is counted by its shape too.

    Text is read as 2011-05-03, 20110503, 2011-05-03 14:05[:06[.123456]] (blank or T between, a Z or an offset at the
    end dropped: local clock as written), and 20110503.0, as dates that a program took for numbers come. So it is for
    columns with a time zone: the clock of that zone is kept, and a column in UTC is read as the clock it shows.
    """
    if values.dtype == pl.Date:
        return _known(values, values.cast(pl.Datetime("us")))
    if isinstance(values.dtype, pl.Datetime):
        return _known(values, values.dt.replace_time_zone(None).cast(pl.Datetime("us")))
    written = text(values)
    return _known(values, read_times(written), written)


def _known(written: pl.Series, read: pl.Series, date: pl.Series | None = None) -> pl.Series:
    if days := _UNKNOWN_DAYS.get():
        date = None if date is None else date.set(read.is_not_null(), None)  # these have a form that is read
        read = read.set(read.dt.date().is_in(list(days)).fill_null(False), None)
    return _counted(written, read, date)


def day(values: pl.Series) -> pl.Series:
    """As Date; null where it is no date. Reads what `moment` reads."""
    return moment(values).cast(pl.Date)


def named(values: pl.Series, names: dict[str, str], unknown: Collection[str] = ()) -> pl.Series:
    """As the name of each code (in capitals; "1.0" is "1"), null for all others; `unknown` are codes that say so."""
    codes = text(values).str.to_uppercase().str.strip_suffix(".0")
    codes = codes.set(codes.is_in(list(unknown)).fill_null(False), None)
    return _counted(codes, codes.replace_strict(names, default=None, return_dtype=pl.String))


def flag(values: pl.Series) -> pl.Series:
    """As Boolean of Y, YES, TRUE, T, 1 and N, NO, FALSE, F, 0 (any case); null for anything else."""
    if values.dtype == pl.Boolean:
        return values
    letters = text(values).str.to_lowercase().str.strip_suffix(".0")
    known = {
        **dict.fromkeys(("y", "yes", "true", "t", "1"), True),
        **dict.fromkeys(("n", "no", "false", "f", "0"), False),
    }
    return _counted(values, letters.replace_strict(known, default=None, return_dtype=pl.Boolean))
