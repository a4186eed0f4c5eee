"""Table 4 and the tables of every row and size, against numbers from the paper and by hand."""

import numpy as np
import pytest
from evaluation.made_patients import EVERYBODY
from replication.made_study import file_cohort, file_run, scores

from medbert_jax.replication.paper import BASES, DHF, PACA, ROWS, TABLE4, TRUVEN, printed_difference
from medbert_jax.replication.study import read_study
from medbert_jax.replication.table4 import further_table, table4

HAND = {4: [0.9, 0.1, 0.8, 0.2], 3: [0.9, 0.1, 0.5, 0.6]}


def test_the_papers_numbers_have_its_gains():
    """Typed wrong, a cell would no longer give what the text of the paper says."""
    of = {
        (column, head): printed_difference(column, ("pretrained", head), ("none", head))
        for column in (DHF, PACA, TRUVEN)
        for head in BASES
    }
    assert of[DHF, "gru"] == min(of.values()) == 1.21 and of[PACA, "bi_gru"] == max(of.values()) == 6.14
    assert sorted(of[TRUVEN, head] for head in BASES)[::2] == [1.96, 3.78]
    assert sorted(of[column, "retain"] for column in (DHF, PACA, TRUVEN)) == [1.62, 1.96, 2.05]
    only, fresh = ("pretrained", "feed_forward"), ("untrained", "feed_forward")
    assert [round(printed_difference(column, only, fresh), 1) for column in TABLE4] == [2.4, 6.5, 4.1]
    above = [printed_difference(column, ("tw2v", head), ("none", head)) > 0 for column in TABLE4 for head in BASES]
    assert sum(above) == 8 and all(set(cells) == set(ROWS) for cells in TABLE4.values())


def test_a_cell_stands_beside_the_papers_with_deviation_and_error(tmp_path):
    filed = file_cohort(tmp_path, [1, 0, 1, 0], design=EVERYBODY)
    for replicate, pairs in enumerate((3, 4)):
        file_run(tmp_path, filed, HAND[pairs], backbone="pretrained", head="gru", replicate=replicate)
    study = read_study(tmp_path, draws=200)
    table = table4(study)
    assert table.columns == ("row", "dhf-matched, cerner (simulated): paper", "ours", "SD", "SE")
    of = {row[0]: row[1:] for row in table.rows}
    assert list(of)[:13] == list(ROWS.values())
    assert of["GRU + Med-BERT"][:3] == ("85.14 (0.06)", "87.50", "17.68")  # of 0.75 and 1
    assert float(of["GRU + Med-BERT"][3]) > 0
    assert of["RF"] == ("81.88 (0.08)", "not run", "–", "–")
    assert "looked at 2 times, once by each run" in table.notes[1] and "trained on 3,000 (900 cases)" in table.notes[1]


def test_an_empty_cell_says_that_it_has_too_few_cases(made):
    table = table4(made)
    assert not any("empty" in cell for row in table.rows for cell in row)
    paca = next(one for one in made.cohorts if one.name == "paca-matched")
    notes = " ".join(further_table(made, paca).notes)
    assert "drawn again: matched sets" in notes and "Absolute risks" in notes
    assert {row[0] for row in further_table(made, paca).rows} == {
        "300 (90 cases)", "1,000 (300 cases)", "3,000 (900 cases)"
    }  # fmt: skip


def test_where_the_largest_size_has_too_few_cases_table_4_says_so(tmp_path):
    filed = file_cohort(tmp_path, [1, 0, 1, 0], design=EVERYBODY, training=(1000, 20))
    file_run(tmp_path, filed, HAND[3], backbone="none", head="gru", size=300, cases=None)
    row = next(row for row in table4(read_study(tmp_path, draws=0)).rows if row[0] == "LR")
    assert row[2] == "empty: about 6 training cases, under 10"
    (further,) = further_table(read_study(tmp_path, draws=0), read_study(tmp_path, draws=0).cohorts[0]).rows
    assert further[0] == "300 (about 6 cases)"


def test_what_a_design_refuses_has_no_column(tmp_path):
    labels = np.tile([1, 0, 0], 60)
    for name, dataset, design in (("dhf-landmark", "b" * 64, EVERYBODY), ("dhf-matched", "a" * 64, None)):
        named = {"name": name, "dataset_hash": dataset} | ({"design": design} if design else {})
        filed = file_cohort(tmp_path, labels, **named)
        file_run(tmp_path, filed, scores(labels, 0.7, 0), backbone="none", head="gru")
    study = read_study(tmp_path, draws=0)
    of = {cohort.name: further_table(study, cohort) for cohort in study.cohorts}
    shared = {"sensitivity at specificity 0.9"}
    assert set(of["dhf-matched"].columns[7:]) == shared | {"concordance within sets"}
    assert set(of["dhf-landmark"].columns[7:]) == shared | {"AUPRC", "Brier", "calibration slope", "ICI"}


def test_a_rerun_is_a_row_of_its_own_and_never_averaged(tmp_path):
    filed = file_cohort(tmp_path, [1, 0, 1, 0], design=EVERYBODY)
    for rate, pairs in ((1, 3), (2, 4)):
        file_run(tmp_path, filed, HAND[pairs], backbone="none", head="gru", rate=rate)
    of = {row[0]: row[2] for row in table4(read_study(tmp_path, draws=0)).rows}
    assert of["GRU"] == "not run"
    assert {of["no backbone, gru (rate=1)"], of["no backbone, gru (rate=2)"]} == {"75.00", "100.00"}


def test_experiments_may_be_taken_as_one_and_must_be_there(tmp_path):
    filed = file_cohort(tmp_path, [1, 0, 1, 0], design=EVERYBODY)
    file_run(tmp_path, filed, HAND[3], backbone="none", head="gru", experiment="whole")
    file_run(tmp_path, filed, HAND[4], backbone="none", head="gru", experiment="sizes", size=300)
    file_run(tmp_path, filed, HAND[4], backbone="none", head="gru", experiment="labels permuted, whole", size=300)
    study = read_study(tmp_path, experiments=["whole", "sizes"], draws=0)
    assert study.cohorts[0].sizes(study.experiment) == ["300", "3000"]
    assert read_study(tmp_path, draws=0).experiment in ("whole", "sizes")
    with pytest.raises(ValueError, match=r"got whloe; use some of labels permuted, whole, sizes, whole"):
        read_study(tmp_path, experiments=["whloe"])


def test_scores_that_order_nobody_have_no_auroc(tmp_path):
    filed = file_cohort(tmp_path, [1, 0, 1, 0], design=EVERYBODY)
    for replicate, probabilities in enumerate((HAND[3], [0.5] * 4)):
        file_run(tmp_path, filed, probabilities, backbone="none", head="gru", replicate=replicate)
    file_run(tmp_path, filed, [0.5] * 4, backbone="tw2v", head="gru")
    study = read_study(tmp_path, draws=0)
    of = {row[0]: row[2:4] for row in table4(study).rows}
    assert of["GRU"] == ("75.00", "–") and of["GRU + t-W2V"] == ("no AUROC", "–")
    assert (study.cohorts[0].looks, study.cohorts[0].without_auroc) == (3, 2)


def test_a_title_is_that_of_one_dataset(tmp_path):
    """The one beside the paper keeps its title; the dataset of a variant, and two of one experiment, are told apart."""
    for dataset, experiment in (("a", "made"), ("b", "variant"), ("c", "other")):
        filed = file_cohort(tmp_path, [1, 0, 1, 0], design=EVERYBODY, dataset_hash=dataset * 64)
        file_run(tmp_path, filed, HAND[3], backbone="none", head="gru", experiment=experiment)
    plain = "dhf-matched, cerner (simulated)"
    titles = [cohort.title for cohort in read_study(tmp_path, experiments=["made"], draws=0).cohorts]
    assert titles == [plain, f"{plain}, dataset bbbbbbbb", f"{plain}, dataset cccccccc"]
    titles = [cohort.title for cohort in read_study(tmp_path, experiments=["made", "variant"], draws=0).cohorts]
    assert titles == [f"{plain}, dataset {name * 8}" for name in "abc"]


def test_a_spec_that_is_called_after_its_site_stands_beside_the_same_column(tmp_path):
    filed = file_cohort(tmp_path, [1, 0, 1, 0], name="paca-matched-truven", site="truven", design=EVERYBODY)
    file_run(tmp_path, filed, HAND[3], backbone="none", head="gru")
    (cohort,) = read_study(tmp_path, draws=0).cohorts
    assert (cohort.name, cohort.column, cohort.title) == ("paca-matched", TRUVEN, "paca-matched, truven (simulated)")
