"""Med-BERT under the scikit-learn contract as far as sequences have it; what it keeps, and what that cannot do."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from made_checkpoint import made_checkpoint
from made_sequences import TINY_MODEL, made_sequences
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

import medbert_jax
from medbert_jax import MedBertClassifier
from medbert_jax.models.finetune_heads import HeadConfig
from medbert_jax.prediction.predictor import load_predictor
from medbert_jax.training.manifest import CheckpointError
from medbert_jax.training.run_directory import RunDirectoryError


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return made_checkpoint(tmp_path_factory.mktemp("runs") / "made", replace(TINY_MODEL, max_length=16))


@pytest.fixture(scope="module")
def patients():
    """Of 160 patients about 27 cases, who have codes of their own."""
    found = made_sequences(160, seed=1, longest=12)
    return replace(found, outcomes={}), found.outcomes["prolonged_los"]


def classifier(checkpoint, **settings) -> MedBertClassifier:
    small = {"head": "feed_forward", "learning_rate": 3e-3, "max_epochs": 6, "validation_fraction": 0.25}
    return MedBertClassifier(checkpoint, **(small | settings))


@pytest.fixture(scope="module")
def fitted(checkpoint, patients) -> MedBertClassifier:
    return classifier(checkpoint).fit(*patients)


def test_parameters_are_got_set_and_cloned(checkpoint):
    model = classifier(checkpoint, head=HeadConfig(kind="gru", gru_hidden=4))
    assert model.get_params()["checkpoint"] == checkpoint and len(model.get_params()) == 9
    copy = clone(model).set_params(batch_size=7)
    assert copy.batch_size == 7 and copy.head == model.head and model.batch_size == 32
    assert is_classifier(model) and not hasattr(copy, "classes_")
    assert len(str(model).splitlines()) < 10
    with pytest.raises(NotFittedError):
        model.predict_proba(made_sequences(3, seed=0))


def test_it_learns_and_its_probabilities_are_those_of_two_classes(fitted, patients):
    X, y = patients
    probabilities = fitted.predict_proba(X)
    assert probabilities.shape == (160, 2) and fitted.classes_.tolist() == [0, 1]
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert roc_auc_score(y, probabilities[:, 1]) > 0.9
    assert fitted.score(X, y) == (fitted.predict(X) == y).mean()
    assert fitted.n_train_ == 120 and fitted.n_validation_ == 40 and 0.5 < fitted.validation_auroc_ <= 1
    np.testing.assert_array_equal(fitted.predict_proba(X[5:9]).shape, (4, 2))


def test_it_is_fitted_again_to_the_same_bits_and_otherwise_by_another_seed(fitted, checkpoint, patients):
    X, y = patients
    again, other = classifier(checkpoint).fit(X, y == 1), classifier(checkpoint, random_state=1).fit(X, y)
    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
    assert not np.allclose(other.predict_proba(X), fitted.predict_proba(X))


def test_it_goes_through_a_pipeline_and_cross_validation(checkpoint, patients):
    X, y = patients
    steps = Pipeline(
        [("newest", FunctionTransformer(lambda X: X.truncate(8))), ("model", classifier(checkpoint, max_epochs=2))]
    )
    scores = cross_val_score(steps, X, y, groups=X.patient_id, cv=GroupKFold(2), scoring="roc_auc", error_score="raise")
    assert scores.shape == (2,) and np.isfinite(scores).all()


def test_all_rows_of_a_patient_are_on_one_side(checkpoint, patients):
    X, y = patients
    X = replace(X, patient_id=np.char.mod("%d", np.arange(160) // 2).astype("S"))
    labelled = replace(X, outcomes={"label": y})
    train, validation = classifier(checkpoint)._apart(labelled)
    assert validation.patients == 20 and len(validation) == 40
    assert not set(train.patient_id.tolist()) & set(validation.patient_id.tolist())


def test_what_is_saved_is_loaded_to_the_same_bits(fitted, patients, tmp_path):
    X, _ = patients
    fitted.save(tmp_path / "kept")
    loaded = MedBertClassifier.load(tmp_path / "kept")
    for model in (loaded, pickle.loads(pickle.dumps(fitted))):
        np.testing.assert_array_equal(model.predict_proba(X), fitted.predict_proba(X))
    for name in ("head", "learning_rate", "batch_size", "max_epochs", "random_state", "backbone"):
        mine, its = getattr(loaded, name), getattr(fitted, name)
        assert mine == its or mine == HeadConfig(kind=its)
    assert medbert_jax.load_pretrained(tmp_path / "kept").encode(X[:1])[0].shape[1] == TINY_MODEL.hidden_size
    with pytest.raises(ValueError, match=r"must have been trained on a cohort, whose spec says .* fitted in Python"):
        load_predictor(tmp_path / "kept")
    with pytest.raises(CheckpointError, match="steps of a run ascend"):
        fitted.save(tmp_path / "kept")


def test_a_pretraining_is_no_classifier(checkpoint):
    with pytest.raises(RunDirectoryError, match=r"must be fine-tuned: got .* a pretraining"):
        MedBertClassifier.load(checkpoint)


def test_a_table_and_labels_by_patient(checkpoint):
    rng = np.random.default_rng(0)
    rows = [
        {
            "patient_id": f"p{i}",
            "admit_time": f"20{10 + visit}-01-01",
            "code": f"ICD10CM/A{rng.integers(8) + 10 * (i % 2):02}",
        }
        for i in range(60)
        for visit in range(3)
    ]
    labels = {f"p{i}": i % 2 for i in range(60)}
    model = classifier(checkpoint, max_epochs=2).fit(pl.DataFrame(rows), labels)
    assert model.predict_proba(pl.DataFrame(rows)).shape == (60, 2)
    with pytest.raises(ValueError, match="got none for 1 of 60"):
        model.fit(pl.DataFrame(rows), {name: value for name, value in labels.items() if name != "p5"})
    with pytest.raises(ValueError, match="labels of a table must name their patients: got list"):
        model.fit(pl.DataFrame(rows), [0] * 60)


@pytest.mark.parametrize(
    ("settings", "y", "words"),
    [
        ({}, [2] * 160, r"y must be 0 or 1 .* 160 other values"),
        ({}, ["a"] * 160, "y must be 0 or 1"),
        ({}, [0, 1], r"y must be 0 or 1 of each of 160 patients: got shape \(2,\)"),
        ({}, None, "got y None and sequences without a label"),
        ({}, [0] * 160, "there must be cases and controls among the training patients: got 0 cases"),
        ({"validation_fraction": 0}, [0, 1] * 80, "validation_fraction must be above 0"),
        ({"head": "gruu"}, [0, 1] * 80, "head.kind must be one of"),
        ({"batch_size": 0}, [0, 1] * 80, "batch_size must be at least 1"),
        ({"checkpoint": ""}, [0, 1] * 80, "got no --checkpoint"),
    ],
)
def test_what_is_wrong_is_told(checkpoint, patients, settings, y, words):
    with pytest.raises(ValueError, match=words):
        classifier(**({"checkpoint": checkpoint} | settings)).fit(patients[0], y)
