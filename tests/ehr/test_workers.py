"""A worker that ends before its work is told as what it is."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medbert_jax.ehr import worker_deaths
from medbert_jax.ehr.workers import Workers

CHECKOUT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        (
            (0, 1),
            r"2 workers must have the memory.*: got one that the system killed .*; give .* fewer workers",
        ),
        ((1, 1), r"killed \(signal 9\), by a person or a program, .* counts none"),
        ((None, None), r"killed \(signal 9\), often for want of memory among 2 workers; give .* fewer workers"),
    ],
)
def test_a_worker_that_was_killed_is_said_to_want_memory_where_the_system_counts_it(counts, told, monkeypatch):
    said = iter(counts)
    monkeypatch.setattr(worker_deaths, "out_of_memory", lambda: next(said))
    with pytest.raises(ChildProcessError, match=told), Workers(2) as each:
        list(each(signal.raise_signal, [signal.SIGKILL] * 2))


@pytest.mark.parametrize(
    ("member", "file", "count"),
    [
        ("0::/job/7\n", "job/7/memory.events", 3),
        ("0::/elsewhere\n", "memory.events", 3),  # of a container, which sees its own group as the root
        ("12:cpu:/\n5:memory,hugetlb:/job\n0::/\n", "memory/job/memory.oom_control", 3),
        ("0::/\n", "cpu.stat", None),
        ("", "memory.events", None),
    ],
)
def test_who_was_killed_for_want_of_memory_is_counted_by_the_control_group(member, file, count, tmp_path, monkeypatch):
    (tmp_path / "cgroup").write_text(member)
    path = tmp_path / "fs" / file
    path.parent.mkdir(parents=True)
    path.write_text("low 0\noom 5\noom_kill 3\noom_group_kill 0\n")
    monkeypatch.setattr(worker_deaths, "_MEMBERSHIP", tmp_path / "cgroup")
    monkeypatch.setattr(worker_deaths, "_CGROUPS", tmp_path / "fs")
    assert worker_deaths.out_of_memory() == count


def test_ctrl_c_waits_for_no_shard_and_leaves_no_process(keyboard):
    before = time.monotonic()
    with pytest.raises(KeyboardInterrupt), Workers(2) as each:
        for _ in each(time.sleep, [0, 60, 60]):
            signal.raise_signal(signal.SIGINT)
    assert time.monotonic() - before < 30 and not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("function", "value", "told"),
    [(os._exit, 3, r"exit code 3;"), (signal.raise_signal, signal.SIGSEGV, r"exit code -11 \(SIGSEGV\);")],
)
def test_any_other_end_is_told_with_its_code(function, value, told):
    with pytest.raises(ChildProcessError, match=told) as raised, Workers(2) as each:
        list(each(function, [value] * 2))
    assert "memory" not in str(raised.value)


def test_ctrl_c_in_a_worker_is_ctrl_c():
    with pytest.raises(KeyboardInterrupt), Workers(2) as each:
        list(each(signal.raise_signal, [signal.SIGINT] * 2))


def test_a_script_without_a_main_guard_is_told_to_have_one(tmp_path):
    script = tmp_path / "script.py"
    call = "with Workers(2) as each:\n    print(list(each(abs, [-1, -2])))\n"
    script.write_text(f"from medbert_jax.ehr.workers import Workers\n{call}")
    done = run(script)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith('ChildProcessError: a script must start workers under `if __name__ == "__main__":`')
    assert "memory" not in last
    guarded = "\n".join(f"    {line}" for line in call.splitlines())
    script.write_text(f'from medbert_jax.ehr.workers import Workers\nif __name__ == "__main__":\n{guarded}\n')
    assert sorted(eval(run(script).stdout)) == [1, 2]


def run(script):
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    return subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment, timeout=120)
