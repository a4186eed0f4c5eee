"""From a tuning to the table: rows are tuned and then made, on patients drawn with replacement, with real models."""

from dataclasses import replace

import pytest
from training.test_finetuning_resume import made  # noqa: F401

import run_finetune
from medbert_jax.evaluation.results import read_results
from medbert_jax.evaluation.tables import auroc_table
from medbert_jax.experiments.grid import GridConfig
from medbert_jax.experiments.settings import BUDGET, read_tuning
from medbert_jax.experiments.tuning import TuningConfig
from medbert_jax.training.sampling import SamplingConfig

ROWS = (("frozen", "retain"),)
BASELINES = ("codes", "boosting", "probe", "shape")


@pytest.mark.slow
def test_a_grid_is_made_with_what_was_chosen(made, tmp_path, capsys):  # noqa: F811
    sampling = SamplingConfig(stratified=True, resample="bootstrap")
    common = replace(made, results=str(tmp_path / "results"), max_epochs=1, sampling=sampling)
    config = TuningConfig(made.dataset, str(tmp_path / "tuning.json"), common, ROWS, BASELINES, train_size=40)
    path = run_finetune.main(config)
    tuning = read_tuning(path)
    assert len(tuning["tried"]) == 5 * BUDGET and len(tuning["chosen"]) == 5
    assert not list((tmp_path / "results").rglob("*.parquet"))  # nothing of the test patients
    grid = GridConfig(
        (made.dataset,), common, train_sizes=(12, 40), replicates=1, rows=ROWS, baselines=BASELINES, standing=(),
        recipe="tuned", tuning=str(path),
    )  # fmt: skip
    run_finetune.main(grid)
    assert "12 training patients, replicate 0 (6 cases); raise train_sizes" in capsys.readouterr().err
    (table,) = auroc_table(read_results(common.results))
    assert table.row_names == (
        ("record shape", "shape"), ("logistic regression", "codes"), ("boosting", "record"), ("frozen", "mean linear"),
        ("frozen", "retain"),
    )  # fmt: skip
    assert table.columns == ("40",)
