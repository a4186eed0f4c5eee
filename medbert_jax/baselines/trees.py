"""Trees on codes: the paper's random forest, and boosting on all that a record says in plain numbers."""

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.utils.validation import check_is_fitted

from medbert_jax.baselines.logistic_regression import check_both_labels, multi_hot
from medbert_jax.baselines.record_shape import ShapeBoosting, shape_of
from medbert_jax.data.sequences import PatientSequences, sums_within
from medbert_jax.metrics.discrimination import auroc_where_ordered

COUNTED_CODES = 500
"""Codes that are counted: those that most of the patients to fit on have. The columns of boosting are dense."""


class CodesForest(ClassifierMixin, BaseEstimator):
    """A random forest on the codes present, by scikit-learn's defaults but for the smallest leaf; seeded by `seed`.

    X is a PatientSequences. Nothing is chosen on validation, which is only looked at. Paper: Methods, "RF". After fit:
    `validation_scores_`, `classes_` (0 and 1).
    """

    def __init__(self, vocabulary_size: int, *, min_samples_leaf: int = 1, seed: int = 0):
        self.vocabulary_size = vocabulary_size
        self.min_samples_leaf = min_samples_leaf
        self.seed = seed

    def fit(self, X, y, X_validation, y_validation) -> "CodesForest":
        """Fit on X, y (n,) of 0/1; ValueError when a class is missing in either split."""
        y, y_validation = check_both_labels(y, "training"), check_both_labels(y_validation, "validation")
        forest = RandomForestClassifier(min_samples_leaf=self.min_samples_leaf, random_state=self.seed)
        self._forest = forest.fit(multi_hot(X, self.vocabulary_size), y)
        self.classes_ = forest.classes_
        scores = self.predict_proba(X_validation)[:, 1]
        self.validation_scores_ = {"auroc": auroc_where_ordered(y_validation, scores)}
        return self

    def predict_proba(self, X) -> np.ndarray:
        """Probabilities of class 0 and class 1, (n, 2)."""
        check_is_fitted(self, "classes_")
        return self._forest.predict_proba(multi_hot(X, self.vocabulary_size))

    def predict(self, X) -> np.ndarray:
        """Class 1 where its probability is above one half, (n,)."""
        return self.classes_[(self.predict_proba(X)[:, 1] > 0.5).astype(np.int64)]


class RecordBoosting(ShapeBoosting):
    """Gradient boosting on how often each of the commonest codes comes, age, sex, days in hospital and `SHAPE`.

    As many trees as are best on validation AUROC. X is a PatientSequences of a cohort. Deterministic.
    """

    def __init__(
        self,
        vocabulary_size: int,
        max_trees: int = 200,
        *,
        learning_rate: float = 0.05,
        max_leaf_nodes: int = 8,
        counted_codes: int = COUNTED_CODES,
    ):
        super().__init__(max_trees, learning_rate=learning_rate, max_leaf_nodes=max_leaf_nodes)
        self.vocabulary_size = vocabulary_size
        self.counted_codes = counted_codes

    def _learn_columns(self, X: PatientSequences) -> None:
        patients = np.asarray(multi_hot(X, self.vocabulary_size).sum(axis=0)).ravel()
        self._codes = np.sort(np.argsort(-patients, kind="stable")[: min(self.counted_codes, (patients > 0).sum())])

    def _columns(self, X: PatientSequences) -> np.ndarray:
        age = np.asarray(X.age_days, np.float64)[X.visit_offsets[1:] - 1]
        sex = np.asarray(X.sex, np.float64)
        stays = np.asarray(X.length_of_stay)
        in_hospital = sums_within(np.maximum(stays, 0), X.visit_offsets).astype(np.float64)
        in_hospital[sums_within(stays >= 0, X.visit_offsets) == 0] = np.nan
        person = [np.where(age >= 0, age, np.nan), np.where(sex > 0, sex, np.nan), in_hospital]
        return np.column_stack([shape_of(X), *person, code_counts(X, self._codes)])


def code_counts(sequences: PatientSequences, codes: np.ndarray) -> np.ndarray:
    """How often each of some codes, ascending ids, comes in each record, (n, codes) float64."""
    first, last = int(sequences.code_offsets[0]), int(sequences.code_offsets[-1])
    ids = np.asarray(sequences.code_ids[first:last])
    places = np.minimum(np.searchsorted(codes, ids), len(codes) - 1)
    owner = np.repeat(np.arange(len(sequences)), sequences.lengths)
    counted = codes[places] == ids
    counts = np.zeros((len(sequences), len(codes)))
    np.add.at(counts, (owner[counted], places[counted]), 1)
    return counts
