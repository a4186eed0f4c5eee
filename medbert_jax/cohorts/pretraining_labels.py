"""What else than prolonged stays may be asked of a whole record in pretraining: death, and an early readmission.

Paper: Methods, "Pre-training Med-BERT", where both were tried and given up because they were learned at once.
"""

from collections.abc import Iterable
from typing import Literal

import polars as pl

from medbert_jax.disk.whole_files import whole_file
from medbert_jax.ehr.schema import EhrTables

PatientLabel = Literal["mortality", "readmission"]
READMISSION_DAYS = 30


def patient_labels(tables: EhrTables, label: PatientLabel) -> pl.DataFrame:
    """patient_id and label (Int32, 0 or 1) of each patient of a shard.

    mortality: a death is recorded, or a visit ended in it. readmission: an inpatient stay begins 1 to 30 calendar days
    after the discharge of an earlier one; one that begins on the day of the discharge is a transfer. What is unknown
    counts as 0, as an unknown length of stay does for prolonged stays.
    """
    found = _died(tables) if label == "mortality" else _readmitted(tables.visits)
    ids = tables.patients.select("patient_id")
    return ids.with_columns(label=ids["patient_id"].is_in(found.implode()).cast(pl.Int32))


def write_patient_labels(path, shards: Iterable[EhrTables], label: PatientLabel) -> None:
    """Write the labels of all patients to a Parquet file, for `PretrainConfig.patient_labels`."""
    frame = pl.concat([patient_labels(tables, label) for tables in shards]).sort("patient_id")
    with whole_file(path) as partial:
        frame.write_parquet(partial)


def _died(tables: EhrTables) -> pl.Series:
    dead = tables.patients.filter(pl.col("death_date").is_not_null() | pl.col("death_time").is_not_null())
    expired = tables.visits.filter(pl.col("discharge_disposition") == "expired")
    return pl.concat([dead["patient_id"], expired["patient_id"]]).unique()


def _readmitted(visits: pl.DataFrame) -> pl.Series:
    stays = visits.filter(pl.col("visit_type") == "inpatient").sort("patient_id", "admit_time", "order")
    # The latest discharge so far: a stay within another does not end it.
    over = pl.col("discharge_time").cum_max().forward_fill().shift(1).over("patient_id")
    days = (pl.col("admit_time").dt.date() - over.dt.date()).dt.total_days()
    return stays.filter(days.is_between(1, READMISSION_DAYS))["patient_id"].unique()
