"""A made study that several tests read and none changes."""

import numpy as np
import pytest
from replication.made_study import file_cohort, file_grid

from medbert_jax.replication.study import read_study

BASES = {"gru": 0.70, "bi_gru": 0.69, "retain": 0.71}
SIZES = {300: -0.05, 1000: -0.02, 3000: 0.0}


def grid(sizes) -> dict:
    """(backbone, head, size) → AUROC, about: Med-BERT gains more where there are few."""
    found = {}
    for size in sizes:
        less = SIZES[size]
        for head, auroc in BASES.items():
            found["none", head, size] = auroc + less
            found["tw2v", head, size] = auroc + less + 0.01
            found["pretrained", head, size] = auroc + less / 4 + 0.04
        found["pretrained", "feed_forward", size] = 0.74 + less / 4
        found["untrained", "feed_forward", size] = 0.66 + less
        found["logistic_regression", "default", size] = 0.69 + less
    return found


@pytest.fixture(scope="session")
def made_folder(tmp_path_factory):
    """Results of two cohorts at cerner, one of which has too few cases for its smallest sizes."""
    folder = tmp_path_factory.mktemp("made study") / "results"
    labels = np.tile([1, 0, 0], 60)
    dhf = file_cohort(folder, labels, name="dhf-matched", dataset_hash="a" * 64)
    paca = file_cohort(folder, labels, name="paca-matched", dataset_hash="b" * 64, training=(3000, 30))
    file_grid(folder, dhf, grid(SIZES), range(2))
    file_grid(folder, paca, grid([1000, 3000]), range(2))
    file_grid(folder, paca, {("logistic_regression", "default", 300): 0.6}, range(2))
    return folder


@pytest.fixture(scope="session")
def made(made_folder):
    """The same, read."""
    return read_study(made_folder, draws=200)
