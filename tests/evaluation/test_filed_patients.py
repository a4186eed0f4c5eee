"""The test patients that lie beside predictions: those of the dataset, whole, and refused when they are not."""

import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from evaluation.made_patients import EVERYBODY, made_patients

from medbert_jax.disk.tables_on_disk import parquet_metadata
from medbert_jax.evaluation.design import Design
from medbert_jax.evaluation.evaluated_patients import read_evaluated
from medbert_jax.evaluation.filed_patients import FiledPatients, file_test_patients, read_filed, write_filed

STORED = Path(__file__).parents[1] / "stored" / "0.1.0" / "cohort"


def test_those_of_a_dataset_come_back_with_all_that_judging_asks_for(tmp_path):
    dataset = shutil.copytree(STORED, tmp_path / "cohort")
    path = file_test_patients(tmp_path / "results", dataset)
    filed, expected = read_filed(path), read_evaluated(dataset)
    for name in ("subject", "time", "label", "weight"):
        assert np.array_equal(getattr(filed.patients, name), getattr(expected, name)), name
    assert (filed.patients.sets is None) == (expected.sets is None)
    assert (filed.patients.name, filed.patients.dataset_hash) == (expected.name, path.stem)
    assert asdict(filed.patients.design) == asdict(expected.design)
    assert filed.is_simulated and (filed.training_patients, filed.training_cases) == (96, 7)
    before = path.stat().st_mtime_ns
    assert file_test_patients(tmp_path / "results", dataset) == path and path.stat().st_mtime_ns == before


def test_a_dataset_without_its_table_of_patients_files_none(tmp_path):
    dataset = shutil.copytree(STORED, tmp_path / "cohort")
    (dataset / "cohort.parquet").unlink()
    assert file_test_patients(tmp_path / "results", dataset) is None
    assert not (tmp_path / "results").exists()


def filed(tmp_path: Path) -> Path:
    sets = np.array(["s1", "s1", "s2", "s2"])
    patients = made_patients([1, 0, 1, 0], Design("matched sets", "score", None, "refused"), sets=sets)
    path = tmp_path / f"{patients.dataset_hash}.parquet"
    write_filed(path, FiledPatients(patients, {"format": "own"}, 10, 5))
    return path


def test_sets_weights_and_design_stay(tmp_path):
    found = read_filed(filed(tmp_path))
    assert found.patients.sets.tolist() == ["s1", "s1", "s2", "s2"] and not found.is_simulated
    assert found.patients.design == Design("matched sets", "score", None, "refused")
    weighted = made_patients([1, -1, 0], EVERYBODY, weight=np.array([1.0, 0.0, 2.5]))
    write_filed(tmp_path / f"{weighted.dataset_hash}.parquet", FiledPatients(weighted, {"format": "own"}, 10, 5))
    again = read_filed(tmp_path / f"{weighted.dataset_hash}.parquet").patients
    assert again.weight.tolist() == [1, 0, 2.5] and again.label.tolist() == [1, -1, 0] and again.sets is None


def changed(path: Path, **told) -> None:
    frame = pl.read_parquet(path).with_columns(pl.col("label") * (0 if told.pop("rows", False) else 1))
    frame.write_parquet(path, metadata=parquet_metadata(path) | told)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-40]), "unreadable"),
        (lambda path: changed(path, rows=True), "changed since"),
        (lambda path: changed(path, version="2"), "of version 2"),
        (lambda path: changed(path, about="{}"), "name is missing"),
        (lambda path: changed(path, about="no"), "no JSON"),
    ],
    ids=["cut", "edited", "newer", "another form", "no form"],
)
def test_what_is_not_as_it_was_filed_is_refused(tmp_path, damage, message):
    path = filed(tmp_path)
    damage(path)
    with pytest.raises(ValueError, match=message) as refused:
        read_filed(path)
    assert str(path) in str(refused.value)


def test_under_another_name_they_are_refused(tmp_path):
    path = filed(tmp_path)
    with pytest.raises(ValueError, match="must lie in DATASET_HASH"):
        read_filed(path.rename(tmp_path / f"{'1' * 64}.parquet"))
