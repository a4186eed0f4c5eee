"""Validation of EHR tables on disk: every fault of every file and row, counted under the rules of `rules.py`.

One shard is in memory at a time (per worker). A file whose sha256 is not that in source.json is reported and not read:
the rules that need it are named as not run there, all others go on. A folder without a source.json that can be read is
read by the names of its files, without checksums.
"""

import functools
import hashlib
import io
import re
from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path

import polars as pl

from medbert_jax.attrition.disclosure import masked
from medbert_jax.disk.whole_files import meant_for
from medbert_jax.ehr.hashing import SPLITS
from medbert_jax.ehr.schema import ADDED, REQUIRED_TABLES, SCHEMAS, TITLES_SCHEMA
from medbert_jax.ehr.shard_files import SPLITS_FILE, TITLES_FILE
from medbert_jax.ehr.shared_visits import UNIQUE_VISITS, count_shared_visits
from medbert_jax.ehr.tables import listed_files, read_source, unwritten_tables, with_added
from medbert_jax.ehr.workers import Workers
from medbert_jax.printed_tables import Table, table_text
from medbert_jax.quality.default_days import default_days, first_days
from medbert_jax.quality.frames import KEYS, count_faults
from medbert_jax.quality.rules import DEFAULT_DAY, FILE_RULES, ROW_RULES, SEVERITIES

_SHARD = re.compile(r"shard-\d{5}-of-(\d{5})\.parquet")
_NAMED = 3  # files named per line
_SPLITS_SCHEMA = {"patient_id": pl.String(), "split": pl.String()}
_TABLES = ("files", *SCHEMAS, "splits", "titles")


@dataclass(frozen=True)
class ReportLine:
    """What one rule found in one table."""

    severity: str
    rule: str
    table: str
    rows: int
    of: int
    unit: str
    """What `rows` and `of` count: rows | files | columns | first visits."""
    files: tuple[str, ...]
    """At most three of the files concerned; where columns are counted, each with its column."""
    file_count: int
    what: str
    cure: str


@dataclass(frozen=True)
class Report:
    """All that a run found, gravest first. Holds no patient id, and no date but days that are nobody's own."""

    lines: tuple[ReportLine, ...]
    rows: dict[str, int]
    """Rows read, by table."""
    shards: int
    not_run: tuple[tuple[str, str, int], ...]
    """(rule, table, shards) for rules that could not be run on some shards, for want of a file or column."""

    @property
    def failed(self) -> bool:
        """Whether a rule of severity error found anything."""
        return any(line.severity == "error" for line in self.lines)

    def to_dict(self) -> dict:
        """The report, JSON-ready."""
        not_run = [dict(zip(("rule", "table", "shards"), one, strict=True)) for one in self.not_run]
        return {
            "failed": self.failed,
            "lines_by_severity": self._by_severity(),
            "shards": self.shards,
            "rows": self.rows,
            "lines": [{**asdict(line), "files": list(line.files)} for line in self.lines],
            "not_run": not_run,
        }

    def render(self) -> str:
        """The report as a text table: per line what was found and where, and under it the rule and its cure."""
        counts = ", ".join(f"{n} {severity}{'s' * (n != 1)}" for severity, n in self._by_severity().items())
        read = ", ".join(f"{n:,} {table}" for table, n in self.rows.items())
        ran = len({rule.id for rule in (*FILE_RULES, *ROW_RULES, DEFAULT_DAY)})
        go_on = "" if self.failed else "; no error: one may go on with `medbert prepare`"
        notes = [
            f"{counts} by {ran} rules, in {self.shards} shard{'s' * (self.shards != 1)} of {read or 'no rows'}{go_on}"
        ]
        if self.not_run:
            names = ", ".join(sorted({rule for rule, _, _ in self.not_run}))
            notes.insert(0, f"not run on some shards, for want of files or columns above: {names}")
        table = Table(
            title="",
            columns=("", "rule", "table", "found", "of", "", "where"),
            rows=tuple(
                (line.severity, line.rule, line.table, f"{line.rows:,}", f"{line.of:,}", line.unit, _where(line))
                for line in self.lines
            ),
            alignment="<<<>><<",
            notes=tuple(notes),
            below=tuple(f"{'':9}{line.what}; cure: {line.cure}" for line in self.lines),
        )
        return table_text(table)

    def _by_severity(self) -> dict[str, int]:
        return {severity: sum(line.severity == severity for line in self.lines) for severity in SEVERITIES}


@dataclass
class _Found:
    """Counts of one shard, or of the folder; adding them up gives the report."""

    rows: dict[tuple[str, str], Counter] = field(default_factory=dict)  # (rule, table) → file → rows
    of: Counter = field(default_factory=Counter)  # table → rows read
    read: Counter = field(default_factory=Counter)  # table → files read
    files: Counter = field(default_factory=Counter)  # table → files there or missing
    columns: Counter = field(default_factory=Counter)  # table → columns of the schema in the files read
    not_run: Counter = field(default_factory=Counter)  # (rule, table) → shards
    visit_files: list[str] = field(default_factory=list)  # whose visits could be read
    first_days: Counter = field(default_factory=Counter)  # day → patients who come then for the first time

    def count(self, rule: str, table: str, file: str, rows: int = 1) -> None:
        if rows:
            self.rows.setdefault((rule, table), Counter())[file] += rows

    def __add__(self, other: "_Found") -> "_Found":
        for key, files in other.rows.items():
            self.rows.setdefault(key, Counter()).update(files)
        for name in ("of", "read", "files", "columns", "not_run", "first_days"):
            getattr(self, name).update(getattr(other, name))
        self.visit_files += other.visit_files
        return self


@dataclass(frozen=True)
class _Work:
    directory: Path
    shard: int
    shards: int
    files: dict[str, tuple[str, str | None]]  # table → path and sha256 of the file that is to be read
    absent: set[str]  # tables that this shard should have and has not
    dated: bool | None
    unique_visits: bool  # in the whole source
    today: date


def validate(directory, *, workers: int = 1, today: date | None = None) -> Report:
    """Run every rule over every shard of a folder of EHR tables.

    Args:
        directory: folder of EHR tables, in whatever state.
        workers: processes, each with one shard in memory; 0: one per core.
        today: after which times count as future; the day of the run if not given.

    Raises:
        FileNotFoundError: no such folder. All other faults are in the report.
        ChildProcessError: a worker died, mostly for want of memory.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise FileNotFoundError(
            f"medbert validate needs a folder of EHR tables: got {directory}, which is no folder; "
            "make it with `medbert ingest`"
        )
    found, work = _look_over(directory, today or date.today())
    with Workers(workers) as each:  # in whatever order they end; added up in that of the shards
        parts = dict(each(_check_shard, work))
    parts = [parts[shard] for shard in range(len(work))]
    found = functools.reduce(_Found.__add__, parts, found)
    for table in REQUIRED_TABLES:
        if work and found.read[table] == len(work) and not found.of[table]:
            found.count("empty_table", table, f"{table}/")
    if work and work[0].unique_visits:
        for file, rows in count_shared_visits(directory, found.visit_files).items():
            found.count("shared_visit_id", "visits", file, rows)
    return _report(found, len(work))


def _report(found: _Found, shards: int) -> Report:
    lines = []
    for rule in (*FILE_RULES, *ROW_RULES):
        for table in rule.tables:
            places = found.rows.get((rule.id, table), Counter())
            rows = places.total()
            of = {"rows": found.of[table], "files": found.files[table], "columns": found.columns[table]}[rule.unit]
            if rows > rule.above * of:
                named = tuple(sorted(places)[:_NAMED])
                lines.append(
                    ReportLine(
                        rule.severity, rule.id, table, rows, of, rule.unit, named, len(places), rule.what, rule.cure
                    )
                )
    lines += _default_days(found)
    lines.sort(key=lambda line: (SEVERITIES.index(line.severity), line.unit == "rows", _TABLES.index(line.table)))
    not_run = tuple(sorted((rule, table, count) for (rule, table), count in found.not_run.items()))
    return Report(tuple(lines), {name: found.of[name] for name in SCHEMAS if name in found.of}, shards, not_run)


def _default_days(found: _Found) -> list[ReportLine]:
    """A line for each day that stands for "unknown"."""
    rule, of = DEFAULT_DAY, found.first_days.total()
    return [
        ReportLine(
            rule.severity, rule.id, "visits", patients, of, "first visits", (), 0,
            rule.what.format(day=day, share=patients / of), rule.cure.format(day=day),
        )
        for day, patients in default_days(found.first_days).items()
    ]  # fmt: skip


def _where(line: ReportLine) -> str:
    more = line.file_count - len(line.files)
    return ", ".join(file.removeprefix(f"{line.table}/") for file in line.files) + f" and {more:,} more" * (more > 0)


def _look_over(directory: Path, today: date) -> tuple[_Found, list[_Work]]:
    """The faults of the folder as such, and what is to be read, shard by shard."""
    found, source, listed = _Found(), None, None
    unwritten = [] if (directory / "source.json").exists() else unwritten_tables(directory)
    if unwritten:  # nothing else can be said of them
        found.files["files"] = len(list(directory.iterdir()))
        for file in unwritten:
            found.count("unwritten_table", "files", file)
        return found, []
    try:
        source = read_source(directory)
        listed = listed_files(directory)
        if not 0 < source.shards < 100_000:
            raise ValueError
    except FileNotFoundError:
        found.count("missing_source", "files", "source.json")
    except ValueError:
        found.count("damaged_source", "files", "source.json")
        source = listed = None
    there = {name: _shard_files(directory, name, found) for name in SCHEMAS}
    votes = Counter(number for files in there.values() for number in files.values())
    shards = source.shards if source else votes.most_common(1)[0][0] if votes else 0
    names = [f"shard-{shard:05d}-of-{shards:05d}.parquet" for shard in range(shards)]
    dated, unique = None if source is None else source.has_dates, bool(source) and source.format in UNIQUE_VISITS
    work = [_Work(directory, shard, shards, {}, set(), dated, unique, today) for shard in range(shards)]
    for table in SCHEMAS:
        for file, number in there[table].items():
            if number != shards:
                found.count("other_shards", table, f"{table}/{file}")
            elif file not in names or (listed is not None and f"{table}/{file}" not in listed):
                found.count("unlisted_file", table, f"{table}/{file}")
        known = there[table].keys() & set(names)
        if listed is not None:
            known = {file for file in names if f"{table}/{file}" in listed}
        found.files[table] = len(there[table].keys() | set(names if known or table in REQUIRED_TABLES else ())) or 1
        if not known and not there[table].keys() & set(names):
            if table in REQUIRED_TABLES:
                found.count("missing_table", table, f"{table}/")
                for one in work:
                    one.absent.add(table)
            continue
        for one, file in zip(work, names, strict=True):
            path = f"{table}/{file}"
            if file in there[table] and file in known:
                one.files[table] = (path, None if listed is None else listed[path])
                continue
            one.absent.add(table)
            if file not in there[table] and (known or table in REQUIRED_TABLES):
                found.count("missing_file", table, path)
    _check_top(directory, found)
    if listed and SPLITS_FILE in listed:
        _check_splits(directory, listed[SPLITS_FILE], found)
    if listed and TITLES_FILE in listed:
        _read_beside(directory, TITLES_FILE, listed[TITLES_FILE], "titles", TITLES_SCHEMA, found)
    return found, work


def _shard_files(directory: Path, table: str, found: _Found) -> dict[str, int]:
    """The table's files, each with the number of shards in its name; others in its folder are counted."""
    files = {entry.name for entry in (directory / table).iterdir()} if (directory / table).is_dir() else set()
    shards = {file: int(match[1]) for file in files if (match := _SHARD.fullmatch(file))}
    for file in files - shards.keys():
        _count_stray(file, table, f"{table}/{file}", found)
    return shards


def _check_top(directory: Path, found: _Found) -> None:
    names = {entry.name for entry in directory.iterdir()}
    found.files["files"] = len(names | {"source.json"})
    for file in names - {"source.json", "ledger.json", "events_ledger.json", SPLITS_FILE, TITLES_FILE, *SCHEMAS}:
        _count_stray(file, "files", file, found)


def _count_stray(file: str, table: str, path: str, found: _Found) -> None:
    if not _SHARD.fullmatch(meant_for(file)):
        path = f"{path.removesuffix(file)}{masked(file)}"
    unfinished = file.startswith(".") and (file.endswith(".partial") or file.startswith(".scattered."))
    found.count("unfinished_file" if unfinished else "foreign_file", table, path)


def _read_beside(directory: Path, file: str, sha: str, name: str, schema: dict, found: _Found) -> pl.DataFrame | None:
    """A file beside the tables, which source.json lists."""
    found.files[name] = 1
    if not (directory / file).is_file():
        found.count("missing_file", name, file)
        return None
    return _read(directory, file, sha, name, schema, found)


def _check_splits(directory: Path, sha: str, found: _Found) -> None:
    splits = _read_beside(directory, SPLITS_FILE, sha, "splits", _SPLITS_SCHEMA, found)
    if splits is not None and splits.width == len(_SPLITS_SCHEMA):
        wrong = ~splits["split"].is_in(SPLITS).fill_null(False) | splits["patient_id"].is_null()
        found.count("split_value", "splits", SPLITS_FILE, int(wrong.sum()))
        found.count("duplicate_split", "splits", SPLITS_FILE, splits.height - splits["patient_id"].n_unique())


def _check_shard(work: _Work) -> tuple[int, _Found]:
    """The shard's number and what is wrong in it. Pure: the same on any machine, in any process."""
    found, tables, absent = _Found(), {}, set(work.absent)
    for table, (path, sha) in work.files.items():
        frame = _read(work.directory, path, sha, table, SCHEMAS[table], found)
        if frame is not None and set(KEYS) & set(SCHEMAS[table]) <= set(frame.columns):
            tables[table] = frame
            found.visit_files += [path] * (table == "visits")
        else:
            absent.add(table)
    counts, not_run = count_faults(tables, today=work.today, dated=work.dated, shard=work.shard, shards=work.shards)
    for (rule, table), rows in counts.items():
        found.count(rule, table, work.files[table][0], rows)
    if "admit_time" in tables.get("visits", {}):
        found.first_days += first_days(tables["visits"])
    not_run += [(rule.id, table) for rule in ROW_RULES for table in rule.tables if table in absent]
    found.not_run.update(not_run)
    return work.shard, found


def _read(directory: Path, path: str, sha: str | None, table: str, schema: dict, found: _Found) -> pl.DataFrame | None:
    """The file's columns in the types of the schema, without those that cannot be had so; None: not to be read."""
    try:
        content = (directory / path).read_bytes()
        if sha is not None and hashlib.sha256(content).hexdigest() != sha:
            return found.count("changed_file" if content.endswith(b"PAR1") else "truncated_file", table, path)
        frame = pl.read_parquet(io.BytesIO(content))
        if sha is not None and set(schema) - set(frame.columns) <= set(ADDED.get(table, ())):
            frame = with_added(table, frame)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError):
        return found.count("unreadable_file", table, path)
    found.of[table] += frame.height
    found.columns[table] += len(schema)
    found.read[table] += 1
    for column in frame.columns:
        if column not in schema:
            found.count("foreign_column", table, f"{path}: {masked(column)}")
    columns = []
    for column, dtype in schema.items():
        if column not in frame.columns:
            found.count("missing_column", table, f"{path}: {column}")
            continue
        values = frame[column]
        if values.dtype != dtype:
            found.count("wrong_type", table, f"{path}: {column}")
            try:  # another width of the same values says more of the rows
                values = values.cast(dtype)
            except pl.exceptions.PolarsError:
                continue
        columns.append(values)
    return pl.DataFrame(columns)
