"""What identifies a run: contents and no paths, and nothing that does not decide its numbers."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from medbert_jax.evaluation.provenance import commit, file_results, identify
from medbert_jax.evaluation.results import read_results, run_id
from medbert_jax.training.config import FinetuneConfig
from medbert_jax.training.disease_model import Fitted

HASH = "d" * 64
COHORT = SimpleNamespace(
    name="made",
    metadata={"dataset_hash": HASH, "vocabulary_hash": "v", "split": {"key": "k"}},
    train=SimpleNamespace(patients=300, outcomes={"label": [1, 0, 1]}),
)
RUN = FinetuneConfig(dataset="here/cohort", checkpoint="here/run", results="here/results", train_size=300, replicate=2)


def identified(fingerprint="step 6, manifest 00", **changes) -> dict:
    """The identity of RUN, changed; its checkpoint is looked at as far as it must be."""
    checked = []
    checkpoint = SimpleNamespace(
        config={"model": {"layers": 2}}, fingerprint=fingerprint, check_cohort=lambda cohort: checked.append(cohort)
    )
    identity = identify(replace(RUN, **changes), COHORT, lambda path: checkpoint)
    assert checked == [COHORT]
    return identity


def test_paths_are_replaced_by_contents():
    identity = identified()
    assert identity["kind"] == "FinetuneConfig"
    assert (identity["dataset"], identity["results"], identity["run"]) == (HASH, "", "")
    assert identity["checkpoint"] == "step 6, manifest 00"
    elsewhere = {"dataset": "there", "checkpoint": "there/run", "results": "there", "run": "there/model"}
    assert identified(**elsewhere) == identity
    assert identified(backbone="untrained")["checkpoint"] == {"layers": 2}


@pytest.mark.parametrize("change", [{"replicate": 3}, {"train_size": 0}, {"backbone": "none"}, {"batch_size": 7}])
def test_what_decides_the_numbers_makes_another_run(change):
    assert run_id(identified(**change), 2) != run_id(identified(), 2)


def test_vectors_of_codes_are_known_by_their_contents_and_by_those_alone_who_begin_with_them(monkeypatch):
    looked = []
    stored = SimpleNamespace(fingerprint="of the file", check_cohort=looked.append)
    monkeypatch.setattr("medbert_jax.evaluation.provenance.CodeVectors", SimpleNamespace(read=lambda path: stored))
    known = identified(backbone="tw2v", vectors="here/v.npz")
    assert known["vectors"] == "of the file" and looked == [COHORT.metadata]
    assert known["checkpoint"] == {"layers": 2}  # the architecture alone
    assert identified(vectors="here/v.npz") == identified()


def test_another_dataset_or_checkpoint_makes_another_run(monkeypatch):
    before = run_id(identified(), 2)
    assert run_id(identified("step 6, manifest 01"), 2) != before
    monkeypatch.setitem(COHORT.metadata, "dataset_hash", "e" * 64)
    assert run_id(identified(), 2) != before


def test_a_run_is_filed_with_all_that_makes_it_traceable(tmp_path):
    run = replace(RUN, results=str(tmp_path))
    fitted = Fitted(
        lambda sequences: None, "pretrained", "gru", {"auroc": 0.7, "best_step": 9}, "patience", 4, "step 6"
    )
    identity = identified(results=str(tmp_path))
    path = file_results(run, COHORT, identity, fitted, {"auroc": 0.6}, seconds=1.5)
    assert path == tmp_path / f"{run_id(identity, 2)}.parquet"
    results = read_results(tmp_path)
    assert results.select("split", "metric", "value").rows() == [
        ("test", "auroc", 0.6),
        ("train", "cases", 2.0),
        ("validation", "auroc", 0.7),
        ("validation", "best_step", 9.0),
    ]
    (record,) = results.drop("split", "metric", "value", "configuration", "versions", "device").unique().to_dicts()
    assert record == {
        "run_id": run_id(identity, 2), "seed": 2, "commit": commit(), "dataset_hash": HASH, "vocabulary_hash": "v",
        "split_key": "k", "checkpoint": "step 6", "wall_time_s": 1.5, "epochs": 4, "stopping_reason": "patience",
        "experiment": "finetune", "cohort": "made", "backbone": "pretrained", "head": "gru", "train_size": 300,
        "train_size_name": "300", "replicate": 2,
    }  # fmt: skip


def test_outside_of_a_checkout_the_commit_is_the_version(monkeypatch):
    found = commit().removesuffix("+")
    assert len(found) == 40 and set(found) <= set("0123456789abcdef")
    monkeypatch.setenv("PATH", "")
    assert commit().startswith("medbert_jax ")
