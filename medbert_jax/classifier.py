"""Med-BERT as a scikit-learn classifier: what `run_finetune.py` does, for patients and labels that are in memory.

As a command does, it stands above the script that it calls; nothing in the package imports it.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from medbert_jax.data.frames import sequences_from
from medbert_jax.data.labelled import labelled
from medbert_jax.data.sequences import PatientSequences
from medbert_jax.data.vocabulary import Vocabulary
from medbert_jax.disk.scratch_folder import scratch_folder
from medbert_jax.models.finetune_heads import HeadConfig, HeadKind
from medbert_jax.training.checkpoint import Checkpoint
from medbert_jax.training.cohort_data import CohortData
from medbert_jax.training.config import Backbone, FinetuneConfig
from medbert_jax.training.finetuned import read_finetuned
from medbert_jax.training.sampling import SamplingConfig, training_patients
from medbert_jax.training.stored_config import VOCABULARY


class MedBertClassifier(ClassifierMixin, BaseEstimator):
    """A pretrained Med-BERT fine-tuned on patients with a label of 0 or 1, under the scikit-learn contract.

    X is a `PatientSequences`, made with the checkpoint's vocabulary, or a table with a row for each code as
    `sequences_from` takes it. Of a table predictions are in the order of the text of patient_id, without those who
    leave; where that matters, and to cut X as scikit-learn's splits do, make the sequences first.

    Deterministic for one random_state on one machine. The training is that of `run_finetune.py`: early stopping looks
    at validation patients who are set apart here, with all their rows.

    Args:
        checkpoint: run folder of the pretraining.
        head: what stands between the backbone and the logit: a kind of head or a `HeadConfig`.
        backbone: pretrained, frozen (only the head learns), untrained, or none.
        learning_rate, batch_size: of Adam; patients a step. The defaults are those of configs/finetune_small.py.
        max_epochs, patience: passes at most; validations without a better AUROC before it stops.
        validation_fraction: share of the patients whom early stopping looks at, with as large a share of cases.
        random_state: a whole number; draws the validation patients, the head, the order and dropout.

    After fit: `classes_` (0 and 1), `validation_auroc_` (the best, which was chosen: too good as an estimate),
    `n_train_`, `n_validation_` (patients), `stopping_reason_`, `epochs_`, `finetuned_` (parameters).
    """

    def __init__(
        self,
        checkpoint: str | Path = "",
        *,
        head: HeadKind | HeadConfig = "bi_gru",
        backbone: Backbone = "pretrained",
        learning_rate: float = 2e-4,
        batch_size: int = 32,
        max_epochs: int = 50,
        patience: int = 5,
        validation_fraction: float = 0.1,
        random_state: int = 0,
    ):
        self.checkpoint = checkpoint
        self.head = head
        self.backbone = backbone
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.random_state = random_state

    @property
    def vocabulary(self) -> Vocabulary:
        """Of the checkpoint, or of the fitted model: what X must have been made with."""
        if hasattr(self, "vocabulary_"):
            return self.vocabulary_
        checkpoint = Checkpoint(str(self.checkpoint))
        _ = checkpoint.step  # a step vouches for vocabulary.tsv
        return Vocabulary.read(Path(checkpoint.path) / VOCABULARY)

    def fit(self, X, y=None) -> "MedBertClassifier":
        """Learn y (n,) of 0/1, of a table a mapping patient_id → 0/1; None takes the sequences' own label.

        Raises ValueError for labels of other values or another number, for parameters out of range, and where the
        training or the validation patients are all cases or all controls.
        """
        # Only here: whoever predicts has no need of the script, which is importing much.
        from run_finetune import FineTuning

        config = self._config()
        patients = self._with_label(X, y)
        train, validation = self._apart(patients)
        checkpoint = Checkpoint(config.checkpoint)
        vocabulary = Vocabulary.read(Path(config.checkpoint) / VOCABULARY)
        cohort = CohortData("fitted in Python", {"dataset_hash": ""}, vocabulary, train, validation)
        with scratch_folder() as work:
            config = replace(config, run=str(work / "run"), results=str(work))
            fitted = FineTuning(config, cohort, checkpoint, work / "unfinished").fit(train, validation)
            self.finetuned_ = read_finetuned(work / "run")
        self.vocabulary_ = vocabulary
        self.classes_ = np.array([0, 1])
        self.n_train_, self.n_validation_ = train.patients, validation.patients
        self.validation_auroc_ = float(fitted.validation["auroc"])
        self.stopping_reason_, self.epochs_ = fitted.stopping_reason, fitted.epochs
        return self

    def predict_proba(self, X) -> np.ndarray:
        """Probabilities of class 0 and class 1, (n, 2) float64."""
        check_is_fitted(self, "finetuned_")
        risk = self.finetuned_.predict(self._sequences(X))
        return np.stack([1 - risk, risk], axis=1)

    def predict(self, X) -> np.ndarray:
        """The likelier class, (n,). With a rare outcome that is 0 nearly always: choose a threshold of your own."""
        return self.classes_[(self.predict_proba(X)[:, 1] > 0.5).astype(int)]

    def score(self, X, y=None, sample_weight=None) -> float:
        """Share of right predictions, as every classifier's; for AUROC give scikit-learn `scoring="roc_auc"`."""
        patients = self._with_label(X, y)
        return super().score(patients, patients.outcomes["label"], sample_weight)

    def save(self, folder: str | Path) -> None:
        """Write a fine-tuned run folder, for `MedBertClassifier.load` and `medbert_jax.load_pretrained`.

        `medbert predict` refuses it: it asks the spec of a cohort who may be predicted and when, and here was none.
        Raises RunDirectoryError or CheckpointError where another run lies.
        """
        check_is_fitted(self, "finetuned_")
        self.finetuned_.write(folder, self.vocabulary_)

    @classmethod
    def load(cls, folder: str | Path) -> "MedBertClassifier":
        """The classifier of a folder of `save` or of `run_finetune.py --run`, fitted.

        RunDirectoryError or CheckpointError where there is none, or it is not as it was written.
        """
        found = read_finetuned(folder)
        config = FinetuneConfig()
        said = found.run_config
        loaded = cls(
            said["checkpoint"],
            head=found.head,
            backbone=said["backbone"],
            learning_rate=said["optimizer"]["learning_rate"],
            **{name: said.get(name, getattr(config, name)) for name in ("batch_size", "max_epochs", "patience")},
            random_state=said["replicate"],
        )
        loaded.finetuned_, loaded.classes_ = found, np.array([0, 1])
        loaded.vocabulary_ = Vocabulary.read(Path(folder) / VOCABULARY)
        return loaded

    def _config(self) -> FinetuneConfig:
        """The parameters where the script has them, which checks their ranges."""
        return FinetuneConfig(
            checkpoint=str(self.checkpoint),
            head=self.head if isinstance(self.head, HeadConfig) else HeadConfig(kind=self.head),
            backbone=self.backbone,
            optimizer=replace(FinetuneConfig().optimizer, learning_rate=self.learning_rate),
            batch_size=self.batch_size,
            max_epochs=self.max_epochs,
            patience=self.patience,
            replicate=self.random_state,
        )

    def _sequences(self, X: Any) -> PatientSequences:
        return X if isinstance(X, PatientSequences) else sequences_from(X, self.vocabulary)

    def _with_label(self, X: Any, y: Any) -> PatientSequences:
        """The patients with their label, checked, as the only outcome."""
        sequences = self._sequences(X)
        if y is None:
            if "label" not in sequences.outcomes:
                raise ValueError(
                    "fitting needs labels: got y None and sequences without a label; give y, 0 or 1 of each"
                )
            return labelled(sequences)
        if isinstance(y, Mapping):
            by_id = {str(patient): label for patient, label in y.items()}
            ids = [patient.decode() for patient in sequences.patient_id.tolist()]
            if missing := sum(patient not in by_id for patient in ids):
                raise ValueError(
                    f"y must have a label for each patient: got none for {missing:,} of {len(ids):,}; add them, or"
                    " leave these patients out of X"
                )
            y = [by_id[patient] for patient in ids]
        elif not isinstance(X, PatientSequences):
            raise ValueError(
                f"labels of a table must name their patients: got {type(y).__name__}; give a mapping patient_id → 0/1,"
                " or make sequences with sequences_from and give y in the order of their patient_id"
            )
        labels = np.asarray(y)
        known = np.isin(labels, (0, 1)) if labels.dtype.kind in "biuf" else np.zeros(labels.shape, bool)
        if labels.shape != (len(sequences),) or not known.all():
            raise ValueError(
                f"y must be 0 or 1 of each of {len(sequences):,} patients: got shape {labels.shape}, type"
                f" {labels.dtype} and {np.count_nonzero(~known):,} other values; encode the labels, and leave out who"
                " has none"
            )
        return replace(sequences, outcomes={"label": labels.astype(np.int32)})

    def _apart(self, patients: PatientSequences) -> tuple[PatientSequences, PatientSequences]:
        """Those to train on and those whom early stopping looks at; of a patient all rows are on one side."""
        share, labels = self.validation_fraction, patients.outcomes["label"]
        size = round(share * patients.patients) if 0 < share < 1 else 0
        if not size:
            raise ValueError(
                "validation_fraction must be above 0 and below 1, and leave a patient for validation: got"
                f" {share} of {patients.patients:,} patients; 0.1 to 0.3 is usual"
            )
        chosen = training_patients(
            patients.patient_id, labels, size, self.random_state, SamplingConfig(stratified=True)
        )
        is_validation = np.zeros(len(patients), bool)
        is_validation[chosen] = True
        parts = {"training": patients.take(~is_validation), "validation": patients.take(is_validation)}
        for name, part in parts.items():
            cases = int(part.outcomes["label"].sum())
            if cases in (0, len(part)):
                raise ValueError(
                    f"there must be cases and controls among the {name} patients: got {cases:,} cases of {len(part):,};"
                    " give more patients, or another validation_fraction"
                )
        return parts["training"], parts["validation"]
