"""Scores as they are written: predictions (MEDS schema), who was not scored and why, and what the numbers are."""

import re
from pathlib import Path
from typing import Any

import polars as pl

from medbert_jax.disk.replaced_folder import replaced
from medbert_jax.disk.seals import SUMS, sealed
from medbert_jax.disk.whole_files import canonical_json, sha256_of, whole_file, write_json, write_whole
from medbert_jax.evaluation.predictions import subject_ids, write_predictions
from medbert_jax.prediction.predictor import Predictor
from medbert_jax.prediction.score import Scores

VERSION = 1
"""Of scores.json."""
ABOUT, PREDICTIONS, NOT_SCORED, LEDGER = "scores.json", "predictions.parquet", "not_scored.parquet", "ledger.json"
OURS = re.compile(r"scores\.json|predictions\.parquet|not_scored\.parquet|ledger\.json")
SHOWN_UNKNOWN = 20
"""Unknown codes that scores.json names."""


def write_scores(scores: Scores, predictor: Predictor, out: str | Path, *, threshold: float | None = None) -> None:
    """Write the four files, in place of an earlier set; who has the `threshold`'s risk or more is predicted true.

    Raises ValueError as `check_threshold`.
    """
    check_threshold(predictor, threshold)
    rows = scores.rows
    flagged = pl.repeat(None, len(rows), dtype=pl.Boolean, eager=True)
    if threshold is not None:
        flagged = rows["recalibrated_probability"] >= threshold
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    with replaced(out, OURS) as new:
        write_predictions(
            new / PREDICTIONS,
            subject_id=rows["subject_id"],
            prediction_time=rows["prediction_time"],
            labels=None,
            probabilities=rows["probability"].to_numpy(),
            time_is_ordinal=not scores.source.has_dates,
            flagged=flagged,
            beside=rows.select("recalibrated_probability", "percentile", "codes", "unknown_codes"),
        )
        with whole_file(new / NOT_SCORED) as partial:
            scores.exits.with_columns(subject_ids(scores.exits["subject_id"])).write_parquet(partial)
        write_json(new / LEDGER, scores.ledger.to_dict())
        sums = {name: sha256_of(new / name) for name in (PREDICTIONS, NOT_SCORED, LEDGER)}
        about = {"version": VERSION, **said_of(scores, predictor, threshold), SUMS: sums}
        write_whole(new / ABOUT, canonical_json(sealed(about)))


def check_threshold(predictor: Predictor, threshold: float | None) -> None:
    """Raise ValueError for a threshold on scores that are no risks."""
    if threshold is not None and not predictor.is_risk:
        raise ValueError(
            f"a threshold is one of risk: got {threshold}, and a model that gives a score ({reason(predictor)});"
            " leave --threshold out"
        )


def reason(predictor: Predictor) -> str:
    """Why there is a score and no risk, in words; empty for a risk."""
    return predictor.why_score or predictor.about["design"]["refused"]


def said_of(scores: Scores, predictor: Predictor, threshold: float | None) -> dict[str, Any]:
    """What has to be known beside the numbers, as JSON data."""
    about, rows = predictor.about, scores.rows
    codes, unknown = int(rows["codes"].sum()), int(rows["unknown_codes"].sum())
    return {
        "question": predictor.question,
        "estimand": "risk" if predictor.is_risk else "score",
        "why_score": reason(predictor),
        "horizon_days": about["design"]["horizon_days"],
        "threshold": threshold,
        "model": {**about["model"], "run_id": about["run_id"], "vocabulary_hash": about["vocabulary_hash"]},
        "cohort": about["cohort"]["name"],
        "trained_on": about["train"],
        "recalibration": about["validation"]["recalibration"],
        "thresholds": about["validation"]["thresholds"],
        "source": {"format": scores.source.format, "content_hash": scores.source.content_hash},
        "counts": {
            "patients": scores.ledger.came.patients,
            "scored": rows["subject_id"].n_unique(),
            "predictions": len(rows),
            "not_scored": len(scores.exits),
        },
        "codes": {
            "in_input": codes,
            "unknown": unknown,
            "commonest_unknown": [list(row) for row in scores.unknown.head(SHOWN_UNKNOWN).iter_rows()],
        },
        "said": list(scores.said),
    }
