"""Vectors of codes on disk, what they refuse, and a fine-tuning that begins with them."""

import sys
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from made_datasets import Drawn, write_drawn
from training.test_finetuning_resume import CODES, made  # noqa: F401

import run_finetune
from medbert_jax import cli
from medbert_jax.data.token_store import read_metadata
from medbert_jax.data.vocabulary import FIRST_CODE
from medbert_jax.evaluation.results import read_results
from medbert_jax.models.finetune_heads import HeadConfig
from medbert_jax.training import stored_vectors
from medbert_jax.training.code_vectors import Trained
from medbert_jax.training.code_vectors_options import CodeVectorsConfig
from medbert_jax.training.stored_vectors import CodeVectors, write_vectors

IDS = FIRST_CODE + len(CODES)
SIZE = 32
CONFIG = CodeVectorsConfig(size=SIZE)


def drawn_vectors() -> Trained:
    random = np.random.default_rng(0)
    counts = np.arange(IDS) * (np.arange(IDS) >= FIRST_CODE)
    vectors = random.normal(0, 3, (IDS, SIZE)).astype(np.float32) * (counts > 0)[:, None]
    return Trained(vectors, counts, 100, 2, (3.0, 2.5), 1e6)


@pytest.fixture
def vectors(made, tmp_path):  # noqa: F811
    """(file of vectors that go with the cohort, its metadata)."""
    metadata = read_metadata(made.dataset)
    write_vectors(tmp_path / "v.npz", drawn_vectors(), CONFIG, metadata | {"dataset_hash": "p"})
    return tmp_path / "v.npz", metadata


def test_what_is_read_is_what_was_written_and_equal_vectors_are_equal_bytes(vectors, tmp_path):
    path, metadata = vectors
    stored, trained = CodeVectors.read(path), drawn_vectors()
    assert np.array_equal(stored.vectors, trained.vectors) and np.array_equal(stored.counts, trained.counts)
    assert stored.about["config"]["window_days"] == 30 and stored.about["losses"] == [3.0, 2.5]
    assert stored.about["dataset_hash"] == "p"
    write_vectors(tmp_path / "again.npz", trained, CONFIG, metadata | {"dataset_hash": "p"})
    again = CodeVectors.read(tmp_path / "again.npz")
    assert again.fingerprint == stored.fingerprint
    write_vectors(tmp_path / "again.npz", replace(trained, vectors=-trained.vectors), CONFIG, metadata)
    assert CodeVectors.read(tmp_path / "again.npz").fingerprint != stored.fingerprint


def test_a_file_that_is_none_is_refused(vectors, tmp_path, monkeypatch):
    path, _ = vectors
    content = path.read_bytes()
    for number, wrong in enumerate((b"", b"text", content[:500], content.replace(b"dataset_hash", b"dataset_hush"))):
        other = tmp_path / f"{number}.npz"
        other.write_bytes(wrong)
        with pytest.raises(ValueError, match=r"code vectors must be an \.npz as it was written: got .*write it again"):
            CodeVectors.read(other)
    np.savez(tmp_path / "other.npz", vectors=np.zeros(3))
    with pytest.raises(ValueError, match="KeyError"):
        CodeVectors.read(tmp_path / "other.npz")
    with pytest.raises(ValueError, match="got no --vectors; give the file that medbert code-vectors wrote"):
        CodeVectors.read("")
    monkeypatch.setattr(stored_vectors, "VERSION", 0)
    with pytest.raises(ValueError, match="of version 1; read it with the medbert_jax that wrote it"):
        CodeVectors.read(path)


@pytest.mark.parametrize("name", ["pretraining_dataset_hash", "vocabulary_hash"])
def test_vectors_of_another_dataset_are_refused(vectors, name):
    path, metadata = vectors
    CodeVectors.read(path).check_cohort(metadata)
    with pytest.raises(ValueError, match=f"must have the split and vocabulary .* got {name} other for the cohort and"):
        CodeVectors.read(path).check_cohort(metadata | {name: "other"})


def test_the_table_has_the_vectors_in_its_own_scale_and_its_own_rows_where_there_are_none(vectors):
    stored = CodeVectors.read(vectors[0])
    table = jnp.asarray(np.random.default_rng(1).normal(0, 0.02, (IDS, SIZE)), jnp.float32)
    params = {"embeddings": {"code_table": table, "visit_table": 1}, "head": 2}
    found = stored.put_into(params)
    assert found["head"] == 2 and found["embeddings"]["visit_table"] == 1
    merged, has = np.asarray(found["embeddings"]["code_table"]), stored.counts > 0
    assert np.array_equal(merged[~has], np.asarray(table)[~has])
    ratio = merged[has] / stored.vectors[has]
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-4)
    assert np.square(merged[has]).mean() == pytest.approx(np.square(table).mean(), rel=1e-4)
    with pytest.raises(ValueError, match=rf"got \({IDS}, {SIZE}\) .* and \({IDS}, 8\) in the model; train them with"):
        stored.put_into({"embeddings": {"code_table": jnp.zeros((IDS, 8))}})


@pytest.mark.parametrize("kind", ["retain", "feed_forward"])
def test_a_fine_tuning_begins_with_them(vectors, made, tmp_path, kind, monkeypatch):  # noqa: F811
    path, _ = vectors
    began, everything = [], run_finetune.everything
    monkeypatch.setattr(
        run_finetune, "everything", lambda params, *a, **k: began.append(params) or everything(params, *a, **k)
    )
    monkeypatch.setattr(run_finetune, "with_standing_baselines", lambda run: [run])
    config = replace(
        made, backbone="tw2v", vectors=str(path), head=HeadConfig(kind, gru_hidden=8), max_epochs=1,
        results=str(tmp_path / "results"),
    )  # fmt: skip
    run_finetune.main(config)
    rows = read_results(config.results)
    assert rows.select("backbone", "head", "checkpoint").unique().rows() == [
        ("tw2v", kind, CodeVectors.read(path).fingerprint)
    ]
    assert began[0]["encoder"] == {}
    ratio = began[0]["embeddings"]["code_table"][FIRST_CODE:] / CodeVectors.read(path).vectors[FIRST_CODE:]
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-4)


def test_the_command_writes_vectors_of_the_training_patients(tmp_path, monkeypatch, capsys):
    def somebody(name: str, codes: list[int]) -> Drawn:
        return Drawn([(0, 20_000, 1, codes), (20, 20_020, 1, codes[::-1])], id=name)

    splits = {"train": [somebody(f"t{number}", [16, 17]) for number in range(5)]}
    splits |= {name: [somebody(name, [18, 19])] for name in ("validation", "test")}
    dataset = write_drawn(
        tmp_path / "made" / "1.0.0", splits, codes=CODES[:4], preset="paper",
        split={"counts": {"train": 5, "validation": 1, "test": 1}, "key": "k"},
    )  # fmt: skip
    out = tmp_path / "deep" / "v.npz"
    typed = ["medbert", "code-vectors", str(dataset), str(out), "--size", "4", "--epochs", "2"]
    monkeypatch.setattr(sys, "argv", typed)
    cli.main()
    said = capsys.readouterr()
    assert said.out.startswith("60 pairs of codes within 30 days, of 5 training patients; 0 more")
    assert "pass 2 of 2: loss" in said.err
    stored = CodeVectors.read(out)
    assert stored.counts.tolist() == [0] * 16 + [10, 10, 0, 0] and stored.vectors.shape == (20, 4)
    assert stored.about["dataset_hash"] == read_metadata(dataset)["dataset_hash"]
