"""The runs of an experiment, one after the other: what is done is skipped, every model goes the same way."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from medbert_jax.evaluation.held_out import evaluate_test, told
from medbert_jax.evaluation.provenance import file_results, identify
from medbert_jax.evaluation.results import is_done, run_id
from medbert_jax.training.checkpoint import Checkpoint
from medbert_jax.training.cohort_data import CohortData, load_cohort
from medbert_jax.training.config import FinetuneConfig
from medbert_jax.training.disease_model import DiseaseModel, Fitted, ModelSpec
from medbert_jax.training.interruption import Interruption
from medbert_jax.training.manifest import committed_steps
from medbert_jax.training.progress import say
from medbert_jax.training.unfinished import remove_unfinished_folder, unfinished_folder

FineTuningOf = Callable[[FinetuneConfig, CohortData, Checkpoint, Path], DiseaseModel]
Together = Callable[[Sequence[FinetuneConfig], Sequence[CohortData], Checkpoint, Path], Sequence[Fitted]]


def run_all(
    runs: Sequence[FinetuneConfig | ModelSpec],
    fine_tuning: FineTuningOf,
    interruption: Interruption | None = None,
    *,
    together: Together | None = None,
    cache_dir: str = "",
) -> None:
    """Do every run that is not done yet, and file its predictions and results.

    A run is done when its results are there, and the fine-tuned checkpoint where it is to leave one. `fine_tuning`
    makes the model of a FinetuneConfig, given the folder where it may keep what is unfinished, which goes when the
    results are filed; any other configuration makes its own. `together`, where given, fits the replicates of a cell
    that are not done, when the first of them comes. Between two runs, Interrupted is raised where the `interruption`
    says stop. `cache_dir` is where token stores of read-only datasets are kept.
    """
    checkpoint_at = cache(Checkpoint)  # one for each path, so that no run verifies and reads again what another has
    for cell in _cells(runs, together is not None):
        waiting = []
        for number, run in cell:
            place = f"[{number}/{len(runs)}]"
            cohort = load_cohort(run.dataset, train_size=run.train_size, replicate=run.replicate, cache_dir=cache_dir)
            identity = identify(run, cohort, checkpoint_at)
            name = run_id(identity, run.replicate)
            unsaved = isinstance(run, FinetuneConfig) and run.run and not committed_steps(run.run)
            if is_done(run.results, name, dataset_hash=cohort.metadata["dataset_hash"]) and not unsaved:
                # Of a process that was killed in between.
                remove_unfinished_folder(unfinished_folder(run.results, name))
                say(f"{place} done before: {name} in {run.results}")
            else:
                waiting.append(_Waiting(place, run, cohort, identity, name))
        if waiting:
            _fit_and_file(waiting, fine_tuning, together, checkpoint_at, interruption, cache_dir)


class _Waiting(NamedTuple):
    """A run that is not done."""

    place: str
    run: FinetuneConfig | ModelSpec
    cohort: CohortData
    identity: dict
    name: str


def _cells(runs: Sequence[FinetuneConfig | ModelSpec], together: bool) -> list[list[tuple[int, Any]]]:
    """The numbered runs, those side by side that train together: alike but for the replicate, and leaving no model."""
    cells: dict[Any, list] = {}
    for number, run in enumerate(runs, start=1):
        joins = together and isinstance(run, FinetuneConfig) and not run.run
        cells.setdefault(replace(run, replicate=0) if joins else number, []).append((number, run))
    return list(cells.values())


def _fit_and_file(
    waiting: Sequence[_Waiting],
    fine_tuning: FineTuningOf,
    together: Together | None,
    checkpoint_at: Callable[[str], Checkpoint],
    interruption: Interruption | None,
    cache_dir: str,
) -> None:
    run, cohort, names = waiting[0].run, waiting[0].cohort, [one.name for one in waiting]
    if interruption:
        interruption.end_here(run.results)
    began = time.monotonic()
    unfinished = unfinished_folder(run.results, names[0] if len(names) == 1 else run_id({"together": names}, 0))
    if len(waiting) > 1:
        assert together is not None and isinstance(run, FinetuneConfig)  # else no cell has several
        runs, cohorts = [one.run for one in waiting], [one.cohort for one in waiting]
        fitted = together(runs, cohorts, checkpoint_at(run.checkpoint), unfinished)
    elif isinstance(run, FinetuneConfig):
        model = fine_tuning(run, cohort, checkpoint_at(run.checkpoint), unfinished)
        fitted = [model.fit(cohort.train, cohort.validation)]
    else:
        fitted = [run.model(cohort.vocabulary).fit(cohort.train, cohort.validation)]
    tests = []
    for one, model in zip(waiting, fitted, strict=True):
        predictions = Path(one.run.results) / "predictions" / f"{one.name}.parquet"
        tests.append(evaluate_test(one.run.dataset, model.predict, predictions, cache_dir=cache_dir))
    seconds = (time.monotonic() - began) / len(waiting)
    for one, model, test in zip(waiting, fitted, tests, strict=True):
        file_results(one.run, one.cohort, one.identity, model, test, seconds=seconds)
    remove_unfinished_folder(unfinished)
    for one, model, test in zip(waiting, fitted, tests, strict=True):
        say(
            f"{one.place} {one.cohort.name}, {model.backbone}, {model.head}, {len(one.cohort.train):,} "
            f"training patients, replicate {one.run.replicate}: {told(test)}, {seconds:.0f} s"
        )
