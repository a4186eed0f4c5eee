"""What the shape of a record tells alone: gradient boosting on counts, spans and the calendar, and on no code.

A model that is no better has found how often and when somebody was seen, and not what he has.
"""

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.utils.validation import check_is_fitted

from medbert_jax.baselines.logistic_regression import check_both_labels
from medbert_jax.data.sequences import PatientSequences
from medbert_jax.metrics.discrimination import auroc_where_ordered, better

SHAPE = ("encounters", "visits", "codes", "history_days", "last_gap_days", "calendar_year", "day_of_year")
"""Encounters before the index, those of them with codes, codes, days from the first visit to the index and from the
last one, and the day of the prediction (of a source without dates the number of the index encounter)."""
_US_PER_DAY = 86_400_000_000


def shape_of(patients: PatientSequences) -> np.ndarray:
    """(n, 7) float64 of `SHAPE`, NaN where it is unknown; of a cohort's patients."""
    outcomes = patients.outcomes
    visits = np.diff(patients.visit_offsets)
    last = np.asarray(patients.visit_days)[patients.visit_offsets[1:] - 1]
    index = np.asarray(outcomes["index_day"])
    # The prediction time lies up to 1 µs before the day of the index.
    day = (np.asarray(outcomes["prediction_time"], np.int64) + 1) // _US_PER_DAY
    date = day.astype("datetime64[D]")
    year = date.astype("datetime64[Y]")
    columns = (
        np.asarray(outcomes["index_order"]) - 1,
        visits,
        patients.lengths,
        np.where(index >= 0, index, np.nan),
        np.where((index >= 0) & (last >= 0), index - last, np.nan),
        year.astype(np.int64) + 1970,
        (date - year.astype("datetime64[D]")).astype(np.int64) + 1,
    )
    return np.stack([np.asarray(column, np.float64) for column in columns], axis=1)


class ShapeBoosting(ClassifierMixin, BaseEstimator):
    """Gradient boosting on `shape_of`, as many trees as are best on validation AUROC, the fewest on a tie.

    X is a PatientSequences of a cohort. Deterministic. After fit: `trees_`, `validation_scores_`, `classes_` (0 and 1).
    """

    def __init__(self, max_trees: int = 200, *, learning_rate: float = 0.05, max_leaf_nodes: int = 8):
        self.max_trees = max_trees
        self.learning_rate = learning_rate
        self.max_leaf_nodes = max_leaf_nodes

    def fit(self, X, y, X_validation, y_validation) -> "ShapeBoosting":
        """Fit on X, y (n,) of 0/1, choose on validation; ValueError when a class is missing in either."""
        y, y_validation = check_both_labels(y, "training"), check_both_labels(y_validation, "validation")
        self._learn_columns(X)
        shape = self._columns(X)
        self._known = ~np.isnan(shape).all(axis=0)  # what nobody has is no column
        shape = shape[:, self._known]
        model = HistGradientBoostingClassifier(
            max_iter=self.max_trees,
            learning_rate=self.learning_rate,
            max_leaf_nodes=self.max_leaf_nodes,
            early_stopping=False,
            random_state=0,
        ).fit(shape, y)
        best, self.trees_ = -np.inf, 1
        stages = model.staged_predict_proba(self._columns(X_validation)[:, self._known])
        for trees, probabilities in enumerate(stages, start=1):
            found = auroc_where_ordered(y_validation, probabilities[:, 1])
            if better(found, best):
                best, self.trees_ = found, trees
        # The first trees of a boosting are the boosting of so many.
        self._model = model.set_params(max_iter=self.trees_).fit(shape, y)
        self.validation_scores_ = {"auroc": float(best) if np.isfinite(best) else float("nan"), "trees": self.trees_}
        self.classes_ = model.classes_
        return self

    def predict_proba(self, X) -> np.ndarray:
        """Probabilities of class 0 and class 1, (n, 2)."""
        check_is_fitted(self, "trees_")
        return self._model.predict_proba(self._columns(X)[:, self._known])

    def predict(self, X) -> np.ndarray:
        """Class 1 where its probability is above one half, (n,)."""
        return self.classes_[(self.predict_proba(X)[:, 1] > 0.5).astype(np.int64)]

    def _learn_columns(self, X) -> None:
        """What the columns are that depends on the patients to fit on; nothing here."""

    def _columns(self, X) -> np.ndarray:
        """(n, columns) float64, NaN where unknown."""
        return shape_of(X)
