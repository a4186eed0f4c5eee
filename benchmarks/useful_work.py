"""What a pretraining step must compute, and how fast this device multiplies: the two numbers of a model's FLOP share.

Useful are the products of real codes with the parameters, attention of each code to those of its own patient, and the
logits of masked codes: not padding, not other patients of the row, not what is computed twice. Sums, LayerNorm, softmax
and the optimizer are left out, as is usual.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np

from medbert_jax.models.config import ModelConfig
from medbert_jax.training.masking import MaskingConfig, masked_per_patient

FORWARD_AND_BACKWARD = 3
"""Products of training for each of the forward pass: it, and the gradients of both factors."""


def useful_flops(lengths: np.ndarray, model: ModelConfig, masking: MaskingConfig) -> np.ndarray:
    """(n,) floating-point operations that training takes for patients with `lengths` (n,) codes, a product being 2."""
    width, lengths = model.hidden_size, lengths.astype(np.float64)
    of_a_code = 2 * (4 * width * width + 2 * width * model.feed_forward_size)  # query, key, value, output; feed-forward
    of_a_pair = 2 * 2 * width  # a score over all heads, and its part of the mixture
    of_a_masked_code = 2 * (width * width + width * model.vocabulary_size)
    forward = model.layers * (lengths * of_a_code + lengths**2 * of_a_pair)
    forward += masked_per_patient(masking, lengths.astype(np.int64)) * of_a_masked_code
    forward += 2 * width * model.los_logits
    return FORWARD_AND_BACKWARD * forward


def product_rate(dtype: str, size: int, *, rounds: int = 20) -> float:
    """FLOP/s of products of two random square matrices of so many rows, the best of some: the ceiling of a device."""
    keys = jax.random.split(jax.random.key(0))
    one, other = (jax.random.normal(key, (size, size), jnp.dtype(dtype)) for key in keys)
    multiply, best = jax.jit(jnp.matmul), np.inf
    multiply(one, other).block_until_ready()
    for _ in range(3):
        began = time.perf_counter()
        for _ in range(rounds):
            found = multiply(one, other)
        found.block_until_ready()
        best = min(best, (time.perf_counter() - began) / rounds)
    return 2 * size**3 / best
