"""EHR tables on disk: sharded Parquet under checksums.

A folder of EHR tables is `<table>/shard-00000-of-00002.parquet` … and `source.json`. The latter is written last, so a
folder without it is not (yet) a set of tables; it holds a sha256 of every file, so that no flipped bit is read as data.
"""

import dataclasses
import hashlib
import io
import json
import re
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl

from medbert_jax.disk.replaced_folder import replaced
from medbert_jax.disk.stored_json import form_faults, read_object
from medbert_jax.disk.versions import number_of, refuse_newer
from medbert_jax.disk.whole_files import write_json, write_whole
from medbert_jax.ehr.hashing import hash_start, mix64
from medbert_jax.ehr.schema import ADDED, REQUIRED_TABLES, SCHEMAS, EhrSource, EhrTables, check_tables, schema_faults

_VERSION = 2  # since 2 diagnoses have a time, deaths one by the clock, patients a follow-up
_WRITTEN_AS = "medbert_jax EHR tables, version "
SPLITS_FILE = "splits.parquet"
"""The source's own splits (patient_id, split: train | validation | test), where it has any."""
TITLES_FILE = "titles.parquet"
"""What the source calls its codes (code_system, code, title), where it says so."""
_OURS = re.compile(
    rf"(source|ledger|events_ledger)\.json|{re.escape(SPLITS_FILE)}|{re.escape(TITLES_FILE)}|unknown_codes\.csv"
    rf"|({'|'.join(SCHEMAS)})/shard-\d+-of-\d+\.parquet"
)
"""Files of a set of tables, which go with it when it is replaced; others in the folder stay."""
_SCHEMA_TEXT = {name: {column: str(dtype) for column, dtype in schema.items()} for name, schema in SCHEMAS.items()}
_REREAD = "write the tables again from their source with `medbert ingest`"


@dataclasses.dataclass(frozen=True)
class ShardRecord:
    """What `write_shard` wrote."""

    files: dict[str, str]
    """Path within the folder → sha256."""
    sums: dict[str, tuple[int, int]]
    """`_row_sums` of every table."""
    rows: dict[str, int]
    known: dict[str, int]
    """Rows that say something, by "table.column" of `SOMETIMES_KNOWN`."""
    last_day: str | None = None
    """The latest date of an admission, in ISO form."""


SOMETIMES_KNOWN = {
    "patients": ("birth_date", "sex", "race"),
    "visits": ("length_of_stay", "age_days"),
    "diagnoses": ("priority", "present_on_admission", "captured_at_billing", "time"),
    "medications": ("ingredient",),
    "measurements": ("value",),
}
"""What sources often do not say; its known share stands in source.json."""


def write_tables(tables: EhrTables, directory, *, shards: int = 1) -> EhrSource:
    """Check tables that are whole in memory, write them sharded by a hash of patient_id, seal the folder.

    Rows are written in one canonical order, so the same tables give the same bytes whatever order they came
    in. An earlier set of tables in the folder is replaced once all is written.

    Returns:
        The source with `shards`, `content_hash`, `known` and `last_day` filled in.

    Raises:
        ValueError: with every fault of the tables listed.
        BlockingIOError: another process is writing the folder.
    """
    if shards < 1:
        raise ValueError(f"shards must be at least 1: got {shards}; use 1 for tables that fit in memory")
    faults = check_tables(tables)
    faults += [f"{name}: the table is empty" for name, table in tables.present().items()
               if name in REQUIRED_TABLES and table.is_empty()]  # fmt: skip
    if faults:
        raise ValueError(_listed("EHR tables must follow the schema", faults, "mend the reader that made them"))
    shard_of = {name: shard_numbers(frame["patient_id"], shards) for name, frame in tables.present().items()}
    records = []
    with new_folder(directory) as new:
        for shard in range(shards):
            part = {name: frame.filter(pl.Series(shard_of[name] == shard)) for name, frame in tables.present().items()}
            records.append(write_shard(dataclasses.replace(tables, **part), new, shard, shards, checked=True))
        return seal(new, tables.source, records)


def shard_numbers(patient_ids: pl.Series, shards: int) -> np.ndarray:
    """The shard of every patient, (n,): a hash of the id, so that a patient's rows meet wherever they came from."""
    return (text_hash(patient_ids, "shard") % np.uint64(shards)).astype(np.int64)


@contextmanager
def new_folder(directory) -> Generator[Path]:
    """Yield the folder for `write_shard` and `seal`; it becomes `directory` at the end of the block.

    Until then, and for good where the block raises or is killed, an earlier set of tables in `directory` stays as it
    is. Errors as `replaced`, which this is.
    """
    with replaced(directory, _OURS) as new:
        yield new


def write_shard(tables: EhrTables, directory, shard: int, shards: int, *, checked: bool = False) -> ShardRecord:
    """Check and write one shard: every row of its patients. Raises ValueError with every fault listed."""
    if not checked and (faults := check_tables(tables)):
        rule = f"shard {shard} of EHR tables must follow the schema"
        raise ValueError(_listed(rule, faults, "mend the reader that made them"))
    frames = {name: _canonical(name, frame) for name, frame in tables.present().items()}
    files = {}
    for name, frame in frames.items():
        path = f"{name}/{_shard_name(shard, shards)}"
        (Path(directory) / name).mkdir(exist_ok=True)
        files[path] = _write_parquet(frame, Path(directory) / path)
    known = {
        f"{name}.{column}": frames[name][column].count()
        for name in SOMETIMES_KNOWN
        if name in frames
        for column in SOMETIMES_KNOWN[name]
    }
    sums = {name: _row_sums(name, frame) for name, frame in frames.items()}
    last = frames["visits"].select(pl.col("admit_time").max()).item()
    last_day = last.date().isoformat() if last is not None else None
    return ShardRecord(files, sums, {name: frame.height for name, frame in frames.items()}, known, last_day)


def seal(
    directory,
    source: EhrSource,
    records: list[ShardRecord],
    splits: pl.DataFrame | None = None,
    titles: pl.DataFrame | None = None,
) -> EhrSource:
    """Write source.json over the shards' records, in the order of the shards.

    `splits` (patient_id, split) are the source's own splits, `titles` (code_system, code, title) its own words for its
    codes, where it has any. Returns the source with `shards`, `known`, `last_day` and `content_hash`, which covers
    every cell but those of titles: independent of the order of rows, of shards and of library versions. An optional
    table without rows is removed: it would be taken for one that says that nothing ever happened. Raises ValueError for
    required tables without rows.
    """
    directory = Path(directory)
    rows = {name: sum(record.rows.get(name, 0) for record in records) for name in SCHEMAS}
    if empty := [f"{name}: [empty_table] the table is empty" for name in REQUIRED_TABLES if not rows[name]]:
        raise ValueError(_listed("EHR tables must have rows", empty, "look into ledger.json for where they left"))
    for name in records[0].rows:
        if not rows[name]:
            shutil.rmtree(directory / name)
    known = {}
    for column in records[0].known:
        said, there = sum(record.known[column] for record in records), rows[column.partition(".")[0]]
        if there:
            known[column] = max(round(said / there, 4), 0.0001 * (said > 0))  # few are not none
    files = {path: sha for record in records for path, sha in record.files.items() if rows[path.partition("/")[0]]}
    sums = {
        name: [rows[name], *(sum(record.sums[name][place] for record in records) % 2**64 for place in (0, 1))]
        for name in records[0].sums
        if rows[name]
    }
    if splits is not None and len(splits):
        files[SPLITS_FILE] = _write_parquet(splits.sort("patient_id"), directory / SPLITS_FILE)
        sums["splits"] = [len(splits), *_row_sums("splits", splits)]
    if titles is not None and len(titles):
        files[TITLES_FILE] = _write_parquet(titles.sort(pl.all()), directory / TITLES_FILE)
    content_hash = hashlib.sha256(json.dumps([_SCHEMA_TEXT, sums], sort_keys=True).encode()).hexdigest()
    last_day = max((record.last_day for record in records if record.last_day), default=None)
    source = dataclasses.replace(source, shards=len(records), content_hash=content_hash, known=known, last_day=last_day)
    record = {"written_as": f"{_WRITTEN_AS}{_VERSION}", **dataclasses.asdict(source), "files": files}
    write_json(directory / "source.json", record)
    return source


def holds_tables(directory: Path) -> bool:
    """Whether the folder has any file that goes when a set of tables there is replaced."""
    paths = [path for folder in ("", *SCHEMAS) for path in (directory / folder).glob("*")]
    return any(_OURS.fullmatch(path.relative_to(directory).as_posix()) for path in paths)


def unwritten_tables(directory: Path) -> list[str]:
    """Names of the files and folders that hold a table of the schema, in a folder without any that `write_shard` wrote.

    It may be that of tables of one's own.
    """
    if any(directory.glob("*/shard-*-of-*.parquet")):
        return []
    tables = (entry for entry in directory.iterdir() if entry.name.lower().partition(".")[0] in SCHEMAS)
    return sorted(entry.name for entry in tables if entry.is_file() or any(entry.iterdir()))


def read_source(directory) -> EhrSource:
    """What the folder's source can say. Errors as `read_tables`, of source.json alone."""
    return _read_record(Path(directory))[0]


def listed_files(directory) -> dict[str, str]:
    """Path within the folder → sha256, of every file of the tables. Errors as `read_source`."""
    return _read_record(Path(directory))[1]


def read_titles(directory) -> dict[str, str]:
    """What the source calls its codes: full name → title; empty where it says nothing. Errors as `read_tables`."""
    directory = Path(directory)
    _, files = _read_record(directory)
    if TITLES_FILE not in files:
        return {}
    path = directory / TITLES_FILE
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != files[TITLES_FILE]:
        fault = (
            f"{TITLES_FILE}: not the file that was written (sha256 differs)" if content else f"{path.name}: is missing"
        )
        raise ValueError(_listed("EHR tables must be as source.json describes them", [fault], _REREAD))
    named = pl.read_parquet(io.BytesIO(content)).select(pl.format("{}/{}", "code_system", "code"), "title")
    return dict(named.iter_rows())


def read_shard(directory, shard: int) -> EhrTables:
    """One shard of the tables: every row of the patients whose hash falls in it. Errors as `read_tables`."""
    source, files = _read_record(Path(directory))
    if not 0 <= shard < source.shards:
        raise ValueError(f"shard must be one of 0 … {source.shards - 1}: got {shard}; this source has {source.shards}")
    return _read_shards(Path(directory), source, files, [shard])


def read_tables(directory) -> EhrTables:
    """All shards of the tables, concatenated.

    Raises:
        FileNotFoundError: no folder, or no source.json in it (never finished, or not EHR tables).
        ValueError: missing, unreadable, changed or foreign files, missing columns, wrong dtypes: all listed.
    """
    source, files = _read_record(Path(directory))
    tables = _read_shards(Path(directory), source, files, range(source.shards))
    if tables.patients.is_empty():
        raise ValueError(f"EHR tables must hold patients: got none in {directory}; {_REREAD}")
    return tables


def with_added(name: str, frame: pl.DataFrame) -> pl.DataFrame:
    """A table as it was written, with the columns that later versions added, null."""
    added = [pl.lit(None, SCHEMAS[name][column]).alias(column) for column in ADDED.get(name, ()) if column not in frame]
    return frame.with_columns(added).select(SCHEMAS[name].keys()) if added else frame


def _listed(rule: str, faults: list[str], advice: str) -> str:
    return f"{rule}: got {len(faults)} fault(s):\n  - " + "\n  - ".join(faults) + f"\n{advice}"


def _shard_name(shard: int, shards: int) -> str:
    return f"shard-{shard:05d}-of-{shards:05d}.parquet"


def _canonical(name: str, frame: pl.DataFrame) -> pl.DataFrame:
    columns = list(SCHEMAS[name])
    keys = [column for column in ("patient_id", "order") if column in columns]
    frame = frame.select(columns)
    if name == "measurements":  # −0.0 and 0.0 compare equal but have different bytes
        frame = frame.with_columns(pl.col("value") + 0.0)
    return frame.sort(keys + [column for column in columns if column not in keys], maintain_order=False)


def text_hash(texts: pl.Series, key: str) -> np.ndarray:
    """`patient_hash` of a text column without nulls, (n,) uint64, several times as fast; empty texts have one too."""
    state = np.full(len(texts), hash_start(key), np.uint64)
    padded = (texts.rename("t").to_frame().select(pl.col("t") + "\0" * 8)).to_series().cast(pl.Binary)
    lengths = texts.str.len_bytes().to_numpy().astype(np.uint64)
    for start in range(0, int(lengths.max(initial=0)), 8):
        # Eight bytes are there, thanks to the padding, in every text that reaches so far.
        word = padded.bin.slice(start, 8).bin.reinterpret(dtype=pl.UInt64, endianness="little").fill_null(0).to_numpy()
        state = np.where(lengths > np.uint64(start), mix64(state ^ word), state)
    return mix64(state ^ lengths)


def _row_sums(name: str, frame: pl.DataFrame) -> tuple[int, int]:
    """Two sums, modulo 2^64, of a hash of every row: the same in any order, and shards add up to the whole."""
    rows = np.full(frame.height, hash_start(name), np.uint64)
    for column, dtype in frame.schema.items():
        values = frame[column]
        if dtype == pl.String:
            words = text_hash(values.fill_null(""), column)
        elif dtype == pl.Float64:
            words = values.fill_null(0).to_numpy().astype("<f8").view("<u8")
        else:
            words = values.to_physical().cast(pl.Int64).fill_null(0).to_numpy().astype("<i8").view("<u8")
        known = values.is_not_null().to_numpy()
        rows = mix64(rows ^ np.where(known, mix64(words), np.uint64(0)))
    return int(rows.sum(dtype=np.uint64)), int(mix64(~rows).sum(dtype=np.uint64))


def _write_parquet(frame: pl.DataFrame, path: Path) -> str:
    """Write a file of the set; return its sha256."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd")
    write_whole(path, buffer.getbuffer())
    return hashlib.sha256(buffer.getbuffer()).hexdigest()


def _read_record(directory: Path) -> tuple[EhrSource, dict[str, str]]:
    rule = "a folder of EHR tables holds source.json, written last"
    path = directory / "source.json"
    if not directory.is_dir():
        raise FileNotFoundError(f"{rule}: got {directory}, which is no folder; make it with `medbert ingest`")
    if not path.is_file():
        found = sorted(entry.name for entry in directory.iterdir())
        if own := unwritten_tables(directory):
            raise FileNotFoundError(
                f"{rule}: got {directory}, which holds tables as a program made them ({', '.join(own[:8])}); write EHR"
                " tables from them with `medbert ingest --format own-tables` or medbert_jax.write_ehr_tables"
                " (docs/own_tables.md)"
            )
        what = "which is empty" if not found else f"which holds {', '.join(found[:8])}{' …' * (len(found) > 8)}"
        raise FileNotFoundError(f"{rule}: got {directory}, {what} and is foreign or unfinished; {_REREAD}")
    foreign = f"{rule}: got {path}, which is damaged or of another program"
    try:
        record = read_object(path)
    except ValueError:
        raise ValueError(f"{foreign}; {_REREAD}") from None
    program, said, version = str(record.pop("written_as", "")).partition(_WRITTEN_AS)
    if program or not said:
        raise ValueError(f"{foreign}; {_REREAD}")
    refuse_newer(str(path), number_of(version), _VERSION)
    names = {field.name for field in dataclasses.fields(EhrSource)}
    later = {"last_day"} if number_of(version) == 1 else set()  # the first tables do not say it
    faults = [f"{name} is missing" for name in sorted(names - later - record.keys())]
    faults += form_faults(record, EhrSource) if not faults else []
    files = record.pop("files", None)
    faults += form_faults(files, dict[str, str], "files")
    if faults or record.keys() - names:
        what = f", where {', '.join(faults[:8])}" if faults else ""
        raise ValueError(f"{foreign}{what}; {_REREAD}")
    record["assumptions"] = tuple(record["assumptions"])
    return EhrSource(**record), files or {}


def _read_shards(directory: Path, source: EhrSource, files: dict[str, str], shards) -> EhrTables:
    faults, tables = [], {}
    names = {shard: _shard_name(shard, source.shards) for shard in shards}
    expected = {f"{name}/{_shard_name(shard, source.shards)}" for name in SCHEMAS for shard in range(source.shards)}
    for found in sorted(directory.glob("*/*.parquet")):
        path = found.relative_to(directory).as_posix()
        if found.parent.name in SCHEMAS and (path not in files or path not in expected):
            faults.append(f"{path}: is not one of the files that source.json lists")
    for name in SCHEMAS:
        parts = []
        if name not in REQUIRED_TABLES and not any(f"{name}/{file}" in files for file in names.values()):
            continue
        for file in names.values():
            path = f"{name}/{file}"
            if path not in files:
                faults.append(f"{path}: is not in source.json")
                continue
            try:
                content = (directory / path).read_bytes()
            except OSError as error:
                faults.append(f"{path}: is {'missing' if isinstance(error, FileNotFoundError) else 'unreadable'}")
                continue
            if hashlib.sha256(content).hexdigest() == files[path]:
                parts.append(with_added(name, pl.read_parquet(io.BytesIO(content))))
                continue
            # Of a changed file only the schema is read, to say more of what is wrong with it.
            try:
                wrong = schema_faults(name, pl.read_parquet_schema(io.BytesIO(content)))
            except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError):
                wrong = [f"{name}: truncated, damaged or no Parquet file"]
            wrong.append(f"{name}: not the file that was written (sha256 differs)")
            faults += [f"{path}: {fault.partition(': ')[2]}" for fault in wrong]
        if not faults:
            tables[name] = pl.concat(parts, rechunk=True)
    if faults:
        raise ValueError(_listed("EHR tables must be as source.json describes them", faults, _REREAD))
    return EhrTables(**tables, source=source)
