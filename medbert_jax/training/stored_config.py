"""The configuration of a run as it is stored: config.json of any version, read, checked and filled."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import TypedDict

from medbert_jax.data.metadata import SplitRule
from medbert_jax.disk.stored_json import check_form, read_object
from medbert_jax.disk.versions import refuse_newer
from medbert_jax.models.config import ModelConfig
from medbert_jax.training.config import FinetuneConfig, PretrainConfig
from medbert_jax.training.manifest import RUN_FILES

CONFIG, VOCABULARY = RUN_FILES
CONFIG_VERSION = 1
"""Of config.json. Version 0 says none; it goes up when a field is renamed, removed or means another thing."""
_KINDS: dict[str, type] = {"pretrain": PretrainConfig, "finetune": FinetuneConfig}


class _Split(SplitRule, total=False):
    counts: dict[str, int]


class _Facts(TypedDict, total=False):
    """What a run says besides the fields of its configuration, for those who ask for it."""

    model: ModelConfig
    dataset_hash: str
    split: _Split


class RunDirectoryError(ValueError):
    """A run folder cannot be used as asked."""


def read_config(path: str | Path, tell: Callable[[str], object] = lambda line: None) -> dict:
    """The configuration of a run folder, with the defaults of fields that are new since, which `tell` is told.

    Raises RunDirectoryError where there is none, and for one of a newer version.
    """
    stored = stored_config(path)
    filled, was = with_defaults(stored), flatten(stored)
    if new := [f"{key} = {json.dumps(value)}" for key, value in flatten(filled).items() if key not in was]:
        tell(f"new since {CONFIG} of {path} was written, with their defaults: {', '.join(new)}")
    return filled


def stored_model(config: dict, path: str | Path) -> ModelConfig:
    """The architecture in a configuration that `read_config` gave."""
    stored = config.get("model") or {}
    strange = sorted(stored.keys() - {field.name for field in fields(ModelConfig)})
    if not stored or strange:
        raise RunDirectoryError(
            f'{CONFIG} must have the fields of a ModelConfig under "model": got {", ".join(strange) or "nothing"} in '
            f"{path}; load it with the version of medbert_jax that its README.md names"
        )
    try:
        return ModelConfig(**stored)
    except ValueError as fault:
        raise RunDirectoryError(f"{CONFIG} must have an architecture: got {path}, where {fault}") from None


def stored_config(path: str | Path) -> dict:
    """config.json as it is there, every field of the type that it has in a configuration; the only one who opens it."""
    file = Path(path) / CONFIG
    try:
        stored = read_object(file)
    except (OSError, ValueError) as fault:
        raise RunDirectoryError(
            f"a run folder must hold a readable {CONFIG}: got {path} ({fault}); give the folder that the "
            "training printed"
        ) from fault
    refuse_newer(f"{CONFIG} in {path}", stored.get("version", 0), CONFIG_VERSION, error=RunDirectoryError)
    said = stored.get("kind", "pretrain")
    if not isinstance(said, str) or said not in _KINDS:
        raise RunDirectoryError(
            f"{CONFIG} must be that of a {' or a '.join(_KINDS)} run: got another kind in {path}; put the file back "
            "from a copy"
        )
    try:
        for form in (_KINDS[said], _Facts):
            check_form(stored, form, file)
    except ValueError as fault:
        raise RunDirectoryError(str(fault)) from None
    return stored


def defaults_of(config: dict) -> dict:
    """What the fields of a configuration of this kind are where nobody sets them; an architecture that is not there
    has none.
    """
    defaults = as_json(asdict(_KINDS[config.get("kind", "pretrain")]()) | {"model": asdict(ModelConfig())})
    return {name: value for name, value in defaults.items() if name != "model" or name in config}


def with_defaults(config: dict) -> dict:
    """The configuration, and the default of every field of its kind that it lacks."""

    def filled(stored: dict, defaults: dict) -> dict:
        inner = [name for name in stored.keys() & defaults.keys() if isinstance(defaults[name], dict)]
        return defaults | stored | {name: filled(stored[name], defaults[name]) for name in inner}

    return filled(config, defaults_of(config))


def flatten(data: Mapping, prefix: str = "") -> dict[str, object]:
    """The leaves of nested objects, under their names with dots between."""
    flat: dict[str, object] = {}
    for key, value in data.items():
        nested = isinstance(value, Mapping) and value
        flat |= flatten(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat


def as_json(config: dict) -> dict:
    """The configuration as JSON gives it back: tuples are lists."""
    faults = []
    for key, value in flatten(config).items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            faults.append(f"{key} = {value!r}")
    if faults:
        raise RunDirectoryError(
            f"a configuration must be JSON data with finite numbers: got {'; '.join(faults)}; use text, "
            "numbers, lists and dicts"
        )
    return json.loads(json.dumps(config))
