import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medbert_jax.models.config import ModelConfig
from medbert_jax.models.finetune_heads import HeadConfig, apply_head, init_head

MODEL = ModelConfig(vocabulary_size=9, hidden_size=6, heads=2, layers=1, max_visits=4, max_length=12)
LENGTHS = (5, 1, 9)


def states_and_batch(width: int):
    """Rows of one patient each; the padding holds large numbers that must not matter."""
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(len(LENGTHS), 12, MODEL.hidden_size)).astype(np.float32)
    real = np.arange(12)[None, :] < np.array(LENGTHS)[:, None]
    hidden = np.where(real[:, :, None], hidden, 1e3)[:, :width]
    if width > 12:
        hidden = np.pad(hidden, ((0, 0), (0, width - 12), (0, 0)), constant_values=-1e3)
    slots = np.zeros((len(LENGTHS), width), np.int32)
    slots[:, :12] = real[:, :width]
    visits = np.where(slots > 0, np.arange(width) // 2 + 1, 7)  # of two codes each; what padding says must not matter
    return jnp.asarray(hidden), {"patient_slots": jnp.asarray(slots), "visit_ids": jnp.asarray(visits, jnp.int32)}


@functools.cache
def head(kind):
    config = HeadConfig(kind, gru_hidden=4, dropout=0.5)
    params = jax.tree.map(np.array, jax.jit(lambda key: init_head(config, MODEL, key))(jax.random.key(3)))
    # Biases away from 0, so that a missing one would show.
    params["dense"]["bias"] += 0.3
    return config, params


def logits_of(config, params, hidden, batch, key=None):
    return apply_head(params, hidden, batch, config=config, model_config=MODEL, patients=1, key=key)


# The compiler's cheapest level: at these sizes nearly all the time of a test goes into compiling.
QUICK = {"xla_backend_optimization_level": 0}
OPTIONS = {"compiler_options": QUICK}
compiled = jax.jit(logits_of, static_argnums=0, compiler_options=QUICK)


def run(*arguments, **options):
    return np.asarray(compiled(*arguments, **options))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gru_by_hand(params, codes):
    """PyTorch's documented equations, one code after another, in float64."""
    w, b, u, c = (
        np.split(np.asarray(params[name], np.float64), 3, axis=-1)
        for name in ("input_kernel", "input_bias", "hidden_kernel", "hidden_bias")
    )
    state = np.zeros(u[0].shape[0])
    for x in codes:
        reset = sigmoid(x @ w[0] + b[0] + state @ u[0] + c[0])
        update = sigmoid(x @ w[1] + b[1] + state @ u[1] + c[1])
        new = np.tanh(x @ w[2] + b[2] + reset * (state @ u[2] + c[2]))
        state = (1 - update) * new + update * state
    return state


@pytest.mark.parametrize("kind", ["gru", "bi_gru"])
def test_final_states_are_those_of_the_real_codes(kind):
    """Forward after the last real code; backward from the last real code to the first."""
    config, params = head(kind)
    hidden, batch = states_and_batch(12)
    logits = run(config, params, hidden, batch)
    assert logits.shape == (3, 1) and logits.dtype == jnp.float32
    for row, length in enumerate(LENGTHS):
        codes = np.asarray(hidden[row, :length], np.float64)
        state = gru_by_hand(params["forward"], codes)
        if kind == "bi_gru":
            state = np.concatenate([state, gru_by_hand(params["backward"], codes[::-1])])
        expected = state @ params["dense"]["kernel"][:, 0] + params["dense"]["bias"][0]
        np.testing.assert_allclose(logits[row, 0], expected, rtol=1e-5)


@pytest.mark.parametrize("kind", ["feed_forward", "first", "gru", "bi_gru", "retain"])
def test_independent_of_the_padding(kind):
    config, params = head(kind)

    def logits_and_gradients(width):
        hidden, batch = states_and_batch(width)

        def loss(params, hidden):
            logits = logits_of(config, params, hidden, batch)
            return jnp.square(logits).sum(), logits

        gradient = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True), compiler_options=QUICK)
        gradients, logits = jax.tree.map(np.asarray, gradient(params, hidden))
        return logits, gradients

    short, (short_params, short_hidden) = logits_and_gradients(9)
    long, (long_params, long_hidden) = logits_and_gradients(30)
    np.testing.assert_allclose(long, short, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), long_params, short_params)
    for row, length in enumerate(LENGTHS):
        read = 1 if kind == "first" else length
        assert (long_hidden[row, read:] == 0).all() and (long_hidden[row, :read] != 0).all()
        np.testing.assert_allclose(long_hidden[row, :length], short_hidden[row, :length], rtol=1e-5, atol=1e-7)


def test_padding_that_reaches_the_state_is_seen():
    """The negative control of the test above: with the empty slots called real the logits move."""
    config, params = head("bi_gru")
    hidden, batch = states_and_batch(12)
    through = run(config, params, hidden, {"patient_slots": np.ones_like(batch["patient_slots"])})
    assert abs(through - run(config, params, hidden, batch))[:2].min() > 1e-3


def test_first_is_the_pooled_first_code_by_hand():
    config, params = head("first")
    hidden, batch = states_and_batch(12)
    pooled = np.tanh(np.asarray(hidden)[:, 0] @ params["pooler"]["dense"]["kernel"] + params["pooler"]["dense"]["bias"])
    expected = pooled @ params["dense"]["kernel"] + params["dense"]["bias"]
    np.testing.assert_allclose(run(config, params, hidden, batch), expected, rtol=1e-5)


def test_feed_forward_reads_packed_rows():
    config, params = head("feed_forward")
    hidden, _ = states_and_batch(12)
    batch = {"patient_slots": jnp.array([[1, 1, 2, 2, 2, 0]], jnp.int32)}
    logits = apply_head(params, hidden[:1, :6], batch, config=config, model_config=MODEL, patients=3, key=None)
    kernel, bias = params["dense"]["kernel"][:, 0], params["dense"]["bias"][0]
    sums = np.stack([hidden[0, :2].sum(axis=0), hidden[0, 2:5].sum(axis=0), np.zeros(6)])
    np.testing.assert_allclose(logits, (sums @ kernel + bias)[None], rtol=1e-4)


@pytest.mark.parametrize("kind", ["feed_forward", "first", "gru", "bi_gru", "retain"])
def test_dropout_only_with_a_key(kind):
    config, params = head(kind)
    hidden, batch = states_and_batch(12)
    still = run(config, params, hidden, batch)
    np.testing.assert_array_equal(still, run(config, params, hidden, batch))
    once, again = (run(config, params, hidden, batch, key=jax.random.key(1)) for _ in range(2))
    np.testing.assert_array_equal(once, again)
    assert (once != still).any()


PACKED = ((3, 1, 4), (6,), (2, 2, 2, 2), ())
"""Codes of the patients of some rows, one of them empty."""
VISITS = (1, 2, 2, 3, 3, 3)
"""Of a patient's codes, one after the other."""


def packed_and_padded(width: int = 9):
    """The same patients and states in shared rows and in rows of their own, and where each is in the shared ones."""
    rng, slots, alone, places = np.random.default_rng(1), np.zeros((len(PACKED), width), np.int32), [], []
    visits = np.zeros_like(slots)
    hidden = rng.normal(size=(len(PACKED), width, MODEL.hidden_size)).astype(np.float32)
    own_hidden = []
    for row, lengths in enumerate(PACKED):
        ends = np.cumsum(lengths, dtype=int)
        for place, (length, end) in enumerate(zip(lengths, ends, strict=True)):
            slots[row, end - length : end] = place + 1
            visits[row, end - length : end] = VISITS[:length]
            own = np.full((width, MODEL.hidden_size), 1e3, np.float32)
            own[:length] = hidden[row, end - length : end]
            own_hidden.append(own)
            alone.append(np.arange(width) < length)
            places.append((row, place))
    numbers = np.full((len(PACKED), max(map(len, PACKED))), -1, np.int32)
    for number, place in enumerate(places):
        numbers[place] = number
    packed = {"patient_slots": slots, "patients": numbers, "visit_ids": visits}
    padded = {"patient_slots": np.array(alone, np.int32), "patients": np.arange(len(places), dtype=np.int32)[:, None]}
    padded["visit_ids"] = np.tile(np.resize(VISITS, width).astype(np.int32), (len(places), 1))
    return (hidden, packed), (np.array(own_hidden), padded), tuple(np.transpose(places))


@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.parametrize("kind", ["feed_forward", "first", "gru", "bi_gru", "retain"])
def test_a_patient_in_a_shared_row_is_as_in_one_of_his_own(kind, dropped):
    """Logits and gradients, of the parameters and of the states."""
    config, params = head(kind)
    packed, padded, places = packed_and_padded()
    key = jax.random.key(5) if dropped else None

    def of(params, hidden, batch, patients, chosen):
        logits = apply_head(params, hidden, batch, config=config, model_config=MODEL, patients=patients, key=key)
        return jnp.square(logits[chosen] - 1).sum(), logits[chosen]

    def found(layout, patients, chosen):
        gradient = jax.jit(jax.grad(partial(of, patients=patients, chosen=chosen), (0, 1), has_aux=True), **OPTIONS)
        return jax.tree.map(np.asarray, gradient(params, *layout))

    (shared, shared_hidden), shared_logits = found(packed, packed[1]["patients"].shape[1], places)
    (own, own_hidden), own_logits = found(padded, 1, (np.arange(len(places[0])), 0))
    np.testing.assert_allclose(shared_logits, own_logits, rtol=1e-5)
    assert len(np.unique(own_logits)) == len(own_logits)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), shared, own)
    slots = packed[1]["patient_slots"]
    assert (shared_hidden[slots == 0] == 0).all()
    for number, (row, place) in enumerate(zip(*places, strict=True)):
        mine = shared_hidden[row][slots[row] == place + 1]
        np.testing.assert_allclose(mine, own_hidden[number][: len(mine)], rtol=2e-5, atol=1e-6)


def test_the_gradient_by_hand_is_that_of_a_plain_loop():
    """Of every parameter of both units, against automatic differentiation of the equations, row by row."""
    config, params = head("bi_gru")
    (hidden, batch), _, places = packed_and_padded()

    def by_hand(params):
        def unit(name, codes):
            w = params[name]
            state = jnp.zeros(config.gru_hidden)
            for code in codes:
                reset, update, new = jnp.split(code @ w["input_kernel"] + w["input_bias"], 3)
                s_reset, s_update, s_new = jnp.split(state @ w["hidden_kernel"] + w["hidden_bias"], 3)
                update, reset = jax.nn.sigmoid(update + s_update), jax.nn.sigmoid(reset + s_reset)
                new = jnp.tanh(new + reset * s_new)
                state = new + update * (state - new)
            return state

        total = 0.0
        for row, place in zip(*places, strict=True):
            codes = hidden[row][batch["patient_slots"][row] == place + 1]
            state = jnp.concatenate([unit("forward", codes), unit("backward", codes[::-1])])
            total += jnp.square(state @ params["dense"]["kernel"][:, 0] + params["dense"]["bias"][0])
        return total

    def ours(params):
        rows = jax.tree.map(jnp.asarray, batch)
        logits = apply_head(params, jnp.asarray(hidden), rows, config=config, model_config=MODEL, patients=4)
        return jnp.square(logits[places]).sum()

    expected, got = (jax.jit(jax.grad(of), **OPTIONS)(params) for of in (by_hand, ours))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, expected)


@pytest.mark.parametrize("kind", ["bi_gru", "retain"])
def test_an_empty_row_and_bfloat16_give_finite_gradients(kind):
    config, params = head(kind)
    hidden, _ = states_and_batch(12)
    batch = {"patient_slots": jnp.zeros((3, 12), jnp.int32), "visit_ids": jnp.zeros((3, 12), jnp.int32)}
    total = lambda params: logits_of(config, params, hidden.astype(jnp.bfloat16), batch).sum()  # noqa: E731
    gradients = jax.jit(jax.grad(total), compiler_options=QUICK)(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_sizes_and_string_keys():
    params = jax.jit(lambda key: init_head(HeadConfig("bi_gru"), ModelConfig(), key))(jax.random.key(0))
    params = jax.tree.map(np.asarray, params)
    shapes = jax.tree.map(lambda leaf: leaf.shape, params)
    unit = {
        "input_kernel": (192, 384),
        "input_bias": (384,),
        "hidden_kernel": (128, 384),
        "hidden_bias": (384,),
    }
    assert shapes == {"forward": unit, "backward": unit, "dense": {"kernel": (256, 1), "bias": (1,)}}
    assert not (params["forward"]["input_kernel"] == params["backward"]["input_kernel"]).any()
    assert 0.085 < abs(params["forward"]["hidden_kernel"]).max() <= 128**-0.5


def test_every_fault_is_in_one_error():
    with pytest.raises(ValueError) as error:
        HeadConfig("lstm", gru_hidden=0, dropout=1.5)
    lines = str(error.value).splitlines()
    assert [line.split()[0] for line in lines] == ["head.kind", "head.gru_hidden", "head.dropout"]
    assert all(": got " in line and "; " in line for line in lines)
