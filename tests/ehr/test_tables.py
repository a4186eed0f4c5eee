import dataclasses
import hashlib
import json
import signal
import subprocess
import sys
from datetime import date, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from made_ehr import made_tables
from polars.testing import assert_frame_equal

from medbert_jax.disk import replaced_folder
from medbert_jax.ehr.hashing import patient_hash
from medbert_jax.ehr.schema import ADDED, SCHEMAS, EhrSource, EhrTables, check_tables
from medbert_jax.ehr.shard_files import new_folder, seal, write_shard
from medbert_jax.ehr.tables import read_shard, read_source, read_tables, write_tables
from medbert_jax.ehr.text_hash import text_hash
from medbert_jax.quality.report import validate

TESTS = Path(__file__).parents[1]


def same(one, two):
    assert one.present().keys() == two.present().keys()
    for name, table in one.present().items():
        assert_frame_equal(table, two.present()[name], check_row_order=False, check_exact=True)


def changed(tables, name, *columns):
    return dataclasses.replace(tables, **{name: getattr(tables, name).with_columns(*columns)})


@pytest.fixture(scope="module")
def tables():
    return made_tables(patients=120, seed=3)


@pytest.mark.parametrize("dates", [True, False])
@pytest.mark.parametrize("shards", [1, 3])
def test_round_trip(tmp_path, dates, shards):
    tables = made_tables(patients=60, seed=1, dates=dates)
    source = write_tables(tables, tmp_path / "ehr", shards=shards)
    again = read_tables(tmp_path / "ehr")
    same(again, tables)
    assert again.source == source == read_source(tmp_path / "ehr")
    assert (source.shards, source.has_dates, len(source.content_hash)) == (shards, dates, 64)
    assert again.procedures is None
    with pytest.raises(AssertionError):
        same(again, changed(tables, "visits", pl.col("length_of_stay") + 1))


def test_shards_hold_whole_patients_and_together_everything(tables, tmp_path):
    write_tables(tables, tmp_path, shards=4)
    shards = [read_shard(tmp_path, shard) for shard in range(4)]
    assert sum(shard.diagnoses.height for shard in shards) == tables.diagnoses.height
    for number, shard in enumerate(shards):
        for table in shard.present().values():
            assert (patient_hash(table["patient_id"], "shard") % np.uint64(4) == number).all()
    with pytest.raises(ValueError, match="shard must be one of 0 … 3: got 4; this source has 4"):
        read_shard(tmp_path, 4)


def test_more_shards_than_patients(tmp_path):
    tables = made_tables(patients=3)
    write_tables(tables, tmp_path, shards=9)
    same(read_tables(tmp_path), tables)
    assert min(read_shard(tmp_path, shard).patients.height for shard in range(9)) == 0


def test_a_columns_hash_is_that_of_its_ids():
    ids = ["7", "7 ", "a" * 8, "a" * 7, "ö" * 5, "x" * 23, "1234567", "12345678", "123456789"]
    np.testing.assert_array_equal(text_hash(pl.Series(ids), "shard"), patient_hash(ids, "shard"))
    assert len(set(text_hash(pl.Series([*ids, ""]), "shard").tolist())) == len(ids) + 1


def test_content_hash_is_of_the_contents_alone(tables, tmp_path):
    mixed = dataclasses.replace(
        tables, **{name: table.sample(fraction=1, shuffle=True, seed=5) for name, table in tables.present().items()}
    )
    hashes = {
        write_tables(tables, tmp_path / "a").content_hash,
        write_tables(tables, tmp_path / "b", shards=5).content_hash,
        write_tables(mixed, tmp_path / "c").content_hash,
    }
    assert len(hashes) == 1
    for path in (tmp_path / "a").glob("*/*.parquet"):
        assert path.read_bytes() == (tmp_path / "c" / path.relative_to(tmp_path / "a")).read_bytes()
    first = pl.int_range(pl.len()) == 0
    for name, column in (
        ("patients", pl.when(first).then(pl.lit("Ivory")).otherwise("race").alias("race")),
        ("visits", pl.when(first).then(99).otherwise("length_of_stay").cast(pl.Int32).alias("length_of_stay")),
        ("diagnoses", pl.when(first).then(None).otherwise("present_on_admission").alias("present_on_admission")),
        ("measurements", pl.when(first).then(9.25).otherwise("value").alias("value")),
    ):
        hashes.add(write_tables(changed(tables, name, column), tmp_path / "d").content_hash)
    hashes.add(write_tables(dataclasses.replace(tables, medications=None), tmp_path / "e").content_hash)
    assert len(hashes) == 6


def test_content_hash_is_stable_for_ever(tmp_path):
    # Datasets and results are compared by it: if this changes, so does every dataset hash there is.
    literal = {
        "patients": {"patient_id": ["ö", "a"], "birth_date": [date(1950, 2, 28), None], "sex": ["female", None]},
        "visits": {
            "visit_id": ["v1", "v2", "v3"],
            "patient_id": ["a", "ö", "ö"],
            "order": [1, 2, 1],
            "admit_time": [datetime(2010, 5, 6, 7, 8, 9, 10), None, None],
            "readmitted_30d": [None, True, False],
        },
        "diagnoses": {"patient_id": ["a"], "visit_id": ["v1"], "code_system": ["ICD9CM"], "code": ["428.0"]},
        "measurements": {"patient_id": ["a"], "code_system": ["LOINC"], "code": ["4548-4"], "value": [-0.0]},
    }
    frames = {
        name: pl.DataFrame(columns).select(
            (pl.col(column) if column in columns else pl.lit(None)).cast(dtype).alias(column)
            for column, dtype in SCHEMAS[name].items()
        )
        for name, columns in literal.items()
    }
    source = write_tables(EhrTables(**frames, source=EhrSource("literal", True, "days")), tmp_path, shards=2)
    assert source.content_hash == "abd8e0d4a55e67c728ae549569ad36dc2c2336e09c9aea612282a4cc44a93182"


def test_writing_again_replaces_the_earlier_tables(tables, tmp_path):
    write_tables(made_tables(patients=30), tmp_path, shards=4)
    fewer = dataclasses.replace(tables, measurements=None)
    write_tables(fewer, tmp_path, shards=2)
    same(read_tables(tmp_path), fewer)
    assert not list(tmp_path.glob("*/*-of-00004.parquet")) and not list(tmp_path.glob("**/*.partial"))


def test_failing_while_writing_leaves_the_earlier_tables(tables, tmp_path, monkeypatch):
    earlier, out = made_tables(patients=30), tmp_path / "ehr"
    write_tables(earlier, out, shards=2)
    write, calls = pl.DataFrame.write_parquet, []

    def dies(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 4:
            raise OSError("disk full")
        return write(self, *args, **kwargs)

    monkeypatch.setattr(pl.DataFrame, "write_parquet", dies)
    with pytest.raises(OSError, match="disk full"):
        write_tables(tables, out, shards=2)
    monkeypatch.undo()
    same(read_tables(out), earlier)
    assert [path.name for path in tmp_path.iterdir()] == ["ehr"]
    write_tables(tables, out, shards=2)
    same(read_tables(out), tables)


def end_in(moment, out):
    """Put EHR tables of 9 patients in the place of `out`, and be killed at that moment."""
    script = f"""
import os, signal, sys
sys.path.insert(0, {str(TESTS)!r})
from made_ehr import made_tables
from medbert_jax.disk import replaced_folder
from medbert_jax.ehr import tables
die = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
{moment}
tables.write_tables(made_tables(patients=9), {str(out)!r})
"""
    killed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=TESTS.parent)
    assert killed.returncode == -signal.SIGKILL, killed.stderr


@pytest.mark.parametrize(
    ("moment", "patients"),
    [
        ("tables.seal = die", 30),
        ("replaced_folder._place = die", 30),
        # The two renames, where the system cannot exchange folders: in between there is no folder.
        ("replaced_folder._exchanged = lambda *args: False; rename = os.rename\n"
         "os.rename = lambda one, other: rename(one, other) if other.name == 'earlier' else die()", None),
        ("replaced_folder._clear = die", 9),
    ],
    ids=["shards written", "sealed", "half replaced", "replaced"],
)  # fmt: skip
def test_killed_at_any_moment_there_is_one_set_of_tables(tables, tmp_path, moment, patients):
    out = tmp_path / "ehr"
    write_tables(made_tables(patients=30), out, shards=3)
    (out / "notes").mkdir()
    for note in ("notes/of-mine.txt", "visits/README"):
        (out / note).write_text("mine")
    end_in(moment, out)
    assert (tmp_path / ".ehr.new").is_dir()
    if patients:
        assert read_tables(out).patients.height == patients
    with pytest.raises(ValueError, match="must be at least 1"):
        write_tables(tables, out, shards=0)
    # The next writer removes what was left behind, even where it fails itself, and brings back what was there.
    with pytest.raises(ZeroDivisionError), new_folder(out):
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["ehr"]
    assert read_tables(out).patients.height == (patients or 30)
    write_tables(tables, out, shards=2)
    same(read_tables(out), tables)
    assert [(out / note).read_text() for note in ("notes/of-mine.txt", "visits/README")] == ["mine", "mine"]


@pytest.mark.parametrize("exchange", [True, False])
def test_files_of_others_stay_and_those_of_the_earlier_set_go(tables, tmp_path, monkeypatch, exchange):
    if not exchange:
        monkeypatch.setattr(replaced_folder, "_exchanged", lambda *folders: False)
    out = tmp_path / "ehr"
    write_tables(tables, out)
    (out / "ledger.json").write_text("{}")
    for mine in ("mine.txt", "notes.partial", ".notes.7.partial", "visits/notes.partial"):
        (out / mine).write_text("mine")
    for killed in (".ledger.json.7.partial", "visits/.shard-00000-of-00001.parquet.7.partial"):
        (out / killed).write_text("half")
    out.chmod(0o750)
    link = tmp_path / "link"
    link.symlink_to(out)
    write_tables(dataclasses.replace(tables, measurements=None), link)
    assert sorted(path.name for path in out.iterdir()) == [
        ".notes.7.partial", "diagnoses", "medications", "mine.txt", "notes.partial", "patients", "source.json", "visits"
    ]  # fmt: skip
    assert sorted(path.name for path in (out / "visits").iterdir()) == ["notes.partial", "shard-00000-of-00001.parquet"]
    assert link.is_symlink() and out.stat().st_mode & 0o777 == 0o750
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ehr", "link"]


def test_one_writer_at_a_time(tables, tmp_path):
    out = tmp_path / "ehr"
    with new_folder(out) as new:
        record = write_shard(tables, new, 0, 1)
        with pytest.raises(BlockingIOError, match=r"one writer at a time: got .*ehr, which another run is"):
            write_tables(tables, out)
        seal(new, tables.source, [record])
        assert not out.exists()
    same(read_tables(out), tables)


def test_a_file_or_a_mount_point_is_no_place_for_tables(tables, tmp_path):
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(OSError, match=r"must have a folder.*: got .*file, a file; name another"):
        write_tables(tables, tmp_path / "file")
    with pytest.raises(OSError, match="got /, a mount point; name a folder in it"):
        write_tables(tables, "/")
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_missing_empty_and_foreign_folders(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"holds source\.json, written last: got .*nowhere, which is no folder; make"
    ):
        read_source(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="which is empty and is foreign or unfinished; write"):
        read_tables(tmp_path)
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(FileNotFoundError, match=r"which holds holiday\.jpg"):
        read_shard(tmp_path, 0)
    for content in (b"{", b"[]", b'{"written_as": "other"}', b"\xff\xfe"):
        (tmp_path / "source.json").write_bytes(content)
        with pytest.raises(ValueError, match="damaged or of another program; write"):
            read_source(tmp_path)


def test_another_version_is_named(tables, tmp_path):
    write_tables(tables, tmp_path)
    record = json.loads((tmp_path / "source.json").read_text())
    (tmp_path / "source.json").write_text(json.dumps({**record, "written_as": "medbert_jax EHR tables, version 9"}))
    with pytest.raises(ValueError, match=r"version 2.*: got .*version 9"):
        read_source(tmp_path)


def test_every_fault_of_a_folder_is_listed_at_once(tables, tmp_path):
    write_tables(tables, tmp_path, shards=2)
    visits, diagnoses = (f"{name}/shard-0000{{}}-of-00002.parquet" for name in ("visits", "diagnoses"))
    frame = pl.read_parquet(tmp_path / visits.format(0))
    frame.drop("order").with_columns(pl.col("length_of_stay").cast(pl.Int64), extra=1).write_parquet(
        tmp_path / visits.format(0)
    )
    (tmp_path / visits.format(1)).unlink()
    path = tmp_path / diagnoses.format(0)
    path.write_bytes(path.read_bytes()[:-40])
    (tmp_path / "patients/shard-00000-of-00007.parquet").write_bytes(b"stray")
    with pytest.raises(ValueError) as caught:
        read_tables(tmp_path)
    lines = str(caught.value).splitlines()
    assert lines[0] == "EHR tables must be as source.json describes them: got 8 fault(s):"
    assert [line.removeprefix("  - ") for line in lines[1:-1]] == [
        "patients/shard-00000-of-00007.parquet: is not one of the files that source.json lists",
        f"{visits.format(0)}: column order is missing",
        f"{visits.format(0)}: column extra is not in the schema",
        f"{visits.format(0)}: column length_of_stay must be Int32, is Int64",
        f"{visits.format(0)}: not the file that was written (sha256 differs)",
        f"{visits.format(1)}: is missing",
        f"{diagnoses.format(0)}: truncated, damaged or no Parquet file",
        f"{diagnoses.format(0)}: not the file that was written (sha256 differs)",
    ]
    assert lines[-1] == "write the tables again from their source with `medbert ingest`"


def test_no_flipped_bit_is_read_as_data(tmp_path):
    write_tables(made_tables(patients=20), tmp_path)
    rng = np.random.default_rng(0)
    files = sorted(tmp_path.glob("*/*.parquet"))
    for _ in range(100):
        path = files[rng.integers(len(files))]
        good = path.read_bytes()
        bad = bytearray(good)
        bad[rng.integers(len(bad))] ^= 1 << rng.integers(8)
        path.write_bytes(bad)
        with pytest.raises(ValueError, match="sha256 differs"):
            read_tables(tmp_path)
        path.write_bytes(good)
    read_tables(tmp_path)


def test_made_tables_have_no_fault(tables):
    assert check_tables(tables) == []


FIRST = pl.int_range(pl.len()) == 0
FAULTS = [
    ("patients", pl.col("patient_id").first(), "patients: patient_id is there more than once (120 rows)"),
    ("patients", pl.lit("Female").alias("sex"), "patients: sex is none of female, male, null (120 rows)"),
    ("visits", pl.lit("v").alias("visit_id"), "visits: visit_id is there more than once ("),
    ("visits", pl.col("order") - 1, "visits: order is not 1, 2, 3 … within the patient ("),
    ("visits", pl.lit("Home").alias("discharge_disposition"), "visits: discharge_disposition is none of home,"),
    (
        "visits",
        pl.when(FIRST).then(pl.lit("nobody")).otherwise("patient_id").alias("patient_id"),
        "visits: patient_id is not in patients (1 rows)",
    ),
    ("diagnoses", pl.when(~FIRST).then("code").alias("code"), "diagnoses: rows without a code (1 rows)"),
    (
        "diagnoses",
        pl.when(FIRST).then(pl.lit(" ")).otherwise("code").alias("code"),
        "diagnoses: code is empty or has blanks around it (1 rows)",
    ),
    ("diagnoses", pl.col("code") + "\t", "diagnoses: code holds a tab or a line break ("),
    ("diagnoses", pl.col("code_system") + "/", "diagnoses: code_system is empty or holds a slash or a blank ("),
    (
        "diagnoses",
        pl.when(FIRST).then(pl.lit("v")).otherwise("visit_id").alias("visit_id"),
        "diagnoses: the patient has no such visit (1 rows)",
    ),
    ("measurements", pl.lit(float("nan")).alias("value"), "measurements: value is NaN (unknown is null) ("),
    ("visits", pl.col("order").cast(pl.Int64), "visits: column order must be Int32, is Int64"),
]


@pytest.mark.parametrize(("name", "column", "fault"), FAULTS, ids=[fault[2][:40] for fault in FAULTS])
def test_a_fault_of_the_tables_is_named_and_nothing_is_written(tables, tmp_path, name, column, fault):
    wrong = changed(tables, name, column)
    assert any(each.startswith(fault) for each in check_tables(wrong))
    with pytest.raises(ValueError, match="EHR tables must follow the schema: got ") as caught:
        write_tables(wrong, tmp_path / "ehr")
    assert "made-0" not in str(caught.value)
    assert not (tmp_path / "ehr").exists()


def test_more_faults_of_the_tables(tables, tmp_path):
    assert check_tables(dataclasses.replace(tables, visits=None)) == ["visits: the table is missing"]
    undated = dataclasses.replace(tables, source=dataclasses.replace(tables.source, has_dates=False))
    told = "visits: a time is given although source.json says that there are no dates ("
    assert [fault.startswith(told) for fault in check_tables(undated)] == [True]
    no_visit = changed(tables, "diagnoses", pl.when(~FIRST).then("visit_id").alias("visit_id"))
    assert check_tables(no_visit) == ["diagnoses: the patient has no such visit (1 rows)"]
    of_none = changed(tables, "diagnoses", pl.lit("v").alias("visit_id"))  # rows that are alike are counted one by one
    assert check_tables(of_none) == [f"diagnoses: the patient has no such visit ({tables.diagnoses.height:,} rows)"]
    empty = dataclasses.replace(tables, **{name: table.clear() for name, table in tables.present().items()})
    assert check_tables(empty) == []  # a shard may be
    with pytest.raises(ValueError, match="patients: the table is empty") as refused:
        write_tables(empty, tmp_path)
    assert str(refused.value).count("the table is empty") == 3
    several = changed(tables, "visits", pl.col("order").cast(pl.Int64))
    several = dataclasses.replace(several, patients=several.patients.drop("race", "sex"))
    assert len(check_tables(several)) == 3


def test_shards_at_least_one(tables, tmp_path):
    with pytest.raises(ValueError, match="shards must be at least 1: got 0; use 1"):
        write_tables(tables, tmp_path, shards=0)


def test_columns_in_any_order_are_written_in_the_schemas(tables, tmp_path):
    write_tables(dataclasses.replace(tables, visits=tables.visits.select(reversed(tables.visits.columns))), tmp_path)
    assert read_tables(tmp_path).visits.columns == list(SCHEMAS["visits"])


def test_importing_tables_and_readers_imports_no_jax():
    modules = "ehr.tables, ehr.hashing, attrition.ledger, ehr.codes, ingest.readers.diabetes130"
    names = ", ".join(f"medbert_jax.{name}" for name in modules.split(", "))
    code = f"import {names}; import sys; sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_tables_of_version_1_are_read_with_what_came_later_unknown(tables, tmp_path):
    write_tables(tables, tmp_path)
    record = json.loads((tmp_path / "source.json").read_bytes())
    for name, columns in ADDED.items():
        path = f"{name}/shard-00000-of-00001.parquet"
        pl.read_parquet(tmp_path / path).drop(columns).write_parquet(tmp_path / path)
        record["files"][path] = hashlib.sha256((tmp_path / path).read_bytes()).hexdigest()
    record["written_as"] = record["written_as"].replace("version 2", "version 1")
    (tmp_path / "source.json").write_text(json.dumps(record))
    old = read_tables(tmp_path)
    assert check_tables(old) == [] and old.diagnoses["time"].is_null().all()
    for name, columns in ADDED.items():
        assert_frame_equal(
            old.present()[name].drop(columns), tables.present()[name].drop(columns), check_row_order=False
        )
    assert not validate(tmp_path).failed


def test_an_optional_table_without_rows_is_not_there(tmp_path):
    """It would be taken for one that says that nothing ever happened."""
    tables = made_tables()
    there = write_tables(dataclasses.replace(tables, medications=None), tmp_path / "absent", shards=2)
    empty = dataclasses.replace(tables, medications=pl.DataFrame(schema=SCHEMAS["medications"]))
    assert write_tables(empty, tmp_path / "empty", shards=2).content_hash == there.content_hash
    assert read_tables(tmp_path / "empty").medications is None
    assert not (tmp_path / "empty/medications").exists()
