"""A run that was cut short and goes on is the run that was never cut: every bit of it, dropout on."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from jax.sharding import AxisType
from made_datasets import Drawn, write_drawn
from made_sequences import TINY_MODEL

import run_pretrain
from medbert_jax.data.row_plan import RowsConfig
from medbert_jax.data.vocabulary import FIRST_CODE
from medbert_jax.models.med_bert import init
from medbert_jax.training import patient_source, run_directory, step_writer
from medbert_jax.training.checkpointing import restore_step
from medbert_jax.training.config import PretrainConfig
from medbert_jax.training.corpus import CorpusConfig
from medbert_jax.training.manifest import CheckpointError, committed_steps
from medbert_jax.training.masking import MaskingConfig
from medbert_jax.training.optimizer import OptimizerConfig, make_optimizer
from medbert_jax.training.pretraining import init_state
from medbert_jax.training.progress import versions
from medbert_jax.training.sharding import parameter_shardings, state_shardings, with_shardings

CONFIG = PretrainConfig(
    steps=26,
    model=TINY_MODEL,
    rows=RowsConfig(batch_size=32, short_row=32),
    masking=MaskingConfig(share=0.25),
    optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=2),
    corpus=CorpusConfig(steps_per_dispatch=5, dispatch_seconds=60.0),
    checkpoint_every=1000,
    evaluate_every=10,
    log_every=1,
)
PATIENTS = replace(CONFIG, rows=replace(CONFIG.rows, batching="patients", rows_per_step=20))


class Cut(Exception):
    """The run ends here, as if its machine had been switched off."""


def small_dataset(folder: Path) -> str:
    """A pretraining dataset of 200 training patients with 4 … 24 random codes."""

    def some(patients: int, seed: int) -> list[Drawn]:
        rng = np.random.default_rng(seed)
        codes = range(FIRST_CODE, TINY_MODEL.vocabulary_size)
        return [
            Drawn(
                [(-1, -1, -1, rng.choice(codes, 2).tolist()) for _ in range(rng.integers(2, 13))],
                event=int(rng.random() < 0.2),
                id=f"{seed}-{number}",
            )
            for number in range(patients)
        ]

    splits = {"train": some(200, 0), "validation": some(40, 1), "test": some(8, 2)}
    codes = tuple(f"ICD9CM/{number}" for number in range(FIRST_CODE, TINY_MODEL.vocabulary_size))
    return str(write_drawn(folder / "drawn" / "1.0.0", splits, codes=codes, preset="paper"))


def state_of(run: Path, step: int, config: PretrainConfig) -> dict:
    """Parameters and optimizer state that a run has saved."""
    fresh = partial(init_state, partial(init, config.model), make_optimizer(config.optimizer, config.steps))
    shapes = jax.eval_shape(fresh, jax.random.key(0))
    restored = restore_step(run, step, shapes["params"], shapes["opt_state"])
    return jax.device_get({"params": restored.params, "opt_state": restored.opt_state})


def state_on_mesh(run: str, devices: int, model: int) -> dict:
    """The same onto a mesh of some of the devices here, `model` of which share the table of codes."""
    names, axes = ("data", "model"), (AxisType.Auto, AxisType.Auto)
    mesh = jax.make_mesh((devices // model, model), names, axis_types=axes, devices=jax.devices()[:devices])
    optimizer = make_optimizer(CONFIG.optimizer, CONFIG.steps)
    shapes = jax.eval_shape(partial(init_state, partial(init, CONFIG.model), optimizer), jax.random.key(0))
    shardings = state_shardings(shapes, optimizer, parameter_shardings(CONFIG.model, mesh), mesh)
    target = with_shardings(shapes, shardings)
    restored = restore_step(run, CONFIG.steps, target["params"], target["opt_state"])
    state = {"params": restored.params, "opt_state": restored.opt_state}
    for leaf, sharding in zip(jax.tree.leaves(state), jax.tree.leaves({n: shardings[n] for n in state}), strict=True):
        assert leaf.sharding == sharding
    return state


def fingerprint(state: dict) -> str:
    """A hash of every bit."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(jax.device_get(state)):
        digest.update(f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}".encode() + leaf.tobytes())
    return digest.hexdigest()


def metrics(run: Path) -> list[dict]:
    """The rows of metrics.jsonl without what the clock says."""
    rows = [json.loads(row) for row in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "patients_per_second"} for row in rows]


def assert_same_states(one: dict, two: dict) -> None:
    """Every array the same, bit for bit."""
    assert jax.tree.structure(one) == jax.tree.structure(two)
    for (path, a), b in zip(jax.tree.leaves_with_path(one), jax.tree.leaves(two), strict=True):
        same = (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
        assert same, f"{jax.tree_util.keystr(path)} differs"


def assert_same_runs(one: Path, two: Path, config: PretrainConfig) -> None:
    """The same metrics at every step, the same parameters and the same optimizer state at the end."""
    assert metrics(one) == metrics(two)
    assert_same_states(*(state_of(run, config.steps, config) for run in (one, two)))


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """Half the time to compile, and once for runs with the same programs; the programs are small."""
    before = jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_disable_most_optimizations", True)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", before)


@dataclass
class Runs:
    """Runs over the small dataset."""

    folder: Path
    dataset: str
    made: int = 0

    def new(self) -> str:
        self.made += 1
        return str(self.folder / f"run-{self.made}")

    def whole(self, config: PretrainConfig) -> Path:
        return run_pretrain.main(replace(config, dataset=self.dataset, run=self.new()))

    def cut(self, config: PretrainConfig, step: int) -> Path:
        """A run that has saved `step`, and is no more."""
        config = replace(config, dataset=self.dataset, run=self.new(), checkpoint_every=step)

        def save_and_end(*arguments, save_step=step_writer.save_step, **options):
            save_step(*arguments, **options)
            raise Cut

        with pytest.MonkeyPatch.context() as patch, pytest.raises(Cut):
            patch.setattr(step_writer, "save_step", save_and_end)
            run_pretrain.main(config)
        assert committed_steps(config.run) == [step]
        return Path(config.run)

    def resumed(self, config: PretrainConfig, cut: Path) -> Path:
        """A copy of the cut run, gone on with to its end."""
        run = shutil.copytree(cut, self.new())
        return run_pretrain.main(replace(config, dataset=self.dataset, run=str(run)))


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Runs:
    folder = tmp_path_factory.mktemp("resume")
    return Runs(folder, small_dataset(folder))


@pytest.fixture(scope="module")
def whole(runs) -> Path:
    """A fixture, so that it is made before a test puts a fault in."""
    return runs.whole(CONFIG)


@pytest.fixture(scope="module")
def cut_at_13(runs) -> Path:
    return runs.cut(CONFIG, 13)


# 11, 13 and 17 were drawn once; an epoch has 6 steps.
@pytest.mark.parametrize(
    ("config", "step", "changed"),
    [
        pytest.param(CONFIG, 13, {}, id="rows"),
        pytest.param(CONFIG, 17, {"placement": "streamed"}, id="rows, then streamed"),
        pytest.param(PATIENTS, 11, {"steps_per_dispatch": 8}, id="patients, then longer dispatches"),
    ],
)
def test_k_steps_and_the_others_are_all_steps_bit_for_bit(runs, whole, cut_at_13, monkeypatch, config, step, changed):
    assert config.model.dropout > 0 and config.model.attention_dropout > 0
    assert step % config.corpus.steps_per_dispatch
    whole = whole if config == CONFIG else runs.whole(config)
    cut = cut_at_13 if (config, step) == (CONFIG, 13) else runs.cut(config, step)
    dispatches, feed = [], patient_source.PatientSource.feed

    def noted(self, start, count):
        dispatches.append((self.plan.steps_per_epoch, start, count))
        return feed(self, start, count)

    monkeypatch.setattr(patient_source.PatientSource, "feed", noted)
    resumed = runs.resumed(replace(config, corpus=replace(config.corpus, **changed)), cut)
    assert_same_runs(whole, resumed, config)
    assert committed_steps(resumed) == [step, config.steps]
    training = [(epoch, start, start + count) for epoch, start, count in dispatches if start >= step]
    assert [start for _, start, _ in training] == [step, *(end for *_, end in training[:-1])]
    # A dispatch of many steps began in one epoch and ended in the next.
    assert any(start // epoch < (end - 1) // epoch for epoch, start, end in training)


@pytest.mark.parametrize("steps", [1, 3, 50])
def test_a_run_is_the_same_whatever_the_size_of_a_dispatch(runs, whole, steps):
    """Its validations too, to the last bit."""
    config = replace(CONFIG, corpus=CorpusConfig(steps_per_dispatch=steps, dispatch_seconds=60.0))
    run = run_pretrain.main(replace(config, dataset=runs.dataset, run=runs.new()))
    assert_same_runs(whole, run, CONFIG)


def forget_optimizer(*arguments):
    restored = restore_step(*arguments)
    return restored._replace(opt_state=jax.tree.map(lambda leaf: leaf * 0, restored.opt_state))


def begin_with_the_first_patients(self, start, count, host_feed=patient_source.PatientSource.host_feed):
    shift = start >= 13 and self.seed == CONFIG.seed
    return host_feed(self, start - 13 if shift else start, count) | {"start": np.int32(start)}


@pytest.mark.parametrize(
    ("owner", "name", "fault"),
    [
        pytest.param(run_pretrain, "restore_step", forget_optimizer, id="the optimizer's state is lost"),
        pytest.param(
            patient_source.PatientSource, "host_feed", begin_with_the_first_patients, id="the data begin again"
        ),
    ],
)
def test_the_comparison_sees_a_resume_that_forgets(runs, whole, cut_at_13, monkeypatch, owner, name, fault):
    monkeypatch.setattr(owner, name, fault)
    resumed = runs.resumed(CONFIG, cut_at_13)
    assert metrics(whole) != metrics(resumed)
    with pytest.raises(AssertionError, match="differs"):
        assert_same_states(*(state_of(run, CONFIG.steps, CONFIG) for run in (whole, resumed)))


def test_a_disk_without_room_leaves_the_steps_before_and_no_half_one(runs, whole, cut_at_13, monkeypatch):
    """Simulated, with what a file system that was really full had left."""

    def fill(self, folder, **_):
        (Path(f"{folder}.orbax-checkpoint-tmp") / "opt_state.orbax-checkpoint-tmp").mkdir(parents=True)
        raise OSError(28, "No space left on device")

    run = Path(shutil.copytree(cut_at_13, runs.new()))
    config = replace(CONFIG, dataset=runs.dataset, run=str(run))
    said = r"error at step 26 .*No space left.*steps \[13\] are intact, make room"
    with monkeypatch.context() as patch:
        patch.setattr(ocp.Checkpointer, "save", fill)
        with pytest.raises(CheckpointError, match=said):
            run_pretrain.main(config)
    assert [path.name for path in (run / "steps").iterdir()] == ["000013"]
    run_pretrain.main(config)
    assert_same_runs(whole, run, CONFIG)


@pytest.mark.parametrize(
    ("name", "intact", "damaged"),
    [("config.json", b'"learning_rate"', b'"dearning_rate"'), ("vocabulary.tsv", b"ICD9CM/16\t", b"ICD9CM/17\t")],
)
def test_a_damaged_file_of_the_run_is_named_when_it_goes_on(runs, cut_at_13, name, intact, damaged):
    run = Path(shutil.copytree(cut_at_13, runs.new()))
    content = (run / name).read_bytes()
    assert intact in content
    (run / name).write_bytes(content.replace(intact, damaged))
    with pytest.raises(ValueError, match=name):
        run_pretrain.main(replace(CONFIG, dataset=runs.dataset, run=str(run)))


def test_a_damaged_line_of_metrics_costs_nothing_else(runs, whole, cut_at_13, capsys):
    run = Path(shutil.copytree(cut_at_13, runs.new()))
    lines = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    lines[4] = lines[4].replace(b'"train"', b'"tr\xe1in"')  # one bit
    (run / "metrics.jsonl").write_bytes(b"".join(lines))
    run_pretrain.main(replace(CONFIG, dataset=runs.dataset, run=str(run)))
    assert "got another in line 5 of" in capsys.readouterr().err
    intact = metrics(whole)
    assert metrics(run) == [*intact[:4], *intact[5:]]
    assert (run / "metrics.damaged.jsonl").read_bytes() == lines[4]
    assert_same_states(*(state_of(one, CONFIG.steps, CONFIG) for one in (whole, run)))


def test_a_run_that_goes_on_under_another_jax_says_so(runs, cut_at_13, monkeypatch, capsys):
    now = {name: "99.0" if name in ("jax", "jaxlib") else number for name, number in versions().items()}
    monkeypatch.setattr(run_directory, "versions", lambda: now)
    resumed = runs.resumed(CONFIG, cut_at_13)
    jax_before, jaxlib_before = versions()["jax"], versions()["jaxlib"]
    assert f"got jax {jax_before} → 99.0, jaxlib {jaxlib_before} → 99.0 after step 13" in capsys.readouterr().err
    (noted,) = [row for row in metrics(resumed) if row["kind"] == "versions"]
    changes = {"jax": [jax_before, "99.0"], "jaxlib": [jaxlib_before, "99.0"]}
    assert noted == {"kind": "versions", "step": 13} | changes


def test_a_trained_state_goes_to_two_and_four_devices_and_without_a_mesh(runs, whole):
    """Eight devices: test_checkpointing.py."""
    fingerprints = runs.folder / "fingerprints.json"
    here = Path(__file__)
    program = f"""
        import json
        import jax
        import medbert_jax
        from training.test_resume import CONFIG, fingerprint, state_on_mesh

        assert jax.device_count() == 4
        path, found = {str(whole)!r}, {{}}
        for devices, model in ((4, 1), (4, 2), (4, 4), (2, 1), (2, 2), (1, 1)):
            found[f"{{devices}} devices, {{model}} for the table"] = fingerprint(state_on_mesh(path, devices, model))
        found["load_pretrained"] = fingerprint({{"params": medbert_jax.load_pretrained(path).params}})
        open({str(fingerprints)!r}, "w").write(json.dumps(found))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=os.environ
        | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
            "PYTHONPATH": os.pathsep.join([str(here.parents[1]), str(here.parents[2])]),
        },
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(fingerprints.read_text())
    state = state_of(whole, CONFIG.steps, CONFIG)
    assert found.pop("load_pretrained") == fingerprint({"params": state["params"]})
    assert len(found) == 6 and set(found.values()) == {fingerprint(state)}
    assert fingerprint(state_of(runs.cut(CONFIG, 1), 1, CONFIG)) != fingerprint(state)
