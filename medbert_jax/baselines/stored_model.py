"""Baselines on disk: one .npz of plain arrays, which holds no code and no object of another package.

A pickle runs what a stranger put into it; skops, which does not, asks for the scikit-learn that wrote it and has to be
told whom to trust. What these models predict with are coefficients and the nodes of trees: as arrays they outlive
scikit-learn's versions, and need it for nothing but the features.
"""

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from scipy.special import expit
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

from medbert_jax.baselines.logistic_regression import CodesLogisticRegression, multi_hot
from medbert_jax.baselines.record_shape import ShapeBoosting
from medbert_jax.baselines.trees import CodesForest, RecordBoosting
from medbert_jax.data.sequences import PatientSequences
from medbert_jax.disk.versions import refuse_newer
from medbert_jax.disk.whole_files import write_whole

VERSION = 1
"""Of the file."""
_ROWS = 1024
"""Rows of a multi-hot design that are made dense at once."""


class Predicts(Protocol):
    """What a stored model is, whichever it was."""

    def predict_proba(self, X: PatientSequences) -> np.ndarray:
        """Probabilities of class 0 and class 1, (n, 2)."""


@dataclass(frozen=True, eq=False)
class Trees:
    """Binary trees, one after the other; the root of each is its first node, and a leaf is its own left child."""

    roots: np.ndarray
    """(trees,) int64 places of the roots among all nodes."""
    feature: np.ndarray
    """(nodes,) int32 column that a node compares."""
    threshold: np.ndarray
    """(nodes,) float64: to the left goes what is at most this."""
    left: np.ndarray
    """(nodes,) int32 place among all nodes."""
    right: np.ndarray
    missing_left: np.ndarray
    """(nodes,) bool: where NaN goes."""
    value: np.ndarray
    """(nodes,) float64 of a leaf: what it adds."""

    def sums(self, columns: np.ndarray, start: float = 0.0) -> np.ndarray:
        """`start`, and after it what the leaves of all trees add, in the order of the trees, (n,)."""
        rows, total = np.arange(len(columns)), np.full(len(columns), start)
        for root in self.roots.tolist():
            node = np.full(len(columns), root)
            while True:
                seen = columns[rows, self.feature[node]]
                to_left = np.where(np.isnan(seen), self.missing_left[node], seen <= self.threshold[node])
                after = np.where(to_left, self.left[node], self.right[node])
                if (after == node).all():
                    break
                node = after
            total += self.value[node]
        return total


def arrays_of(classifier) -> dict[str, np.ndarray]:
    """What a fitted classifier of `baselines` predicts with, by name; empty of any other."""
    if isinstance(classifier, CodesLogisticRegression):
        said = {"kind": "logistic_regression", "features": classifier.features}
        numbers = {"vocabulary_size": classifier.vocabulary_size, "intercept": classifier.intercept_}
        return _arrays(said | numbers | {"coefficients": classifier.coef_})
    if isinstance(classifier, RecordBoosting):
        size = {"vocabulary_size": classifier.vocabulary_size, "codes": classifier._codes}
        return _arrays({"kind": "record"} | size | _boosting(classifier))
    if isinstance(classifier, ShapeBoosting):
        return _arrays({"kind": "shape"} | _boosting(classifier))
    if isinstance(classifier, CodesForest):
        size = {"vocabulary_size": classifier.vocabulary_size}
        return _arrays({"kind": "forest"} | size | vars(_forest_trees(classifier._forest)))
    return {}


def write_classifier(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write what `arrays_of` gave; equal models are equal bytes."""
    content = io.BytesIO()
    np.savez(content, **{"version": np.array(VERSION), **arrays})  # ty: ignore[invalid-argument-type]
    write_whole(path, content.getvalue())


def read_classifier(path: str | Path) -> Predicts:
    """The model of a file. ValueError where it is none of ours."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        version, kind = arrays.pop("version").item(), arrays.pop("kind").item()
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, TypeError, AttributeError) as fault:
        raise ValueError(
            f"a kept baseline must be an .npz as it was written: got {path} ({type(fault).__name__}); keep it again"
        ) from None
    refuse_newer(str(path), version, VERSION)
    kinds = {
        "logistic_regression": _regression,
        "record": StoredBoosting,
        "shape": StoredBoosting,
        "forest": StoredForest,
    }
    if kind not in kinds:
        raise ValueError(f"a kept baseline must be one of {', '.join(kinds)}: got {kind!r} in {path}; keep it again")
    return kinds[kind](arrays)


class StoredBoosting:
    """Boosting on the columns of a `ShapeBoosting` or `RecordBoosting`."""

    def __init__(self, arrays: Mapping[str, np.ndarray]):
        """Raises KeyError where something is missing."""
        self._columns = ShapeBoosting()
        if "codes" in arrays:
            self._columns = RecordBoosting(arrays["vocabulary_size"].item())
            self._columns._codes = arrays["codes"]
        self._known, self._start = arrays["known"], arrays["start"].item()
        self._trees = Trees(**{name: arrays[name] for name in Trees.__dataclass_fields__})

    def predict_proba(self, X: PatientSequences) -> np.ndarray:
        """Probabilities of class 0 and class 1, (n, 2)."""
        risks = expit(self._trees.sums(self._columns._columns(X)[:, self._known], self._start))
        return np.stack([1 - risks, risks], axis=1)


class StoredForest:
    """A random forest on the codes present."""

    def __init__(self, arrays: Mapping[str, np.ndarray]):
        """Raises KeyError where something is missing."""
        self._size = arrays["vocabulary_size"].item()
        self._trees = Trees(**{name: arrays[name] for name in Trees.__dataclass_fields__})

    def predict_proba(self, X: PatientSequences) -> np.ndarray:
        """Probabilities of class 0 and class 1, (n, 2): the mean of the trees'."""
        design = multi_hot(X, self._size)
        parts = (design[first : first + _ROWS].toarray() for first in range(0, len(X), _ROWS))
        found = [self._trees.sums(part) for part in parts]
        risks = (np.concatenate(found) if found else np.zeros(0)) / len(self._trees.roots)
        return np.stack([1 - risks, risks], axis=1)


def _regression(arrays: Mapping[str, np.ndarray]) -> CodesLogisticRegression:
    size = arrays["vocabulary_size"].item()
    model = CodesLogisticRegression(size, features=arrays["features"].item())
    model.coef_, model.intercept_ = arrays["coefficients"], arrays["intercept"].item()
    model.n_features_in_, model.chosen_C_, model.classes_ = len(model.coef_), np.nan, np.array([0, 1])
    return model


def _boosting(classifier: ShapeBoosting) -> dict[str, Any]:
    model: HistGradientBoostingClassifier = classifier._model
    nodes = [predictor.nodes for (predictor,) in model._predictors]
    roots = np.cumsum([0, *(len(one) for one in nodes[:-1])])
    whole = np.concatenate(nodes)
    first = np.repeat(roots, [len(one) for one in nodes])
    own, is_leaf = np.arange(len(whole)), whole["is_leaf"].astype(bool)
    trees = Trees(
        roots,
        np.where(is_leaf, 0, whole["feature_idx"]).astype(np.int32),
        whole["num_threshold"],
        np.where(is_leaf, own, first + whole["left"]).astype(np.int32),
        np.where(is_leaf, own, first + whole["right"]).astype(np.int32),
        whole["missing_go_to_left"].astype(bool),
        whole["value"],
    )
    return {"known": classifier._known, "start": float(model._baseline_prediction.item())} | vars(trees)


def _forest_trees(forest: RandomForestClassifier) -> Trees:
    trees = [one.tree_ for one in forest.estimators_]
    sizes = [one.node_count for one in trees]
    roots = np.cumsum([0, *sizes[:-1]])
    first, own = np.repeat(roots, sizes), np.arange(sum(sizes))
    left, right, feature = (np.concatenate([getattr(one, name) for one in trees])
                            for name in ("children_left", "children_right", "feature"))  # fmt: skip
    is_leaf = left < 0
    return Trees(
        roots,
        np.where(is_leaf, 0, feature).astype(np.int32),
        np.concatenate([one.threshold for one in trees]),
        np.where(is_leaf, own, first + left).astype(np.int32),
        np.where(is_leaf, own, first + right).astype(np.int32),
        np.ones(len(own), bool),
        np.concatenate([one.value[:, 0, 1] for one in trees]),
    )


def _arrays(values: Mapping) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in values.items() if value is not None}
