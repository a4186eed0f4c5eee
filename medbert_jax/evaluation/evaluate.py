"""One evaluation for any models' predictions: every figure with its interval, groups, and paired differences."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import polars as pl

from medbert_jax.evaluation.compared_models import ComparedModel
from medbert_jax.evaluation.curves import curve_rows
from medbert_jax.evaluation.differences import group_differences, model_differences, with_holm
from medbert_jax.evaluation.evaluated_patients import EvaluatedPatients
from medbert_jax.evaluation.figures import BOUND, EVERYONE, FIGURE, Judged, auroc_interval, figure_row
from medbert_jax.evaluation.measures import Measures, drawn, spread
from medbert_jax.evaluation.stored_evaluation import CURVE_SCHEMA, FIGURE_SCHEMA, Evaluation
from medbert_jax.evaluation.strata import in_order
from medbert_jax.metrics.bootstrap import CONFIDENCE, DRAWS, SEED, Draws, percentile_interval, replicate_weights
from medbert_jax.metrics.censored_bounds import auroc_bounds, brier_bounds, observed_to_expected_bounds

RISKS = (0.05, 0.1, 0.2, 0.3)
SPECIFICITIES = (0.8, 0.9, 0.95)
FEWEST_OF_GROUP = 11
"""Cases, and controls, of a group that is shown."""
_OF_REPLICATES = (
    "a model of several replicates has the mean of their figures; its interval draws patients and replicates together,"
    " and is conditional on the checkpoint they were trained from. The ensemble is their mean probability, as one model"
)


@dataclass(frozen=True)
class EvaluationSettings:
    """What is asked."""

    risks: tuple[float, ...] = RISKS
    """Risks at which somebody would act."""
    specificities: tuple[float, ...] = SPECIFICITIES
    draws: int = DRAWS
    seed: int = SEED
    reference: str = ""
    """The model that the others are compared with; empty: the first."""


def evaluate(
    patients: EvaluatedPatients, models: Sequence[ComparedModel], settings: EvaluationSettings | None = None
) -> Evaluation:
    """Judge the models on the patients, all on the same draws.

    Raises ValueError where cases or controls are missing, two models have one name, or the reference is none of them.
    """
    settings = settings or EvaluationSettings()
    _check(patients, models, settings.reference)
    reference = settings.reference or models[0].name
    every = [*models, *(model.ensemble for model in models if len(model.replicates) > 1)]
    draws = patients.draws(settings.draws, settings.seed)
    groups = _groups(patients)
    judged = {model.name: _judge(model, patients, settings, draws, groups) for model in every}
    figures, curves = [], []
    for name, of_strata in judged.items():
        for stratum, one in of_strata.items():
            figures += _figures(name, stratum, one)
        figures += list(group_differences(name, of_strata, groups))
        curves += curve_rows(name, EVERYONE, of_strata[EVERYONE])
    for model in every:
        figures += list(_bounds(model, patients))
        if model.name != reference:
            pair = judged[model.name][EVERYONE], judged[reference][EVERYONE]
            figures += list(model_differences(model.name, reference, *pair))
    return Evaluation(
        _about(patients, models, settings, reference, groups),
        pl.DataFrame(with_holm(figures), schema=FIGURE_SCHEMA, orient="row"),
        pl.DataFrame(curves, schema=CURVE_SCHEMA, orient="row"),
    )


def _check(patients: EvaluatedPatients, models: Sequence[ComparedModel], reference: str) -> None:
    names = [model.name for model in models]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"models that are compared must have a name each: got {', '.join(names) or 'none'}; name them")
    if reference and reference not in names:
        raise ValueError(f"the reference must be one of the models: got {reference!r}; use one of {', '.join(names)}")
    cases, controls = (int(np.count_nonzero(patients.label == label)) for label in (1, 0))
    if not cases or not controls:
        raise ValueError(
            f"an evaluation needs cases and controls: got {cases} and {controls} in {patients.name}; take a larger test"
            " split"
        )


def _groups(patients: EvaluatedPatients) -> dict[str, dict[str, np.ndarray]]:
    """Group → level → which of the patients with a known label; of levels with enough cases and controls, if two.

    Of a patient with several rows one case and one control count.
    """
    label, subject, found = patients.label[patients.known], patients.subject[patients.known], {}
    clustered = patients.is_clustered

    def few(places: np.ndarray) -> bool:
        of = [places[label[places] == one] for one in (0, 1)]
        return min(len(np.unique(subject[rows])) if clustered else len(rows) for rows in of) < FEWEST_OF_GROUP

    for group, levels in patients.strata.items():
        of_known = levels[patients.known]
        rows = {level: np.flatnonzero(of_known == level) for level in in_order(np.unique(of_known).tolist())}
        rows = {level: places for level, places in rows.items() if not few(places)}
        if len(rows) > 1:
            found[group] = rows
    return found


def _judge(
    model: ComparedModel,
    patients: EvaluatedPatients,
    settings: EvaluationSettings,
    draws: Draws,
    groups: dict[str, dict[str, np.ndarray]],
) -> dict[str, Judged]:
    """Stratum → what is found of the model in it, on these draws."""
    known, absolute = patients.known, patients.design.absolute
    label, weight = patients.label[known].astype(np.float64), patients.weight[known]
    strata = {EVERYONE: np.arange(len(label))}
    strata |= {f"{group}: {level}": rows for group, levels in groups.items() for level, rows in levels.items()}
    found: dict[str, list] = {stratum: [] for stratum in strata}
    curve_risks = spread(np.mean([replicate[known] for replicate in model.replicates], axis=0))
    for replicate in model.replicates:
        probabilities = replicate[known]
        measures = {
            stratum: Measures(
                label[rows],
                probabilities[rows],
                absolute=absolute,
                risks=settings.risks,
                specificities=settings.specificities if stratum == EVERYONE else (),
                sets=patients.sets[known] if patients.sets is not None and stratum == EVERYONE else None,
                full=stratum == EVERYONE,
                curve_risks=curve_risks,
            )
            for stratum, rows in strata.items()
        }
        sample, of_draws = drawn(measures, strata, draws, curves=absolute)
        for stratum in strata:
            found[stratum].append((sample[stratum], of_draws[stratum]))
    picked = replicate_weights(len(model.replicates), settings.draws, settings.seed)
    return {
        stratum: Judged.of_replicates(
            found[stratum],
            picked,
            labels=label[rows],
            probabilities=[replicate[known][rows] for replicate in model.replicates],
            subjects=patients.subject[known][rows],
            weights=weight[rows],
            plain=not patients.is_weighted and patients.sets is None,
        )
        for stratum, rows in strata.items()
    }


def _figures(name: str, stratum: str, judged: Judged) -> Iterator[tuple]:
    """A row for every metric of a model in a stratum."""
    for (metric, at), value in judged.sample.items():
        if metric in ("calibration", "decision", "decision_all"):  # points of curves
            continue
        interval, how = percentile_interval(value, judged.draws[metric, at]), judged.bootstrap_words
        if metric == "auroc":
            interval, how = auroc_interval(judged, interval)
        yield figure_row(FIGURE, name, "", stratum, metric, at, interval, how, judged.counts)


def _bounds(model: ComparedModel, patients: EvaluatedPatients) -> Iterator[tuple]:
    """Best and worst case of whatever became of the censored, without weights; of sampled or matched controls none."""
    censored = int(np.count_nonzero(~patients.known))
    probabilities = np.mean(model.replicates, axis=0)
    if not censored or not np.isfinite(probabilities).all() or patients.design.sampling != "everybody":
        return
    counts = len(patients.label), int(np.count_nonzero(patients.label == 1))
    bounds = (
        ("auroc", auroc_bounds),
        ("brier", brier_bounds),
        ("observed_to_expected", observed_to_expected_bounds),
    )
    for metric, of in bounds:
        low, high = of(patients.label, probabilities)
        how = f"best and worst case of {censored} censored"
        yield figure_row(BOUND, model.name, "", EVERYONE, metric, None, (None, low, high), how, counts)


def _about(
    patients: EvaluatedPatients,
    models: Sequence[ComparedModel],
    settings: EvaluationSettings,
    reference: str,
    groups: dict[str, dict[str, np.ndarray]],
) -> dict:
    """What has to be known beside the numbers, as JSON data."""
    design, known = patients.design, patients.known
    said = [design.refused] if design.refused else []
    if censored := int(np.count_nonzero(~known)):
        said.append(f"{censored} censored patients count through the weights of those who were followed")
        if any(np.isnan(model.replicates[0]).any() for model in models):
            said.append("no bounds: the censored were not predicted")
    if any(len(model.replicates) > 1 for model in models):
        said.append(_OF_REPLICATES)
    if left := sorted(set(patients.strata) - set(groups)):
        few = f"fewer than two levels with {FEWEST_OF_GROUP} cases and controls"
        said.append(f"groups that are not shown, for {few}: {', '.join(left)}")
    return {
        "cohort": patients.name,
        "dataset_hash": patients.dataset_hash,
        "split": "test",
        "design": asdict(design),
        "counts": {
            "rows": len(patients.label),
            "subjects": len(np.unique(patients.subject)),
            "cases": int(np.count_nonzero(patients.label == 1)),
            "controls": int(np.count_nonzero(patients.label == 0)),
            "censored": censored,
        },
        "weighted": patients.is_weighted,
        "resampled": "matched sets" if patients.sets is not None else "subjects",
        "models": [
            {"name": model.name, "replicates": len(model.replicates), "files": [list(file) for file in model.files]}
            for model in models
        ],
        "reference": reference,
        "risks": list(settings.risks),
        "specificities": list(settings.specificities),
        "draws": settings.draws,
        "seed": settings.seed,
        "confidence": CONFIDENCE,
        "said": said,
    }
