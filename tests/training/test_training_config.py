"""Whether a checkpoint and a dataset go together."""

import json

import pytest

from medbert_jax.training.config import PretrainConfig
from medbert_jax.training.lineage import check_split

SPLIT = {"key": "medbert_jax/split", "ratios": [0.7, 0.1, 0.2], "counts": {"train": 7, "validation": 1, "test": 2}}


@pytest.fixture
def checkpoint(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"split": SPLIT}))
    return tmp_path


def test_another_database_of_the_same_split_may_go_on_from_a_checkpoint(checkpoint):
    check_split(checkpoint, {**SPLIT, "counts": {"train": 70, "validation": 11, "test": 19}})


@pytest.mark.parametrize("change", [{"key": "another"}, {"ratios": [0.8, 0.1, 0.1]}, {"patients": "0f3a"}])
def test_another_split_is_refused(checkpoint, change):
    with pytest.raises(ValueError, match="must keep its split"):
        check_split(checkpoint, {**SPLIT, **change})


def test_intervals_that_never_come_are_all_named():
    rule = r"^checkpoint_every must be at least 1: got 0.*\nlog_every must be .* got -1.*\nepochs must be above 0"
    with pytest.raises(ValueError, match=rule):
        PretrainConfig(checkpoint_every=0, log_every=-1, epochs=0.0)
