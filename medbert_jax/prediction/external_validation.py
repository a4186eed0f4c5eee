"""What a model is worth at another site: predicted there, with the labels there, as it is and recalibrated.

Recalibration is fitted on one part of the patients and reported, with the model as it is, on the others (Steyerberg et
al., Statistics in Medicine 2004).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path

import numpy as np
import polars as pl

from medbert_jax.attrition.ledger import Ledger
from medbert_jax.cohorts.ahead import TIMES
from medbert_jax.cohorts.censoring import with_censoring_weights
from medbert_jax.cohorts.meds_labels import LabelFolder
from medbert_jax.cohorts.missing_inputs import missing_inputs, tables_there
from medbert_jax.cohorts.spec import CohortSpec
from medbert_jax.data.joined import joined
from medbert_jax.data.sequences import PatientSequences
from medbert_jax.ehr.hashing import patient_hash
from medbert_jax.ehr.schema import EhrSource
from medbert_jax.ehr.tables import read_source
from medbert_jax.evaluation.compared_models import ComparedModel
from medbert_jax.evaluation.design import design_of
from medbert_jax.evaluation.evaluate import EvaluationSettings, evaluate
from medbert_jax.evaluation.evaluated_patients import EvaluatedPatients, weights_and_sets
from medbert_jax.evaluation.stored_evaluation import Evaluation
from medbert_jax.evaluation.strata import strata_of
from medbert_jax.prediction.eligible import Eligible, eligible_of
from medbert_jax.prediction.predictor import Predictor
from medbert_jax.prediction.score import check_unknown, recipe_of
from medbert_jax.prediction.validated import Recalibration, fit_recalibration, recalibrated

AS_IT_IS = "as it is"
_KEY = "external validation"
"""Of the hash that says on whom a recalibration is fitted."""


@dataclass(frozen=True, eq=False)
class Validation:
    """What was found at the site."""

    evaluation: Evaluation
    rows: pl.DataFrame
    """subject_id, prediction_time, label (−1 of the censored), probability, part: fitted on, or reported."""
    recalibrations: dict[str, Recalibration]
    """Name of the model in the evaluation → by what its probabilities were changed."""
    ledger: Ledger
    source: EhrSource
    said: tuple[str, ...]


def validate_at(
    predictor: Predictor,
    ehr: Path,
    *,
    labels: Path | None = None,
    fit_share: float = 0.5,
    settings: EvaluationSettings | None = None,
    unknown_code_limit: float = 0.5,
    announce: Callable[[str], object] = lambda line: None,
) -> Validation:
    """The model on the cohort that its own spec makes of these tables, or on the `labels` of a folder.

    Raises ValueError for the tables that the model was trained on, a source that cannot answer the spec, too many
    unknown codes, and where cases or controls are missing in a part.
    """
    source = read_source(ehr)
    if source.content_hash == predictor.about["ehr_content_hash"]:
        raise ValueError(
            f"an external validation needs patients of another site or time: got {ehr}, the tables that the model was"
            " trained on; give others, and judge the test patients of these with `medbert evaluate`"
        )
    spec, said = cohort_of(predictor, labels), []
    if isinstance(spec, CohortSpec):
        said = missing_inputs(spec, source, tables_there(ehr))
    parts = list(eligible_of(ehr, spec, recipe_of(predictor)))
    check_unknown(parts, unknown_code_limit)
    sequences, races = _with_races(parts)
    rows = _with_weights(pl.concat([part.rows for part in parts], how="diagonal"), spec)
    announce(f"{len(rows):,} predictions, {int((rows['label'] == 1).sum()):,} of them cases")
    probabilities = np.asarray(predictor.predict(sequences), np.float64)
    design = design_of(spec.to_dict(), has_weights=True)
    share = fit_share if design.absolute else 0.0
    weight, sets = weights_and_sets(rows, design)
    label, fitted = rows["label"].to_numpy(), _fitted(rows, share)
    on = fitted & (label >= 0)
    by = _recalibrations(label[on], probabilities[on], weight[on]) if share else {}
    said += [f"no recalibration: {design.refused}"] if design.refused else []
    said += [f"{name}: {one['why']}" for name, one in by.items() if one["why"]]
    reported = ~fitted
    patients = EvaluatedPatients(
        f"{spec.name} at another site",
        source.content_hash,
        design,
        rows["patient_id"].to_numpy().astype(np.str_)[reported],
        rows["prediction_time"].cast(pl.Int64).to_numpy()[reported],
        label.astype(np.int8)[reported],
        weight[reported],
        None if sets is None else sets[reported],
        {name: of[reported] for name, of in strata_of(sequences, predictor.vocabulary, races).items()},
    )
    models = [ComparedModel(AS_IT_IS, (probabilities[reported],))]
    models += [ComparedModel(name, (recalibrated(probabilities[reported], one),)) for name, one in by.items()]
    told = rows.select("prediction_time", "label", subject_id="patient_id").with_columns(
        probability=probabilities, part=pl.Series(np.where(fitted, "fitted on", "reported"))
    )
    return Validation(
        evaluate(patients, models, settings),
        told,
        by,
        reduce(Ledger.merge, [part.ledger for part in parts]),
        source,
        tuple(said),
    )


def cohort_of(predictor: Predictor, labels: Path | None) -> CohortSpec | LabelFolder:
    """Whose labels these are: the spec's, on no side of a day, or those of a folder. ValueError where none are given
    and the model knows no spec, or both are."""
    spec = predictor.spec
    if (spec is None) == (labels is None):
        raise ValueError(
            "labels come from the spec that the model was fine-tuned on, or, where that was a folder of MEDS labels,"
            f" from such a folder: got {'no --labels' if spec is None else '--labels and a spec'};"
            f" {'give --labels FOLDER' if spec is None else 'leave --labels out'}"
        )
    if spec is not None:
        return replace(spec, split=None)
    assert labels is not None
    return LabelFolder.find(labels, "all")


def _recalibrations(label: np.ndarray, probabilities: np.ndarray, weight: np.ndarray) -> dict[str, Recalibration]:
    """Name → what was fitted; a logistic one that could not be fitted is not told twice."""
    large = fit_recalibration(label, probabilities, weight, "in the large")
    logistic = fit_recalibration(label, probabilities, weight, "logistic")
    if large["kind"] == "none":
        raise ValueError(
            f"a recalibration needs cases and controls: got {int(np.sum(label == 1))} cases of {len(label)} in the part"
            " that it is fitted on; take more patients, or give --fit-share 0"
        )
    if logistic["kind"] != "logistic":
        return {"recalibrated in the large": {**large, "why": logistic["why"]}}
    return {"recalibrated in the large": large, "recalibrated, logistic": logistic}


def _fitted(rows: pl.DataFrame, share: float) -> np.ndarray:
    """(n,) whether a row is of the part that is fitted on: patients with all their rows, by a hash of the id."""
    hashes = patient_hash(rows["patient_id"], _KEY) if len(rows) else np.zeros(0, np.uint64)
    return hashes.astype(np.float64) / 2.0**64 < share


def _with_races(parts: Sequence[Eligible]) -> tuple[PatientSequences, list[str]]:
    """All sequences, with numbers of race of one list of names."""
    races = sorted({race for part in parts for race in part.races})
    numbered = []
    for part in parts:
        number = np.array([0, *(races.index(name) + 1 for name in part.races)], np.int32)
        numbered.append(replace(part.sequences, race=number[part.sequences.race]))
    return joined(numbered), races


def _with_weights(rows: pl.DataFrame, spec: CohortSpec | LabelFolder) -> pl.DataFrame:
    """With the weights that stand for the censored, where the outcome lies in a time at risk."""
    if isinstance(spec, LabelFolder) or not set(TIMES) & set(rows.columns):
        return rows
    return with_censoring_weights(rows, spec.outcome.known_after_days)
