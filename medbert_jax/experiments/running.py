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
    cache_dir: str = "",
) -> None:
    """Do every run that is not done yet, and file its predictions and results.

    A run is done when its results are there, and the fine-tuned checkpoint where it is to leave one. `fine_tuning`
    makes the model of a FinetuneConfig, given the folder where it may keep what is unfinished, which goes when the
    results are filed; any other configuration makes its own. Between two runs, Interrupted is raised where the
    `interruption` says stop. `cache_dir` is where token stores of read-only datasets are kept.
    """
    checkpoint_at = cache(Checkpoint)  # one for each path, so that no run verifies and reads again what another has
    for number, run in enumerate(runs, start=1):
        place = f"[{number}/{len(runs)}]"
        cohort = load_cohort(run.dataset, train_size=run.train_size, replicate=run.replicate, cache_dir=cache_dir)
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
