"""Many steps in one program: rows are gathered from a corpus, trained on, and the state handed on in a loop.

A feed is what the host sends for one dispatch of at most K steps: {"tiers": one dict per row length, "epoch": (K,),
"start": the number of the first, "count": how many of the K are to run}. A tier's dict has "patients" (K, B, P), their
numbers among those of the plan, to which randomness belongs, and "places" (K, B, P), where they are in the corpus: the
same numbers, unless the corpus is streamed.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from medbert_jax.training.corpus import Corpus

RowsOf = Callable[[Corpus[jax.Array], dict], dict]
"""(corpus, one step of a feed) → batch of the training step: `PatientSource.rows_of`."""


def make_train_dispatch(train_step: Callable, rows_of: RowsOf) -> Callable:
    """The pure function (state, corpus, feed) → (state, metrics of every step (K,)).

    Steps after `feed["count"]`, and after one whose loss or gradient is not finite, are not run; their metrics are 0,
    "finite" among them. A dispatch that was sent behind such a one finds that the state is not at its first step, and
    runs none either. So one program serves every number of steps, and K steps are bit for bit K times one.
    """

    def dispatch(state: dict, corpus: Corpus[jax.Array], feed: dict) -> tuple[dict, dict]:
        def run(state: dict, step: dict) -> tuple[dict, dict, jax.Array]:
            state, metrics = train_step(state, rows_of(corpus, step))
            return state, metrics, metrics["finite"]

        return _run_steps(run, state, feed, sound=state["step"] == feed["start"])

    return dispatch


def make_eval_dispatch(eval_step: Callable, rows_of: RowsOf) -> Callable:
    """The pure function (params, corpus, feed) → outputs of `eval_step` for each of the K steps; 0 after the count."""

    def dispatch(params: dict, corpus: Corpus[jax.Array], feed: dict) -> dict:
        def run(_, step: dict) -> tuple[None, dict, bool]:
            return None, eval_step(params, rows_of(corpus, step)), True

        return _run_steps(run, None, feed, sound=True)[1]

    return dispatch


def _run_steps(run: Callable, state: Any, feed: dict, *, sound: jax.Array | bool) -> tuple[Any, dict]:
    """The state after the steps of a feed that are to run, and what each of them put out, 0 for those that are not.

    `run`: (state, step of the feed) → state, outputs, whether the next one may run. In a scan, a step that
    is skipped would cost copies of the whole state.
    """

    def step_of(number: jax.Array | int) -> dict:
        steps = {"tiers": feed["tiers"], "epoch": feed["epoch"]}
        return jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, number, keepdims=False), steps)

    def goes_on(carry: tuple) -> jax.Array:
        number, sound, _, _ = carry
        return sound & (number < feed["count"])

    def body(carry: tuple) -> tuple:
        number, _, state, outputs = carry
        state, new, sound = run(state, step_of(number))
        outputs = jax.tree.map(
            lambda leaf, one: jax.lax.dynamic_update_index_in_dim(leaf, one, number, 0), outputs, new
        )
        return number + 1, jnp.asarray(sound), state, outputs

    # Its shapes are asked for before it is put in the loop: as a program of its own it is traced once for both.
    run = jax.jit(run)
    most = feed["epoch"].shape[0]
    shapes = jax.eval_shape(lambda state: run(state, step_of(0))[1], state)
    nothing = jax.tree.map(lambda leaf: jnp.zeros((most, *leaf.shape), leaf.dtype), shapes)
    start = jnp.zeros((), jnp.int32), jnp.asarray(sound), state, nothing
    return jax.lax.while_loop(goes_on, body, start)[2:]
