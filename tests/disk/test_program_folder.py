"""Where compiled programs are kept: in the system's place or the one that is named, whole, no larger than allowed."""

import os
import zlib
from pathlib import Path

import pytest

from medbert_jax.disk.program_folder import program_folder


@pytest.fixture
def named(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv("MEDBERT_CACHE", str(tmp_path / "named"))
    return tmp_path / "named"


def put(folder: Path, name: str, content: bytes, age: int) -> Path:
    """A program that was written and last read `age` seconds before now."""
    path = folder / f"{name}-cache"
    path.write_bytes(content)
    then = path.stat().st_mtime - age
    os.utime(path, (then, then))
    return path


def test_it_lies_in_the_systems_place_for_caches(monkeypatch, tmp_path):
    monkeypatch.delenv("MEDBERT_CACHE", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert program_folder().parents[1] == tmp_path / "xdg" / "medbert_jax"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # which the standard says to ignore
    assert program_folder().parents[1] == tmp_path / ".cache" / "medbert_jax"
    monkeypatch.setattr("sys.platform", "darwin")
    assert program_folder().parents[1] == tmp_path / "Library" / "Caches" / "medbert_jax"


def test_another_can_be_named_and_none(named, monkeypatch):
    folder = program_folder()
    assert folder.parents[1] == named and folder.is_dir()
    assert folder.stat().st_mode & 0o077 == 0  # who writes there has their code run
    monkeypatch.setenv("MEDBERT_CACHE", "OFF")
    assert program_folder() is None


def test_each_kind_of_processor_has_its_own(named, monkeypatch):
    here = program_folder()
    assert program_folder() == here
    monkeypatch.setattr("platform.processor", lambda: "another")
    assert program_folder() != here


def test_a_place_that_cannot_be_written_raises(named):
    named.write_text("a file")
    with pytest.raises(OSError, match="named"):
        program_folder()


def test_what_was_used_longest_ago_goes_first(named):
    folder = program_folder()
    elsewhere = folder.with_name("another-processor")
    elsewhere.mkdir()
    whole = zlib.compress(bytes(range(100)), 0)
    old, older, new = put(folder, "a", whole, 20), put(elsewhere, "b", whole, 30), put(folder, "c", whole, 10)
    program_folder(largest=3 * len(whole))
    assert old.exists() and older.exists() and new.exists()
    program_folder(largest=2 * len(whole))
    assert old.exists() and not older.exists() and new.exists()
    program_folder(largest=len(whole))
    assert not old.exists() and new.exists()


def test_what_is_not_whole_is_removed(named):
    folder = program_folder()
    whole = zlib.compress(b"a program" * 100)
    kept = put(folder, "whole", whole, -1), put(folder, "zstd", b"\x28\xb5\x2f\xfd...", -1)
    halves = put(folder, "half", whole[:-1], -1), put(folder, "flipped", whole[:9] + b"?" + whole[10:], -1)
    empty = put(folder, "empty", b"", -1)
    assert program_folder() == folder
    assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in (*halves, empty))
