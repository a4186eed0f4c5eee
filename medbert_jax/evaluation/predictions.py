"""Predictions of one split of a cohort as MEDS Parquet, so that any MEDS tool can evaluate them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from medbert_jax.disk.tables_on_disk import parquet_metadata, read_parquet
from medbert_jax.disk.versions import number_of, refuse_newer
from medbert_jax.disk.whole_files import whole_file
from medbert_jax.evaluation.results import rows_sha256

VERSION = 1
"""Of a predictions file. Version 0 says none."""

THRESHOLD = 0.5
"""Probabilities at or above it are predicted true."""

SCHEMA = {
    "subject_id": (pl.Int64, pl.String),
    "prediction_time": (pl.Datetime("us"),),
    "boolean_value": (pl.Boolean,),
    "predicted_boolean_value": (pl.Boolean,),
    "predicted_boolean_probability": (pl.Float64,),
}
"""Column → dtypes allowed, in file order."""


@dataclass(frozen=True)
class Predictions:
    """A predictions file: the frame in SCHEMA's columns, and whether its times are order days only."""

    frame: pl.DataFrame
    time_is_ordinal: bool | None
    """None where the file, written by another tool, does not say."""


def write_predictions(
    path,
    *,
    subject_id,
    prediction_time,
    labels,
    probabilities,
    time_is_ordinal: bool,
    run_id: str = "",
    flagged: pl.Series | None = None,
    beside: pl.DataFrame | None = None,
) -> None:
    """Write one row for each patient, in the order given; the file appears whole or not at all.

    subject_id: (n,) integers, text or bytes. MEDS has int64: ids are cast when all of them are plain int64
    decimals ("17", not "017", which the cast would change); otherwise all stay text, a deviation from MEDS.
    prediction_time: (n,) datetime64, polars Datetime, or integers in µs since 1970.
    labels: (n,) of 0/1, −1 of whom it is unknown (the censored), or None for patients without labels.
    probabilities: (n,) of the positive class.
    time_is_ordinal: the source has no dates, and the times only count; kept in the Parquet metadata.
    run_id: the run whose predictions these are, which is the file's name then; empty where there is none.
    flagged: (n,) Boolean, whom somebody's threshold takes, null where none is; None: those of `THRESHOLD` or more.
    beside: (n, …) further columns, which readers of MEDS pass over.

    ValueError lists every fault; it names no patient.
    """
    subject_id = subject_ids(subject_id)
    if not isinstance(prediction_time, pl.Series):
        prediction_time = np.asarray(prediction_time)
        if prediction_time.dtype.kind in "MO":  # polars takes neither whole seconds nor datetime objects
            prediction_time = prediction_time.astype("datetime64[us]")
    prediction_time = pl.Series("prediction_time", prediction_time).cast(pl.Datetime("us"))
    probabilities = np.asarray(probabilities, np.float64)
    n = len(subject_id)
    known = np.zeros(n) if labels is None else np.asarray(labels)
    columns = {"prediction_time": prediction_time, "labels": known, "probabilities": probabilities}
    faults = [f"{len(column)} {name}" for name, column in columns.items() if len(column) != n]
    if unfit := np.count_nonzero(~((probabilities >= 0) & (probabilities <= 1))):
        faults.append(f"{unfit} probabilities outside [0, 1] or NaN")
    if strange := np.count_nonzero(~np.isin(known, (-1, 0, 1))):
        faults.append(f"{strange} labels other than 0, 1 and −1")
    if unknown := subject_id.null_count() + prediction_time.null_count():
        faults.append(f"{unknown} unknown ids or times")
    if not faults:
        repeated = pl.DataFrame([subject_id, prediction_time]).is_duplicated().sum()
        faults = [f"{repeated} rows of the same subject and time"] if repeated else []
    if faults:
        raise ValueError(
            "predictions must have one id, time, label and probability for each subject and time: "
            f"got {n} subject_id, {', '.join(faults)}; pass arrays of the same patients"
        )
    frame = pl.DataFrame(
        {
            "subject_id": subject_id,
            "prediction_time": prediction_time,
            "boolean_value": [None if labels is None or label < 0 else bool(label) for label in known.tolist()],
            "predicted_boolean_value": pl.Series(probabilities >= THRESHOLD) if flagged is None else flagged,
            "predicted_boolean_probability": probabilities,
        },
        schema_overrides={"boolean_value": pl.Boolean, "predicted_boolean_value": pl.Boolean},
    )
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        said = {"time_is_ordinal": "true" if time_is_ordinal else "false", "run_id": run_id, "version": str(VERSION)}
        whole = frame if beside is None else frame.hstack(beside)
        whole.write_parquet(partial, metadata=said | {"rows_sha256": _rows_sha256(frame)})


def read_predictions(path) -> Predictions:
    """Read a MEDS predictions file of any model; ValueError lists every column missing or mistyped.

    Of one that `write_predictions` wrote the cells and the run are compared with what the file says.
    """
    path = Path(path)
    try:
        frame = read_parquet(path)
        said = parquet_metadata(path)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise ValueError(
            f"predictions must be a Parquet file: got {path.name}, unreadable; pass a finished run's file"
        ) from error
    if "time_is_ordinal" in said:  # ours
        refuse_newer(str(path), number_of(said.get("version", "0")), VERSION)
    faults = [
        f"{name} {frame.schema[name] if name in frame.columns else 'missing'}"
        for name, dtypes in SCHEMA.items()
        if frame.schema.get(name) not in dtypes
    ]
    if faults:
        wanted = ", ".join(f"{name} {' or '.join(map(str, dtypes))}" for name, dtypes in SCHEMA.items())
        raise ValueError(
            f"predictions must have the MEDS columns {wanted}: got {', '.join(faults)}; cast or add these columns"
        )
    frame, ordinal = frame.select(*SCHEMA), said.get("time_is_ordinal")
    if ordinal and said.get("rows_sha256", digest := _rows_sha256(frame)) != digest:
        raise ValueError(
            f"predictions must be as they were written: got {path.name}, changed since; delete it and run again"
        )
    if ordinal and (run := said.get("run_id", "")) and run != path.stem:
        raise ValueError(
            f"a run's predictions must lie in RUN_ID.parquet: got {path.name} with those of run {run}; rename it to"
            f" {run}.parquet"
        )
    return Predictions(frame, None if ordinal is None else ordinal == "true")


def _rows_sha256(frame: pl.DataFrame) -> str:
    return rows_sha256(frame.with_columns(pl.col("prediction_time").cast(pl.Int64)))


def subject_ids(subject_id) -> pl.Series:
    """The ids as MEDS has them, int64, where all are plain decimals of that kind; else as text."""
    if not isinstance(subject_id, pl.Series):
        subject_id = np.asarray(subject_id)
        if subject_id.dtype.kind == "S":
            subject_id = np.char.decode(subject_id, "utf-8")
        # Object arrays and numpy text both become Python strings or integers, which polars takes as they are.
        subject_id = pl.Series("subject_id", subject_id.tolist())
    text = subject_id.cast(pl.String).alias("subject_id")
    numbers = text.cast(pl.Int64, strict=False)
    return numbers if numbers.cast(pl.String).eq_missing(text).all() else text
