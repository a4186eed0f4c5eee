"""Replicates that train in one program: each ends as it would alone, whatever interrupts them."""

import os
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training.test_finetuning_resume import CONFIG, Cut, kept, made  # noqa: F401
from training.test_resume import quick_compilation  # noqa: F401

import run_finetune
from medbert_jax.evaluation.predictions import read_predictions
from medbert_jax.evaluation.results import read_results
from medbert_jax.experiments.grid import GridConfig
from medbert_jax.models.loop_bounds import common_bound
from medbert_jax.training import replicates as replicates_module
from medbert_jax.training import unfinished
from medbert_jax.training.config import FinetuneConfig
from medbert_jax.training.interruption import Interrupted
from medbert_jax.training.manifest import committed_steps
from medbert_jax.training.replicates import ReplicateRounds, ReplicateSource
from medbert_jax.training.tuned_together import trains_together

PATIENCE = 3


def grid(made: FinetuneConfig, folder: Path, *, together: str = "true", **changes) -> GridConfig:  # noqa: F811
    """Three replicates of 40 of the 48 patients, which stop at different validations."""
    common = replace(made, results=str(folder / "results"), patience=PATIENCE, max_epochs=8, dataset="")
    return GridConfig(
        datasets=(made.dataset,),
        finetune=common,
        train_sizes=(40,),
        replicates=3,
        heads=("bi_gru",),
        baselines=(),
        standing=(),
        replicates_together=together,
        **{"backbones": ("pretrained",), **changes},
    )


def filed(config: GridConfig) -> tuple[dict, dict]:
    """Run id → predictions of the test patients, and → everything in its results but predictions' own numbers."""
    results = read_results(config.finetune.results)
    predictions = {
        name: read_predictions(Path(config.finetune.results) / "predictions" / f"{name}.parquet")
        .frame["predicted_boolean_probability"]
        .to_numpy()
        for name in set(results["run_id"])
    }
    chosen = results.filter(results["metric"].is_in(["auroc", "best_step"]))
    columns = ("run_id", "replicate", "split", "metric", "value", "epochs", "stopping_reason", "checkpoint")
    return predictions, {row[:4]: row[4:] for row in chosen.select(columns).iter_rows()}


def assert_same(one: GridConfig, other: GridConfig) -> None:
    (mine, told), (theirs, told_theirs) = filed(one), filed(other)
    assert mine.keys() == theirs.keys() and len(mine) == 3 * len(one.backbones)
    for name, found in mine.items():
        np.testing.assert_allclose(found, theirs[name], atol=1e-5, rtol=0)
    assert told.keys() == told_theirs.keys()
    for place, (value, *rest) in told.items():
        assert value == pytest.approx(told_theirs[place][0], abs=1e-6) and rest == list(told_theirs[place][1:]), place


@pytest.fixture(scope="module")
def alone(made, tmp_path_factory) -> GridConfig:  # noqa: F811
    """The replicates one after the other."""
    config = grid(made, tmp_path_factory.mktemp("alone"), together="false")
    run_finetune.main(config)
    return config


@pytest.fixture(scope="module")
def whole(made, tmp_path_factory) -> GridConfig:  # noqa: F811
    """Together, and not interrupted."""
    config = grid(made, tmp_path_factory.mktemp("together"))
    run_finetune.main(config)
    return config


def test_each_is_filed_as_if_it_had_trained_alone(alone, whole):
    assert_same(whole, alone)
    assert not (Path(whole.finetune.results) / unfinished.FOLDER).exists()
    told = filed(alone)[1]
    steps = {row[0] for (*_, metric), row in told.items() if metric == "best_step"}
    assert len(steps) > 1  # of different validations
    (first, *others) = filed(alone)[0].values()
    assert all(np.abs(first - other).max() > 1e-3 for other in others)


def test_the_comparison_sees_another_order(made, alone, tmp_path, monkeypatch):  # noqa: F811
    """The second replicate's orders are the first one's."""
    made_source = ReplicateSource.__init__

    def init(self, subsets, patients, seeds, *arguments, **options):
        made_source(self, subsets, patients, [seeds[0], seeds[0], seeds[2]], *arguments, **options)

    monkeypatch.setattr(ReplicateSource, "__init__", init)
    config = grid(made, tmp_path)
    run_finetune.main(config)
    with pytest.raises(AssertionError):
        assert_same(config, alone)


def test_states_of_a_frozen_backbone_and_fresh_ones(made, tmp_path):  # noqa: F811
    found = []
    for together in ("true", "false"):
        config = grid(made, tmp_path / together, together=together, backbones=("frozen", "none"))
        run_finetune.main(config)
        found.append(config)
    assert_same(*found)


@pytest.mark.parametrize("step", [1, 10])
def test_a_signal_saves_all_of_them_and_the_same_command_goes_on(made, whole, tmp_path, monkeypatch, step):  # noqa: F811
    config = grid(made, tmp_path)

    def feed(self, start, count, feed=ReplicateSource._send):
        if start < step <= start + count:
            os.kill(os.getpid(), signal.SIGTERM)
        return feed(self, start, count)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted, match=r"of these 3 replicates is saved in"):
        patch.setattr(ReplicateSource, "_send", feed)
        run_finetune.main(config)
    assert committed_steps(kept(config.finetune)) and not list(Path(config.finetune.results).glob("*.parquet"))
    run_finetune.main(config)
    for name, found in filed(config)[0].items():
        np.testing.assert_array_equal(found, filed(whole)[0][name])  # bit for bit
    assert filed(config)[1] == filed(whole)[1]
    assert not (Path(config.finetune.results) / unfinished.FOLDER).exists()


def test_one_that_is_done_is_left_out(made, whole, tmp_path, capsys):  # noqa: F811
    config = grid(made, tmp_path)
    run_finetune.main(replace(config, replicates=1))
    capsys.readouterr()
    run_finetune.main(config)
    assert "[1/3] done before" in capsys.readouterr().err
    assert_same(config, whole)


def test_a_process_that_dies_goes_on_from_the_last_round(made, whole, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(unfinished, "SECONDS", 0.0)
    config = grid(made, tmp_path)

    def dying(self, step, *arguments, judge=ReplicateRounds.judge):
        if step >= 8:
            raise Cut
        return judge(self, step, *arguments)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Cut):
        patch.setattr(replicates_module.ReplicateRounds, "judge", dying)
        run_finetune.main(config)
    run_finetune.main(config)
    for name, found in filed(config)[0].items():
        np.testing.assert_array_equal(found, filed(whole)[0][name])


def test_a_loop_under_vmap_runs_as_often_as_the_longest():
    """And carries what it carries without a choice between old and new for each step."""
    counts = jnp.array([1, 4, 2])

    def summed(count, bound=common_bound):
        return jax.lax.fori_loop(0, bound(count), lambda step, carry: carry + jnp.where(step < count, step, 0), 0)

    assert jax.vmap(summed)(counts).tolist() == [0, 6, 1] == [int(summed(count)) for count in counts]
    plain = partial(summed, bound=lambda count: count)
    found, expected = (
        jax.jit(jax.vmap(one)).lower(counts).as_text().count("stablehlo.select") for one in (summed, plain)
    )
    assert found < expected


def test_together_needs_one_device_and_auto_takes_it_where_it_is_no_cpu(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    assert trains_together("true") and not trains_together("false") and not trains_together("auto")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert trains_together("auto")
    monkeypatch.setattr(jax, "device_count", lambda: 4)
    assert not trains_together("auto")
    with pytest.raises(ValueError, match="on one device: got replicates_together true and 4 devices"):
        trains_together("true")
