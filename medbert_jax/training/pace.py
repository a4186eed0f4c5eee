"""How many steps a dispatch has, and what becomes of the metrics that it brings back."""

import time
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils

from medbert_jax.training.corpus import CorpusConfig
from medbert_jax.training.not_finite import check_finite
from medbert_jax.training.progress import Progress


class Pace:
    """Chooses the steps of the next dispatch: as many as take about `dispatch_seconds`, up to the next edge.

    Several processes agree once, on what the first of them measured first.
    """

    def __init__(self, edges: tuple[int, ...], config: CorpusConfig, *, total: int):
        self._most, self._seconds = config.steps_per_dispatch, config.dispatch_seconds
        self._edges, self._total = edges, total
        self._wanted, self._settled = 1, False
        self._since, self._dispatches = 0.0, 0

    def count(self, step: int) -> int:
        """Steps of the dispatch that begins after `step` steps; it ends at a multiple of an edge, or before."""
        return min(self._wanted, self._total - step, *(edge - step % edge for edge in self._edges))

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


class MetricsLog:
    """Fetches the metrics of a dispatch after the next one was sent, and hands them on in windows of steps.

    A window ends at every multiple of an edge and at the end, wherever dispatches begin and end.
    """

    def __init__(
        self,
        progress: Progress,
        summarize: Callable[[dict], tuple[dict, float]],
        *,
        edges: tuple[int, ...],
        total: int,
        pace: Pace,
        window: Sequence[dict] = (),
    ):
        self._progress, self._summarize = progress, summarize
        self._edges, self._total, self._pace = edges, total, pace
        self._sent: list[tuple[int, int, dict]] = []
        self.window = list(window)
        """Metrics of the steps fetched since the last window ended, JSON data: a run that goes on begins with them."""

    def sent(self, step: int, count: int, metrics: dict) -> None:
        """Metrics (K,) of the `count` steps after `step` are under way; fetches those of the dispatch before.

        Raises NotFinite for a step whose loss or gradient is not.
        """
        self._sent.append((step, count, metrics))
        if len(self._sent) > 1:
            self._fetch()
        else:
            self._pace.sent_alone()

    def fetch_all(self) -> None:
        """Wait for everything that was sent. Raises as `sent` does."""
        while self._sent:
            self._fetch()

    def _fetch(self) -> None:
        step, count, metrics = self._sent.pop(0)
        metrics = {name: np.asarray(values)[:count] for name, values in metrics.items()}
        self._pace.fetched(count)
        check_finite(step + 1, metrics)
        for place in range(count):
            self.window.append({name: values[place].item() for name, values in metrics.items()})
            after = step + place + 1
            if after == self._total or any(after % edge == 0 for edge in self._edges):
                window, self.window = self.window, []
                means, patients = self._summarize({name: np.array([one[name] for one in window]) for name in window[0]})
                self._progress.record(after, means, kind="train", patients=patients)
