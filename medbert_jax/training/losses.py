"""Losses. Each returns a sum and a weight, so that packing, sharding and accumulation cannot change the number."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Float32, Int, Real


def cross_entropy(
    logits: Float[Array, "*X C"], targets: Int[Array, "*X"], weights: Float[Array, "*X"] | Bool[Array, "*X"]
) -> tuple[Float32[Array, ""], Real[Array, ""]]:
    """Σ weight · −log softmax(logits)[target], and Σ weight."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), targets)
    return jnp.sum(losses * weights), jnp.sum(weights)


def binary_cross_entropy(
    logits: Float[Array, "*X"], labels: Real[Array, "*X"], weights: Float[Array, "*X"] | Bool[Array, "*X"]
) -> tuple[Float32[Array, ""], Real[Array, ""]]:
    """Σ weight · −log p(label), and Σ weight, for one logit per example."""
    losses = optax.sigmoid_binary_cross_entropy(logits.astype(jnp.float32), labels.astype(jnp.float32))
    return jnp.sum(losses * weights), jnp.sum(weights)
