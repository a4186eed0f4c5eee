"""Dispatches one after the other: how many steps each has, and the next one sent before the last one is waited for."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from medbert_jax.training.corpus import Corpus, CorpusConfig
from medbert_jax.training.interruption import Interruption
from medbert_jax.training.patient_source import PatientSource


class Pace:
    """Chooses the steps of the next dispatch: as many as take about `dispatch_seconds`, up to the next edge.

    Several processes agree once, on what the first of them measured first.
    """

    def __init__(self, edges: tuple[int, ...], config: CorpusConfig, *, total: int):
        self._most, self._seconds = config.steps_per_dispatch, config.dispatch_seconds
        self._edges, self.total = edges, total
        self._wanted, self._settled = 1, False
        self._since, self._dispatches = 0.0, 0

    def count(self, step: int) -> int:
        """Steps of the dispatch that begins after `step` steps; it ends at a multiple of an edge, or before."""
        return min(self._wanted, self.total - step, *(edge - step % edge for edge in self._edges))

    def at_edge(self, step: int) -> bool:
        """Whether `step` steps are a multiple of an edge, or all."""
        return step == self.total or any(step % edge == 0 for edge in self._edges)

    def sent_alone(self) -> None:
        """A dispatch was sent while no other was under way: it begins now."""
        self._since = time.monotonic()

    def fetched(self, count: int) -> None:
        """A dispatch of `count` steps has ended, and the next one, if it was sent, has begun."""
        now = time.monotonic()
        self._dispatches += 1
        if self._dispatches > 2:  # the first ones compile
            self.observe(count, now - self._since)
        self._since = now

    def observe(self, count: int, seconds: float) -> None:
        """A dispatch of `count` steps took so long."""
        if self._settled:
            return
        if jax.process_count() > 1:
            seconds = float(multihost_utils.broadcast_one_to_all(np.float32(seconds)))
            self._settled = True
        self._wanted = int(np.clip(self._seconds * count / max(seconds, 1e-6), 1, self._most))


def dispatched(
    dispatch: Callable[[Any, Corpus[jax.Array], dict], tuple[Any, dict]],
    state: Any,
    source: PatientSource,
    pace: Pace,
    *,
    start: int = 0,
    interruption: Interruption | None = None,
) -> Iterator[tuple[int, Any, dict]]:
    """(steps done, state, outputs) of every dispatch from step `start` to the pace's end, in order.

    `outputs` are numpy arrays (count, …) of the steps of this dispatch. They are fetched after the next dispatch was
    sent, so that the devices never wait, but not at an edge of the pace, at the end and where the interruption, asked
    after every dispatch, says stop: there `state` is what those steps led to. Elsewhere it is one dispatch further,
    and is given away with the one after that.
    """
    step, under_way = start, None
    while step < pace.total and not (interruption and interruption.stopping):
        count = pace.count(step)
        state, outputs = dispatch(state, *source.feed(step, count))
        if under_way:
            yield _fetched(under_way, state, pace)
        else:
            pace.sent_alone()
        step += count
        under_way = step, count, outputs
        if step < pace.total:
            source.prepare(step, pace.count(step))
        if (interruption and interruption.asked()) or pace.at_edge(step):
            yield _fetched(under_way, state, pace)
            under_way = None


def _fetched(under_way: tuple[int, int, dict], state: Any, pace: Pace) -> tuple[int, Any, dict]:
    step, count, outputs = under_way
    outputs = jax.tree.map(lambda values: np.asarray(values)[:count], jax.device_get(outputs))
    pace.fetched(count)
    return step, state, outputs
