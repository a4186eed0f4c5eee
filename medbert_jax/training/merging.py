"""Parameters of a checkpoint put into a model, leaf by leaf, or an error that shows every difference."""

from collections.abc import Collection, Mapping
from typing import Any

import jax

Shapes = dict[str, tuple[tuple[int, ...], str]]


class ParameterMismatchError(ValueError):
    """Parameters of the checkpoint and of the model do not fit together."""


def leaf_shapes(tree: Any) -> Shapes:
    """Path of every leaf ("encoder/layer_0/bias") → (shape, dtype); arrays, or jax.ShapeDtypeStruct."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): (tuple(leaf.shape), str(leaf.dtype))
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def differences(model: Shapes, checkpoint: Shapes) -> list[str]:
    """One line for every leaf that differs, in the order of the paths; empty when all fit."""
    lines = []
    for path in sorted(model.keys() | checkpoint.keys()):
        if path not in checkpoint:
            lines.append(f"  + {path} {_text(model[path])}: only in the model")
        elif path not in model:
            lines.append(f"  − {path} {_text(checkpoint[path])}: only in the checkpoint")
        elif model[path] != checkpoint[path]:
            lines.append(f"  ≠ {path}: {_text(model[path])} in the model, {_text(checkpoint[path])} in the checkpoint")
    return lines


def merge_parameters(
    target: Mapping, source: Mapping, *, new: Collection[str] = (), drop: Collection[str] = ()
) -> dict:
    """The parameters of `target`, every leaf taken from `source`, placed where the target's leaf lies.

    `new` names path prefixes ("head", "encoder/layer_5") that keep the target's own values; `drop` names
    prefixes of the source that nothing is taken from, such as the pretraining heads. Raises
    ParameterMismatchError with a diff when anything else is missing, left over, or of another shape or dtype.
    """
    ours, theirs = leaf_shapes(target), leaf_shapes(source)
    expected = {path: kind for path, kind in ours.items() if not _under(path, new)}
    offered = {path: kind for path, kind in theirs.items() if not _under(path, (*new, *drop))}
    if lines := differences(expected, offered):
        raise ParameterMismatchError(
            "the parameters of a checkpoint must fit the model: got "
            f"{len(lines)} differences\n" + "\n".join(lines) + "\ntake the model configuration of the checkpoint; name "
            "fresh parts in `new` and unwanted ones in `drop`"
        )
    values = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(source)
    }

    def choose(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name not in expected:
            return leaf
        sharding = getattr(leaf, "sharding", None)
        return values[name] if sharding is None else jax.device_put(values[name], sharding)

    return jax.tree_util.tree_map_with_path(choose, target)


def _under(path: str, prefixes: Collection[str]) -> bool:
    return any(path == prefix or path.startswith(f"{prefix}/") for prefix in prefixes)


def _text(kind: tuple[tuple[int, ...], str]) -> str:
    return f"{kind[0]} {kind[1]}"
