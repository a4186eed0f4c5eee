"""A folder is replaced whole; that of EHR tables is killed at every moment in tests/ehr/test_tables.py."""

import os
import re

import pytest

from medbert_jax.disk import replaced_folder
from medbert_jax.disk.replaced_folder import replaced
from medbert_jax.disk.whole_files import write_whole

OURS = re.compile(r"a|deep/\d")


def write(out, text):
    with replaced(out, OURS) as new:
        (new / "deep").mkdir()
        for name in ("a", "deep/1"):
            write_whole(new / name, text)


def content(out):
    return {path.relative_to(out).as_posix(): path.read_text() for path in out.rglob("*") if path.is_file()}


def test_all_is_on_disk_before_it_is_placed(tmp_path, monkeypatch):
    out, synced = tmp_path / "out", []
    wait = replaced_folder.wait_for_disk
    monkeypatch.setattr(
        replaced_folder, "wait_for_disk", lambda path: (synced.append((path, out.exists())), wait(path))
    )
    write(out, "first")
    names = [(path.name, there) for path, there in synced]
    assert sorted(names[:-1]) == [(name, False) for name in ("1", "a", "deep", "new")]
    assert names[-1] == (tmp_path.name, True)


@pytest.mark.parametrize("exchange", [True, False])
def test_halves_of_our_files_go_and_those_of_others_stay(tmp_path, monkeypatch, exchange):
    if not exchange:
        monkeypatch.setattr(replaced_folder, "_exchanged", lambda *folders: False)
    out = tmp_path / "out"
    write(out, "first")
    for name in (".a.7.partial", "deep/.1.7.partial", "mine", ".mine.7.partial", "deep/mine", "deep/a"):
        (out / name).write_text("of others")
    write(out, "second")
    assert content(out) == {
        **dict.fromkeys(("a", "deep/1"), "second"),
        **dict.fromkeys(("mine", ".mine.7.partial", "deep/mine", "deep/a"), "of others"),
    }
    assert os.listdir(tmp_path) == ["out"]


def test_the_second_writer_is_refused_and_the_first_goes_on(tmp_path):
    out = tmp_path / "out"
    with replaced(out, OURS) as new:
        with pytest.raises(
            BlockingIOError, match=r"one writer at a time: got .*out, which another run is writing; wait"
        ):
            write(out, "second")
        write_whole(new / "a", "first")
    assert content(out) == {"a": "first"} and os.listdir(tmp_path) == ["out"]
