"""A reported cohort of simulated patients, as a page takes it, without the training that its results would take."""

import functools
import json
from dataclasses import replace

import numpy as np
import polars as pl
from evaluation.made_patients import made_patients, made_risks, model
from scipy.special import expit, logit

from medbert_jax.attrition.ledger import Counts, Ledger
from medbert_jax.attrition.steps import Attrition
from medbert_jax.cohorts.loading import load_spec
from medbert_jax.evaluation.evaluate import EvaluationSettings, evaluate
from medbert_jax.evaluation.reruns import with_variants
from medbert_jax.evaluation.results import RECORD_SCHEMA, ROW_SCHEMA
from medbert_jax.evaluation.stored_evaluation import Evaluation
from medbert_jax.reporting.figures import DrawnFigure, draw
from medbert_jax.reporting.learning import learning_curve
from medbert_jax.reporting.reported_cohort import ReportedCohort
from medbert_jax.reporting.reported_models import AGE_AND_SEX, SHAPE, with_names

MODEL = "Med-BERT pretrained, Bi-GRU"
BACKBONES = {MODEL: ("pretrained", "bi_gru"), SHAPE: ("record_shape", "shape"), AGE_AND_SEX: ("age_sex", "age+sex")}


@functools.cache
def made_evaluation(n: int = 900, seed: int = 0) -> Evaluation:
    label, risk = made_risks(n, seed)
    random = np.random.default_rng(seed + 1)
    sex = np.where(random.random(n) < 0.5, "female", "male")
    race = random.choice(["White", "Asian", "unknown"], n, p=[0.78, 0.2, 0.02])
    worse = expit(logit(risk) * 0.6 + random.normal(-0.6, 0.7, n))
    worst = expit(random.normal(-1.5, 0.3, n) + 0.2 * label)
    models = [model(MODEL, risk), model(SHAPE, worse), model(AGE_AND_SEX, worst)]
    settings = EvaluationSettings(draws=100, reference=MODEL)
    found = evaluate(made_patients(label, strata={"sex": sex, "race": race}), models, settings)
    files = [one | {"files": [[f"{place}.parquet", "0" * 64]]} for place, one in enumerate(found.about["models"])]
    return replace(found, about=found.about | {"models": files})


@functools.cache
def made_figures() -> tuple[DrawnFigure, ...]:
    """Of the made cohort, drawn once."""
    one = made_cohort()
    return tuple(draw(made_evaluation(), one.models, learning_curve(one.runs, one.models)))


def made_runs(experiment: str = "made", **record) -> pl.DataFrame:
    rows = []
    for place, (backbone, head) in enumerate(BACKBONES.values()):
        for size, name in ((300, "300"), (2000, "all")):
            run = dict.fromkeys(RECORD_SCHEMA, "x") | {"seed": 0, "wall_time_s": 1.4, "epochs": 3}
            run |= {"run_id": f"{place}{size:015d}", "configuration": "{}", "versions": json.dumps({"jax": "0.10.2"})}
            cell = {"experiment": experiment, "cohort": "dhf", "backbone": backbone, "head": head, "replicate": 0,
                    "train_size": size, "train_size_name": name, "split": "test"}  # fmt: skip
            found = {"auroc": 0.7 - 0.05 * place + size / 1e5, "patients": 900.0, "cases": 180.0}
            rows += [run | cell | record | {"metric": metric, "value": value} for metric, value in found.items()]
    return pl.DataFrame(rows, schema={**RECORD_SCHEMA, **ROW_SCHEMA})


def made_attrition(cases: int, controls: int, *, few: int = 40) -> Attrition:
    """The test split has these; `few` left under one of the rules."""
    ledger = Ledger.start("made → dhf", patients=9_000 + few + cases + controls)
    ledger.leave("no_diabetes", "No encounter with diabetes", tag="paper", patients=4_000)
    ledger.leave("few", "Left by few", patients=few)
    for number in range(9):
        ledger.leave(f"rule_{number}", f"Rule {number}, in some words that are as long as such words are", patients=100)
    ledger.leave("idle", "Took nobody")
    branches = {
        "train": {"cases": Counts(800), "controls": Counts(2_500)},
        "validation": {"cases": Counts(200), "controls": Counts(600)},
        "test": {"cases": Counts(cases), "controls": Counts(controls)},
    }
    return Attrition([ledger], branches)


def made_cohort(experiment: str = "made", **changes) -> ReportedCohort:
    """Changes are of the fields; `evaluation=None` is quick, for a page without figures."""
    evaluation = changes.get("evaluation") or made_evaluation()
    counts = evaluation.about["counts"]
    about = {
        "experiment": experiment,
        "name": "dhf",
        "dataset_hash": "x" * 64,
        "runs": with_names(with_variants(made_runs(experiment))),
        "size": "all",
        "model": MODEL,
        "models": tuple(BACKBONES),
        "evaluation": evaluation,
        "metadata": {"source": {"format": "simulated"}, "split": {"ratios": [0.7, 0.1, 0.2]}},
        "spec": load_spec("dhf"),
        "attrition": made_attrition(counts["cases"], counts["controls"]),
    }
    return ReportedCohort(**about | changes)
