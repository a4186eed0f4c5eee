"""The runs of an experiment, one after the other: what is done is skipped, every model goes the same way."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from medbert_jax.evaluation.evaluated_patients import read_evaluated
from medbert_jax.evaluation.filed_patients import file_test_patients
from medbert_jax.evaluation.held_out import evaluate_test, told
from medbert_jax.evaluation.provenance import file_results, identify
from medbert_jax.evaluation.results import is_done, run_id
from medbert_jax.prediction.kept import keep_predictor
from medbert_jax.prediction.stored_predictor import is_kept
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
    minimum_cases: int = 0,
    cache_dir: str = "",
) -> None:
    """Do every run that is not done yet, and file its predictions and results.

    A run is done when its results are there, and the fine-tuned checkpoint where it is to leave one. `fine_tuning`
    makes the model of a FinetuneConfig, given the folder where it may keep what is unfinished, which goes when the
    results are filed; any other configuration makes its own. `together`, where given, fits the replicates of a cell
    that are not done, when the first of them comes. Between two runs, Interrupted is raised where the `interruption`
    says stop. A run of fewer than `minimum_cases` training patients with the outcome is not made, which is told, and
    once more at the end. `cache_dir` is where token stores of read-only datasets are kept.
    """
    too_few: list[str] = []
    checkpoint_at = cache(Checkpoint)  # one for each path, so that no run verifies and reads again what another has
    for cell in _cells(runs, together is not None):
        waiting = []
        for number, run in cell:
            place = f"[{number}/{len(runs)}]"
            found = look_up(run, checkpoint_at, minimum_cases=minimum_cases, cache_dir=cache_dir)
            cohort = found.cohort
            if found.state == "empty":
                empty = f"{cohort.name}, {cohort.train.patients:,} training patients, replicate {run.replicate}"
                say(f"{place} left empty: {empty}: a run needs {minimum_cases} training cases and has {found.cases}")
                too_few.append(f"{empty} ({found.cases} cases)")
            elif found.state == "done":
                # Of a process that was killed in between.
                remove_unfinished_folder(unfinished_folder(run.results, found.name))
                say(f"{place} done before: {found.name} in {run.results}")
            else:
                # A dataset that has not what is filed and kept of it is refused before the training.
                read_evaluated(run.dataset, cache_dir=cache_dir, split="validation")
                waiting.append(_Waiting(place, run, cohort, found.identity, found.name))
        for group in _of_one_length(waiting):
            _fit_and_file(group, fine_tuning, together, checkpoint_at, interruption, cache_dir)
    if too_few:
        cells = "; ".join(dict.fromkeys(too_few))
        say(
            f"a cell must rest on {minimum_cases} training cases: {len(too_few)} of {len(runs)} runs were not made, "
            f"and their cells are empty: {cells}; raise train_sizes, or lower minimum_cases"
        )


class LookedUp(NamedTuple):
    """A run, before it is made."""

    cohort: CohortData
    cases: int
    """Among its training patients; predictions of label 1, where a patient has several."""
    state: Literal["done", "empty", "missing"]
    """Empty: it has too few cases and is never made."""
    identity: dict
    name: str
    """The run's id; of one that is empty both are."""


def look_up(
    run: FinetuneConfig | ModelSpec,
    checkpoint_at: Callable[[str], Checkpoint],
    *,
    minimum_cases: int = 0,
    cache_dir: str = "",
) -> LookedUp:
    """The patients of a run, and whether it is done, as `run_all` decides it; errors as `identify`."""
    # A model of one's own need not say how its patients are drawn.
    drawn = {"train_size": run.train_size, "replicate": run.replicate}
    cohort = load_cohort(run.dataset, **drawn, sampling=getattr(run, "sampling", None), cache_dir=cache_dir)
    if (cases := int(cohort.train.outcomes["label"].sum())) < minimum_cases:
        return LookedUp(cohort, cases, "empty", {}, "")
    identity = identify(run, cohort, checkpoint_at)
    name = run_id(identity, run.replicate)
    done = is_done(run.results, name, dataset_hash=cohort.metadata["dataset_hash"]) and not _unsaved(run)
    return LookedUp(cohort, cases, "done" if done else "missing", identity, name)


def kept_in(run: FinetuneConfig | ModelSpec) -> str:
    """Where a run leaves its model; empty where it leaves none, or is a model of one's own that does not say it."""
    return getattr(run, "run", "")


def _unsaved(run: FinetuneConfig | ModelSpec) -> bool:
    """Whether a run is to leave a model and has not, or not with all that predicting needs."""
    kept = kept_in(run)
    return bool(kept) and not (is_kept(kept) and (not isinstance(run, FinetuneConfig) or committed_steps(kept)))


class _Waiting(NamedTuple):
    """A run that is not done."""

    place: str
    run: FinetuneConfig | ModelSpec
    cohort: CohortData
    identity: dict
    name: str


def _of_one_length(waiting: Sequence[_Waiting]) -> list[list[_Waiting]]:
    """Those whose training subsets have as many rows, and so steps; with several predictions a patient few have."""
    groups: dict[int, list[_Waiting]] = {}
    for one in waiting:
        groups.setdefault(len(one.cohort.train), []).append(one)
    return list(groups.values())


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
        runs = [one.run for one in waiting if isinstance(one.run, FinetuneConfig)]  # all of them
        cohorts = [one.cohort for one in waiting]
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
    file_test_patients(run.results, run.dataset, cache_dir=cache_dir)
    for one, model, test in zip(waiting, fitted, tests, strict=True):
        if kept := kept_in(one.run):
            settings = {"run_id": one.name, "cache_dir": cache_dir}
            keep_predictor(kept, one.run.dataset, one.cohort, model, test, **settings)
        file_results(one.run, one.cohort, one.identity, model, test, seconds=seconds)
    remove_unfinished_folder(unfinished)
    for one, model, test in zip(waiting, fitted, tests, strict=True):
        say(
            f"{one.place} {one.cohort.name}, {model.backbone}, {model.head}, {one.cohort.train.patients:,} "
            f"training patients, replicate {one.run.replicate}: {told(test)}, {seconds:.0f} s"
        )
