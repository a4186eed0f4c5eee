"""A folder of MEDS labels in place of a cohort spec: who, when and what is given; the input follows from the time.

MEDS: subject_id, prediction_time (inclusive: what happened at that time may be read) and boolean_value. Each file may
have types of its own: ids that are numbers or text, times of any unit.
"""

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import polars as pl

from medbert_jax.cohorts.judging import NO_VISITS, Exit, too_few_codes, with_counts, with_leaving
from medbert_jax.cohorts.life import in_life
from medbert_jax.disk.tables_on_disk import parquet_schema, scan_parquet
from medbert_jax.ehr.hashing import patient_hash
from medbert_jax.ehr.known import PREDICTION
from medbert_jax.ehr.schema import EhrTables
from medbert_jax.ingest.reader import flag, moment, text

SEVERAL_TIMES = "several_prediction_times"
"""The flag of patients of whom the labels hold more than one prediction time, and one of them was taken."""
NOT_LABELLED = "not_labelled"
"""The ledger's line of who has no label; who has several is read again after it, where all are taken."""

Which = Literal["first", "last", "random", "all"]
_DRAW = "meds labels"
"""Key of the hash that draws one of several prediction times."""
_COLUMNS = {"subject_id": text, "prediction_time": moment, "boolean_value": flag}
"""Column → how it is read; what cannot be read is null."""


def _is_read(name: str, dtype: pl.DataType) -> bool:
    """Whether a column of that type can be what its name says: floats are no ids, and no number is a time."""
    if name == "prediction_time":
        return isinstance(dtype, (pl.Datetime, pl.Date, pl.String))
    return dtype.is_integer() or isinstance(dtype, (pl.String, pl.Categorical, pl.Boolean))


@dataclass(frozen=True)
class LabelFolder:
    """Labels as they lie in a folder, and the hash of what is in its files."""

    NOBODY: ClassVar[str] = "Patients without a label"

    name: str
    folder: str
    sha256: str
    which: Which = "first"
    """Which prediction time of a subject is taken, of several; all: each of them is a row of its own."""

    @classmethod
    def find(cls, folder: str | Path, which: Which = "first") -> "LabelFolder":
        """The labels of a folder; `all` where no subject has several times is `first`, in every byte of the dataset.

        Raises ValueError where they are none, all faults listed, or where `all` finds two of one subject and time.
        """
        files = _files(folder)
        faults = [] if files else ["no .parquet file"]
        for path in files:
            schema = parquet_schema(path)
            faults += [f"no column {name} in {path.name}" for name in _COLUMNS if name not in schema]
            faults += [
                f"column {name} of {schema[name]} in {path.name}"
                for name in _COLUMNS
                if name in schema and not _is_read(name, schema[name])
            ]
        if not faults:
            nulls = _read(files).null_count().row(0, named=True)
            faults += [f"{count} rows without {name}" for name, count in nulls.items() if count]
        if faults:
            raise ValueError(
                f"a folder of MEDS labels holds .parquet files with {', '.join(_COLUMNS)} in every row, the last"
                f" of them true, false, 1 or 0: got {'; '.join(faults)} in {folder}; leave out who has no label,"
                " make others Boolean, or give a spec"
            )
        digest = hashlib.sha256()
        for path in files:
            digest.update(path.read_bytes())
        found = cls(Path(folder).name, str(Path(folder).absolute()), digest.hexdigest(), which)
        rows = found.rows()
        found.check_distinct(rows)
        if which != "all":
            return found
        return found if rows["patient_id"].is_duplicated().any() else replace(found, which="first")

    @property
    def all_times(self) -> bool:
        """Whether a patient may have several rows."""
        return self.which == "all"

    def check_distinct(self, rows: pl.DataFrame) -> None:
        """Raise ValueError where a subject has two labels at one time; of several rows each, also where they agree."""
        if not self.all_times:
            rows = rows.unique()
        if repeated := int(rows.select(PREDICTION).is_duplicated().sum()):
            raise ValueError(
                "labels must be one for each subject and time: got"
                f" {repeated} rows of the same in {self.folder}; keep one of each"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain data that say which labels these are."""
        said = {"name": self.name, "title": f"MEDS labels {self.name}", "labels_sha256": self.sha256}
        return said if self.which == "first" else said | {"labels": self.which}

    def rows(self) -> pl.DataFrame:
        """Every row, as it is written: patient_id (text), prediction_time, boolean_value, in the order of the two."""
        labels = _read(_files(self.folder)).rename({"subject_id": "patient_id"})
        return labels.sort("patient_id", "prediction_time", "boolean_value")

    def read(self) -> pl.DataFrame:
        """One row per subject, or per subject and time: prediction time with its label, and how many he has.

        random: that of the lowest hash of id and time, whatever the label.
        """
        if self.all_times:
            return self.rows().with_columns(times=pl.len().over("patient_id"))
        labels = self.rows().sort("prediction_time", "boolean_value")
        if self.which == "random" and len(labels):
            time = pl.col("prediction_time").cast(pl.Int64)
            moments = labels.select(pl.concat_str("patient_id", time, separator=" ")).to_series()
            labels = labels.with_columns(drawn=patient_hash(moments, _DRAW)).sort("drawn", maintain_order=True)
        taken = pl.col("prediction_time", "boolean_value")
        taken = taken.last() if self.which == "last" else taken.first()
        return labels.group_by("patient_id", maintain_order=True).agg(
            taken, pl.col("prediction_time").n_unique().alias("times")
        )


@dataclass(frozen=True)
class GivenTimes(LabelFolder):
    """Times of prediction without labels, in place of a folder that has them."""

    NOBODY: ClassVar[str] = "Patients for whom no time of prediction is given"

    frame: pl.DataFrame = field(default_factory=pl.DataFrame, compare=False)
    """patient_id, prediction_time."""

    @classmethod
    def of(cls, frame: pl.DataFrame, name: str) -> "GivenTimes":
        """All times of each patient; ValueError where one is there twice."""
        found = cls(name, name, "", "all", frame)
        found.check_distinct(rows := found.rows())
        return found if rows["patient_id"].is_duplicated().any() else replace(found, which="first")

    def rows(self) -> pl.DataFrame:
        """As those of a folder, without a label."""
        return self.frame.sort(PREDICTION).with_columns(boolean_value=pl.lit(None, pl.Boolean))


def read_times(path: str | Path) -> pl.DataFrame:
    """patient_id, prediction_time of a Parquet file, or of all in a folder, with subject_id and prediction_time, whose
    labels, if any, are not looked at. ValueError where they are none."""
    files = _files(path) if Path(path).is_dir() else [Path(path)]
    columns = {name: _COLUMNS[name] for name in ("subject_id", "prediction_time")}
    parts, faults = [], [] if files else ["no .parquet file"]
    for file in files:
        schema = parquet_schema(file)
        faults += [
            f"{name} {schema.get(name, 'missing')} in {file.name}"
            for name in columns
            if name not in schema or not _is_read(name, schema[name])
        ]
        if not faults:
            part = scan_parquet(file).select(columns.keys()).collect()
            parts.append(part.select(read(part[name]) for name, read in columns.items()))
    found = pl.concat(parts) if parts else pl.DataFrame(schema=dict.fromkeys(columns, pl.String))
    if unread := sum(found.null_count().row(0)) if not faults else 0:
        faults = [f"{unread} cells that are none"]
    if faults:
        raise ValueError(
            f"times of prediction are Parquet with subject_id and prediction_time in every row: got {'; '.join(faults)}"
            f" in {path}; write them so, or give one day for all with --at"
        )
    return found.rename({"subject_id": "patient_id"})


def judge_labelled(tables: EhrTables, labels: LabelFolder) -> tuple[pl.DataFrame, list[Exit]]:
    """One row per patient of the shard, or per prediction, and the ledger's lines, as `judge` gives them of a spec.

    The input ends with the first visit that had not begun at the prediction time; a visit of which no time is known was
    not shown to have begun. What was known of the visits before it says `ehr.known`. index_order is input_until + 1. Of
    several prediction times one is taken (`LabelFolder.which`), and those patients are marked in
    rule:several_prediction_times; or each is a row, judged as if there were no other.

    Raises ValueError for a source without dates.
    """
    if not tables.source.has_dates:
        raise ValueError(
            f"MEDS labels say at what time a prediction is made: got a source without dates (format"
            f" {tables.source.format}); use a cohort spec"
        )
    lives = in_life(tables)
    labelled = tables.patients.select("patient_id").join(labels.read(), on="patient_id", how="left")
    labelled = labelled.join(lives.ends, on="patient_id", how="left")
    visits = lives.tables.visits.join(labelled.drop_nulls("times"), on="patient_id").sort(*PREDICTION, "order")
    begun = pl.coalesce("admit_time", "discharge_time") <= pl.col("prediction_time")
    first_to_come = pl.col("order").filter(~begun.fill_null(False)).min()
    inputs = visits.group_by(PREDICTION).agg(
        pl.coalesce(first_to_come - 1, pl.col("order").max()).alias("input_until"),
        pl.col("admit_time").first().dt.date().alias("day_one"),
    )
    decided = labelled.join(inputs, on=PREDICTION, how="left").with_columns(
        pl.col("boolean_value").alias("label"),
        pl.col("prediction_time").alias("over_by"),
        (pl.col("input_until") + 1).alias("index_order"),
        (pl.col("prediction_time").dt.date() - pl.col("day_one")).dt.total_days().alias("index_day"),
        pl.lit(1.0).alias("weight"),
        (pl.col("times") > 1).alias(f"rule:{SEVERAL_TIMES}"),
    )
    lines = [
        Exit(NOT_LABELLED, labels.NOBODY, "ours", pl.col("times").is_null()),
        Exit(
            "predicted_after_death",
            "The prediction time comes after the death",
            "ours",
            pl.col("prediction_time") > pl.col("died_at"),
        ),
        NO_VISITS,
        too_few_codes(1, "ours"),
    ]
    return with_leaving(with_counts(tables, lives, decided, PREDICTION), lines), lines


def _read(files: list[Path]) -> pl.DataFrame:
    """All labels, in columns of one type: text, naive µs, Boolean."""
    parts = [scan_parquet(path).select(_COLUMNS.keys()).collect() for path in files]
    return pl.concat([part.select(read(part[name]) for name, read in _COLUMNS.items()) for part in parts])


def _files(folder: str | Path) -> list[Path]:
    return sorted(Path(folder).rglob("*.parquet"))
