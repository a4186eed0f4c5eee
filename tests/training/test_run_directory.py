"""Run folders: what they hold, who may write, what may not change."""

import errno
import json
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from medbert_jax.data.vocabulary import Vocabulary
from medbert_jax.models.config import ModelConfig
from medbert_jax.training import run_directory
from medbert_jax.training.run_directory import RunDirectory, RunDirectoryError, read_config


def _vocabulary(codes=("ICD9CM/428.0", "ICD9CM/250.00")):
    return Vocabulary(tuple(codes), np.arange(len(codes), 0, -1), ("",) * len(codes))


def _config(**changes):
    model = asdict(ModelConfig(vocabulary_size=18, hidden_size=8, heads=2, layers=1))
    return {
        "model": model,
        "optimizer": {"learning_rate": 1e-4, "betas": (0.9, 0.999)},
        "steps": 100,
    } | changes


def _open(path, config=None, vocabulary=None, **options) -> RunDirectory:
    return RunDirectory.create_or_open(
        path, config=config or _config(), vocabulary=vocabulary or _vocabulary(), **options
    )


def test_a_new_run_has_its_files(tmp_path):
    card = {"dataset": "made", "dataset_hash": "abc123", "parameters": 17_313_837}
    with _open(tmp_path / "runs" / "a", card=card) as run:
        assert sorted(p.name for p in run.path.iterdir()) == [
            "README.md",
            "config.json",
            "lock",
            "steps",
            "vocabulary.tsv",
        ]
        assert Vocabulary.read(run.path / "vocabulary.tsv").hash == _vocabulary().hash
        stored = read_config(run.path)
        assert stored == run.config
        assert stored["kind"] == "pretrain"
        assert ModelConfig(**stored["model"]) == ModelConfig(**_config()["model"])
        text = (run.path / "README.md").read_text()
        assert "abc123" in text and "17313837" in text and "orbax-checkpoint" in text and "| model.layers | 1 |" in text


def test_config_bytes_do_not_depend_on_the_order_of_fields(tmp_path):
    _open(tmp_path / "a").close()
    _open(tmp_path / "b", config=dict(reversed(_config().items()))).close()
    assert (tmp_path / "a" / "config.json").read_bytes() == (tmp_path / "b" / "config.json").read_bytes()


def test_the_same_run_opens_again_and_keeps_its_files(tmp_path):
    _open(tmp_path, card={"dataset": "made"}).close()
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    with _open(tmp_path) as run:
        assert run.changes == {} and run.removed == ()
    assert before == {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}


def test_another_configuration_is_refused_with_every_difference(tmp_path):
    _open(tmp_path).close()
    other = _config(optimizer={"learning_rate": 1e-3, "betas": [0.9, 0.999]}, seed=3)
    with pytest.raises(RunDirectoryError) as error:
        _open(tmp_path, config=other, kind="finetune")
    assert str(error.value).splitlines()[1:-1] == [
        '  − kind = "pretrain"',
        '  + kind = "finetune"',
        "  − optimizer.learning_rate = 0.0001",
        "  + optimizer.learning_rate = 0.001",
        "  + seed = 3",
    ]
    _open(tmp_path).close()  # the refusal let the lock go


def test_permitted_fields_may_change_and_are_told(tmp_path):
    _open(tmp_path).close()
    before = (tmp_path / "config.json").read_bytes()
    other = _config(steps=200, mesh={"model": 2})
    with _open(tmp_path, config=other, may_differ=("steps", "mesh")) as run:
        assert run.changes == {"steps": 200, "mesh.model": 2}
    assert (tmp_path / "config.json").read_bytes() == before
    with pytest.raises(RunDirectoryError, match="steps = 200"):
        _open(tmp_path, config=other, may_differ=("step", "mesh"))  # a prefix is a field, not a piece of a name


def test_another_vocabulary_is_refused_with_its_codes(tmp_path):
    _open(tmp_path).close()
    with pytest.raises(RunDirectoryError) as error:
        _open(
            tmp_path,
            vocabulary=_vocabulary(["ICD9CM/428.0", "ICD9CM/401.9", "ICD9CM/584.9"]),
            config=_config(),
        )
    text = str(error.value)
    assert "18 ids in the run, 19 given" in text
    assert "− id 17 = ICD9CM/250.00, 1 patients" in text and "+ id 17 = ICD9CM/401.9, 2 patients" in text


def test_a_second_writer_is_refused_until_the_first_is_done(tmp_path):
    first = _open(tmp_path)
    with pytest.raises(RunDirectoryError, match="one writer at a time"):
        _open(tmp_path)
    first.close()
    _open(tmp_path).close()


def test_only_interrupted_saves_are_removed(tmp_path):
    _open(tmp_path).close()
    for name in ("000001", "000002", "000003.orbax-checkpoint-tmp-17", "000004.damaged", "mine"):
        (tmp_path / "steps" / name).mkdir()
        (tmp_path / "steps" / name / "data").write_text("x")
    (tmp_path / "steps" / "000001" / "MANIFEST.json").write_text("{}")
    read_config(tmp_path)
    assert (tmp_path / "steps" / "000002").exists()  # reading removes nothing
    with _open(tmp_path) as run:
        assert run.removed == ("000002", "000003.orbax-checkpoint-tmp-17")
    assert sorted(p.name for p in (tmp_path / "steps").iterdir()) == ["000001", "000004.damaged", "mine"]


def test_a_creation_killed_half_way_is_completed(tmp_path, monkeypatch):
    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_directory, "write_whole", die)
        with pytest.raises(KeyboardInterrupt):
            _open(tmp_path)
    assert not (tmp_path / "config.json").exists() and (tmp_path / "vocabulary.tsv").exists()
    _open(tmp_path).close()
    assert read_config(tmp_path)["steps"] == 100


def test_a_foreign_folder_is_refused_and_left_alone(tmp_path):
    (tmp_path / "README.md").write_text("my notes")
    with pytest.raises(RunDirectoryError, match=r"new, empty or a run.*README\.md"):
        _open(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["README.md"]
    with pytest.raises(RunDirectoryError, match="must hold a readable config"):
        read_config(tmp_path)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "run").write_text("")
    for path in (tmp_path / "run", tmp_path / "run" / "below"):
        with pytest.raises(RunDirectoryError, match="a run folder must be a folder"):
            _open(path)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_folder_that_cannot_be_written_is_refused(tmp_path, monkeypatch, number):
    # Simulated, because tests may run as root, whom no folder refuses.
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", fail)
    with pytest.raises(RunDirectoryError, match=os.strerror(number)):
        _open(tmp_path / "run")


def test_configuration_that_is_not_json_is_refused_with_every_field(tmp_path):
    bad = _config(optimizer={"learning_rate": float("nan")}, path=Path("x"))
    with pytest.raises(RunDirectoryError, match=r"(?s)optimizer\.learning_rate = nan.*path ="):
        _open(tmp_path, config=bad)


def test_metrics_after_the_resumed_step_are_dropped(tmp_path):
    with _open(tmp_path) as run:
        rows = [json.dumps({"step": step, "kind": "train", "loss": 1.0}) for step in (1, 2, 3)]
        run.metrics_path.write_text("\n".join([*rows, '{"step": 2, "lo']))
        run.forget_metrics_after(2)
        assert [json.loads(line)["step"] for line in run.metrics_path.read_text().splitlines()] == [1, 2]


@pytest.mark.parametrize("damage", [{"kind": "tretrain"}, {"kind": 3}, {"model": [1]}, {"rows": 3}])
def test_a_configuration_that_is_none_is_told(tmp_path, damage):
    with _open(tmp_path / "run"):
        pass
    path = tmp_path / "run" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | damage))
    with pytest.raises(RunDirectoryError, match="put the file back from a copy"):
        read_config(tmp_path / "run")
