"""Every command ends at once where it is asked to, in one sentence and with its code, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medbert_jax.training.command_line import parse_config
from medbert_jax.training.config import PretrainConfig

ROOT = Path(__file__).parents[1]
MEDBERT = [sys.executable, "-m", "medbert_jax"]


# Of a job in the background Ctrl-C is ignored, by its children too.
LISTENING = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"


def started(words: list[str], tmp_path: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", LISTENING, *words],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def children(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(entry.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(entry.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="children are found in /proc")
@pytest.mark.parametrize(
    ("number", "everybody", "code", "told"),
    [
        (signal.SIGINT, True, 130, "ended at once by Ctrl-C"),
        (signal.SIGINT, False, 130, "ended at once by Ctrl-C"),
        (signal.SIGTERM, False, 143, "ended by SIGTERM"),
    ],
)
def test_a_command_whose_workers_are_busy_ends_and_leaves_nothing(number, everybody, code, told, tmp_path):
    words = ["simulate", str(tmp_path / "ehr"), "--patients", "60000", "--workers", "2", "--shards", "4"]
    with started([*MEDBERT, *words], tmp_path) as process:
        while process.poll() is None and len(children(process.pid)) < 3:  # two, and one of the library's
            time.sleep(0.05)
        workers = children(process.pid)
        (os.killpg if everybody else os.kill)(process.pid, number)
        asked = time.monotonic()
        said = process.communicate(timeout=60)[1]
    assert process.returncode == code, said
    assert time.monotonic() - asked < 20  # two seconds, on a machine that has nothing else to do
    assert [line for line in said.splitlines() if line] == [f"medbert: {told}; the same command begins again"]
    assert list(tmp_path.iterdir()) == []
    latest = time.monotonic() + 10
    while (left := [pid for pid in workers if Path(f"/proc/{pid}").exists()]) and time.monotonic() < latest:
        time.sleep(0.05)
    assert left == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
@pytest.mark.parametrize("script", ["run_pretrain.py", "run_finetune.py"])
def test_a_script_that_is_asked_while_it_imports_says_so(script, number, code, tmp_path):
    """Its listening is seen by the pipe that it holds; numpy, jax and flax follow."""
    program = (
        f"import runpy, sys, threading, time, os, signal\n"
        f"def press():\n"
        f"    while 'numpy' not in sys.modules: time.sleep(0.001)\n"
        f"    os.kill(os.getpid(), {int(number)})\n"
        f"threading.Thread(target=press, daemon=True).start()\n"
        f"sys.argv = ['{script}', 'pretrain_small']\n"
        f"runpy.run_path({str(ROOT / script)!r}, run_name='__main__')\n"
    )
    with started([sys.executable, "-c", program], tmp_path) as process:
        said = process.communicate(timeout=60)[1]
    assert process.returncode == code, said
    (line,) = [line for line in said.splitlines() if line]
    assert line.startswith(f"{script}: ended ") and line.endswith("goes on from what was saved before")


@pytest.mark.parametrize("words", [["--help"], ["doctor"]])
def test_nobody_who_reads_is_no_fault(words, tmp_path):
    reads, writes = os.pipe()
    os.close(reads)
    done = subprocess.run(
        [*MEDBERT, *words], stdout=writes, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    os.close(writes)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("CONFIG = (\n", r"got ''\(' was never closed' \(SyntaxError\) in .*preset\.py, line 1; correct it"),
        ("x = 1\nCONFIG = y\n", r"got 'name 'y' is not defined' \(NameError\) in .*preset\.py, line 2; correct it"),
        ("import nowhere_at_all\n", r"\(ModuleNotFoundError\) in .*preset\.py, line 1; correct it"),
    ],
)
def test_a_preset_that_does_not_run_is_told_with_its_line(text, told, tmp_path):
    (tmp_path / "preset.py").write_text(text)
    with pytest.raises(ValueError, match=told):
        parse_config(PretrainConfig, [str(tmp_path / "preset.py")], program="run_pretrain.py")
