"""One process at a time, whoever deletes the file and whoever is killed."""

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from medbert_jax.disk.lock import NoLocksError, locked

HOLD = """
import sys, time
from pathlib import Path
from medbert_jax.disk.lock import NoLocksError, locked
with locked(Path(sys.argv[1]), shared=sys.argv[2] == "shared"):
    print("held", flush=True)
    time.sleep(60)
"""
REFUSAL = RuntimeError("one at a time")


@contextlib.contextmanager
def other_process(path, kind="alone"):
    """Another process that holds the lock."""
    command = [sys.executable, "-c", HOLD, str(path), kind]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    try:
        assert holder.stdout.readline() == "held\n"
        yield holder
    finally:
        holder.kill()
        holder.communicate()


def is_free(path, **kind):
    try:
        with locked(path, refusal=REFUSAL, **kind):
            return True
    except RuntimeError as error:
        assert error is REFUSAL
        return False


def test_another_process_is_refused_until_the_holder_is_killed(tmp_path):
    path = tmp_path / "new" / "lock"
    with other_process(path) as holder:
        assert not is_free(path) and not is_free(path, shared=True)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert is_free(path)
    assert path.exists()


def test_a_lock_is_shared_by_those_who_ask_for_it(tmp_path):
    path = tmp_path / "lock"
    with other_process(path, "shared"):
        assert is_free(path, shared=True) and not is_free(path)


def test_a_lock_is_waited_for_and_that_is_told(tmp_path):
    path, told = tmp_path / "lock", []
    with other_process(path) as holder:

        def waiting():
            told.append(True)
            holder.kill()

        with locked(path, waiting=waiting):
            assert not is_free(path)
    with locked(path, waiting=waiting):
        assert told == [True]


def test_who_waited_for_a_file_that_is_deleted_takes_the_new_one(tmp_path):
    path, now, most, rounds = tmp_path / "lock", [], [], 50

    def work():
        for _ in range(rounds):
            with locked(path, stays=False):
                now.append(1)
                most.append(len(now))
                time.sleep(0.0005)
                now.pop()

    with ThreadPoolExecutor(4) as pool:
        for each in [pool.submit(work) for _ in range(4)]:
            each.result(60)
    assert most == [1] * (4 * rounds) and not path.exists()


def test_who_waited_in_a_folder_that_is_deleted_has_the_lock_of_a_new_one(tmp_path):
    path, waits = tmp_path / "work" / "in_use", threading.Event()

    def wait():
        with locked(path, shared=True, waiting=waits.set):
            return not is_free(path)

    with ThreadPoolExecutor(1) as pool:
        with locked(path):
            waiter = pool.submit(wait)
            assert waits.wait(60)
            shutil.rmtree(path.parent)
        assert waiter.result(60)


def test_a_block_that_raises_lets_go(tmp_path):
    path = tmp_path / "lock"
    for stays in (True, False):
        with pytest.raises(KeyboardInterrupt), locked(path, stays=stays):
            raise KeyboardInterrupt
        assert path.exists() == stays and is_free(path, stays=stays)


def test_an_error_of_the_system_is_raised(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError), locked(tmp_path / "file" / "lock"):
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
@pytest.mark.parametrize("refusal", [REFUSAL, None])
def test_a_file_system_without_locks_is_told_with_its_cure(tmp_path, monkeypatch, number, refusal):
    def flock(file, kind):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)
    path = tmp_path / "lock"
    with (
        pytest.raises(NoLocksError, match=f"must have locks.*: got .*for {path}; name a folder on another disk"),
        locked(path, refusal=refusal),
    ):
        pytest.fail("held without a lock")


def test_other_errors_of_a_lock_stay_what_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr("fcntl.flock", lambda file, kind: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
    with pytest.raises(OSError, match="broken") as raised, locked(tmp_path / "lock"):
        pytest.fail("held without a lock")
    assert not isinstance(raised.value, NoLocksError)


def test_a_system_without_locks_is_told_what_to_use(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with pytest.raises(NoLocksError, match=r"Linux or macOS: got .*WSL.*or a Linux container"), locked(tmp_path / "x"):
        pytest.fail("held without a lock")
    assert not (tmp_path / "x").exists()


def test_a_link_to_nowhere_is_told_and_not_tried_for_ever(tmp_path):
    (tmp_path / "lock").symlink_to(tmp_path / "gone" / "lock")
    with pytest.raises(FileNotFoundError), locked(tmp_path / "lock"):
        pass
