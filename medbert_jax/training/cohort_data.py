"""A cohort's training and validation patients, ready for a model or a baseline. The test split is not opened here."""

from dataclasses import dataclass
from pathlib import Path

from medbert_jax.data.labelled import labelled
from medbert_jax.data.sequences import PatientSequences
from medbert_jax.data.token_store import open_token_store, read_metadata, read_vocabulary
from medbert_jax.data.vocabulary import Vocabulary
from medbert_jax.training.lineage import check_dataset
from medbert_jax.training.progress import say
from medbert_jax.training.sampling import SamplingConfig, training_patients


@dataclass(frozen=True)
class CohortData:
    """What a fine-tuning run may see."""

    name: str
    metadata: dict
    vocabulary: Vocabulary
    train: PatientSequences
    validation: PatientSequences


def load_cohort(
    dataset: str | Path,
    *,
    train_size: int = 0,
    replicate: int = 0,
    sampling: SamplingConfig | None = None,
    cache_dir: str = "",
) -> CohortData:
    """The cohort with the training subset of this size and replicate; whole sequences. See `open_token_store`."""
    metadata = read_metadata(dataset)
    check_dataset(metadata, kind="cohort")
    train = labelled(open_token_store(dataset, "train", cache_dir, say))
    chosen = training_patients(
        train.patient_id, train.outcomes["label"], train_size, replicate, sampling or SamplingConfig()
    )
    return CohortData(
        metadata["cohort"]["name"],
        metadata,
        read_vocabulary(dataset),
        train.take(chosen),
        labelled(open_token_store(dataset, "validation", cache_dir, say)),
    )
