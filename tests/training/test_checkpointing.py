"""Steps: bit for bit on any mesh, nothing damaged loads, nothing committed is lost."""

import hashlib
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from medbert_jax.data.vocabulary import Vocabulary
from medbert_jax.disk.whole_files import canonical_json
from medbert_jax.training.checkpointing import (
    KEPT,
    latest_good_step,
    restore_step,
    save_step,
    stored_parameters,
)
from medbert_jax.training.manifest import CheckpointError, committed_steps, verify_step
from medbert_jax.training.run_directory import RunDirectory


def _made(seed: int):
    """Parameters with an odd table and a 16-bit one, and the state of an optimizer over them."""
    rng = np.random.default_rng(seed)
    params = {
        "embeddings": {"code_table": jnp.asarray(rng.normal(size=(24, 8)), jnp.float32)},
        "encoder": {"layer_0": {"kernel": jnp.asarray(rng.normal(size=(13, 3)), jnp.float32)}},
        "half": {"table": jnp.asarray(rng.normal(size=(5, 2)), jnp.bfloat16)},
    }
    state = optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam()).init(params)
    return params, jax.tree.map(lambda x: x + 1 + seed if x.ndim == 0 else jnp.sin(x + seed), state)


def _open(path, **options) -> RunDirectory:
    vocabulary = Vocabulary(("ICD9CM/428.0",), np.array([3]), ("",))
    config = {"model": {"layers": 1}, "steps": 10}
    return RunDirectory.create_or_open(path, config=config | options, vocabulary=vocabulary, may_differ=("steps",))


def _save(run, step):
    params, state = _made(step)
    return save_step(run, step, params=params, opt_state=state, progress={"step": step})


def _placed(tree, mesh_shape):
    """Every leaf on the mesh: those with an even first dimension over "model", the others replicated."""
    mesh = jax.make_mesh(mesh_shape, ("data", "model"), axis_types=(AxisType.Auto,) * 2)

    def place(leaf):
        split = leaf.ndim and leaf.shape[0] % mesh_shape[1] == 0
        return jax.device_put(leaf, NamedSharding(mesh, PartitionSpec(*["model"] * bool(split))))

    return jax.tree.map(place, tree)


def _abstract(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def _same(a, b) -> bool:
    def bits(leaf):
        return leaf.dtype, leaf.shape, np.asarray(leaf).tobytes()

    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return jax.tree.structure(a) == jax.tree.structure(b) and all(bits(x) == bits(y) for x, y in pairs)


def _assert_restores(path, step, place=lambda tree: tree):
    params, state = map(place, _made(step))
    restored = restore_step(path, step, _abstract(params), _abstract(state))
    assert _same(restored.params, params) and _same(restored.opt_state, state)
    assert restored.progress == {"step": step}
    assert restored.params["embeddings"]["code_table"].sharding == params["embeddings"]["code_table"].sharding


def _program(body: str, tmp_path, **environment) -> str:
    """Run `body` in a fresh interpreter that has the functions of this file."""
    here = Path(__file__)
    paths = os.pathsep.join([str(here.parent), str(here.parents[2])])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(body), str(tmp_path)],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": paths, **environment},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.fixture
def run(tmp_path):
    with _open(tmp_path / "run") as run:
        yield run


def test_a_step_comes_back_bit_for_bit(run):
    folder = _save(run, 123)
    assert folder == run.path / "steps" / "000123"
    assert {p.name for p in folder.iterdir()} >= {"params", "opt_state", "progress", "MANIFEST.json"}
    _assert_restores(run.path, 123)


def test_the_comparison_sees_one_bit():
    params, _ = _made(0)
    table = np.array(params["embeddings"]["code_table"])
    table.view(np.uint32)[3, 3] ^= 1
    assert not _same(params, params | {"embeddings": {"code_table": jnp.asarray(table)}})


def test_parameters_come_back_alone_and_without_knowing_their_shapes(run):
    _save(run, 1)
    restored = restore_step(run.path, 1, stored_parameters(run.path, 1))
    assert _same(restored.params, _made(1)[0]) and restored.opt_state is None


def test_a_step_may_have_no_optimizer_state(run):
    params, state = _made(1)
    save_step(run, 1, params=params, opt_state=None, progress={})
    assert _same(restore_step(run.path, 1, _abstract(params)).params, params)
    with pytest.raises(CheckpointError, match=r"1/count .*only in the model"):
        restore_step(run.path, 1, _abstract(params), _abstract(state))


def test_parts_without_parameters_come_back_where_they_are_asked_for(run):
    params = {"encoder": {}, "head": {"dense": {"kernel": jnp.ones((2, 3))}, "nothing": {}}}
    save_step(run, 1, params=params, opt_state=None, progress={"step": 1})
    shapes = stored_parameters(run.path, 1)
    assert list(shapes) == ["head"]
    assert restore_step(run.path, 1, shapes).params.keys() == {"head"}
    back = restore_step(run.path, 1, jax.eval_shape(lambda: params)).params
    assert jax.tree.structure(back) == jax.tree.structure(params)
    assert back["encoder"] == {} and back["head"]["nothing"] == {}


def test_eight_devices_and_one(tmp_path):
    """Written under 4 × 2 devices; restored on 2 × 4 there, on 1 here; and the other way round."""
    with _open(tmp_path / "one") as run:
        _save(run, 7)
    _program(
        """
        import sys
        import jax
        from test_checkpointing import _assert_restores, _made, _open, _placed, save_step

        assert jax.device_count() == 8
        path = sys.argv[1]
        with _open(path + "/eight") as run:
            params, state = (_placed(tree, (4, 2)) for tree in _made(5))
            save_step(run, 5, params=params, opt_state=state, progress={"step": 5})
        for shape in ((2, 4), (8, 1), (4, 2)):
            _assert_restores(path + "/eight", 5, lambda tree: _placed(tree, shape))
            _assert_restores(path + "/one", 7, lambda tree: _placed(tree, shape))
        """,
        tmp_path,
        XLA_FLAGS="--xla_force_host_platform_device_count=8",
    )
    _assert_restores(tmp_path / "eight", 5)


def test_targets_unlike_what_is_stored_are_refused_with_a_diff(run):
    """Orbax itself would cast dtypes without a word."""
    _save(run, 1)
    params, state = _made(1)
    target = _abstract(params)
    target["half"]["table"] = jax.ShapeDtypeStruct((5, 2), jnp.float32)
    target["embeddings"]["code_table"] = jax.ShapeDtypeStruct((32, 8), jnp.float32)
    target["new"] = jax.ShapeDtypeStruct((1,), jnp.float32)
    with pytest.raises(CheckpointError) as error:
        restore_step(run.path, 1, target, _abstract(state))
    assert str(error.value).splitlines()[1:-1] == [
        "  params:",
        "  ≠ embeddings/code_table: (32, 8) float32 in the model, (24, 8) float32 in the checkpoint",
        "  ≠ half/table: (5, 2) float32 in the model, (5, 2) bfloat16 in the checkpoint",
        "  + new (1,) float32: only in the model",
    ]


def test_no_damage_loads_and_every_damaged_file_is_named(run):
    """Bit flips, truncations and missing files in turn, over all files of the step and of the run."""
    folder = _save(run, 12)
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    files += [run.path / "config.json", run.path / "vocabulary.tsv"]
    rng = np.random.default_rng(0)
    params, state = map(_abstract, _made(12))
    for trial in range(max(60, 2 * len(files))):
        file = files[trial % len(files)]
        content = file.read_bytes()
        kind = ("flip", "cut", "flip", "missing")[trial // len(files) % 4]
        damaged = bytearray(content)
        if kind == "flip":
            damaged[rng.integers(len(content))] ^= 1 << rng.integers(8)
        file.write_bytes(damaged if kind == "flip" else content[: rng.integers(len(content))])
        # A step whose manifest is missing is no step; that is another test.
        if kind == "missing" and file.name != "MANIFEST.json":
            file.unlink()
        with pytest.raises(CheckpointError) as error:
            restore_step(run.path, 12, params, state)
        assert str(file.relative_to(run.path)) in str(error.value) and "step 12" in str(error.value), kind
        file.write_bytes(content)
    _assert_restores(run.path, 12)


def test_all_damaged_files_are_in_one_error(run):
    folder = _save(run, 1)
    victims = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "MANIFEST.json"][:3]
    for victim in victims:
        victim.write_bytes(victim.read_bytes() + b"x")
    with pytest.raises(CheckpointError) as error:
        verify_step(run.path, 1)
    assert all(str(victim.relative_to(run.path)) in str(error.value) for victim in victims)


def test_falls_back_to_the_last_good_step_and_says_so(run):
    assert latest_good_step(run.path) is None
    for step in (1, 2, 3):
        _save(run, step)
    assert latest_good_step(run.path, warn=pytest.fail) == 3
    for step in (2, 3):
        _flip(run, step)
    told = []
    assert latest_good_step(run.path, warn=told.append) == 1
    assert len(told) == 2 and "step 3" in told[0] and "falling back to step 1" in told[0]
    with pytest.warns(UserWarning, match="falling back to step 1"):
        latest_good_step(run.path)
    _flip(run, 1)
    with pytest.raises(CheckpointError, match=r"(?s)intact step.*step 3.*step 2.*step 1.*\ndo what is said of one"):
        latest_good_step(run.path)


def test_a_damaged_step_gives_way_to_the_resumed_run_and_an_intact_one_does_not(run):
    for step in (1, 2, 3):
        _save(run, step)
    with pytest.raises(CheckpointError, match=r"ascend: got step 2.* intact step 2"):
        _save(run, 2)
    _flip(run, 2)
    _flip(run, 3)
    _save(run, 2)
    assert committed_steps(run.path) == [1, 2]
    assert (run.path / "steps" / "000003.damaged").is_dir()
    _assert_restores(run.path, 2)


def test_a_step_without_manifest_is_no_step(run):
    _save(run, 1)
    (_save(run, 2) / "MANIFEST.json").unlink()
    assert committed_steps(run.path) == [1]
    with pytest.raises(CheckpointError, match=r"no MANIFEST.json; choose one of \[1\]"):
        restore_step(run.path, 2, *map(_abstract, _made(2)))
    run.close()
    with _open(run.path) as again:
        assert again.removed == ("000002",)
    _assert_restores(run.path, 1)


def test_the_newest_are_kept(run):
    for step in range(1, 7):
        _save(run, step)
        assert committed_steps(run.path) == list(range(1, step + 1))[-KEPT:]
        assert len(list((run.path / "steps").iterdir())) == min(step, KEPT)


def test_a_step_whose_manifest_says_a_metric_restores_and_its_seal_holds(run):
    """Format 1: the step was written when the best one by metric was kept."""
    _save(run, 1)
    file = run.path / "steps" / "000001" / "MANIFEST.json"
    body = json.loads(file.read_bytes())["manifest"] | {"format": 1, "metric": 0.75}

    def sealed(digest: str) -> bytes:
        return canonical_json({"manifest": body, "sha256": digest})

    file.write_bytes(sealed(hashlib.sha256(canonical_json(body)).hexdigest()))
    assert verify_step(run.path, 1).step == 1 and latest_good_step(run.path, warn=pytest.fail) == 1
    _assert_restores(run.path, 1)
    without = {name: value for name, value in body.items() if name != "metric"}
    file.write_bytes(sealed(hashlib.sha256(canonical_json(without)).hexdigest()))
    with pytest.raises(CheckpointError, match=r"MANIFEST\.json has other bytes"):
        verify_step(run.path, 1)
    body["format"] = 3
    file.write_bytes(sealed(hashlib.sha256(canonical_json(body)).hexdigest()))
    told = r"must be of version 2 or older, .*: got the manifest of step 1 of .* of version 3; read"
    with pytest.raises(CheckpointError, match=told):
        verify_step(run.path, 1)


def test_a_failed_write_leaves_earlier_steps_and_nothing_else(run, monkeypatch):
    _save(run, 1)
    with monkeypatch.context() as patch:
        # Half of the step is on disk when there is no more room.
        def full(self, directory, *_, **__):
            (Path(directory) / "params").mkdir(parents=True)
            raise OSError(28, "No space left on device")

        patch.setattr(ocp.Checkpointer, "save", full)
        with pytest.raises(CheckpointError, match=r"No space left on device.*steps \[1\] are intact"):
            _save(run, 2)
    assert [p.name for p in (run.path / "steps").iterdir()] == ["000001"]
    _assert_restores(run.path, 1)
    _save(run, 2)


def test_the_manifest_keeps_what_a_resumed_run_changed(run):
    run.close()
    with _open(run.path, steps=20) as again:
        _save(again, 1)
    assert verify_step(run.path, 1).changes == {"steps": 20}


def test_kill_9_in_the_middle_of_saves(tmp_path):
    """Children that save without pause are killed; what they had committed restores bit for bit."""
    _program(
        """
        import os, random, signal, sys, time
        from pathlib import Path
        from test_checkpointing import _open, _save, committed_steps

        random.seed(0)
        for trial in range(4):
            path = Path(sys.argv[1], str(trial))
            # Forked before JAX has a backend: one import serves all children.
            if (child := os.fork()) == 0:
                with _open(path) as run:
                    for step in range(1, 10_000):
                        _save(run, step)
            while not committed_steps(path):
                time.sleep(0.01)
            time.sleep(random.uniform(0, 0.2))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        """,
        tmp_path,
    )
    stale = 0
    for trial in range(4):
        path = tmp_path / str(trial)
        last = committed_steps(path)[-1]
        assert latest_good_step(path, warn=pytest.fail) == last
        with _open(path) as run:
            stale += len(run.removed)
            assert len(list((path / "steps").iterdir())) == len(committed_steps(path))
            _assert_restores(path, last)
            _save(run, last + 1)
    assert stale, "no kill fell into a save: the test has shown nothing"


def _flip(run, step):
    data = max(
        (run.path / "steps" / f"{step:06d}" / "params").rglob("*"),
        key=lambda p: p.stat().st_size * p.is_file(),
    )
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 16
    data.write_bytes(content)
