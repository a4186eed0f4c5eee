"""The health of a pretraining, asked of a small one that is stored."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from medbert_jax import commands
from medbert_jax.evaluation import pretraining_health as module
from medbert_jax.evaluation.pretraining_health import MODEL, pretraining_health
from medbert_jax.options import HealthOptions
from medbert_jax.training.stored_config import read_config

STORED = max(path for path in (Path(__file__).parents[1] / "stored").iterdir() if (path / "run").is_dir())


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Path:
    return shutil.copytree(STORED, tmp_path_factory.mktemp("health") / "stored")


@pytest.fixture(scope="module")
def health(stored):
    return pretraining_health(stored / "run", stored / "dataset")


def test_it_asks_what_the_validation_asked(stored, health):
    """Two ways to the same accuracy: packed rows in the run's own validation, one patient a row here."""
    rows = [json.loads(line) for line in (stored / "run" / "metrics.jsonl").read_text().splitlines()]
    (validation,) = (row for row in rows if row["kind"] == "validation" and row["step"] == health.step)
    found = health.masked_codes["all"][MODEL]["top 1"]
    assert found.value == pytest.approx(validation["masked_code_accuracy"], abs=1e-6)


def test_groups_are_parts_of_all(health):
    for top in ("top 1", "top 10"):
        of = {group: found[MODEL][top] for group, found in health.masked_codes.items()}
        parts = [of["found elsewhere"], of["new"]]
        assert sum(part.codes for part in parts) == of["all"].codes > 0
        assert sum(part.codes * part.value for part in parts) == pytest.approx(of["all"].codes * of["all"].value)
    for group, found in health.against.items():
        for top, (name, difference) in found.items():
            values = {one: health.masked_codes[group][one][top].value for one in health.masked_codes[group]}
            assert difference.value == pytest.approx(values[MODEL] - values[name])
            assert values[name] == max(value for one, value in values.items() if one != MODEL)


def test_the_command_prints_and_writes(stored, health, capsys, tmp_path):
    out = tmp_path / "health.json"
    commands.health(HealthOptions(stored / "run", stored / "dataset", json_out=out))
    printed = capsys.readouterr().out
    assert "naive bayes" in printed and "Prolonged length of stay" in printed
    said = json.loads(out.read_text())
    assert said["dataset_hash"] == health.dataset_hash
    assert said["masked_codes"]["new"][MODEL]["top 10"]["value"] == pytest.approx(
        health.masked_codes["new"][MODEL]["top 10"].value
    )
    assert np.isfinite(said["prolonged_los"]["difference"]["low"])


def test_another_dataset_is_refused(stored, monkeypatch):
    with pytest.raises(ValueError, match="must be of kind pretraining: got cohort"):
        pretraining_health(stored / "run", stored / "cohort")
    with pytest.raises(ValueError, match="which has no masked-code head"):
        pretraining_health(stored / "finetuned", stored / "dataset")
    monkeypatch.setattr(module, "read_config", lambda run: read_config(run) | {"dataset_hash": "0" * 64})
    with pytest.raises(ValueError, match="got dataset 6dbfa108240b and a run on 000000000000"):
        pretraining_health(stored / "run", stored / "dataset")
