"""What a kept model says of patients without labels is what it said of its test patients, and of nobody else's time."""

import json
import shutil
import sys
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from made_ehr import made_tables

from medbert_jax import cli
from medbert_jax.cohorts.loading import load_spec
from medbert_jax.cohorts.select import select_cohort
from medbert_jax.data.token_store import open_token_store
from medbert_jax.ehr.tables import read_tables, write_tables
from medbert_jax.evaluation.predictions import SCHEMA, read_predictions
from medbert_jax.prediction.predictor import load_predictor
from medbert_jax.prediction.score import score

KEY = ["subject_id", "prediction_time"]
BASELINES = ("baselines/shape", "baselines/age+sex")


def predictions_of(predictor, trained) -> pl.DataFrame:
    """Those that were filed when it was trained."""
    return read_predictions(trained.results / "predictions" / f"{predictor.about['run_id']}.parquet").frame


def predict(monkeypatch, *typed) -> None:
    monkeypatch.setattr(sys, "argv", ["medbert", "predict", *map(str, typed)])
    cli.main()


def about_of(folder) -> dict:
    return json.loads((folder / "scores.json").read_text())


@pytest.mark.parametrize("which", ["risk", "score"])
@pytest.mark.parametrize("model", ["", *BASELINES])
def test_the_test_patients_get_the_filed_predictions(trained, which, model):
    predictor = load_predictor(trained.runs[which] / model)
    filed = predictions_of(predictor, trained)
    test = open_token_store(trained.cohorts[which], "test")
    assert (predictor.predict(test) == filed["predicted_boolean_probability"].to_numpy()).all()  # the same row plan
    found = score(predictor, trained.ehr).rows
    both = filed.join(found, on=KEY)
    assert len(both) == len(filed) >= 40 and np.ptp(both["probability"].to_numpy()) > 0
    far = (both["probability"] - both["predicted_boolean_probability"]).abs().max()
    assert far == 0 if model else far < 1e-6


def test_another_patients_record_is_another_score(trained):
    """The comparison above can fail."""
    predictor = load_predictor(trained.runs["risk"])
    filed, found = predictions_of(predictor, trained), score(predictor, trained.ehr).rows
    both = filed.join(found.with_columns(pl.col("probability").shift(1)), on=KEY).drop_nulls("probability")
    assert (both["probability"] - both["predicted_boolean_probability"]).abs().max() > 1e-3


def test_everybody_is_scored_or_in_the_ledger(trained):
    for which, patients in (("risk", trained.tables.patients), ("score", trained.tables.patients)):
        found = score(load_predictor(trained.runs[which]), trained.ehr)
        assert found.ledger.came.patients == patients.height
        assert found.ledger.kept.patients == len(found.rows)
        assert set(found.rows["subject_id"]) | set(found.exits["subject_id"]) == set(patients["patient_id"])
        assert len(found.rows) + len(found.exits) == patients.height
        left = dict(found.exits["rule"].value_counts().iter_rows())
        assert left == {line.rule: line.left.patients for line in found.ledger.lines if line.left.patients}
        assert len(left) > 1


def test_who_is_not_followed_long_enough_has_no_label_and_a_risk(trained, tmp_path):
    """The same source, read two years after its first day: many were seen for the first time in the last of them."""
    end = datetime(2010, 1, 1)
    early = trained.tables.visits.filter(pl.col("discharge_time") < end)
    key = ["patient_id", "visit_id"]
    frames = {
        name: table.join(early.select(key), on=key, how="semi", maintain_order="left")
        for name, table in trained.tables.present().items()
        if name not in ("patients", "visits")
    }
    write_tables(replace(trained.tables, visits=early, **frames), tmp_path / "ehr", shards=2)
    predictor = load_predictor(trained.runs["risk"])
    found, tables = score(predictor, tmp_path / "ehr"), read_tables(tmp_path / "ehr")
    members, _ = select_cohort(tables, predictor.spec)
    late = found.rows.filter(pl.col("prediction_time") > end - timedelta(days=365))
    assert len(late) > 50 and late["probability"].is_not_null().all()
    assert members.height > 50 and not set(late["subject_id"]) & set(members["patient_id"])
    assert set(members["patient_id"]) < set(found.rows["subject_id"])
    assert "followed_too_short" in " ".join(found.said)


def test_a_record_changed_after_the_prediction_changes_nothing(trained, tmp_path):
    predictor = load_predictor(trained.runs["risk"])
    before = score(predictor, trained.ehr)
    cut = before.rows.select(patient_id="subject_id", at="prediction_time")
    tables, day = trained.tables, timedelta(days=1)
    marked = tables.visits.join(cut, on="patient_id", how="left", maintain_order="left")
    later = marked.filter(pl.col("admit_time") > pl.col("at") + day).select("patient_id", "visit_id")
    assert len(later) > 1000
    kept = tables.visits.join(later, on=["patient_id", "visit_id"], how="anti", maintain_order="left")
    without = {
        name: table.join(later, on=["patient_id", "visit_id"], how="anti", maintain_order="left")
        for name, table in tables.present().items()
        if name not in ("patients", "visits")
    }
    people = tables.patients.join(cut, on="patient_id", how="left", maintain_order="left")
    died = pl.when(pl.col("at").is_null() | (pl.col("death_date") <= pl.col("at").dt.date())).then("death_date")
    people = people.with_columns(died.alias("death_date")).drop("at")
    write_tables(replace(tables, patients=people, visits=kept, **without), tmp_path / "ehr", shards=2)
    after = score(predictor, tmp_path / "ehr")
    assert after.rows.equals(before.rows)
    assert after.exits.equals(before.exits)


def test_a_risk_is_recalibrated_and_has_a_place_among_the_validation_patients(trained):
    predictor = load_predictor(trained.runs["risk"])
    said, rows = predictor.about["validation"], score(predictor, trained.ehr).rows
    assert predictor.is_risk and said["recalibration"]["kind"] == "in the large"  # of fewer than 100 cases
    assert said["cases"] < 100 and "100 cases" in said["recalibration"]["why"]
    assert rows["recalibrated_probability"].is_between(0, 1).all()
    members = pl.read_parquet(trained.cohorts["risk"] / "cohort.parquet").filter(split="validation")
    validation = rows.join(members, left_on="subject_id", right_on="patient_id")
    assert validation["recalibrated_probability"].mean() == pytest.approx(said["cases"] / said["predictions"], abs=1e-4)
    assert validation["percentile"].mean() == pytest.approx(50, abs=2)
    assert predictor.about["design"]["horizon_days"] == 365
    assert predictor.about["test"]["auroc"] > 0 and predictor.about["train"]["cases"] > 10
    assert any(one["flagged"] > 0 for one in said["thresholds"])


def test_a_score_is_no_risk_and_says_why(trained, tmp_path, monkeypatch, capsys):
    predict(monkeypatch, trained.runs["score"], trained.ehr, tmp_path / "out")
    said, about = capsys.readouterr().out, about_of(tmp_path / "out")
    assert "scores and no risks, without thresholds: a case is predicted before the first encounter" in said
    assert about["estimand"] == "score" and about["thresholds"] == []
    frame = pl.read_parquet(tmp_path / "out" / "predictions.parquet")
    assert frame["recalibrated_probability"].is_null().all() and frame["percentile"].is_null().all()
    assert frame["predicted_boolean_value"].is_null().all() and "never_seen_again" in said
    with pytest.raises(SystemExit):
        predict(monkeypatch, trained.runs["score"], trained.ehr, tmp_path / "out", "--threshold", "0.1")
    assert "a threshold is one of risk: got 0.1, and a model that gives a score" in capsys.readouterr().err


def test_what_is_written_is_meds_and_knows_no_label(trained, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    predict(monkeypatch, trained.runs["risk"], trained.ehr, out, "--threshold", "0.2")
    read, frame = read_predictions(out / "predictions.parquet"), pl.read_parquet(out / "predictions.parquet")
    assert list(read.frame.columns) == list(SCHEMA) and read.time_is_ordinal is False
    assert read.frame["boolean_value"].is_null().all()
    assert frame["predicted_boolean_value"].equals(frame["recalibrated_probability"] >= 0.2)
    about, ledger = about_of(out), json.loads((out / "ledger.json").read_text())
    assert about["estimand"] == "risk" and about["threshold"] == 0.2
    counts = about["counts"]
    assert counts["scored"] + counts["not_scored"] == counts["patients"] == ledger["came"]["patients"]
    assert ledger["kept"]["patients"] == counts["scored"] == len(frame)
    gone = pl.read_parquet(out / "not_scored.parquet")
    assert gone.columns == ["subject_id", "rule"] and len(gone) == counts["not_scored"]
    assert "risks within 365 days" in capsys.readouterr().out


def test_whole_numbers_are_ids_as_meds_has_them(trained, tmp_path, monkeypatch):
    number = pl.col("patient_id").str.extract(r"(\d+)$").cast(pl.Int64).cast(pl.String)
    frames = {name: table.with_columns(number) for name, table in trained.tables.present().items()}
    write_tables(replace(trained.tables, **frames), tmp_path / "ehr")
    predict(monkeypatch, trained.runs["risk"], tmp_path / "ehr", tmp_path / "out")
    for name in ("predictions", "not_scored"):
        assert pl.read_parquet(tmp_path / "out" / f"{name}.parquet").schema["subject_id"] == pl.Int64


def test_those_who_are_asked_for_are_read_alone(trained, tmp_path, monkeypatch, capsys):
    predictor = load_predictor(trained.runs["risk"])
    everybody = score(predictor, trained.ehr)
    one, other = everybody.rows["subject_id"][3], everybody.exits["subject_id"][0]
    asked = tmp_path / "ids.txt"
    asked.write_text(f"subject_id\n{one}\n{other}\nnobody\n")
    predict(monkeypatch, trained.runs["risk"], trained.ehr, tmp_path / "out", "--patients", asked)
    frame = pl.read_parquet(tmp_path / "out" / "predictions.parquet")
    (found,) = frame["predicted_boolean_probability"].to_list()
    assert frame["subject_id"].to_list() == [one]
    assert found == pytest.approx(everybody.rows["probability"][3], abs=1e-6)
    gone = pl.read_parquet(tmp_path / "out" / "not_scored.parquet")
    assert dict(gone.iter_rows()) == {"nobody": "not_in_tables", other: everybody.exits["rule"][0]}
    ledger = json.loads((tmp_path / "out" / "ledger.json").read_text())
    assert ledger["came"]["patients"] == 3 and ledger["kept"]["patients"] == 1
    assert one in capsys.readouterr().out
    pl.DataFrame({"patient_id": [one]}).write_parquet(tmp_path / "ids.parquet")
    assert score(predictor, trained.ehr, patients=["made-00007"]).ledger.came.patients == 1


def test_codes_that_the_vocabulary_does_not_know_are_counted_and_too_many_refused(trained, tmp_path):
    predictor = load_predictor(trained.runs["risk"])
    before = score(predictor, trained.ehr)
    is_other = (pl.col("code_system") == "ICD10CM") & (pl.col("code") != "I50.9")
    renamed = pl.when(is_other).then(pl.lit("SNOMED")).otherwise("code_system").alias("code_system")
    other = replace(trained.tables, diagnoses=trained.tables.diagnoses.with_columns(renamed))
    write_tables(other, tmp_path / "ehr", shards=2)
    after = score(predictor, tmp_path / "ehr", unknown_code_limit=1.0)
    assert after.rows["unknown_codes"].sum() > before.rows["unknown_codes"].sum()
    names = after.unknown["code"].str.starts_with("SNOMED/")
    assert names.any() and after.unknown["occurrences"].sum() == after.rows["unknown_codes"].sum()
    with pytest.raises(ValueError, match=r"at most 5% of the codes may be unknown .* got \d.*%\s+\(SNOMED"):
        score(predictor, tmp_path / "ehr", unknown_code_limit=0.05)


def test_what_cannot_predict_is_told(trained, tmp_path):
    with pytest.raises(ValueError, match="a pretraining, which predicts no disease; give the folder of run_finetune"):
        load_predictor(trained.pretraining)
    with pytest.raises(ValueError, match="no run there; give the folder of run_finetune"):
        load_predictor(tmp_path)
    run = Path(shutil.copytree(trained.runs["risk"], tmp_path / "run"))
    said = json.loads((run / "predictor.json").read_text())
    (run / "predictor.json").write_text(json.dumps(said | {"back_off": True}))
    with pytest.raises(ValueError, match=r"predictor.json must be as it was written"):
        load_predictor(run)
    shutil.copy(trained.runs["score"] / "predictor.json", run)
    with pytest.raises(ValueError, match=r"predictor.json must be of the parameters beside it"):
        load_predictor(run)
    (run / "predictor.json").unlink()
    with pytest.raises(ValueError, match=r"a fine-tuned run without predictor\.json, as earlier versions wrote it"):
        load_predictor(run)
    shutil.copy(trained.runs["risk"] / "predictor.json", run)
    vocabulary = (run / "vocabulary.tsv").read_text()
    (run / "vocabulary.tsv").write_text(vocabulary.replace("ICD10CM/I10\t", "ICD10CM/I10.1\t"))
    with pytest.raises(ValueError, match=r"others as vocabulary.tsv"):
        load_predictor(run)


def test_a_source_without_dates_is_scored_where_the_index_needs_none(trained, tmp_path, monkeypatch):
    write_tables(made_tables(50, seed=1, dates=False), tmp_path / "undated")
    predict(monkeypatch, trained.runs["risk"], tmp_path / "undated", tmp_path / "out")
    found = read_predictions(tmp_path / "out" / "predictions.parquet")
    assert found.time_is_ordinal is True and found.frame["prediction_time"].dt.year().max() == 1970
    predictor = load_predictor(trained.runs["risk"])
    landmark = replace(predictor, about=predictor.about | {"cohort": load_spec("dhf-landmark").to_dict()})
    with pytest.raises(ValueError, match=r"index 'first_visit_after' need days: the source has no dates"):
        score(landmark, tmp_path / "undated")
