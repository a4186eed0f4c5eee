"""A fine-tuned model with its head: out of its run folder, into another, and the probabilities that it gives."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from medbert_jax.data.rows import fit_to_model
from medbert_jax.data.sequences import PatientSequences
from medbert_jax.data.vocabulary import Vocabulary
from medbert_jax.models.config import ModelConfig
from medbert_jax.models.finetune_heads import HeadConfig
from medbert_jax.training.checkpointing import good_step, restore_step, save_step, stored_parameters
from medbert_jax.training.cohort_scores import predict
from medbert_jax.training.run_directory import RunDirectory
from medbert_jax.training.sharding import MeshConfig, make_mesh
from medbert_jax.training.stored_config import RunDirectoryError, read_config, stored_model


@dataclass(frozen=True, eq=False)
class Finetuned:
    """What the probabilities need; the parameters are on the host, so it can be pickled."""

    model: ModelConfig
    head: HeadConfig
    params: dict
    step: int
    run_config: Mapping
    """Of the run that trained it."""

    def predict(self, sequences: PatientSequences) -> np.ndarray:
        """Probability of the label for each of whole sequences, (n,) float64, in their order.

        ValueError for ids that the model has no rows for.
        """
        limits = {name: getattr(self.model, name) for name in ("vocabulary_size", "max_visits", "max_length")}
        cut, _ = fit_to_model(sequences, **limits)
        return predict(self.params, cut, model=self.model, head=self.head, mesh=make_mesh(MeshConfig()))

    def write(self, folder: str | Path, vocabulary: Vocabulary) -> None:
        """Write a run folder with this step. RunDirectoryError or CheckpointError where another run or step is."""
        config = {**self.run_config, "run": str(folder)}
        card = {"cohort": "none: fitted in Python"} if not config.get("dataset") else None
        with RunDirectory.create_or_open(
            folder, config=config, vocabulary=vocabulary, kind="finetune", may_differ=("run",), card=card
        ) as run:
            save_step(run, self.step, params=self.params, opt_state=None, progress={"step": self.step})


def read_finetuned(folder: str | Path, verified_step: int | None = None) -> Finetuned:
    """The newest intact step of a fine-tuned run folder, or the one that was verified already.

    RunDirectoryError where there is no such run, CheckpointError where there is no intact step.
    """
    step = good_step(folder) if verified_step is None else verified_step  # a step vouches for config.json
    config = read_config(folder)
    if config.get("kind") != "finetune":
        raise RunDirectoryError(
            f"what gives probabilities must be fine-tuned: got {folder}, a pretraining; load it with"
            " medbert_jax.load_pretrained, or fit a MedBertClassifier that begins with it"
        )
    params = restore_step(folder, step, stored_parameters(folder, step), verified=True).params
    params = {name: {} for name in ("embeddings", "encoder")} | params  # of no layers nothing is stored
    model, head = stored_model(config, folder), HeadConfig(**config["head"])
    return Finetuned(model, head, jax.device_get(params), step, config)
