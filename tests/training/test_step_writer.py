"""Steps that are saved beside the training: what is saved is the state of that moment, and no error is lost."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training.test_checkpointing import _open

from medbert_jax.training import step_writer
from medbert_jax.training.checkpointing import restore_step, save_step, stored_parameters
from medbert_jax.training.manifest import CheckpointError, committed_steps
from medbert_jax.training.step_writer import StepWriter


@pytest.fixture
def held(monkeypatch):
    """Saves wait until this is set."""
    gate = threading.Event()

    def later(*arguments, **options):
        assert gate.wait(60)
        return save_step(*arguments, **options)

    monkeypatch.setattr(step_writer, "save_step", later)
    return gate


def test_the_state_may_be_given_away_while_it_is_saved(tmp_path, held):
    grow = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf + 1.0, tree), donate_argnums=0)
    params = {"embeddings": {"code_table": jnp.zeros((5, 3))}}
    with _open(tmp_path / "run") as run, StepWriter(run) as writer:
        writer.begin(1, params=params, opt_state=None, progress={"step": 1})
        for _ in range(3):
            params = grow(params)
        assert committed_steps(run.path) == []
        held.set()
        writer.begin(2, params=params, opt_state=None, progress={"step": 2})
        assert committed_steps(run.path) == [1]  # one at a time
    assert committed_steps(tmp_path / "run") == [1, 2]
    for step, value in ((1, 0.0), (2, 3.0)):
        stored = restore_step(tmp_path / "run", step, stored_parameters(tmp_path / "run", step)).params
        np.testing.assert_array_equal(stored["embeddings"]["code_table"], np.full((5, 3), value, np.float32))


@pytest.mark.parametrize("where", ["next", "check", "end"])
def test_an_error_comes_out_at_the_next_chance(tmp_path, held, monkeypatch, where):
    def fails(*arguments, **options):
        raise CheckpointError("no room")

    monkeypatch.setattr(step_writer, "save_step", fails)
    save = {"params": {}, "opt_state": None, "progress": {}}
    with pytest.raises(CheckpointError, match="no room"), _open(tmp_path / "run") as run, StepWriter(run) as writer:
        writer.begin(1, **save)
        if where == "next":
            writer.begin(2, **save)
        elif where == "check":
            while True:
                writer.check()


def test_another_error_is_not_hidden_by_that_of_the_save(tmp_path, monkeypatch):
    def fails(*arguments, **options):
        raise CheckpointError("no room")

    monkeypatch.setattr(step_writer, "save_step", fails)
    with pytest.raises(ZeroDivisionError), _open(tmp_path / "run") as run, StepWriter(run) as writer:
        writer.begin(1, params={}, opt_state=None, progress={})
        raise ZeroDivisionError
