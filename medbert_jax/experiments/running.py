"""The runs of an experiment, one after the other: what is done is skipped, every model goes the same way."""

import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from medbert_jax.evaluation.held_out import evaluate_test, told
from medbert_jax.evaluation.provenance import file_results, identify
from medbert_jax.evaluation.results import is_done, run_id
from medbert_jax.training.checkpoint import Checkpoint
from medbert_jax.training.cohort_data import CohortData, load_cohort
from medbert_jax.training.config import FinetuneConfig
from medbert_jax.training.disease_model import DiseaseModel, ModelSpec
from medbert_jax.training.interruption import Interruption
from medbert_jax.training.manifest import committed_steps
from medbert_jax.training.progress import say
from medbert_jax.training.unfinished import remove_unfinished_folder, unfinished_folder


def run_all(
    runs: Sequence[FinetuneConfig | ModelSpec],
    fine_tuning: Callable[[FinetuneConfig, CohortData, Checkpoint, Path], DiseaseModel],
    interruption: Interruption | None = None,
    *,
    minimum_cases: int = 0,
    cache_dir: str = "",
) -> None:
    """Do every run that is not done yet, and file its predictions and results.

    A run is done when its results are there, and the fine-tuned checkpoint where it is to leave one. `fine_tuning`
    makes the model of a FinetuneConfig, given the folder where it may keep what is unfinished, which goes when the
    results are filed; any other configuration makes its own. Between two runs, Interrupted is raised where the
    `interruption` says stop. A run of fewer than `minimum_cases` training patients with the outcome is not made, which
    is told, and once more at the end. `cache_dir` is where token stores of read-only datasets are kept.
    """
    too_few: list[str] = []
    checkpoint_at = cache(Checkpoint)  # one for each path, so that no run verifies and reads again what another has
    for number, run in enumerate(runs, start=1):
        place = f"[{number}/{len(runs)}]"
        # A model of one's own need not say how its patients are drawn.
        drawn = {"train_size": run.train_size, "replicate": run.replicate, "sampling": getattr(run, "sampling", None)}
        cohort = load_cohort(run.dataset, **drawn, cache_dir=cache_dir)
        if (cases := int(cohort.train.outcomes["label"].sum())) < minimum_cases:
            cell = f"{cohort.name}, {len(cohort.train):,} training patients, replicate {run.replicate}"
            say(f"{place} left empty: {cell}: a run needs {minimum_cases} training cases and has {cases}")
            too_few.append(f"{cell} ({cases} cases)")
            continue
        identity = identify(run, cohort, checkpoint_at)
        name = run_id(identity, run.replicate)
        unsaved = isinstance(run, FinetuneConfig) and run.run and not committed_steps(run.run)
        unfinished = unfinished_folder(run.results, name)
        if is_done(run.results, name, dataset_hash=cohort.metadata["dataset_hash"]) and not unsaved:
            remove_unfinished_folder(unfinished)  # of a process that was killed in between
            say(f"{place} done before: {name} in {run.results}")
            continue
        if interruption:
            interruption.end_here(run.results)
        began = time.monotonic()
        if isinstance(run, FinetuneConfig):
            model = fine_tuning(run, cohort, checkpoint_at(run.checkpoint), unfinished)
        else:
            model = run.model(cohort.vocabulary)
        fitted = model.fit(cohort.train, cohort.validation)
        predictions = Path(run.results) / "predictions" / f"{name}.parquet"
        test = evaluate_test(run.dataset, fitted.predict, predictions, cache_dir=cache_dir)
        seconds = time.monotonic() - began
        file_results(run, cohort, identity, fitted, test, seconds=seconds)
        remove_unfinished_folder(unfinished)
        say(
            f"{place} {cohort.name}, {fitted.backbone}, {fitted.head}, {cohort.train.patients:,} "
            f"training patients, replicate {run.replicate}: {told(test)}, {seconds:.0f} s"
        )
    if too_few:
        cells = "; ".join(dict.fromkeys(too_few))
        say(
            f"a cell must rest on {minimum_cases} training cases: {len(too_few)} of {len(runs)} runs were not made, "
            f"and their cells are empty: {cells}; raise train_sizes, or lower minimum_cases"
        )
