"""Whom a run is trained on: which of a cohort's training patients, how often, and what a replicate changes."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from medbert_jax.checked_fields import check_fields
from medbert_jax.ehr.hashing import patient_hash


@dataclass(frozen=True)
class SamplingConfig:
    """How training patients are drawn. Never enriched: all shares are those of the cohort."""

    stratified: bool = False
    """A subset has the cohort's share of cases, to the nearest patient; else the share of its lowest hashes."""
    resample: Literal["subset", "head", "bootstrap"] = "subset"
    """What a replicate changes beside the seeds of head, order and dropout. subset: who is trained on; head: nothing,
    the patients are those of replicate 0 (the paper's Ex-1 and Ex-2); bootstrap: as many patients, drawn with
    replacement from all of the cohort (the paper's Ex-3)."""

    def __post_init__(self):
        """Check every field; all faults are in one error."""
        check_fields(self, at="sampling")


def training_subset(patient_ids: np.ndarray, size: int, replicate: int) -> np.ndarray:
    """Indices of all rows of the `size` patients with the lowest hash of this replicate's key; 0 takes all.

    Subsets of one replicate are nested: its 300 patients are among its 1,000.
    """
    return training_patients(patient_ids, np.zeros(len(patient_ids)), size, replicate, SamplingConfig())


def training_patients(
    patient_ids: np.ndarray, labels: np.ndarray, size: int, replicate: int, sampling: SamplingConfig
) -> np.ndarray:
    """Indices, ascending, of the rows (n,) with labels (n,) of 0/1 to train on.

    `size` is of patients; 0 takes as many as there are. A patient is taken with all his rows, and is a case where one
    of them is. Nested over sizes: of one replicate, the patients of a size are among those of a larger one, as often or
    more often. They do not depend on the order of the rows. ValueError for more patients than there are.
    """
    key = replicate if sampling.resample == "subset" else 0
    hashes, patient_of_row = np.unique(patient_hash(patient_ids, key=f"training subset {key}"), return_inverse=True)
    patients = len(hashes)  # by their hash, ascending
    if size > patients:
        raise ValueError(
            f"train_size must not exceed the cohort's training patients: got {size} and {patients}; "
            "use 0 for all of them"
        )
    size, order = size or patients, np.arange(patients)
    strata = [(order, size)]
    if sampling.stratified:
        is_case = np.bincount(patient_of_row, np.asarray(labels) == 1, patients) > 0
        cases = (2 * size * int(is_case.sum()) + patients) // (2 * patients)  # rounded half up, so nested
        strata = [(order[is_case], cases), (order[~is_case], size - cases)]
    if sampling.resample == "bootstrap":
        strata = [
            (_with_replacement(stratum, patients, (replicate, place)), count)
            for place, (stratum, count) in enumerate(strata)
        ]
    times = np.bincount(np.concatenate([stratum[:count] for stratum, count in strata]), minlength=patients)
    return np.repeat(np.arange(len(patient_ids)), times[patient_of_row])


def _with_replacement(stratum: np.ndarray, draws: int, seed: tuple[int, int]) -> np.ndarray:
    """All draws that the largest size needs: the first ones of a generator may depend on their number."""
    return stratum[np.random.default_rng(seed).integers(len(stratum), size=draws)] if len(stratum) else stratum
