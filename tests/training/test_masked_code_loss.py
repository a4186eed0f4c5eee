"""The masked-code loss has the value and the gradients of the plain one, however it is cut into chunks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medbert_jax.training import masked_code_loss as module
from medbert_jax.training.losses import cross_entropy
from medbert_jax.training.masked_code_loss import masked_code_loss

GROUPS, MASKED, ROWS, CODES, WIDTH = 2, 23, 96, 90, 16


@pytest.fixture(scope="module")
def inputs() -> tuple:
    """States, table, bias, targets, weights; one target is all but certain, some rows are no codes."""
    rng = np.random.default_rng(0)
    states = rng.normal(size=(GROUPS, MASKED, WIDTH))
    table, bias = rng.normal(size=(ROWS, WIDTH)), rng.normal(size=ROWS)
    targets, weights = rng.integers(0, CODES, (GROUPS, MASKED)), rng.random((GROUPS, MASKED)) < 0.8
    weights[0, :2] = True
    states[0, 0] = 3 * table[targets[0, 0]]
    table[CODES:] = 0
    floats = (jnp.asarray(x, jnp.float32) for x in (states, table, bias))
    return *floats, jnp.asarray(targets), jnp.asarray(weights)


def plain(states, table, bias, targets, weights, *, codes):
    """All logits at once, by autodiff."""
    logits = states @ table.T + bias[None, None, :]
    logits = jnp.where(jnp.arange(len(bias)) < codes, logits, -1e9)
    return cross_entropy(logits, targets, weights)[0], jnp.sum((jnp.argmax(logits, axis=-1) == targets) & weights)


def value_and_gradients(loss, inputs: tuple, scale: float = 1.0):
    def scaled(*arrays):
        value, correct = loss(*arrays, *inputs[3:], codes=CODES)
        return scale * value, correct

    return jax.jit(jax.value_and_grad(scaled, argnums=(0, 1, 2), has_aux=True))(*inputs[:3])


@pytest.mark.parametrize("chunk", [5, 12, 512])
def test_value_correct_predictions_and_gradients_are_those_of_the_plain_loss(inputs, chunk, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", chunk)
    (value, correct), gradients = value_and_gradients(masked_code_loss, inputs, 0.37)
    (expected, expected_correct), expected_gradients = value_and_gradients(plain, inputs, 0.37)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert int(correct) == int(expected_correct) > 0
    for one, two in zip(gradients, expected_gradients, strict=True):
        assert np.linalg.norm(one - two) <= 1e-6 * np.linalg.norm(two)
    assert (gradients[1][CODES:] == 0).all() and (gradients[2][CODES:] == 0).all()
    # Without gradients: the way of a validation.
    value, correct = jax.jit(lambda *arrays: masked_code_loss(*arrays, codes=CODES))(*inputs)
    np.testing.assert_allclose(0.37 * value, expected, rtol=1e-6)
    assert int(correct) == int(expected_correct)


def test_of_equal_logits_the_first_is_the_highest(inputs):
    states, table, bias, targets, weights = inputs
    table, bias = jnp.zeros_like(table), jnp.zeros_like(bias).at[jnp.array([7, 30])].set(1.0)
    for target, expected in ((7, int(weights.sum())), (30, 0)):
        _, correct = masked_code_loss(states, table, bias, jnp.full_like(targets, target), weights, codes=CODES)
        assert int(correct) == expected


def test_a_target_that_is_all_but_certain_keeps_its_small_gradient(inputs):
    """1 − p, rounded after the subtraction, is worth nothing in bfloat16: here it is the sum of the others."""
    states, table, bias, targets, _ = inputs
    # The logits of this one are the bias, which is float32 in any case.
    certain = jnp.zeros((GROUPS, MASKED), bool).at[0, 0].set(True)
    states, bias = states.at[0, 0].set(0.0), bias.at[targets[0, 0]].set(12.0)
    _, exact = value_and_gradients(plain, (states, table, bias, targets, certain))
    half = states.astype(jnp.bfloat16)
    _, found = value_and_gradients(masked_code_loss, (half, table, bias, targets, certain))
    assert 1e-5 < np.linalg.norm(exact[2]) < 2e-3
    assert np.linalg.norm(found[2] - exact[2]) < 0.01 * np.linalg.norm(exact[2])
