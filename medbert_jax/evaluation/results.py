"""Results of runs: one Parquet per run, each row a metric with the whole record of the run beside it.

The concatenation of these files is all that tables and figures read. A run's id is a hash of its full
configuration and seed, so an interrupted experiment skips the runs that are done.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path

import polars as pl

from medbert_jax.disk.tables_on_disk import parquet_metadata, read_parquet
from medbert_jax.disk.versions import number_of, refuse_newer
from medbert_jax.disk.whole_files import whole_file
from medbert_jax.ehr.hashing import SPLITS

ROW_SCHEMA = {
    "experiment": pl.String,
    "cohort": pl.String,
    "backbone": pl.String,
    "head": pl.String,
    "train_size": pl.Int64,  # patients really trained on
    "train_size_name": pl.String,  # what was asked for: "300" or "all"
    "replicate": pl.Int64,
    "split": pl.String,
    "metric": pl.String,
    "value": pl.Float64,
}
"""Column → dtype of the long rows that `write_results` takes."""

RECORD_SCHEMA = {
    "run_id": pl.String,
    "configuration": pl.String,  # JSON
    "seed": pl.Int64,
    "commit": pl.String,
    "dataset_hash": pl.String,
    "vocabulary_hash": pl.String,
    "split_key": pl.String,
    "checkpoint": pl.String,
    "device": pl.String,
    "wall_time_s": pl.Float64,
    "epochs": pl.Int64,
    "stopping_reason": pl.String,
    "versions": pl.String,  # JSON
}
"""Column → dtype of the run's record, repeated on each of its rows."""

VERSION = 1
"""Of a results file. Version 0 says none."""

ROW_KEY = [name for name in ROW_SCHEMA if name not in ("train_size", "value")]
"""The columns that name one value of a run."""


def configuration_json(configuration) -> str:
    """Canonical JSON of a configuration: a mapping or dataclass, nested, of numbers, texts, paths, tuples."""

    def encode(value):
        if is_dataclass(value):
            return asdict(value)
        if isinstance(value, Path):
            return value.as_posix()
        raise TypeError(
            "a configuration must hold mappings, sequences, numbers, texts, paths or dataclasses: "
            f"got {type(value).__name__}; turn it into one of these"
        )

    plain = asdict(configuration) if is_dataclass(configuration) else dict(configuration)
    return json.dumps(plain, default=encode, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def run_id(configuration, seed: int) -> str:
    """16 hex digits of the SHA-256 of the canonical configuration and the seed: the same run, the same id."""
    text = json.dumps([configuration_json(configuration), int(seed)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class RunRecord:
    """All that makes one run's numbers traceable; `run_id` follows from configuration and seed alone."""

    configuration: Mapping
    """The full configuration: a nested mapping or a dataclass."""
    seed: int
    commit: str
    dataset_hash: str
    vocabulary_hash: str
    split_key: str
    checkpoint: str
    """What identifies the pretrained parameters (a path or hash); empty where there were none."""
    device: str
    wall_time_s: float
    epochs: int
    stopping_reason: str
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def run_id(self) -> str:
        """16 hex digits, see `run_id`."""
        return run_id(self.configuration, self.seed)


def result_rows(metrics: Mapping[str, float], **columns) -> list[dict]:
    """One long row for each metric: the other columns of ROW_SCHEMA are the keywords, alike on every row."""
    return [{**columns, "metric": metric, "value": float(value)} for metric, value in metrics.items()]


def write_results(folder, record: RunRecord, rows: Iterable[Mapping] | pl.DataFrame) -> Path:
    """Write the run's rows to `folder`/`run_id`.parquet and return the path.

    The file appears whole or not at all. Writing the same run again replaces it, byte for byte where record
    and rows are the same, in any order of the rows. ValueError lists every fault of the rows.
    """
    rows = rows.to_dicts() if isinstance(rows, pl.DataFrame) else [dict(row) for row in rows]
    _check_columns(rows)
    frame = pl.DataFrame(rows, schema=ROW_SCHEMA, strict=False)
    _check_values(frame)
    texts = {
        "run_id": record.run_id,
        "configuration": configuration_json(record.configuration),
        "versions": configuration_json(record.versions),
    }
    facts = [
        pl.lit(texts.get(name, getattr(record, name)), dtype=dtype).alias(name) for name, dtype in RECORD_SCHEMA.items()
    ]
    path = Path(folder) / f"{record.run_id}.parquet"
    frame = frame.sort(ROW_KEY).select(*facts, *ROW_SCHEMA)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        frame.write_parquet(partial, metadata={"version": str(VERSION), "rows_sha256": rows_sha256(frame)})
    return path


def is_done(folder, run: str, *, dataset_hash: str | None = None) -> bool:
    """Whether run id `run` has results in `folder`; with `dataset_hash`, results of that dataset."""
    path = Path(folder) / f"{run}.parquet"
    if not path.exists():
        return False
    return dataset_hash is None or set(read_run(path)["dataset_hash"]) == {dataset_hash}


def read_results(folder) -> pl.DataFrame:
    """All runs of `folder` in one frame: the columns of RECORD_SCHEMA, then those of ROW_SCHEMA.

    ValueError when a file is damaged or of another schema (all of them named), or when there is none. What is said of a
    cohort goes by its dataset: results of several stand side by side, and nothing is averaged over them.
    """
    paths = sorted(Path(folder).glob("*.parquet"))
    if not paths:
        raise ValueError(
            f"a results folder must hold one Parquet per run: got none in {folder}; "
            "run an experiment first, or pass the folder that it printed"
        )
    frames, faults = [], []
    for path in paths:
        try:
            frames.append(read_run(path))
        except ValueError as error:
            faults.append(str(error))
    if faults:
        raise ValueError("\n".join(faults))
    return pl.concat(frames)


def read_run(path: Path) -> pl.DataFrame:
    """One run's file, as `read_results` gives all; ValueError where it is damaged or of another schema."""
    schema = {**RECORD_SCHEMA, **ROW_SCHEMA}
    try:
        frame = read_parquet(path)
        said = parquet_metadata(path)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise ValueError(
            f"a run's results must be readable Parquet: got {path.name}, unreadable; delete it and run again"
        ) from error
    refuse_newer(str(path), number_of(said.get("version", "0")), VERSION)
    if dict(frame.schema) != schema:
        names = {*schema, *frame.columns}
        wrong = sorted(name for name in names if schema.get(name) != frame.schema.get(name))
        raise ValueError(
            f"a run's results must have the columns of RECORD_SCHEMA and ROW_SCHEMA: got {path.name} with "
            f"missing, strange or mistyped {', '.join(wrong)}; move the file away or run again"
        )
    frame = frame.select(*schema)
    # Parquet as polars writes it has no checksums: a flipped bit can read as another number.
    if rows_sha256(frame) != said.get("rows_sha256"):
        raise ValueError(
            f"a run's results must be as they were written: got {path.name}, changed since; delete it and run again"
        )
    if set(frame["run_id"]) != {path.stem}:
        own = ", ".join(sorted(set(frame["run_id"])))
        raise ValueError(
            f"a run's results must lie in RUN_ID.parquet: got {path.name} with those of run {own}; rename it to"
            f" {own}.parquet, or delete it where that is there"
        )
    return frame


def rows_sha256(frame: pl.DataFrame) -> str:
    """The hash of every cell, in this order of the rows."""
    return hashlib.sha256(json.dumps(frame.rows()).encode()).hexdigest()


def _check_columns(rows: list[dict]) -> None:
    wrong = sorted({name for row in rows for name in set(ROW_SCHEMA) ^ set(row)})
    if not rows or wrong:
        got = f"missing or strange {', '.join(wrong)}" if rows else "no rows"
        raise ValueError(
            f"rows of results must have the columns {', '.join(ROW_SCHEMA)}: got {got}; build them with result_rows"
        )


def _check_values(frame: pl.DataFrame) -> None:
    counts = {
        "null": frame.select(pl.any_horizontal(pl.all().is_null()).sum()).item(),
        "value not finite": frame.select((~pl.col("value").is_finite()).sum()).item(),
        "train_size below 1": frame.select((pl.col("train_size") < 1).sum()).item(),
        "split unknown": frame.select((~pl.col("split").is_in(SPLITS)).sum()).item(),
        "repeated": int(frame.select(ROW_KEY).is_duplicated().sum()),
    }
    faults = [f"{count} rows {fault}" for fault, count in counts.items() if count]
    if faults:
        raise ValueError(
            "rows of results must be complete, finite, of split train, validation or test, and unique: "
            f"got {', '.join(faults)}; mend the rows before writing the run"
        )
