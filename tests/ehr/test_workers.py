"""A worker that ends before its work is told as what it is."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from medbert_jax.ehr.workers import Workers

CHECKOUT = Path(__file__).parents[2]


def test_only_a_worker_that_was_killed_is_said_to_want_memory():
    told = r"2 workers must have the memory.*: got one that was killed.*; give .* again with fewer workers"
    with pytest.raises(ChildProcessError, match=told), Workers(2) as each:
        list(each(signal.raise_signal, [signal.SIGKILL] * 2))


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
