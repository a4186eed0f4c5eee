"""A checkpoint that runs start from: nothing is read before it is asked for, and nothing twice."""

import json
from dataclasses import asdict

import jax
import numpy as np
import pytest
from made_sequences import TINY_MODEL, made_sequences

from medbert_jax.data.vocabulary import Vocabulary
from medbert_jax.models.med_bert import init
from medbert_jax.training import checkpointing
from medbert_jax.training.checkpoint import Checkpoint
from medbert_jax.training.checkpointing import save_step, step_fingerprint
from medbert_jax.training.cohort_data import CohortData
from medbert_jax.training.manifest import CheckpointError, verify_step
from medbert_jax.training.run_directory import RunDirectory

CODES = tuple(f"ICD9CM/{number:03d}" for number in range(48))
VOCABULARY = Vocabulary(CODES, np.full(48, 3), ("",) * 48)
DATASET = "a" * 64


@pytest.fixture(scope="module")
def params() -> dict:
    """Of a whole model, heads included."""
    return jax.jit(lambda key: init(TINY_MODEL, key))(jax.random.key(3))


@pytest.fixture
def run(tmp_path, params):
    """A run of two steps; the parameters of the second."""
    config = {"model": asdict(TINY_MODEL), "dataset_hash": DATASET}
    with RunDirectory.create_or_open(tmp_path / "run", config=config, vocabulary=VOCABULARY) as directory:
        for step, factor in ((2, 0.5), (4, 1.0)):
            scaled = jax.tree.map(lambda leaf, by=factor: by * leaf, params)
            save_step(directory, step, params=scaled, opt_state=None, progress={"step": step})
    return tmp_path / "run"


def test_everything_is_verified_and_read_once(run, params, monkeypatch):
    verified, restored = [], []

    def verify(path, step):
        verified.append(step)
        return verify_step(path, step)

    monkeypatch.setattr(checkpointing, "verify_step", verify)
    restore = checkpointing.Restored
    monkeypatch.setattr(checkpointing, "Restored", lambda *parts: restored.append(1) or restore(*parts))
    checkpoint = Checkpoint(str(run))
    assert checkpoint.config["model"] == asdict(TINY_MODEL)
    assert (verified, restored) == ([], [])
    for _ in range(2):
        assert (checkpoint.step, checkpoint.model) == (4, TINY_MODEL)
        assert checkpoint.fingerprint == step_fingerprint(run, 4)
        jax.tree.map(np.testing.assert_array_equal, checkpoint.parameters, jax.device_get(params))
    assert (verified, restored) == ([4], [1])
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(checkpoint.parameters))
    _ = Checkpoint(str(run)).step  # what one has found is not known to another
    assert verified == [4, 4]


def test_a_damaged_configuration_is_no_architecture(run):
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"model": config["model"] | {"layers": 2}}))
    checkpoint = Checkpoint(str(run))
    with pytest.raises(CheckpointError, match=r"config\.json has"):
        _ = checkpoint.model


def test_the_newest_intact_step_is_taken_and_the_damaged_one_told(run, params):
    (run / "steps" / "000004" / "_CHECKPOINT_METADATA").write_bytes(b"{}")
    checkpoint = Checkpoint(str(run))
    with pytest.warns(UserWarning, match="falling back to step 2: .*step 4 of .* is damaged"):
        assert checkpoint.step == 2
    half = jax.tree.map(lambda leaf: 0.5 * leaf, params)
    jax.tree.map(np.testing.assert_array_equal, checkpoint.parameters, half)


def test_a_run_without_a_step_has_a_configuration_and_no_architecture(tmp_path):
    config = {"model": asdict(TINY_MODEL)}
    RunDirectory.create_or_open(tmp_path / "run", config=config, vocabulary=VOCABULARY).close()
    checkpoint = Checkpoint(str(tmp_path / "run"))
    assert checkpoint.config["model"] == asdict(TINY_MODEL)
    for fact in ("model", "step", "fingerprint", "parameters"):
        with pytest.raises(CheckpointError, match="a checkpoint must hold a committed step: got none in"):
            getattr(checkpoint, fact)


def test_a_cohort_has_the_vocabulary_and_the_split_of_the_checkpoint(run):
    patients = made_sequences(2, seed=0)

    def cohort(vocabulary, dataset):
        return CohortData("a cohort", {"pretraining_dataset_hash": dataset}, vocabulary, patients, patients)

    checkpoint = Checkpoint(str(run))
    checkpoint.check_cohort(cohort(VOCABULARY, DATASET))
    with pytest.raises(ValueError, match="must be serialized with the checkpoint's vocabulary"):
        checkpoint.check_cohort(cohort(Vocabulary(CODES[:-1], np.full(47, 3), ("",) * 47), DATASET))
    with pytest.raises(ValueError, match="must have the split and vocabulary of the checkpoint's pretraining dataset"):
        checkpoint.check_cohort(cohort(VOCABULARY, "b" * 64))
