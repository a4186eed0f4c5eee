"""Rows of a shard that are predictions: of a folder of labels whose every time is taken a patient has several."""

import numpy as np
import polars as pl

from medbert_jax.cohorts.meds_labels import LabelFolder
from medbert_jax.cohorts.spec import CohortSpec
from medbert_jax.data.sequences import PatientSequences
from medbert_jax.ehr.hashing import SPLITS, patient_hash
from medbert_jax.ehr.known import PREDICTION
from medbert_jax.ehr.shard_files import SPLITS_FILE


def may_be_several(cohort: CohortSpec | LabelFolder | None) -> bool:
    """Return whether a patient may have several rows."""
    return isinstance(cohort, LabelFolder) and cohort.all_times


def predictions(histories: PatientSequences) -> pl.DataFrame:
    """Return `PREDICTION` of each row."""
    ids = pl.Series(histories.patient_id.tolist(), dtype=pl.Binary).cast(pl.String)
    times = pl.Series(histories.outcomes["prediction_time"]).cast(pl.Datetime("us"))
    return pl.DataFrame(dict(zip(PREDICTION, (ids, times), strict=True)))


def hashed_patients(histories: PatientSequences, split: np.ndarray, *, several: bool) -> dict[str, np.ndarray]:
    """Return hash and split of each patient; once for each split that his rows are in, where he has several.

    So whoever reads them sees a patient of two splits, and one who is in two shards.
    """
    hashes = patient_hash(histories.patient_id, "unique") if len(histories) else np.zeros(0, np.uint64)
    if several:
        _, first = np.unique(np.stack([hashes, split.astype(np.uint64)]), axis=1, return_index=True)
        hashes, split = hashes[first], split[first]
    return {"hash": hashes, "split": split}


def patients_with(histories: PatientSequences, split: np.ndarray) -> list[list[int]]:
    """Return how many patients of each split have a row, one with label 1, one with label 0: (3, splits)."""
    label = histories.outcomes["label"]
    rows = [[(split == place) & of for place in range(len(SPLITS))] for of in (label == label, label == 1, label == 0)]
    return [[len(np.unique(histories.patient_id[each])) for each in some] for some in rows]


def check_one_split(hashes: np.ndarray, splits: np.ndarray) -> None:
    """Raise ValueError where a patient of the `hashed_patients` of all shards has rows in several splits."""
    in_splits = np.unique(np.stack([hashes, splits.astype(np.uint64)]), axis=1).shape[1]
    if torn := in_splits - len(np.unique(hashes)):
        raise ValueError(
            f"all rows of a patient must be in one split: got {torn} patients with rows in several; name each patient"
            f" once in {SPLITS_FILE}, or write the EHR tables again with `medbert ingest`"
        )
