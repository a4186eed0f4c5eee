"""Rows that only fill up the table's tiles change nothing: losses, gradients of what is stored, and the way back."""

from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh
from made_sequences import TINY_MODEL, made_sequences
from reference_batches import batches

from medbert_jax.data.row_plan import RowsConfig, plan_rows
from medbert_jax.models.med_bert import init
from medbert_jax.training.masking import MaskingConfig
from medbert_jax.training.optimizer import OptimizerConfig, make_optimizer
from medbert_jax.training.pretraining import TasksConfig, init_state, make_train_step, step_shapes
from medbert_jax.training.sharding import MeshConfig, make_mesh
from medbert_jax.training.vocabulary_padding import StateLayout, padded_rows, resize

MODEL = replace(TINY_MODEL, initializer_range=0.1)
OPTIMIZER = make_optimizer(OptimizerConfig(learning_rate=1e-3, warmup_steps=0), 10)
FRESH = partial(init_state, partial(init, MODEL), OPTIMIZER)


@pytest.mark.parametrize(("devices", "rows"), [(1, 128), (2, 256), (3, 384)])
def test_rows_are_rounded_up_to_whole_tiles_on_every_device(devices, rows):
    mesh = AbstractMesh((1, devices), ("data", "model"))
    assert padded_rows(MODEL, mesh) == rows
    assert padded_rows(replace(MODEL, vocabulary_size=rows + 1), mesh) == 2 * rows


def test_the_papers_vocabulary_takes_85_rows_more():
    paper = replace(MODEL, vocabulary_size=82_603)
    assert padded_rows(paper, AbstractMesh((4, 1), ("data", "model"))) == 82_688


def trained(rows: int) -> tuple[dict, list[float]]:
    """The state after four steps, in the shapes that are stored, and the losses."""
    sequences, masking = made_sequences(80, seed=0), MaskingConfig(share=0.25)
    plan = plan_rows(sequences.lengths, RowsConfig(batch_size=40, short_row=32), max_length=32)
    step = make_train_step(
        model=MODEL,
        masking=masking,
        tasks=TasksConfig(),
        shapes=step_shapes(plan, masking),
        optimizer=OPTIMIZER,
        seed=0,
    )
    state, losses, step = resize(FRESH(jax.random.key(0)), OPTIMIZER, MODEL, rows), [], jax.jit(step)
    for _, batch in zip(range(4), batches(sequences, plan, seed=0), strict=False):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    added = np.asarray(state["params"]["embeddings"]["code_table"])[MODEL.vocabulary_size :]
    assert len(added) == rows - MODEL.vocabulary_size and (added == 0).all()
    return resize(state, OPTIMIZER, MODEL, MODEL.vocabulary_size), losses


def test_training_with_added_rows_is_the_same_training():
    (one, losses), (two, padded_losses) = trained(MODEL.vocabulary_size), trained(MODEL.vocabulary_size + 6)
    np.testing.assert_allclose(losses, padded_losses, rtol=1e-6)
    assert losses[-1] < losses[0]
    start = FRESH(jax.random.key(0))["params"]
    for path, first in jax.tree_util.tree_leaves_with_path(start):
        a, b = one["params"], two["params"]
        for key in path:
            a, b = a[key.key], b[key.key]
        assert a.shape == b.shape
        if not jax.tree_util.keystr(path).endswith("['key']['bias']"):  # no gradient but rounding
            assert np.linalg.norm(a - b) <= 1e-4 * np.linalg.norm(a - first), jax.tree_util.keystr(path)


def test_a_state_goes_to_the_disk_and_back_bit_for_bit():
    state = FRESH(jax.random.key(0))
    there = resize(state, OPTIMIZER, MODEL, 70)
    tables = [leaf.shape for leaf in jax.tree.leaves(there) if leaf.shape[:1] == (70,)]
    assert sorted(tables) == [(70,)] * 3 + [(70, 32)] * 3  # the table and the bias, each with two moments
    again = resize(there, OPTIMIZER, MODEL, 64)
    for one, two in zip(jax.tree.leaves(state), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_table_of_whole_tiles_is_left_alone():
    model = replace(MODEL, vocabulary_size=128)
    fresh = partial(init_state, partial(init, model), OPTIMIZER)
    layout = StateLayout(fresh, OPTIMIZER, model, make_mesh(MeshConfig(data=1)))
    state = layout.fresh(jax.random.key(0))
    assert layout.to_disk(state) is state and layout.from_disk(state) is state
