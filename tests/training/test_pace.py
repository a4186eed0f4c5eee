"""How many steps a dispatch has, and what becomes of its metrics: windows of steps, whatever the dispatches were."""

import json
from itertools import accumulate
from types import SimpleNamespace

import numpy as np
import pytest

from medbert_jax.training import pace as pace_module
from medbert_jax.training.corpus import CorpusConfig
from medbert_jax.training.not_finite import NotFinite
from medbert_jax.training.pace import MetricsLog, Pace
from medbert_jax.training.pretraining import summarize
from medbert_jax.training.progress import Progress

TOTAL = 103


def counts_until_the_end(edges: tuple[int, ...], seconds_of, *, start: int = 0) -> list[int]:
    """The dispatches of a run whose step takes `seconds_of(step)`, each observed as soon as it ended."""
    pace = Pace(edges, CorpusConfig(steps_per_dispatch=50, dispatch_seconds=2.0), total=TOTAL)
    step, counts = start, []
    while step < TOTAL:
        counts.append(pace.count(step))
        pace.observe(counts[-1], sum(seconds_of(one) for one in range(step, step + counts[-1])))
        step += counts[-1]
    return counts


@pytest.mark.parametrize("seconds", [1e-9, 0.01, 0.3, 5.0, 1e6])
@pytest.mark.parametrize("edges", [(20, 50), (7,), (1, 10), (1000, 1000)])
@pytest.mark.parametrize("start", [0, 13, 102])
def test_no_dispatch_crosses_an_edge_or_the_end_and_each_has_a_step(edges, seconds, start):
    rng = np.random.default_rng(0)
    counts = counts_until_the_end(edges, lambda step: seconds * rng.uniform(0.2, 5), start=start)
    assert all(1 <= count <= 50 for count in counts)
    ends = [start, *accumulate(counts, initial=start)][1:]
    assert ends[-1] == TOTAL
    for edge in edges:  # every multiple is the end of a dispatch
        assert {step for step in range(start + 1, TOTAL + 1) if step % edge == 0} <= set(ends)


def test_dispatches_take_about_as_long_as_they_should():
    far = (10_000,)
    assert counts_until_the_end(far, lambda step: 0.25)[:3] == [1, 8, 8]
    assert counts_until_the_end(far, lambda step: 5.0) == [1] * TOTAL  # a step alone takes longer
    assert counts_until_the_end(far, lambda step: 1e-9) == [1, 50, 50, 2]  # no more than the program has
    assert counts_until_the_end(far, lambda step: 0.0) == [1, 50, 50, 2]
    # Steps become slower, then faster again: the next dispatch has as many as the last one would have been allowed.
    counts = counts_until_the_end(far, lambda step: 0.25 if step < 9 or step >= 27 else 1.0)
    assert counts[:9] == [1, 8, 8, 2, 2, 2, 2, 2, 2] and counts[-2] == 8


def made_metrics(steps: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Metrics of steps 1 … `steps`."""
    rng = np.random.default_rng(seed)
    names = ("loss", "masked_code_sum", "masked_code_correct", "prolonged_los_sum", "gradient_norm")
    weights = {name: rng.integers(1, 40, steps) for name in ("masked_code_weight", "prolonged_los_weight")}
    numbers = {name: rng.normal(size=steps).astype(np.float32) for name in names}
    return numbers | weights | {"finite": np.ones(steps, bool)}


class Logged:
    """A metrics log over made dispatches, and what it wrote."""

    def __init__(self, path, *, start: int = 0, edges: tuple[int, ...] = (10, 25, 4), window=()):
        self.path, self.step, self.most = path, start, 12
        self.pace = Pace(edges, CorpusConfig(), total=TOTAL)
        progress = Progress(path, total=TOTAL, start=start)
        self.log = MetricsLog(progress, summarize, edges=edges, total=TOTAL, pace=self.pace, window=window)

    def send(self, metrics: dict, count: int) -> None:
        """Metrics of the next `count` steps, padded as a dispatch pads them."""
        part = {name: values[self.step : self.step + count] for name, values in metrics.items()}
        padded = {
            name: np.concatenate([values, np.zeros_like(values, shape=self.most)]) for name, values in part.items()
        }
        step, self.step = self.step, self.step + count
        self.log.sent(step, count, padded)

    def rows(self) -> list[dict]:
        rows = [json.loads(row) for row in self.path.read_text().splitlines()] if self.path.exists() else []
        return [{name: value for name, value in row.items() if name != "patients_per_second"} for row in rows]


def written(path, counts: list[int], metrics: dict, **options) -> list[dict]:
    logged = Logged(path, **options)
    for count in counts:
        logged.send(metrics, count)
    logged.log.fetch_all()
    return logged.rows()


def test_windows_do_not_depend_on_how_steps_were_dispatched(tmp_path):
    metrics = made_metrics(TOTAL)
    one_by_one = written(tmp_path / "ones", [1] * TOTAL, metrics)
    ends = [step for step in range(1, TOTAL + 1) if step == TOTAL or not all(step % edge for edge in (10, 25, 4))]
    assert [row["step"] for row in one_by_one] == ends
    begins = [0, *ends[:-1]]
    for row, begin, end in zip(one_by_one, begins, ends, strict=True):  # a window has the steps since the one before
        assert row["loss"] == float(metrics["loss"][begin:end].sum(dtype=np.float64)) / (end - begin)
    rng = np.random.default_rng(1)
    for trial in range(5):
        counts = []
        while (left := TOTAL - sum(counts)) > 0:
            counts.append(min(left, int(rng.integers(1, 13))))
        assert written(tmp_path / str(trial), counts, metrics) == one_by_one
    another = metrics | {"loss": metrics["loss"][::-1]}
    assert written(tmp_path / "another", [1] * TOTAL, another) != one_by_one
    # A run that goes on after a window's end writes what was left to write.
    later = [row for row in one_by_one if row["step"] > 50]
    assert written(tmp_path / "later", [3, 12, 12, 12, 12, 2], metrics, start=50) == later


@pytest.mark.parametrize("stop", [1, 4, 7, 50, 102])
def test_a_window_is_handed_on_to_the_run_that_goes_on(tmp_path, stop):
    metrics = made_metrics(TOTAL)
    first = Logged(tmp_path / "stopped")
    for _ in range(stop):
        first.send(metrics, 1)
    first.log.fetch_all()
    window = json.loads(json.dumps(first.log.window))
    second = Logged(tmp_path / "stopped", start=stop, window=window)
    for _ in range(stop, TOTAL):
        second.send(metrics, 1)
    second.log.fetch_all()
    assert second.rows() == written(tmp_path / "whole", [1] * TOTAL, metrics)


def test_a_dispatch_is_fetched_when_the_next_one_was_sent(tmp_path):
    logged, metrics = Logged(tmp_path / "log"), made_metrics(TOTAL)
    logged.send(metrics, 4)
    assert logged.rows() == []
    logged.send(metrics, 4)
    assert [row["step"] for row in logged.rows()] == [4]
    logged.log.fetch_all()
    assert [row["step"] for row in logged.rows()] == [4, 8]
    logged.log.fetch_all()  # nothing is left
    assert len(logged.rows()) == 2


@pytest.mark.parametrize("counts", [[1] * 20, [12, 8], [5, 5, 3, 7], [7, 12, 1]])
def test_a_step_that_is_not_finite_is_told_with_its_number(tmp_path, counts):
    metrics = made_metrics(TOTAL)
    metrics["finite"][[12, 14]] = False  # steps 13 and 15, counted from 1
    metrics["loss"][12] = np.inf
    logged, sent = Logged(tmp_path / "log"), 0
    with pytest.raises(NotFinite, match=r"got inf and .* at step 13; start a new run") as caught:
        for count in counts:
            logged.send(metrics, count)
            sent += count
        logged.log.fetch_all()
    assert caught.value.step == 13
    assert all(row["step"] < 13 for row in logged.rows())


def test_what_pads_a_dispatch_is_no_step(tmp_path):
    metrics = made_metrics(TOTAL)
    logged = Logged(tmp_path / "log", edges=(4,))
    logged.send(metrics, 4)  # "finite" is False in the padding
    logged.log.fetch_all()
    (row,) = logged.rows()
    assert row["loss"] == float(metrics["loss"][:4].sum(dtype=np.float64)) / 4


def test_the_pace_learns_from_the_time_that_a_dispatch_was_under_way(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(pace_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    logged, metrics, seen = Logged(tmp_path / "log"), made_metrics(TOTAL), []
    monkeypatch.setattr(logged.pace, "observe", lambda count, seconds: seen.append((count, seconds)))
    for count, seconds in ((1, 30.0), (1, 20.0), (1, 0.5), (2, 1.0), (3, 1.5)):  # the first ones compile
        now[0] += seconds
        logged.send(metrics, count)
    assert seen == [(1, 1.0), (2, 1.5)]
    now[0] += 0.5
    logged.log.fetch_all()
    assert seen[2:] == [(3, 0.5)]
    now[0] += 100.0  # an evaluation, and a save
    for count in (4, 5):
        now[0] += 2.0
        logged.send(metrics, count)
    assert seen[3:] == [(4, 2.0)]  # from when it was sent: nothing else was under way
    now[0] += 2.5
    logged.send(metrics, 1)
    assert seen[4:] == [(5, 2.5)]
