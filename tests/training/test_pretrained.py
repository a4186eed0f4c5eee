"""load_pretrained: a model out of its folder, on other devices, with nothing else to pass."""

import os
import shutil
import subprocess
import sys
import textwrap
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import medbert_jax
from medbert_jax.data.rows import padded_batch
from medbert_jax.data.sequences import PatientSequences
from medbert_jax.data.vocabulary import FIRST_CODE, Vocabulary
from medbert_jax.models.config import ModelConfig
from medbert_jax.models.med_bert import apply, init, masked_code_logits
from medbert_jax.training.checkpointing import save_step
from medbert_jax.training.manifest import CheckpointError
from medbert_jax.training.pretrained import load_pretrained
from medbert_jax.training.run_directory import RunDirectory, RunDirectoryError

CODES = 24
MODEL = ModelConfig(
    vocabulary_size=FIRST_CODE + CODES,
    hidden_size=12,
    layers=1,
    heads=2,
    feed_forward_size=8,
    max_visits=40,
    max_length=32,
)


def _open(path, model=MODEL, codes=CODES):
    vocabulary = Vocabulary(tuple(f"ICD9CM/{i}" for i in range(codes)), np.ones(codes, int), ("",) * codes)
    return RunDirectory.create_or_open(path, config={"model": asdict(model)}, vocabulary=vocabulary)


@cache
def _params(seed: int = 0) -> dict:
    # Wider than initial values, which make all states nearly agree; drawn by numpy, which need not compile.
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(partial(init, MODEL), jax.random.key(0))
    with jax.ensure_compile_time_eval():  # whoever asks first, within a program too
        return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), shapes)


@jax.jit
def _alone(batch: dict) -> jax.Array:
    return apply(_params(), batch, config=MODEL)[0]


def _sequences(lengths=(5, 1, 50, 7, 30, 8)) -> PatientSequences:
    """Patients whose visits have up to four codes."""
    lengths = np.asarray(lengths)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    visits = -(-lengths // 4)
    unknown = np.full(visits.sum(), -1, np.int32)
    return PatientSequences(
        patient_id=np.array([b"p%d" % i for i in range(len(lengths))]),
        code_offsets=offsets,
        code_ids=np.random.default_rng(1).integers(FIRST_CODE, MODEL.vocabulary_size, offsets[-1], np.int32),
        visit_ids=(within // 4 + 1).astype(np.int32),
        serialization_ids=(within % 4).astype(np.int32),
        visit_offsets=np.concatenate([[0], np.cumsum(visits)]),
        visit_days=unknown,
        age_days=unknown,
        length_of_stay=unknown,
        sex=np.zeros(len(lengths), np.int32),
        race=np.zeros(len(lengths), np.int32),
        outcomes={},
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A run of two steps; the second has the parameters of `_params`."""
    path = tmp_path_factory.mktemp("runs") / "made"
    with _open(path) as run:
        for step, seed in ((1, 1), (2, 0)):
            save_step(run, step, params=_params(seed), opt_state={"count": jnp.int32(step)}, progress={})
    return path


def test_everything_is_in_the_folder(path):
    model = medbert_jax.load_pretrained(path)
    assert model.config == MODEL and model.step == 2 and model.run_config["kind"] == "pretrain"
    assert model.vocabulary.code(FIRST_CODE) == "ICD9CM/0"
    jax.tree.map(np.testing.assert_array_equal, model.params, _params())
    jax.tree.map(np.testing.assert_array_equal, load_pretrained(path, step=1).params, _params(1))


def test_states_are_those_of_the_model_one_patient_at_a_time(path):
    sequences = _sequences()
    states = load_pretrained(path).encode(sequences, batch_size=4)
    kept = sequences.truncate(MODEL.max_length)
    assert [state.shape for state in states] == [(length, 12) for length in kept.lengths]
    for patient, length in enumerate(kept.lengths):
        alone = _alone(padded_batch(kept, [patient], 32))[0, :length]
        np.testing.assert_allclose(states[patient], alone, atol=2e-6)
        other = states[(patient + 1) % len(states)]
        assert not np.allclose(states[patient][:1], other[:1], atol=1e-3)  # the comparison can fail
    assert load_pretrained(path).encode(sequences.take([])) == []


def test_probabilities_of_a_hidden_code_do_not_see_it(path):
    model, sequences = load_pretrained(path), _sequences((5, 8, 3))
    positions = np.array([4, 0, 1])
    probabilities = model.masked_code_probabilities(sequences, positions)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    hidden = sequences.code_offsets[:-1] + positions
    for replacement, equal in ((hidden, True), (hidden[:1] - 1, False)):
        code_ids = sequences.code_ids.copy()
        code_ids[replacement] = (code_ids[replacement] - FIRST_CODE + 1) % CODES + FIRST_CODE
        changed = model.masked_code_probabilities(_with(sequences, code_ids), positions)
        assert np.array_equal(changed, probabilities) == equal
    batch = padded_batch(sequences, [0], 32)
    batch["code_ids"][0, 4] = MODEL.mask_id
    states = _alone(batch)[:, 4]
    expected = jax.nn.softmax(masked_code_logits(_params(), states, config=MODEL))[0]
    np.testing.assert_allclose(probabilities[0], expected, rtol=1e-4)


def test_wrong_sequences_and_positions_are_refused(path):
    model, sequences = load_pretrained(path), _sequences((5, 9))
    code_ids = sequences.code_ids.copy()
    code_ids[3] = MODEL.vocabulary_size
    with pytest.raises(ValueError, match=r"code_ids must be from 0 to 39: got \d+ to 40; take the vocabulary"):
        model.encode(_with(sequences, code_ids))
    with pytest.raises(ValueError, match="patients must have codes: got 1 without; leave"):
        model.encode(_sequences((5, 0)))
    for positions in ([5, 0], [0], [-1, 0]):
        with pytest.raises(ValueError, match="positions must name one code of each patient"):
            model.masked_code_probabilities(sequences, positions)
    with pytest.raises(ValueError, match="1 of them longer"):
        model.masked_code_probabilities(_sequences((5, 50)), [0, 0])


@pytest.mark.parametrize(
    ("column", "change", "message"),
    [
        ("serialization_ids", lambda ids: ids + 1, "serialization_ids must be 0, 1, 2 … without gaps within a visit"),
        ("visit_ids", lambda ids: ids - 1, "visit_ids must be 1, 2, 3 … in order .*: got 0, 0, 0, 0, 1 for patient 0"),
        ("visit_ids", lambda ids: ids * 2, "visit_ids must be 1, 2, 3 … .*: got 2, 2, 2, 2, 4 for patient 0"),
        ("code_ids", lambda ids: np.where(ids == ids[7], 1, ids), "or 2 for one that is unknown: .*; encode codes"),
    ],
)
def test_sequences_that_are_no_patients_are_refused_by_every_entry(path, column, change, message):
    model, sequences = load_pretrained(path), _sequences((5, 9))
    wrong = replace(sequences, **{column: change(getattr(sequences, column)).astype(np.int32)})
    for enter in (model.encode, partial(model.masked_code_probabilities, positions=[0, 0])):
        with pytest.raises(ValueError, match=message):
            enter(wrong)


def test_a_damaged_newest_step_is_told_and_the_one_before_is_taken(path, tmp_path):
    shutil.copytree(path, tmp_path / "copy")
    victim = next((tmp_path / "copy" / "steps" / "000002" / "params").rglob("_METADATA"))
    victim.write_bytes(victim.read_bytes()[:-1])
    with pytest.warns(UserWarning, match=r"step 2 .*params/_METADATA"):
        assert load_pretrained(tmp_path / "copy").step == 1
    with pytest.raises(CheckpointError, match=r"step 2 .*params/_METADATA"):
        load_pretrained(tmp_path / "copy", step=2)
    config = tmp_path / "copy" / "config.json"
    config.write_text(config.read_text().replace('"heads": 2', '"heads": 3'))
    with pytest.raises(CheckpointError, match=r"config\.json has other bytes"):
        load_pretrained(tmp_path / "copy")


def test_folders_that_are_no_model_are_refused(tmp_path):
    with pytest.raises(RunDirectoryError, match=r"readable config\.json"):
        load_pretrained(tmp_path / "nowhere")
    with _open(tmp_path / "empty"):
        pass
    with pytest.raises(CheckpointError, match="must have a committed step"):
        load_pretrained(tmp_path / "empty")
    with _open(tmp_path / "other", codes=3) as run:
        save_step(run, 1, params=_params(), opt_state=None, progress={})
    with pytest.raises(RunDirectoryError, match="19 ids and 40 rows"):
        load_pretrained(tmp_path / "other")
    partial = {name: part for name, part in _params().items() if name != "encoder"}
    with _open(tmp_path / "partial") as run:
        save_step(run, 1, params=partial, opt_state=None, progress={})
    with pytest.raises(CheckpointError, match=r"\+ encoder/layer_0/.*only in the model"):
        load_pretrained(tmp_path / "partial")


def test_a_fine_tuned_model_loads_with_its_head_and_encodes(tmp_path):
    params = {name: part for name, part in _params().items() if name in ("embeddings", "encoder")}
    params["head"] = {"dense": {"kernel": jnp.ones((12, 1))}}
    with _open(tmp_path) as run:
        save_step(run, 3, params=params, opt_state=None, progress={})
    model = load_pretrained(tmp_path)
    np.testing.assert_array_equal(model.params["head"]["dense"]["kernel"], 1)
    assert model.encode(_sequences((3,)))[0].shape == (3, 12)
    with pytest.raises(ValueError, match="needs the masked-code head"):
        model.masked_code_probabilities(_sequences((3,)), [0])


def test_other_machines_load_it_without_the_data_packages(path, tmp_path):
    """Written on one device and loaded on eight; written under a 4 × 2 mesh and loaded on one."""
    _program(
        f"""
        import sys
        import medbert_jax

        model = medbert_jax.load_pretrained({str(path)!r})
        loaded = {{name.split(".")[0] for name in sys.modules}}
        found = loaded & {{"tensorflow_datasets", "tensorflow", "polars", "sklearn", "array_record", "torch"}}
        assert not found, found

        import jax
        from jax.sharding import AxisType, NamedSharding, PartitionSpec
        from test_pretrained import _open, _params, save_step

        assert jax.device_count() == 8
        assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), model.params, _params()))
        mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
        params = jax.device_put(_params(), NamedSharding(mesh, PartitionSpec()))
        table = params["embeddings"]["code_table"]
        params["embeddings"]["code_table"] = jax.device_put(table, NamedSharding(mesh, PartitionSpec("model")))
        with _open({str(tmp_path / "sharded")!r}) as run:
            save_step(run, 1, params=params, opt_state={{"moment": table}}, progress={{}})
        """
    )
    model = load_pretrained(tmp_path / "sharded")
    jax.tree.map(np.testing.assert_array_equal, model.params, _params())
    assert all(len(leaf.sharding.device_set) == 1 for leaf in jax.tree.leaves(model.params))


def _with(sequences: PatientSequences, code_ids: np.ndarray) -> PatientSequences:
    return replace(sequences, code_ids=code_ids)


def _program(body: str) -> None:
    """Run `body` in a fresh interpreter with eight devices, warnings as errors there too."""
    here = Path(__file__)
    paths = os.pathsep.join([str(here.parent), str(here.parents[2])])
    eight = "--xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(body)],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": paths, "XLA_FLAGS": eight},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-4000:]
