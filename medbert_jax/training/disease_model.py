"""The one contract of every model for a disease, Med-BERT and baselines alike: `fit`, then `predict`.

To add a model, write a class with `fit`, and a configuration (`ModelSpec`) whose `model(vocabulary)` returns it;
register nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from medbert_jax.data.sequences import PatientSequences
from medbert_jax.data.vocabulary import Vocabulary


@dataclass(frozen=True)
class Fitted:
    """A model after `fit`, and what its results are filed with."""

    predict: Callable[[PatientSequences], np.ndarray]
    """Whole sequences → probability of the label for each, (n,), in their order; truncating is its business."""
    backbone: str
    head: str
    validation: Mapping[str, float]
    """Metric → value on the validation patients, of what was chosen there."""
    stopping_reason: str
    epochs: int = 0
    """Begun; 0 where there are none."""
    checkpoint: str = ""
    """Fingerprint of the pretrained parameters, or of the vectors of codes, that it began with; empty for neither."""
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Of a model that plain arrays are all of, these, by name; see `baselines.stored_model`."""


@runtime_checkable  # a signature that names it is checked in the tests
class DiseaseModel(Protocol):
    """A model that has seen no patient yet."""

    def fit(self, train: PatientSequences, validation: PatientSequences) -> Fitted:
        """Learn `outcomes["label"]` (n,) of 0/1 from whole sequences; what is chosen, is chosen on `validation`."""


@runtime_checkable
class RunSpec(Protocol):
    """What every run's configuration, a dataclass, says, whatever the model; see `FinetuneConfig`."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def dataset(self) -> str:
        """Directory of the cohort dataset."""

    @property
    def results(self) -> str:
        """Folder of the results and predictions."""

    @property
    def experiment(self) -> str:
        """Name under which the results are filed."""

    @property
    def train_size(self) -> int:
        """Training patients; 0 takes all."""

    @property
    def replicate(self) -> int:
        """Chooses the training subset, and seeds what is drawn."""


@runtime_checkable
class ModelSpec(RunSpec, Protocol):
    """The configuration of a run that makes its model by itself."""

    def model(self, vocabulary: Vocabulary) -> DiseaseModel:
        """A model for patients serialized with this vocabulary."""
