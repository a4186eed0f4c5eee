"""The whole line on the made data set: EHR tables → datasets → pretraining → cohort → fine-tuning → table."""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np
import polars as pl
import pytest
from made_ehr import OUTCOME, made_tables
from prepared_datasets import prepare_cohort, prepare_pretraining

import medbert_jax
import run_finetune
import run_pretrain
from medbert_jax.baselines.scikit_model import ScikitModel
from medbert_jax.data.row_plan import RowsConfig
from medbert_jax.data.token_store import open_token_store, read_metadata
from medbert_jax.data.vocabulary import Vocabulary
from medbert_jax.ehr.tables import write_tables
from medbert_jax.evaluation.predictions import SCHEMA, read_predictions
from medbert_jax.evaluation.results import read_results
from medbert_jax.evaluation.tables import auroc_table
from medbert_jax.experiments.grid import GridConfig
from medbert_jax.metrics.discrimination import auroc
from medbert_jax.models.config import ModelConfig
from medbert_jax.models.finetune_heads import HeadConfig
from medbert_jax.training import checkpointing
from medbert_jax.training.config import FinetuneConfig, PretrainConfig
from medbert_jax.training.manifest import committed_steps, verify_step
from medbert_jax.training.masking import MaskingConfig
from medbert_jax.training.optimizer import OptimizerConfig

COHORT = f"""
name: made-heart-failure
title: Heart failure in the made health system
description: Is heart failure coded at a visit after the first?
code_sets:
  - {{id: failure, description: Heart failure, prefixes: ["{OUTCOME.split(".")[0]}"], tag: ours}}
outcome: {{codes: failure, description: A heart-failure code, tag: ours}}
index: {{cases: first_outcome_visit, controls: last_visit, description: Its visit or the last one, tag: ours}}
input: {{until: before_index, minimum_codes: 1, description: The visits before the index, tag: ours}}
rules:
  - id: two_visits
    description: Fewer than two visits
    tag: ours
    when: {{measure: visits, window: whole_record, fewer_than: 2}}
"""
PRETRAIN = PretrainConfig(
    steps=6,
    model=ModelConfig(hidden_size=32, layers=2, heads=2, feed_forward_size=32, max_visits=64, max_length=32),
    rows=RowsConfig(batch_size=64, short_row=32),
    masking=MaskingConfig(share=0.25),
    optimizer=OptimizerConfig(learning_rate=1e-3, schedule="constant", warmup_steps=2),
    checkpoint_every=3,
    evaluate_every=4,
    log_every=1,
)
FINETUNE = FinetuneConfig(
    head=HeadConfig(gru_hidden=8),
    optimizer=replace(FinetuneConfig().optimizer, learning_rate=1e-3),
    batch_size=256,
    max_epochs=1,
)


@dataclass(frozen=True)
class Line:
    """Where everything of one run of the line lies."""

    dataset: Path
    cohort: Path
    undated_cohort: Path
    run: Path
    grid: GridConfig
    results: Path


def prepare(folder: Path, name: str, *, dates: bool, dataset: Path | None = None) -> tuple[Path, Path]:
    """The cohort of the made tables, and the pretraining dataset it inherits from (theirs, where none is given)."""
    ehr, spec = folder / f"ehr-{name}", folder / "heart.yaml"
    write_tables(made_tables(500, seed=5, dates=dates), ehr, shards=2)
    spec.write_text(COHORT)
    common = {"data_dir": folder / "data", "announce": lambda text: None}
    dataset = dataset or prepare_pretraining(ehr, name, **common)
    return dataset, prepare_cohort(ehr, str(spec), name, pretraining_dataset=dataset, few_cases=True, **common)


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """Half the time to compile; the programs are small."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def line(tmp_path_factory) -> Line:
    """Dropout on, two checkpoints; both backbones with two heads, and four baselines."""
    folder = tmp_path_factory.mktemp("line")
    dataset, cohort = prepare(folder, "dated", dates=True)
    _, undated_cohort = prepare(folder, "undated", dates=False, dataset=dataset)
    run = run_pretrain.main(replace(PRETRAIN, dataset=str(dataset), run=str(folder / "run")))
    grid = GridConfig(
        datasets=(str(cohort),),
        finetune=replace(FINETUNE, checkpoint=str(run), results=str(folder / "results")),
        train_sizes=(0,),
        replicates=1,
    )
    return Line(dataset, cohort, undated_cohort, run, grid, run_finetune.main(grid))


def files(folder: Path) -> dict[str, int]:
    """Every file and when it was written."""
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()}


def metrics(run: Path) -> list[dict]:
    """The rows of metrics.jsonl without what the clock says."""
    rows = [json.loads(row) for row in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "patients_per_second"} for row in rows]


def test_pretraining_leaves_a_model_and_its_metrics(line):
    assert committed_steps(line.run) == [3, 6]
    rows = metrics(line.run)
    assert [row["step"] for row in rows if row["kind"] == "validation"] == [4, 6]
    assert [row["step"] for row in rows if row["kind"] == "train"][-1] == 6
    assert all(np.isfinite(row["masked_code_loss"]) and 0 <= row["masked_code_accuracy"] <= 1 for row in rows)
    assert all(0 < row["prolonged_los_auroc"] < 1 for row in rows if row["kind"] == "validation")
    model = medbert_jax.load_pretrained(line.run)
    assert model.step == 6 and model.config == replace(PRETRAIN.model, vocabulary_size=model.vocabulary.size)
    assert model.vocabulary.hash == Vocabulary.read(line.dataset / "vocabulary.tsv").hash


def test_every_run_of_the_grid_is_in_the_results_and_in_the_table(line):
    results = read_results(line.results)
    assert set(results.select("backbone", "head").iter_rows()) == {
        (backbone, head) for backbone in ("untrained", "pretrained") for head in ("feed_forward", "bi_gru")
    } | {
        ("age_band", "age"),
        ("logistic_regression", "codes"),
        ("age_sex", "age+sex"),
        ("record_shape", "shape"),
    }
    assert results["run_id"].n_unique() == 8
    assert set(results["dataset_hash"]) == {read_metadata(line.cohort)["dataset_hash"]}
    assert set(results["train_size"]) == {len(open_token_store(line.cohort, "train"))}
    checkpoints = dict(results.select("backbone", "checkpoint").iter_rows())
    assert checkpoints["pretrained"].startswith("step 6, manifest ") and checkpoints["untrained"] == ""
    (table,) = auroc_table(results)
    assert table.title == "made-heart-failure"
    assert [names[0] for names in table.row_names] == [
        "age band", "age sex", "record shape", "logistic regression",
        "untrained", "untrained", "pretrained", "pretrained",
    ]  # fmt: skip
    assert all(0 <= row[0].mean <= 1 for row in table.cells)


def test_the_baseline_finds_what_was_put_into_the_made_data(line):
    aurocs = read_results(line.results).filter((pl.col("metric") == "auroc") & (pl.col("split") == "test"))
    (value,) = aurocs.filter(pl.col("backbone") == "logistic_regression")["value"]
    assert value > 0.7


def test_predictions_are_meds_and_give_the_filed_auroc(line):
    test = open_token_store(line.cohort, "test")
    results = read_results(line.results).filter((pl.col("metric") == "auroc") & (pl.col("split") == "test"))
    for name, value in results.select("run_id", "value").iter_rows():
        predictions = read_predictions(line.results / "predictions" / f"{name}.parquet")
        assert predictions.time_is_ordinal is False
        assert predictions.frame.columns == list(SCHEMA)
        assert predictions.frame["subject_id"].to_list() == [x.decode() for x in test.patient_id]
        assert (predictions.frame["boolean_value"].to_numpy() == test.outcomes["label"]).all()
        assert (predictions.frame["prediction_time"].to_physical().to_numpy() == test.outcomes["prediction_time"]).all()
        found = auroc(test.outcomes["label"], predictions.frame["predicted_boolean_probability"].to_numpy())
        assert found == pytest.approx(value, abs=1e-12)


def test_no_test_patient_was_seen_in_pretraining(line):
    pretraining = {
        split: set(open_token_store(line.dataset, split).patient_id) for split in ("train", "validation", "test")
    }
    for split in ("validation", "test"):
        cohort = set(open_token_store(line.cohort, split).patient_id)
        # A patient of fewer than three codes may be in the cohort, and nowhere in the pretraining dataset.
        assert len(cohort & pretraining[split]) > 0.8 * len(cohort)
        assert not cohort & pretraining["train"]


def test_runs_that_are_done_are_skipped(line, monkeypatch):
    before = files(line.results)
    assert len(before) == 17  # eight results, eight predictions, the test patients
    for model in (run_finetune.FineTuning, ScikitModel):
        monkeypatch.setattr(model, "fit", lambda *_: pytest.fail("a run that was done was done again"))
    assert run_finetune.main(line.grid) == line.results
    assert files(line.results) == before


def test_a_grid_verifies_and_reads_its_checkpoint_once(line, tmp_path, monkeypatch):
    verified = []

    def verify(run_path, step):
        verified.append(step)
        return verify_step(run_path, step)

    monkeypatch.setattr(checkpointing, "verify_step", verify)
    run_finetune.main(
        replace(line.grid, finetune=replace(line.grid.finetune, results=str(tmp_path)), baselines=(), standing=())
    )
    assert verified == [6]  # of four runs, two of them from its parameters
    # None of those two took the parameters away from the other: they are the grid's, which verified more often.
    values = ["run_id", "split", "metric", "value"]
    expected, found = (read_results(folder).select(values).rows() for folder in (line.results, tmp_path))
    assert len({run for run, *_ in found}) == 4 and set(found) < set(expected)


def test_a_lost_result_is_made_again_and_is_the_same(line, tmp_path):
    results = read_results(line.results).filter((pl.col("backbone") == "pretrained") & (pl.col("head") == "bi_gru"))
    (lost,) = set(results["run_id"])
    shutil.copytree(line.results, tmp_path / "results")
    (tmp_path / "results" / f"{lost}.parquet").unlink()
    others = files(tmp_path / "results")
    run_finetune.main(replace(line.grid, finetune=replace(line.grid.finetune, results=str(tmp_path / "results"))))
    made = files(tmp_path / "results")
    changed = {Path(name).stem for name in made if made[name] != others.get(name)}
    assert changed == {lost}
    one, two = (
        read_predictions(folder / "predictions" / f"{lost}.parquet").frame
        for folder in (line.results, tmp_path / "results")
    )
    assert one.equals(two)


def test_a_source_without_dates_goes_the_same_way_and_says_so(line, tmp_path):
    grid = replace(
        line.grid,
        datasets=(str(line.undated_cohort),),
        finetune=replace(line.grid.finetune, results=str(tmp_path)),
        backbones=("pretrained",),
        heads=("feed_forward",),
        baselines=("codes+age",),
    )
    run_finetune.main(grid)
    assert set(read_results(tmp_path)["backbone"]) == {"pretrained", "logistic_regression", "age_sex", "record_shape"}
    for path in (tmp_path / "predictions").iterdir():
        predictions = read_predictions(path)
        assert predictions.time_is_ordinal is True
        assert predictions.frame["prediction_time"].dt.year().max() == 1970


def test_a_fine_tuned_model_is_kept_where_it_is_asked_for(line, tmp_path):
    config = replace(line.grid.finetune, dataset=str(line.cohort), results=str(tmp_path / "results"))
    config = replace(config, run=str(tmp_path / "model"))
    run_finetune.main(config)
    model = medbert_jax.load_pretrained(tmp_path / "model")
    assert model.run_config["kind"] == "finetune" and model.params.keys() == {"embeddings", "encoder", "head"}
    # It is the run that the grid has too, and its numbers are the same.
    made, grid = (
        {
            (row["run_id"], row["split"], row["metric"]): row["value"]
            for row in read_results(folder).iter_rows(named=True)
        }
        for folder in (tmp_path / "results", line.results)
    )
    assert made and made.items() <= grid.items()
    before = files(tmp_path)
    run_finetune.main(config)
    assert files(tmp_path) == before
    shutil.rmtree(tmp_path / "results")  # as if it had been killed between the checkpoint and the results
    run_finetune.main(config)
    assert files(tmp_path).keys() == before.keys()
    shutil.rmtree(tmp_path / "model")  # results alone are not what was asked for
    run_finetune.main(config)
    jax.tree.map(np.testing.assert_array_equal, medbert_jax.load_pretrained(tmp_path / "model").params, model.params)


def test_a_new_run_starts_from_the_parameters_of_another(line, tmp_path):
    still = replace(PRETRAIN.optimizer, learning_rate=0.0)
    config = replace(PRETRAIN, dataset=str(line.dataset), run=str(tmp_path / "run"), steps=1, optimizer=still)
    run = run_pretrain.main(replace(config, init_from=str(line.run)))
    source, taken = (medbert_jax.load_pretrained(path) for path in (line.run, run))
    assert taken.step == 1
    jax.tree.map(np.testing.assert_array_equal, taken.params, source.params)
    assert metrics(run)[-1] == metrics(line.run)[-1] | {"step": 1}  # the validation patients are told the same


def test_three_steps_and_three_more_are_six_steps(line, tmp_path):
    run, config = tmp_path / "run", replace(PRETRAIN, dataset=str(line.dataset), run=str(tmp_path / "run"))
    shutil.copytree(line.run, run)
    shutil.rmtree(run / "steps" / "000006")  # as if it had been killed on the way there
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "step": 5, "lo')
    assert committed_steps(run) == [3]
    halfway = medbert_jax.load_pretrained(run)
    run_pretrain.main(config)
    assert committed_steps(run) == [3, 6]
    at_once, resumed = (medbert_jax.load_pretrained(path) for path in (line.run, run))
    jax.tree.map(np.testing.assert_array_equal, at_once.params, resumed.params)
    assert metrics(run) == metrics(line.run)
    with pytest.raises(AssertionError):  # the comparison can fail
        jax.tree.map(np.testing.assert_array_equal, at_once.params, halfway.params)
    # The same command again finds nothing left to do; another number of steps is another run.
    before = (run / "metrics.jsonl").read_bytes()
    run_pretrain.main(config)
    assert committed_steps(run) == [3, 6] and (run / "metrics.jsonl").read_bytes() == before
    with pytest.raises(ValueError, match=r"(?s)− steps = 6\n  \+ steps = 9\n.*use those of the run, or a new folder"):
        run_pretrain.main(replace(config, steps=9))
