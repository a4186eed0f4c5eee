"""A whole study of simulated patients with tiny models: every stage cut once, and its runs shared by two processes."""

import json
from dataclasses import replace

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from medbert_jax.data.row_plan import RowsConfig
from medbert_jax.data.token_store import open_token_store, read_metadata
from medbert_jax.ehr.hashing import SPLITS
from medbert_jax.evaluation.predictions import read_predictions
from medbert_jax.evaluation.results import read_results
from medbert_jax.experiments.grid import GridConfig
from medbert_jax.experiments.study import Study, run_study
from medbert_jax.experiments.study_estimate import estimate_tables
from medbert_jax.experiments.study_plan import (
    Block,
    Cohort,
    Joined,
    Pretraining,
    PretrainingData,
    Simulated,
    StudyPlan,
    Tuning,
    Vectors,
)
from medbert_jax.experiments.study_stages import read_receipt
from medbert_jax.experiments.tuning import TuningConfig
from medbert_jax.models.config import ModelConfig
from medbert_jax.models.finetune_heads import HeadConfig
from medbert_jax.study_command import makers
from medbert_jax.training.code_vectors_options import CodeVectorsConfig
from medbert_jax.training.config import FinetuneConfig, PretrainConfig

MODEL = ModelConfig(hidden_size=16, layers=1, heads=2, feed_forward_size=16, max_visits=64, max_length=64)
PRETRAIN = PretrainConfig(
    model=MODEL, rows=RowsConfig(batch_size=64, short_row=64), steps=2, warmup_share=0.5, checkpoint_every=2
)
FINETUNE = FinetuneConfig(head=HeadConfig("gru", gru_hidden=4), batch_size=16, max_epochs=1, patience=1)
GRID = GridConfig(
    finetune=FINETUNE, rows=(("pretrained", "gru"),), train_sizes=(48,), replicates=2, baselines=("codes",), standing=()
)
TUNED = replace(GRID, rows=(), heads=(), baselines=("codes", "forest"), recipe="tuned")
PLAN = StudyPlan(
    tables=(
        Simulated("corpus", 2_500, 1, shards=1),
        Simulated("others", 5_000, 2, keep=("dhf",), shards=1),
        Joined("both", "corpus", "others"),
    ),
    datasets=(
        PretrainingData("corpus", "corpus"),
        PretrainingData("both", "both", vocabulary_of="corpus"),
    ),
    pretrainings=(
        Pretraining("corpus", "corpus", PRETRAIN),
        Pretraining("mortality", "corpus", replace(PRETRAIN, exchange_codes=True), labels="mortality"),
        Pretraining("seen", "both", PRETRAIN),
    ),
    vectors=(Vectors("corpus", "corpus", CodeVectorsConfig(size=16, epochs=1)),),
    cohorts=(
        Cohort("dhf", "dhf", "others", "corpus", controls_per_case=2, few_cases=True),
        Cohort("dhf-seen", "dhf", "others", "both", controls_per_case=2, few_cases=True, seen=True),
    ),
    tunings=(
        Tuning("codes", "dhf", "corpus", TuningConfig(finetune=FINETUNE, baselines=("codes",), train_size=48)),
        Tuning("forest", "dhf", "corpus", TuningConfig(finetune=FINETUNE, baselines=("forest",), train_size=48)),
    ),
    blocks=(
        Block("table", ("dhf",), "corpus", replace(GRID, rows=(("tw2v", "gru"), ("pretrained", "gru"))),
              experiment="made", vectors="corpus"),
        Block("tuned", ("dhf",), "corpus", TUNED, tunings=("codes", "forest")),
        Block("mortality", ("dhf",), "mortality", replace(GRID, baselines=())),
        Block("seen", ("dhf-seen",), "seen", replace(GRID, baselines=())),
    ),
)  # fmt: skip


class Cut(BaseException):
    """The process is killed."""


def cutting(made: dict) -> dict:
    """Makers that are killed once at each stage: when the result is there, and of a block after a part of its runs."""
    plain = makers(None, workers=1)

    def make(kind):
        def of(item, study):
            key = f"{kind}/{item.name}"
            if kind == "blocks" and key not in made:
                made[key] = None
                plain[kind](item, replace(study, part=0, parts=2))
                raise Cut
            path = plain[kind](item, study)
            if key not in made:
                made[key] = path
                raise Cut
            return path

        return of

    return {kind: make(kind) for kind in plain}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The study, cut at every stage."""
    folder, made = tmp_path_factory.mktemp("study"), {}
    with_cuts, cuts = cutting(made), 0
    while True:
        try:
            run_study(study_in(folder), with_cuts)
            break
        except Cut:
            cuts += 1
    assert cuts == len(made) == len(study_in(folder).stages())
    return folder


def study_in(folder, results="results", **settings) -> Study:
    return Study(PLAN, folder / "out", folder / results, **settings)


def comparable(results: pl.DataFrame) -> pl.DataFrame:
    """What does not depend on the clock."""
    return results.drop("wall_time_s").sort("run_id", "split", "metric")


def test_every_run_is_filed_once_with_its_predictions_and_the_codes_identity(folder):
    results = read_results(folder / "results")
    runs = results.unique("run_id")
    counted = dict(runs.group_by("experiment").len().iter_rows())
    assert counted == {"made": 6, "tuned": 4, "mortality": 2, "seen": 2}
    assert len(runs) == len({path.stem for path in (folder / "results" / "predictions").glob("*.parquet")}) == 14
    assert runs["commit"].str.len_chars().min() > 6 and runs["versions"].null_count() == 0
    checkpoints = {one: set(runs.filter(experiment=one, backbone="pretrained")["checkpoint"]) for one in counted}
    assert len(checkpoints["made"] | checkpoints["mortality"] | checkpoints["seen"]) == 3
    assert not (folder / "results" / "unfinished").exists()


def test_the_tuned_rows_have_what_each_tuning_chose(folder):
    tuned = read_results(folder / "results").filter(experiment="tuned").unique("run_id")
    chosen = {name: json.loads((folder / "out" / "tunings" / f"{name}.json").read_text())["chosen"][name]
              for name in ("codes", "forest")}  # fmt: skip
    for name, setting in chosen.items():
        runs = [json.loads(text) for text in tuned["configuration"]]
        found = {run.get(field, 1) for run in runs if run["features"] == name for field in setting}
        assert found == {*setting.values()}


def test_two_parts_give_the_table_that_one_process_gives(folder):
    for part in (1, 0):
        run_study(study_in(folder, "shared", part=part, parts=2), makers(None))
    assert_frame_equal(comparable(read_results(folder / "shared")), comparable(read_results(folder / "results")))
    files = [sorted(path.name for path in (folder / name / "predictions").iterdir()) for name in ("shared", "results")]
    assert files[0] == files[1]
    one = files[0][0]
    assert read_predictions(folder / "shared" / "predictions" / one).frame.equals(
        read_predictions(folder / "results" / "predictions" / one).frame
    )


def test_nobody_who_is_judged_was_simulated_for_the_pretraining(folder):
    study = study_in(folder)
    assert all(study.done(stage) for stage in study.stages() if stage.kind != "blocks")

    def patients(kind, name):
        directory = study.path(kind, name)
        return {split: set(open_token_store(directory, split).patient_id.tolist()) for split in SPLITS}

    ours, theirs = patients("cohorts", "dhf"), patients("datasets", "corpus")
    assert not set.union(*ours.values()) & set.union(*theirs.values())
    # The variant that has seen them has learned from their training patients alone.
    both = patients("datasets", "both")
    assert ours["train"] & both["train"] and not (ours["validation"] | ours["test"]) & both["train"]
    same = {name: read_metadata(study.path("cohorts", name))["dataset_hash"] for name in ("dhf", "dhf-seen")}
    assert same["dhf"] == same["dhf-seen"]  # so runs on them are of the same patients


def test_a_cohort_that_is_smaller_than_what_is_asked_for_is_told_before_any_training(folder):
    grids = [replace(block.grid, train_sizes=(48, 5_000)) for block in PLAN.blocks]
    blocks = tuple(replace(block, grid=grid) for block, grid in zip(PLAN.blocks, grids, strict=True))
    study = Study(replace(PLAN, blocks=blocks), folder / "out", folder / "results")
    for stage in study.stages():
        if stage.kind in ("tables", "datasets"):
            assert study.done(stage)
    with pytest.raises(ValueError, match=r"got \d+ and 5,000 of dhf; give others more patients in the plan, or lower"):
        makers(None, workers=1)["cohorts"](PLAN.cohorts[0], study)


def test_a_stage_that_was_gone_on_with_tells_no_duration(folder):
    study = study_in(folder)
    receipts = [read_receipt(study.out, stage) for stage in study.stages() if stage.kind != "blocks"]
    assert {receipt["seconds"] for receipt in receipts} == {0.0}


def test_the_dry_run_of_a_done_study_has_nothing_left(folder):
    stages, *tables = estimate_tables(study_in(folder))
    assert stages.notes == ("Left: nothing, by 2 processes.",)
    assert {row[1] for row in stages.rows if not row[0].startswith("blocks/")} == {"done"}
    assert {row[5] for table in tables for row in table.rows} == {"done"}
    runs = {row[0]: row[1] for row in stages.rows if row[0].startswith("blocks/")}
    assert runs["blocks/table"] == "6 of 6 runs done"
