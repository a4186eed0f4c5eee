"""The confirmatory family and the negative controls, against Holm's steps and bounds by hand."""

import numpy as np
import pytest
from evaluation.made_patients import EVERYBODY
from replication.made_study import file_cohort, file_run, scores

from medbert_jax.replication.estimates import mean_auroc
from medbert_jax.replication.study import read_study
from medbert_jax.replication.tests_of_gain import confirmatory, confirmatory_table, control_rows, control_table

LABELS = np.tile([1, 0, 0], 60)


def test_holm_counts_the_tests_that_were_not_run(made):
    tests = confirmatory(made)
    assert len(tests) == 9 and [test.gain is None for test in tests] == [False] * 6 + [True] * 3
    ps = sorted(test.gain.p for test in tests[:6])
    # The smallest times nine, and never less than the one before.
    by_hand, most = {}, 0.0
    for rank, p in enumerate(ps):
        most = max(most, min(1.0, (9 - rank) * p))
        by_hand[p] = most
    assert [test.p_holm for test in tests[:6]] == pytest.approx([by_hand[test.gain.p] for test in tests[:6]])
    assert min(ps) < 0.05 and all(test.p_holm == 1 for test in tests[6:])
    table = confirmatory_table(made)
    assert table.rows[0][:3] == ("dhf-matched, cerner (simulated)", "GRU + Med-BERT − GRU", "+1.21")
    assert table.rows[-1] == ("paca-matched, truven", "RETAIN + Med-BERT − RETAIN", "–", "not run", "–", "–", "–")
    assert "not run counted" in table.notes[0] and "descriptive" in table.notes[0]


def test_two_datasets_of_one_cohort_are_refused_in_the_family(tmp_path):
    for dataset in ("a" * 64, "b" * 64):
        filed = file_cohort(tmp_path, LABELS, dataset_hash=dataset)
        file_run(tmp_path, filed, scores(LABELS, 0.7, 0), backbone="none", head="gru")
    with pytest.raises(ValueError, match=r"got dhf-matched, cerner \(simulated\), dataset aaaaaaaa, dhf-matched"):
        confirmatory(read_study(tmp_path, draws=0))


def test_a_mean_of_permutations_is_held_against_three_errors(tmp_path):
    """Two permutations of two replicates each; the second row knows the labels, which is a leak."""
    for number, dataset in enumerate(("a" * 64, "b" * 64)):
        filed = file_cohort(tmp_path, LABELS, dataset_hash=dataset, design=EVERYBODY)
        for replicate in range(2):
            named = {"head": "gru", "replicate": replicate, "experiment": "labels permuted"}
            chance = scores(LABELS, 0.5, [number, replicate])
            file_run(tmp_path, filed, chance, backbone="pretrained", **named)
            file_run(tmp_path, filed, scores(LABELS, 0.8, [number, replicate]), backbone="none", **named)
    study = read_study(tmp_path, draws=300)
    rows = {name: rest for _, name, *rest in control_rows(study)}
    of = [
        mean_auroc(study, cohort, model)
        for cohort in study.cohorts
        for model in cohort.cells
        if model.backbone == "pretrained"
    ]
    n, mean, bound, inside = rows["GRU + Med-BERT, 3000"]
    assert n == 2 and mean == pytest.approx((of[0].value + of[1].value) / 2)
    assert bound == pytest.approx(3 * (of[0].sampling_error + of[1].sampling_error) / 2 / np.sqrt(2)) and inside
    assert not rows["GRU, 3000"][-1]
    assert [row[-1] for row in control_table(study).rows] == ["yes", "no"] or [
        row[-1] for row in control_table(study).rows
    ] == ["no", "yes"]


def test_without_permuted_labels_there_is_no_such_table(made):
    assert control_table(made) is None
