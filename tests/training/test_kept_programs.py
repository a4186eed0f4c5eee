"""Compiled programs are kept by default, where the user says, and damage to them breaks no run."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from medbert_jax.training import kept_programs
from medbert_jax.training.kept_programs import keep_programs


@pytest.fixture
def folder(monkeypatch, tmp_path) -> Path:
    """JAX without a folder, and the user's, which `keep_programs` is to give it."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    monkeypatch.setenv("MEDBERT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kept_programs, "_WORTH_KEEPING", 0.0)
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    yield tmp_path / "cache"
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def compiled(number: float) -> float:
    """What a program gives that this process does not have in memory: JAX compiles it, or finds it on disk."""

    def tripled(x):
        return 3 * x

    return jax.jit(tripled)(jnp.float32(number)).item()


def entries(folder: Path) -> list[Path]:
    return sorted(folder.rglob("jit_tripled-*-cache"))


def test_programs_are_kept_and_it_is_told_once(folder, capsys):
    keep_programs()
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"compiled programs are kept in {folder}" in said and "MEDBERT_CACHE=off" in said
    keep_programs()
    assert capsys.readouterr().err == ""
    assert compiled(2) == 6
    (entry,) = entries(folder)
    entry.unlink()
    assert compiled(2) == 6 and entries(folder) == [entry]  # not out of this process's memory


def test_a_damaged_program_is_compiled_anew(folder):
    keep_programs()
    assert compiled(2) == 6
    (entry,) = entries(folder)
    entry.write_bytes(entry.read_bytes()[:-5])
    with pytest.warns(UserWarning, match="Error reading persistent compilation cache entry for 'jit_tripled'"):
        assert compiled(2) == 6
    jax.config.update("jax_compilation_cache_dir", None)
    keep_programs()  # as the next run does
    assert entries(folder) == []
    assert compiled(2) == 6 and entries(folder) == [entry]


def test_off_keeps_none(folder, monkeypatch, capsys):
    monkeypatch.setenv("MEDBERT_CACHE", "off")
    keep_programs()
    assert jax.config.jax_compilation_cache_dir is None and capsys.readouterr().err == ""


def test_a_folder_that_jax_has_stays(folder, tmp_path, capsys):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "theirs"))
    keep_programs()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "theirs") and capsys.readouterr().err == ""


def test_a_folder_that_cannot_be_written_is_told_and_the_run_goes_on(folder, capsys):
    folder.write_text("a file")
    keep_programs()
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and str(folder) in said and "nothing is kept" in said
    assert jax.config.jax_compilation_cache_dir is None and compiled(2) == 6
