"""Whom predictions are judged on: the test patients of a cohort, or the subjects of a folder of MEDS labels."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from medbert_jax.cohorts.censoring import CENSORING_WEIGHT
from medbert_jax.cohorts.matching import SET_ID
from medbert_jax.cohorts.meds_labels import LabelFolder
from medbert_jax.data.metadata import read_metadata
from medbert_jax.data.token_store import open_token_store, read_vocabulary
from medbert_jax.disk.seals import check_files
from medbert_jax.disk.tables_on_disk import read_parquet
from medbert_jax.ehr.known import PREDICTION
from medbert_jax.evaluation.design import Design, design_of
from medbert_jax.evaluation.strata import strata_of
from medbert_jax.metrics.bootstrap import DRAWS, SEED, Draws

COHORT_TABLE = "cohort.parquet"
_AGAIN = "prepare the cohort again"


@dataclass(frozen=True, eq=False)
class EvaluatedPatients:
    """One row per prediction, n in all."""

    name: str
    """Of the cohort."""
    dataset_hash: str
    """Of the cohort dataset, or of the labels."""
    design: Design
    subject: np.ndarray
    """(n,) text: the patient. Rows of one patient, if any, are resampled together."""
    time: np.ndarray
    """(n,) int64, µs since 1970: when he is predicted."""
    label: np.ndarray
    """(n,) 0, 1, and −1 for who is censored."""
    weight: np.ndarray
    """(n,) for how many patients one stands: by inverse probability of being sampled, and of being followed."""
    sets: np.ndarray | None = None
    """(n,) of a matched cohort: who is matched to whom."""
    strata: dict[str, np.ndarray] = field(default_factory=dict)
    """Group → level of every row, (n,) text."""

    @property
    def known(self) -> np.ndarray:
        """(n,) whose label is known."""
        return self.label >= 0

    @property
    def is_weighted(self) -> bool:
        """Whether those with a label stand for different numbers of patients."""
        weight = self.weight[self.known]
        return bool(len(weight) and np.ptp(weight) > 0)

    @property
    def is_clustered(self) -> bool:
        """Whether a patient has several rows."""
        return len(np.unique(self.subject)) < len(self.subject)

    @property
    def clusters(self) -> np.ndarray:
        """(n,) what is resampled as one: a matched set, or a patient."""
        return self.subject if self.sets is None else self.sets

    def draws(self, number: int = DRAWS, seed: int = SEED) -> Draws:
        """The bootstrap's draws of those with a label, with all that the design asks for."""
        weight, known = self.weight[self.known], self.known
        is_sample = self.design.sampling == "sampled controls" and self.is_weighted
        sampled = self.label[known] == 0 if is_sample else None
        return Draws(self.clusters[known], number, seed, weight, sampled)


def read_evaluated(cohort: str | Path, *, cache_dir: str = "", split: str = "test") -> EvaluatedPatients:
    """The test patients of a cohort dataset, or those of another split, with their groups, or all rows of a folder of
    MEDS labels.

    Raises FileNotFoundError or ValueError where it is neither, or is damaged. `cache_dir` as in `open_token_store`.
    """
    if (Path(cohort) / "metadata.json").is_file():
        return _of_dataset(Path(cohort), cache_dir, split)
    return _of_labels(LabelFolder.find(cohort))


def _of_labels(labels: LabelFolder) -> EvaluatedPatients:
    rows = labels.rows()
    if repeated := int(rows.select("patient_id", "prediction_time").is_duplicated().sum()):
        raise ValueError(
            f"labels that predictions are judged by must be one for each subject and time: got {repeated} rows of the"
            f" same in {labels.folder}; keep one of each"
        )
    return EvaluatedPatients(
        labels.name,
        labels.sha256,
        Design("everybody", "as labelled", None),
        rows["patient_id"].to_numpy().astype(np.str_),
        rows["prediction_time"].cast(pl.Int64).to_numpy(),
        rows["boolean_value"].cast(pl.Int8).to_numpy(),
        np.ones(len(rows)),
    )


def _of_dataset(directory: Path, cache_dir: str, split: str) -> EvaluatedPatients:
    metadata = read_metadata(directory)
    if metadata["kind"] != "cohort":
        raise ValueError(
            f"predictions are judged on the test patients of a cohort: got a dataset of kind {metadata['kind']}; pass"
            " DATA_DIR/disease_cohort/NAME/1.0.0"
        )
    check_files(directory / "metadata.json", metadata, [COHORT_TABLE], _AGAIN)
    patients = open_token_store(directory, split, cache_dir, _tell)
    rows = _cohort_rows(directory).filter(pl.col("split") == split)
    ids = [one.decode() for one in patients.patient_id.tolist()]
    times = pl.Series(np.asarray(patients.outcomes["prediction_time"])).cast(pl.Datetime("us"))
    order = pl.DataFrame(dict(zip(PREDICTION, (ids, times), strict=True)))
    rows = order.join(rows, on=PREDICTION, how="left", maintain_order="left")
    label = np.asarray(patients.outcomes["label"])
    if not np.array_equal(rows["label"].fill_null(-2).to_numpy(), label):
        raise ValueError(
            f"{COHORT_TABLE} must hold the labels of the dataset beside it: got others in {directory}; {_AGAIN}"
        )
    design = design_of(metadata["cohort"] or {}, has_weights="weight" in rows.columns)
    if (label < 0).any() and CENSORING_WEIGHT not in rows.columns:
        raise ValueError(
            f"a cohort with censored patients must hold their weights: got no {CENSORING_WEIGHT} in"
            f" {directory / COHORT_TABLE}; {_AGAIN}"
        )
    return EvaluatedPatients(
        metadata["cohort"]["name"] if metadata["cohort"] else directory.parent.name,
        metadata["dataset_hash"],
        design,
        rows["patient_id"].to_numpy().astype(np.str_),
        np.asarray(patients.outcomes["prediction_time"], np.int64),
        label.astype(np.int8),
        *weights_and_sets(rows, design),
        strata_of(patients, read_vocabulary(directory), list(metadata.get("races", ()))),
    )


def weights_and_sets(rows: pl.DataFrame, design: Design) -> tuple[np.ndarray, np.ndarray | None]:
    """How many patients each row of a cohort stands for, (n,), and of a matched cohort the sets, (n,), else None."""
    weight = np.ones(len(rows))
    if design.sampling == "sampled controls" and design.absolute:
        weight = weight * rows["weight"].to_numpy()
    if (rows["label"] < 0).any():
        weight = weight * rows[CENSORING_WEIGHT].to_numpy()
    matched = design.sampling == "matched sets" and SET_ID in rows.columns
    return weight, rows[SET_ID].to_numpy() if matched else None


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


def _cohort_rows(directory: Path) -> pl.DataFrame:
    path = directory / COHORT_TABLE
    if not path.is_file():
        raise FileNotFoundError(
            f"a cohort dataset has its patients in {COHORT_TABLE}: got none in {directory}; {_AGAIN}"
        )
    return read_parquet(path)
