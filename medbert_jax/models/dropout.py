"""Dropout whose random bits cost as little as the multiplication that uses them."""

import jax
import jax.numpy as jnp


def seeds(key: jax.Array | None, count: int) -> jax.Array | list[None]:
    """One seed, two uint32 words, for each of `count` dropouts, drawn at once; as many `None` without a key."""
    return [None] * count if key is None else jax.random.bits(key, (count, 2), jnp.uint32)


def dropout(x: jax.Array, rate: float, seed: jax.Array | None) -> jax.Array:
    """`x` with each element set to 0 with probability `rate` and the others scaled by 1 / (1 - rate).

    Every element has its own draw. Without a seed, or at rate 0, `x` itself comes back.

    The draws are an integer hash of (seed, place of the element), not threefry: threefry and `rbg` write their bits
    to memory and take longer than the attention that they serve, whereas the hash is fused into the loop that
    needs it (a few per cent of threefry's time on CPU), and being integer arithmetic on the place alone it gives
    the same bits on every device and under every sharding.
    """
    if seed is None or rate == 0.0:
        return x
    keep = random_words(seed, x.shape) >= jnp.uint32(round(rate * 2**32))
    return jnp.where(keep, x * jnp.asarray(1.0 / (1.0 - rate), x.dtype), jnp.zeros((), x.dtype))


def random_words(seed: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Uniform uint32 words of `shape`: a hash of the seed's 64 bits and of the element's place.

    For dropout only: places repeat after 2^32 elements, and the hash isn't a cryptographic one.
    """
    place, stride = jnp.zeros(shape, jnp.uint32), 1
    for axis in reversed(range(len(shape))):
        place += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride % 2**32)
        stride *= shape[axis]
    return _mix(_mix(place + seed[0]) ^ seed[1])


def _mix(word: jax.Array) -> jax.Array:
    """A bijection of 32-bit words in which every input bit turns every output bit with probability near 1/2."""
    word = (word ^ (word >> 16)) * jnp.uint32(0x7FEB352D)  # constants: C. Wellons, "lowbias32"
    word = (word ^ (word >> 15)) * jnp.uint32(0x846CA68B)
    return word ^ (word >> 16)
