"""Rows without a code: on a mesh the code table has whole tiles on every device, on disk a row for every code.

The rows stay 0: no id points to them, and `masked_code_loss` takes their logits out.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AbstractMesh, Mesh

from medbert_jax.models.config import ModelConfig
from medbert_jax.models.med_bert import vocabulary_axes
from medbert_jax.training.sharding import parameter_shardings, replicated, state_shardings, with_shardings

TILE = 128
"""Rows that the matrix units of accelerators take at once, and more than a cache line of a CPU."""


def padded_rows(config: ModelConfig, mesh: Mesh | AbstractMesh) -> int:
    """Rows of the code table on this mesh: the vocabulary, in whole tiles for each device of the model axis."""
    tiles = TILE * mesh.shape["model"]
    return -(-config.vocabulary_size // tiles) * tiles


def resize(state: dict, optimizer: optax.GradientTransformation, config: ModelConfig, rows: int) -> dict:
    """The training state with `rows` rows wherever the vocabulary is an axis: zeros added, or rows taken off."""
    axes = vocabulary_axes(config)

    def resized(leaf: jax.Array, axis: int) -> jax.Array:
        if axis < 0:
            return leaf
        missing = max(0, rows - leaf.shape[axis])
        leaf = jnp.pad(leaf, [(0, missing if one == axis else 0) for one in range(leaf.ndim)])
        return jax.lax.slice_in_dim(leaf, 0, rows, axis=axis)

    return state | {
        "params": jax.tree.map(resized, state["params"], axes),
        "opt_state": optax.tree.map_params(optimizer, resized, state["opt_state"], axes),
    }


class StateLayout:
    """Where a training state lies on a mesh, and how it comes from and goes to the shapes that are stored."""

    def __init__(
        self,
        fresh_state: Callable[[jax.Array], dict],
        optimizer: optax.GradientTransformation,
        config: ModelConfig,
        mesh: Mesh,
    ):
        """`fresh_state`: key → a new state, with tables as long as the vocabulary."""
        stored_shapes = jax.eval_shape(fresh_state, jax.random.key(0))
        self._fresh_state = fresh_state
        rows = padded_rows(config, mesh)
        self._padded = rows != config.vocabulary_size
        self._to_mesh = partial(resize, optimizer=optimizer, config=config, rows=rows)
        self._to_disk = partial(resize, optimizer=optimizer, config=config, rows=config.vocabulary_size)
        shapes = jax.eval_shape(self._to_mesh, stored_shapes)
        self.shardings = state_shardings(shapes, optimizer, parameter_shardings(config, mesh), mesh)
        """Of the state on the mesh."""
        # What the model axis may not divide can be no sharded array as it is stored: it is read whole, then cut.
        on_disk = jax.tree.map(lambda _: replicated(mesh), stored_shapes) if self._padded else self.shardings
        self.stored = with_shardings(stored_shapes, on_disk)
        """The target of a restore."""

    def fresh(self, key: jax.Array) -> dict:
        """A new state on the mesh, never whole on one device."""
        return jax.jit(lambda key: self._to_mesh(self._fresh_state(key)), out_shardings=self.shardings)(key)

    def from_disk(self, state: dict) -> dict:
        """A state as it was restored, on the mesh."""
        return jax.jit(self._to_mesh, out_shardings=self.shardings)(state) if self._padded else state

    def to_disk(self, state: dict) -> dict:
        """A state of the mesh in the shapes that are stored."""
        if not self._padded:
            return state
        return jax.jit(self._to_disk, out_shardings=jax.tree.map(lambda leaf: leaf.sharding, self.stored))(state)
