"""Learning curves out of results: a metric of the test split by training size, over replicates."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from medbert_jax.evaluation.evaluation_tables import NAMES


@dataclass(frozen=True)
class LearningCurve:
    """A metric by number of training patients."""

    name: str
    lines: tuple[tuple[str, tuple[tuple[int, float, float, float], ...]], ...]
    """Model, its points: (training patients, mean over replicates, lowest, highest)."""


def learning_curve(runs: pl.DataFrame, models: Sequence[str], metric: str = "auroc") -> LearningCurve | None:
    """The curves of the models; None where there is one training size alone. Runs have `model`."""
    test = runs.filter(split="test", metric=metric).drop_nulls("train_size")
    if test["train_size_name"].n_unique() < 2:
        return None
    points = (
        test.group_by("model", "train_size_name")
        .agg(
            size=pl.col("train_size").max(),
            mean=pl.col("value").mean(),
            low=pl.col("value").min(),
            high=pl.col("value").max(),
        )
        .sort("size")
    )
    lines = [(name, tuple(points.filter(model=name).select("size", "mean", "low", "high").rows())) for name in models]
    return LearningCurve(NAMES.get(metric, metric), tuple(line for line in lines if line[1]))
