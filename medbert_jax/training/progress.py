"""What a run says while it works: an opening line, then rate, time left and metrics, for people and as JSON lines."""

import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh

from medbert_jax import __version__
from medbert_jax.disk.stored_json import parse_object

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
DROPOUT = "threefry2x32"
"""Whose words are the seeds of dropout (`training.pretraining.step_keys`)."""


def announce(what: str, config, mesh: Mesh | AbstractMesh) -> None:
    """Print devices, versions and the full configuration."""
    devices = jax.devices()
    kind = f"{len(devices)} × {devices[0].device_kind} ({devices[0].platform})"
    packages = ", ".join(f"{name} {number}" for name, number in versions().items())
    say(f"{what} on {kind}, mesh {dict(mesh.shape)}; {packages}")
    say(str(config))


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on, and where dropout has its seeds from."""
    return {"medbert_jax": __version__, **{name: version(name) for name in PACKAGES}, "dropout": DROPOUT}


def versions_of(progress: Mapping) -> dict[str, str]:
    """The `versions` that a step was saved with, from its progress; steps before there were any had dropout by rbg."""
    if "versions" not in progress:
        return {"dropout": "rbg"}
    return {"dropout": DROPOUT, **progress["versions"]}


def metrics_row(line: bytes) -> dict | None:
    """The record that is a line of metrics; None where it is not as one is written."""
    try:
        row = parse_object(line)
    except ValueError:
        return None
    is_record = isinstance(row.get("kind"), str) and type(row.get("step")) is int
    return row if is_record else None


def say(line: str) -> None:
    """One plain line to standard error, by the first of several processes."""
    if jax.process_index() == 0:
        print(line, file=sys.stderr, flush=True)


class Board(Protocol):
    """Where records go besides."""

    def record(self, step: int, metrics: Mapping[str, float], kind: str) -> None:
        """Take the finite metrics after `step` steps."""


class Progress:
    """Progress of a loop of `total` steps that begins at `start`; every record becomes a JSON line at `path`."""

    def __init__(self, path: Path, *, total: int, start: int, board: Board | None = None):
        self._path, self._total, self._board = path, total, board
        lines = path.read_bytes().split(b"\n") if path.exists() else []
        # Up to the start: later rows are being removed by the first of several processes.
        rows = (row for row in map(metrics_row, lines) if row and row["step"] <= start)
        self._recorded = {(row["kind"], row["step"]) for row in rows}
        self._first: tuple[int, float] | None = None
        self._step, self._time = start, time.monotonic()
        self._patients, self._rate, self._left = 0.0, 0.0, math.nan

    def due(self, step: int, every: int) -> bool:
        """Whether what is done every so many steps, and at the end, is to be done after `step` steps."""
        return step > 0 and (step % every == 0 or step == self._total)

    def recorded(self, step: int, *, kind: str) -> bool:
        """Whether there is a record of this kind and step: at the start, or since."""
        return (kind, step) in self._recorded

    def fetched(self, step: int, patients: float) -> None:
        """The metrics of a whole dispatch have come back: it ended after `step` steps, and trained on so many patients.

        Rate and time left are of whole dispatches, since a part of one has no time of its own; the rate is of all that
        came back since it was told last, or since a validation.
        """
        now = time.monotonic()
        self._patients += patients
        self._rate = self._patients / max(now - self._time, 1e-9)
        # The first dispatch holds the compilation and says nothing about the rest.
        self._first = self._first or (step, now)
        if step > self._first[0]:
            self._left = (self._total - step) * (now - self._first[1]) / (step - self._first[0])

    def record(self, step: int, metrics: Mapping[str, float], *, kind: str) -> None:
        """Say and log the metrics after `step` steps; the rate too, where dispatches were `fetched`."""
        self._recorded.add((kind, step))
        row = {"step": step, **metrics}
        parts = [f"{kind:>10} {step:>7,}/{self._total:,}"]
        parts += [f"{name.replace('_', ' ')} {_shown(value)}" for name, value in metrics.items()]
        if kind == "train" and self._rate:
            row["patients_per_second"] = self._rate
            parts.append(f"{self._rate:,.0f} patients/s")
        if math.isfinite(self._left):
            parts.append(f"{self._left / 60:.1f} min left")
        self._time, self._patients = time.monotonic(), 0.0
        finite = {name: value if math.isfinite(value) else None for name, value in row.items()}
        if jax.process_index():
            return
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, **finite}) + "\n")
        if self._board:
            told = {name: value for name, value in row.items() if name != "step" and math.isfinite(value)}
            self._board.record(step, told, kind)
        say(" | ".join(parts))


def _shown(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "unknown"


class MetricsLog:
    """Hands the metrics of steps on in windows, which end at every multiple of an edge and at the end.

    Where windows end does not depend on how many steps a dispatch has.
    """

    def __init__(
        self,
        progress: Progress,
        summarize: Callable[[dict], tuple[dict, float]],
        *,
        edges: tuple[int, ...],
        window: Sequence[dict] = (),
    ):
        self._progress, self._summarize, self._edges = progress, summarize, edges
        self.window = list(window)
        """Metrics of the steps since the last window ended, JSON data: a run that goes on begins with them."""

    def add(self, step: int, metrics: dict) -> None:
        """Metrics (count,) of the last `count` of `step` steps."""
        first = step - len(metrics["loss"])
        self._progress.fetched(step, self._summarize(metrics)[1])
        for place in range(step - first):
            self.window.append({name: values[place].item() for name, values in metrics.items()})
            after = first + place + 1
            if any(self._progress.due(after, edge) for edge in self._edges):
                window, self.window = self.window, []
                means, _ = self._summarize({name: np.array([one[name] for one in window]) for name in window[0]})
                self._progress.record(after, means, kind="train")
