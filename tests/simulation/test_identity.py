"""Ids name one person of one run, and say of which site and seed."""

from dataclasses import replace

import numpy as np
import pytest

from medbert_jax.ehr.text_hash import shard_numbers
from medbert_jax.simulation.identity import Run
from medbert_jax.simulation.parameters import FILES, FOLDER, load_parameters

RUN = Run("cerner", "rich", 3, 1_000, 1, 2, "a hash")


def test_an_id_says_site_seed_and_number():
    assert RUN.ids(np.array([0, 123])).str.contains(r"^cerner-3-[0-9a-f]{6}-000000(000|123)$").all()
    assert RUN.ids(np.array([12])).to_list() == ["cerner-3-ebddbd-000000012"]  # golden: datasets are split by it


@pytest.mark.parametrize(
    "other",
    [{"site": "truven"}, {"world": "bag"}, {"seed": 4}, {"patients": 999}, {"shards": 2}, {"engine": 3},
     {"parameters": "another"}],
)  # fmt: skip
def test_two_runs_that_differ_in_anything_have_no_id_in_common(other):
    numbers = np.arange(500)
    assert not set(RUN.ids(numbers)) & set(replace(RUN, **other).ids(numbers))


@pytest.mark.parametrize(("patients", "shards"), [(1, 1), (1_000, 1), (1_000, 7), (70_000, 3), (2, 8)])
def test_each_shard_has_patients_of_its_own(patients, shards):
    run = replace(RUN, patients=patients, shards=shards)
    parts = run.numbers_by_shard()
    for shard, numbers in enumerate(parts):
        assert (np.diff(numbers) > 0).all() and (shard_numbers(run.ids(numbers), shards) == shard).all()
    every = np.sort(np.concatenate(parts))
    assert len(parts) == shards and len(np.unique(every)) == patients
    if shards == 1:
        assert np.array_equal(every, np.arange(patients))


def test_shards_have_the_sizes_of_engine_1():
    """From which the lives in them follow: recorded from it."""
    sizes = [len(numbers) for numbers in replace(RUN, patients=10_000, shards=3).numbers_by_shard()]
    assert sizes == [3348, 3295, 3357]


def test_the_hash_of_the_parameters_covers_both_files_and_no_line_ends(tmp_path):
    for name in FILES:
        (tmp_path / name).write_bytes((FOLDER / name).read_bytes())
    same = load_parameters().hash
    for name in FILES:
        text = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(text.replace(b"\n", b"\r\n"))
        assert load_parameters(folder=tmp_path).hash == same
        (tmp_path / name).write_bytes(text + b"# another\n")
        assert load_parameters(folder=tmp_path).hash != same
        (tmp_path / name).write_bytes(text)
    assert load_parameters("truven", "null", tmp_path).hash == same
