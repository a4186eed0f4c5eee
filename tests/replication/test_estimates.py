"""Means over replicates and paired differences, by hand, beside those of an evaluation, and beside DeLong's formula."""

import statistics

import numpy as np
import pytest
from evaluation.made_patients import EVERYBODY, model
from replication.made_study import file_cohort, file_run, scores

from medbert_jax.evaluation.evaluate import EvaluationSettings, evaluate
from medbert_jax.metrics.discrimination import auroc_delong
from medbert_jax.replication.estimates import combination, difference, mean_auroc
from medbert_jax.replication.study import Model, read_study

GRU, OURS = Model("made", "none", "gru", "3000"), Model("made", "pretrained", "gru", "3000")
# Two cases and two controls: 4, 3 and 2 of the 4 pairs are in order.
LABELS = [1, 0, 1, 0]
SCORES = {4: [0.9, 0.1, 0.8, 0.2], 3: [0.9, 0.1, 0.5, 0.6], 2: [0.4, 0.5, 0.8, 0.6]}


def study_of(folder, labels, runs, *, draws=0, **cohort):
    """`runs`: backbone → replicate → probabilities."""
    filed = file_cohort(folder, labels, **cohort)
    for backbone, of in runs.items():
        for replicate, probabilities in of.items():
            file_run(folder, filed, probabilities, backbone=backbone, head="gru", replicate=replicate)
    study = read_study(folder, draws=draws)
    return study, study.cohorts[0]


def test_means_deviations_and_paired_differences_by_hand(tmp_path):
    runs = {"none": {0: SCORES[2], 1: SCORES[3]}, "pretrained": {0: SCORES[3], 1: SCORES[4], 2: SCORES[4]}}
    study, cohort = study_of(tmp_path, LABELS, runs, design=EVERYBODY)
    of = mean_auroc(study, cohort, OURS)
    assert of.value == pytest.approx((0.75 + 1 + 1) / 3) and of.replicates == 3
    assert of.deviation == pytest.approx(statistics.stdev([0.75, 1, 1]))
    # Replicate 2 has no partner: 0.75 − 0.5 and 1 − 0.75.
    gain = difference(study, cohort, OURS, GRU)
    assert (gain.value, gain.deviation, gain.replicates) == (pytest.approx(0.25), pytest.approx(0), 2)
    assert difference(study, cohort, GRU, OURS).value == pytest.approx(-0.25)
    assert mean_auroc(study, cohort, Model("made", "tw2v", "gru", "3000")) is None
    doubled = combination(study, cohort, [(1, OURS), (-1, GRU), (1, OURS), (-1, GRU)])
    assert doubled.value == pytest.approx(0.5)


def test_one_run_stands_beside_every_replicate_and_others_need_one_in_common(tmp_path):
    runs = {"oracle": {0: SCORES[4]}, "none": {1: SCORES[2], 2: SCORES[3]}, "tw2v": {3: SCORES[2], 4: SCORES[2]}}
    study, cohort = study_of(tmp_path, LABELS, runs, design=EVERYBODY)
    oracle, vectors = (Model("made", name, "gru", "3000") for name in ("oracle", "tw2v"))
    assert difference(study, cohort, oracle, GRU).value == pytest.approx((0.5 + 0.25) / 2)
    assert difference(study, cohort, GRU, vectors) is None


def test_a_difference_is_that_of_an_evaluation_with_its_interval_and_p(tmp_path):
    """Matched sets, two models of three replicates: another path through the same patients, draw for draw."""
    labels = np.tile([1, 0, 0], 80)
    runs = {
        "none": {one: scores(labels, 0.65, one) for one in range(3)},
        "pretrained": {one: scores(labels, 0.75, one) for one in range(3)},
    }
    study, cohort = study_of(tmp_path, labels, runs, draws=200)
    gain, mean = difference(study, cohort, OURS, GRU), mean_auroc(study, cohort, OURS)
    models = [model(name, *of.values()) for name, of in runs.items()]
    found = evaluate(cohort.filed.patients, models, EvaluationSettings(draws=200)).figures
    (row,) = found.filter(kind="difference of models", model="pretrained", metric="auroc").to_dicts()
    assert row["how"] == "paired bootstrap of patients and replicates"
    assert (gain.value, gain.low, gain.high, gain.p) == pytest.approx(
        (row["value"], row["low"], row["high"], row["p"]), abs=1e-12
    )
    (row,) = found.filter(kind="figure", model="pretrained", metric="auroc", stratum="everyone").to_dicts()
    assert (mean.value, mean.low, mean.high) == pytest.approx((row["value"], row["low"], row["high"]), abs=1e-12)
    # Sets are drawn as one: rows drawn by themselves give another error.
    apart, alone = study_of(tmp_path / "apart", labels, runs, draws=200, design=EVERYBODY)
    assert difference(apart, alone, OURS, GRU).low != pytest.approx(gain.low, abs=1e-6)


def test_the_error_of_the_test_patients_is_delongs_and_no_number_of_replicates_makes_it_smaller(tmp_path):
    labels = np.tile([1, 0, 0, 0], 150)
    same = scores(labels, 0.7, 0)
    runs = {"none": dict.fromkeys(range(4), same)}
    study, cohort = study_of(tmp_path, labels, runs, draws=1000, design=EVERYBODY)
    of = mean_auroc(study, cohort, GRU)
    assert of.deviation == 0
    # The standard deviation of 1,000 draws is known to about 2 %.
    assert of.sampling_error == pytest.approx(auroc_delong(labels, same).standard_error, rel=0.1)
