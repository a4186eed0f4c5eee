"""What a configuration is known by when it is hashed: an id outlives the versions of the program.

A field that came later changes nothing where it stands at the default that it came with, and is left out there; so the
runs that do not use it keep their ids. Nothing has to be declared for that. But

- where the default of such a field changes, the field says which one it came with: `metadata={INTRODUCED: old}`,
- a field that decides no number says `metadata=NO_IDENTITY`,
- a configuration that is not of this package is hashed with all its fields, but for those that say INTRODUCED.
"""

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from types import MappingProxyType
from typing import Any

INTRODUCED = "introduced"
NO_IDENTITY: Mapping[str, bool] = MappingProxyType({"identity": False})

FIRST: Mapping[str, frozenset[str]] = {
    kind: frozenset(names.split())
    for kind, names in {
        "FinetuneConfig": "dataset checkpoint run results experiment backbone head train_size replicate optimizer "
        "batch_size max_epochs evaluate_every patience validation_size mesh",
        "HeadConfig": "kind gru_hidden dropout",
        "OptimizerConfig": "learning_rate warmup_steps schedule weight_decay clip_norm beta_1 beta_2 epsilon "
        "bias_correction",
        "MeshConfig": "data model",
        "ModelConfig": "vocabulary_size hidden_size layers heads feed_forward_size max_visits max_length dropout "
        "attention_dropout layer_norm_epsilon initializer_range serialization mask_id los_pooling los_logits pooler "
        "compute_dtype",
        "BaselineConfig": "dataset results experiment features train_size replicate",
        "SerializationConfig": "minimum_codes unique prolonged_los_days visit_rule code_order",
    }.items()
}
"""Configuration → its fields of version 0.1.0, which are hashed whatever they stand at. Never changes."""


def identity(config) -> dict:
    """What a configuration, a dataclass, is known by: its fields, nested ones as dictionaries."""
    return identity_of(type(config), {field.name: getattr(config, field.name) for field in fields(config)})


def identity_of(kind: type[Any], values: Mapping) -> dict:
    """The same of the values of a configuration of this kind; what is no field of it stays."""
    always, known = _always(kind), {field.name: field for field in fields(kind)}
    return {name: _plain(value) for name, value in values.items() if not _left_out(known.get(name), value, always)}


def _always(kind: type[Any]) -> frozenset[str]:
    """The fields that are hashed whatever they stand at: all, of a class that is not of this package."""
    listed = next((FIRST[one.__name__] for one in kind.__mro__ if one.__name__ in FIRST), None)
    if listed is not None:
        return listed
    ours = kind.__module__.partition(".")[0] == __name__.partition(".")[0]
    return frozenset(() if ours else (field.name for field in fields(kind)))


def _left_out(field: Field | None, value, always: frozenset[str]) -> bool:
    if field is None:
        return False
    if not field.metadata.get("identity", True):
        return True
    if field.name in always and INTRODUCED not in field.metadata:
        return False
    made = field.default_factory
    default = field.default if made is MISSING else made()
    return field.metadata.get(INTRODUCED, default) == value


def _plain(value):
    """As `dataclasses.asdict` does it, but for the fields that are left out."""
    if is_dataclass(value):
        return identity(value)
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(inner) for inner in value]
    return value
