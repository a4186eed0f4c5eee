"""A model that was trained, kept with all that it needs to predict: predictor.json, vocabulary, and its numbers."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np

from medbert_jax.cohorts.loading import stored_spec
from medbert_jax.evaluation.design import Design
from medbert_jax.evaluation.evaluated_patients import read_evaluated
from medbert_jax.prediction.stored_predictor import ARRAYS, write_predictor
from medbert_jax.prediction.validated import validated
from medbert_jax.training.checkpointing import good_step, step_fingerprint
from medbert_jax.training.cohort_data import CohortData
from medbert_jax.training.disease_model import Fitted
from medbert_jax.training.manifest import committed_steps
from medbert_jax.training.progress import say
from medbert_jax.training.stored_config import VOCABULARY


def keep_predictor(
    folder: str | Path,
    dataset: str | Path,
    cohort: CohortData,
    fitted: Fitted,
    test: Mapping[str, float],
    *,
    run_id: str,
    cache_dir: str = "",
) -> None:
    """Write beside the fine-tuned step in `folder`, or with a baseline's arrays, what predicting needs.

    `test` is what was found on the test patients. Of a baseline that has no stored form it is told that it is not kept.
    """
    folder, is_baseline = Path(folder), bool(fitted.arrays)
    if is_baseline:
        # Here, because a fine-tuning need not wait for scikit-learn, which takes seconds to import.
        from medbert_jax.baselines.stored_model import write_classifier

        folder.mkdir(parents=True, exist_ok=True)
        cohort.vocabulary.write(folder / VOCABULARY)
        write_classifier(folder / ARRAYS, fitted.arrays)
    elif not committed_steps(folder):
        say(f"{fitted.backbone}, {fitted.head} has no stored form, and is not kept in {folder}")
        return
    metadata = cohort.metadata
    patients = read_evaluated(dataset, cache_dir=cache_dir, split="validation")
    known, design = patients.known, patients.design
    said = {**asdict(design), "horizon_days": horizon(metadata["cohort"], design)}
    write_predictor(
        folder,
        {
            "model": {
                "kind": "baseline" if is_baseline else "finetuned",
                "backbone": fitted.backbone,
                "head": fitted.head,
                "parameters": "" if is_baseline else step_fingerprint(folder, good_step(folder)),
            },
            "run_id": run_id,
            "cohort": metadata["cohort"],
            "dataset_hash": metadata["dataset_hash"],
            "ehr_content_hash": metadata.get("source", {}).get("content_hash", ""),
            "vocabulary_hash": metadata["vocabulary_hash"],
            "preset": metadata.get("preset", "paper"),
            "serialization": metadata.get("serialization", {}),
            "back_off": bool(metadata.get("recipe", {}).get("back_off", False)),
            "design": said,
            "train": {
                "patients": cohort.train.patients,
                "predictions": len(cohort.train),
                "cases": int(np.sum(cohort.train.outcomes["label"])),
            },
            "validation": validated(
                patients.label[known],
                fitted.predict(cohort.validation),
                patients.weight[known],
                is_risk=design.absolute and design.estimand != "score",
            ),
            "test": {name: float(value) for name, value in test.items() if np.isfinite(value)},
        },
    )
    say(f"model, with what predicting needs, in {folder}")


def horizon(cohort: Mapping, design: Design) -> int | None:
    """Days after the prediction within which the outcome is looked for; None: it has no such time."""
    if design.horizon_days is not None or "outcome" not in cohort:
        return design.horizon_days
    outcome = stored_spec(dict(cohort), source="metadata.json").outcome
    return outcome.known_after_days if outcome.asks_follow_up else None
