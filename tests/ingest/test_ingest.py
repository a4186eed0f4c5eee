"""The engine: its processes, what it leaves when it ends early, lookups, faults that show when shards are built."""

import dataclasses
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from sources.made_sources import canaries, parquet, write_source

import medbert_jax.ingest.ingest as engine
from medbert_jax.attrition.ledger import Ledger
from medbert_jax.ehr.tables import read_source, read_tables
from medbert_jax.ehr.workers import Workers
from medbert_jax.ingest import building, scattering
from medbert_jax.ingest.ingest import ingest
from medbert_jax.ingest.readers.omop import OMOP
from medbert_jax.ingest.source_files import SourceError
from medbert_jax.quality.report import validate

TESTS = Path(__file__).parents[1]
both = pytest.mark.parametrize("workers", [1, 2])


def quiet(text):
    """Say nothing."""


def digests(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def read(source, out, **more):
    return ingest(source, out, **{"format": "omop", "shards": 3, "workers": 1, "announce": quiet, **more})


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_source("omop-parquet", tmp_path_factory.mktemp("omop"))[0]


@pytest.fixture(scope="module")
def tables(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("read") / "ehr"
    read(source, out)
    return out


def typed(file, column, expression):
    """A change of one Parquet file: a column as `expression` of it."""

    def change(content):
        frame = pl.read_parquet(io.BytesIO(content[file]))
        content[file] = parquet(frame.with_columns(expression(pl.col(column)).alias(column)))

    return change


def utc(column):
    return column.dt.replace_time_zone("UTC")


def truth(column):
    return column.is_not_null()


def lists(column):
    return pl.concat_list(column, column)


FIRST, SECOND = "part-00000.parquet", "part-00001.parquet"
UNLIKE = r"visit_occurrence: \[wrong_type\] column {} is of another type in one file than in another; export it with"
WRONG = [
    (f"VISIT_OCCURRENCE/{SECOND}", "VISIT_START_DATETIME", utc, UNLIKE.format("visit_start_datetime")),
    (f"VISIT_OCCURRENCE/{FIRST}", "VISIT_END_DATE", truth,
     r"VISIT_OCCURRENCE/part-00000.parquet: \[wrong_type\] column visit_end_date holds Boolean, no dates or times"),
    (f"VISIT_OCCURRENCE/{SECOND}", "VISIT_CONCEPT_ID", lists, r"VISIT_OCCURRENCE/part-00001.parquet: \[wrong_type\]"),
    (f"CONCEPT/{SECOND}", "CONCEPT_ID", lists, r"CONCEPT/part-00001.parquet: \[wrong_type\] column concept_id"),
    (f"PERSON/{FIRST}", "YEAR_OF_BIRTH", lists, r"person: \[wrong_type\] column year_of_birth"),
]  # fmt: skip


@both
@pytest.mark.parametrize(
    ("file", "column", "expression", "message"), WRONG, ids=["utc", "boolean", "id", "key", "list"]
)
def test_columns_of_unlike_types_are_refused_without_their_cells(tmp_path, workers, file, column, expression, message):
    source, _ = write_source("omop-parquet", tmp_path / "source", None, typed(file, column, expression))
    with pytest.raises(SourceError, match=message) as refused:
        read(source, tmp_path / "ehr", workers=workers)
    said = str(refused.value)
    assert not [word for word in canaries() if word in said] and refused.value.__cause__ is None
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@both
def test_a_column_of_a_type_that_no_reader_expects(tmp_path, workers):
    def change(content):
        for part in (FIRST, SECOND):
            typed(f"PERSON/{part}", "YEAR_OF_BIRTH", lists)(content)

    source, _ = write_source("omop-parquet", tmp_path / "source", None, change)
    with pytest.raises(SourceError, match=r"- person: \[wrong_type\] column year_of_birth holds List"):
        read(source, tmp_path / "ehr", workers=workers)


def test_the_words_of_the_library_are_not_passed_on(source, tmp_path, monkeypatch):
    def refuse(*args, **more):
        raise pl.exceptions.InvalidOperationError("conversion failed for 77310002")

    monkeypatch.setattr(building, "assemble", refuse)
    with pytest.raises(SourceError, match=r"\[wrong_type\]") as refused:
        read(source, tmp_path / "ehr")
    assert "77310002" not in str(refused.value) and refused.value.__context__ is None


@both
def test_a_reader_may_refuse_in_any_process(tmp_path, workers):
    claims = ("inpatient", "outpatient")

    def without_claims(content):
        for name in [name for name in content if any(part in name.lower() for part in claims)]:
            del content[name]

    source, _ = write_source("desynpuf-csv", tmp_path / "source", None, without_claims)
    with pytest.raises(SourceError, match=r"\[missing_file\]"):
        read(source, tmp_path / "ehr", format="desynpuf", workers=workers)


# ── what is there before and after ────────────────────────────────────────────────────────────────────────────────────


@both
def test_a_refused_source_leaves_the_earlier_tables(source, tmp_path, workers):
    out = tmp_path / "ehr"
    read(source, out)
    before = digests(out)
    for number, (file, column, expression, _) in enumerate(WRONG[:1]):
        bad, _ = write_source("omop-parquet", tmp_path / f"bad{number}", None, typed(file, column, expression))
        with pytest.raises(SourceError):
            read(bad, out, workers=workers, shards=5)
    empty, _ = write_source("omop-parquet", tmp_path / "empty", lambda raw: raw.update(person=raw["person"].clear()))
    with pytest.raises(SourceError, match="empty_table"):
        read(empty, out, workers=workers)
    assert digests(out) == before
    assert not list(tmp_path.glob(".*"))
    read(source, out, workers=workers, shards=2)  # another number of shards: nothing of the earlier set stays
    assert read_source(out).shards == 2 and not list(out.rglob("*-of-00003.parquet"))


def test_workers_change_no_byte(source, tables, tmp_path):
    read(source, tmp_path / "ehr", workers=2)
    assert digests(tmp_path / "ehr") == digests(tables)


def test_a_second_ingest_into_one_folder_is_refused(source, tables, tmp_path):
    refusals = []

    def meanwhile(text):
        with pytest.raises(BlockingIOError) as refused:
            read(source, tmp_path / "ehr")
        refusals.append(str(refused.value))

    read(source, tmp_path / "ehr", announce=meanwhile)
    assert len(refusals) > 3 and digests(tmp_path / "ehr") == digests(tables)
    assert refusals[0] == (
        f"a folder that is replaced as a whole has one writer at a time: got {tmp_path / 'ehr'}, which another run is"
        " writing; wait for it, stop it, or name another folder"
    )


KILLED = """
import multiprocessing, os, signal
from medbert_jax.ingest.ingest import ingest
def kill(text):
    if text.startswith({at!r}):
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
if __name__ == "__main__":
    ingest({source!r}, {out!r}, format="omop", shards=8, workers={workers}, announce=kill)
"""


def alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc for the workers")
@pytest.mark.parametrize(("workers", "at"), [(1, "built shard 2/"), (2, "read file 1/"), (2, "built shard 2/")])
def test_a_killed_run_leaves_no_process_no_mixture_and_no_rest(source, tables, tmp_path, workers, at):
    out, script = tmp_path / "ehr", tmp_path / "script.py"
    read(source, out)
    script.write_text(KILLED.format(at=at, source=str(source), out=str(out), workers=workers))
    killed = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(TESTS.parent)},
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    processes, until = killed.stdout.split(), time.monotonic() + 10
    assert len(processes) >= workers * (workers > 1)
    while any(map(alive, processes)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(alive, processes))
    assert digests(out) == digests(tables)
    assert list((tmp_path / ".ehr.new").glob("*/scattered"))
    read(source, out, workers=workers)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ehr", "script.py"]
    assert digests(out) == digests(tables)


# ── processes ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_cores_are_those_that_may_be_used_and_polars_shares_them(monkeypatch):
    threads, process = "__import__('polars').thread_pool_size()", "__import__('os').getpid()"
    monkeypatch.delenv("POLARS_MAX_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {4})
    with Workers() as each:
        assert list(each(eval, [process] * 3)) == [os.getpid()] * 3
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(6)))
    with Workers(2) as each:
        assert list(each(eval, [threads] * 2)) == [3, 3]
        assert os.getpid() not in each(eval, [process] * 2)
    assert "POLARS_MAX_THREADS" not in os.environ
    monkeypatch.setenv("POLARS_MAX_THREADS", "5")
    with Workers(3) as each:
        assert list(each(eval, [threads] * 3)) == [5, 5, 5]


def test_a_worker_that_dies_is_told_with_what_to_do(source, tmp_path, monkeypatch):
    # What is called in the processes with the number of a file ends them.
    monkeypatch.setattr(engine.functools, "partial", lambda function, *given: os._exit)
    message = r"workers must live until .*: got one that ended with exit code.*; what it said.*mend that"
    with pytest.raises(ChildProcessError, match=message):
        read(source, tmp_path / "ehr", workers=2)
    assert list(tmp_path.iterdir()) == []


# ── lookups, and what is said of all shards ───────────────────────────────────────────────────────────────────────────


def spied(monkeypatch, change=lambda rough, raw: rough, **concept):
    """OMOP, telling of every shard how many concepts it got."""
    heights = []

    def build(raw, options):
        heights.append(raw["concept"].height)
        return change(OMOP.build(raw, options), raw)

    tables = [dataclasses.replace(table, **concept) if table.name == "concept" else table for table in OMOP.tables]
    reader = dataclasses.replace(OMOP, tables=tuple(tables), build=build)
    for module in (engine, scattering, building):
        monkeypatch.setattr(module, "get_reader", lambda format: reader)
    return heights


def more_concepts(raw):
    """Ten thousand that nothing names."""
    concept = raw["concept"]
    others = concept[:1].select(pl.all().repeat_by(10_000).explode())
    numbers = pl.int_range(900_000, 910_000).cast(concept.schema["concept_id"])
    raw["concept"] = pl.concat([others.with_columns(concept_id=numbers), concept])


@pytest.mark.parametrize("kind", ["omop-csv", "omop-parquet"])
def test_a_shard_gets_the_rows_of_a_lookup_that_are_named(tmp_path, monkeypatch, kind):
    source, _ = write_source(kind, tmp_path / "source", more_concepts)
    monkeypatch.setattr(engine, "SHARD_BYTES", 500_000)  # the CSV lookup alone would make two shards
    whole = spied(monkeypatch, key="")
    read(source, tmp_path / "whole", shards=0)
    reduced = spied(monkeypatch)
    read(source, tmp_path / "reduced", shards=0)
    assert len(whole) == len(reduced) == 1
    assert whole[0] > 10_000 and 40 < reduced[0] < 150
    assert digests(tmp_path / "whole") == digests(tmp_path / "reduced")
    monkeypatch.undo()
    read(source, tmp_path / "two", shards=1, workers=2)
    assert digests(tmp_path / "two") == digests(tmp_path / "whole")
    # Planted: rows that are named must not go.
    monkeypatch.setattr(scattering, "_ids", lambda values, file=None: values.cast(pl.String) + ("x" if file else ""))
    with pytest.raises(ValueError, match=r"diagnoses: \[empty_table\] all \d+ rows left: unnamed_system \d+ \("):
        read(source, tmp_path / "none", shards=1)


def test_an_empty_result_says_by_itself_where_all_have_gone(tmp_path):
    """Nothing is written, so nothing can be looked up."""

    def change(raw):
        # One that is a date, of long ago: a column without any is refused before.
        day = (
            pl.when(pl.col("visit_occurrence_id") == "88420111")
            .then(pl.lit("1805-03-20"))
            .otherwise(pl.lit("05/03/2011"))
        )
        start = [day.alias(f"visit_start_{end}") for end in ("date", "datetime")]
        raw["visit_occurrence"] = raw["visit_occurrence"].with_columns(start)

    source, _ = write_source("omop-csv", tmp_path / "source", change)
    with pytest.raises(ValueError, match="nothing was written") as refused:
        read(source, tmp_path / "ehr")
    said = str(refused.value)
    for part in (
        "visits: [empty_table] all 17 rows left: no_admission 16 (Visits without a readable admission time), "
        "implausible_time 1 (",
        "diagnoses: [empty_table] all 34 rows left: no_admission 34",
        "visit_start_date 16, visit_start_datetime 16",
    ):
        assert part in said, said
    assert "patients:" not in said and "ledger.json" not in said and not (tmp_path / "ehr").exists()


def test_visit_ids_that_two_patients_share_are_counted(tmp_path):
    def change(raw):
        of_another = pl.col("visit_occurrence_id").replace("88420111", "88420021")
        raw["visit_occurrence"] = raw["visit_occurrence"].with_columns(of_another)

    for name, alter, shared in (("sound", None, 0), ("shared", change, 2)):
        source, _ = write_source("omop-csv", tmp_path / name, alter)
        said = []
        read(source, tmp_path / f"ehr-{name}", announce=said.append)
        assert json.loads((tmp_path / f"ehr-{name}" / "ledger.json").read_text())["shared_visit_ids"] == shared
        assert any("[shared_visit_id] 2 visits" in line for line in said) == bool(shared)
        found = {line.rule: line.rows for line in validate(tmp_path / f"ehr-{name}").lines}
        assert found.get("shared_visit_id", 0) == shared


def test_ids_of_unlike_types_compare():
    large = 2**53 + 1
    for values in ([7, large, None], ["7", f" {large} ", None], [" 007", str(large), ""]):
        assert scattering._ids(pl.Series(values)).to_list() == ["7", str(large), None]
    assert scattering._ids(pl.Series(["A7 ", "7.5"])).to_list() == ["A7", "7.5"]


def test_shards_without_patients_say_nothing_of_the_source(source, tmp_path, monkeypatch):
    def change(rough, raw):
        empty = raw["person"].is_empty()
        said = ("Only an empty shard says this.",) if empty else rough.assumptions
        return dataclasses.replace(rough, age_precision="unknown" if empty else "day", assumptions=said)

    spied(monkeypatch, change)
    for shards in (1, 12):
        read(source, tmp_path / "ehr", shards=shards)
        told = read_source(tmp_path / "ehr")
        assert told.age_precision == "day"
        assert "Only an empty shard says this." not in told.assumptions


def test_the_ledger_of_every_shard_is_kept(source, tables, tmp_path):
    for name in ("ledger", "events_ledger"):
        record = json.loads((tables / f"{name}.json").read_text(encoding="utf-8"))
        parts = [Ledger.from_dict(part) for part in record["by_shard"]]
        assert len(parts) == 3
        assert parts[0].merge(parts[1]).merge(parts[2]).to_dict() == Ledger.from_dict(record).to_dict()
    counts = [pl.read_parquet(tables / f"patients/shard-{shard:05d}-of-00003.parquet").height for shard in range(3)]
    parts = json.loads((tables / "ledger.json").read_text(encoding="utf-8"))["by_shard"]
    assert [part["kept"]["patients"] for part in parts] == counts


def test_what_was_just_written_has_no_file_that_is_not_of_it(tables):
    assert [line for line in validate(tables).lines if line.unit != "rows"] == []


def test_cells_of_which_nothing_can_be_made_are_counted(tmp_path):
    """A discharge that is no time and a place before the first are unknown, and said to be so."""

    def change(raw):
        admissions, diagnoses = raw["admissions"], raw["diagnoses_icd"]
        late = pl.col("hadm_id") == admissions["hadm_id"][0]
        raw["admissions"] = admissions.with_columns(
            dischtime=pl.when(late).then(pl.lit("05/07/2180 17:15")).otherwise(pl.col("dischtime").cast(pl.String))
        )
        first = pl.int_range(pl.len()) < 2
        raw["diagnoses_icd"] = diagnoses.with_columns(seq_num=pl.when(first).then(0).otherwise("seq_num"))

    source, _ = write_source("mimic-iv", tmp_path / "source", change)
    said = []
    ingest(source, tmp_path / "ehr", format="mimic-iv", shards=2, workers=1, announce=said.append)
    assert json.loads((tmp_path / "ehr" / "ledger.json").read_text())["unreadable_cells"] == {
        "dischtime": 1,
        "priority": 2,
    }
    assert "unknown now, because nothing could be made of what is written there: dischtime 1, priority 2" in said
    assert read_tables(tmp_path / "ehr").visits["discharge_time"].null_count() == 1
