"""The grid: every combination once, and its parts are all of it."""

from collections import Counter
from dataclasses import replace

import pytest

from medbert_jax.experiments.grid import BaselineConfig, GridConfig, with_standing_baselines
from medbert_jax.models.finetune_heads import HeadConfig
from medbert_jax.training.config import FinetuneConfig

GRID = GridConfig(
    datasets=("one", "two", "three"),
    finetune=FinetuneConfig(checkpoint="run", results="there", experiment="made", head=HeadConfig(gru_hidden=8)),
    train_sizes=(300, 0),
    replicates=5,
)

SMALL = replace(GRID, train_sizes=(300,), replicates=1)  # 24 runs


def test_every_combination_is_there_once():
    runs = GRID.runs()
    assert len(runs) == len(set(runs)) == 3 * 2 * 5 * (2 * 2 + 4)
    kinds = Counter(type(run) for run in runs)
    assert kinds == {FinetuneConfig: 3 * 2 * 5 * 2 * 2, BaselineConfig: 3 * 2 * 5 * 4}
    cells = Counter((run.dataset, run.train_size, run.replicate) for run in runs)
    assert len(cells) == 3 * 2 * 5 and set(cells.values()) == {8}
    models = [run for run in runs if isinstance(run, FinetuneConfig)]
    assert {(run.backbone, run.head.kind) for run in models} == {
        (backbone, head) for backbone in GRID.backbones for head in GRID.heads
    }
    # What the runs share is what the grid says, the rest of the head with it.
    assert {(run.checkpoint, run.head.gru_hidden) for run in models} == {("run", 8)}
    assert {(run.results, run.experiment) for run in runs} == {("there", "made")}


def test_baselines_come_before_the_models_that_have_to_beat_them():
    runs = GRID.runs()
    assert [run.train_size for run in runs] == [300] * 120 + [0] * 120
    for start in range(0, len(runs), 8):
        assert [type(run) for run in runs[start : start + 8]] == [BaselineConfig] * 4 + [FinetuneConfig] * 4


def test_two_baselines_stand_beside_every_fine_tuning_unless_they_are_left_out():
    def features(**changes) -> list[str]:
        grid = replace(GRID, datasets=("one",), train_sizes=(0,), replicates=1, **changes)
        return [run.features for run in grid.runs() if isinstance(run, BaselineConfig)]

    assert features() == ["age", "codes", "age+sex", "shape"]
    assert features(baselines=()) == ["age+sex", "shape"]
    assert features(baselines=("shape", "codes")) == ["shape", "codes", "age+sex"]  # each once
    assert features(baselines=(), standing=()) == []
    assert features(heads=()) == ["age", "codes"]  # nothing is fine-tuned
    run = FinetuneConfig(dataset="one", results="there", experiment="made", train_size=300, replicate=2)
    alone, *beside = with_standing_baselines(run)
    assert alone is run
    assert beside == [BaselineConfig("one", "there", "made", name, 300, 2) for name in ("age+sex", "shape")]


@pytest.mark.parametrize("parts", [1, 2, 7, 30])
def test_parts_are_all_runs_and_none_twice(parts):
    whole = SMALL.runs()
    divided = [_part(part, parts).runs() for part in range(parts)]
    assert Counter(run for runs in divided for run in runs) == Counter(whole)
    sizes = [len(runs) for runs in divided]
    assert max(sizes) - min(sizes) <= 1


def _part(part: int, parts: int) -> GridConfig:
    return replace(SMALL, part=part, parts=parts)


def test_another_first_replicate_is_a_fresh_grid():
    again = GridConfig(datasets=("one",), replicates=2, first_replicate=5).runs()
    assert {run.replicate for run in again} == {5, 6}
    assert not set(again) & set(GridConfig(datasets=("one",), replicates=5).runs())


@pytest.mark.parametrize(
    ("part", "rule"), [(-1, "at least 0: got -1; raise it"), (3, "one of 0 … 2: got 3; count the parts from 0")]
)
def test_a_part_that_is_not_there_is_refused(part, rule):
    with pytest.raises(ValueError, match=f"^part must be {rule}$"):
        _part(part, 3)


def test_a_grid_without_datasets_is_refused():
    with pytest.raises(ValueError, match="a grid needs cohort datasets: got none; pass --datasets"):
        GridConfig().runs()


def test_each_model_that_is_kept_has_a_folder_of_its_own():
    grid = replace(SMALL, datasets=("d/one/1.0.0", "d/two/1.0.0"), models="m", baselines=("codes", "probe"))
    runs = {run: getattr(run, "run", None) for run in grid.runs()}
    kept = [folder for folder in runs.values() if folder is not None]
    assert len(runs) - len(kept) == 2  # of a probe
    assert len(kept) == len(set(kept)) and "m/one/pretrained-bi_gru-300-0" in kept and "m/two/age+sex-300-0" in kept
    assert all(run.run == "" for run in SMALL.runs())


def test_what_stands_beside_a_model_that_is_kept_is_kept_in_its_folder():
    run = FinetuneConfig(dataset="d", run="models/one")
    assert [one.run for one in with_standing_baselines(run)] == [
        "models/one", "models/one/baselines/age+sex", "models/one/baselines/shape",
    ]  # fmt: skip
    assert {one.run for one in with_standing_baselines(replace(run, run=""))} == {""}


def test_a_folder_for_one_model_is_not_for_a_grid():
    with pytest.raises(ValueError, match=r"got finetune\.run x; leave it empty, and give --models FOLDER"):
        replace(GRID, finetune=replace(GRID.finetune, run="x")).runs()
