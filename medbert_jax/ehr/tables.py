"""EHR tables on disk: sharded Parquet under checksums.

A folder of EHR tables is `<table>/shard-00000-of-00002.parquet` … and `source.json`. The latter is written last, so a
folder without it is not (yet) a set of tables; it holds a sha256 of every file, so that no flipped bit is read as data.
"""

import dataclasses
import hashlib
import io
import json
import os
from pathlib import Path

import numpy as np
import polars as pl

from medbert_jax.ehr.hashing import patient_hash
from medbert_jax.ehr.schema import REQUIRED_TABLES, SCHEMAS, EhrSource, EhrTables, check_tables, schema_faults

_FORMAT = "medbert_jax EHR tables, version 1"
_REREAD = "write the tables again from their source with `medbert ingest`"


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
