"""A file is the old one or the new one, whatever happens, and it is on disk when the writer says so."""

import errno
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from medbert_jax.disk.whole_files import (
    canonical_json,
    fingerprint,
    meant_for,
    put_in_place,
    remove_unfinished,
    sha256_of,
    whole_file,
    write_json,
    write_whole,
)


@pytest.mark.parametrize(
    ("moment", "left"),
    [
        ("file.write(b'ne'); die()", "half"),
        ("file.write(b'new'); whole_files.os.replace = die", "whole"),
        ("file.write(b'new'); whole_files.wait_for_disk = die", "whole"),
    ],
    ids=["while it writes", "before the rename", "before it is on disk"],
)
def test_a_writer_that_is_killed_leaves_the_old_file(tmp_path, moment, left):
    path = tmp_path / "results.json"
    path.write_bytes(b"old")
    script = f"""
import os, signal
from medbert_jax.disk import whole_files
die = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
with whole_files.whole_file({str(path)!r}) as partial, open(partial, "wb", buffering=0) as file:
    {moment}
"""
    killed = subprocess.run([sys.executable, "-c", script], capture_output=True, cwd=Path(__file__).parents[2])
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert path.read_bytes() == b"old"
    (partial,) = set(tmp_path.iterdir()) - {path}
    assert meant_for(partial.name) == "results.json"
    assert partial.read_bytes() == (b"ne" if left == "half" else b"new")
    write_whole(path, "newer")
    assert path.read_bytes() == b"newer"
    remove_unfinished(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_file_and_folder_are_brought_to_disk_in_this_order(tmp_path, monkeypatch):
    path, events = tmp_path / "a", []
    replace, fsync = os.replace, os.fsync

    def synced(descriptor):
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        events.append("folder" if is_folder else os.pread(descriptor, 9, 0))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", lambda *names: (events.append("rename"), replace(*names)))
    for write in (write_whole, write_json):
        events.clear()
        write(path, "text")
        assert events == [path.read_bytes(), "rename", "folder"]
    events.clear()
    put_in_place(path, tmp_path / "b")
    assert events == [b'"text"', "rename", "folder"]


def test_a_block_that_raises_changes_nothing(tmp_path):
    path = tmp_path / "a"
    write_whole(path, b"old")
    with pytest.raises(KeyboardInterrupt), whole_file(path) as partial:
        partial.write_bytes(b"new")
        raise KeyboardInterrupt
    with pytest.raises(FileNotFoundError), whole_file(path):
        pass  # whose writer wrote nothing
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("a", b"old")]


def test_a_disk_that_takes_no_more_is_an_error_and_the_old_file_stays(tmp_path, monkeypatch):
    path = tmp_path / "a"
    write_whole(path, b"old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, b"new")
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("a", b"old")]


def test_a_file_system_that_cannot_sync_folders_is_no_error(tmp_path, monkeypatch):
    fsync = os.fsync

    def as_on_some(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", as_on_some)
    write_whole(tmp_path / "a", "text")
    assert (tmp_path / "a").read_text() == "text"


def test_modes_and_links_stay(tmp_path):
    path, link = tmp_path / "a", tmp_path / "link"
    before = os.umask(0o027)
    try:
        write_whole(path, "old")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640
    path.chmod(0o604)
    link.symlink_to("a")
    write_whole(link, "new")
    assert link.is_symlink() and path.read_text() == "new" and path.stat().st_mode & 0o777 == 0o604


def test_what_is_no_file_is_written_to_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE, text=True)
    write_whole(pipe, "through")
    assert reader.communicate(timeout=30)[0] == "through"
    assert stat.S_ISFIFO(pipe.stat().st_mode) and list(tmp_path.iterdir()) == [pipe]
    with pytest.raises(IsADirectoryError):
        write_whole(tmp_path, "x")


def test_two_writers_at_once_do_not_share_a_half(tmp_path):
    path = tmp_path / "a"
    with whole_file(path) as one, whole_file(path) as other:
        assert one != other and meant_for(one.name) == meant_for(other.name) == "a"
        one.write_bytes(b"one")
        other.write_bytes(b"other")
    assert path.read_bytes() == b"one"  # the last to end
    assert list(tmp_path.iterdir()) == [path]


def test_names_of_unfinished_files_are_told_from_others():
    for name in ("a", ".a", "a.7.partial", ".a.partial", ".a.x.partial", ".a.7.partial.b", "..7.partial"):
        assert meant_for(name) == name
    assert meant_for(".shard-0.parquet.17.partial") == "shard-0.parquet"


def test_bytes_of_texts_and_json(tmp_path):
    path = tmp_path / "a"
    write_whole(path, "ö\r\n1\n")
    assert path.read_bytes() == "ö\r\n1\n".encode()
    assert fingerprint(path) == [6, sha256_of(path)] and len(sha256_of(path)) == 64
    write_json(path, {"b": "ö", "a": [1]})
    assert path.read_text(encoding="utf-8") == '{\n "b": "ö",\n "a": [\n  1\n ]\n}'
    assert canonical_json({"b": "ö", "a": 1}) == '{\n "a": 1,\n "b": "ö"\n}\n'.encode()
    assert json.loads(canonical_json({"b": "ö", "a": 1})) == {"b": "ö", "a": 1}
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"a": float("nan")})
