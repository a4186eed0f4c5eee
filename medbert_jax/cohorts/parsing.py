"""Strict reading of YAML into frozen dataclasses: nothing is guessed, and every fault is found in one go."""

import dataclasses
import datetime
import types
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

_TYPE_NAMES = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    datetime.date: "a day, as 2015-01-01",
}


class _StrictLoader(yaml.SafeLoader):
    """YAML's safe loader; a key written twice is a fault, where YAML itself keeps the last in silence."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.faults: list[str] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key that is no word", key_node.start_mark)
            if key_node.value in seen:
                self.faults.append(f"{key_node.value} (line {key_node.start_mark.line + 1}): written twice")
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)

    def construct_yaml_timestamp(self, node: yaml.ScalarNode) -> Any:
        try:
            return super().construct_yaml_timestamp(node)
        except ValueError:  # the key's own fault then says what it must be
            return node.value


_StrictLoader.add_constructor("tag:yaml.org,2002:timestamp", _StrictLoader.construct_yaml_timestamp)


def read_yaml(path: Path) -> tuple[Any, list[str]]:
    """Plain data of one YAML file, and its faults; None and one fault where it is not YAML at all."""
    try:
        loader = _StrictLoader(path.read_text(encoding="utf-8"))
        return loader.get_single_data(), loader.faults
    except UnicodeDecodeError:
        return None, ["the file: not UTF-8 text"]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark else "the file"
        return None, [f"{where}: not YAML ({getattr(error, 'problem', None) or error})"]
    except (ValueError, AttributeError) as error:  # !!int abc and the like
        return None, [f"the file: a value that is not of its YAML type ({error})"]


def build(kind: Any, value: Any, key: str, faults: list[str]) -> Any:
    """`value` as an instance of the annotation `kind`; what is wrong is appended to `faults` under its key.

    A faulty part becomes None, so that whoever checks the whole afterwards can find the other faults.
    """
    if get_origin(kind) in (Union, types.UnionType):  # only `X | None` is written in the specs
        if value is None:
            faults.append(f"{key}: empty; write a value or leave the key out")
            return None
        return build(next(part for part in get_args(kind) if part is not type(None)), value, key, faults)
    if get_origin(kind) is Literal:
        if type(value) is str and value in get_args(kind):
            return value
        faults.append(f"{key}: must be one of {', '.join(get_args(kind))}; got {value!r}")
        return None
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            faults.append(f"{key}: must be a list; got {value!r}")
            return None
        return tuple(
            build(get_args(kind)[0], item, f"{key}[{_label(item, i)}]", faults) for i, item in enumerate(value)
        )
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, value, key, faults)
    if kind is float and type(value) is int:
        return float(value)
    if kind is datetime.date and type(value) is str:  # JSON has no days
        with suppress(ValueError):
            return datetime.date.fromisoformat(value)
    if type(value) is not kind or value != value:  # exact: True is no whole number, and nothing is .nan
        faults.append(f"{key}: must be {_TYPE_NAMES[kind]}; got {value!r}")
        return None
    if kind is str and not value.strip():
        faults.append(f"{key}: empty text")
        return None
    return value


def _build_dataclass(kind: Any, value: Any, key: str, faults: list[str]) -> Any:
    if not isinstance(value, dict):
        faults.append(f"{key or 'the file'}: must be a mapping of keys to values; got {value!r}")
        return None
    dot = f"{key}." if key else ""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for unknown in [name for name in value if name not in fields]:
        faults.append(f"{dot}{unknown}: unknown key; the keys here are {', '.join(fields)}")
    hints = get_type_hints(kind)
    arguments: dict[str, Any] = {}
    for name, field in fields.items():
        if name in value:
            arguments[name] = build(hints[name], value[name], dot + name, faults)
        elif field.default is dataclasses.MISSING:
            choices = get_args(hints[name]) if get_origin(hints[name]) is Literal else ()
            faults.append(f"{dot}{name}: missing" + (f"; one of {', '.join(choices)}" if choices else ""))
            arguments[name] = None
    return kind(**arguments)


def _label(item: Any, position: int) -> str:
    """How a list's entry is called in a fault: by its own id where it has one, else by its number from 1."""
    named = isinstance(item, dict) and isinstance(item.get("id"), str)
    return item["id"] if named else str(position + 1)
