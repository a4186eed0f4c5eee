"""With bfloat16 products, the lowered training step multiplies next to nothing in float32, forward and backward."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
from jax import export
from lowered_products import flops_by_type
from made_sequences import TINY_MODEL, made_sequences
from reference_batches import batches

from medbert_jax.data.row_plan import RowsConfig, plan_rows
from medbert_jax.models import encoder
from medbert_jax.models.med_bert import init
from medbert_jax.training.masking import MaskingConfig
from medbert_jax.training.optimizer import OptimizerConfig, make_optimizer
from medbert_jax.training.pretraining import TasksConfig, init_state, make_train_step, step_shapes


def lowered_step(compute_dtype: str) -> str:
    """The training step of two layers, lowered for CUDA; wide enough for products to be most of it."""
    model = replace(TINY_MODEL, layers=2, hidden_size=96, vocabulary_size=2_000, compute_dtype=compute_dtype)
    sequences, masking = made_sequences(60, seed=0), MaskingConfig(share=0.25)
    plan = plan_rows(sequences.lengths, RowsConfig(batch_size=60, short_row=32), max_length=32)
    optimizer = make_optimizer(OptimizerConfig(), 10_000)
    step = make_train_step(
        model=model,
        masking=masking,
        tasks=TasksConfig(),
        shapes=step_shapes(plan, masking),
        optimizer=optimizer,
        seed=0,
    )
    state = jax.eval_shape(partial(init_state, partial(init, model), optimizer), jax.random.key(0))
    return export.export(jax.jit(step), platforms=["cuda"])(state, next(batches(sequences, plan, seed=0))).mlir_module()


def test_under_one_per_cent_of_the_work_is_float32_times_float32():
    flops = flops_by_type(lowered_step("bfloat16"))
    assert flops["bf16 x bf16"] > 1e8
    assert sum(flops.values()) - flops["bf16 x bf16"] < 0.01 * sum(flops.values()), flops


def test_float32_gradients_of_the_scores_are_noticed(monkeypatch):
    """Autodiff of a product that is handed out in float32 multiplies its cotangent as such."""
    monkeypatch.setattr(encoder, "product", plain_product)
    flops = flops_by_type(lowered_step("bfloat16"))
    assert sum(flops.values()) - flops["bf16 x bf16"] > 0.01 * sum(flops.values())


def plain_product(subscripts, one, other, dtype=None):
    """The einsum that `product` is, without its gradient."""
    dtype = dtype or one.dtype
    return jnp.einsum(subscripts, one.astype(dtype), other.astype(dtype), preferred_element_type=jnp.float32)


def test_the_reader_counts_what_autodiff_makes_of_a_product():
    shapes = jax.ShapeDtypeStruct((8, 4), jnp.bfloat16), jax.ShapeDtypeStruct((4, 16), jnp.bfloat16)
    loss = jax.value_and_grad(lambda one, other: plain_product("TD,DF->TF", one, other).sum(), argnums=(0, 1))
    text = export.export(jax.jit(loss), platforms=["cuda"])(*shapes).mlir_module()
    assert flops_by_type(text)["bf16 x bf16"] == 2 * 8 * 4 * 16
    assert sum(flops_by_type(text).values()) == 3 * 2 * 8 * 4 * 16
