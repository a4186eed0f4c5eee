"""The simulated health system on disk: the same for any number of workers, and every planted error is found again."""

import dataclasses
import json
import shutil
from datetime import timedelta
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from made_ehr import made_tables

from medbert_jax import commands
from medbert_jax.data.serialization import SerializationConfig, order_histories
from medbert_jax.ehr.tables import read_shard, read_source, read_tables, write_tables
from medbert_jax.options import SimulateOptions
from medbert_jax.quality.report import validate
from medbert_jax.simulation import simulate as module
from medbert_jax.simulation.block import World
from medbert_jax.simulation.parameters import load_parameters
from medbert_jax.simulation.simulate import simulate
from medbert_jax.simulation.truth import check_truth, read_past

PATIENTS = 1_500


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folder with ehr/ and truth/ of 1,500 patients in 2 shards, made by one process."""
    folder = tmp_path_factory.mktemp("simulated")
    made = {"patients": PATIENTS, "seed": 3, "shards": 2, "announce": lambda line: None}
    simulate(folder / "ehr", truth=folder / "truth", workers=1, **made)
    simulate(folder / "again", workers=2, **made)
    simulate(folder / "other", workers=1, **{**made, "patients": 300, "seed": 4})
    simulate(folder / "few", workers=1, **{**made, "patients": 300})
    return folder


def planted(folder) -> dict[str, dict[str, int]]:
    """Kind → patient → wrong rows."""
    errors = pl.read_parquet(folder / "truth" / "errors" / "*.parquet")
    kinds = errors["kind"].unique().to_list()
    return {
        kind: dict(errors.filter(pl.col("kind") == kind).select("patient_id", "count").iter_rows()) for kind in kinds
    }


def test_the_bytes_do_not_depend_on_the_number_of_workers_but_on_the_seed(made):
    record = json.loads((made / "ehr" / "source.json").read_text())
    again = json.loads((made / "again" / "source.json").read_text())
    assert record["files"] == again["files"] and len(record["files"]) == 14
    assert record["content_hash"] == again["content_hash"]
    assert read_source(made / "few").content_hash != read_source(made / "other").content_hash


def test_ids_do_not_tell_ages(made):
    # Lives are made oldest first; a number that told this would be a leak.
    patients = read_tables(made / "ehr").patients.drop_nulls("birth_date")
    number = patients["patient_id"].str.split("-").list.last().cast(pl.Int64).to_numpy()
    birth = patients["birth_date"].to_physical().to_numpy()
    assert abs(np.corrcoef(number, birth)[0, 1]) < 0.08


def test_validation_finds_the_planted_errors_and_no_others(made):
    found = {(line.rule, line.table): line.rows for line in validate(made / "ehr").lines if line.severity != "note"}
    errors = {kind: sum(patients.values()) for kind, patients in planted(made).items()}
    tables = read_tables(made / "ehr")
    for rule in ("discharge_before_admission", "order_against_time", "no_admission", "same_times"):
        assert found.pop((rule, "visits"), 0) == errors.get(rule, 0), rule
    assert found.pop(("negative_stay", "visits"), 0) == errors["discharge_before_admission"]
    assert found.pop(("duplicate_code", "diagnoses")) == errors["duplicate_code"]
    # Whoever is recorded dead too early has all his visits after death.
    early = planted(made).get("death_before_first_visit", {})
    late = tables.visits.filter(pl.col("patient_id").is_in([*early])).height + errors.get("visit_after_death", 0)
    assert found.pop(("after_death", "visits"), 0) == late
    # What follows from these.
    for rule, table in (("visit_after_expired", "visits"), ("event_outside_visit", "medications"),
                        ("event_outside_visit", "measurements"), ("event_outside_visit", "procedures"),
                        ("event_after_death", "medications"), ("event_after_death", "measurements"),
                        ("event_after_death", "procedures"), ("overlapping_stays", "visits")):  # fmt: skip
        found.pop((rule, table), None)
    assert found == {}
    assert errors["discharge_before_admission"] > 1 and errors["duplicate_code"] > 30


def test_one_sided_records_lose_what_was_planted(made):
    tables, errors = read_tables(made / "ehr"), planted(made)
    for kind, table in (("no_medications", tables.medications), ("no_measurements", tables.measurements),
                        ("no_diagnoses", tables.diagnoses)):  # fmt: skip
        assert len(errors[kind]) > 3
        assert table.filter(pl.col("patient_id").is_in([*errors[kind]])).is_empty()
    assert tables.measurements["unit"].null_count() == sum(errors["no_unit"].values())
    assert tables.patients["sex"].null_count() == len(errors["unknown_sex"])
    assert tables.patients["birth_date"].null_count() == len(errors["unknown_birth"])


def test_the_patients_that_pretraining_drops_for_wrong_times_are_the_planted_ones(made):
    tables, errors = read_tables(made / "ehr"), planted(made)
    _, _, ledger = order_histories(tables, SerializationConfig())
    (line,) = [line for line in ledger.to_dict()["lines"] if line["rule"] == "wrong_times"]
    coded = set(tables.diagnoses["patient_id"])
    wrong = {*errors["discharge_before_admission"], *errors.get("order_against_time", {})}
    assert line["left"]["patients"] == len(wrong & coded) > 0


def test_events_are_of_their_visits(made):
    tables = read_tables(made / "ehr")
    clean = tables.visits.drop_nulls(["admit_time", "discharge_time"]).filter(
        pl.col("discharge_time") >= pl.col("admit_time")
    )
    for table in (tables.medications, tables.measurements, tables.procedures):
        joined = table.join(clean, on=["patient_id", "visit_id"])
        assert joined.height > 100
        inside = (pl.col("time") >= pl.col("admit_time")) & (
            pl.col("time") <= pl.col("discharge_time") + timedelta(minutes=1)
        )
        assert joined.select((~inside).sum()).item() == 0


def test_the_truth_gives_lives_back(made):
    world = World(load_parameters())
    ids = read_shard(made / "ehr", 1).patients["patient_id"].to_list()[5:25][::-1]
    tables = read_source(made / "ehr")
    past = read_past(world, made / "truth", tables, 1, ids)
    patients = pl.read_parquet(made / "truth" / "patients" / "shard-00001-of-00002.parquet")
    known = {row["patient_id"]: row for row in patients.iter_rows(named=True)}
    assert [float(day) for day in past.entry] == [known[one]["entry"] for one in ids]
    assert past.state.traits[3, 1] == np.float32(known[ids[3]]["vascular"])
    events = pl.read_parquet(made / "truth" / "events" / "shard-00001-of-00002.parquet")
    mine = events.filter(pl.col("patient_id").is_in(ids))
    before = (past.state.onset < 1e8).sum()
    assert before + len(past.events.day) == mine.height > 20
    with pytest.raises(KeyError, match="1 of 1 patients are not in the truth of shard 0"):
        read_past(world, made / "truth", tables, 0, ids[:1])


@pytest.mark.parametrize("name", ["site", "world", "seed", "engine", "parameters", "shards", "tables"])
def test_a_truth_of_another_world_or_of_other_tables_is_refused(made, tmp_path, name):
    world, tables = World(load_parameters()), read_source(made / "ehr")
    check_truth(world, made / "truth", tables, seed=3, patients=PATIENTS)
    said = json.loads((made / "truth" / "truth.json").read_text())
    (tmp_path / "truth.json").write_text(json.dumps({**said, name: "other" if name in ("site", "world") else 4}))
    with pytest.raises(ValueError, match=r"a truth is used with the world and the tables .*; simulate"):
        read_past(world, tmp_path, tables, 1, [])
    (tmp_path / "truth.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"got .*, which holds no truth\.json; simulate"):
        read_past(world, tmp_path, tables, 1, [])
    with pytest.raises(ValueError, match="got seed 3 instead of 4, patients 1500 instead of 9; simulate"):
        check_truth(world, made / "truth", tables, seed=4, patients=9)


def test_a_truth_is_refused_beside_tables_made_anew(made):
    world = World(load_parameters())
    with pytest.raises(ValueError, match=r"shards 2 instead of 1, tables [0-9a-f]{64} instead of [0-9a-f]{64}"):
        check_truth(world, made / "truth", dataclasses.replace(read_source(made / "few"), shards=1))
    with pytest.raises(ValueError, match=r"got parameters [0-9a-f]{64} instead of [0-9a-f]{64}; simulate"):
        parameters = dataclasses.replace(world.parameters, hash="0" * 64)
        other = SimpleNamespace(parameters=parameters)
        check_truth(other, made / "truth", read_source(made / "ehr"))


def test_a_run_that_fails_leaves_tables_and_truth_as_they_were(tmp_path, monkeypatch):
    made = {"patients": 60, "shards": 2, "workers": 1, "announce": lambda line: None}
    simulate(tmp_path / "ehr", truth=tmp_path / "truth", seed=3, **made)
    (tmp_path / "truth" / "notes.txt").write_text("mine")
    before = files(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(module, "seal", fail)
        with pytest.raises(RuntimeError, match="dies"):
            simulate(tmp_path / "ehr", truth=tmp_path / "truth", seed=4, **made)
    assert files(tmp_path) == before
    check_truth(World(load_parameters()), tmp_path / "truth", read_source(tmp_path / "ehr"), seed=3)
    # Of fewer shards: nothing of the earlier truth stays, but what is not of a truth does.
    simulate(tmp_path / "ehr", truth=tmp_path / "truth", seed=4, **{**made, "shards": 1})
    check_truth(World(load_parameters()), tmp_path / "truth", read_source(tmp_path / "ehr"), seed=4)
    assert len([*(tmp_path / "truth").glob("*/*.parquet")]) == 4 and (tmp_path / "truth" / "notes.txt").exists()


@pytest.mark.parametrize("there", ["ingested", "no source.json", "damaged", "of a later version", "a ledger alone"])
def test_tables_that_no_simulation_made_are_never_replaced(tmp_path, there):
    made = {"patients": 10, "workers": 1, "announce": lambda line: None}
    out, record = tmp_path / "ehr", tmp_path / "ehr" / "source.json"
    if there == "ingested":
        write_tables(made_tables(patients=20, seed=1), out)
    else:
        simulate(out, **made)
    if there == "damaged":
        record.write_text("{")
    elif there == "of a later version":
        record.write_text(record.read_text().replace("tables, version ", "tables, version 9"))
    elif there != "ingested":
        record.unlink()
    if there == "a ledger alone":
        for name in ("patients", "visits", "diagnoses"):
            shutil.rmtree(out / name)
    before = files(tmp_path)
    with pytest.raises(
        ValueError, match=r"replace no others: got .*ehr, which holds tables of format .*; name another"
    ):
        simulate(out, truth=tmp_path / "truth", **made)
    assert files(tmp_path) == before
    # What goes with no set of tables is in nobody's way.
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "patients.csv").write_text("mine")
    simulate(tmp_path / "notes", **made)
    assert (tmp_path / "notes" / "patients.csv").read_text() == "mine"


def test_the_truth_has_one_writer(tmp_path, monkeypatch):
    def inside(*args):
        with pytest.raises(BlockingIOError, match="which another run is writing"):
            simulate(tmp_path / "other", patients=10, workers=1, truth=tmp_path / "truth")
        fail()

    monkeypatch.setattr(module, "seal", inside)
    with pytest.raises(RuntimeError, match="dies"):
        simulate(tmp_path / "ehr", patients=10, workers=1, truth=tmp_path / "truth", announce=lambda line: None)


def fail(*args):
    raise RuntimeError("dies")


def files(folder) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_truth_may_not_stand_inside_the_tables(tmp_path):
    with pytest.raises(ValueError, match=r"truth must stand outside of the tables: got .*; name a folder beside it"):
        simulate(tmp_path / "ehr", patients=10, truth=tmp_path / "ehr" / "truth")
    with pytest.raises(ValueError, match=r"truth must stand outside of the tables"):
        simulate(tmp_path / "truth" / "ehr", patients=10, truth=tmp_path / "truth")


def test_a_block_of_one_patient_without_a_standing_condition_is_made(tmp_path):
    source = simulate(tmp_path / "ehr", patients=1, seed=48, truth=tmp_path / "truth", announce=lambda line: None)
    assert read_tables(tmp_path / "ehr").patients.height == source.shards == 1


def test_shards_of_nobody_are_empty_tables(tmp_path):
    said = []
    simulate(tmp_path / "ehr", patients=2, shards=8, truth=tmp_path / "truth", workers=1, announce=said.append)
    assert len(said) == 8 and said[0].startswith("simulated shard 1/8: 0 patients, 0/s")
    heights = [read_shard(tmp_path / "ehr", shard).patients.height for shard in range(8)]
    assert sum(heights) == 2 and heights[0] == 0
    assert not validate(tmp_path / "ehr").failed
    empty, full = (
        {path.parent.name: pl.read_parquet(path) for path in (tmp_path / "truth").glob(f"*/shard-{shard:05d}-*")}
        for shard in (0, int(np.argmax(heights)))
    )
    assert empty.keys() == {"patients", "events", "recent", "errors"}
    assert all(frame.is_empty() and frame.schema == full[name].schema for name, frame in empty.items())


def test_visits_are_named_after_their_patient_in_tables_and_truth(made):
    tables = read_tables(made / "ehr")
    assert tables.patients["patient_id"].str.contains(r"^cerner-3-[0-9a-f]{6}-\d{9}$").all()
    order = pl.concat_str("patient_id", "order", separator="-")
    assert tables.visits.select((pl.col("visit_id") == order).all()).item()
    for name in ("patients", "events", "recent", "errors"):
        of_truth = pl.read_parquet(made / "truth" / name / "*.parquet")["patient_id"]
        assert set(of_truth) <= set(tables.patients["patient_id"]) and len(of_truth) > 30
    few, other = (set(read_tables(made / one).patients["patient_id"]) for one in ("few", "other"))
    assert not few & other and not few & set(tables.patients["patient_id"])


def test_the_command_refuses_shards_of_few_patients(tmp_path):
    with pytest.raises(ValueError, match=r"about 100 simulated .*: got 2 shards of 150 patients; give --shards 1"):
        commands.simulate(SimulateOptions(tmp_path / "ehr", 150, shards=2))
    assert not [*tmp_path.iterdir()]


def test_wrong_settings_are_told(tmp_path):
    with pytest.raises(ValueError, match=r"patients must be at least 1.*: got 0, 0 and 0; correct them"):
        simulate(tmp_path / "ehr", patients=0)
    with pytest.raises(ValueError, match=r"site must be one of cerner, truven .*: got 'mercy' and 'rich'; choose"):
        simulate(tmp_path / "ehr", patients=10, site="mercy")
