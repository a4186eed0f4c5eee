"""Features from patient sequences, and the choice of C on validation patients."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from medbert_jax.baselines.logistic_regression import (
    AGE_BANDS,
    CodesLogisticRegression,
    age_band,
    multi_hot,
)
from medbert_jax.baselines.scikit_model import ScikitModel
from medbert_jax.data.sequences import PatientSequences

VOCABULARY = 60
SIZES = {"train": 600, "validation": 400, "test": 600}


def sequences_of(codes, ages):
    """Sequences from each patient's list of codes and list of ages, one age a visit; all codes in visit 1."""
    n = len(codes)
    count = sum(map(len, codes))
    visits = sum(map(len, ages))
    return PatientSequences(
        patient_id=np.array([b"p%d" % i for i in range(n)], "S8"),
        code_offsets=np.cumsum([0, *map(len, codes)]),
        code_ids=np.array([code for patient in codes for code in patient], np.int32),
        visit_ids=np.ones(count, np.int32),
        serialization_ids=np.zeros(count, np.int32),
        visit_offsets=np.cumsum([0, *map(len, ages)]),
        visit_days=np.full(visits, -1, np.int32),
        age_days=np.array([age for patient in ages for age in patient], np.int32),
        length_of_stay=np.full(visits, -1, np.int32),
        sex=np.zeros(n, np.int32),
        race=np.zeros(n, np.int32),
        outcomes={},
    )


def made_patients(n, seed):
    """Code 20 raises the risk, code 21 lowers it, and so does youth; the other codes are noise."""
    random = np.random.default_rng(seed)
    codes = [list(random.integers(16, VOCABULARY, random.integers(3, 12))) for _ in range(n)]
    years = random.integers(20, 90, n)
    logits = np.array([2.0 * (20 in c) - 2.0 * (21 in c) for c in codes]) + (years - 55) / 15
    labels = (random.random(n) < 1 / (1 + np.exp(-logits))).astype(int)
    return sequences_of(codes, [[int(year * 365.25) + 10] for year in years]), labels


@pytest.fixture(scope="module")
def splits():
    return {name: made_patients(n, seed) for seed, (name, n) in enumerate(SIZES.items())}


def test_multi_hot_is_one_however_often_a_code_comes():
    sequences = sequences_of([[16, 18, 16, 16], [2], [], [19, 18]], [[1], [1], [1], [1]])
    expected = np.zeros((4, 20))
    expected[[0, 0, 1, 3, 3], [16, 18, 2, 18, 19]] = 1
    matrix = multi_hot(sequences, 20)
    assert isinstance(matrix, sparse.csr_matrix) and matrix.dtype == np.float64
    assert np.array_equal(matrix.toarray(), expected)
    assert sequences.code_ids.tolist() == [16, 18, 16, 16, 2, 19, 18]  # the columns are left as they were
    planted = multi_hot(sequences_of([[16, 18], [2], [], [19, 17]], [[1]] * 4), 20)
    assert not np.array_equal(planted.toarray(), expected)


def test_codes_outside_the_vocabulary_are_refused():
    with pytest.raises(ValueError, match=r"got 2 ids outside 0 to 17; use the size of the vocabulary"):
        multi_hot(sequences_of([[16, 18], [30]], [[1], [1]]), 18)


def test_age_band_is_that_of_the_last_visit():
    birthday_40 = int(40 * 365.25)
    ages = [[0], [birthday_40 - 1], [birthday_40], [birthday_40, -1], [-1, birthday_40], [], [45_000]]
    matrix = age_band(sequences_of([[16]] * len(ages), ages)).toarray()
    assert matrix.shape == (7, AGE_BANDS + 1)
    assert matrix.argmax(1).tolist() == [0, 3, 4, AGE_BANDS, 4, AGE_BANDS, 10]
    assert np.array_equal(matrix.sum(1), np.ones(7))


def test_age_band_of_no_patients():
    assert age_band(sequences_of([], [])).shape == (0, AGE_BANDS + 1)


def test_C_is_the_best_on_validation_and_the_fit_is_scikit_learns(splits):
    (X, y), (X_validation, y_validation), (X_test, y_test) = splits.values()
    model = CodesLogisticRegression(VOCABULARY).fit(X, y, X_validation, y_validation)
    # Independently: a cold, tighter fit for each C with another solver, scored by scikit-learn.
    aurocs = []
    for C in model.C_grid:
        other = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-10)
        other.fit(multi_hot(X, VOCABULARY), y)
        scores = other.predict_proba(multi_hot(X_validation, VOCABULARY))[:, 1]
        aurocs.append(roc_auc_score(y_validation, scores))
        if model.chosen_C == C:
            probabilities = other.predict_proba(multi_hot(X_test, VOCABULARY))
            np.testing.assert_allclose(model.predict_proba(X_test), probabilities, atol=1e-3)
            assert np.array_equal(model.predict(X_test), other.predict(multi_hot(X_test, VOCABULARY)))
        else:
            probabilities = other.predict_proba(multi_hot(X_test, VOCABULARY))
            assert np.abs(model.predict_proba(X_test) - probabilities).max() > 1e-3
    np.testing.assert_allclose(model.validation_aurocs_, aurocs, atol=5e-4)
    assert np.ptp(aurocs) > 0.005
    assert max(aurocs) - aurocs[model.C_grid.index(model.chosen_C)] < 5e-4
    assert model.chosen_C == model.C_grid[model.validation_aurocs_.argmax()]
    # On the patients fitted the weakest penalty would have won.
    assert model.chosen_C < max(model.C_grid)
    assert roc_auc_score(y_test, model.predict_proba(X_test)[:, 1]) > 0.6


def test_codes_and_age_beat_either_alone(splits):
    (X, y), (X_validation, y_validation), (X_test, y_test) = splits.values()
    test = {}
    for features in ("codes", "age", "codes+age"):
        model = CodesLogisticRegression(VOCABULARY, features=features)
        model.fit(X, y, X_validation, y_validation)
        test[features] = roc_auc_score(y_test, model.decision_function(X_test))
    assert test["codes+age"] > max(test["codes"], test["age"]) + 0.02
    assert min(test.values()) > 0.6


def test_shuffled_labels_teach_nothing(splits):
    (X, y), (X_validation, y_validation), (X_test, y_test) = splits.values()
    shuffled = np.random.default_rng(0).permutation(y)
    model = CodesLogisticRegression(VOCABULARY).fit(X, shuffled, X_validation, y_validation)
    assert abs(roc_auc_score(y_test, model.decision_function(X_test)) - 0.5) < 0.1


def test_a_tie_takes_the_strongest_penalty():
    X = sparse.csr_matrix(np.repeat([[1.0, 0.0], [0.0, 1.0]], 20, axis=0))
    y = np.repeat([1, 0], 20)
    model = CodesLogisticRegression(C_grid=(1.0, 0.01, 0.1)).fit(X, y, X, y)
    assert model.chosen_C == 0.01
    assert model.validation_aurocs_.tolist() == [1, 1, 1]


def test_the_scikit_learn_contract(splits):
    X, y = splits["train"]
    grid = [0.1]
    model = CodesLogisticRegression(VOCABULARY, features="codes+age", C_grid=grid)
    copy = clone(model)
    assert copy.get_params() == model.get_params() and model.C_grid is grid
    with pytest.raises(NotFittedError):
        model.predict_proba(X)
    assert model.fit(X, y) is model  # one C needs no validation patients
    probabilities = model.predict_proba(X)
    assert probabilities.shape == (len(X), 2)
    np.testing.assert_allclose(probabilities.sum(1), 1)
    assert np.array_equal(probabilities, copy.fit(X, y).predict_proba(X))  # deterministic
    assert model.score(X, y) > 0.6


def test_separable_few_and_constant_features_warn_of_nothing():
    random = np.random.default_rng(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for n, width in ((6, 1), (20, 300), (60, 30)):
            X = sparse.csr_matrix((random.random((n, width)) < 0.1).astype(float))
            y = np.arange(n) % 2
            model = CodesLogisticRegression().fit(X, y, X, y)
            assert np.isfinite(model.predict_proba(X)).all()


@pytest.mark.parametrize(
    "settings, change, message",
    [
        ({}, {"y": np.ones(600)}, r"training labels .* got 600 positive, 0 negative and 0 other; use more"),
        ({}, {"y_validation": np.zeros(400)}, r"validation labels .* got 0 positive, 400 negative"),
        ({}, {"X_validation": None}, r"got 13 values of C and no validation patients; pass"),
        ({"C_grid": (0.0, 1.0)}, {}, r"C_grid must hold positive numbers: got \[0.0, 1.0\]; use"),
        ({"features": "drugs"}, {}, r"features must be one of codes, age, age\+sex, codes\+age: got 'drugs'; use"),
        ({"vocabulary_size": None}, {}, r"got vocabulary_size=None; pass"),
    ],
)
def test_wrong_use_is_refused(splits, settings, change, message):
    (X, y), (X_validation, y_validation), _ = splits.values()
    arguments = {"X": X, "y": y, "X_validation": X_validation, "y_validation": y_validation} | change
    with pytest.raises(ValueError, match=message):
        CodesLogisticRegression(**{"vocabulary_size": VOCABULARY, **settings}).fit(**arguments)


def test_another_vocabulary_at_prediction_is_refused(splits):
    X, y = splits["train"]
    model = CodesLogisticRegression(VOCABULARY, C_grid=(0.1,)).fit(X, y)
    with pytest.raises(ValueError, match="got 61 columns, fitted on 60; use the same vocabulary"):
        model.predict(multi_hot(X, VOCABULARY + 1))


@pytest.mark.parametrize("features", ["codes", "age"])
def test_behind_the_contract_of_every_model_it_is_itself(splits, features):
    (X, y), (X_validation, y_validation), (X_test, _) = splits.values()
    train, validation = replace(X, outcomes={"label": y}), replace(X_validation, outcomes={"label": y_validation})
    classifier = CodesLogisticRegression(VOCABULARY, features=features)
    fitted = ScikitModel(classifier, "the name", features).fit(train, validation)
    with pytest.raises(NotFittedError):  # a model can be fitted on other patients: it keeps nothing
        _ = classifier.validation_scores_
    classifier.fit(X, y, X_validation, y_validation)
    assert np.array_equal(fitted.predict(X_test), classifier.predict_proba(X_test)[:, 1])
    expected = {"auroc": classifier.validation_aurocs_.max(), "C": classifier.chosen_C}
    assert fitted.validation == classifier.validation_scores_ == expected
    assert (fitted.backbone, fitted.head, fitted.stopping_reason) == ("the name", features, "converged")
    assert (fitted.epochs, fitted.checkpoint) == (0, "")
