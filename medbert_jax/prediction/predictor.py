"""A model that was kept, read again: whatever it is, whole sequences go in, one probability a prediction comes out."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from medbert_jax.cohorts.loading import stored_spec
from medbert_jax.cohorts.spec import CohortSpec
from medbert_jax.cohorts.unlabelled import needs_outcome
from medbert_jax.data.sequences import PatientSequences
from medbert_jax.data.serialization import SerializationConfig
from medbert_jax.data.vocabulary import Vocabulary
from medbert_jax.prediction.stored_predictor import PREDICTOR, About, read_predictor
from medbert_jax.training.stored_config import VOCABULARY


@dataclass(frozen=True, eq=False)
class Predictor:
    """What was trained, and what has to be known of it to use it."""

    about: About
    vocabulary: Vocabulary
    predict: Callable[[PatientSequences], np.ndarray]
    """Whole sequences → probability of the label for each, (n,), in their order."""

    @cached_property
    def spec(self) -> CohortSpec | None:
        """The cohort's; None: it was trained on a folder of labels, which say their times and ask for no rules."""
        cohort = self.about["cohort"]
        return stored_spec(cohort, source=PREDICTOR) if "outcome" in cohort and "index" in cohort else None

    @property
    def serialization(self) -> SerializationConfig:
        """How a record becomes a sequence."""
        return SerializationConfig(**dict[str, Any](self.about["serialization"]))

    @cached_property
    def why_score(self) -> str:
        """Why its probabilities are scores and no risks, in words; empty where they are risks."""
        return "" if self.spec is None else needs_outcome(self.spec)

    @property
    def is_risk(self) -> bool:
        """Whether index and horizon exist without knowing the outcome, and absolute risks may be told."""
        return not self.why_score and not self.about["design"]["refused"]

    @property
    def question(self) -> str:
        """What is predicted, in words."""
        return self.spec.outcome.description if self.spec is not None else self.about["cohort"]["title"]


def load_predictor(folder: str | Path) -> Predictor:
    """The model of a fine-tuned run directory, or of a kept baseline, on the devices that are there.

    ValueError, RunDirectoryError or CheckpointError, with what to do, where there is none, or it is not as it was.
    """
    about = read_predictor(folder)
    predict = _finetuned(folder, about) if about["model"]["kind"] == "finetuned" else _baseline(folder)
    return Predictor(about, Vocabulary.read(Path(folder) / VOCABULARY), predict)


def _finetuned(folder: str | Path, about: About) -> Callable[[PatientSequences], np.ndarray]:
    from medbert_jax.training.checkpointing import good_step, step_fingerprint
    from medbert_jax.training.finetuned import read_finetuned

    step = good_step(folder)
    if (found := step_fingerprint(folder, step)) != about["model"]["parameters"]:
        raise ValueError(
            f"{PREDICTOR} must be of the parameters beside it: got {found}, and {about['model']['parameters']} there,"
            f" in {folder}; put the folder back from a copy, or fine-tune again with --run"
        )
    return read_finetuned(folder, step).predict


def _baseline(folder: str | Path) -> Callable[[PatientSequences], np.ndarray]:
    from medbert_jax.baselines.stored_model import read_classifier
    from medbert_jax.prediction.stored_predictor import ARRAYS

    classifier = read_classifier(Path(folder) / ARRAYS)
    return lambda sequences: classifier.predict_proba(sequences)[:, 1]
