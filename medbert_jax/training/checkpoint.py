"""A pretraining that runs start from: opened once for all of them, so that its files are verified and read once."""

from dataclasses import dataclass
from functools import cached_property

import jax

from medbert_jax.models.config import ModelConfig
from medbert_jax.training.checkpointing import good_step, restore_step, step_fingerprint, stored_parameters
from medbert_jax.training.cohort_data import CohortData
from medbert_jax.training.lineage import check_pretraining_dataset, check_vocabulary
from medbert_jax.training.progress import say
from medbert_jax.training.stored_config import read_config, stored_model


@dataclass(frozen=True)
class Checkpoint:
    """The newest intact step of a run directory. Every fact is found when it is first asked for, and kept.

    CheckpointError where there is no intact step, RunDirectoryError where there is no run.
    """

    path: str

    def __post_init__(self):
        """Refuse to take the folder that the process is in for one that nobody named."""
        if not self.path:
            raise ValueError(
                "a fine-tuning takes its architecture and codes from a pretraining, with --backbone none or untrained "
                "too: got no --checkpoint; give the run directory that run_pretrain.py printed"
            )

    @cached_property
    def config(self) -> dict:
        """The run's whole configuration, as `read_config` gives it; needs no step."""
        return read_config(self.path, tell=say)

    @cached_property
    def step(self) -> int:
        """The newest step whose files are all as they were written, config.json and vocabulary.tsv among them."""
        return good_step(self.path)

    @cached_property
    def fingerprint(self) -> str:
        """What identifies the parameters, wherever they lie."""
        return step_fingerprint(self.path, self.step)

    @cached_property
    def model(self) -> ModelConfig:
        """The architecture."""
        _ = self.step  # a step vouches for config.json
        return stored_model(self.config, self.path)

    @cached_property
    def parameters(self) -> dict:
        """All that the pretraining trained, heads included, on the host: no run can give them away to a step."""
        stored = stored_parameters(self.path, self.step)
        return jax.device_get(restore_step(self.path, self.step, stored, verified=True).params)

    def check_cohort(self, cohort: CohortData) -> None:
        """Raise ValueError where a cohort has another vocabulary, or was split after another pretraining dataset."""
        check_vocabulary(self.path, cohort.vocabulary)
        check_pretraining_dataset(self.path, cohort.metadata["pretraining_dataset_hash"])
