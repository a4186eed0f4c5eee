"""A linear probe: logistic regression on the mean of the states of a pretrained model that stays as it is."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from annotated_types import Ge, Interval

from medbert_jax.checked_fields import check_fields
from medbert_jax.data.sequences import PatientSequences
from medbert_jax.data.vocabulary import Vocabulary
from medbert_jax.training.checkpoint import Checkpoint
from medbert_jax.training.disease_model import Fitted
from medbert_jax.training.pretrained import Pretrained, load_pretrained
from medbert_jax.training.sampling import SamplingConfig


@dataclass(frozen=True)
class ProbeConfig:
    """One linear probe on one training subset of one cohort."""

    dataset: str = ""
    """Directory of the cohort dataset."""
    checkpoint: str = ""
    """Run directory of the pretraining."""
    results: str = "results"
    """Folder of the results and predictions."""
    experiment: str = "finetune"
    """Name under which the results are filed."""
    C: Annotated[float, Ge(0)] = 0.0
    """Inverse strength of the L2 penalty; 0 chooses among `C_GRID` on validation AUROC."""
    train_size: Annotated[int, Ge(0)] = 0
    """Training patients; 0 takes all."""
    replicate: Annotated[int, Interval(ge=0, lt=2**32)] = 0
    """Chooses the training subset."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    def __post_init__(self):
        """Check every field; all faults are in one error."""
        check_fields(self)

    def model(self, vocabulary: Vocabulary) -> "LinearProbe":
        """The probe on the checkpoint's newest intact step."""
        # Here, because a fine-tuning need not wait for scikit-learn, which takes seconds to import.
        from medbert_jax.baselines.logistic_regression import C_GRID

        del vocabulary  # the checkpoint's own, which a cohort must have
        opened = Checkpoint(self.checkpoint)
        pretrained = load_pretrained(self.checkpoint, opened.step)
        return LinearProbe(pretrained, opened.fingerprint, (self.C,) if self.C else C_GRID)


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """A pretrained model that stays as it is, and the penalties to try for what reads it."""

    pretrained: Pretrained
    fingerprint: str
    C_grid: Sequence[float]

    def fit(self, train: PatientSequences, validation: PatientSequences) -> Fitted:
        """Logistic regression on `mean_states`, each element with mean 0 and deviation 1 on the training patients."""
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        from medbert_jax.baselines.logistic_regression import CodesLogisticRegression

        scaler = StandardScaler().fit(states := mean_states(self.pretrained, train))
        regression = CodesLogisticRegression(C_grid=self.C_grid).fit(
            scaler.transform(states),
            train.outcomes["label"],
            scaler.transform(mean_states(self.pretrained, validation)),
            validation.outcomes["label"],
        )
        whole = make_pipeline(scaler, regression)
        return Fitted(
            predict=lambda sequences: whole.predict_proba(mean_states(self.pretrained, sequences))[:, 1],
            backbone="frozen",
            head="mean_linear",
            validation=regression.validation_scores_,
            stopping_reason="converged",
            checkpoint=self.fingerprint,
        )


def mean_states(pretrained: Pretrained, sequences: PatientSequences) -> np.ndarray:
    """The mean of the states of a patient's codes, (n, D) float64; long histories are truncated as in training."""
    return np.stack([states.mean(axis=0, dtype=np.float64) for states in pretrained.encode(sequences, batch_size=256)])
