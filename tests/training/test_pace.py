"""How many steps a dispatch has, and what becomes of its metrics: windows of steps, whatever the dispatches were."""

import json
from itertools import accumulate
from types import SimpleNamespace

import numpy as np
import pytest

from medbert_jax.training import pace as pace_module
from medbert_jax.training.corpus import CorpusConfig
from medbert_jax.training.interruption import Interruption
from medbert_jax.training.not_finite import NotFinite, check_finite
from medbert_jax.training.pace import Pace, dispatched
from medbert_jax.training.patient_source import PatientSource
from medbert_jax.training.pretraining import summarize
from medbert_jax.training.progress import MetricsLog, Progress

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


class Source(PatientSource):
    """Feeds that say nothing but which steps they are; which were prepared is noted."""

    def __init__(self):
        self.prepared: list[tuple[int, int]] = []

    def prepare(self, start: int, count: int) -> None:
        self.prepared.append((start, count))

    def feed(self, start: int, count: int) -> tuple[None, tuple[int, int]]:
        return None, (start, count)


class Logged:
    """A metrics log over the dispatches of made metrics, of so many steps each, and what it wrote."""

    def __init__(
        self, path, metrics: dict, counts: list[int], *, start: int = 0, edges=(10, 25, 4), window=(), stops=()
    ):
        self.path, self.metrics, self.state, self.source = path, metrics, start, Source()
        self.sent: list[tuple[int, int]] = []
        self.pace = Pace(tuple(stops), CorpusConfig(), total=start + sum(counts))
        counts = iter(counts)
        by_start = {start: next(counts)}
        self.pace.count = lambda step: by_start[step] if step in by_start else by_start.setdefault(step, next(counts))
        progress = Progress(path, total=TOTAL, start=start)
        self.log = MetricsLog(progress, summarize, edges=edges, window=window)

    def dispatch(self, state: int, corpus: None, feed: tuple[int, int]) -> tuple[int, dict]:
        """Metrics of the steps of a feed, padded as a dispatch pads them."""
        step, count = feed
        assert state == step
        self.sent.append(feed)
        part = {name: values[step : step + count] for name, values in self.metrics.items()}
        padded = {name: np.concatenate([values, np.zeros_like(values, shape=12)]) for name, values in part.items()}
        return step + count, padded

    def steps(self, **options):
        """Every dispatch, when it was logged: (step, state, rows that are written)."""
        start = self.state
        for step, state, metrics in dispatched(self.dispatch, start, self.source, self.pace, start=start, **options):
            check_finite(step, metrics)
            self.log.add(step, metrics)
            yield step, state, self.rows()

    def rows(self) -> list[dict]:
        rows = [json.loads(row) for row in self.path.read_text().splitlines()] if self.path.exists() else []
        return [{name: value for name, value in row.items() if name != "patients_per_second"} for row in rows]


def written(path, counts: list[int], metrics: dict, **options) -> list[dict]:
    logged = Logged(path, metrics, counts, **options)
    for _ in logged.steps():
        pass
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
    first = Logged(tmp_path / "stopped", metrics, [1] * stop)
    list(first.steps())
    window = json.loads(json.dumps(first.log.window))
    rows = written(tmp_path / "stopped", [1] * (TOTAL - stop), metrics, start=stop, window=window)
    assert rows == written(tmp_path / "whole", [1] * TOTAL, metrics)


def test_a_dispatch_is_fetched_when_the_next_one_was_sent(tmp_path):
    logged = Logged(tmp_path / "log", made_metrics(TOTAL), [4, 4, 4])
    seen = [(step, state, len(logged.sent), [row["step"] for row in rows]) for step, state, rows in logged.steps()]
    # The state is one dispatch further, but for the last.
    assert seen == [(4, 8, 2, [4]), (8, 12, 3, [4, 8]), (12, 12, 3, [4, 8, 10, 12])]
    assert logged.source.prepared == [(4, 4), (8, 4)]


def test_at_an_edge_nothing_is_under_way(tmp_path):
    logged = Logged(tmp_path / "log", made_metrics(TOTAL), [4, 4, 4, 2, 2], stops=(8,))
    seen = [(step, state, len(logged.sent)) for step, state, _ in logged.steps()]
    assert seen == [(4, 8, 2), (8, 8, 2), (12, 14, 4), (14, 16, 5), (16, 16, 5)]
    assert logged.source.prepared == [(4, 4), (8, 4), (12, 2), (14, 2)]  # of the step after an edge too


@pytest.mark.parametrize("at", [0, 1, 2, 4])
def test_who_asks_to_stop_gets_the_state_of_the_dispatch_that_was_sent(tmp_path, at):
    class After(Interruption):
        questions = 0

        def asked(self) -> bool:
            self.questions += 1
            self.stopping = self.questions == at
            return self.stopping

    interruption, logged = After(), Logged(tmp_path / "log", made_metrics(TOTAL), [4, 4, 4])
    seen = [(step, state) for step, state, _ in logged.steps(interruption=interruption)]
    assert seen == [(4, 4)] if at == 1 else seen[:1] == [(4, 8)]
    assert seen[-1] == ((8, 8) if at == 2 else (4, 4) if at == 1 else (12, 12))
    assert interruption.questions == (at if at in (1, 2) else 3)
    interruption.stopping = True  # what was told before the first dispatch: nothing is sent
    assert list(Logged(tmp_path / "none", made_metrics(TOTAL), [4]).steps(interruption=interruption)) == []


@pytest.mark.parametrize("counts", [[1] * 20, [12, 8], [5, 5, 3, 7], [7, 12, 1]])
def test_a_step_that_is_not_finite_is_told_with_its_number(tmp_path, counts):
    metrics = made_metrics(TOTAL)
    metrics["finite"][[12, 14]] = False  # steps 13 and 15, counted from 1
    metrics["loss"][12] = np.inf
    logged = Logged(tmp_path / "log", metrics, counts)
    with pytest.raises(NotFinite, match=r"got inf and .* at step 13; start a new run") as caught:
        list(logged.steps())
    assert caught.value.step == 13
    assert all(row["step"] < 13 for row in logged.rows())


def test_what_pads_a_dispatch_is_no_step(tmp_path):
    metrics = made_metrics(TOTAL)
    (row,) = written(tmp_path / "log", [4], metrics, edges=(4,))  # "finite" is False in the padding
    assert row["loss"] == float(metrics["loss"][:4].sum(dtype=np.float64)) / 4


def test_the_pace_learns_from_the_time_that_a_dispatch_was_under_way(tmp_path, monkeypatch):
    now, seen = [0.0], []
    monkeypatch.setattr(pace_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    # Seconds until each dispatch was sent: the devices had so long for the one before.
    seconds = {1: 30.0, 2: 20.0, 3: 0.5, 5: 1.0, 8: 1.5, 12: 2.0, 17: 2.0, 18: 2.5}
    logged = Logged(tmp_path / "log", made_metrics(TOTAL), [1, 1, 1, 2, 3, 4, 5, 1], stops=(8,))
    monkeypatch.setattr(logged.pace, "observe", lambda count, took: seen.append((count, took)))
    send = logged.dispatch

    def dispatch(state, corpus, feed):
        now[0] += seconds[sum(feed)]
        return send(state, corpus, feed)

    monkeypatch.setattr(logged, "dispatch", dispatch)
    prepare = logged.source.prepare

    def prepared(start, count):
        now[0] += 0.5 * (start == 8)
        prepare(start, count)

    monkeypatch.setattr(logged.source, "prepare", prepared)
    for step, _, _ in logged.steps():
        if step == 3:
            assert seen == [(1, 1.0)]  # the first ones compile
        if step == 5:
            assert seen[1:] == [(2, 1.5)]
        if step == 8:
            assert seen[2:] == [(3, 0.5)]
            now[0] += 100.0  # an evaluation, and a save
        if step == 12:
            assert seen[3:] == [(4, 2.0)]  # from when it was sent: nothing else was under way
    assert seen[4:] == [(5, 2.5), (1, 0.0)]
