"""Matrix products in the type of their operands, float32 sums, forward and backward."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32

Operand = Array | np.ndarray
"""Parameters may be the host's."""


def product(
    subscripts: str, one: Float[Operand, "..."], other: Float[Operand, "..."], dtype: DTypeLike | None = None
) -> Float32[Array, "..."]:
    """The einsum of two arrays, multiplied as `dtype` (theirs, if not given), summed and handed out in float32.

    Its gradients are such products too: autodiff would multiply the float32 cotangent of a bfloat16 product as float32.
    Every dimension of an operand must be one of the other or of the result, and forward-mode differentiation is not
    defined.
    """
    return _product(subscripts, jnp.dtype(dtype or one.dtype), one, other)


def dense(
    x: Float[Operand, "*X D"], kernel_DF: Float32[Operand, "D F"], bias_F: Float32[Operand, "F"], dtype: DTypeLike
) -> Float[Array, "*X F"]:
    """x · kernel + bias in `dtype`: multiplied as such, the bias added in float32."""
    summed_TF = product("TD,DF->TF", x.reshape(-1, x.shape[-1]), kernel_DF, dtype) + bias_F[None, :]
    return summed_TF.astype(dtype).reshape(*x.shape[:-1], -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _product(subscripts, dtype, one, other):
    operands = jnp.asarray(one, dtype), jnp.asarray(other, dtype)
    return jnp.einsum(subscripts, *operands, preferred_element_type=jnp.float32)


def _forward(subscripts, dtype, one, other):
    return _product(subscripts, dtype, one, other), (one, other)


def _backward(subscripts, dtype, operands, cotangent):
    one, other = operands
    left, right, result = re.split(",|->", subscripts)
    of_one = _product(f"{result},{right}->{left}", dtype, cotangent, other)
    of_other = _product(f"{left},{result}->{right}", dtype, one, cotangent)
    return of_one.astype(one.dtype), of_other.astype(other.dtype)


_product.defvjp(_forward, _backward)
