"""Recurrent layers over packed rows: every code is computed once, an empty slot never.

The codes of all patients are brought into one order, time step by time step, and within a step the patients from the
longest to the shortest: those who have a code left at step t are then the first `counts[t]` of them, and their codes
are neighbours. A loop runs as many steps as the longest patient has codes, on fewer and fewer patients.

Dimensions: X directions, T places, N patients, G width of the state, H = 3 G (gates r, z, n).
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Float32, Int, Int32

from medbert_jax.models.loop_bounds import common_bound

SHRINK = 2
"""By how much the patients in the loop become fewer at a time; each stretch of it is a loop of its own."""
NARROWEST = 4
"""Patients that a step of the loop takes at least: fewer take as long."""


class GatedRecurrentUnit(nnx.Module):
    """Parameters of a GRU as PyTorch writes it (two biases), started as PyTorch's, uniform in ±1/sqrt(G)."""

    def __init__(self, inputs: int, hidden: int, *, rngs: nnx.Rngs):
        def uniform(*shape: int) -> nnx.Param:
            bound = hidden**-0.5
            return nnx.Param(jax.random.uniform(rngs.params(), shape, jnp.float32, -bound, bound))

        self.input_kernel = uniform(inputs, 3 * hidden)
        self.input_bias = uniform(3 * hidden)
        self.hidden_kernel = uniform(hidden, 3 * hidden)
        self.hidden_bias = uniform(3 * hidden)


def last_states(
    units: Sequence[GatedRecurrentUnit],
    hidden_BLD: Float32[Array, "B L D"],
    slots_BL: Int[Array, "B L"],
    patients: int,
) -> Float32[Array, "{len(units)} B {patients} G"]:
    """State of each unit after a patient's last code; the second unit reads him backwards, so after his first.

    0 for a place of the row that no patient takes. `patients` is P, the slots of a patient lie side by side.
    """
    order = time_order(slots_BL, patients, directions=len(units))
    codes_XTD = _reordered(hidden_BLD.reshape(-1, hidden_BLD.shape[-1]), order.slots_XT, order.places_XS)
    kernel_XDH, bias_XH = _stacked(units, "input")
    inputs_XTH = jnp.einsum("XTD,XDH->XTH", codes_XTD, kernel_XDH) + bias_XH[:, None, :]
    recurrent = _stacked(units, "hidden")
    states_XNG = _recur(inputs_XTH, *recurrent, order.starts_L, order.counts_L, len(order.ranks_N))
    return states_XNG[:, order.ranks_N].reshape(len(units), slots_BL.shape[0], patients, -1)


def all_states(
    units: Sequence[GatedRecurrentUnit],
    hidden_BLD: Float32[Array, "B L D"],
    slots_BL: Int[Array, "B L"],
    patients: int,
) -> Float32[Array, "{len(units)} B L G"]:
    """State of each unit after each of a patient's codes, all of them reading forward; 0 at an empty slot.

    `patients` is P, the slots of a patient lie side by side.
    """
    order = time_order(slots_BL, patients, directions=1)
    codes_TD = _reordered(hidden_BLD.reshape(-1, hidden_BLD.shape[-1]), order.slots_XT, order.places_XS)[0]
    kernel_XDH, bias_XH = _stacked(units, "input")
    inputs_XTH = jnp.einsum("TD,XDH->XTH", codes_TD, kernel_XDH) + bias_XH[:, None, :]
    recurrent = _stacked(units, "hidden")
    states_XTG = _recur_everywhere(inputs_XTH, *recurrent, order.starts_L, order.counts_L, len(order.ranks_N))
    # Back from places to slots, which is the same way in the other direction.
    units_TK = states_XTG.transpose(1, 0, 2).reshape(states_XTG.shape[1], -1)
    back_BLXG = _reordered(units_TK, order.places_XS, order.slots_XT).reshape(*slots_BL.shape, len(units), -1)
    return jnp.moveaxis(back_BLXG, 2, 0)


def _stacked(units: Sequence[GatedRecurrentUnit], of: str) -> list[Float32[Array, "X ..."]]:
    """Kernels and biases of the products "input" or "hidden"."""
    return [jnp.stack([getattr(unit, f"{of}_{name}")[...] for unit in units]) for name in ("kernel", "bias")]


class TimeOrder(NamedTuple):
    """Where every code of some rows is in the order of time steps; S = B × L slots, T = S + N places."""

    slots_XT: Int32[Array, "X T"]
    """The slot whose code is at a place; S at a place that is empty."""
    places_XS: Int32[Array, "X S"]
    """The place of a slot's code; T for an empty slot."""
    starts_L: Int32[Array, "L"]
    """The first place of every time step."""
    counts_L: Int32[Array, "L"]
    """How many patients have a code there."""
    ranks_N: Int32[Array, "N"]
    """Which one each place for a patient, B × P, is from the longest to the shortest."""


def time_order(slots_BL: Int[Array, "B L"], patients: int, directions: int) -> TimeOrder:
    """The order of the codes, the second direction's each patient from behind; N spare places at its end."""
    rows, length = slots_BL.shape
    numbers_P = jnp.arange(1, patients + 1, dtype=slots_BL.dtype)
    member_BLP = slots_BL[:, :, None] == numbers_P[None, None, :]
    lengths_N = member_BLP.sum(axis=1, dtype=jnp.int32).reshape(-1)
    first_N = jnp.argmax(member_BLP, axis=1).astype(jnp.int32).reshape(-1)
    longest_first_N = jnp.argsort(-lengths_N, stable=True)
    ranks_N = jnp.zeros_like(lengths_N).at[longest_first_N].set(jnp.arange(rows * patients, dtype=jnp.int32))
    counts_L = (lengths_N[None, :] > jnp.arange(length, dtype=jnp.int32)[:, None]).sum(axis=1, dtype=jnp.int32)
    starts_L = jnp.cumsum(counts_L) - counts_L

    whose_BL = jnp.arange(rows, dtype=jnp.int32)[:, None] * patients + jnp.maximum(slots_BL - 1, 0)
    time_BL = jnp.arange(length, dtype=jnp.int32)[None, :] - first_N[whose_BL]
    times = (time_BL, lengths_N[whose_BL] - 1 - time_BL)[:directions]
    size, spare = rows * length, rows * patients
    real_S = slots_BL.reshape(-1) > 0
    places_XS = jnp.stack(
        [jnp.where(real_S, (starts_L[time] + ranks_N[whose_BL]).reshape(-1), size + spare) for time in times]
    )
    every_S = jnp.arange(size, dtype=jnp.int32)
    nothing_T = jnp.full((size + spare,), size, jnp.int32)
    slots_XT = jnp.stack([nothing_T.at[places].set(every_S, mode="drop") for places in places_XS])
    return TimeOrder(slots_XT, places_XS, starts_L, counts_L, ranks_N)


@jax.custom_vjp
def _reordered(
    hidden_SD: Float32[Array, "S D"], slots_XT: Int32[Array, "X T"], places_XS: Int32[Array, "X S"]
) -> Float32[Array, "X T D"]:
    """The vectors of the slots at their places, 0 at empty ones; its gradient is a gather too, not a scatter."""
    return jnp.take(hidden_SD, slots_XT, axis=0, mode="fill", fill_value=0)


def _reordered_forward(hidden_SD, slots_XT, places_XS):
    return _reordered(hidden_SD, slots_XT, places_XS), places_XS


def _reordered_backward(places_XS, gradient_XTD):
    parts = [
        jnp.take(gradient_TD, places_S, axis=0, mode="fill", fill_value=0)
        for gradient_TD, places_S in zip(gradient_XTD, places_XS, strict=True)
    ]
    return sum(parts), None, None


_reordered.defvjp(_reordered_forward, _reordered_backward)


@partial(jax.custom_vjp, nondiff_argnums=(5,))
def _recur(
    inputs_XTH: Float32[Array, "X T H"],
    kernel_XGH: Float32[Array, "X G H"],
    bias_XH: Float32[Array, "X H"],
    starts_L: Int32[Array, "L"],
    counts_L: Int32[Array, "L"],
    patients: int,
) -> Float32[Array, "X N G"]:
    """The state of every patient after his last code. Differentiated by hand: loops whose length is data.

    Only what has to wait for its turn is in the loops; every product that need not wait is one for all codes.
    """
    return _recur_forward(inputs_XTH, kernel_XGH, bias_XH, starts_L, counts_L, patients)[0]


def _recur_forward(inputs_XTH, kernel_XGH, bias_XH, starts_L, counts_L, patients):
    directions, places, _ = inputs_XTH.shape
    width = kernel_XGH.shape[1]

    def step(read: int, time: Int32[Array, ""], carry: tuple) -> tuple:
        before_XTG, old_XMG = carry
        before_XTG = _written(before_XTG, old_XMG, starts_L[time])
        this_XMH = _rows(inputs_XTH, starts_L[time], read)
        products_XMH = jnp.einsum("XMG,XGH->XMH", old_XMG, kernel_XGH) + bias_XH[:, None, :]
        _, update, new = _gates(this_XMH, products_XMH)
        new_XMG = jnp.where(_present(counts_L[time], read), new + update * (old_XMG - new), old_XMG)
        return before_XTG, new_XMG

    before_XTG = jnp.zeros((directions, places, width), jnp.float32)
    state_XNG = jnp.zeros((directions, patients, width), jnp.float32)
    for read, begin, end in _stretches(counts_L, patients):
        # A loop carries the states that change in it: the others would be copied in every step.
        carry = before_XTG, state_XNG[:, :read]
        before_XTG, state_XMG = jax.lax.fori_loop(begin, end, partial(step, read), carry)
        state_XNG = state_XNG.at[:, :read].set(state_XMG)
    return state_XNG, (inputs_XTH, kernel_XGH, bias_XH, starts_L, counts_L, before_XTG)


def _recur_backward(patients, kept, gradient_XNG):
    return _backward(kept, gradient_XNG, None)


def _backward(kept: tuple, last_XNG: Float32[Array, "X N G"], every_XTG: Float32[Array, "X T G"] | None) -> tuple:
    """The gradients of `_recur`'s arrays from those of the last states, and of the state after every place if given."""
    inputs_XTH, kernel_XGH, bias_XH, starts_L, counts_L, before_XTG = kept
    products_XTH = jnp.einsum("XTG,XGH->XTH", before_XTG, kernel_XGH) + bias_XH[:, None, :]
    reset, update, new = _gates(inputs_XTH, products_XTH)
    # What a state's gradient is multiplied with on its way to each gate, before that gate's nonlinearity.
    to_new = (1 - update) * (1 - jnp.square(new))
    to_reset = to_new * products_XTH[..., 2 * new.shape[-1] :] * reset * (1 - reset)
    to_update = (before_XTG - new) * update * (1 - update)
    factors_XTH = jnp.concatenate([to_reset, to_update, to_new * reset], axis=-1)
    transposed_XHG = kernel_XGH.transpose(0, 2, 1)

    def step(read: int, end: Int32[Array, ""], number: Int32[Array, ""], carry: tuple) -> tuple:
        gradients_XTG, old_XMG = carry
        time = end - 1 - number
        here = _present(counts_L[time], read)
        if every_XTG is not None:
            old_XMG = old_XMG + jnp.where(here, _rows(every_XTG, starts_L[time], read), 0)
        # The places behind are those of the step after, whose gradients are there already.
        behind_XMG = _rows(gradients_XTG, starts_L[time], read)
        gradients_XTG = _written(gradients_XTG, jnp.where(here, old_XMG, behind_XMG), starts_L[time])
        gates_XMH = jnp.tile(old_XMG, 3) * _rows(factors_XTH, starts_L[time], read)
        kept_XMG = old_XMG * _rows(update, starts_L[time], read)
        before_XMG = kept_XMG + jnp.einsum("XMH,XHG->XMG", gates_XMH, transposed_XHG)
        return gradients_XTG, jnp.where(here, before_XMG, old_XMG)

    gradients_XTG, state_XNG = jnp.zeros_like(before_XTG), last_XNG
    for read, begin, end in reversed(_stretches(counts_L, last_XNG.shape[1])):
        carry = gradients_XTG, state_XNG[:, :read]
        gradients_XTG, state_XMG = jax.lax.fori_loop(0, end - begin, partial(step, read, end), carry)
        state_XNG = state_XNG.at[:, :read].set(state_XMG)
    gates_XTH = jnp.tile(gradients_XTG, 3) * factors_XTH
    inputs_gradient_XTH = gradients_XTG[:, :, None, :] * jnp.stack([to_reset, to_update, to_new], axis=2)
    kernel_gradient_XGH = jnp.einsum("XTG,XTH->XGH", before_XTG, gates_XTH)
    bias_gradient_XH = jnp.einsum("T,XTH->XH", jnp.ones(gates_XTH.shape[1]), gates_XTH)
    return inputs_gradient_XTH.reshape(gates_XTH.shape), kernel_gradient_XGH, bias_gradient_XH, None, None


_recur.defvjp(_recur_forward, _recur_backward)


@partial(jax.custom_vjp, nondiff_argnums=(5,))
def _recur_everywhere(
    inputs_XTH: Float32[Array, "X T H"],
    kernel_XGH: Float32[Array, "X G H"],
    bias_XH: Float32[Array, "X H"],
    starts_L: Int32[Array, "L"],
    counts_L: Int32[Array, "L"],
    patients: int,
) -> Float32[Array, "X T G"]:
    """The state after every place; one at a place without a code is finite and means nothing."""
    return _everywhere_forward(inputs_XTH, kernel_XGH, bias_XH, starts_L, counts_L, patients)[0]


def _everywhere_forward(inputs_XTH, kernel_XGH, bias_XH, starts_L, counts_L, patients):
    _, kept = _recur_forward(inputs_XTH, kernel_XGH, bias_XH, starts_L, counts_L, patients)
    before_XTG = kept[-1]
    products_XTH = jnp.einsum("XTG,XGH->XTH", before_XTG, kernel_XGH) + bias_XH[:, None, :]
    _, update, new = _gates(inputs_XTH, products_XTH)
    return new + update * (before_XTG - new), kept


def _everywhere_backward(patients, kept, gradient_XTG):
    directions, _, width = gradient_XTG.shape
    return _backward(kept, jnp.zeros((directions, patients, width), jnp.float32), gradient_XTG)


_recur_everywhere.defvjp(_everywhere_forward, _everywhere_backward)


def _gates(inputs: Float32[Array, "X M H"], products: Float32[Array, "X M H"]) -> tuple[Float32[Array, "X M G"], ...]:
    """Reset gate, update gate and new state of codes, from the products of their inputs and of the states before."""
    reset, update, new = jnp.split(inputs, 3, axis=-1)
    state_reset, state_update, state_new = jnp.split(products, 3, axis=-1)
    reset = jax.nn.sigmoid(reset + state_reset)
    return reset, jax.nn.sigmoid(update + state_update), jnp.tanh(new + reset * state_new)


def _stretches(counts_L: Int32[Array, "L"], patients: int) -> list[tuple[int, Array, Array]]:
    """(patients in the loop, its first time step, the one after its last), from many patients to few."""
    counts_L = common_bound(counts_L)
    widths = [patients]
    while widths[-1] > NARROWEST:
        widths.append(-(-widths[-1] // SHRINK))
    ends = [jnp.sum(counts_L > fewer, dtype=jnp.int32) for fewer in (*widths[1:], 0)]
    begins = [jnp.zeros((), jnp.int32), *ends[:-1]]
    return list(zip(widths, begins, ends, strict=True))


def _present(count: Int32[Array, ""], read: int) -> Bool[Array, "1 M 1"]:
    return (jnp.arange(read, dtype=jnp.int32) < count)[None, :, None]


def _rows(array_XTK: Float[Array, "X T K"], start: Int32[Array, ""], count: int) -> Float[Array, "X M K"]:
    return jax.lax.dynamic_slice_in_dim(array_XTK, start, count, axis=1)


def _written(
    array_XTK: Float[Array, "X T K"], rows_XMK: Float[Array, "X M K"], start: Int32[Array, ""]
) -> Float[Array, "X T K"]:
    return jax.lax.dynamic_update_slice_in_dim(array_XTK, rows_XMK, start, axis=1)
