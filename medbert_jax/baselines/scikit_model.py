"""A classifier under the scikit-learn contract, behind the contract of every model for a disease."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from sklearn.base import clone

from medbert_jax.baselines.stored_model import arrays_of
from medbert_jax.data.sequences import PatientSequences
from medbert_jax.training.disease_model import Fitted


class Classifier(Protocol):
    """A scikit-learn classifier that reads patient sequences and chooses on validation patients."""

    @property
    def validation_scores_(self) -> dict[str, float]:
        """After fit: metric → value on the validation patients, of what was chosen."""

    def fit(self, X, y, X_validation, y_validation) -> "Classifier":
        """Fit on X, y (n,) of 0/1; returns itself."""

    def predict_proba(self, X) -> np.ndarray:
        """Probabilities of class 0 and class 1, (n, 2)."""


@dataclass(frozen=True)
class ScikitModel:
    """A classifier, and the names that its results are filed under."""

    classifier: Classifier
    backbone: str
    head: str

    def fit(self, train: PatientSequences, validation: PatientSequences) -> Fitted:
        """Fit a copy of the classifier."""
        fitted = clone(self.classifier)
        fitted.fit(train, train.outcomes["label"], validation, validation.outcomes["label"])
        return Fitted(
            predict=lambda sequences: fitted.predict_proba(sequences)[:, 1],
            backbone=self.backbone,
            head=self.head,
            validation=fitted.validation_scores_,
            stopping_reason="converged",
            arrays=arrays_of(fitted),
        )
