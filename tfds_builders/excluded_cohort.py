"""A cohort whose patients a pretraining does without: so that nothing of their later records was seen before."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from medbert_jax.data.token_store import read_metadata
from medbert_jax.disk.seals import check_files
from medbert_jax.disk.tables_on_disk import read_parquet
from medbert_jax.ehr.schema import EhrSource

COHORT_TABLE = "cohort.parquet"
"""Beside a cohort dataset: `select_cohort`'s rows of its patients, and their split."""


@dataclass(frozen=True)
class ExcludedCohort:
    """Plain data, which can be sent to any machine that sees the folder."""

    path: Path
    """Absolute, of the cohort dataset."""
    sha256: str
    """Of its table of patients: the file that every shard must find."""
    name: str
    dataset_hash: str

    def recipe(self) -> dict:
        """Return what decides who is left out, as JSON data."""
        return {"name": self.name, "dataset_hash": self.dataset_hash, "sha256": self.sha256}

    def holds(self, patient_ids: np.ndarray) -> np.ndarray:
        """Return which patients (n,) of ids ('S') are in the cohort, (n,) bool.

        Raises ValueError where the table is another one than when the work began.
        """
        table = self.path / COHORT_TABLE
        if (found := _sha256(table)) != self.sha256:
            raise ValueError(
                f"{COHORT_TABLE} must stay as it is while a dataset is made: got sha256 {found[:12]} in {self.path},"
                f" and not {self.sha256[:12]}; give the same command again"
            )
        return np.isin(patient_ids, read_parquet(table)["patient_id"].cast(pl.Binary).to_numpy().astype(np.bytes_))


def find_excluded(directory, source: EhrSource) -> ExcludedCohort:
    """Return the cohort dataset in `directory` as one to leave out of a dataset of `source`.

    Raises ValueError where there is none, or where it is of other tables, in which the same id may name somebody else.
    """
    path = Path(directory).absolute()
    metadata = read_metadata(path)
    if metadata["kind"] != "cohort":
        raise ValueError(
            f"exclude_cohort leaves out the patients of a cohort dataset: got one of kind {metadata['kind']};"
            " pass DATA_DIR/disease_cohort/NAME/1.0.0"
        )
    if (theirs := metadata["source"]["content_hash"]) != source.content_hash:
        raise ValueError(
            "a cohort that is left out must be of these EHR tables, for patients are known by their ids alone: got"
            f" content hash {theirs[:12]} of the tables of {path}, and {source.content_hash[:12]} of these; prepare"
            " that cohort from these tables"
        )
    sha256 = _sha256(path / COHORT_TABLE)
    check_files(path / "metadata.json", metadata, [COHORT_TABLE], "prepare the cohort again")
    return ExcludedCohort(path, sha256, metadata["cohort"]["name"], metadata["dataset_hash"])


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        raise ValueError(
            f"a cohort dataset has its patients in {COHORT_TABLE}: got none in {path.parent}; prepare the cohort again"
        ) from None
