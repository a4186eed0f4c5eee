import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medbert_jax.models.config import ModelConfig
from medbert_jax.models.dropout import dropout, element_places, random_words, seeds, slot_places
from medbert_jax.models.encoder import Places
from medbert_jax.training.pretraining import step_keys

SHAPE = (4, 6, 128, 128)


def attention_places() -> jax.Array:
    """Where the draws of four patients of 128 codes belong, one to a row, (B, H, L, L)."""
    batch = {
        "patient_slots": jnp.ones((4, 128), jnp.int32),
        "positions": jnp.tile(jnp.arange(128), (4, 1)),
        "patients": jnp.array([[5], [6], [7], [1_000_000]]),
    }
    config = ModelConfig(vocabulary_size=32, hidden_size=192, heads=6)
    return Places.of(slot_places(batch), batch["positions"], config).attention_BHLL


@pytest.fixture(scope="module", params=["places in the array", "places of patients"])
def dropped(request):
    """Which elements 0.1 drops, for four seeds, (4, B, H, L, L)."""
    places = attention_places() if request.param == "places of patients" else None
    run = jax.jit(lambda seed: dropout(jnp.ones(SHAPE), 0.1, seed, places))
    return np.stack([np.asarray(run(seed)) == 0 for seed in seeds(jax.random.key(7), 4)])


def seed_of(number):
    return seeds(jax.random.key(number), 1)[0]


def test_no_key_and_no_rate_change_nothing():
    x = jnp.ones((2, 3))
    assert seeds(None, 2) == [None, None]
    assert dropout(x, 0.5, None) is x
    assert dropout(x, 0.0, seed_of(0)) is x


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.01])
def test_rate_scale_and_dtype(rate):
    out = np.asarray(dropout(jnp.full((1_000, 1_000), 3.0), rate, seed_of(1)))
    assert abs((out == 0).mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / out.size)
    np.testing.assert_allclose(np.unique(out), [0, 3 / (1 - rate)], rtol=1e-6)
    assert dropout(jnp.ones(8, jnp.bfloat16), rate, seed_of(1)).dtype == jnp.bfloat16


def test_rate_in_every_slice(dropped):
    """No head, row, query or key is dropped more than its share: five standard errors of all slices' counts."""
    for axis in range(dropped.ndim):
        share = dropped.mean(axis=tuple(i for i in range(dropped.ndim) if i != axis))
        error = np.sqrt(0.09 * dropped.shape[axis] / dropped.size)
        assert abs(share - 0.1).max() < 5 * error


@pytest.mark.parametrize("axis", range(5))
@pytest.mark.parametrize("lag", [1, 2, 3])
def test_each_element_has_its_own_draw(dropped, axis, lag):
    """Neighbours along every axis, the keys' axis included, are uncorrelated."""
    a = np.take(dropped, range(lag, dropped.shape[axis]), axis=axis)
    b = np.take(dropped, range(dropped.shape[axis] - lag), axis=axis)
    assert abs((a & b).mean() - 0.01) < 5 * np.sqrt(0.01 * 0.99 / a.size)


def test_counts_per_row_are_binomial(dropped):
    """The variance of the count in 128 elements is that of independent draws."""
    counts = dropped.sum(axis=-1).ravel()
    assert abs(counts.var() / (128 * 0.1 * 0.9) - 1) < 5 * np.sqrt(2 / counts.size)


def test_hidden_elements_of_neighbouring_codes_and_patients_have_draws_of_their_own():
    slots = {
        "patient_slots": jnp.tile(jnp.repeat(jnp.arange(1, 5), 32), (8, 1)),
        "positions": jnp.tile(jnp.arange(32), (8, 4)),
        "patients": jnp.arange(32).reshape(8, 4),
    }
    config = ModelConfig(vocabulary_size=32, hidden_size=192, heads=6)
    places = Places.of(slot_places(slots), slots["positions"], config).hidden_TD
    kept = np.asarray(dropout(jnp.ones((8 * 128, 192)), 0.1, seed_of(2), places)) > 0
    out = ~kept
    assert abs(out.mean(axis=0) - 0.1).max() < 5 * np.sqrt(0.09 / 1024)
    assert abs(out.mean(axis=1) - 0.1).max() < 5 * np.sqrt(0.09 / 192)
    for a, b in ((out[1:], out[:-1]), (out[:, 1:], out[:, :-1]), (out[32:], out[:-32]), (out[128:], out[:-128])):
        assert abs((a & b).mean() - 0.01) < 5 * np.sqrt(0.01 * 0.99 / a.size)


def test_bits_are_fair_and_uncorrelated():
    words = np.asarray(random_words(seed_of(3), element_places((1 << 15,))))
    bits = ((words[:, None] >> np.arange(32, dtype=np.uint32)) & 1).astype(np.float64) * 2 - 1
    assert abs(bits.mean(axis=0)).max() < 5 / np.sqrt(len(bits))
    between = bits.T @ bits / len(bits) - np.eye(32)
    following = bits[1:].T @ bits[:-1] / len(bits)
    assert max(abs(between).max(), abs(following).max()) < 5.5 / np.sqrt(len(bits))
    # As many distinct words as draws without replacement from a bijection: the place alone decides.
    assert len(np.unique(words)) == len(words)


def test_same_seed_same_mask_other_seed_other_mask():
    x = jnp.ones((64, 64))
    once, again, other = (np.asarray(dropout(x, 0.5, seed_of(number))) for number in (1, 1, 2))
    np.testing.assert_array_equal(once, again)
    assert abs((once == other).mean() - 0.5) < 0.05


def test_gradient_is_the_mask():
    x = jnp.full((50, 50), 2.0)
    out, pull = jax.vjp(lambda x: dropout(x, 0.25, seed_of(5)), x)
    np.testing.assert_allclose(pull(jnp.ones_like(x))[0] * x, out, rtol=1e-6)


def test_the_seeds_of_a_step_are_numbers_that_stand_here():
    """On every backend, in every version of jax, and whatever it takes for a key by default."""
    expected = [[545784686, 925512919], [2792925239, 3098841106], [1105270821, 553393020]]
    for default in ("threefry2x32", "rbg"):
        with jax.default_prng_impl(default):
            masks, dropout_key = step_keys(5, jnp.int32(7))
            assert jax.random.key_data(masks).tolist() == [0, 5]
            assert np.asarray(seeds(dropout_key, 3)).tolist() == expected


def test_dropout_has_no_words_in_common_with_masks():
    """Masks fold in epoch and patient where dropout folds in a step, which may be the same number."""
    words = set()
    for number in range(20):
        masks, dropout_key = step_keys(0, jnp.int32(number))
        epoch = jax.random.fold_in(masks, number)
        patients = jax.vmap(lambda patient, key=epoch: jax.random.fold_in(key, patient))(jnp.arange(40))
        words |= {tuple(pair) for pair in np.asarray(jax.random.key_data(patients)).tolist()}
        words |= {tuple(pair) for pair in np.asarray(seeds(dropout_key, 40)).tolist()}
    assert len(words) == 20 * 80
