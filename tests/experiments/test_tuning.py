"""Tuning: six settings for every row, all of them filed, chosen on validation alone, and taken by a grid."""

import json
from dataclasses import dataclass, replace
from typing import get_args

import pytest
from experiments.test_running import checkpoint, cohort  # noqa: F401

from medbert_jax.data.token_store import open_token_store
from medbert_jax.experiments import settings as settings_module
from medbert_jax.experiments.grid import Baseline, BaselineConfig, GridConfig
from medbert_jax.experiments.settings import BUDGET, FIXED, read_tuning, settings_of, with_setting
from medbert_jax.experiments.tuning import TuningConfig, chosen_setting, tune
from medbert_jax.models.finetune_heads import HeadConfig, HeadKind
from medbert_jax.training.config import Backbone, FinetuneConfig
from medbert_jax.training.disease_model import Fitted

ROWS = (("untrained", "bi_gru"), ("untrained", "feed_forward"))


@dataclass(frozen=True)
class LikesOneRate:
    """Stands for a fine-tuning; nobody may ask it for a prediction."""

    run: FinetuneConfig

    def fit(self, train, validation) -> Fitted:
        rate = self.run.optimizer.learning_rate
        found = 0.8 if rate == 1e-3 else 0.7 if self.run.head.dropout == 0.3 else 0.6
        return Fitted(lambda _: pytest.fail("a prediction"), "b", "h", {"auroc": found, "best_step": 1}, "patience", 4)


@pytest.fixture
def config(cohort, checkpoint, tmp_path):  # noqa: F811
    common = FinetuneConfig(checkpoint=checkpoint, results=str(tmp_path / "results"))
    out = str(tmp_path / "tuning.json")
    return TuningConfig(str(cohort), out, common, ROWS, ("codes", "forest"), train_size=6)


def tuned(config, fits=None):
    return tune(config, lambda run, *_: (fits if fits is not None else []).append(run) or LikesOneRate(run))


def test_every_setting_is_filed_and_the_best_on_validation_is_chosen(config, monkeypatch, capsys):
    opened = []

    def open_split(dataset, split, cache_dir, tell):
        opened.append(split)
        return open_token_store(dataset, split)

    monkeypatch.setattr("medbert_jax.training.cohort_data.open_token_store", open_split)
    found = read_tuning(tuned(config))
    assert set(opened) == {"train", "validation"}
    rows = ("codes", "forest", "untrained, bi_gru", "untrained, feed_forward")
    assert [one["row"] for one in found["tried"]] == [row for row in rows for _ in range(BUDGET)]
    for row in rows:
        tried = [one["setting"] for one in found["tried"] if one["row"] == row]
        assert tried == [dict(setting) for setting in settings_of(row)]
    assert found["chosen"].keys() == set(rows)
    assert found["chosen"]["untrained, bi_gru"]["optimizer.learning_rate"] == 1e-3
    assert found["chosen"]["untrained, feed_forward"] == {"optimizer.learning_rate": 1e-3, "head.dropout": 0.1}
    assert "untrained, bi_gru, optimizer.learning_rate 0.001" in capsys.readouterr().err


def test_what_was_tried_is_not_tried_again_and_other_patients_are_refused(config, tmp_path):
    fits = []
    path = tuned(replace(config, baselines=(), rows=ROWS[:1]), fits)
    content = json.loads(path.read_text())
    content["tried"], content["chosen"] = content["tried"][:4], {}
    path.write_text(json.dumps(content))
    tuned(replace(config, baselines=()), again := [])
    assert [run.head.kind for run in again] == ["bi_gru"] * 2 + ["feed_forward"] * 6
    assert len(fits) == 6 and again[0] == fits[4]
    with pytest.raises(ValueError, match="goes on with the patients that it began with: got train_size 6 and not 4 in"):
        tuned(replace(config, train_size=4))
    with pytest.raises(ValueError, match="must have something to tune: got default; leave them out"):
        replace(config, baselines=("default",))


def test_a_row_is_chosen_when_all_its_settings_were_tried_and_the_first_on_a_tie():
    def tried(*aurocs):
        return [
            {
                "row": "codes",
                "setting": dict(setting),
                "run_id": "",
                "validation_auroc": auroc,
                "epochs": 0,
                "seconds": 1,
            }
            for setting, auroc in zip(settings_of("codes"), aurocs, strict=False)
        ]

    assert chosen_setting("codes", tried(0.9, 0.8)) == {}
    assert chosen_setting("codes", tried(0.6, 0.7, 0.7, None, 0.5, 0.6)) == {"codes": {"C": 0.01}}
    assert chosen_setting("codes", tried(*[None] * 6)) == {"codes": {"C": 0.001}}
    assert chosen_setting("forest", tried(*[0.5] * 6)) == {}


def test_every_row_has_as_many_settings_none_of_them_twice_and_each_changes_its_run():
    names = [name for name in get_args(Baseline) if name not in FIXED]
    names += [f"{backbone}, {kind}" for backbone in get_args(Backbone) for kind in get_args(HeadKind)]
    for name in names:
        settings = [tuple(setting.items()) for setting in settings_of(name)]
        assert len(set(settings)) == len(settings) == BUDGET, name
    assert {"feed_forward", "first", "gru", "bi_gru", "retain"} == set(get_args(HeadKind))


def test_a_grid_takes_the_paper_rates_or_what_was_chosen(config, tmp_path):
    rows = (("none", "gru"), ("tw2v", "gru"), ("pretrained", "gru"), ("none", "bi_gru"))
    common = FinetuneConfig(checkpoint=config.finetune.checkpoint, head=HeadConfig(gru_hidden=8))
    grid = GridConfig(("one",), common, train_sizes=(0,), replicates=1, rows=rows, baselines=("codes",), standing=())
    rates = [run.optimizer.learning_rate for run in replace(grid, recipe="paper").runs()[1:]]
    assert rates == [1e-3, 1e-3, 1e-5, 1e-5]
    assert [(run.backbone, run.head.kind) for run in grid.runs()[1:]] == list(rows)
    path = tuned(config)
    mine = replace(grid, rows=ROWS, baselines=("codes", "forest", "default"), recipe="tuned", tuning=str(path))
    codes, forest, default, recurrent, plain = mine.runs()
    chosen = read_tuning(path)["chosen"]
    assert codes == BaselineConfig("one", features="codes", C=chosen["codes"]["C"])
    assert forest.min_samples_leaf == chosen["forest"]["min_samples_leaf"]
    assert default == BaselineConfig("one", features="default")
    assert (recurrent.optimizer.learning_rate, recurrent.head.gru_hidden) == (1e-3, 128)
    assert plain.head.gru_hidden == 8  # what is not tuned stays
    with pytest.raises(
        ValueError, match=r"needs a setting for every row: got none for none, gru in .*codes; forest; untr"
    ):
        replace(grid, recipe="tuned", tuning=str(path)).runs()
    with pytest.raises(ValueError, match="got no --tuning; give the file that it wrote"):
        replace(grid, recipe="tuned").runs()


def test_a_setting_is_put_into_nested_fields_and_a_wrong_one_is_refused():
    run = with_setting(FinetuneConfig(), {"head.dropout": 0.3, "batch_size": 7})
    assert (run.head.dropout, run.batch_size, run.head.gru_hidden) == (0.3, 7, 128)
    with pytest.raises(ValueError, match=r"head\.dropout must be"):
        with_setting(FinetuneConfig(), {"head.dropout": 3})


def test_a_file_of_another_form_or_version_is_refused(config, monkeypatch):
    path = tuned(replace(config, rows=()))
    monkeypatch.setattr(settings_module, "VERSION", 0)
    with pytest.raises(ValueError, match="of version 1; read it with"):
        read_tuning(path)
    path.write_text(json.dumps({"version": 1, "chosen": []}))
    with pytest.raises(ValueError, match=r"must have its form: .* chosen must be an object"):
        read_tuning(path)
