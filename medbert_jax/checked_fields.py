"""Every field of a configuration is what its annotation says, and all faults are in one error.

A range stands at its field and nowhere else: `batch_size: Annotated[int, Ge(1)] = 256`, and where there may be none
`gap_days: Annotated[int, Ge(0)] | None = None`.
"""

import math
import operator
from collections.abc import Iterable
from dataclasses import fields
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

# As annotated_types calls them: attribute, words, relation, what to do where it does not hold.
_BOUNDS = (
    ("ge", "at least", operator.ge, "raise it"),
    ("gt", "above", operator.gt, "raise it"),
    ("le", "at most", operator.le, "lower it"),
    ("lt", "below", operator.lt, "lower it"),
)
_NAMES = {int: "a whole number", float: "a finite number", bool: "True or False", str: "text", type(None): "None"}

Fault = tuple[str, str, Any, str]
"""Place, rule, what came, what to do."""


def check_fields(config: Any, *, at: str = "", also: Iterable[str] = ()) -> None:
    """Raise ValueError naming every field that is not as annotated, one line each; for `__post_init__`.

    Types, the choices of a Literal and the ranges of numbers are checked, within tuples too; NaN and infinity are no
    numbers, True and False no whole numbers. A nested configuration has checked itself.

    Args:
        config: a dataclass instance.
        at: where it stands on the command line: the share of `at="masking"` is called masking.share.
        also: lines on rules over several fields, made while the others are checked.
    """
    kinds = get_type_hints(type(config), include_extras=True)
    lines = [
        f"{at}{at and '.'}{place} must be {rule}: got {value!r}; {cure}"
        for field in fields(config)
        for place, rule, value, cure in _faults(field.name, kinds[field.name], getattr(config, field.name))
    ]
    try:
        lines.extend(also)
    except Exception:  # a rule over several fields cannot be asked where one of them is no number
        if not lines:
            raise
    if lines:
        raise ValueError("\n".join(lines))


def _faults(place: str, kind: Any, value: Any) -> list[Fault]:
    """What is wrong with a value, by its annotation."""
    origin, parts = get_origin(kind) or kind, get_args(kind)
    if origin is Annotated:
        return _faults(place, parts[0], value) or _out_of_range(place, parts[1:], value)
    if origin in (Union, UnionType):
        found = [_faults(place, part, value) for part in parts]
        if not all(found):
            return []
        # Of the kind that the value is of, what is wrong with it; else all kinds that it might be of.
        kinds = (faults for part, faults in zip(parts, found, strict=True) if _is_of_kind(part, value))
        return next(kinds, [(place, " or ".join(one[0][1] for one in found), value, "give one of them")])
    if origin is Literal:
        return [] if value in parts else [(place, f"one of {', '.join(map(str, parts))}", value, "choose one of them")]
    if origin is tuple and isinstance(value, tuple):
        return _faults_within(place, parts, value)
    name = _NAMES.get(origin) or f"a {origin.__name__}"
    return [] if is_a(origin, value) else [(place, name, value, f"give {name}")]


def _is_of_kind(kind: Any, value: Any) -> bool:
    return get_origin(kind) is Annotated and not _faults("", get_args(kind)[0], value)


def is_a(kind: Any, value: Any) -> bool:
    """Whether a value is of a type that has no parts: True is no number, and NaN and infinity are none."""
    if kind is Any or isinstance(kind, TypeVar):
        return True
    if isinstance(value, bool):
        return kind is bool
    if kind is float:
        return isinstance(value, int | float) and -math.inf < value < math.inf
    return isinstance(value, kind)


def _out_of_range(place: str, marks: tuple, value: Any) -> list[Fault]:
    bounds = [
        (f"{words} {limit}", cure, holds(value, limit))
        for mark in marks  # others than ranges, as those for the command line, have no such attribute
        for attribute, words, holds, cure in _BOUNDS
        if (limit := getattr(mark, attribute, None)) is not None
    ]
    rule = " and ".join(words for words, _, _ in bounds)
    return [(place, rule, value, cure) for _, cure, inside in bounds if not inside][:1]


def _faults_within(place: str, kinds: tuple, values: tuple) -> list[Fault]:
    if kinds[-1:] == (...,):
        kinds = kinds[:1] * len(values)
    if len(kinds) != len(values):
        return [(place, f"{len(kinds)} values", values, "give as many")]
    pairs = enumerate(zip(kinds, values, strict=True))
    return [fault for number, (kind, value) in pairs for fault in _faults(f"{place}[{number}]", kind, value)]
