"""Training sizes: curves, brackets and distances by hand."""

import numpy as np
import pytest
from evaluation.made_patients import EVERYBODY
from replication.made_study import file_cohort, file_run, scores

from medbert_jax.replication.estimates import difference
from medbert_jax.replication.sizes import (
    ORACLE,
    Point,
    bracket,
    bracket_words,
    curve,
    gain_table,
    gains,
    labels_table,
    oracle_table,
)
from medbert_jax.replication.study import Model, read_study

CURVE = [Point(str(size), size, mean, mean, mean) for size, mean in ((300, 0.6), (1000, 0.7), (3000, 0.69))]


@pytest.mark.parametrize(
    ("target", "found", "words"),
    [
        (0.6, ("", "300"), "300 or fewer"),
        (0.65, ("300", "1000"), "300 to 1,000"),
        (0.7, ("300", "1000"), "300 to 1,000"),
        (0.71, ("3000", ""), "more than 3,000"),
    ],
)
def test_the_bracket_is_between_the_sizes_that_were_run(target, found, words):
    assert bracket(CURVE, target) == found and bracket_words(CURVE, target) == words


def test_a_curve_is_ascending_with_the_range_of_its_replicates(made):
    points = curve(made, made.cohorts[0], ("none", "gru"))
    assert [point.patients for point in points] == [300, 1000, 3000]
    for point in points:
        runs = made.cohorts[0].cells[Model("made", "none", "gru", point.size)]
        values = [run.auroc for run in runs]
        assert len(values) == 2 and (point.lowest, point.highest) == (min(values), max(values))
        assert point.mean == pytest.approx(np.mean(values))
    assert curve(made, made.cohorts[0], ("none", "lstm")) == []


def test_gains_are_the_paired_differences_and_a_size_that_is_missing_is_a_dash(made):
    dhf, paca = made.cohorts
    found = gains(made, dhf, "GRU")
    assert [size for size, *_ in found] == ["300", "1000", "3000"]
    models = [Model("made", backbone, "gru", "300") for backbone in ("pretrained", "none")]
    assert found[0][2] == difference(made, dhf, *models)
    table = gain_table(made, paca)
    assert table.columns[1:] == ("300 (90 cases)", "1,000 (300 cases)", "3,000 (900 cases)")
    assert {row[1] for row in table.rows} == {"–"} and len(table.rows) == 4


def test_labels_for_an_equal_auroc_are_told_for_every_size_of_a_base(made):
    dhf = made.cohorts[0]
    table = labels_table(made, dhf)
    of = {(row[0], row[1]): row[2:] for row in table.rows}
    target = curve(made, dhf, ("none", "gru"))[-1].mean
    expected = bracket_words(curve(made, dhf, ("pretrained", "gru")), target)
    assert of["GRU", "3,000"] == (f"{100 * target:.2f}", expected) and len(of) == 12


def test_the_distance_to_the_oracle_and_what_is_closed_of_it_by_hand(tmp_path):
    filed = file_cohort(tmp_path, [1, 0, 1, 0, 1, 0], name="dhf-landmark", design=EVERYBODY)
    # Of nine pairs 9, 7 and 6 are in order.
    ordered = {
        (ORACLE, "state"): [0.9, 0.1, 0.8, 0.2, 0.7, 0.3],
        ("none", "gru"): [0.9, 0.1, 0.8, 0.2, 0.25, 0.85],
        ("logistic_regression", "default"): [0.9, 0.1, 0.8, 0.85, 0.15, 0.2],
    }
    for (name, head), probabilities in ordered.items():
        file_run(tmp_path, filed, probabilities, backbone=name, head=head)
    study = read_study(tmp_path, draws=0)
    values = {model.backbone: runs[0].auroc for model, runs in study.cohorts[0].cells.items()}
    assert values == {ORACLE: 1.0, "none": pytest.approx(7 / 9), "logistic_regression": pytest.approx(6 / 9)}
    table = oracle_table(study, study.cohorts[0])
    of = {row[0]: row[1:] for row in table.rows}
    assert of == {"GRU": ("+22.22 –", "33 %"), "LR": ("+33.33 –", "0 %")}  # 1 − 2/9 ÷ 3/9


def test_without_an_oracle_there_is_no_such_table(made):
    assert oracle_table(made, made.cohorts[0]) is None


def test_sizes_alike_have_no_curve(tmp_path):
    labels = np.tile([1, 0, 0], 20)
    filed = file_cohort(tmp_path, labels)
    file_run(tmp_path, filed, scores(labels, 0.7, 0), backbone="none", head="gru")
    study = read_study(tmp_path, draws=0)
    assert len(curve(study, study.cohorts[0], ("none", "gru"))) == 1
    assert gain_table(study, study.cohorts[0]).rows == ()
