"""Whether a pretraining has read the records of a cohort's patients."""

from pathlib import Path

import numpy as np

from medbert_jax.data.token_store import open_token_store, read_metadata
from medbert_jax.ehr.hashing import SPLITS


def check_unseen(
    cohort: str | Path, pretraining: str | Path, *, training_seen: bool = False, cache_dir: str = ""
) -> None:
    """Raise ValueError where patients of a cohort dataset are in the pretraining dataset that it was made after.

    None may be, in whatever split. With `training_seen` the training patients may; those of validation and test are
    then no training patients of the pretraining. Patients are known by their ids.
    """
    of_cohort, of_pretraining = (_patients(directory, cache_dir) for directory in (cohort, pretraining))
    if training_seen:
        held_out = np.concatenate([of_cohort["validation"], of_cohort["test"]])
        seen, words = np.isin(held_out, of_pretraining["train"]), "validation and test patients"
    else:
        everybody = np.concatenate([*of_cohort.values()])
        seen, words = np.isin(everybody, np.concatenate([*of_pretraining.values()])), "patients"
    if found := int(seen.sum()):
        raise ValueError(
            f"a pretraining must not have read {words} of a cohort that it is judged on: got {found:,} of "
            f"{len(seen):,} {words} of {cohort} in {pretraining}; make the cohort from other tables"
        )


def _patients(directory: str | Path, cache_dir: str) -> dict[str, np.ndarray]:
    counts = read_metadata(directory)["split"]["counts"]
    ids = {name: np.zeros(0, "S1") for name in SPLITS}
    for name in SPLITS:
        if counts[name]:
            ids[name] = np.asarray(open_token_store(directory, name, cache_dir).patient_id)
    return ids
