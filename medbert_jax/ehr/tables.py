"""EHR tables on disk: sharded Parquet under checksums.

A folder of EHR tables is `<table>/shard-00000-of-00002.parquet` … and `source.json`. The latter is written last, so a
folder without it is not (yet) a set of tables; it holds a sha256 of every file, so that no flipped bit is read as data.
"""

import dataclasses
import hashlib
import io
from pathlib import Path

import polars as pl

from medbert_jax.disk.stored_json import form_faults, read_object
from medbert_jax.disk.versions import number_of, refuse_newer
from medbert_jax.ehr.schema import ADDED, REQUIRED_TABLES, SCHEMAS, EhrSource, EhrTables, check_tables, schema_faults
from medbert_jax.ehr.shard_files import (
    TITLES_FILE,
    VERSION,
    WRITTEN_AS,
    listed_faults,
    new_folder,
    seal,
    shard_name,
    write_shard,
)
from medbert_jax.ehr.text_hash import shard_numbers

_REREAD = "write the tables again from their source with `medbert ingest`"


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
        raise ValueError(listed_faults("EHR tables must follow the schema", faults, "mend the reader that made them"))
    shard_of = {name: shard_numbers(frame["patient_id"], shards) for name, frame in tables.present().items()}
    records = []
    with new_folder(directory) as new:
        for shard in range(shards):
            part = {name: frame.filter(pl.Series(shard_of[name] == shard)) for name, frame in tables.present().items()}
            records.append(write_shard(dataclasses.replace(tables, **part), new, shard, shards, checked=True))
        return seal(new, tables.source, records)


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
        raise ValueError(listed_faults("EHR tables must be as source.json describes them", [fault], _REREAD))
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
    program, said, version = str(record.pop("written_as", "")).partition(WRITTEN_AS)
    if program or not said:
        raise ValueError(f"{foreign}; {_REREAD}")
    refuse_newer(str(path), number_of(version), VERSION)
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
    names = {shard: shard_name(shard, source.shards) for shard in shards}
    expected = {f"{name}/{shard_name(shard, source.shards)}" for name in SCHEMAS for shard in range(source.shards)}
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
        raise ValueError(listed_faults("EHR tables must be as source.json describes them", faults, _REREAD))
    return EhrTables(**tables, source=source)
