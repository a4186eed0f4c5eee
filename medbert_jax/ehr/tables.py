"""EHR tables: the one schema that every reader produces, and its sharded Parquet form on disk.

A folder of EHR tables is `<table>/shard-00000-of-00002.parquet` … and `source.json`. The latter is written
last, so a folder without it is not (yet) a set of tables; it holds a sha256 of every file, so that no flipped
bit is read as data.

null means unknown; no reader invents a value.
"""

import dataclasses
import hashlib
import io
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from medbert_jax.ehr.hashing import patient_hash

_TEXT, _TIME, _WHOLE = pl.String(), pl.Datetime("us"), pl.Int32()
_EVENT = {"patient_id": _TEXT, "visit_id": _TEXT, "time": _TIME, "code_system": _TEXT, "code": _TEXT}

SCHEMAS: dict[str, dict[str, pl.DataType]] = {
    "patients": {
        "patient_id": _TEXT,
        "birth_date": pl.Date(),
        "sex": _TEXT,  # female | male
        "race": _TEXT,
        "death_date": pl.Date(),
    },
    "visits": {
        "visit_id": _TEXT,
        "patient_id": _TEXT,
        "order": _WHOLE,  # 1, 2, 3 … within the patient: the only thing that later steps sort by
        "admit_time": _TIME,
        "discharge_time": _TIME,
        "length_of_stay": _WHOLE,  # whole days
        "visit_type": _TEXT,
        "age_days": _WHOLE,  # at admission as the source states it, middle of its band; null: see birth_date
        "age_precision_days": _WHOLE,  # width of that band
        "discharge_disposition": _TEXT,  # home | facility | expired | hospice | other
        "readmitted_30d": pl.Boolean(),  # as the source states it
    },
    "diagnoses": {
        "patient_id": _TEXT,
        "visit_id": _TEXT,
        "code_system": _TEXT,  # ICD9CM, ICD10CM, …
        "code": _TEXT,  # normalised, with the dot
        "present_on_admission": pl.Boolean(),
        "captured_at_billing": pl.Boolean(),
        "priority": _WHOLE,  # 1 = principal
    },
    "medications": {**_EVENT, "ingredient": _TEXT},
    "measurements": {**_EVENT, "value": pl.Float64(), "unit": _TEXT},
    "procedures": dict(_EVENT),
}
REQUIRED_TABLES = ("patients", "visits", "diagnoses")
SEXES = ("female", "male")
DISPOSITIONS = ("home", "facility", "expired", "hospice", "other")

_FORMAT = "medbert_jax EHR tables, version 1"
_NEVER_NULL = ("patient_id", "order", "code_system", "code")  # visit_id too, where a row is of a visit
_REREAD = "write the tables again from their source with `medbert ingest`"


@dataclass(frozen=True)
class EhrSource:
    """What the source can and cannot say (source.json)."""

    format: str
    has_dates: bool
    age_precision: str
    assumptions: tuple[str, ...] = ()
    shards: int = 1
    content_hash: str = ""


@dataclass(frozen=True, kw_only=True)
class EhrTables:
    """One source, or one shard of it, in memory. Columns as in `SCHEMAS`; absent optional tables are None."""

    patients: pl.DataFrame
    visits: pl.DataFrame
    diagnoses: pl.DataFrame
    medications: pl.DataFrame | None = None
    measurements: pl.DataFrame | None = None
    procedures: pl.DataFrame | None = None
    source: EhrSource

    def present(self) -> dict[str, pl.DataFrame]:
        """The tables that are there, by name, in the order of `SCHEMAS`."""
        return {name: table for name in SCHEMAS if (table := getattr(self, name)) is not None}


def write_tables(tables: EhrTables, directory, *, shards: int = 1) -> EhrSource:
    """Check the tables, write them sharded by a hash of patient_id, and seal the folder with source.json.

    Rows are written in one canonical order, so the same tables give the same bytes whatever order they came
    in. Every file appears whole under its name or not at all. An earlier set of tables in the folder is
    replaced.

    Returns:
        The source with `shards` and `content_hash` filled in. The hash covers every cell, table, column and
        dtype in canonical order: independent of row order, the number of shards and the versions of the
        libraries.

    Raises:
        ValueError: with every fault of the tables listed.
    """
    if shards < 1:
        raise ValueError(f"shards must be at least 1: got {shards}; use 1 for tables that fit in memory")
    if faults := check_tables(tables):
        raise ValueError(_listed("EHR tables must follow the schema", faults, "mend the reader that made them"))
    frames = {name: _canonical(name, frame) for name, frame in tables.present().items()}
    source = dataclasses.replace(tables.source, shards=shards, content_hash=_content_hash(frames))
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "source.json").unlink(missing_ok=True)
    files = {}
    for name, frame in frames.items():
        shard_of_row = patient_hash(frame["patient_id"], "shard") % np.uint64(shards)
        for shard in range(shards):
            part, buffer = frame.filter(pl.Series(shard_of_row == shard)), io.BytesIO()
            part.write_parquet(buffer, compression="zstd")
            path = f"{name}/{_shard_name(shard, shards)}"
            files[path] = hashlib.sha256(buffer.getbuffer()).hexdigest()
            _write_atomically(directory / path, buffer.getbuffer())
    for stale in directory.glob("*/shard-*-of-*.parquet"):
        if stale.parent.name in SCHEMAS and stale.relative_to(directory).as_posix() not in files:
            stale.unlink()
    record = {"written_as": _FORMAT, **dataclasses.asdict(source), "files": files}
    _write_atomically(directory / "source.json", json.dumps(record, indent=1, ensure_ascii=False).encode())
    return source


def read_source(directory) -> EhrSource:
    """What the folder's source can say. Errors as `read_tables`, of source.json alone."""
    return _read_record(Path(directory))[0]


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


def check_tables(tables: EhrTables) -> list[str]:
    """Every fault of the tables against the schema and its keys, in words, without ids; empty if none."""
    present = tables.present()
    faults = [f"{name}: the table is missing" for name in REQUIRED_TABLES if name not in present]
    faults += [fault for name, frame in present.items() for fault in _schema_faults(name, frame.schema)]
    if faults:
        return faults
    for name, frame in present.items():
        never_null = _NEVER_NULL + ("visit_id",) * (name in REQUIRED_TABLES)
        tests = [(f"{c} is null", pl.col(c).is_null()) for c in frame.columns if c in never_null]
        tests += [
            (f"{c} is empty or has blanks around it", pl.col(c).str.contains(r"^\s*$|^\s|\s$"))
            for c in ("patient_id", "visit_id", "code")
            if c in frame.columns
        ]
        if "code_system" in frame.columns:
            # Both go into "system/code" strings and a tab-separated vocabulary.
            system, code = pl.col("code_system"), pl.col("code")
            tests += [
                ("code_system is empty or holds a slash or a blank", ~system.str.contains(r"^[^/\s]+$")),
                ("code holds a tab or a line break", code.str.contains(r"[\t\r\n]")),
            ]
        if name == "patients":
            tests += [
                ("patient_id is there more than once", pl.col("patient_id").is_duplicated()),
                (f"sex is none of {', '.join(SEXES)}, null", ~pl.col("sex").is_in(SEXES)),
            ]
        elif name == "visits":
            place = pl.col("order").rank("ordinal").over("patient_id")
            way = pl.col("discharge_disposition")
            tests += [
                ("visit_id is there more than once", pl.col("visit_id").is_duplicated()),
                ("order is not 1, 2, 3 … within the patient", pl.col("order") != place),
                (f"discharge_disposition is none of {', '.join(DISPOSITIONS)}", ~way.is_in(DISPOSITIONS)),
            ]
            if not tables.source.has_dates:
                dated = pl.col("admit_time").is_not_null() | pl.col("discharge_time").is_not_null()
                tests.append(("a time is given although source.has_dates is false", dated))
        elif name == "measurements":
            tests.append(("value is NaN (unknown is null)", pl.col("value").is_nan()))
        counts = frame.select(test.fill_null(False).sum().alias(text) for text, test in tests)
        counts = counts.row(0, named=True)
        if name != "patients":
            stray = frame.join(tables.patients, on="patient_id", how="anti")
            counts["patient_id is not in patients"] = stray.height
        if name not in ("patients", "visits"):
            keys = ["patient_id", "visit_id"]
            stray = frame.drop_nulls("visit_id").join(tables.visits, on=keys, how="anti")
            counts["the patient has no such visit"] = stray.height
        faults += [f"{name}: {text} in {count:,} rows" for text, count in counts.items() if count]
        if name in REQUIRED_TABLES and frame.is_empty():
            faults.append(f"{name}: the table is empty")
    return faults


def _listed(rule: str, faults: list[str], advice: str) -> str:
    return f"{rule}: got {len(faults)} fault(s):\n  - " + "\n  - ".join(faults) + f"\n{advice}"


def _schema_faults(name: str, got: dict[str, pl.DataType]) -> list[str]:
    schema = SCHEMAS[name]
    return (
        [f"{name}: column {column} is missing" for column in schema if column not in got]
        + [f"{name}: column {column} is not in the schema" for column in got if column not in schema]
        + [
            f"{name}: column {column} must be {dtype}, is {got[column]}"
            for column, dtype in schema.items()
            if column in got and got[column] != dtype
        ]
    )


def _shard_name(shard: int, shards: int) -> str:
    return f"shard-{shard:05d}-of-{shards:05d}.parquet"


def _canonical(name: str, frame: pl.DataFrame) -> pl.DataFrame:
    columns = list(SCHEMAS[name])
    keys = [column for column in ("patient_id", "order") if column in columns]
    frame = frame.select(columns)
    if name == "measurements":  # −0.0 and 0.0 compare equal but have different bytes
        frame = frame.with_columns(pl.col("value") + 0.0)
    return frame.sort(keys + [column for column in columns if column not in keys], maintain_order=False)


def _content_hash(frames: dict[str, pl.DataFrame]) -> str:
    digest = hashlib.sha256()
    for name, frame in frames.items():
        for column, dtype in SCHEMAS[name].items():
            digest.update(f"{name}\t{column}\t{type(dtype).__name__}\t{frame.height}\n".encode())
            for part in frame[column].to_frame().iter_slices(1_000_000):  # bounds the memory; part of the definition
                values = part[column]
                digest.update(np.packbits(values.is_null().to_numpy()).tobytes())
                if dtype == pl.String:
                    digest.update(values.str.len_bytes().fill_null(0).to_numpy().astype("<u4").tobytes())
                    digest.update("".join(values.drop_nulls()).encode())
                elif dtype == pl.Float64:
                    digest.update(values.fill_null(0).to_numpy().astype("<f8").tobytes())
                else:
                    digest.update(values.to_physical().cast(pl.Int64).fill_null(0).to_numpy().astype("<i8").tobytes())
    return digest.hexdigest()


def _write_atomically(path: Path, content) -> None:
    path.parent.mkdir(exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _read_record(directory: Path) -> tuple[EhrSource, dict[str, str]]:
    rule = "a folder of EHR tables holds source.json, written last"
    path = directory / "source.json"
    if not directory.is_dir():
        raise FileNotFoundError(f"{rule}: got {directory}, which is no folder; make it with `medbert ingest`")
    if not path.is_file():
        found = sorted(entry.name for entry in directory.iterdir())
        what = "which is empty" if not found else f"which holds {', '.join(found[:8])}{' …' * (len(found) > 8)}"
        raise FileNotFoundError(f"{rule}: got {directory}, {what} and is foreign or unfinished; {_REREAD}")
    try:
        record = json.loads(path.read_bytes())
        written_as, files = record.pop("written_as"), record.pop("files")
        source = EhrSource(**{**record, "assumptions": tuple(record["assumptions"])})
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{rule}: got {path}, which is damaged or of another program; {_REREAD}") from None
    if written_as != _FORMAT:
        raise ValueError(f'source.json must say "{_FORMAT}": got "{written_as}"; {_REREAD}')
    return source, files


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
                parts.append(pl.read_parquet(content))
                continue
            # Of a changed file only the schema is read, to say more of what is wrong with it.
            try:
                wrong = _schema_faults(name, pl.read_parquet_schema(io.BytesIO(content)))
            except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError):
                wrong = [f"{name}: truncated, damaged or no Parquet file"]
            wrong.append(f"{name}: not the file that was written (sha256 differs)")
            faults += [f"{path}: {fault.partition(': ')[2]}" for fault in wrong]
        if not faults:
            tables[name] = pl.concat(parts, rechunk=True)
    if faults:
        raise ValueError(_listed("EHR tables must be as source.json describes them", faults, _REREAD))
    return EhrTables(**tables, source=source)
