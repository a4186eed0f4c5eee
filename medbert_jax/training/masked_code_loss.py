"""The masked-code loss through the tied decoder, the widest product of all, with a gradient of its own.

Autodiff would sum the bias's gradient column by column, on a CPU far slower than a product with ones, and keep several
arrays of all masked codes × vocabulary. Here a chunk of masked codes at a time has its logits, its loss and its
gradients from them, and the backward pass only scales what is there.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int

from medbert_jax.models.encoder import BLOCKED
from medbert_jax.models.product import product

CHUNK = 512
"""Masked codes, of one device, whose logits exist at once: 170 MB in float32 at the paper's vocabulary. More are slower
on a CPU, where they leave the cache, and fewer add up the table's gradient more often."""


def masked_code_loss(
    states_GMD: Float[Array, "G M D"],
    code_table_VD: Float32[Array, "V D"],
    bias_V: Float32[Array, "V"],
    targets_GM: Int[Array, "G M"],
    weights_GM: Bool[Array, "G M"],
    *,
    codes: int,
) -> tuple[Float32[Array, ""], Int[Array, ""]]:
    """Σ weight · −log softmax(states · tableᵀ + bias)[target], and how many targets have the highest logit.

    Of equal logits the first is the highest, as `argmax` has it. Products are made in the type of the states. Rows of
    the table from `codes` on belong to no code: their logits count for nothing and their gradient is 0. G are groups of
    masked codes that lie on different devices.
    """
    no_code_V = jnp.arange(len(bias_V)) >= codes
    return _loss(states_GMD, code_table_VD, jnp.where(no_code_V, BLOCKED, bias_V), targets_GM, weights_GM)


@jax.custom_vjp
def _loss(states_GMD, table_VD, bias_V, targets_GM, weights_GM):
    return _over_chunks(states_GMD, table_VD, bias_V, targets_GM, weights_GM, gradients=False)[:2]


def _forward(states_GMD, table_VD, bias_V, targets_GM, weights_GM):
    loss, correct, found = _over_chunks(states_GMD, table_VD, bias_V, targets_GM, weights_GM, gradients=True)
    of_states_GMD, of_table_GVD, of_bias_GV, missing_GM = found
    # What the targets themselves add: −(1 − p) each. Apart, so that a p near 1 loses nothing in rounding.
    missing_GM1 = missing_GM[..., None]
    of_states_GMD -= missing_GM1 * jnp.take(table_VD, targets_GM, axis=0, mode="clip")
    of_table_VD = of_table_GVD.sum(axis=0).at[targets_GM].add(-missing_GM1 * states_GMD.astype(jnp.float32))
    of_bias_V = of_bias_GV.sum(axis=0).at[targets_GM].add(-missing_GM)
    return (loss, correct), (of_states_GMD.astype(states_GMD.dtype), of_table_VD, of_bias_V)


def _backward(gradients, cotangents):
    return *((gradient * cotangents[0]).astype(gradient.dtype) for gradient in gradients), None, None


_loss.defvjp(_forward, _backward)


def _over_chunks(states_GMD, table_VD, bias_V, targets_GM, weights_GM, *, gradients: bool) -> tuple:
    """Loss, correct predictions and, if asked for, the gradients, those of table and bias apart for every group.

    A group's own sums stay on its device until all chunks are through. The gradients lack what the targets add.
    """
    groups, most, _ = states_GMD.shape
    chunks = max(1, math.ceil(most / CHUNK))
    size = math.ceil(most / chunks)
    table_VD = table_VD.astype(states_GMD.dtype)

    def cut(x: Array) -> Array:
        x = jnp.pad(x, [(0, 0), (0, chunks * size - most)] + [(0, 0)] * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(groups, chunks, size, *x.shape[2:]), 1, 0)

    def whole(x: Array) -> Array:
        return jnp.moveaxis(x, 0, 1).reshape(groups, chunks * size, *x.shape[3:])[:, :most]

    def of_chunk(part: tuple) -> tuple:
        return _of_chunk(*part, table_VD, bias_V, gradients=gradients)

    parts = states_GMD, targets_GM, weights_GM
    if chunks == 1:
        sums, apart = of_chunk(parts)
    else:
        cuts = tuple(map(cut, parts))
        shapes = jax.eval_shape(of_chunk, jax.tree.map(lambda x: x[0], cuts))[0]

        def add(sums: tuple, part: tuple) -> tuple:
            more, apart = of_chunk(part)
            return jax.tree.map(jnp.add, sums, more), apart

        sums, apart = jax.lax.scan(add, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes), cuts)
        apart = jax.tree.map(whole, apart)
    loss, correct, *of_table_and_bias = sums
    return loss, correct, (apart[0], *of_table_and_bias, apart[1]) if gradients else None


def _of_chunk(states_GMD, targets_GM, weights_GM, table_VD, bias_V, *, gradients: bool) -> tuple[tuple, tuple]:
    """What is summed over chunks, and what every masked code has for itself."""
    dtype = states_GMD.dtype
    logits_GMV = product("GMD,VD->GMV", states_GMD, table_VD) + bias_V[None, None, :]
    codes_GMV = jax.lax.broadcasted_iota(jnp.int32, logits_GMV.shape, 2)
    highest_GM1 = jnp.max(logits_GMV, axis=-1, keepdims=True)
    first_GM = jnp.min(jnp.where(logits_GMV == highest_GM1, codes_GMV, len(bias_V)), axis=-1)
    target_GM = (jnp.take_along_axis(logits_GMV, targets_GM[..., None], axis=-1) - highest_GM1)[..., 0]
    is_target_GMV = codes_GMV == targets_GM[..., None]
    others_GMV = jnp.where(is_target_GMV, 0.0, jnp.exp(logits_GMV - highest_GM1))
    others_GM = jnp.sum(others_GMV, axis=-1)
    total_GM = others_GM + jnp.exp(target_GM)
    loss = jnp.sum((jnp.log(total_GM) - target_GM) * weights_GM)
    correct = jnp.sum((first_GM == targets_GM) & weights_GM)
    if not gradients:
        return (loss, correct), ()
    share_GM = weights_GM / total_GM
    others_GMV = others_GMV.astype(dtype)
    of_states_GMD = product("GMV,VD->GMD", others_GMV, table_VD) * share_GM[..., None]
    of_table_GVD = product("GMV,GMD->GVD", others_GMV, (states_GMD * share_GM[..., None]).astype(dtype))
    of_bias_GV = product("GM,GMV->GV", share_GM.astype(dtype), others_GMV)
    return (loss, correct, of_table_GVD, of_bias_GV), (of_states_GMD, others_GM * share_GM)
