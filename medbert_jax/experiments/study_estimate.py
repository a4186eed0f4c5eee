"""What of a study is done and what the rest will take: `medbert study --dry-run`. Nothing is made or written."""

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

import polars as pl

from medbert_jax.data.metadata import read_metadata
from medbert_jax.evaluation.results import read_results
from medbert_jax.experiments.grid import Run
from medbert_jax.experiments.running import look_up
from medbert_jax.experiments.settings import settings_of
from medbert_jax.experiments.study import Study, wanted
from medbert_jax.experiments.study_plan import Cohort, Pretraining, PretrainingData, Simulated, Vectors
from medbert_jax.experiments.study_rates import row_of
from medbert_jax.experiments.study_stages import Stage, read_receipt
from medbert_jax.printed_tables import Table
from medbert_jax.training.checkpoint import Checkpoint

Sizes = tuple[int, int, int]


@dataclass(frozen=True)
class RunState:
    """A run of a block."""

    cohort: str
    """The plan's name."""
    run: Run
    state: str
    """done, empty (too few cases: it is never made) or missing."""
    seconds: float
    """That it will take; 0 where it is not to be made."""


class Estimate:
    """The states and durations of a study's stages and runs."""

    def __init__(self, study: Study):
        self.study, self.rates = study, study.plan.rates
        self._stages = {(stage.kind, stage.item.name): stage for stage in study.stages()}

    def stage_seconds(self, stage: Stage) -> float:
        """What making a stage that is no block takes: by the rate of done ones of its kind, else by the plan's."""
        work, seconds = self._work(stage)
        measured = self._measured.get(_kind(stage))
        return work / measured if measured else seconds

    def runs(self, stage: Stage) -> Iterator[RunState]:
        """The runs of a block; where its needs are not done, all are missing."""
        block = stage.item
        if all(self.study.done(need) for need in self.study.needs(stage)):
            checkpoint_at = cache(Checkpoint)
            for name, run in self.study.runs(block):
                settings = {"minimum_cases": block.grid.minimum_cases, "cache_dir": block.grid.finetune.cache_dir}
                found = look_up(run, checkpoint_at, **settings)
                yield self._state(name, run, found.state)
            return
        # Which settings were chosen is not known yet, and changes no duration that is known here.
        for run in replace(block.grid, datasets=block.cohorts, recipe="shared").runs():
            yield self._state(run.dataset, run, "missing")

    def sizes(self, cohort: str) -> Sizes:
        """Training, validation and test patients of a cohort: those that it has, else those expected."""
        counts = self._counts(stage := self._stages["cohorts", cohort])
        return (counts["train"], counts["validation"], counts["test"]) if counts else stage.item.expected

    def _state(self, cohort: str, run: Run, state: str) -> RunState:
        codes = self._stages["cohorts", cohort].item.mean_codes
        seconds = self.rates.run_seconds(run, self.sizes(cohort), codes) if state == "missing" else 0.0
        if state == "missing" and row_of(run) in self._measured_runs:
            seconds = self._measured_runs[row_of(run)]
        return RunState(cohort, run, state, seconds)

    def _work(self, stage: Stage) -> tuple[float, float]:
        """(patients, or patients' codes and passes; seconds by the plan's rates) of a stage."""
        item, rates = stage.item, self.rates
        match stage.kind:
            case "tables" if isinstance(item, Simulated):
                chosen = len(item.keep) * item.patients / rates.selected
                return item.patients, item.patients / rates.simulated + chosen
            case "datasets":
                patients = self._training_patients(item.name) or item.expected
                return patients, 2 * patients / rates.read
            case "pretrainings":
                work = self._codes_passed(item)
                return work, work / rates.pretrained + rates.begin_s
            case "vectors":
                work = self._codes_passed(item)
                return work, work / rates.vectors + rates.begin_s
            case "cohorts":
                return sum(self.sizes(item.name)), sum(self.sizes(item.name)) / rates.read + 1.0
            case "tunings":
                of = self.sizes(item.cohort), self._stages["cohorts", item.cohort].item.mean_codes
                rows = [(len(settings_of(row)), run) for row, run in item.config.runs()]
                seconds = sum(times * rates.run_seconds(run, *of, tested=False) for times, run in rows)
                return sum(times for times, _ in rows), seconds
        return 1.0, 10.0

    def _codes_passed(self, item: Pretraining | Vectors) -> float:
        codes = self._stages["datasets", item.dataset].item.mean_codes
        return self._training_patients(item.dataset) * codes * item.config.epochs

    def _training_patients(self, dataset: str) -> int:
        counts = self._counts(stage := self._stages["datasets", dataset])
        return counts["train"] if counts else stage.item.expected

    def _counts(self, stage: Stage) -> dict[str, int] | None:
        assert isinstance(stage.item, PretrainingData | Cohort)
        if not self.study.done(stage):
            return None
        return read_metadata(self.study.path(stage.kind, stage.item.name))["split"]["counts"]

    @cached_property
    def _measured(self) -> dict[str, float]:
        work, seconds = defaultdict(float), defaultdict(float)
        for stage in self._stages.values():
            if stage.kind != "blocks" and (receipt := read_receipt(self.study.out, stage)):
                work[_kind(stage)] += self._work(stage)[0]
                seconds[_kind(stage)] += receipt["seconds"]
        return {kind: work[kind] / seconds[kind] for kind in work if work[kind] and seconds[kind]}

    @cached_property
    def _measured_runs(self) -> dict[tuple[str, str, str], float]:
        """`row_of` → mean seconds of the runs that are filed."""
        if not list(Path(self.study.results).glob("*.parquet")):
            return {}
        runs = read_results(self.study.results).unique("run_id")
        mean = runs.group_by("backbone", "head", "train_size_name").agg(pl.col("wall_time_s").mean())
        return {(backbone, head, size): seconds for backbone, head, size, seconds in mean.iter_rows()}


def _kind(stage: Stage) -> str:
    """Stages of one rate."""
    keeps = " of members" if getattr(stage.item, "keep", ()) else ""
    return f"{stage.kind} {type(stage.item).__name__}{keeps}"


def estimate_tables(study: Study, *, only: Collection[str] = ()) -> list[Table]:
    """Every stage with its state and duration, every run of every block, and what was left out of the plan."""
    estimate, stages = Estimate(study), wanted(study, only)
    rows, tables, alone, shared = [], [], 0.0, 0.0
    for stage in stages:
        if stage.kind != "blocks":
            done = study.done(stage)
            seconds = 0.0 if done else estimate.stage_seconds(stage)
            alone, shared = (alone, shared + seconds) if stage.kind == "tunings" else (alone + seconds, shared)
            rows.append((stage.key, "done" if done else "missing", "" if done else _duration(seconds)))
            continue
        runs = list(estimate.runs(stage))
        done, empty = (sum(one.state == state for one in runs) for state in ("done", "empty"))
        seconds = sum(one.seconds for one in runs)
        shared += seconds
        said = f"{done} of {len(runs)} runs done" + (f", {empty} empty" if empty else "")
        rows.append((stage.key, said, _duration(seconds / study.plan.rates.processes)))
        tables.append(_runs_table(stage, runs))
    left = alone + shared / study.plan.rates.processes
    notes = (f"Left: {_duration(left) or 'nothing'}, by {study.plan.rates.processes} processes.",)
    found = [Table("Stages", ("stage", "state", "takes about"), tuple(rows), "<<>", notes), *tables]
    if study.plan.left_out:
        cells = tuple((one.what, one.why) for one in study.plan.left_out)
        found.append(Table("Left out of the plan", ("what", "why"), cells, "<<"))
    return found


def _runs_table(stage: Stage, runs: list[RunState]) -> Table:
    rows = tuple(
        (one.cohort, *row_of(one.run), str(one.run.replicate), one.state, _duration(one.seconds)) for one in runs
    )
    columns = ("cohort", "backbone", "head", "patients", "replicate", "state", "takes about")
    return Table(stage.item.name, columns, rows, "<<<>><>")


def _duration(seconds: float) -> str:
    """As 2.4 h, 13 min or 40 s; nothing for 0."""
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s" if seconds else ""
