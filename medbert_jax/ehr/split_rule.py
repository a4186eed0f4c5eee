"""Which patient is in which split: a keyed hash of the id, or splits.parquet beside the EHR tables."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from medbert_jax.disk.tables_on_disk import parquet_schema, scan_parquet
from medbert_jax.ehr.hashing import SPLITS, assign_split
from medbert_jax.ehr.shard_files import SPLITS_FILE
from medbert_jax.ehr.tables import listed_files

GIVEN = "given"
"""The key of splits that come with the tables."""


@dataclass(frozen=True)
class Split:
    """The rule; `recipe` is what a dataset's metadata says of it."""

    key: str
    ratios: tuple[float, float, float] | None
    """Of the hash; None where the key is "given"."""
    sha256: str = ""
    """Of splits.parquet, where the key is "given"."""

    def recipe(self) -> dict:
        """Return what decides the splits, as JSON data."""
        if self.ratios is None:
            return {"key": GIVEN, "sha256": self.sha256}
        return {"key": self.key, "ratios": list(self.ratios)}

    def assign(self, ehr_directory: Path, patient_ids: np.ndarray | pl.Series) -> np.ndarray:
        """Return the split of every patient (n,) int8, a place in SPLITS; −1 where splits.parquet names none.

        Args:
            ehr_directory: the folder that may hold splits.parquet.
            patient_ids: (n,) bytes, or a text Series.

        Raises ValueError for a patient in two rows of that file, or a split that is none of SPLITS.
        """
        if self.ratios is not None:
            if not len(patient_ids):
                return np.zeros(0, np.int8)
            return assign_split(patient_ids, key=self.key, ratios=self.ratios)
        if not isinstance(patient_ids, pl.Series):
            patient_ids = pl.Series(patient_ids.tolist(), dtype=pl.Binary).cast(pl.String)
        ids = pl.DataFrame({"patient_id": patient_ids})
        rows = scan_parquet(ehr_directory / SPLITS_FILE).select(pl.col("patient_id", "split").cast(pl.String))
        given = rows.join(ids.lazy(), on="patient_id", how="semi").drop_nulls().collect(engine="streaming")
        foreign = given.filter(~pl.col("split").is_in(SPLITS)).height
        if foreign or (repeated := given.height - given["patient_id"].n_unique()):
            what = f"{foreign} rows with another split" if foreign else f"{repeated} rows of patients who have one"
            raise ValueError(
                f"{SPLITS_FILE} must put each patient once into one of {', '.join(SPLITS)}: got {what}; correct it"
            )
        places = given.with_columns(pl.col("split").replace_strict(SPLITS, range(len(SPLITS)), return_dtype=pl.Int8))
        found = ids.join(places, on="patient_id", how="left", maintain_order="left")
        return found["split"].fill_null(-1).to_numpy()


def find_split(ehr_directory: Path, key: str, ratios: tuple[float, float, float] | None) -> Split:
    """Return the hash's rule, or that of splits.parquet where the folder of EHR tables holds it.

    Raises ValueError for ratios that are none, and for splits.parquet that is not the one that was written with the
    tables, has other columns than patient_id and split, or is wanted and missing.
    """
    path = ehr_directory / SPLITS_FILE
    written = listed_files(ehr_directory).get(SPLITS_FILE)
    if not path.exists():
        if written or key == GIVEN or ratios is None:
            raise ValueError(
                f"splits that come with the tables are in {SPLITS_FILE}: got none in {ehr_directory};"
                " read the source again with `medbert ingest`, or put the file there"
            )
        assign_split(["x"], key=key, ratios=ratios)  # raises where the ratios are wrong
        return Split(key, tuple(ratios))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    if written not in (None, sha256):
        raise ValueError(f"{SPLITS_FILE} must have the sha256 of source.json: got another; read the source again")
    if missing := {"patient_id", "split"} - set(parquet_schema(path)):
        raise ValueError(
            f"{SPLITS_FILE} must have the columns patient_id and split: got no {sorted(missing)}; add them"
        )
    return Split(GIVEN, None, sha256)
