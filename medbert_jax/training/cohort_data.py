"""A cohort's training and validation patients, ready for a model or a baseline. The test split is not opened here."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medbert_jax.data.labelled import labelled
from medbert_jax.data.sequences import PatientSequences
from medbert_jax.data.token_store import open_token_store, read_metadata, read_vocabulary
from medbert_jax.data.vocabulary import Vocabulary
from medbert_jax.ehr.hashing import patient_hash
from medbert_jax.training.lineage import check_dataset
from medbert_jax.training.progress import say


@dataclass(frozen=True)
class CohortData:
    """What a fine-tuning run may see."""

    name: str
    metadata: dict
    vocabulary: Vocabulary
    train: PatientSequences
    validation: PatientSequences


def load_cohort(dataset: str | Path, *, train_size: int = 0, replicate: int = 0, cache_dir: str = "") -> CohortData:
    """The cohort with the training subset of this size and replicate; whole sequences. See `open_token_store`."""
    metadata = read_metadata(dataset)
    check_dataset(metadata, kind="cohort")
    train = labelled(open_token_store(dataset, "train", cache_dir, say))
    return CohortData(
        metadata["cohort"]["name"],
        metadata,
        read_vocabulary(dataset),
        train.take(training_subset(train.patient_id, train_size, replicate)),
        labelled(open_token_store(dataset, "validation", cache_dir, say)),
    )


def training_subset(patient_ids: np.ndarray, size: int, replicate: int) -> np.ndarray:
    """Indices of all rows of the `size` patients with the lowest hash of this replicate's key; 0 takes all.

    Subsets of one replicate are nested: its 300 patients are among its 1,000.
    """
    hashes = patient_hash(patient_ids, key=f"training subset {replicate}")
    patients = np.unique(hashes)  # with several predictions of a patient fewer than rows
    if size > len(patients):
        raise ValueError(
            f"train_size must not exceed the cohort's training patients: got {size} and {len(patients)}; "
            "use 0 for all of them"
        )
    return np.flatnonzero(hashes <= patients[size - 1]) if size else np.arange(len(hashes))
