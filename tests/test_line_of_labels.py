"""The whole line on a folder of labels with several times of a patient: dataset → fine-tuning → evaluation → report."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np
import polars as pl
import pytest
from made_ehr import OUTCOME, made_tables
from prepared_datasets import prepare_cohort, prepare_pretraining
from test_line import FINETUNE, PRETRAIN

import run_finetune
import run_pretrain
from medbert_jax.attrition.files import read_attrition, write_attrition
from medbert_jax.attrition.ledger import Counts
from medbert_jax.commands import report as report_command
from medbert_jax.data.token_store import open_token_store, read_metadata
from medbert_jax.description.descriptives import describe_dataset
from medbert_jax.description.table2 import table2
from medbert_jax.ehr.hashing import SPLITS
from medbert_jax.ehr.split_rule import Split
from medbert_jax.ehr.tables import write_tables
from medbert_jax.evaluation.compared_models import read_models
from medbert_jax.evaluation.evaluate import EvaluationSettings, evaluate
from medbert_jax.evaluation.evaluated_patients import read_evaluated
from medbert_jax.evaluation.evaluation_tables import evaluation_tables
from medbert_jax.evaluation.figures import FIGURE, OBUCHOWSKI
from medbert_jax.evaluation.predictions import read_predictions
from medbert_jax.evaluation.results import read_results
from medbert_jax.evaluation.tables import auroc_table
from medbert_jax.experiments.grid import GridConfig
from medbert_jax.metrics.clusters import auroc_obuchowski
from medbert_jax.options import ReportOptions


@dataclass(frozen=True)
class Line:
    """Where everything lies."""

    labels: Path
    rows: pl.DataFrame
    pretraining: Path
    dataset: Path
    told: list[str]
    results: Path
    folder: Path


def labels_at_ends(tables) -> pl.DataFrame:
    """A label at the end of every encounter but the last: is heart failure coded at the next one?"""
    category = OUTCOME.partition("/")[2].split(".")[0]
    failed = tables.diagnoses.filter(pl.col("code").str.starts_with(category)).select("visit_id").unique()
    visits = tables.visits.join(failed.with_columns(failed=True), on="visit_id", how="left").sort("patient_id", "order")
    following = pl.col("failed").fill_null(False).shift(-1).over("patient_id")
    return visits.select(
        subject_id="patient_id", prediction_time=pl.col("discharge_time").cast(pl.Datetime("us")),
        boolean_value=following,
    ).drop_nulls()  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """Half the time to compile; the programs are small."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def line(tmp_path_factory) -> Line:
    folder = tmp_path_factory.mktemp("line")
    tables, ehr, labels, told = made_tables(500, seed=5), folder / "ehr", folder / "labels", []
    write_tables(tables, ehr, shards=2)
    labels.mkdir()
    rows = labels_at_ends(tables)
    rows.write_parquet(labels / "0.parquet")
    common = {"data_dir": folder / "data", "workers": 1}
    pretraining = prepare_pretraining(ehr, "made", announce=told.append, **common)
    dataset = prepare_cohort(
        ehr, str(labels), "ends", pretraining_dataset=pretraining, few_cases=True, labels="all", announce=told.append,
        **common,
    )  # fmt: skip
    run = run_pretrain.main(replace(PRETRAIN, dataset=str(pretraining), run=str(folder / "run")))
    finetune = replace(FINETUNE, checkpoint=str(run), results=str(folder / "results"))
    grid = GridConfig(
        (str(dataset),), finetune, (0,), 1, backbones=("pretrained",), heads=("bi_gru",), baselines=("age",)
    )
    run_finetune.main(replace(grid, train_sizes=(150,), heads=()))
    return Line(labels, rows, pretraining, dataset, told, run_finetune.main(grid), folder)


def prepare(line: Line, folder: Path, **settings) -> Path | None:
    """A dataset of the same tables and other labels."""
    common = {"few_cases": True, "workers": 1, "announce": lambda text: None, "pretraining_dataset": line.pretraining}
    return prepare_cohort(line.folder / "ehr", str(folder), "made", **common | settings)


def test_where_nobody_has_several_every_byte_is_that_of_the_first(line, tmp_path):
    (tmp_path / "labels").mkdir()
    single = line.rows.unique("subject_id", keep="last", maintain_order=True)
    single.write_parquet(tmp_path / "labels" / "0.parquet")
    made = [prepare(line, tmp_path / "labels", data_dir=tmp_path / which, labels=which) for which in ("first", "all")]
    first, every = ({path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
                    for folder in made)  # fmt: skip
    assert len(first) > 30 and first == every


def test_rows_of_a_patient_in_two_splits_are_refused(line, tmp_path, monkeypatch):
    by_patient = Split.assign

    def by_row(self, directory, ids):
        """As by the patient, but for one row."""
        split = by_patient(self, directory, ids)
        ids = [str(one) for one in ids]
        again = next((place for place, one in enumerate(ids) if one in ids[:place]), None)
        if again is not None:
            split[again] = (split[again] + 1) % len(SPLITS)
        return split

    monkeypatch.setattr(Split, "assign", by_row)
    with pytest.raises(ValueError, match="all rows of a patient must be in one split: got 2 patients with rows in"):
        prepare(line, line.labels, data_dir=tmp_path, labels="all")


def test_the_dataset_has_a_row_for_each_label_and_each_patient_one_split(line):
    metadata, cohort = read_metadata(line.dataset), pl.read_parquet(line.dataset / "cohort.parquet")
    of_split, stores = {}, {split: open_token_store(line.dataset, split) for split in SPLITS}
    for split, patients in stores.items():
        assert len(patients) == metadata["split"]["counts"][split] > metadata["patients"][split] == patients.patients
        of_split[split] = set(patients.patient_id.tolist())
        there = cohort.filter(split=split).select(
            pl.col("patient_id").cast(pl.Binary), pl.col("prediction_time").to_physical(), "label"
        )
        columns = (patients.patient_id, patients.outcomes["prediction_time"], patients.outcomes["label"])
        assert sorted(there.rows()) == sorted(zip(*(column.tolist() for column in columns), strict=True))
        assert there["label"].sum() == metadata["cases"][split]
    assert not of_split["train"] & of_split["test"] and not of_split["train"] & of_split["validation"]
    assert len(cohort) == cohort.select("patient_id", "prediction_time").n_unique() > 1000
    assert any("labels: " in text and "subjects" in text for text in line.told)
    assert any("where the rows of a patient say the same" in text for text in line.told)
    assert any(f"predictions of {metadata['patients']['test']:,} patients" in text for text in line.told)
    assert not any("Riley" in text for text in line.told)


def test_the_attrition_counts_patients_and_predictions(line, tmp_path):
    attrition = read_attrition([line.dataset])
    (ledger,), metadata = attrition.steps, read_metadata(line.dataset)
    assert ledger.came == Counts(500, *(ledger.came.visits, ledger.came.codes))
    kept = (sum(metadata["patients"].values()), sum(metadata["split"]["counts"].values()))
    assert (ledger.kept.patients, ledger.kept.predictions) == kept
    by_shard = json.loads((line.dataset / "ledger.json").read_text())["by_shard"]
    assert sum(part["kept"]["predictions"] for part in by_shard) == kept[1]
    table, chart = write_attrition(attrition, tmp_path / "flow")
    assert "predictions_left" in table.read_text()
    assert f"+{line.rows.height:,} predictions" in chart.read_text()
    with pytest.raises(ValueError, match="counts that are shared must be of patients: got predictions"):
        write_attrition(attrition, tmp_path / "flow", share=True)


def test_training_subsets_are_of_patients_with_all_their_rows(line):
    results = read_results(line.results)
    sizes = dict(results.select("train_size_name", "train_size").unique().iter_rows())
    assert sizes == {"150": 150, "all": read_metadata(line.dataset)["patients"]["train"]}


def test_results_are_of_subjects_and_evaluated_as_clusters(line):
    results = read_results(line.results).filter(split="test")
    patients = read_evaluated(line.dataset)
    assert patients.is_clustered and patients.design.estimand == "as labelled"
    for (run,), of_run in results.group_by("run_id"):
        found = dict(of_run.select("metric", "value").iter_rows())
        stored = read_predictions(line.results / "predictions" / f"{run}.parquet").frame
        assert stored.select("subject_id", "prediction_time").n_unique() == len(stored) == found["predictions"]
        assert stored["subject_id"].n_unique() == found["patients"]
        truth = stored["boolean_value"].cast(pl.Int8).to_numpy()
        wanted = auroc_obuchowski(truth, stored["predicted_boolean_probability"].to_numpy(), stored["subject_id"])
        assert (found["auroc_low"], found["auroc_high"]) == pytest.approx((wanted.low, wanted.high), abs=1e-12)
    paths = sorted((line.results / "predictions").glob("*.parquet"))
    evaluation = evaluate(patients, read_models(paths, patients), EvaluationSettings(draws=50))
    of_auroc = evaluation.figures.filter(kind=FIGURE, metric="auroc", stratum="everyone")
    assert set(of_auroc["how"]) == {OBUCHOWSKI}
    (first, *_) = evaluation_tables(evaluation)
    assert f"{len(patients.label):,} rows of {len(np.unique(patients.subject)):,} subjects" in first.notes[0]


def test_predictions_of_our_own_are_judged_on_the_folder_of_labels_too(line, tmp_path):
    """A folder with the test rows alone: the same figures as on the dataset."""
    patients = read_evaluated(line.dataset)
    times = pl.Series(patients.time).cast(pl.Datetime("us"))
    columns = {"subject_id": patients.subject, "prediction_time": times, "boolean_value": patients.label.astype(bool)}
    pl.DataFrame(columns).write_parquet(tmp_path / "test.parquet")
    paths, asked = sorted((line.results / "predictions").glob("*.parquet"))[:2], EvaluationSettings(draws=50)
    on_labels = read_evaluated(tmp_path)
    one, other = (evaluate(who, read_models(paths, who, ("a", "b")), asked).figures.filter(stratum="everyone")
                  for who in (patients, on_labels))  # fmt: skip
    keys = ["kind", "model", "metric", "at", "n", "cases"]
    assert one.select(keys).equals(other.select(keys))
    assert np.allclose(one["value"].to_numpy(), other["value"].to_numpy(), rtol=0, atol=1e-9, equal_nan=True)
    in_closed_form = one["metric"] == "auroc"  # the rows come in another order, and so draws are of other patients
    assert np.allclose(*(of.filter(in_closed_form)["low"].to_numpy() for of in (one, other)), rtol=0, atol=1e-12)


def test_tables_and_report_say_how_many_patients_and_predictions(line, tmp_path, capsys):
    metadata = read_metadata(line.dataset)
    patients, rows = metadata["patients"]["test"], metadata["split"]["counts"]["test"]
    (table,) = auroc_table(read_results(line.results))
    assert f"{patients:,} patients, {rows:,} predictions" in " ".join(table.notes)
    described = table2([describe_dataset(line.dataset)]).printed
    shown = {row[0]: row[1] for row in described.rows}
    assert shown["patients"] == f"{sum(metadata['patients'].values()):,}"
    assert shown["predictions"] == f"{sum(metadata['split']['counts'].values()):,}"
    options = ReportOptions(line.results, data_dir=line.folder / "data", out=tmp_path / "report", draws=100)
    report_command(options)
    page = (tmp_path / "report" / "report.html").read_text()
    assert f"{patients:,} patients ({rows:,} predictions)" in page
    (flow,) = (tmp_path / "report").glob("*__flow.svg")
    assert f"+{line.rows.height:,} predictions" in flow.read_text()
    assert "Sampling: everybody, clustered by patient" in page and "Several predictions of a patient" in page
    with pytest.raises(ValueError, match="counts that are shared must be of patients"):
        report_command(replace(options, share=True, out=tmp_path / "shared"))
