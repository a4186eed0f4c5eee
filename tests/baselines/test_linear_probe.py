"""A linear probe reads the mean of the states of a model that stays as it is."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from training.test_finetuning_resume import made  # noqa: F401

import run_finetune
from medbert_jax.baselines.linear_probe import ProbeConfig, mean_states
from medbert_jax.evaluation.results import read_results
from medbert_jax.experiments.grid import GridConfig
from medbert_jax.training.checkpoint import Checkpoint
from medbert_jax.training.cohort_data import load_cohort
from medbert_jax.training.pretrained import load_pretrained


@pytest.fixture(scope="module")
def probe(made):  # noqa: F811
    return ProbeConfig(made.dataset, made.checkpoint, C=0.5)


def test_it_is_a_regression_on_scaled_means_of_states(probe):
    cohort = load_cohort(probe.dataset)
    fitted = probe.model(cohort.vocabulary).fit(cohort.train, cohort.validation)
    pretrained = load_pretrained(probe.checkpoint)
    states = [
        np.array([one.mean(axis=0) for one in pretrained.encode(part)]) for part in (cohort.train, cohort.validation)
    ]
    scaler = StandardScaler().fit(states[0])
    theirs = LogisticRegression(C=0.5, tol=1e-10, max_iter=10_000)
    theirs.fit(scaler.transform(states[0]), cohort.train.outcomes["label"])
    expected = theirs.predict_proba(scaler.transform(states[1]))[:, 1]
    np.testing.assert_allclose(fitted.predict(cohort.validation), expected, atol=1e-3)
    assert np.ptp(expected) > 0.2
    assert (fitted.backbone, fitted.head, fitted.validation["C"]) == ("frozen", "mean_linear", 0.5)
    assert fitted.checkpoint == Checkpoint(probe.checkpoint).fingerprint


def test_the_mean_is_of_a_patients_own_codes(probe):
    cohort, pretrained = load_cohort(probe.dataset), load_pretrained(probe.checkpoint)
    alone = mean_states(pretrained, cohort.train.take([5]))
    np.testing.assert_allclose(mean_states(pretrained, cohort.train)[5], alone[0], rtol=1e-3, atol=1e-5)


def test_it_is_a_row_of_the_grid_that_knows_its_checkpoint_by_contents(made, tmp_path):  # noqa: F811
    common = replace(made, results=str(tmp_path))
    grid = GridConfig(
        (common.dataset,),
        common,
        train_sizes=(0,),
        replicates=1,
        heads=(),
        baselines=("probe", "forest", "boosting", "default"),
    )
    run_finetune.main(grid)
    found = read_results(tmp_path)
    assert set(found.select("backbone", "head").unique().rows()) == {
        ("frozen", "mean_linear"), ("random_forest", "codes"), ("boosting", "record"),
        ("logistic_regression", "default"),
    }  # fmt: skip
    (configuration,) = found.filter(head="mean_linear")["configuration"].unique()
    assert Checkpoint(common.checkpoint).fingerprint in configuration and common.checkpoint not in configuration
