"""Losses. Each returns a sum and a weight, so that packing, sharding and accumulation cannot change the number."""

import jax
import jax.numpy as jnp
import optax


def cross_entropy(logits, targets, weights) -> tuple[jax.Array, jax.Array]:
    """Σ weight · −log softmax(logits)[target], and Σ weight. `logits` (…, C), `targets` and `weights` (…)."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), targets)
    return jnp.sum(losses * weights), jnp.sum(weights)


def binary_cross_entropy(logits, labels, weights) -> tuple[jax.Array, jax.Array]:
    """Σ weight · −log p(label), and Σ weight, for one logit per example; all arguments (…)."""
    losses = optax.sigmoid_binary_cross_entropy(logits.astype(jnp.float32), labels.astype(jnp.float32))
    return jnp.sum(losses * weights), jnp.sum(weights)
