"""SIGTERM and Ctrl-C: the run saves after the dispatch that is running, and the same command goes on with it."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from training.test_resume import (
    CONFIG,
    assert_same_runs,
    assert_same_states,
    metrics,
    quick_compilation,  # noqa: F401
    small_dataset,
    state_of,
)

import run_pretrain
from medbert_jax import cli
from medbert_jax.options import DoctorOptions
from medbert_jax.training import step_writer
from medbert_jax.training.command_line import run_script
from medbert_jax.training.config import PretrainConfig
from medbert_jax.training.corpus import CorpusConfig
from medbert_jax.training.interruption import Interrupted, Interruption
from medbert_jax.training.manifest import committed_steps
from medbert_jax.training.step_writer import StepWriter

ROOT = Path(__file__).parents[2]
# A dispatch stays short, though there is time for longer ones: the signal comes between many.
LONG = replace(
    CONFIG, steps=400, corpus=CorpusConfig(steps_per_dispatch=20), checkpoint_every=10_000, evaluate_every=250
)
SHORT = replace(CONFIG, steps=12, evaluate_every=12, corpus=replace(CONFIG.corpus, steps_per_dispatch=3))
PRESET = "from training.test_interruption import LONG\n\nCONFIG = LONG\n"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> str:
    return small_dataset(tmp_path_factory.mktemp("interruption"))


@pytest.fixture(scope="module")
def whole(dataset, tmp_path_factory) -> Path:
    """The run that nobody interrupted."""
    return run_pretrain.main(replace(LONG, dataset=dataset, run=str(tmp_path_factory.mktemp("whole") / "run")))


class Command:
    """`python run_pretrain.py PRESET --dataset … --run …` in a process of its own."""

    def __init__(self, folder: Path, dataset: str):
        self.run = folder / "run"
        (folder / "preset.py").write_text(PRESET)
        self._words = ["run_pretrain.py", str(folder / "preset.py"), "--dataset", dataset, "--run", str(self.run)]

    def __call__(
        self, stop_at: Callable[[str], bool] = lambda line: False, by: int = signal.SIGTERM
    ) -> tuple[int, str, float]:
        """Run it; a signal after the first line of stderr that `stop_at` is true of. Code, stderr, seconds to stop.

        The process is never far ahead of the lines that were read: the pipe is full before.
        """
        environment = {
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        }
        process = subprocess.Popen(
            [sys.executable, *self._words],
            cwd=ROOT,
            env=os.environ | environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        said, asked = [], 0.0
        with process:
            for line in process.stderr:
                said.append(line)
                if not asked and stop_at(line):
                    asked = time.monotonic()
                    process.send_signal(by)
        return process.returncode, "".join(said), time.monotonic() - asked


@pytest.mark.parametrize(
    ("sign", "earliest", "latest", "by"),
    [
        pytest.param(r"train +30/400", 30, 399, signal.SIGTERM, id="in the middle"),
        pytest.param(r"corpus replicated", 1, 1, signal.SIGTERM, id="before the first dispatch"),
        pytest.param(r"train +30/400", 30, 399, signal.SIGINT, id="by Ctrl-C"),
    ],
)
def test_a_signal_saves_and_the_same_command_goes_on_bit_for_bit(
    keyboard, whole, dataset, tmp_path, capsys, sign, earliest, latest, by
):
    command = Command(tmp_path, dataset)
    code, said, seconds = command(lambda line: re.search(sign, line) is not None, by)
    assert code == 75, said[-2000:]
    (step,) = committed_steps(command.run)
    assert earliest <= step <= latest
    assert f"run_pretrain.py: asked to stop: step {step:,} is saved in {command.run}; the same command" in said
    assert "Traceback" not in said
    if earliest > 1:  # the other one compiles first
        assert seconds < 10
    assert [row["step"] for row in metrics(command.run) if row["kind"] == "train"] == list(range(1, step + 1))
    if by == signal.SIGINT:  # once by a process of its own, which costs seconds to import
        code, said, _ = command()
        assert code == 0, said[-2000:]
    else:
        run_pretrain.main(replace(LONG, dataset=dataset, run=str(command.run)))
        said = capsys.readouterr().err
    assert f"resumed from step {step:,}\n" in said
    assert committed_steps(command.run) == [step, 400]
    assert_same_runs(whole, command.run, LONG)


def test_another_seed_is_another_run(dataset, tmp_path):
    """What the comparison of the test above would say."""
    one, other = (
        run_pretrain.main(replace(SHORT, seed=seed, dataset=dataset, run=str(tmp_path / f"{seed}"))) for seed in (0, 1)
    )
    assert metrics(one) != metrics(other)
    with pytest.raises(AssertionError, match="differs"):
        assert_same_states(*(state_of(run, SHORT.steps, SHORT) for run in (one, other)))


def interrupt(*_, by: int = signal.SIGTERM) -> None:
    """A signal for this process; it has arrived at the return."""
    os.kill(os.getpid(), by)
    time.sleep(0)


class Before(Exception):
    """Raised by the handler that the tests set."""


@pytest.fixture
def handler():
    """A handler of SIGTERM that was there before the run."""

    def handler(number, frame):
        raise Before

    before = signal.signal(signal.SIGTERM, handler)
    yield handler
    signal.signal(signal.SIGTERM, before)


def test_the_handler_before_comes_back(handler):
    with Interruption() as interruption:
        assert not interruption.asked()
        interrupt()
        assert interruption.asked() and interruption.asked()
    assert signal.getsignal(signal.SIGTERM) is handler
    with pytest.raises(ZeroDivisionError), Interruption():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGTERM) is handler
    with pytest.raises(Before):
        interrupt()
    with Interruption() as again:  # what was asked of one run is not asked of the next
        assert not again.asked()


def test_a_key_asks_once_and_ends_at_once_when_pressed_again(keyboard, capfd):
    with pytest.raises(KeyboardInterrupt), Interruption() as interruption:
        interrupt(by=signal.SIGINT)
        assert interruption.asked() and "Ctrl-C again" in capfd.readouterr().err
        interrupt(by=signal.SIGTERM)
        interrupt(by=signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is keyboard
    with pytest.raises(KeyboardInterrupt):
        interrupt(by=signal.SIGINT)


def test_a_key_is_not_for_a_job_in_the_background(keyboard):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Interruption() as interruption:
        interrupt(by=signal.SIGINT)
        interrupt(by=signal.SIGINT)
        assert not interruption.asked()
        interrupt()
        assert interruption.asked()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_a_cell_that_is_interrupted_has_saved(keyboard, dataset, tmp_path, monkeypatch):
    """A notebook calls `main`; its kernel is interrupted by SIGINT."""
    config = replace(started(SHORT, dataset, tmp_path), checkpoint_every=12)
    peace = run_pretrain.main(replace(config, run=str(tmp_path / "peace")))

    def log(self, step, metrics, add=run_pretrain.MetricsLog.add):
        if step == len(metrics["loss"]):  # the first dispatch
            interrupt(by=signal.SIGINT)
        add(self, step, metrics)

    with monkeypatch.context() as patch:
        patch.setattr(run_pretrain.MetricsLog, "add", log)
        with pytest.raises(Interrupted, match=r"is saved in .*; the same command goes on"):
            run_pretrain.main(config)
        assert signal.getsignal(signal.SIGINT) is keyboard
        (step,) = committed_steps(config.run)
        assert 0 < step < 12
    run_pretrain.main(config)
    assert_same_runs(peace, Path(config.run), config)


def test_the_commands_end_with_their_codes(keyboard, capsys, monkeypatch):
    """`run_script` for both scripts, `medbert` for the demo."""
    for ends, code, says in ((Interrupted("asked to stop"), 75, "asked to stop"), (KeyboardInterrupt(), 130, "Ctrl-C")):

        def main(config, ends=ends):
            raise ends

        with pytest.raises(SystemExit) as left:
            run_script(main, PretrainConfig, "run_pretrain.py", ["pretrain_small"])
        assert left.value.code == code and says in capsys.readouterr().err
        monkeypatch.setattr(cli, "COMMANDS", cli.COMMANDS | {"doctor": (DoctorOptions, main)})
        monkeypatch.setattr("sys.argv", ["medbert", "doctor"])
        with pytest.raises(SystemExit) as left:
            cli.main()
        assert left.value.code == code and says in capsys.readouterr().err


def test_a_thread_cannot_listen_and_trains_all_the_same(handler):
    asked = []

    def listen():
        with Interruption() as interruption:
            asked.append(interruption.asked())

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert asked == [False] and signal.getsignal(signal.SIGTERM) is handler


def started(config: PretrainConfig, dataset: str, folder: Path) -> PretrainConfig:
    return replace(config, dataset=dataset, run=str(folder / "run"))


def test_a_run_asked_in_a_save_goes_on_with_its_window_of_metrics(handler, dataset, tmp_path, monkeypatch):
    config = replace(started(SHORT, dataset, tmp_path), checkpoint_every=5, log_every=12)
    peace = run_pretrain.main(replace(config, run=str(tmp_path / "peace")))

    def save_and_be_asked(writer, step, *, begin=StepWriter.begin, **state):
        if step == 5:
            interrupt()
        begin(writer, step, **state)

    monkeypatch.setattr(StepWriter, "begin", save_and_be_asked)
    with pytest.raises(Interrupted, match="is saved in"):
        run_pretrain.main(config)
    assert signal.getsignal(signal.SIGTERM) is handler
    # Asked in the middle of a save: that step is saved, and so is the end of the next dispatch, within a window.
    first, last = committed_steps(config.run)
    assert first == 5 and 5 < last < 10
    assert [row["step"] for row in metrics(Path(config.run))] == [5]
    run_pretrain.main(config)
    assert signal.getsignal(signal.SIGTERM) is handler
    assert [row["step"] for row in metrics(peace)] == [5, 10, 12, 12]
    assert_same_runs(peace, Path(config.run), config)


@pytest.mark.parametrize("more", [{}, {"validation_due": True}], ids=["now", "as steps were saved before"])
def test_a_run_asked_to_stop_in_its_last_evaluation_saves_and_makes_it_when_it_goes_on(
    handler, dataset, tmp_path, monkeypatch, more
):
    config = started(SHORT, dataset, tmp_path)
    peace = run_pretrain.main(replace(config, run=str(tmp_path / "peace")))

    def validate_and_be_asked(*arguments, validate=run_pretrain.validate, **options):
        interrupt()
        return validate(*arguments, **options)

    def save_more(*arguments, progress, save_step=step_writer.save_step, **options):
        save_step(*arguments, progress=progress | more, **options)

    with monkeypatch.context() as patch:
        patch.setattr(step_writer, "save_step", save_more)
        patch.setattr(run_pretrain, "validate", validate_and_be_asked)
        with pytest.raises(Interrupted, match="step 12 is saved"):
            run_pretrain.main(config)
    assert signal.getsignal(signal.SIGTERM) is handler
    assert committed_steps(config.run) == [12]
    run_pretrain.main(config)
    assert committed_steps(config.run) == [12]
    assert_same_runs(peace, Path(config.run), config)
