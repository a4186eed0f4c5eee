"""One Parquet per run: traceable, idempotent, never half-visible, never averaged over two datasets."""

import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl
import pytest

from medbert_jax.evaluation.results import (
    RECORD_SCHEMA,
    ROW_SCHEMA,
    RunRecord,
    configuration_json,
    is_done,
    read_results,
    result_rows,
    run_id,
    write_results,
)

RECORD = RunRecord(
    configuration={"cohort": "made", "head": {"kind": "bi_gru", "sizes": (128, 64)}, "path": Path("a/b")},
    seed=3,
    commit="abc",
    dataset_hash="d" * 64,
    vocabulary_hash="e" * 64,
    split_key="split",
    checkpoint="",
    device="cpu",
    wall_time_s=1.5,
    epochs=4,
    stopping_reason="patience",
    versions={"jax": "0.10.2"},
)
COLUMNS = {
    "experiment": "first",
    "cohort": "made",
    "backbone": "untrained",
    "head": "bi_gru",
    "train_size": 300,
    "train_size_name": "300",
    "replicate": 0,
    "split": "test",
}
ROWS = result_rows({"auroc": 0.7, "brier": 0.2}, **COLUMNS)


def test_round_trip_with_the_record_on_every_row(tmp_path):
    path = write_results(tmp_path / "results", RECORD, ROWS)
    assert path.name == f"{RECORD.run_id}.parquet" and [*path.parent.iterdir()] == [path]
    results = read_results(path.parent)
    assert dict(results.schema) == {**RECORD_SCHEMA, **ROW_SCHEMA}
    assert results.select(*ROW_SCHEMA).to_dicts() == ROWS
    assert results["seed"].to_list() == [3, 3] and results["epochs"].to_list() == [4, 4]
    assert results["versions"][0] == '{"jax":"0.10.2"}'
    assert results["configuration"][0] == ('{"cohort":"made","head":{"kind":"bi_gru","sizes":[128,64]},"path":"a/b"}')


def test_run_id_is_the_configuration_and_the_seed_and_nothing_else():
    assert RECORD.run_id == "c3ffb7a44db3517d"  # for ever: results written earlier are found by it
    reordered = dict(reversed(RECORD.configuration.items()))
    assert run_id(reordered, 3) == RECORD.run_id
    assert replace(RECORD, wall_time_s=9.0, device="gpu").run_id == RECORD.run_id
    assert replace(RECORD, seed=4).run_id != RECORD.run_id
    assert run_id({**RECORD.configuration, "cohort": "other"}, 3) != RECORD.run_id


def test_dataclass_configurations_are_their_fields():
    @dataclass(frozen=True)
    class Head:
        kind: str = "gru"

    @dataclass(frozen=True)
    class Configuration:
        head: Head
        rate: float = 1e-3

    assert configuration_json(Configuration(Head())) == '{"head":{"kind":"gru"},"rate":0.001}'
    assert configuration_json({"head": Head(), "rate": 1e-3}) == configuration_json(Configuration(Head()))
    with pytest.raises(TypeError, match="got set; turn it into one of these"):
        configuration_json({"heads": {1, 2}})


def test_writing_again_gives_identical_bytes_in_any_order_of_rows(tmp_path):
    first = write_results(tmp_path, RECORD, ROWS).read_bytes()
    assert write_results(tmp_path, RECORD, pl.DataFrame(ROWS[::-1])).read_bytes() == first
    assert len(list(tmp_path.iterdir())) == 1
    changed = [{**ROWS[0], "value": 0.71}, ROWS[1]]
    assert write_results(tmp_path, RECORD, changed).read_bytes() != first


def test_an_interrupted_experiment_continues(tmp_path):
    assert not is_done(tmp_path / "never", RECORD.run_id)
    write_results(tmp_path, RECORD, ROWS)
    assert is_done(tmp_path, RECORD.run_id)
    assert is_done(tmp_path, RECORD.run_id, dataset_hash="d" * 64)
    assert not is_done(tmp_path, RECORD.run_id, dataset_hash="f" * 64)
    assert not is_done(tmp_path, replace(RECORD, seed=4).run_id)


def test_a_write_that_fails_leaves_the_earlier_file_and_nothing_else(tmp_path, monkeypatch):
    path = write_results(tmp_path, RECORD, ROWS)
    before = path.read_bytes()

    def fail(frame, file, **_):
        file.write_bytes(b"PAR1 half")
        raise OSError("No space left on device")

    monkeypatch.setattr(pl.DataFrame, "write_parquet", fail)
    with pytest.raises(OSError, match="No space"):
        write_results(tmp_path, RECORD, ROWS)
    assert path.read_bytes() == before and [*tmp_path.iterdir()] == [path]


def test_a_process_killed_in_the_write_is_not_done_and_not_read(tmp_path):
    script = f"""
        import os, signal
        import polars as pl
        from medbert_jax.evaluation import results

        def die(frame, file, **_):
            file.write_bytes(b"PAR1 half")
            os.kill(os.getpid(), signal.SIGKILL)

        pl.DataFrame.write_parquet = die
        record = results.RunRecord({{}}, 0, "", "d", "", "", "", "", 0.0, 0, "")
        results.write_results({str(tmp_path)!r}, record, {ROWS!r})
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], env=environment)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1
    assert not is_done(tmp_path, run_id({}, 0))
    write_results(tmp_path, RECORD, ROWS)
    assert read_results(tmp_path)["run_id"].unique().to_list() == [RECORD.run_id]


def test_two_datasets_of_one_cohort_are_read_together(tmp_path):
    write_results(tmp_path, RECORD, ROWS)
    write_results(tmp_path, replace(RECORD, seed=6, dataset_hash="b" * 64), ROWS)
    assert read_results(tmp_path)["dataset_hash"].n_unique() == 2


def test_every_fault_of_the_rows_is_listed(tmp_path):
    rows = [
        *ROWS,
        ROWS[0],
        {**ROWS[0], "metric": "a", "value": float("nan")},
        {**ROWS[0], "split": "dev", "train_size": 0},
        {**ROWS[0], "head": None},
    ]
    with pytest.raises(ValueError) as error:
        write_results(tmp_path, RECORD, rows)
    for fault in (
        "1 rows null",
        "1 rows value not finite",
        "1 rows train_size",
        "1 rows split",
        "2 rows repeat",
    ):
        assert fault in str(error.value)
    with pytest.raises(ValueError, match="got missing or strange auc, value; build them with result_rows"):
        write_results(tmp_path, RECORD, [{**COLUMNS, "metric": "auroc", "auc": 0.7}])
    with pytest.raises(ValueError, match="got no rows"):
        write_results(tmp_path, RECORD, [])
    assert not list(tmp_path.iterdir())


def test_every_damaged_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"got none in .*; run an experiment first"):
        read_results(tmp_path)
    whole = write_results(tmp_path, RECORD, ROWS)
    (tmp_path / "cut.parquet").write_bytes(whole.read_bytes()[:-50])
    (tmp_path / "empty.parquet").touch()
    changed = pl.read_parquet(whole).with_columns(value=pl.col("value") + 0.01)
    changed.write_parquet(tmp_path / "changed.parquet", metadata=pl.read_parquet_metadata(whole))
    pl.read_parquet(whole).drop("commit").rename({"seed": "sow"}).write_parquet(tmp_path / "strange.parquet")
    with pytest.raises(ValueError) as error:
        read_results(tmp_path)
    assert "cut.parquet, unreadable" in str(error.value) and "empty.parquet, unreadable" in str(error.value)
    assert "changed.parquet, changed since" in str(error.value)
    assert "strange.parquet with missing, strange or mistyped commit, seed, sow" in str(error.value)
