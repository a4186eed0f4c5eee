"""The files of a source, found by table, and their faults: all of them are collected before they stop a run.

Messages name files, columns and rules, never what stands in a cell.
"""

import fnmatch
import re
from dataclasses import dataclass
from pathlib import Path

from medbert_jax.attrition.disclosure import masked
from medbert_jax.ingest.dates import FORMS
from medbert_jax.ingest.reader import RawTable, Reader

_ENDINGS = (".csv", ".tsv", ".txt", ".parquet", ".csv.gz", ".tsv.gz")
# What a patient's id or a date may be, in a name that is not ours.
_TELLING = re.compile(r"\d{6,}|\d{4}-\d{1,2}-\d{1,2}|\d{1,2}\.\d{1,2}\.\d{4}")
_AGAIN = "make it again with the released scripts, or read their raw table with --format med-bert-tsv"
_CURES = {
    "missing_file": "put it there, or name the folder that holds it",
    "two_files": "leave one of them",
    "missing_column": "export it with this column",
    "duplicate_column": "export it with every column once",
    "unreadable_file": "copy or export it again",
    "ragged_row": "quote the cells that hold the separator or a line end, or export it with another separator",
    "not_utf8": "export it as UTF-8",
    "float_id": "export ids as whole numbers or text: as floats, long ones lose digits (of tables, --options.whole-ids "
    "reads a column of which every value is whole)",
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
    "id_not_whole": "leave out --options.whole-ids, or export these ids as whole numbers",
    "unlike_ids": "write the ids alike in all tables, or give --options.whole-ids, which reads 0101 as 101",
    "no_dates": f"read are {FORMS}: give the form of these by --options.date-format, or leave the column empty",
    "two_dates": "give only the form that the source has",
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
