"""Cross-fitting: datasets of one cohort are folds where their test patients are all other ones."""

import numpy as np
import pytest
from evaluation.made_patients import EVERYBODY
from replication.made_study import file_cohort, file_run, scores

from medbert_jax.replication.estimates import mean_auroc
from medbert_jax.replication.folds import fold_table, fold_tables, folds
from medbert_jax.replication.study import Model, read_study

LABELS = np.tile([1, 0, 0], 60)


def study_of(folder, prefixes):
    for number, prefix in enumerate(prefixes):
        subject = np.char.mod(f"{prefix}%05d", np.arange(len(LABELS)))
        named = {"name": "hf-later", "site": "", "dataset_hash": str(number) * 64, "design": EVERYBODY}
        filed = file_cohort(folder, LABELS, subject=subject, **named)
        for backbone, auroc in (("untrained", 0.6), ("pretrained", 0.7)):
            file_run(folder, filed, scores(LABELS, auroc, number), backbone=backbone, head="feed_forward")
    return read_study(folder, draws=200)


def test_means_over_folds_by_hand(tmp_path):
    study = study_of(tmp_path, "abc")
    ((experiment, cohorts),) = folds(study)
    assert experiment == "made" and len(cohorts) == 3
    row = next(row for row in fold_table(study, experiment, cohorts).rows if row[0] == "Med-BERT only (FFL)")
    of = [mean_auroc(study, cohort, Model("made", "pretrained", "feed_forward", "3000")) for cohort in cohorts]
    values = [one.value for one in of]
    assert row[2:4] == (f"{100 * np.mean(values):.2f}", f"{100 * np.std(values, ddof=1):.2f}")
    # Of three folds that are independent: the root of the sum of squares, over three.
    assert row[4] == f"{100 * np.sqrt(sum(one.sampling_error**2 for one in of)) / 3:.2f}"
    low, high = (float(end) / 100 for end in row[5].strip("[]").split(", "))
    width = np.mean([one.high - one.low for one in of])
    assert high - low == pytest.approx(width / np.sqrt(3), rel=0.25)
    gain = fold_table(study, experiment, cohorts).rows[-1]
    assert gain[0] == "Med-BERT only (FFL) − untrained Med-BERT only" and gain[2].startswith("+")


def test_datasets_that_share_test_patients_are_no_folds(tmp_path):
    assert fold_tables(study_of(tmp_path, "aab")) == []
