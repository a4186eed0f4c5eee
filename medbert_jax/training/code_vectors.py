"""t-W2V: vectors of codes by skip-gram with a window of days (Mikolov et al. 2013; Xiang et al. 2019).

Context of a code are its patient's other codes within 30 days, same visit included. Everything is products of blocks of
consecutive codes: all pairs of a block at once, the negatives drawn once for a step. In expectation that is the
objective of word2vec, each pair once per pass with its `negatives` codes drawn by their count to the power of 0.75.
Dimension, negatives and passes were not published; ours are the defaults of `CodeVectorsConfig`.

Dimensions: S steps, R blocks of a step, T codes of a block, K negatives of a step, D elements, V vocabulary.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int

from medbert_jax.data.sequences import PatientSequences
from medbert_jax.training.code_vectors_options import CodeVectorsConfig
from medbert_jax.training.windowed_pairs import WindowedPairs

POWER = 0.75
"""Of the counts by which negatives are drawn."""
STEP_CODES = 1024
"""Codes of a step: R blocks of T. Larger steps learn less from each pass, and are no faster."""
NEGATIVES = 64
"""K: shared by all codes of a step, each of which weighs as the share of `negatives` that it stands for."""
DISPATCH = 32
"""Steps of one program."""
TINY = 1e-12
"""Added to a sum of squares, which is 0 where a row has had no gradient."""


@dataclass(frozen=True, eq=False)
class Trained:
    """Vectors, and how they came about."""

    vectors: np.ndarray
    """(V, D) float32; those of ids that no patient has are 0."""
    counts: np.ndarray
    """(V,) int64: how often the patients have an id."""
    pairs: int
    """Pairs of a pass."""
    left_out: int
    """Pairs of the window that are further apart in the record than a block takes."""
    losses: tuple[float, ...]
    """Of each pass: mean over its pairs, in nats, negatives included."""
    pairs_per_second: float
    """Of all passes but the first, which compiles; of the first where it is alone."""


def train_code_vectors(
    sequences: PatientSequences,
    vocabulary_size: int,
    config: CodeVectorsConfig,
    tell: Callable[[str], object] = lambda line: None,
) -> Trained:
    """Vectors of the codes of these patients, on one device. ValueError where no two codes are a pair."""
    pairs = WindowedPairs.of(sequences, config.window_days)
    counts = np.bincount(pairs.code_ids, minlength=vocabulary_size)
    shares = np.cumsum(counts**POWER)
    cumulative = jnp.asarray(shares / shares[-1], jnp.float32)
    state = _fresh(vocabulary_size, config)
    random, rows = np.random.default_rng(config.seed), max(1, STEP_CODES // pairs.block)
    losses, rates = [], []
    for epoch in range(config.epochs):
        began, total, seen = time.monotonic(), 0.0, 0.0
        starts = pairs.starts(random)
        # Blocks that begin after all codes are empty: a step of them changes nothing.
        room = -(-len(starts) // (rows * DISPATCH)) * rows * DISPATCH
        starts = np.pad(starts, (0, room - len(starts)), constant_values=len(pairs.code_ids))
        for part in starts.reshape(-1, DISPATCH, rows):
            settings = {"negatives": config.negatives, "learning_rate": config.learning_rate}
            state, (loss, weight) = _dispatch(state, *pairs.cut(part), cumulative, **settings)
            total, seen = total + loss, seen + weight
        losses.append(float(total) / float(seen))  # waits for the device
        rates.append(pairs.pairs / (time.monotonic() - began))
        tell(
            f"pass {epoch + 1} of {config.epochs}: loss {losses[-1]:.4f} a pair, {rates[-1] / 1e6:.2f} million pairs/s"
        )
    vectors = np.where(counts[:, None] > 0, np.asarray(state["params"]["codes"]), 0)
    rate = float(np.mean(rates[1:] or rates))
    return Trained(vectors, counts, pairs.pairs, pairs.left_out, tuple(losses), rate)


def _fresh(vocabulary_size: int, config: CodeVectorsConfig) -> dict:
    """As word2vec begins: codes uniform in ±1/(2 D), contexts 0."""
    draw, key = jax.random.split(jax.random.key(config.seed))
    shape, bound = (vocabulary_size, config.size), 0.5 / config.size
    params = {
        "codes": jax.random.uniform(draw, shape, jnp.float32, -bound, bound),
        "contexts": jnp.zeros(shape, jnp.float32),
    }
    squares = {name: jnp.zeros(vocabulary_size, jnp.float32) for name in params}
    return {"params": params, "squares": squares, "key": key}


@partial(jax.jit, static_argnames=("negatives", "learning_rate"), donate_argnums=0)
def _dispatch(
    state: dict,
    ids_SRT: Int[Array, "S R T"],
    back_SRT: Int[Array, "S R T"],
    cumulative_V: Float32[Array, "V"],
    *,
    negatives: int,
    learning_rate: float,
) -> tuple[dict, tuple[Float32[Array, ""], Float32[Array, ""]]]:
    """The state after so many steps; the sum of the loss over their pairs, and of the pairs' weights."""

    def step(state: dict, blocks: tuple) -> tuple[dict, tuple]:
        ids_RT, back_RT = blocks
        key, draw = jax.random.split(state["key"])
        drawn_K = jnp.searchsorted(cumulative_V, jax.random.uniform(draw, (NEGATIVES,)), side="right")
        drawn_K = jnp.minimum(drawn_K, len(cumulative_V) - 1)
        weight_RTT = pair_weights(back_RT)
        codes, contexts = state["params"]["codes"], state["params"]["contexts"]
        rows = codes[ids_RT], contexts[ids_RT], contexts[drawn_K]
        value, grads = jax.value_and_grad(block_loss, (0, 1, 2))(*rows, weight_RTT, negatives)
        of_codes, of_contexts, of_drawn = (gradient.reshape(-1, gradient.shape[-1]) for gradient in grads)
        ids_N = ids_RT.reshape(-1)
        moved = {
            "codes": (ids_N, of_codes),
            "contexts": (jnp.concatenate([ids_N, drawn_K]), jnp.concatenate([of_contexts, of_drawn])),
        }
        params, squares = {}, {}
        for name, (ids, gradient) in moved.items():
            of = state["params"][name], state["squares"][name]
            params[name], squares[name] = _adagrad(*of, ids, gradient, learning_rate)
        return {"params": params, "squares": squares, "key": key}, (value, jnp.sum(weight_RTT))

    state, (losses, weights) = jax.lax.scan(step, state, (ids_SRT, back_SRT))
    return state, (losses.sum(), weights.sum())


def pair_weights(back_RT: Int[Array, "R T"]) -> Float32[Array, "R T T"]:
    """How much the pair (code, context) of each two places of a block weighs: 0 for what is no pair.

    Else the inverse of the probability that a block holds both: T / (T − distance).
    """
    length = back_RT.shape[1]
    places_T = jnp.arange(length)
    distance_TT = places_T[:, None] - places_T[None, :]
    later_RTT = (distance_TT > 0)[None] & (distance_TT[None] <= back_RT[:, :, None])
    pair_RTT = later_RTT | later_RTT.swapaxes(1, 2)
    return jnp.where(pair_RTT, (length / (length - jnp.abs(distance_TT)))[None], 0.0)


def block_loss(
    codes_RTD: Float32[Array, "R T D"],
    contexts_RTD: Float32[Array, "R T D"],
    drawn_KD: Float32[Array, "K D"],
    weight_RTT: Float32[Array, "R T T"],
    negatives: int,
) -> Float32[Array, ""]:
    """Σ weight · (−log σ(code · context) − negatives · mean over the drawn of log σ(−code · drawn))."""
    together_RTT = jnp.einsum("RAD,RBD->RAB", codes_RTD, contexts_RTD)
    against_RTK = jnp.einsum("RAD,KD->RAK", codes_RTD, drawn_KD)
    share_RT = weight_RTT.sum(axis=2) * (negatives / len(drawn_KD))
    of_pairs = jnp.sum(weight_RTT * jax.nn.softplus(-together_RTT))
    return of_pairs + jnp.sum(share_RT * jax.nn.softplus(against_RTK).sum(axis=2))


def _adagrad(
    table_VD: Float32[Array, "V D"],
    squares_V: Float32[Array, "V"],
    ids_N: Int[Array, "N"],
    gradient_ND: Float32[Array, "N D"],
    learning_rate: float,
) -> tuple[Float32[Array, "V D"], Float32[Array, "V"]]:
    """The table and its sums of squares after the gradients of some of its rows, an id as often as it comes.

    Only these rows are read and written: most of a large vocabulary has no part in a step.
    """
    squares_V = squares_V.at[ids_N].add(jnp.square(gradient_ND).mean(axis=1))
    scale_N = learning_rate * jax.lax.rsqrt(squares_V[ids_N] + TINY)
    return table_VD.at[ids_N].add(-scale_N[:, None] * gradient_ND), squares_V
