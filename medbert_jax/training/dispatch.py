"""Many steps in one program: rows are gathered from a corpus, trained on, and the state handed on by scan.

A feed is what the host sends for one dispatch of at most K steps: {"tiers": one dict per row length, "epoch": (K,),
"start": the number of the first, "count": how many of the K are to run}. A tier's dict has "patients" (K, B, P), their
numbers among those of the plan, to which randomness belongs, and "places" (K, B, P), where they are in the corpus: the
same numbers, unless the corpus is streamed.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from medbert_jax.training.corpus import Corpus

RowsOf = Callable[[Corpus[jax.Array], dict], dict]
"""(corpus, one step of a feed) → batch of the training step: `PatientSource.rows_of`."""


def make_train_dispatch(train_step: Callable, rows_of: RowsOf) -> Callable:
    """The pure function (state, corpus, feed) → (state, metrics of every step (K,)).

    Steps after `feed["count"]`, and after one whose loss or gradient is not finite, change nothing; their metrics are
    0, "finite" among them. A dispatch that was sent behind such a one finds that the state is not at its first step,
    and changes nothing either. So one program serves every number of steps, and K steps are bit for bit K times one.
    """

    def dispatch(state: dict, corpus: Corpus[jax.Array], feed: dict) -> tuple[dict, dict]:
        def run(state: dict, step: dict) -> tuple[dict, dict]:
            return train_step(state, rows_of(corpus, step))

        def body(carry: tuple[dict, jax.Array], this: tuple[jax.Array, dict]):
            (state, sound), (number, step) = carry, this
            wanted = sound & (number < feed["count"])
            state, metrics = _run_if(wanted, run, state, step)
            return (state, sound & (metrics["finite"] | ~wanted)), metrics

        sound = state["step"] == feed["start"]
        (state, _), metrics = jax.lax.scan(body, (state, sound), _numbered(feed))
        return state, metrics

    return dispatch


def make_eval_dispatch(eval_step: Callable, rows_of: RowsOf) -> Callable:
    """The pure function (params, corpus, feed) → outputs of `eval_step` for each of the K steps; 0 after the count."""

    def dispatch(params: dict, corpus: Corpus[jax.Array], feed: dict) -> dict:
        def run(_, step: dict) -> tuple[None, dict]:
            return None, eval_step(params, rows_of(corpus, step))

        return jax.lax.map(lambda this: _run_if(this[0] < feed["count"], run, None, this[1])[1], _numbered(feed))

    return dispatch


def _numbered(feed: dict) -> tuple[jax.Array, dict]:
    """The steps of a feed, and their numbers from 0."""
    return jnp.arange(feed["epoch"].shape[0], dtype=jnp.int32), {"tiers": feed["tiers"], "epoch": feed["epoch"]}


def _run_if(wanted: jax.Array, run: Callable, state: dict | None, step: dict) -> tuple:
    """What `run` makes of them where it is wanted; else the same state, and zeros for outputs."""
    shapes = jax.eval_shape(run, state, step)[1]

    def skip(state: dict | None, step: dict) -> tuple:
        return state, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    return jax.lax.cond(wanted, run, skip, state, step)
