"""Which models of an experiment a page compares, what they are called there, and which of them it is about."""

from collections.abc import Iterable

import polars as pl

from medbert_jax.evaluation.reruns import VARIANT
from medbert_jax.evaluation.tables import BACKBONE_ORDER

AGE, AGE_AND_SEX, SHAPE = "age alone", "age and sex alone", "shape of the record alone"
_BASELINES = {"age_band": AGE, "age_sex": AGE_AND_SEX, "record_shape": SHAPE}
_BACKBONES = {
    "logistic_regression": "logistic regression",
    "random_forest": "random forest",
    "boosting": "gradient boosting",
    "none": "no backbone",
    "tw2v": "t-W2V",
    "untrained": "Med-BERT untrained",
    "frozen": "Med-BERT frozen",
    "pretrained": "Med-BERT pretrained",
}
_HEADS = {"feed_forward": "feed-forward", "bi_gru": "Bi-GRU", "gru": "GRU", "retain": "RETAIN"}
_HEADS |= {
    "mean_linear": "linear on the mean state",
    "default": "codes, C = 1",
    "record": "codes, age, sex, use of care",
}
_ABOUT = ("pretrained", "frozen", "untrained", "tw2v", "none", "boosting", "random_forest", "logistic_regression")
"""Backbones in the order in which a page is about them."""


def model_name(backbone: str, head: str, variant: str = "") -> str:
    """What a page calls a model; a rerun is called after what was other in it."""
    name = _BASELINES.get(backbone) or f"{_BACKBONES.get(backbone, backbone)}, {_HEADS.get(head, head)}"
    return f"{name} ({variant})" if variant else name


def with_names(runs: pl.DataFrame) -> pl.DataFrame:
    """The rows with `model`; they have the column of `reruns.with_variants`."""
    name = pl.struct("backbone", "head", VARIANT).map_elements(
        lambda row: model_name(row["backbone"], row["head"], row[VARIANT]), return_dtype=pl.String
    )
    return runs.with_columns(model=name)


def largest_size(runs: pl.DataFrame) -> str:
    """Name of the training size that the page's figures are of: the largest of the models that it is about."""
    first = _first_backbone(runs)
    return runs.filter(backbone=first).sort("train_size", "train_size_name")["train_size_name"][-1]


def headline(runs: pl.DataFrame) -> str:
    """The model that a page is about: pretrained where there is one, of its heads the best on validation patients.

    `runs` are of one training size and have `model`. The test split has no say in it.
    """
    of_first = runs.filter(backbone=_first_backbone(runs))
    validated = of_first.filter(split="validation", metric="auroc")
    if not validated.height:
        return of_first.sort("model")["model"][0]
    means = validated.group_by("model").agg(pl.col("value").mean()).sort("value", "model", descending=[True, False])
    return means["model"][0]


def in_order(models: Iterable[tuple[str, str]], first: str) -> list[str]:
    """Names of (backbone, name): the one that the page is about, then from the strongest to the humblest."""
    places = {name: place for place, name in enumerate(reversed(BACKBONE_ORDER))}
    ordered = sorted(set(models), key=lambda one: (places.get(one[0], -1), one[1]))
    return [first, *(name for _, name in ordered if name != first)]


def _first_backbone(runs: pl.DataFrame) -> str:
    there = runs["backbone"].unique().sort().to_list()
    others = [name for name in there if name not in (*_ABOUT, *_BASELINES)]
    return next(name for name in (*_ABOUT[:1], *others, *_ABOUT[1:], *_BASELINES) if name in there)
