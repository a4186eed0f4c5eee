"""What is kept of a results folder: the same tables in little room, and refused when it is not as it was."""

import shutil

import numpy as np
import pytest
from replication.made_study import file_cohort, file_run, scores

from medbert_jax.replication.document import markdown
from medbert_jax.replication.kept import is_kept, keep_results, probabilities_of, read_rows
from medbert_jax.replication.study import read_study


@pytest.fixture(scope="module")
def whole(made_folder, tmp_path_factory):
    """What was kept of the made study."""
    return keep_results(made_folder, tmp_path_factory.mktemp("kept") / "kept")


def size(folder) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_the_same_tables_are_made_of_it_in_a_fifth_of_the_room(made_folder, made, whole, tmp_path):
    kept = whole
    assert is_kept(kept) and not is_kept(made_folder)
    assert markdown(read_study(kept, draws=200), []) == markdown(made, [])
    assert size(kept) < size(made_folder) / 5
    before = {path.name: path.read_bytes() for path in kept.rglob("*") if path.is_file()}
    # Kept again, from what is kept, nothing is lost.
    keep_results(kept, tmp_path / "again")
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").rglob("*") if path.is_file()} == before


def test_no_probability_is_rounded_and_what_has_none_keeps_its_rows(tmp_path):
    labels = np.tile([1, 0, 0], 20)
    filed = file_cohort(tmp_path / "results", labels)
    exact = scores(labels, 0.7, 0).astype(np.float32).astype(np.float64)
    files = [scores(labels, 0.7, 1), exact, exact / 2]
    runs = [
        file_run(tmp_path / "results", filed, of, backbone="none", head=str(number)) for number, of in enumerate(files)
    ]
    (tmp_path / "results" / "predictions" / f"{runs[2]}.parquet").unlink()
    (tmp_path / "results" / "unfinished" / "0123").mkdir(parents=True)
    kept = keep_results(tmp_path / "results", tmp_path / "kept")
    found = probabilities_of(kept, filed, runs)
    assert set(found) == set(runs[:2])
    assert all(np.array_equal(found[run], of) for run, of in zip(runs[:2], files, strict=False))
    assert read_rows(kept)["run_id"].n_unique() == 3
    study = read_study(kept, draws=0)
    assert (study.begun, study.cohorts[0].looks, study.cohorts[0].without_auroc) == (1, 3, 1)


@pytest.mark.parametrize("name", ["results.parquet", "kept.json", "probabilities", "test_patients"])
def test_a_file_that_is_gone_or_another_is_refused(whole, tmp_path, name):
    kept = shutil.copytree(whole, tmp_path / "kept")
    path = kept / name
    if path.is_dir():
        path = sorted(path.iterdir())[0]
    content = path.read_bytes()
    path.write_bytes(content.replace(b"1", b"2", 1) if path.suffix == ".json" else content + b" ")
    with pytest.raises(ValueError, match="keep the results again"):
        read_study(kept, draws=0)
    if path.suffix != ".json":
        path.unlink()
        with pytest.raises(ValueError, match="must be whole"):
            read_study(kept, draws=0)


def test_it_replaces_what_was_kept_before_and_no_other_file(whole, tmp_path):
    kept = shutil.copytree(whole, tmp_path / "kept")
    (kept / "README.md").write_text("mine")
    labels = np.tile([1, 0, 0], 20)
    filed = file_cohort(tmp_path / "results", labels, dataset_hash="e" * 64)
    run = file_run(tmp_path / "results", filed, scores(labels, 0.7, 0), backbone="none", head="gru")
    keep_results(tmp_path / "results", kept)
    assert (kept / "README.md").read_text() == "mine" and set(read_rows(kept)["run_id"]) == {run}
    assert [path.stem for path in (kept / "test_patients").iterdir()] == ["e" * 64]
