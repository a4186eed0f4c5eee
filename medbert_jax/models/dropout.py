"""Dropout whose random bits cost as little as the multiplication that uses them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, Key, UInt32

from medbert_jax.models.batch import Batch, patients_of_slots

Seed = UInt32[Array, "2"] | None
"""Of one dropout; None drops nothing."""

Seeds = UInt32[Array, "seeds 2"] | list[None]
"""Of several."""


def seeds(key: Key[Array, ""] | None, count: int) -> UInt32[Array, "{count} 2"] | list[None]:
    """One seed, two uint32 words, for each of `count` dropouts, drawn at once; as many `None` without a key.

    They are few, so that `key` may be threefry, whose words are the same on every backend.
    """
    return [None] * count if key is None else jax.random.bits(key, (count, 2), jnp.uint32)


def dropout(
    x: Float[Array, "*shape"], rate: float, seed: Seed, places: UInt32[Array, "*#shape"] | None = None
) -> Float[Array, "*shape"]:
    """`x` with each element set to 0 with probability `rate` and the others scaled by 1 / (1 - rate).

    Every element has its own draw, by its place in `x`, or by `places`, uint32 that broadcast to the shape of `x`.
    Without a seed, or at rate 0, `x` itself comes back.

    The draws are an integer hash of (seed, place of the element), not threefry: threefry and `rbg` write their bits
    to memory and take longer than the attention that they serve, whereas the hash is fused into the loop that
    needs it (a few per cent of threefry's time on CPU), and being integer arithmetic on the place alone it gives
    the same bits on every device and under every sharding.
    """
    if seed is None or rate == 0.0:
        return x
    places = element_places(x.shape) if places is None else jnp.broadcast_to(places, x.shape)
    keep = random_words(seed, places) >= jnp.uint32(round(rate * 2**32))
    return jnp.where(keep, x * jnp.asarray(1.0 / (1.0 - rate), x.dtype), jnp.zeros((), x.dtype))


def slot_places(batch: Batch) -> UInt32[Array, "B L"]:
    """A number (B, L) uint32 for every slot, by its patient and the code's place in his sequence, and nothing else.

    So what is dropped of a patient does not depend on the row that he is in, on its length, or on the device that
    holds it. Where a batch does not say who its "patients" are (B, P), they are numbered by row and slot.
    """
    slots_BL = batch["patient_slots"]
    if "patients" in batch:
        patients_BL = patients_of_slots(batch)
    else:
        patients_BL = jax.lax.broadcasted_iota(slots_BL.dtype, slots_BL.shape, 0) * 2**16 + slots_BL
    return _mix(_mix(patients_BL.astype(jnp.uint32)) + batch["positions"].astype(jnp.uint32))


def patient_places(batch: Batch, patients: int) -> UInt32[Array, "B {patients}"]:
    """A number (B, P) uint32 for every patient, as `slot_places` has one for each of his slots."""
    if "patients" in batch:
        numbers_BP = batch["patients"]
    else:
        rows = batch["patient_slots"].shape[0]
        numbers_BP = jnp.arange(rows)[:, None] * 2**16 + jnp.arange(1, patients + 1)[None]
    return _mix(_mix(numbers_BP.astype(jnp.uint32)))


def further_places(places: UInt32[Array, "..."], *numbers: Integer[Array, "..."]) -> UInt32[Array, "..."]:
    """Places within places: one more number, below 2^16, for each of the axes that `numbers` broadcast over."""
    for number in numbers:
        places = places * jnp.uint32(0x9E3779B1) + number.astype(jnp.uint32)
    return places


def element_places(shape: tuple[int, ...]) -> UInt32[Array, "..."]:
    """The number of every element of an array, uint32; numbers repeat after 2^32 elements."""
    places, stride = jnp.zeros(shape, jnp.uint32), 1
    for axis in reversed(range(len(shape))):
        places += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride % 2**32)
        stride *= shape[axis]
    return places


def random_words(seed: UInt32[Array, "2"], places: UInt32[Array, "*shape"]) -> UInt32[Array, "*shape"]:
    """Uniform uint32 words: a hash of the seed's 64 bits and of the place. For dropout only: no cryptography."""
    return _mix(_mix(places + seed[0]) ^ seed[1])


def _mix(word: UInt32[Array, "*shape"]) -> UInt32[Array, "*shape"]:
    """A bijection of 32-bit words in which every input bit turns every output bit with probability near 1/2."""
    word = (word ^ (word >> 16)) * jnp.uint32(0x7FEB352D)  # constants: C. Wellons, "lowbias32"
    word = (word ^ (word >> 15)) * jnp.uint32(0x846CA68B)
    return word ^ (word >> 16)
