"""The claims: each has its table, and no verdict says more than its interval."""

import numpy as np
import pytest
from replication.made_study import file_cohort, file_run, scores

from medbert_jax.replication.claims import claim_tables, verdict
from medbert_jax.replication.estimates import Estimate
from medbert_jax.replication.study import read_study
from medbert_jax.replication.variants import gain_table, variant_table, variants


def estimate(low: float, high: float) -> Estimate:
    return Estimate((low + high) / 2, low, high, 0.5, 0.0, 0.01, 3)


@pytest.mark.parametrize(
    ("printed", "low", "high", "said"),
    [
        (1.21, 0.005, 0.02, "the paper's direction; the paper's size is inside the interval"),
        (1.21, 0.02, 0.03, "the paper's direction; the paper's size is below the interval"),
        (6.14, 0.02, 0.03, "the paper's direction; the paper's size is above the interval"),
        (1.21, -0.01, 0.02, "not decided: 0 is inside; the paper's size is inside the interval"),
        (6.14, -0.01, 0.02, "not decided: 0 is inside; the paper's size is above the interval"),
        (1.21, -0.03, -0.01, "against the paper's direction; the paper's size is above the interval"),
        (-0.63, 0.01, 0.03, "against the paper's direction; the paper's size is below the interval"),
        (-0.63, -0.01, -0.002, "the paper's direction; the paper's size is inside the interval"),
        (None, 0.01, 0.03, "the paper's direction"),
        (None, -0.03, -0.01, "against the paper's direction"),
        (None, -0.01, 0.03, "not decided: 0 is inside"),
        (1.21, np.nan, np.nan, "no interval: nothing is said"),
    ],
)
def test_a_verdict_goes_as_far_as_the_interval(printed, low, high, said):
    assert verdict(printed, estimate(low, high), simulated=False, sign=1) == said
    simulated = verdict(printed, estimate(low, high), simulated=True, sign=1)
    assert "on simulated patients" in simulated and simulated.replace(" on simulated patients", "") == said
    assert verdict(printed, None, simulated=True) == "not run"


def test_every_claim_has_a_table_and_every_number_says_that_it_is_simulated(made):
    tables = list(claim_tables(made))
    assert [table.title[:3] for table in tables[:8]] == [f"({letter})" for letter in "abcdefgh"]
    lines = [row for table in tables for row in table.rows]
    assert all("simulated" in row[0] + row[3] for row in lines if any(letter.isdigit() for letter in row[2]))
    of = {table.title[:3]: table.rows for table in tables}
    assert len(of["(a)"]) == 6 and len(of["(f)"]) == 2 and len(of["(h)"]) == 2
    what, paper, _, said = of["(f)"][0]
    assert what == "untrained Med-BERT only − LR, dhf-matched, cerner (simulated)" and paper == "+1.75"
    assert said.startswith(("the paper's direction on", "against the paper's direction on", "not decided on"))
    # RETAIN above 500 and Bi-GRU against GRU on DHF: two sizes above 500, one below, three in all.
    assert len(of["(c)"]) == 2 + 3
    assert [row[1] for row in of["(b)"]] == ["1,000", "over 10,000", "slightly above 0 (5,000, over 50,000)"]
    assert of["(d)"] == (("no cohort or row that it is about", "–", "not run", "nothing is said"),)
    assert "over 99 %" in of["(e)"][0]
    assert tables[8].rows[0][2].endswith("of 6")


def test_a_variant_is_held_against_the_same_patients_alone(tmp_path):
    """Of another dataset with the same test patients the differences are paired; with other patients there are none."""
    labels = np.tile([1, 0, 0], 60)
    for dataset, experiment, moved in (("a", "made", 0), ("b", "variant: random-order", 0), ("c", "variant: order", 1)):
        of = np.roll(labels, moved)
        filed = file_cohort(tmp_path, of, dataset_hash=dataset * 64)
        for replicate in range(2):
            file_run(
                tmp_path, filed, scores(of, 0.7, replicate), backbone="pretrained", head="gru", replicate=replicate,
                experiment=experiment,
            )  # fmt: skip
    study = read_study(tmp_path, experiments=["made"], draws=100)
    ((cohort, model, found),) = variants(study)
    assert model.experiment == "variant: random-order" and cohort.filed.patients.dataset_hash == "b" * 64
    assert (found.value, found.low, found.high) == (0, 0, 0)  # the same scores
    assert len(variant_table(study).rows) == 1
    rows = {table.title[:3]: table.rows for table in claim_tables(study)}
    assert rows["(d)"][0][2] == "+0.00 [+0.00, +0.00]" and "simulated" in rows["(d)"][0][3]


def test_the_gain_within_another_experiment_is_told_with_its_cohort(made, tmp_path):
    labels = np.tile([1, 0, 0], 60)
    filed = file_cohort(tmp_path, labels)
    for experiment in ("made", "world bag"):
        for backbone, auroc in (("none", 0.6), ("pretrained", 0.8)):
            of = scores(labels, auroc, 0)
            file_run(tmp_path, filed, of, backbone=backbone, head="bi_gru", experiment=experiment)
    study = read_study(tmp_path, experiments=["made"], draws=100)
    (row,) = gain_table(study).rows
    assert row[:3] == ("world bag", "dhf-matched, cerner (simulated), 3,000 (900 cases)", "Bi-GRU + Med-BERT − Bi-GRU")
    assert row[3].startswith("+") and gain_table(made) is None
