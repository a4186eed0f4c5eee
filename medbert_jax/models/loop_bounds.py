"""Loops whose number of steps is data, under vmap: as many steps as the longest of them takes, for all.

A loop with a number of steps for each of a batch is by JAX a loop whose every step selects, for the whole of what it
carries, between old and new. With one number for all there is nothing to select; the body must leave things as they
are where its own number is reached.
"""

import jax
from jaxtyping import Array, Int


@jax.custom_batching.custom_vmap
def common_bound(bound: Int[Array, "*shape"]) -> Int[Array, "*shape"]:
    """The bound itself; under vmap the highest of the batch, one for all."""
    return bound


@common_bound.def_vmap
def _highest(_size: int, is_batched: list[bool], bound: Array) -> tuple[Array, bool]:
    return (bound.max(axis=0) if is_batched[0] else bound), False
