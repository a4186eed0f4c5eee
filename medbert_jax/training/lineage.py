"""Whether a dataset and a checkpoint go together: kind, preset, vocabulary, split."""

from pathlib import Path

from medbert_jax.data.vocabulary import Vocabulary
from medbert_jax.training.stored_config import read_config


def check_dataset(metadata: dict, *, kind: str, preset: str | None = None) -> None:
    """Raise ValueError when a dataset's metadata are of another kind or preset than the run needs."""
    faults = []
    if metadata["kind"] != kind:
        faults.append(f"the dataset must be of kind {kind}: got {metadata['kind']}; pass another directory")
    if preset is not None and metadata["preset"] != preset:
        faults.append(
            f"the dataset must be prepared with the run's preset:\n  − {preset} (dataset_preset)\n"
            f"  + {metadata['preset']} (dataset)\n"
            f"prepare it with --preset {preset}, or set dataset_preset to {metadata['preset']}"
        )
    if faults:
        raise ValueError("\n".join(faults))


def check_pretraining_dataset(checkpoint: str | Path, dataset_hash: str) -> None:
    """Raise ValueError when a checkpoint was pretrained on another dataset than the one a cohort was split after.

    The same dataset means the same vocabulary, serialization and split: no test patient was seen in pretraining.
    """
    trained_on = read_config(checkpoint).get("dataset_hash", "unknown")
    if trained_on != dataset_hash:
        raise ValueError(
            "a cohort must have the split and vocabulary of the checkpoint's pretraining dataset: got dataset "
            f"{dataset_hash[:12]} for the cohort and {trained_on[:12]} for {checkpoint}; make the cohort with "
            "--pretraining-dataset of that checkpoint"
        )


def check_split(checkpoint: str | Path, split: dict) -> None:
    """Raise ValueError when a checkpoint's patients were split otherwise: it may have seen test patients."""
    # How many patients fall into each part may differ: the key and the ratios say who.
    theirs, split = (
        {name: value for name, value in one.items() if name != "counts"}
        for one in (read_config(checkpoint).get("split", {}), split)
    )
    if theirs != split:
        raise ValueError(
            "a pretraining that starts from a checkpoint must keep its split, or test patients were seen: got\n"
            f"  − {theirs} ({checkpoint})\n  + {split} (dataset)\nprepare the dataset with the checkpoint's split"
        )


def check_vocabulary(checkpoint: str | Path, vocabulary: Vocabulary) -> None:
    """Raise ValueError when a checkpoint was trained with another vocabulary than the dataset's."""
    read_config(checkpoint)  # raises where there is no run
    theirs = Vocabulary.read(Path(checkpoint) / "vocabulary.tsv")
    if theirs.hash != vocabulary.hash:
        raise ValueError(
            "the dataset must be serialized with the checkpoint's vocabulary: got "
            f"{vocabulary.size} ids (hash {vocabulary.hash[:12]}) in the dataset and {theirs.size} ids (hash "
            f"{theirs.hash[:12]}) in {checkpoint}; make the dataset from the same pretraining dataset as the checkpoint"
        )
