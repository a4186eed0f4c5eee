"""An external validation as it is written: the evaluation, the predictions with their labels, what both rest on."""

from pathlib import Path

from medbert_jax.disk.whole_files import canonical_json, write_json, write_whole
from medbert_jax.evaluation.evaluation_tables import evaluation_tables
from medbert_jax.evaluation.predictions import write_predictions
from medbert_jax.evaluation.stored_evaluation import write_evaluation
from medbert_jax.prediction.external_validation import Validation
from medbert_jax.prediction.predictor import Predictor
from medbert_jax.prediction.stored_scores import LEDGER, PREDICTIONS
from medbert_jax.printed_tables import to_markdown

ABOUT = "external_validation.json"
VERSION = 1
"""Of external_validation.json."""


def write_validation(found: Validation, predictor: Predictor, out: str | Path) -> None:
    """Write the files beside each other: an evaluation that `medbert evaluate` could have written, and the rest."""
    out, rows = Path(out), found.rows
    write_evaluation(found.evaluation, out)
    write_whole(out / "evaluation.md", to_markdown(evaluation_tables(found.evaluation)))
    write_predictions(
        out / PREDICTIONS,
        subject_id=rows["subject_id"],
        prediction_time=rows["prediction_time"],
        labels=rows["label"].to_numpy(),
        probabilities=rows["probability"].to_numpy(),
        time_is_ordinal=not found.source.has_dates,
        beside=rows.select("part"),
    )
    write_json(out / LEDGER, found.ledger.to_dict())
    about = predictor.about
    said = {
        "version": VERSION,
        "model": {**about["model"], "run_id": about["run_id"]},
        "trained_on": {"ehr_content_hash": about["ehr_content_hash"], **about["train"]},
        "source": {"format": found.source.format, "content_hash": found.source.content_hash},
        "recalibrations": found.recalibrations,
        "fitted_on": int((rows["part"] == "fitted on").sum()),
        "reported": int((rows["part"] == "reported").sum()),
        "test_at_home": about["test"],
        "said": list(found.said),
    }
    write_whole(out / ABOUT, canonical_json(said))
