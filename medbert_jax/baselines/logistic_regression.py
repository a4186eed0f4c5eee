"""L2 logistic regression on the codes present, the ten-year age band and sex, C chosen on validation AUROC."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.utils.validation import check_is_fitted

from medbert_jax.data.sequences import PatientSequences
from medbert_jax.metrics.discrimination import auroc_where_ordered, better

Features = Literal["codes", "age", "age+sex", "codes+age"]

AGE_BANDS = 11
"""Bands 0–9, 10–19 … 90–99, and 100 years or more."""

C_GRID = tuple(float(C) for C in np.logspace(-4, 2, 13))
"""Inverse strengths of the L2 penalty: two per decade from 0.0001 to 100."""


def multi_hot(sequences: PatientSequences, vocabulary_size: int) -> sparse.csr_matrix:
    """Which codes each patient has, wherever and however often: (n, vocabulary_size) float64 of 0 and 1.

    UNK is a column like any other. ValueError when a code id is outside the vocabulary.
    """
    first, last = int(sequences.code_offsets[0]), int(sequences.code_offsets[-1])
    code_ids = np.array(sequences.code_ids[first:last])  # a copy: sorting below works in place
    outside = np.count_nonzero((code_ids < 0) | (code_ids >= vocabulary_size))
    if outside:
        raise ValueError(
            f"code ids must be below vocabulary_size: got {outside} ids outside 0 to {vocabulary_size - 1}; "
            "use the size of the vocabulary that serialized these sequences"
        )
    row_starts = np.asarray(sequences.code_offsets) - first
    matrix = sparse.csr_matrix((np.ones(code_ids.size), code_ids, row_starts), shape=(len(sequences), vocabulary_size))
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    return matrix


def age_band(sequences: PatientSequences) -> sparse.csr_matrix:
    """One-hot ten-year band of the age at the last visit of the sequence: (n, AGE_BANDS + 1) float64.

    The last column says that the age is unknown, or that the sequence has no visit.
    """
    ends = np.asarray(sequences.visit_offsets[1:])
    has_visit = ends > np.asarray(sequences.visit_offsets[:-1])
    age_days = np.full(len(sequences), -1, np.int64)
    age_days[has_visit] = np.asarray(sequences.age_days)[ends[has_visit] - 1]
    band = np.minimum(age_days / 365.25 // 10, AGE_BANDS - 1).astype(np.int64)
    band[age_days < 0] = AGE_BANDS
    rows = np.arange(len(sequences) + 1)
    return sparse.csr_matrix((np.ones(len(sequences)), band, rows), shape=(len(sequences), AGE_BANDS + 1))


def sex(sequences: PatientSequences) -> sparse.csr_matrix:
    """One-hot sex: (n, 3) float64, the first column where it is unknown."""
    rows = np.arange(len(sequences) + 1)
    return sparse.csr_matrix((np.ones(len(sequences)), np.asarray(sequences.sex), rows), shape=(len(sequences), 3))


class CodesLogisticRegression(ClassifierMixin, BaseEstimator):
    """L2 logistic regression whose C is the best of a grid on validation AUROC, the smaller C on a tie.

    X is a PatientSequences, whose columns `features` names, or any feature matrix (then `features` and
    `vocabulary_size` are not read). Deterministic; the intercept is not penalised.

    Args:
        vocabulary_size: columns of the codes; needed where `features` has codes.
        features: "codes" (present or not), "age" (ten-year band alone), "age+sex" or "codes+age".
        C_grid: inverse penalties to try. A grid of one value needs no validation patients.
        max_iter, tol: of the lbfgs solver, for each C.

    After fit: `chosen_C`, `validation_aurocs_` (one per C of the sorted grid), `validation_scores_`,
    `coef_` (features,), `intercept_`, `classes_` (0 and 1).
    """

    def __init__(
        self,
        vocabulary_size: int | None = None,
        *,
        features: Features = "codes",
        C_grid: Sequence[float] = C_GRID,
        max_iter: int = 10_000,
        tol: float = 1e-6,
    ):
        self.vocabulary_size = vocabulary_size
        self.features = features
        self.C_grid = C_grid
        self.max_iter = max_iter
        self.tol = tol

    def fit(self, X, y, X_validation=None, y_validation=None) -> "CodesLogisticRegression":
        """Fit one model for each C on X, y (n,) of 0/1, and keep the one with the best validation AUROC.

        ValueError when a class is missing in either split, or a grid of several C comes without validation.
        """
        grid = np.unique(np.asarray(self.C_grid, np.float64))
        if not grid.size or not (np.isfinite(grid) & (grid > 0)).all():
            raise ValueError(
                f"C_grid must hold positive numbers: got {list(self.C_grid)}; use C_GRID, or (0.01, 0.1, 1)"
            )
        if grid.size > 1 and (X_validation is None or y_validation is None):
            raise ValueError(
                "C is chosen on validation patients, never on those fitted: "
                f"got {grid.size} values of C and no validation patients; "
                "pass X_validation and y_validation, or a C_grid of one value"
            )
        y = check_both_labels(y, "training")
        matrix = self._design_matrix(X)
        self.n_features_in_ = matrix.shape[1]
        judged = X_validation is not None and y_validation is not None
        if judged:
            y_validation = check_both_labels(y_validation, "validation")
            validation_matrix = self._design_matrix(X_validation)

        # Warm starts along the grid halve the time; lbfgs was 3 times as fast as newton-cholesky here, and
        # its memory stays linear in the vocabulary. At the default tol of 1e-4 a warm start would not move.
        model = LogisticRegression(solver="lbfgs", tol=self.tol, max_iter=self.max_iter, warm_start=True)
        self.validation_aurocs_ = np.full(grid.size, np.nan)
        best = -np.inf
        for i, C in enumerate(grid):
            model.set_params(C=C).fit(matrix, y)
            if judged:
                self.validation_aurocs_[i] = auroc_where_ordered(
                    y_validation, model.decision_function(validation_matrix)
                )
            if better(self.validation_aurocs_[i], best):
                best = self.validation_aurocs_[i]
                self.chosen_C_ = float(C)
                self.coef_, self.intercept_ = model.coef_[0].copy(), float(model.intercept_[0])
        self.classes_ = model.classes_
        return self

    @property
    def chosen_C(self) -> float:
        """The C of the grid that was best on validation; NotFittedError before fit."""
        check_is_fitted(self, "chosen_C_")
        return self.chosen_C_

    @property
    def validation_scores_(self) -> dict[str, float]:
        """AUROC on validation of the chosen C, and that C; NotFittedError before fit."""
        chosen = self.chosen_C
        return {"auroc": float(np.fmax.reduce(self.validation_aurocs_)), "C": chosen}

    def decision_function(self, X) -> np.ndarray:
        """Log-odds of the positive class, (n,)."""
        check_is_fitted(self, "chosen_C_")
        matrix = self._design_matrix(X)
        if matrix.shape[1] != self.n_features_in_:
            raise ValueError(
                "patients to predict need the features of the fit: "
                f"got {matrix.shape[1]} columns, fitted on {self.n_features_in_}; use the same vocabulary"
            )
        return matrix @ self.coef_ + self.intercept_

    def predict_proba(self, X) -> np.ndarray:
        """Probabilities of class 0 and class 1, (n, 2)."""
        logits = self.decision_function(X)
        # Each class through its own exponential: 1 − p would lose the small probabilities.
        return np.exp(-np.logaddexp(0.0, np.stack([logits, -logits], axis=1)))

    def predict(self, X) -> np.ndarray:
        """Class 1 where its probability is above one half, (n,)."""
        return self.classes_[(self.decision_function(X) > 0).astype(np.int64)]

    def _design_matrix(self, X):
        if not isinstance(X, PatientSequences):
            return X if sparse.issparse(X) else np.asarray(X, np.float64)
        if self.features not in get_args(Features):
            choices = ", ".join(get_args(Features))
            raise ValueError(f"features must be one of {choices}: got {self.features!r}; use one of these")
        if self.features == "age":
            return age_band(X)
        if self.features == "age+sex":
            return sparse.hstack([age_band(X), sex(X)], format="csr")
        if self.vocabulary_size is None:
            raise ValueError(
                f"features {self.features!r} need the size of the vocabulary: got vocabulary_size=None; "
                "pass vocabulary_size=vocabulary.size"
            )
        codes = multi_hot(X, self.vocabulary_size)
        return codes if self.features == "codes" else sparse.hstack([codes, age_band(X)], format="csr")


def check_both_labels(y, split: str) -> np.ndarray:
    """The labels (n,) as int64; ValueError unless they are 0 and 1, with both there."""
    y = np.asarray(y)
    counts = [int(np.count_nonzero(y == label)) for label in (0, 1)]
    if 0 in counts or sum(counts) != y.size:
        raise ValueError(
            f"{split} labels must be 0 and 1, with both present: "
            f"got {counts[1]} positive, {counts[0]} negative and {y.size - sum(counts)} other; "
            "use more patients, or check how the cohort labels them"
        )
    return y.astype(np.int64)
