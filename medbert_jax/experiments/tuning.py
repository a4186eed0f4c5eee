"""Tuning: the same budget of settings for every row of a table, chosen on the validation patients of one cohort.

The test patients are never read: what is filed is validation alone, and what is chosen there is then used for every
cohort and training size (`GridConfig.recipe`).
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Annotated

import numpy as np
from annotated_types import Ge, Interval

from medbert_jax.checked_fields import check_fields
from medbert_jax.disk.whole_files import write_json
from medbert_jax.evaluation.provenance import identify
from medbert_jax.evaluation.results import run_id
from medbert_jax.experiments.grid import Baseline, Run, baseline_run, row_runs
from medbert_jax.experiments.settings import FIXED, VERSION, Tried, Tuning, read_tuning, settings_of, with_setting
from medbert_jax.metrics.discrimination import better
from medbert_jax.models.finetune_heads import HeadKind
from medbert_jax.training.checkpoint import Checkpoint
from medbert_jax.training.cohort_data import CohortData, load_cohort
from medbert_jax.training.config import Backbone, FinetuneConfig
from medbert_jax.training.disease_model import DiseaseModel
from medbert_jax.training.interruption import Interruption
from medbert_jax.training.progress import say
from medbert_jax.training.unfinished import remove_unfinished_folder, unfinished_folder


@dataclass(frozen=True)
class TuningConfig:
    """The rows to tune, on one cohort."""

    dataset: str = ""
    """Directory of the cohort dataset."""
    out: str = "tuning.json"
    """File of what was tried and chosen; one that is there is gone on with."""
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    """What all fine-tuning runs share, but for what is tuned."""
    rows: tuple[tuple[Backbone, HeadKind], ...] = ()
    """Backbone and head of each fine-tuned row."""
    baselines: tuple[Baseline, ...] = ()
    train_size: Annotated[int, Ge(0)] = 1000
    """Training patients; 0 takes all."""
    replicate: Annotated[int, Interval(ge=0, lt=2**32)] = 0
    """Chooses the training subset, and seeds what is drawn."""

    def __post_init__(self):
        """Check every field; all faults are in one error."""
        check_fields(self, also=self._disagreements())

    def _disagreements(self) -> Iterator[str]:
        if fixed := [name for name in self.baselines if name in FIXED]:
            yield f"baselines must have something to tune: got {', '.join(fixed)}; leave them out"

    def runs(self) -> Iterator[tuple[str, Run]]:
        """Each row's name with its run, before anything is set for it."""
        asked = {"dataset": self.dataset, "train_size": self.train_size, "replicate": self.replicate, "run": ""}
        common = replace(self.finetune, experiment="tuning", **asked)
        for name in self.baselines:
            yield name, baseline_run(name, common)
        yield from row_runs(self.rows, common)


def tune(
    config: TuningConfig,
    fine_tuning: Callable[[FinetuneConfig, CohortData, Checkpoint, Path], DiseaseModel],
    interruption: Interruption | None = None,
) -> Path:
    """Try every setting of every row, and write after each what was tried and chosen; returns the file.

    `fine_tuning` as in `run_all`. ValueError where the file is of another cohort, size or replicate.
    """
    cache_dir = config.finetune.cache_dir
    drawn = {"train_size": config.train_size, "replicate": config.replicate, "sampling": config.finetune.sampling}
    cohort = load_cohort(config.dataset, **drawn, cache_dir=cache_dir)
    tuning, checkpoint_at = _begun(config, cohort), cache(Checkpoint)
    done = {one["run_id"] for one in tuning["tried"]}
    for row, plain in config.runs():
        for setting in settings_of(row):
            run = with_setting(plain, setting)
            name = run_id(identify(run, cohort, checkpoint_at), run.replicate)
            if name in done:
                say(f"done before: {row}, {_told(setting)}")
                continue
            if interruption:
                interruption.end_here(config.out)
            began, unfinished = time.monotonic(), unfinished_folder(config.finetune.results, name)
            if isinstance(run, FinetuneConfig):
                model = fine_tuning(run, cohort, checkpoint_at(run.checkpoint), unfinished)
            else:
                model = run.model(cohort.vocabulary)
            fitted = model.fit(cohort.train, cohort.validation)
            found = float(fitted.validation["auroc"])
            tried: Tried = {
                "row": row,
                "setting": dict(setting),
                "run_id": name,
                "validation_auroc": found if np.isfinite(found) else None,
                "epochs": fitted.epochs,
                "seconds": time.monotonic() - began,
            }
            tuning["tried"].append(tried)
            tuning["chosen"] |= chosen_setting(row, tuning["tried"])
            write_json(config.out, tuning)
            remove_unfinished_folder(unfinished)
            say(f"{row}, {_told(setting)}: validation AUROC {found:.4f}, {tried['seconds']:.0f} s")
    return Path(config.out)


def joined_tuning(paths: Sequence[str | Path], out: Path) -> Path:
    """Write tunings of several rows of one cohort as one file, for `GridConfig.tuning`, and return it.

    ValueError where they are of other patients, or two have the same row.
    """
    first, *_ = tunings = [read_tuning(path) for path in paths]
    joined: Tuning = {**first, "tried": [], "chosen": {}}
    for path, tuning in zip(paths, tunings, strict=True):
        if other := _differing(tuning, first):
            raise ValueError(
                f"tunings are joined that are of the same patients: got {', '.join(other)} in {path}; leave it out"
            )
        if again := sorted(joined["chosen"].keys() & tuning["chosen"].keys()):
            raise ValueError(f"a row is tuned once: got {'; '.join(again)} again in {path}; leave one of them out")
        joined["tried"] += tuning["tried"]
        joined["chosen"] |= tuning["chosen"]
    write_json(out, joined)
    return out


def chosen_setting(row: str, tried: list[Tried]) -> dict[str, dict[str, float]]:
    """The row with its setting of the best validation AUROC, the earlier one on a tie; {} until all were tried."""
    of_row = [one for one in tried if one["row"] == row]
    if len(of_row) < len(settings_of(row)):
        return {}
    best, chosen = -np.inf, of_row[0]["setting"]
    for one in of_row:
        found = float("nan") if one["validation_auroc"] is None else one["validation_auroc"]
        if better(found, best):
            best, chosen = found, one["setting"]
    return {row: chosen}


def _begun(config: TuningConfig, cohort: CohortData) -> Tuning:
    """What is in the file already, or nothing tried yet."""
    fresh: Tuning = {
        "version": VERSION,
        "dataset_hash": cohort.metadata["dataset_hash"],
        "cohort": cohort.name,
        "train_size": config.train_size,
        "replicate": config.replicate,
        "tried": [],
        "chosen": {},
    }
    if not Path(config.out).exists():
        return fresh
    there = read_tuning(config.out)
    if other := _differing(there, fresh):
        raise ValueError(
            f"a tuning goes on with the patients that it began with: got {', '.join(other)} in {config.out}; give "
            "another --out"
        )
    return there


def _differing(there: Tuning, fresh: Tuning) -> list[str]:
    """By which other patients a tuning was made than another."""
    names = ("dataset_hash", "cohort", "train_size", "replicate")
    pairs = [(name, dict(there)[name], dict(fresh)[name]) for name in names]
    return [f"{name} {old} and not {new}" for name, old, new in pairs if old != new]


def _told(setting) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in setting.items())
