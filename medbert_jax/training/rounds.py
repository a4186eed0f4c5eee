"""The rounds of a fine-tuning: after so many steps a validation, which early stopping decides by."""

from dataclasses import dataclass

import numpy as np

from medbert_jax.metrics.discrimination import auroc_where_ordered
from medbert_jax.training.cohort_scores import CohortScores
from medbert_jax.training.early_stopping import EarlyStopping
from medbert_jax.training.interruption import Interruption
from medbert_jax.training.progress import Progress


@dataclass(frozen=True, eq=False)
class Rounds:
    """The validations of a fine-tuning, each made once, whatever interrupts it."""

    scores: CohortScores
    labels: np.ndarray
    given: dict
    """What predictions read besides the trained parameters."""
    stopping: EarlyStopping
    progress: Progress
    every: int
    interruption: Interruption

    def missing(self, step: int) -> bool:
        """Whether a validation is due after `step` steps that was not made."""
        return step > 0 and step % self.every == 0 and self.stopping.last_step < step

    def make(self, step: int, params: dict) -> None:
        """Make and record the one that is missing after `step` steps, unless the run is to stop."""
        if not self.missing(step) or self.interruption.stopping:
            return
        metrics = self.judge(step, params)
        if not self.progress.recorded(step, kind="validation"):
            self.progress.record(step, metrics, kind="validation")

    def judge(self, step: int, params: dict) -> dict[str, float]:
        """Make the validation and tell early stopping of it; what is recorded of it comes back."""
        found = auroc_where_ordered(self.labels, self.scores.of(params | self.given))
        self.stopping.should_stop(step, found, params)
        return {"auroc": found, "best_auroc": self.stopping.best}
