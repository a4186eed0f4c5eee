"""Where a run's numbers come from: what identifies it, on which commit and device it was made, and its one file."""

import subprocess
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np

from medbert_jax.baselines.linear_probe import ProbeConfig
from medbert_jax.evaluation.held_out import without_degenerate
from medbert_jax.evaluation.results import RunRecord, result_rows, write_results
from medbert_jax.identity import identity, identity_of
from medbert_jax.models.config import ModelConfig
from medbert_jax.training.checkpoint import Checkpoint
from medbert_jax.training.cohort_data import CohortData
from medbert_jax.training.config import FinetuneConfig
from medbert_jax.training.disease_model import Fitted, RunSpec
from medbert_jax.training.progress import versions
from medbert_jax.training.stored_vectors import CodeVectors


def identify(run: RunSpec, cohort: CohortData, checkpoint_at: Callable[[str], Checkpoint]) -> dict:
    """What decides the numbers of a run: its configuration, with contents in place of paths; see `identity`.

    ValueError where a fine-tuning's checkpoint, or vectors of codes, do not go with the cohort.
    """
    known = {"kind": type(run).__name__} | identity(run) | {"dataset": cohort.metadata["dataset_hash"], "results": ""}
    if isinstance(run, ProbeConfig):
        checkpoint = checkpoint_at(run.checkpoint)
        checkpoint.check_cohort(cohort)
        known["checkpoint"] = checkpoint.fingerprint
    if isinstance(run, FinetuneConfig):
        checkpoint = checkpoint_at(run.checkpoint)
        checkpoint.check_cohort(cohort)
        pretrained = run.backbone in ("pretrained", "frozen")  # the others take the architecture alone
        known["run"] = ""
        model = identity_of(ModelConfig, checkpoint.config["model"])
        known["checkpoint"] = checkpoint.fingerprint if pretrained else model
        known.pop("vectors", None)  # those who do not begin with them are known without
        if run.backbone == "tw2v":
            vectors = CodeVectors.read(run.vectors)
            vectors.check_cohort(cohort.metadata)
            known["vectors"] = vectors.fingerprint
    return known


def file_results(
    run: RunSpec, cohort: CohortData, identity: dict, fitted: Fitted, test: Mapping[str, float], *, seconds: float
) -> Path:
    """Write the run's one Parquet file, the record and the long rows; returns its path."""
    rows = []
    trained = {"cases": float((np.asarray(cohort.train.outcomes["label"]) == 1).sum())}
    for split, metrics in (("train", trained), ("validation", fitted.validation), ("test", test)):
        rows += result_rows(
            without_degenerate(metrics),
            experiment=run.experiment,
            cohort=cohort.name,
            backbone=fitted.backbone,
            head=fitted.head,
            train_size=cohort.train.patients,
            train_size_name=str(run.train_size or "all"),
            replicate=run.replicate,
            split=split,
        )
    record = RunRecord(
        configuration=identity,
        seed=run.replicate,
        commit=commit(),
        dataset_hash=cohort.metadata["dataset_hash"],
        vocabulary_hash=cohort.metadata["vocabulary_hash"],
        split_key=cohort.metadata["split"]["key"],
        checkpoint=fitted.checkpoint,
        device=jax.devices()[0].device_kind,
        wall_time_s=seconds,
        epochs=fitted.epochs,
        stopping_reason=fitted.stopping_reason,
        versions=versions(),
    )
    return write_results(run.results, record, rows)


def commit() -> str:
    """The commit of the checkout this runs from, "+" where it has changes; the package's version outside of one."""
    git = ["git", "-C", str(Path(__file__).resolve().parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return f"medbert_jax {version('medbert-jax')}"
    return head + ("+" if changed.stdout else "")
