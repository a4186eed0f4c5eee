"""When a fine-tuning stops, and which of its parameters are kept."""

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from medbert_jax.metrics.discrimination import better


def steps_per_round(patients: int, batch_size: int, evaluate_every: int) -> tuple[int, int]:
    """Steps of an epoch, and steps between two validations; `evaluate_every` in patients, 0 for a whole epoch."""
    per_epoch = -(-patients // batch_size)
    return per_epoch, min(per_epoch, -(-evaluate_every // batch_size)) if evaluate_every else per_epoch


@runtime_checkable  # a signature that names it is checked in the tests
class KeptStopping(Protocol):
    """What is kept of early stopping while a fine-tuning is under way: of one, or of replicates that train together."""

    best_params: dict

    def told(self) -> dict:
        """All but the parameters, as JSON data."""

    def remember(self, told: dict, best_params: dict) -> None:
        """Be as one was that `told` this, and had these parameters."""


@dataclass
class EarlyStopping:
    """Keeps the parameters of the best validation; stops after `patience` validations that were not better.

    NaN, of a validation whose scores order nobody, is below every number; where there is nothing else, the first one is
    kept.
    """

    patience: int
    best: float = -np.inf
    best_step: int = 0
    best_params: dict = field(default_factory=dict)
    waited: int = 0
    last_step: int = 0
    """Of the last validation."""

    @property
    def over(self) -> bool:
        """Whether it is time to stop."""
        return self.waited >= self.patience

    def should_stop(self, step: int, value: float, params: dict) -> bool:
        """Record a validation (higher is better); True when it is time to stop."""
        self.last_step = step
        if better(value, self.best):
            # Copied: the state's buffers are donated to the next step.
            self.best, self.best_step, self.best_params = value, step, jax.tree.map(jnp.copy, params)
            self.waited = 0
        else:
            self.waited += 1
        return self.over

    def told(self) -> dict:
        """All but the parameters, as JSON data."""
        numbers = {name: getattr(self, name) for name in ("best_step", "waited", "last_step")}
        return numbers | {"best": repr(float(self.best))}  # −∞ and NaN among them

    def remember(self, told: dict, best_params: dict) -> None:
        """Be as one was that `told` this, and had these parameters."""
        self.best, self.best_params = float(told["best"]), best_params
        self.best_step, self.waited, self.last_step = (told[name] for name in ("best_step", "waited", "last_step"))
