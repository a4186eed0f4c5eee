"""JSON objects that are read from disk: whole, finite and of their form, or refused in a sentence that names them.

Nothing else in the package parses a file as JSON.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict

from medbert_jax.checked_fields import is_a

_DEEPEST = 50
"""Levels; what is written has seven, and a parser of any depth would overflow."""
_KINDS: dict[type, str] = {type(None): "null", bool: "true or false", str: "text", list: "a list", dict: "an object"}
_KINDS |= dict.fromkeys((int, float), "a number")


def parse_object(content: bytes | str) -> dict:
    """The JSON object that is the content. Raises ValueError, with what came in place of one."""
    try:
        data = json.loads(content, parse_constant=_refuse_number, parse_float=_finite)
    except RecursionError:
        raise ValueError(f"more than {_DEEPEST} levels") from None
    except UnicodeDecodeError:
        raise ValueError("bytes that are not UTF-8") from None
    except json.JSONDecodeError as fault:
        raise ValueError(f"no JSON ({fault.msg} in line {fault.lineno})") from None
    if not isinstance(data, dict):
        raise ValueError(f"{kind_of(data)} and no object")
    level: list[Any] = [data]
    for _ in range(_DEEPEST):
        level = [part for one in level for part in _parts(one)]
    if level:
        raise ValueError(f"more than {_DEEPEST} levels")
    return data


def read_object(path: str | Path, form: Any = None, *, cure: str = "put the file back from a copy") -> dict:
    """The JSON object in a file, of the form, where one is given (see `form_faults`).

    Raises OSError where it cannot be opened, ValueError for anything else than such an object.
    """
    content = Path(path).read_bytes()
    try:
        record = parse_object(content)
    except ValueError as fault:
        raise ValueError(
            f"a stored file must be as it was written, one JSON object: got {fault} in {path}; {cure}"
        ) from None
    if form is not None:
        check_form(record, form, path, cure=cure)
    return record


def check_form(record: object, form: Any, path: str | Path, *, cure: str = "put the file back from a copy") -> None:
    """Raise ValueError where what is stored in `path` is not of the form, with every fault."""
    if faults := list(form_faults(record, form)):
        shown = ", ".join(faults[:8]) + " …" * (len(faults) > 8)
        raise ValueError(f"a stored file must have its form: got {path}, where {shown}; {cure}")


def form_faults(value: object, form: Any, place: str = "") -> Iterator[str]:
    """What is wrong with JSON data: "PLACE must be WHAT and is WHAT".

    A form is a type: of a leaf, list, tuple, dict, Literal, Union, a TypedDict, or a dataclass, whose fields may be
    missing where they have defaults. Further keys are nobody's fault, ranges are those of who uses the value.
    """
    origin, parts = get_origin(form) or form, get_args(form)
    if origin in (Annotated, NotRequired):
        yield from form_faults(value, parts[0], place)
    elif origin in (Union, UnionType):
        found = [list(form_faults(value, part, place)) for part in parts]
        if all(found):
            yield min(found, key=len)[0]
    elif origin is Literal:
        if not any(value == part and type(value) is type(part) for part in parts):
            yield f"{place} must be one of {', '.join(map(str, parts))} and is another"
    elif is_typeddict(origin) or is_dataclass(origin):
        yield from _faults_of_record(value, origin, place)
    elif origin is dict and isinstance(value, dict):
        for key, part in value.items():
            yield from form_faults(part, parts[1] if parts else Any, _joined(place, key))
    elif origin in (list, tuple) and isinstance(value, list):
        kinds = parts or (Any,)
        kinds = kinds[:1] * len(value) if origin is list or kinds[-1] is ... else kinds
        if len(kinds) != len(value):
            yield f"{place} must be {len(kinds)} values and is {len(value)}"
        else:
            for number, (part, kind) in enumerate(zip(value, kinds, strict=True)):
                yield from form_faults(part, kind, f"{place}[{number}]")
    elif not is_a(origin, value):
        expected = "a whole number" if origin is int else _KINDS.get(list if origin is tuple else origin, "of its kind")
        yield f"{place or 'it'} must be {expected} and is {kind_of(value)}"


def kind_of(value: object) -> str:
    """What a JSON value is, without saying it."""
    return _KINDS.get(type(value), type(value).__name__)


def _faults_of_record(value: object, form: Any, place: str) -> Iterator[str]:
    if not isinstance(value, Mapping):
        yield f"{place or 'it'} must be an object and is {kind_of(value)}"
        return
    kinds = get_type_hints(form)
    if is_typeddict(form):
        required = form.__required_keys__
    else:
        required = {one.name for one in fields(form) if one.default is MISSING and one.default_factory is MISSING}
    for name, kind in kinds.items():
        if name in value:
            yield from form_faults(value[name], kind, _joined(place, name))
        elif name in required:
            yield f"{_joined(place, name)} is missing"


def _joined(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key


def _parts(value: object) -> list:
    """What is within a list or object; text that is none cannot be printed, nor written again."""
    if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError("text that is no Unicode")
    return [*value.keys(), *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []


def _finite(text: str) -> float:
    return number if math.isfinite(number := float(text)) else _refuse_number(text)


def _refuse_number(text: str) -> float:
    raise ValueError(f"the number {text}")
