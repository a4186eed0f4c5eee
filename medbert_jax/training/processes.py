"""Several processes that train one model: on the hosts of a pod, or on one machine."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import jax
import numpy as np
from annotated_types import Ge
from jax.experimental import multihost_utils

from medbert_jax.checked_fields import check_fields


@dataclass(frozen=True)
class ProcessesConfig:
    """How the processes of a run find each other; the same command is started in each."""

    count: Annotated[int, Ge(0)] = 1
    """Processes of the run; 0 takes what the environment says (Cloud TPU, Slurm, Open MPI, Kubernetes)."""
    number: Annotated[int, Ge(0)] = 0
    """Which of them this one is, from 0."""
    coordinator: str = ""
    """HOST:PORT of process 0, at which the others ask."""

    def __post_init__(self):
        """Check every field; all faults are in one error."""
        check_fields(self, at="processes", also=self._disagreements())

    def _disagreements(self) -> Iterator[str]:
        if self.count > 1 and not self.coordinator:
            yield f"{self.count} processes need a coordinator: got none; give HOST:PORT of process 0"
        if 0 < self.count <= self.number:
            yield f"processes.number must be one of 0 … {self.count - 1}: got {self.number}; count them from 0"


def join_processes(config: ProcessesConfig) -> None:
    """Join the other processes of the run, before anything asks for devices; for one process do nothing."""
    if config.count == 0:
        jax.distributed.initialize()
    elif config.count > 1:
        jax.distributed.initialize(config.coordinator, config.count, config.number)


def all_processes(fine: bool) -> bool:
    """Whether things are fine in every process of the run; each asks at the same place, and none goes on alone."""
    if jax.process_count() == 1:
        return fine
    return bool(multihost_utils.process_allgather(np.int32(fine)).all())
