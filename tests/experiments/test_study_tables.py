"""Tables with a fold held out, and of two sources as one; a pretraining on them has read nobody who is tested."""

import numpy as np
import polars as pl
import pytest
from made_ehr import made_tables
from prepared_datasets import prepare_cohort, prepare_pretraining

from medbert_jax.data.token_store import open_token_store
from medbert_jax.ehr.tables import read_source, read_tables, write_tables
from medbert_jax.experiments.study_tables import write_fold, write_joined
from medbert_jax.training.unseen_patients import check_unseen

FOLDS = 3


def say(line: str) -> None:
    """Nothing."""


@pytest.fixture(scope="module")
def folds(tmp_path_factory):
    """Made patients, and each fold of them."""
    folder = tmp_path_factory.mktemp("folds")
    write_tables(made_tables(300, seed=1), folder / "all", shards=2)
    for fold in range(FOLDS):
        write_fold(folder / "all", folder / f"fold-{fold}", fold=fold, folds=FOLDS, validation_parts=4)
    return folder


def splits(folder) -> dict[str, set[str]]:
    frame = pl.read_parquet(folder / "splits.parquet")
    return {name: set(frame.filter(split=name)["patient_id"]) for name in ("train", "validation", "test")}


def test_each_patient_is_tested_in_one_fold_and_trains_or_chooses_in_the_others(folds):
    everybody = set(read_tables(folds / "all").patients["patient_id"])
    of_folds = [splits(folds / f"fold-{fold}") for fold in range(FOLDS)]
    tested = [fold["test"] for fold in of_folds]
    assert sum(map(len, tested)) == len(everybody) and set.union(*tested) == everybody
    for fold in of_folds:
        assert set.union(*fold.values()) == everybody and sum(map(len, fold.values())) == len(everybody)
        assert 0.15 < len(fold["validation"]) / len(fold["train"] | fold["validation"]) < 0.35
    # Another part is for validation in every fold.
    assert of_folds[0]["validation"] - of_folds[1]["test"] != of_folds[1]["validation"] - of_folds[0]["test"]
    hashes = {read_source(folds / name).content_hash for name in ("all", "fold-0", "fold-1", "fold-2")}
    assert len(hashes) == 4


def test_a_folds_patients_are_in_no_pretraining_of_that_fold(folds, tmp_path):
    for fold in range(FOLDS):
        ehr, data = folds / f"fold-{fold}", tmp_path / str(fold)
        dataset = prepare_pretraining(ehr, "p", data_dir=data, workers=1, announce=say)
        tested = {one.encode() for one in splits(ehr)["test"]}
        learned = [set(open_token_store(dataset, name).patient_id.tolist()) for name in ("train", "validation")]
        assert not tested & (learned[0] | learned[1])
        asked = {"data_dir": data, "pretraining_dataset": dataset, "few_cases": True, "workers": 1, "announce": say}
        cohort = prepare_cohort(ehr, "los-next", "c", **asked)
        assert set(open_token_store(cohort, "test").patient_id.tolist()) <= tested
        check_unseen(cohort, dataset, training_seen=True)
        with pytest.raises(ValueError, match="must not have read patients of a cohort that it is judged on: got"):
            check_unseen(cohort, dataset)


def test_a_cohort_whose_test_patients_were_trained_on_is_refused(folds, tmp_path):
    data = tmp_path / "data"
    first, second = (
        prepare_pretraining(folds / f"fold-{fold}", f"p{fold}", data_dir=data, workers=1, announce=say)
        for fold in (0, 1)
    )
    asked = {"data_dir": data, "pretraining_dataset": first, "few_cases": True, "workers": 1, "announce": say}
    cohort = prepare_cohort(folds / "fold-0", "los-next", "c", **asked)
    with pytest.raises(ValueError, match="must not have read validation and test patients of a cohort"):
        check_unseen(cohort, second, training_seen=True)


def test_two_sources_are_one_in_the_shards_of_the_first(folds, tmp_path):
    more = made_tables(40, seed=2)
    renamed = {
        name: table.with_columns(patient_id="more-" + pl.col("patient_id")) for name, table in more.present().items()
    }
    write_tables(type(more)(**renamed, source=more.source), tmp_path / "more")
    source = write_joined(folds / "all", tmp_path / "more", tmp_path / "joined")
    assert source.shards == 2
    joined, parts = read_tables(tmp_path / "joined"), (read_tables(folds / "all"), read_tables(tmp_path / "more"))
    for name, table in joined.present().items():
        assert table.height == sum(part.present()[name].height for part in parts)
    assert len(np.unique(joined.patients["patient_id"].to_numpy())) == 340
    with pytest.raises(ValueError, match="patient_id is there more than once"):
        write_joined(folds / "all", folds / "all", tmp_path / "twice")
