"""What is set for each row of a grid by itself: the paper's exceptions, the settings that tuning tries, what it chose.

A setting is a dictionary of fields, nested ones with dots between, as they stand on the command line.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict, TypeVar, cast

from medbert_jax.disk.stored_json import read_object
from medbert_jax.disk.versions import refuse_newer

Config = TypeVar("Config")
Setting = Mapping[str, int | float]

_RATE, _DROPOUT, _WIDTH = "optimizer.learning_rate", "head.dropout", "head.gru_hidden"
PAPER: Mapping[str, Setting] = {"none, gru": {_RATE: 1e-3}, "tw2v, gru": {_RATE: 1e-3}}
"""Paper: Methods: 1e-3 for the unidirectional GRU with static embeddings; all else is as the preset has it."""

BUDGET = 6
"""Settings of every row."""
_NEURAL = (
    {_RATE: 1e-5, _DROPOUT: 0.1, _WIDTH: 128},
    {_RATE: 5e-5, _DROPOUT: 0.1, _WIDTH: 128},
    {_RATE: 2e-4, _DROPOUT: 0.1, _WIDTH: 128},
    {_RATE: 1e-3, _DROPOUT: 0.1, _WIDTH: 128},
    {_RATE: 2e-4, _DROPOUT: 0.3, _WIDTH: 128},
    {_RATE: 2e-4, _DROPOUT: 0.1, _WIDTH: 256},
)
"""The paper's rate first."""
_WITHOUT_WIDTH = (
    *({name: value for name, value in setting.items() if name != _WIDTH} for setting in _NEURAL[:-1]),
    {_RATE: 5e-4, _DROPOUT: 0.1},
)
"""Of heads that are not recurrent."""
_PENALTIES = tuple({"C": C} for C in (0.001, 0.01, 0.1, 1.0, 10.0, 100.0))
_BASELINES = {
    **dict.fromkeys(("codes", "age", "age+sex", "codes+age", "probe"), _PENALTIES),
    "forest": tuple({"min_samples_leaf": patients} for patients in (1, 2, 4, 8, 16, 32)),
    **dict.fromkeys(("shape", "boosting"), tuple({"learning_rate": r} for r in (0.05, 0.01, 0.02, 0.1, 0.2, 0.4))),
}
FIXED = ("default",)
"""Rows that are nothing but a default, in which nothing may be chosen."""


class Tried(TypedDict):
    """One setting of one row, on the validation patients of the cohort that it was tuned on."""

    row: str
    setting: dict[str, float]
    run_id: str
    validation_auroc: float | None
    epochs: int
    seconds: float


class Tuning(TypedDict):
    """What was tried, and what was chosen: for each row whose settings have all been tried, the best."""

    version: int
    dataset_hash: str
    cohort: str
    train_size: int
    replicate: int
    tried: list[Tried]
    chosen: dict[str, dict[str, float]]


VERSION = 1
"""Of the file of a Tuning."""


def settings_of(row: str) -> tuple[Setting, ...]:
    """The settings that a row has for tuning, as many for each: the name of a baseline, or "backbone, head"."""
    if row in _BASELINES:
        return _BASELINES[row]
    return _WITHOUT_WIDTH if row.endswith(("feed_forward", "first")) else _NEURAL


def with_setting(config: Config, setting: Setting) -> Config:
    """The configuration, a dataclass, with these fields."""
    for name, value in setting.items():
        first, _, rest = name.partition(".")
        inner: Any = with_setting(getattr(config, first), {rest: value}) if rest else value
        config = replace(config, **{first: inner})  # ty: ignore[invalid-argument-type]  # a dataclass, by contract
    return config


def read_tuning(path: str | Path) -> Tuning:
    """The file that a tuning wrote. Raises OSError where it cannot be opened, ValueError where it is none."""
    if not str(path):
        raise ValueError("recipe tuned takes what a tuning chose: got no --tuning; give the file that it wrote")
    tuning = cast(Tuning, read_object(path, Tuning, cure="tune again, with another --out"))
    refuse_newer(str(path), tuning["version"], VERSION)
    return tuning
