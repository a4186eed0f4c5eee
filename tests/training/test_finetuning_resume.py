"""A fine-tuning that was cut short and goes on is the one that was never cut, bit for bit, dropout on."""

import json
import os
import shutil
import signal
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from made_datasets import Drawn, write_drawn
from made_sequences import TINY_MODEL
from training.test_resume import assert_same_states, quick_compilation  # noqa: F401

import run_finetune
from medbert_jax.data.vocabulary import FIRST_CODE, Vocabulary
from medbert_jax.evaluation.results import read_results
from medbert_jax.experiments.grid import GridConfig
from medbert_jax.models.finetune_heads import HeadConfig
from medbert_jax.models.med_bert import init
from medbert_jax.training import rounds as rounds_module
from medbert_jax.training import unfinished
from medbert_jax.training.checkpointing import restore_step, save_step, stored_parameters
from medbert_jax.training.command_line import run_script
from medbert_jax.training.config import FinetuneConfig
from medbert_jax.training.interruption import Interrupted
from medbert_jax.training.manifest import CheckpointError, committed_steps
from medbert_jax.training.patient_source import PatientSource
from medbert_jax.training.run_directory import RunDirectory, RunDirectoryError

CODES = tuple(f"ICD9CM/{number}" for number in range(FIRST_CODE, TINY_MODEL.vocabulary_size))
CONFIG = FinetuneConfig(
    head=HeadConfig(kind="bi_gru", gru_hidden=8),
    optimizer=replace(FinetuneConfig().optimizer, learning_rate=1e-3),
    batch_size=8,
    max_epochs=4,
    evaluate_every=16,
    patience=50,
    log_every=1,
)
STEPS = 24  # 4 epochs of 6 steps; a validation after every second


class Cut(Exception):
    """The run ends here, as if its machine had been switched off."""


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> FinetuneConfig:
    """The configuration with a cohort of 48 patients, and a pretraining whose parameters were drawn."""
    folder = tmp_path_factory.mktemp("finetuning")

    def some(name: str, patients: int, seed: int) -> list[Drawn]:
        rng = np.random.default_rng(seed)
        # A third of the vocabulary is nobody's.
        codes = range(FIRST_CODE, TINY_MODEL.vocabulary_size - 16)
        return [
            Drawn(
                [(0, 20_000, 1, rng.choice(codes, 2).tolist()) for _ in range(rng.integers(2, 13))],
                event=number % 2,
                id=f"{name}{number}",
            )
            for number in range(patients)
        ]

    sizes = {"train": 48, "validation": 20, "test": 12}
    splits = {name: some(name, size, seed) for seed, (name, size) in enumerate(sizes.items())}
    cohort = write_drawn(
        folder / "cohort" / "1.0.0",
        splits,
        kind="cohort",
        codes=CODES,
        cohort={"name": "drawn-failure"},
        split={"counts": sizes, "key": "k"},
        pretraining_dataset_hash="p",
        time_is_ordinal=True,
        members=True,
    )
    shapes = jax.eval_shape(partial(init, TINY_MODEL), jax.random.key(0))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.1, leaf.shape), leaf.dtype), shapes)
    described = {"model": asdict(TINY_MODEL), "dataset_hash": "p"}
    vocabulary = Vocabulary(CODES, np.ones(len(CODES), np.int64), ("",) * len(CODES))
    with RunDirectory.create_or_open(folder / "pretraining", config=described, vocabulary=vocabulary) as run:
        save_step(run, 1, params=params, opt_state=None, progress={"step": 1})
    return replace(CONFIG, dataset=str(cohort), checkpoint=str(folder / "pretraining"))


def placed(config: FinetuneConfig, folder: Path) -> FinetuneConfig:
    return replace(config, results=str(folder / "results"), run=str(folder / "model"))


def fine_tuned(config: FinetuneConfig) -> dict:
    """Parameters of the model that a fine-tuning has left."""
    (step,) = committed_steps(config.run)
    params = restore_step(config.run, step, stored_parameters(config.run, step)).params
    return jax.device_get({"params": params, "step": np.int32(step)})


def numbers(config: FinetuneConfig) -> list[tuple]:
    return sorted(read_results(config.results).select("split", "metric", "value").rows())


def kept(config: FinetuneConfig) -> Path:
    (folder,) = (Path(config.results) / unfinished.FOLDER).iterdir()
    return folder


def told(folder: Path) -> list[dict]:
    """The lines of metrics without what the clock says; none of a baseline, which has no such folder."""
    if not folder.exists():
        return []
    rows = [json.loads(row) for row in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "patients_per_second"} for row in rows]


@pytest.fixture
def lines(monkeypatch) -> dict[Path, list[dict]]:
    """What each run has told, taken before its folder goes."""
    found, remove = {}, unfinished.remove_unfinished_folder

    def taken(folder: Path) -> None:
        found.setdefault(folder.parents[1], []).extend(told(folder))
        remove(folder)

    monkeypatch.setattr("medbert_jax.experiments.running.remove_unfinished_folder", taken)
    return found


@pytest.fixture(scope="module")
def whole(made, tmp_path_factory) -> tuple[FinetuneConfig, list[dict]]:
    """The fine-tuning that nobody interrupted, and its lines."""
    config, taken = placed(made, tmp_path_factory.mktemp("whole")), []

    def taking(folder: Path, remove=unfinished.remove_unfinished_folder) -> None:
        taken.extend(told(folder))
        remove(folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("medbert_jax.experiments.running.remove_unfinished_folder", taking)
        run_finetune.main(config)
    return config, taken


def test_a_fine_tuning_tells_every_step_and_leaves_nothing_but_results_and_the_model(whole):
    config, lines = whole
    assert [row["step"] for row in lines if row["kind"] == "train"] == list(range(1, STEPS + 1))
    assert [row["step"] for row in lines if row["kind"] == "validation"] == list(range(2, STEPS + 1, 2))
    assert sorted(path.name for path in Path(config.results).iterdir() if path.is_dir()) == [
        "predictions",
        "test_patients",
    ]
    assert len({row["loss"] for row in lines if row["kind"] == "train"}) == STEPS


def asked_at(step: int, monkeypatch, by=signal.SIGTERM):
    """A signal for this process when the dispatch is sent that ends with `step`, or after it."""

    def feed(self, start, count, feed=PatientSource.feed):
        if len(self.sequences) == 48 and start < step <= start + count:
            os.kill(os.getpid(), by)
        return feed(self, start, count)

    monkeypatch.setattr(PatientSource, "feed", feed)


@pytest.mark.parametrize(
    ("step", "by"), [(1, signal.SIGTERM), (11, signal.SIGTERM), (12, signal.SIGINT), (STEPS, signal.SIGTERM)]
)
def test_a_signal_saves_and_the_same_command_goes_on_bit_for_bit(made, whole, tmp_path, keyboard, lines, step, by):
    """In the middle of a round, at its end, where the validation is yet to be made, and at the very end."""
    config = placed(made, tmp_path)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted, match=r"is saved in .*the same command"):
        asked_at(step, patch, by)
        run_finetune.main(config)
    (saved,) = committed_steps(kept(config))
    assert step <= saved <= step + 1 and not list(Path(config.results).glob("*.parquet"))
    run_finetune.main(config)
    assert_same_states(fine_tuned(whole[0]), fine_tuned(config))
    assert numbers(whole[0]) == numbers(config)
    assert lines[Path(config.results)] == whole[1]
    assert not (Path(config.results) / unfinished.FOLDER).exists()


def test_the_comparison_sees_another_seed_of_dropout(made, whole, tmp_path, monkeypatch):
    def state(params, optimizer, seed, given, fresh_state=run_finetune.fresh_state):
        return fresh_state(params, optimizer, seed + 1, given)

    monkeypatch.setattr(run_finetune, "fresh_state", state)
    config = placed(made, tmp_path)
    run_finetune.main(config)
    with pytest.raises(AssertionError):
        assert_same_states(fine_tuned(whole[0]), fine_tuned(config))


def test_the_comparison_sees_a_resume_that_forgets_the_moments(made, whole, tmp_path, monkeypatch):
    config = placed(made, tmp_path)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        asked_at(11, patch)
        run_finetune.main(config)

    def forgetting(*arguments, restore_step=unfinished.restore_step):
        restored = restore_step(*arguments)
        moments = jax.tree.map(jnp.zeros_like, restored.opt_state["optimizer"])
        return restored._replace(opt_state=restored.opt_state | {"optimizer": moments})

    monkeypatch.setattr(unfinished, "restore_step", forgetting)
    run_finetune.main(config)
    with pytest.raises(AssertionError):
        assert_same_states(fine_tuned(whole[0]), fine_tuned(config))


def test_a_process_that_dies_goes_on_from_the_last_round_that_was_kept(made, whole, tmp_path, monkeypatch, lines):
    """Early stopping's best is then of before the save."""
    monkeypatch.setattr(unfinished, "SECONDS", 0.0)
    config, calls = placed(made, tmp_path), []

    def dying(self, step, *arguments, make=rounds_module.Rounds.make):
        if step == 16:
            raise Cut
        calls.append(step)
        return make(self, step, *arguments)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Cut):
        patch.setattr(rounds_module.Rounds, "make", dying)
        run_finetune.main(config)
    assert committed_steps(kept(config)) == [10, 12, 14]
    run_finetune.main(config)
    assert_same_states(fine_tuned(whole[0]), fine_tuned(config))
    assert lines[Path(config.results)] == whole[1]


def test_a_disk_without_room_leaves_the_saves_before(made, whole, tmp_path, monkeypatch):
    """Simulated."""
    monkeypatch.setattr(unfinished, "SECONDS", 0.0)
    config, save = placed(made, tmp_path), ocp.Checkpointer.save

    def fill(self, folder, *arguments, **options):
        if Path(f"{folder}").name.startswith("000006"):
            raise OSError(28, "No space left on device")
        return save(self, folder, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(CheckpointError, match=r"No space left.*\[2, 4\]"):
        patch.setattr(ocp.Checkpointer, "save", fill)
        run_finetune.main(config)
    run_finetune.main(config)
    assert_same_states(fine_tuned(whole[0]), fine_tuned(config))


def test_one_process_at_a_time(made, tmp_path, monkeypatch):
    config = replace(placed(made, tmp_path), run="")
    refused = []

    def again(self, *arguments, make=rounds_module.Rounds.make):
        if not refused:
            refused.append(True)
            with pytest.raises(RunDirectoryError, match="one writer at a time"):
                run_finetune.main(config)
        return make(self, *arguments)

    monkeypatch.setattr(rounds_module.Rounds, "make", again)
    run_finetune.main(config)
    assert refused and read_results(config.results).height


def test_codes_that_no_patient_has_are_as_in_the_pretraining(made, whole):
    before = restore_step(made.checkpoint, 1, stored_parameters(made.checkpoint, 1)).params["embeddings"]["code_table"]
    after = fine_tuned(whole[0])["params"]["embeddings"]["code_table"]
    same = (np.asarray(before) == after).all(axis=1)
    assert after.shape == before.shape and same[-16:].all() and not same[FIRST_CODE:-16].any()


def test_a_frozen_backbone_stays_and_its_head_learns(made, tmp_path):
    config = replace(placed(made, tmp_path), backbone="frozen")
    run_finetune.main(config)
    before = restore_step(made.checkpoint, 1, stored_parameters(made.checkpoint, 1)).params
    after = fine_tuned(config)["params"]
    for part in ("embeddings", "encoder"):
        jax.tree.map(np.testing.assert_array_equal, after[part], before[part])
    checkpoints = dict(read_results(config.results).select("backbone", "checkpoint").unique().iter_rows())
    assert checkpoints.keys() == {"frozen", "age_sex", "record_shape"}
    assert checkpoints["frozen"] and not checkpoints["age_sex"]


def test_the_script_says_where_it_is_saved_and_ends_with_75(made, tmp_path, capsys, keyboard, monkeypatch):
    config = replace(placed(made, tmp_path), run="")
    words = ["finetune_small", "--dataset", config.dataset, "--checkpoint", config.checkpoint]
    words += ["--results", config.results, "--backbone", "none", "--max-epochs", "2", "--batch-size", "8"]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as left:
        asked_at(1, patch)
        run_script(run_finetune.main, (FinetuneConfig, GridConfig), "run_finetune.py", words)
    said = capsys.readouterr().err
    assert left.value.code == 75 and f"is saved in {kept(config)}" in said and "Traceback" not in said
    run_script(run_finetune.main, (FinetuneConfig, GridConfig), "run_finetune.py", words)
    assert "resumed from step" in capsys.readouterr().err
    assert read_results(config.results).height
    shutil.rmtree(config.results)
