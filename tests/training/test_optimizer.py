"""BERT's AdamW against a trajectory computed in numpy, and its schedule against numbers worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from medbert_jax.training.optimizer import (
    OptimizerConfig,
    clip_by_global_norm,
    decay_mask,
    learning_rate,
    make_optimizer,
)

CONFIG = OptimizerConfig(learning_rate=1e-2, warmup_steps=4)
TOTAL = 20


def start() -> dict:
    rng = np.random.default_rng(0)
    return {
        "dense": {"kernel": rng.normal(size=(3, 4)), "bias": rng.normal(size=4)},
        "attention_layer_norm": {"scale": rng.normal(size=4), "bias": rng.normal(size=4)},
        "code_table": rng.normal(size=(5, 4)),
    }


def gradients(step: int) -> dict:
    rng = np.random.default_rng(100 + step)
    return {
        "dense": {"kernel": rng.normal(size=(3, 4)), "bias": rng.normal(size=4)},
        "attention_layer_norm": {"scale": rng.normal(size=4), "bias": rng.normal(size=4)},
        "code_table": rng.normal(size=(5, 4)) * (3.0 if step % 2 else 0.01),  # clipped and not clipped
    }


def leaves(tree: dict, prefix: str = ""):
    for name, value in tree.items():
        yield from leaves(value, f"{prefix}{name}/") if isinstance(value, dict) else [(prefix + name, value)]


def numpy_trajectory(*, bias_correction: bool, decay_everywhere: bool = False) -> dict[str, np.ndarray]:
    """google-research/bert, optimization.py, written down a second time in float64."""
    params = dict(leaves(start()))
    m = {name: np.zeros_like(value) for name, value in params.items()}
    v = {name: np.zeros_like(value) for name, value in params.items()}
    for step in range(TOTAL):
        grads = dict(leaves(gradients(step)))
        norm = np.sqrt(sum((g**2).sum() for g in grads.values()))
        rate = 1e-2 * step / 4 if step < 4 else 1e-2 * (1 - step / TOTAL)
        for name, g in grads.items():
            g = g / max(1.0, norm / 1.0)
            m[name] = 0.9 * m[name] + 0.1 * g
            v[name] = 0.999 * v[name] + 0.001 * g**2
            first = 1 - 0.9 ** (step + 1) if bias_correction else 1
            second = 1 - 0.999 ** (step + 1) if bias_correction else 1
            update = (m[name] / first) / (np.sqrt(v[name] / second) + 1e-6)
            if decay_everywhere or not ("layer_norm" in name or name.endswith("bias")):
                update = update + 0.01 * params[name]
            params[name] = params[name] - rate * update
    return params


def optax_trajectory(config: OptimizerConfig) -> dict[str, np.ndarray]:
    optimizer = make_optimizer(config, TOTAL)
    params = jax.tree.map(jnp.float32, start())
    state = optimizer.init(params)
    for step in range(TOTAL):
        updates, state = optimizer.update(jax.tree.map(jnp.float32, gradients(step)), state, params)
        params = optax.apply_updates(params, updates)
    return {name: np.asarray(value) for name, value in leaves(params)}


@pytest.mark.parametrize("bias_correction", [False, True])
def test_twenty_steps_equal_the_trajectory_computed_in_numpy(bias_correction):
    config = OptimizerConfig(learning_rate=1e-2, warmup_steps=4, bias_correction=bias_correction)
    ours = optax_trajectory(config)
    for name, value in numpy_trajectory(bias_correction=bias_correction).items():
        np.testing.assert_allclose(ours[name], value, rtol=2e-5, atol=2e-6, err_msg=name)


def test_the_trajectory_tells_other_optimizers_apart():
    ours = optax_trajectory(CONFIG)
    for fault in ({"bias_correction": True}, {"bias_correction": False, "decay_everywhere": True}):
        other = numpy_trajectory(**fault)
        assert max(np.abs(ours[name] - other[name]).max() for name in ours) > 1e-4


@pytest.mark.parametrize("share", [0.5, 1.0, 2.0])
def test_the_limit_goes_with_the_patients_of_the_step(share):
    grads = {"kernel": jnp.full((3, 4), 2.0), "bias": jnp.zeros(4)}
    clip = clip_by_global_norm(1.0)
    clipped, _ = clip.update(grads, clip.init(grads), share=share)
    np.testing.assert_allclose(optax.tree.norm(clipped), share, rtol=1e-6)
    small = {"kernel": jnp.full((3, 4), 0.1 * share), "bias": jnp.zeros(4)}
    for name, value in leaves(clip.update(small, clip.init(small), share=share)[0]):
        np.testing.assert_array_equal(value, small[name])


def test_what_is_not_sound_changes_no_state():
    optimizer, params = make_optimizer(CONFIG, TOTAL), jax.tree.map(jnp.float32, start())
    state = optimizer.update(jax.tree.map(jnp.float32, gradients(0)), optimizer.init(params), params)[1]
    bad = jax.tree.map(lambda g: jnp.full(g.shape, jnp.nan), params)
    _, after = optimizer.update(bad, state, params, sound=jnp.asarray(False))
    for one, two in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(one, two)
    _, moved = optimizer.update(bad, state, params, sound=jnp.asarray(True))
    assert not all(np.array_equal(one, two) for one, two in zip(*map(jax.tree.leaves, (state, moved)), strict=True))


def test_decay_spares_layer_norms_and_biases():
    assert dict(leaves(decay_mask(start()))) == {
        "dense/kernel": True,
        "dense/bias": False,
        "attention_layer_norm/scale": False,
        "attention_layer_norm/bias": False,
        "code_table": True,
    }


@pytest.mark.parametrize(
    ("schedule", "expected"),
    # Warm-up of 10 steps out of 100, peak 1. BERT's decay counts from step 0, so the rate jumps down to 0.9.
    [
        ("bert", [0, 0.5, 0.9, 0.5, 0.01]),
        ("huggingface", [0, 0.5, 1.0, 50 / 90, 1 / 90]),
        ("constant", [0, 0.5, 1, 1, 1]),
    ],
)
def test_schedules_at_steps_0_5_10_50_99(schedule, expected):
    rate = learning_rate(OptimizerConfig(learning_rate=1.0, warmup_steps=10, schedule=schedule), 100)
    np.testing.assert_allclose([rate(step) for step in (0, 5, 10, 50, 99)], expected, rtol=1e-6)


def test_a_warm_up_longer_than_the_run_is_refused():
    with pytest.raises(ValueError, match="warmup_steps must not exceed the total steps: got 10000 and 20; lower"):
        make_optimizer(OptimizerConfig(), 20)
