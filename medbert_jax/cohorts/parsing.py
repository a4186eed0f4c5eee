"""Strict reading of YAML into frozen dataclasses: nothing is guessed, and every fault is found in one go.

What may be written follows from the dataclasses alone: a field without a default is required, `X | None` optional, a
`Literal` one of its words, `Annotated[X, Must(…)]` an X with that property. In a union of dataclasses each names in
`KNOWN_BY` the key by which it is known: by its value where that is a Literal, else by its being there.
"""

import dataclasses
import datetime
import functools
import types
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml
from yaml.constructor import ConstructorError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Mark = TypeVar("Mark")

_TYPE_NAMES: dict[type, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    datetime.date: "a day, as 2015-01-01",
}
_EMPTY = "empty; write a value or leave the key out"


@dataclass(frozen=True)
class Must:
    """Mark of an annotation: what a value must be beside its type. `words` say so in a fault; {!r} is what came."""

    holds: Callable[[Any], bool]
    words: str


@dataclass(frozen=True)
class Names:
    """Mark of an annotation: the field holds the id of an entry of the spec's `group`, looked for in a table."""

    group: str
    table: str = "diagnoses"


@dataclass(frozen=True)
class NameOf:
    """Mark of an annotation: the text, or what stands in it before a slash, is a name out of a column of the tables."""

    column: str


Positive = Annotated[int, Must(lambda number: number >= 1, "must be 1 or more; got {}")]
NotNegative = Annotated[int, Must(lambda number: number >= 0, "must be 0 or more; got {}")]


def at_least_one(what: str) -> Must:
    """The mark of a tuple that must not be empty."""
    return Must(bool, f"empty; name at least one {what}")


class _StrictLoader(yaml.SafeLoader):
    """YAML's safe loader; a key written twice is a fault, where YAML itself keeps the last in silence."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.faults: list[str] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConstructorError(None, None, "a key that is no word", key_node.start_mark)
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

    A faulty part becomes None, so that whoever checks the whole afterwards can find the other faults. A dataclass whose
    fields are all right is asked for its `own_faults()`: (field or "", fault).
    """
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        built = build(parts[0], value, key, faults)
        musts = [mark for mark in parts[1:] if isinstance(mark, Must)]
        wrong = [must for must in musts if built is not None and not must.holds(built)]
        faults += [f"{key}: {must.words.format(built)}" for must in wrong]
        return None if wrong else built
    if origin in (Union, types.UnionType):
        return _build_union(parts, value, key, faults)
    if origin is Literal:
        return _build_literal(parts, value, key, faults)
    if origin is tuple:
        if not isinstance(value, list):
            faults.append(f"{key}: must be a list; got {value!r}")
            return None
        return tuple(build(parts[0], item, f"{key}[{_label(item, i)}]", faults) for i, item in enumerate(value))
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, value, key, faults) if _is_mapping(value, key, faults) else None
    return _build_plain(kind, value, key, faults)


def names_in(part: Any, key: str = "") -> Iterator[tuple[str, Names, str]]:
    """(key, mark, id) of every field that names a set, in a dataclass and all below it."""
    yield from marked(part, Names, key)


def marked(part: Any, kind: type[Mark], key: str = "") -> Iterator[tuple[str, Mark, Any]]:
    """(key, mark, value) of every field whose annotation bears a mark of that kind, in a dataclass and all below it."""
    if isinstance(part, tuple):
        for number, item in enumerate(part, start=1):
            yield from marked(item, kind, f"{key}[{getattr(item, 'id', number)}]")
    elif dataclasses.is_dataclass(part):
        for name, hint in _hints(type(part)).items():
            value, place = getattr(part, name), f"{key}.{name}" if key else name
            mark = _mark(hint, kind)
            if mark is None:
                yield from marked(value, kind, place)
            elif value is not None:
                yield place, mark, value


def _mark(hint: Any, kind: type[Mark]) -> Mark | None:
    """The mark of that kind on an annotation, or on a part of it."""
    marks = (mark for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, kind))
    below = (_mark(part, kind) for part in get_args(hint))
    return next(marks, None) or next((mark for mark in below if mark is not None), None)


@functools.cache
def _hints(kind: "type[DataclassInstance]") -> dict[str, Any]:
    """Annotation of every field, in the order in which the dataclass has them."""
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _is_mapping(value: Any, key: str, faults: list[str]) -> bool:
    if not isinstance(value, dict):
        faults.append(f"{key or 'the file'}: must be a mapping of keys to values; got {value!r}")
    return isinstance(value, dict)


def _build_plain(kind: type, value: Any, key: str, faults: list[str]) -> Any:
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


def _build_literal(choices: tuple, value: Any, key: str, faults: list[str]) -> Any:
    if any(type(value) is type(choice) and value == choice for choice in choices):
        return value
    must = "write true or leave the key out" if choices == (True,) else f"must be one of {', '.join(choices)}"
    faults.append(f"{key}: {must}; got {value!r}")
    return None


def _build_union(parts: tuple, value: Any, key: str, faults: list[str]) -> Any:
    kinds = tuple(part for part in parts if part is not type(None))
    if value is None and len(kinds) < len(parts):
        faults.append(f"{key}: {_EMPTY}")
        return None
    if len(kinds) == 1:
        return build(kinds[0], value, key, faults)
    kind = _kind_of(kinds, value, key, faults) if _is_mapping(value, key, faults) else None
    return None if kind is None else _build_dataclass(kind, value, key, faults, kinds)


def _kind_of(kinds: tuple, value: dict, key: str, faults: list[str]) -> Any:
    """The one of the dataclasses that a mapping is of; None and a fault where that is not to be told."""
    tags = {kind.KNOWN_BY for kind in kinds}
    given = tags & value.keys()
    possible = [kind for kind in kinds if kind.KNOWN_BY in given and given <= _hints(kind).keys()]
    if not given:  # the kind that is meant where nothing is said
        possible = [kind for kind in kinds if hasattr(kind, kind.KNOWN_BY)]
    if not possible:
        # A key that goes with another one does not stand for a kind by itself.
        alone = dict.fromkeys(kind.KNOWN_BY for kind in kinds if len(tags & _hints(kind).keys()) == 1)
        got = ", ".join(name for name in value if name in given) or "none"
        faults.append(f"{key}: needs exactly one of {', '.join(alone)}; got {got}")
        return None
    tag = possible[0].KNOWN_BY
    if tag not in value or get_origin(_hints(possible[0])[tag]) is not Literal:
        if tag not in value or value[tag] is not None:
            return possible[0]
        faults.append(f"{key}.{tag}: {_EMPTY}")
        return None
    choices = {choice: kind for kind in possible for choice in get_args(_hints(kind)[tag])}
    return choices.get(_build_literal(tuple(choices), value[tag], f"{key}.{tag}", faults))


def _build_dataclass(kind: Any, value: dict, key: str, faults: list[str], kinds: tuple = ()) -> Any:
    """`kinds`: those among which it was chosen, to say of a key that it belongs to another one."""
    dot, before, hints = f"{key}." if key else "", len(faults), _hints(kind)
    said = _called(kind, " ") if kinds else ""
    for name in [name for name in value if name not in hints]:
        owners = [other for other in kinds if name in _hints(other)]
        if not owners:
            faults.append(f"{dot}{name}: unknown key; the keys here are {', '.join(hints)}")
            continue
        why = getattr(kind, "REFUSES", {}).get(name, "does not look at it; leave the key out")
        owner = f", it goes with {_called(owners[0], ': ')}" if len(owners) == 1 else ""
        faults.append(f"{dot}{name}: {said} {why}{owner}")
    arguments: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        name = field.name
        if name in value:
            arguments[name] = build(hints[name], value[name], dot + name, faults)
        elif field.default is dataclasses.MISSING:
            choices = get_args(hints[name]) if get_origin(hints[name]) is Literal else ()
            needs = [f"{said} needs it"] * bool(said) + [f"one of {', '.join(choices)}"] * bool(choices)
            needs += ["write [] where there are none"] * (get_origin(hints[name]) is tuple)
            faults.append("; ".join([f"{dot}{name}: missing", *needs]))
            arguments[name] = None
    choice = [name for name in getattr(kind, "EXACTLY_ONE_OF", ()) if name in hints]
    if choice and sum(value.get(name) is not None for name in choice) != 1:
        faults.append(f"{key}: needs exactly one of {', '.join(choice)}")
    built = kind(**arguments)
    if len(faults) == before and hasattr(built, "own_faults"):
        faults += [f"{dot}{name}: {fault}" if name else f"{key}: {fault}" for name, fault in built.own_faults()]
    return built


def _called(kind: Any, between: str) -> str:
    """How a dataclass of a union is called in a fault: by its key, and what that says, as "measure visits"."""
    tag = kind.KNOWN_BY
    hint = _hints(kind)[tag]
    return f"{tag}{between}{' or '.join(map(_written, get_args(hint)))}" if get_origin(hint) is Literal else tag


def _written(choice: Any) -> str:
    """A choice as YAML writes it."""
    return "true" if choice is True else str(choice)


def _label(item: Any, position: int) -> str:
    """How a list's entry is called in a fault: by its own id where it has one, else by its number from 1."""
    named = isinstance(item, dict) and isinstance(item.get("id"), str)
    return item["id"] if named else str(position + 1)
