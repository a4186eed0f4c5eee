"""A kept model at another site: the labels are those of its spec there, and what is fitted is not reported on."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from made_ehr import made_tables
from prepared_datasets import prepare_cohort

from medbert_jax import cli
from medbert_jax.ehr.tables import write_tables
from medbert_jax.evaluation.evaluate import EvaluationSettings
from medbert_jax.evaluation.stored_evaluation import read_evaluation
from medbert_jax.metrics.discrimination import auroc
from medbert_jax.prediction.external_validation import AS_IT_IS, validate_at
from medbert_jax.prediction.predictor import load_predictor

QUICK = EvaluationSettings(draws=100)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory) -> Path:
    """Other people of the same kind."""
    folder = tmp_path_factory.mktemp("elsewhere")
    write_tables(made_tables(2000, seed=9), folder / "ehr", shards=2)
    return folder / "ehr"


def figures(evaluation, metric: str) -> dict[str, float]:
    rows = evaluation.figures.filter(kind="figure", stratum="everyone", metric=metric)
    return dict(rows.select("model", "value").iter_rows())


@pytest.mark.parametrize("which", ["risk", "score"])
def test_labels_and_times_are_those_of_the_cohort_there(trained, elsewhere, tmp_path, which):
    predictor = load_predictor(trained.runs[which])
    found = validate_at(predictor, elsewhere, fit_share=0, settings=QUICK)
    spec = trained.runs[which].with_name(f"{which}.yaml")
    common = {"data_dir": tmp_path, "announce": lambda text: None, "few_cases": True}
    there = prepare_cohort(elsewhere, str(spec), which, pretraining_dataset=_pretraining(trained), **common)
    expected = pl.read_parquet(there / "cohort.parquet").select("patient_id", "prediction_time", "label")
    rows = found.rows.select(patient_id="subject_id", prediction_time="prediction_time", label="label")
    assert rows.sort("patient_id").equals(expected.sort("patient_id")) and len(rows) > 200
    assert figures(found.evaluation, "auroc") == {
        AS_IT_IS: pytest.approx(auroc(found.rows["label"].to_numpy(), found.rows["probability"].to_numpy()))
    }
    assert found.evaluation.about["design"]["estimand"] == which
    assert found.ledger.kept.patients == len(rows)


def _pretraining(trained) -> Path:
    (dataset,) = (trained.ehr.parent / "data" / "ehr_pretraining").glob("made/1.0.0")
    return dataset


def test_recalibration_is_fitted_on_some_and_reported_on_the_others(trained, elsewhere):
    predictor = load_predictor(trained.runs["risk"])
    off = replace(predictor, predict=lambda sequences: predictor.predict(sequences) ** 3)
    found = validate_at(off, elsewhere, settings=QUICK)
    fitted, reported = (found.rows.filter(part=part) for part in ("fitted on", "reported"))
    assert min(len(fitted), len(reported)) > 0.4 * len(found.rows)
    assert found.evaluation.about["counts"]["rows"] == len(reported)
    ratios = figures(found.evaluation, "observed_to_expected")
    assert set(ratios) == {AS_IT_IS, *found.recalibrations} and ratios[AS_IT_IS] > 5
    others = [ratio for name, ratio in ratios.items() if name != AS_IT_IS]
    assert others and all(0.5 < ratio < 2 for ratio in others)
    assert len(set(figures(found.evaluation, "auroc").values())) == 1  # it moves nobody past another
    # Of those it was fitted on, the sum is theirs.
    by = found.recalibrations["recalibrated in the large"]
    odds = by["intercept"] + np.log(fitted["probability"] / (1 - fitted["probability"]))
    assert (1 / (1 + np.exp(-odds))).sum() == pytest.approx((fitted["label"] == 1).sum(), rel=1e-6)


def test_the_tables_of_the_training_are_no_other_site(trained):
    with pytest.raises(ValueError, match="needs patients of another site or time"):
        validate_at(load_predictor(trained.runs["risk"]), trained.ehr)


def test_labels_are_not_given_where_a_spec_makes_them(trained, elsewhere, tmp_path):
    with pytest.raises(ValueError, match="got --labels and a spec; leave --labels out"):
        validate_at(load_predictor(trained.runs["risk"]), elsewhere, labels=tmp_path)


def test_one_command_writes_the_evaluation_and_what_it_rests_on(trained, elsewhere, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    typed = ["external-validation", trained.runs["risk"] / "baselines" / "shape", elsewhere, out, "--draws", "100"]
    monkeypatch.setattr(sys, "argv", ["medbert", *map(str, typed)])
    cli.main()
    assert "made-risk at another site: evaluation" in capsys.readouterr().out
    found, about = read_evaluation(out), json.loads((out / "external_validation.json").read_text())
    assert {AS_IT_IS, "recalibrated in the large"} <= set(found.figures["model"])
    rows = pl.read_parquet(out / "predictions.parquet")
    assert about["fitted_on"] + about["reported"] == len(rows) and rows["boolean_value"].is_not_null().all()
    assert about["test_at_home"]["auroc"] > 0
    assert json.loads((out / "ledger.json").read_text())["kept"]["patients"] == len(rows)
