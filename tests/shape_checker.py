"""The checker of signatures in the tests: beartype, which asks the fields of batches and named tuples too.

By itself beartype asks of a TypedDict only that it is a mapping, and nothing of what a NamedTuple holds. Here their
fields must be what they are said to be, and B, L and P are the same in all fields and all arguments of a call.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Annotated, Any, get_args, get_origin, get_type_hints, is_typeddict

from beartype import BeartypeConf, FrozenDict, beartype
from beartype.door import is_bearable
from beartype.vale import Is


def checked(function: Callable) -> Callable:
    """`function` that raises where an argument or what it returns is not what its signature says."""
    # The fields of a dataclass are its own matter: a configuration says all that is wrong with it in one error.
    if function.__name__ == "__init__":
        return function
    parts = {part for hint in function.__annotations__.values() for part in _parts(hint) if _has_fields(part)}
    overrides = FrozenDict({part: _with_fields(part) for part in parts})
    return beartype(conf=BeartypeConf(hint_overrides=overrides))(function)


def _parts(hint: Any) -> Iterator[Any]:
    """A hint and all hints within it."""
    yield hint
    for part in get_args(hint):
        yield from _parts(part)


def _has_fields(hint: Any) -> bool:
    kind = get_origin(hint) or hint
    ours = getattr(kind, "__module__", "").startswith("medbert_jax.")
    return ours and (is_typeddict(kind) or hasattr(kind, "_fields"))


@functools.cache
def _with_fields(hint: Any) -> Any:
    """A hint for values of a TypedDict or NamedTuple whose fields, those that are there, are what it says.

    A generic one says it with its argument.
    """
    kind = get_origin(hint) or hint
    said = dict(zip(getattr(kind, "__parameters__", ()), get_args(hint), strict=False))
    hints = {name: said.get(field, field) for name, field in get_type_hints(kind).items()}

    def fields_hold(value: Any) -> bool:
        fields = value if is_typeddict(kind) else value._asdict()
        return all(is_bearable(fields[name], asked) for name, asked in hints.items() if name in fields)

    return Annotated[dict if is_typeddict(kind) else tuple, Is[fields_hold]]
