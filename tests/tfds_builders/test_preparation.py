"""The way to a dataset: the same bytes by any workers, tasks, order, kill and damage; splits and vocabularies given."""

import contextlib
import functools
import hashlib
import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from made_ehr import made_tables
from prepared_datasets import prepare_cohort, prepare_pretraining

import tfds_builders.preparation as preparation
import tfds_builders.shards as shards
from medbert_jax.attrition.ledger import Ledger
from medbert_jax.data.token_store import open_token_store, read_metadata
from medbert_jax.data.vocabulary import UNK, Vocabulary
from medbert_jax.ehr.hashing import SPLITS, assign_split
from medbert_jax.ehr.shard_files import SPLITS_FILE
from medbert_jax.ehr.tables import read_shard, read_tables, write_tables
from tfds_builders.work_folder import WorkFolder, write_columns

CHECKOUT = Path(__file__).parents[2]
SHARDS = 3


def quiet(text):
    """Say nothing."""


def digests(directory):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir() if path.is_file()}


@pytest.fixture(scope="module")
def ehr(tmp_path_factory):
    directory = tmp_path_factory.mktemp("source") / "ehr"
    write_tables(made_tables(400, seed=17), directory, shards=SHARDS)
    return directory


@pytest.fixture(scope="module")
def prepare(ehr):
    return functools.partial(prepare_pretraining, ehr, "made", announce=quiet)


@pytest.fixture(scope="module")
def dataset(prepare, tmp_path_factory):
    """Made by one worker."""
    return prepare(data_dir=tmp_path_factory.mktemp("data"), workers=1)


@pytest.fixture(scope="module")
def expected(dataset):
    return digests(dataset)


@pytest.fixture(scope="module")
def prepare_hf(ehr, dataset):
    """Prepare a cohort with the dataset's vocabulary and splits."""
    return functools.partial(
        prepare_cohort, ehr, "hf-later", "hf", pretraining_dataset=dataset, few_cases=True, announce=quiet
    )


@pytest.fixture(scope="module")
def cohort(prepare_hf, tmp_path_factory):
    return prepare_hf(data_dir=tmp_path_factory.mktemp("cohorts"), workers=1)


def work_of(data):
    """The work folder of the dataset in the making, which does not show under its final name."""
    (folder,) = data.glob("*/[!.]*")  # beside it the lock stays
    (work,) = folder.iterdir()
    assert work.name.startswith("1.0.0.work-")
    return work


def done(data):
    """The markers in it."""
    return {path.relative_to(work_of(data)).as_posix() for path in work_of(data).glob("*/*.done")}


# ── the same bytes ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("workers", [2, 8])
def test_any_number_of_workers_writes_the_same_bytes(prepare, expected, tmp_path, workers):
    assert digests(prepare(data_dir=tmp_path, workers=workers)) == expected
    assert [path.name for path in (tmp_path / "ehr_pretraining" / "made").iterdir()] == ["1.0.0"]


def test_tasks_in_any_order_and_a_merge_write_the_same_bytes(prepare, expected, tmp_path):
    said = []
    for task in (1, 0):
        assert prepare(data_dir=tmp_path, shard=f"{task}/2", announce=said.append) is None
        assert not list(tmp_path.rglob("1.0.0"))
    assert said[1:2] == ["1 of 3 shards are serialized; give the command again when all are"]
    # The last task of the first job found all serialized, and wrote its own.
    assert {marker for marker in done(tmp_path) if "written" in marker} != set()
    assert prepare(data_dir=tmp_path, shard="1/2", announce=said.append) is None
    assert len(done(tmp_path)) == 2 * SHARDS
    said.clear()
    assert digests(prepare(data_dir=tmp_path, announce=said.append)) == expected
    known = "codes unknown to the vocabulary: train 0.0%, validation 0.0%, test 0.0%"
    assert said == ["serialized before: 3 of 3 shards", known, "written before: 3 of 3 shards"]
    assert [path.name for path in (tmp_path / "ehr_pretraining" / "made").iterdir()] == ["1.0.0"]


def test_the_last_command_does_what_the_tasks_did_not(prepare, expected, tmp_path):
    prepare(data_dir=tmp_path, shard="2/3")
    assert done(tmp_path) == {"serialized/00002.done"}
    said = []
    assert digests(prepare(data_dir=tmp_path, announce=said.append)) == expected
    assert said[0] == "serialized before: 1 of 3 shards" and said[2].startswith("serialized shard 2/2:")


def test_two_at_once_make_one_dataset(prepare, expected, tmp_path):
    """The second waits for the first and finds its dataset."""
    said = {1: [], 2: []}
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(prepare, data_dir=tmp_path, announce=said[number].append) for number in said]
        made = [run.result(timeout=60) for run in runs]
    assert made[0] == made[1] and digests(made[0]) == expected
    first, second = sorted(said.values(), key=len, reverse=True)
    assert second[-1] == f"the dataset is there already: {made[0]}" and len(first) == 2 * SHARDS + 1
    assert second[:-2] in ([], [f"another process is making {made[0].parent}: waiting for it"])


def test_cohorts_go_the_same_way(prepare_hf, cohort, tmp_path):
    for task in ("1/2", "0/2", "1/2"):
        assert prepare_hf(data_dir=tmp_path, shard=task) is None
    assert digests(prepare_hf(data_dir=tmp_path)) == digests(cohort)


KILLED = """
import os, signal, sys
sys.path[:0] = [{checkout!r}, {checkout!r} + "/tests"]
from prepared_datasets import prepare_pretraining
def kill(text):
    if text.startswith({at!r}):
        os.kill(os.getpid(), signal.SIGKILL)
prepare_pretraining({ehr!r}, "made", data_dir={data!r}, workers=1, announce=kill)
"""


@pytest.mark.parametrize(("at", "markers"), [("serialized shard 2", 2), ("written shard 1", 4)])
def test_a_killed_run_goes_on_where_it_stopped(ehr, prepare, expected, tmp_path, at, markers):
    script = KILLED.format(checkout=str(CHECKOUT), at=at, ehr=str(ehr), data=str(tmp_path))
    killed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(done(tmp_path)) == markers
    said = []
    assert digests(prepare(data_dir=tmp_path, announce=said.append)) == expected
    assert any("before" in line for line in said)


def test_a_merge_that_is_interrupted_shows_nothing_and_is_mended(prepare, expected, tmp_path, monkeypatch):
    template = preparation.PatientSequencesBuilder._get_filename_template

    def interrupted(builder, split):
        if split == "test":
            raise KeyboardInterrupt
        return template(builder, split)

    with monkeypatch.context() as patched:
        patched.setattr(preparation.PatientSequencesBuilder, "_get_filename_template", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(data_dir=tmp_path)
    assert not list(tmp_path.rglob("1.0.0"))
    # What was moved into the dataset is gone with it: its markers hold no longer.
    said = []
    assert digests(prepare(data_dir=tmp_path, announce=said.append)) == expected
    assert said[0] == "serialized before: 3 of 3 shards" and said[2].startswith("written shard 1/3")


@pytest.mark.parametrize(
    ("file", "redone"),
    [
        ("serialized/00001.sequences", {"serialized"}),
        ("serialized/00001.counts", {"serialized"}),
        ("serialized/00001.occurrences", {"serialized"}),
        ("serialized/00001.patients", {"serialized"}),
        ("serialized/00001.done", {"serialized"}),
        ("written-*/00001.train", {"written"}),
        ("written-*/00001.done", {"written"}),
    ],
)
def test_damage_is_seen_and_made_anew(prepare, expected, tmp_path, file, redone):
    for _ in range(2):
        prepare(data_dir=tmp_path, shard="0/1")
    (path,) = work_of(tmp_path).glob(file)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    said = []
    assert digests(prepare(data_dir=tmp_path, announce=said.append)) == expected
    assert {line.split()[0] for line in said if " shard 1/1:" in line} == redone


def test_other_settings_are_other_work(prepare, expected, tmp_path):
    prepare(data_dir=tmp_path, shard="0/1", split_key="another")
    name, said = work_of(tmp_path).name, []
    assert digests(prepare(data_dir=tmp_path, announce=said.append)) == expected
    assert [path.name for path in (tmp_path / "ehr_pretraining" / "made").iterdir()] == ["1.0.0"]
    assert said[-1] == f"removed what unfinished runs left in {tmp_path / 'ehr_pretraining' / 'made'}: {name}"


def test_work_in_which_a_task_is_busy_is_not_removed(prepare, dataset, tmp_path):
    folder = tmp_path / "ehr_pretraining" / "made"
    busy, said = WorkFolder(folder / "1.0.0.work-of-a-task"), []
    with busy.in_use():
        prepare(data_dir=tmp_path, announce=said.append)
        assert sorted(path.name for path in folder.iterdir()) == ["1.0.0", busy.path.name]
    # Taking what is there removes it too.
    prepare(data_dir=tmp_path, announce=said.append)
    assert [path.name for path in folder.iterdir()] == ["1.0.0"]
    assert [line for line in said if "unfinished" in line] == [said[-1]]


# ── EHR tables that change ────────────────────────────────────────────────────────────────────────────────────────────


def rewritten(tables, directory, shards):
    """Tables that take the place of others in one step, as those of `medbert ingest`."""
    write_tables(tables, directory, shards=shards)
    return directory


def test_work_on_the_same_rows_in_other_shards_is_other_work(ehr, tmp_path):
    tables, source = read_tables(ehr), tmp_path / "ehr"
    settings = {"data_dir": tmp_path, "announce": quiet}
    prepare_pretraining(rewritten(tables, source, 4), "made", shard="0/4", **settings)
    made = prepare_pretraining(rewritten(tables, source, 2), "made", **settings)
    fresh = prepare_pretraining(source, "made", **settings | {"data_dir": tmp_path / "fresh"})
    assert digests(made) == digests(fresh)
    assert json.loads((made / "ledger.json").read_text())["came"]["patients"] == 400


def test_rows_that_no_ledger_has_are_refused(prepare, tmp_path, monkeypatch):
    def without_one(directory, shard):
        tables = read_shard(directory, shard)
        return replace(tables, patients=tables.patients.tail(-1)) if shard == 1 else tables

    monkeypatch.setattr(shards, "read_shard", without_one)
    with pytest.raises(
        ValueError, match=r"ledger, difference 0: got Counts\(patients=399,.* and Counts\(patients=400,"
    ):
        prepare(data_dir=tmp_path)
    monkeypatch.undo()
    prepare(data_dir=tmp_path)  # what was wrong is gone


@pytest.mark.parametrize("shards_then", [SHARDS, 1])
def test_tables_that_are_replaced_meanwhile_stop_the_run(ehr, tmp_path, shards_then):
    source = rewritten(read_tables(ehr), tmp_path / "ehr", SHARDS)
    other = made_tables(390, seed=18)

    def replace_it(text):
        if text.startswith("serialized shard 1/3"):
            rewritten(other, source, shards_then)

    with pytest.raises(ValueError, match=r"must stay as they are .*: got content hash \w+ in \d shards in .*; give"):
        prepare_pretraining(source, "made", data_dir=tmp_path / "data", workers=1, announce=replace_it)
    assert done(tmp_path / "data") == {"serialized/00000.done"}
    made = prepare_pretraining(source, "made", data_dir=tmp_path / "data", announce=quiet)
    assert json.loads((made / "ledger.json").read_text())["came"]["patients"] == 390
    assert read_metadata(made)["source"]["content_hash"] == read_metadata(made)["recipe"]["ehr_content_hash"]


def test_tables_that_are_replaced_after_all_are_serialized_stop_the_run(ehr, tmp_path):
    source = rewritten(read_tables(ehr), tmp_path / "ehr", 1)

    def replace_it(text):
        if text.startswith("serialized shard 1/1"):
            rewritten(made_tables(390, seed=18), source, 1)

    with pytest.raises(ValueError, match="must stay as they are while a dataset is made"):
        prepare_pretraining(source, "made", data_dir=tmp_path, announce=replace_it)
    # The work is right under its marker: with the tables back it is gone on with.
    rewritten(read_tables(ehr), source, 1)
    said = []
    prepare_pretraining(source, "made", data_dir=tmp_path, announce=said.append)
    assert said[0] == "serialized before: 1 of 1 shards"


def test_work_that_was_put_there_from_elsewhere_is_refused(prepare, tmp_path):
    prepare(data_dir=tmp_path, shard="0/1")
    (marker,) = work_of(tmp_path).glob("serialized/00001.done")
    text = json.loads(marker.read_text().partition("\n")[2])
    text["note"]["ehr"][1] = 4
    text = json.dumps(text, sort_keys=True)
    marker.write_text(f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}")
    with pytest.raises(ValueError, match="must be of one set of EHR tables: got 1 of 3 of others; delete"):
        prepare(data_dir=tmp_path)


# ── disks, ledgers, hashes ────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def full_disk(limit):
    """Yield a function from whose call on no file may be larger: real errors of the system."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("at", "limit", "file", "markers"),
    [
        ("", 6000, "serialized/00000.sequences", 0),  # numpy says "… requested and … written"
        ("serialized shard 3", 3000, "00000.train", 3),  # ArrayRecord raises a RuntimeError
        ("written shard 3", 800, "", 6),  # TFDS
    ],
)
def test_a_full_disk_is_told_with_file_and_cure_and_what_was_done_stays(
    prepare, expected, tmp_path, at, limit, file, markers
):
    with full_disk(limit) as fill:

        def announce(text):
            if text.startswith(at):
                fill()

        if not at:
            fill()
        message = rf"must be written to disk whole: got '.*' for \S*{file}\S*, with .* GB free there; make room,"
        with pytest.raises(OSError, match=message):
            prepare(data_dir=tmp_path, workers=1, announce=announce)
    assert len(done(tmp_path)) == markers and not list(tmp_path.rglob("*.partial"))
    assert digests(prepare(data_dir=tmp_path)) == expected


def test_ledgers_are_kept_by_shard(dataset, cohort):
    for made in (dataset, cohort):
        record = json.loads((made / "ledger.json").read_text())
        parts = [Ledger.from_dict(part) for part in record["by_shard"]]
        assert len(parts) == SHARDS and functools.reduce(Ledger.merge, parts) == Ledger.from_dict(record)
        assert all(part.came.patients > 100 for part in parts)


def test_the_hash_of_a_dataset_is_of_its_content(ehr, prepare, dataset, tmp_path, monkeypatch):
    metadata = read_metadata(dataset)

    def prepared(name):
        return read_metadata(prepare(data_dir=tmp_path / name))

    assert prepared("same") == metadata
    with monkeypatch.context() as patched:
        patched.setattr(preparation, "_HASH_VERSION", preparation._HASH_VERSION + 1)
        other_code = prepared("code")
    with monkeypatch.context() as patched:
        order_histories = shards.order_histories

        def younger(*args, **kwargs):
            histories, *rest = order_histories(*args, **kwargs)
            return replace(histories, age_days=histories.age_days - 1), *rest

        patched.setattr(shards, "order_histories", younger)
        other_content = prepared("content")
    rewritten(read_tables(ehr), tmp_path / "ehr", 2)
    other_order = read_metadata(prepare_pretraining(tmp_path / "ehr", "made", data_dir=tmp_path, announce=quiet))
    made = [metadata, other_code, other_content, other_order]
    assert len({one["dataset_hash"] for one in made}) == 4
    assert all(
        (one["recipe"], one["vocabulary_hash"]) == (metadata["recipe"], metadata["vocabulary_hash"]) for one in made
    )


# ── a dataset that is there ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda made: next(made.glob("*-test.array_record-00001*")).unlink(),
            r"got 1 that .*-00001-of-00003 is missing",
        ),
        (lambda made: os.truncate(next(made.glob("*-train.array_record-00002*")), 99), "has 99 bytes and not "),
        (lambda made: (made / "vocabulary.tsv").unlink(), r"vocabulary\.tsv is missing"),
        (lambda made: (made / "features.json").unlink(), r"features\.json is missing"),
        (lambda made: (made / "dataset_info.json").write_text("{"), r"dataset_info\.json, which is missing or damaged"),
    ],
)
def test_a_dataset_that_is_not_whole_is_not_taken(prepare, dataset, tmp_path, damage, message):
    there = tmp_path / dataset.relative_to(dataset.parents[2])
    shutil.copytree(dataset, there)
    assert prepare(data_dir=tmp_path) == there
    damage(there)
    with pytest.raises(ValueError, match=rf"must all be there as they were written: .*{message}.*; copy them"):
        prepare(data_dir=tmp_path)


# ── Apache Beam ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_workers_elsewhere_are_given_whole_paths(ehr, tmp_path, monkeypatch):
    sent = []

    def send(function, numbers, *, options):
        sent.append(pickle.dumps(function))
        raise KeyboardInterrupt

    made = types.SimpleNamespace(in_beam=send, read_options=lambda options, ehr_bytes: options)
    monkeypatch.setitem(sys.modules, "tfds_builders.beam_pipeline", made)
    monkeypatch.chdir(ehr.parent)
    with pytest.raises(KeyboardInterrupt):
        prepare_pretraining(ehr.name, "made", data_dir=os.path.relpath(tmp_path), beam=("x=y",), announce=quiet)
    monkeypatch.chdir("/")
    assert pickle.loads(sent[0])(1) == 1
    assert done(tmp_path) == {"serialized/00001.done"}


def test_options_that_beam_does_not_have_are_refused(prepare, tmp_path):
    pytest.importorskip("apache_beam", reason="the extra `beam` is not installed")
    for options, message in {
        ("runer=FlinkRunner",): "must be Beam's: got runer; .*perhaps runner is meant",
        ("runner=FlinkRunner", "flink_mastr=a:1", "FlinkRunner"): "got FlinkRunner, flink_mastr;",
        ("",): "got '';",
        ("--runner=FlinkRunner",): "give them without dashes",
    }.items():
        with pytest.raises(ValueError, match=message):
            prepare(data_dir=tmp_path, beam=options)
    from tfds_builders.beam_pipeline import read_options

    right = ("runner=FlinkRunner", "flink_master=a:1", "parallelism=4", "streaming", "environment_type=LOOPBACK")
    assert read_options(right, ehr_bytes=2**40).get_all_options()["parallelism"] == 4


def test_beam_writes_the_same_bytes(prepare, prepare_hf, expected, cohort, tmp_path, monkeypatch):
    pytest.importorskip("apache_beam", reason="the extra `beam` is not installed")
    from tfds_builders import beam_pipeline

    here = ("runner=apache_beam.runners.direct.direct_runner.BundleBasedDirectRunner",)
    assert digests(prepare(data_dir=tmp_path, beam=here)) == expected
    assert digests(prepare_hf(data_dir=tmp_path, beam=here)) == digests(cohort)
    monkeypatch.setattr(beam_pipeline, "LOCAL_LIMIT", 2**10)
    with pytest.raises(ValueError, match=r"DirectRunner is for tests and takes at most .* runner=Dataflow"):
        prepare(data_dir=tmp_path / "large", beam=("direct_num_workers=1",))


def test_without_beam_it_is_asked_for(prepare, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    monkeypatch.delitem(sys.modules, "tfds_builders.beam_pipeline", raising=False)
    with pytest.raises(ValueError, match=r"pip install 'medbert-jax\[beam\]'"):
        prepare(data_dir=tmp_path, beam=("runner=FlinkRunner",))


def test_columns_come_back_with_their_dtypes_as_the_same_bytes(tmp_path):
    columns = {"a": np.array(["ä", "bb"]), "b": np.zeros(0, np.int8), "c": np.array([b"x"]), "d": np.array((), np.str_)}
    work = WorkFolder(tmp_path)
    for shard in (0, 1):
        work.seal("step", shard, {"columns": functools.partial(write_columns, columns=columns)}, {"n": shard})
    back = work.columns("step", 0, "columns")
    assert list(back) == list(columns)
    assert all(np.array_equal(back[name], columns[name]) and back[name].dtype == columns[name].dtype for name in back)
    assert work.file("step", 0, "columns").read_bytes() == work.file("step", 1, "columns").read_bytes()
    assert work.note("step", 1) == {"n": 1}
    work.file("step", 0, "columns").write_bytes(b"other")
    assert work.note("step", 0) is None and work.note("step", 0, verify=()) == {"n": 0}
    with pytest.raises(ValueError, match="must have the checksum of its marker: got another for columns of shard 0"):
        work.columns("step", 0, "columns")


# ── a vocabulary that was frozen ──────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def abroad(ehr, tmp_path_factory):
    """The tables of another database: part of the codes are of another system."""
    tables = read_tables(ehr)
    system = pl.when(pl.col("code_system") == "ICD9CM").then(pl.lit("ICD9GM")).otherwise("code_system")
    directory = tmp_path_factory.mktemp("abroad") / "ehr"
    write_tables(replace(tables, diagnoses=tables.diagnoses.with_columns(code_system=system)), directory, shards=2)
    return directory


def test_another_database_is_serialized_with_a_frozen_vocabulary(abroad, dataset, tmp_path):
    said, frozen = [], dataset / "vocabulary.tsv"
    settings = {"data_dir": tmp_path, "vocabulary": frozen, "announce": said.append}
    with pytest.raises(ValueError, match=r"at most 20% of the codes may be unknown .*: got train [45]\d\.\d%"):
        prepare_pretraining(abroad, "abroad", **settings)
    # It was known before anything was written; the work is gone on with.
    assert done(tmp_path) == {"serialized/00000.done", "serialized/00001.done"}
    said.clear()
    made = prepare_pretraining(abroad, "abroad", unknown_code_limit=0.9, **settings)
    assert said[0] == "serialized before: 2 of 2 shards"
    metadata = read_metadata(made)
    assert (made / "vocabulary.tsv").read_bytes() == frozen.read_bytes()
    assert metadata["vocabulary_hash"] == metadata["recipe"]["vocabulary_hash"] == Vocabulary.read(frozen).hash
    share = metadata["unknown_code_share"]["test"]
    assert share == (open_token_store(made, "test").code_ids == UNK).mean() > 0.3
    assert any(f"test {share:.1%}" in line for line in said)
    # The limit holds for a dataset that is there, too.
    with pytest.raises(ValueError, match=r"at most 1% of the codes may be unknown .* used again: got train [45]\d"):
        prepare_pretraining(abroad, "abroad", unknown_code_limit=0.01, **settings)


def test_a_fitted_vocabulary_must_know_the_codes(prepare, tmp_path):
    said = []
    with pytest.raises(
        ValueError, match=r"must hold codes: got none that at least 100,000 .* the most frequent one has"
    ):
        prepare(data_dir=tmp_path, minimum_patients=100_000)
    with pytest.raises(ValueError, match=r"at most 20% .* fitted on the same source: got train \d.*; lower minimum_pa"):
        prepare(data_dir=tmp_path, minimum_patients=40)
    assert not list(tmp_path.rglob("1.0.0")) and not list(tmp_path.rglob("written*"))
    made = prepare(data_dir=tmp_path, minimum_patients=40, unknown_code_limit=0.9, announce=said.append)
    shares = read_metadata(made)["unknown_code_share"]
    assert shares == {split: (open_token_store(made, split).code_ids == UNK).mean() for split in SPLITS}
    assert f"codes unknown to the vocabulary: train {shares['train']:.1%}, validation" in said[1]
    assert shares["train"] > 0.2


def test_a_frozen_vocabulary_must_hold_codes(prepare, tmp_path):
    Vocabulary((), np.zeros(0, np.int64), ()).write(tmp_path / "empty.tsv")
    with pytest.raises(ValueError, match="must hold codes: got one with reserved rows alone; give another"):
        prepare(data_dir=tmp_path, vocabulary=tmp_path / "empty.tsv", unknown_code_limit=1.0)


# ── splits that were given ────────────────────────────────────────────────────────────────────────────────────────────


def with_splits(directory, rows, *, tables=None, shards=2):
    """EHR tables with splits.parquet beside them."""
    write_tables(tables or made_tables(400, seed=17), directory, shards=shards)
    pl.DataFrame(rows).write_parquet(directory / SPLITS_FILE)
    return directory


@pytest.fixture(scope="module")
def given():
    """The splits of another key than the hash's, and one patient without any."""
    ids = made_tables(400, seed=17).patients["patient_id"].sort()
    names = np.array(SPLITS)[assign_split(ids, key="somebody else's")]
    return {"patient_id": ids[1:].to_list(), "split": names[1:].tolist()}


def test_given_splits_take_the_place_of_the_hash(given, tmp_path):
    source = with_splits(tmp_path / "ehr", given)
    made = prepare_pretraining(source, "given", data_dir=tmp_path, announce=quiet)
    split_of, metadata = dict(zip(given["patient_id"], given["split"], strict=True)), read_metadata(made)
    for split in SPLITS:
        ids = [patient.decode() for patient in open_token_store(made, split).patient_id]
        assert ids and {split_of[patient] for patient in ids} == {split}
    sha256 = hashlib.sha256((source / SPLITS_FILE).read_bytes()).hexdigest()
    assert metadata["split"] | {"counts": 0} == {"key": "given", "sha256": sha256, "counts": 0}
    ledger = Ledger.from_dict(json.loads((made / "ledger.json").read_text()))
    assert [line.left.patients for line in ledger.lines if line.rule == "no_split"] == [1]
    assert ledger.kept.patients == sum(metadata["split"]["counts"].values())
    # Another list that comes while the dataset is made stops it, and leaves nothing of it under a marker.
    other = pl.DataFrame(given).reverse().with_columns(split=pl.Series(given["split"]))

    def replace_it(text):
        if text.startswith("serialized shard 1/2"):
            other.write_parquet(source / SPLITS_FILE)

    with pytest.raises(ValueError, match=r"must stay as they are .* sha256 \w+ of splits\.parquet in .*, and not"):
        prepare_pretraining(source, "given", data_dir=tmp_path / "other", workers=1, announce=replace_it)
    assert done(tmp_path / "other") == {"serialized/00000.done"}
    # Another list of splits is another dataset.
    pl.DataFrame(given).head(300).write_parquet(source / SPLITS_FILE)
    with pytest.raises(ValueError, match=r"is not replaced by another: .* differs .* split"):
        prepare_pretraining(source, "given", data_dir=tmp_path, announce=quiet)


def test_a_cohort_has_the_given_splits_too(given, tmp_path):
    source = with_splits(tmp_path / "ehr", given)
    pretraining = prepare_pretraining(source, "given", data_dir=tmp_path, announce=quiet)
    settings = {"data_dir": tmp_path, "pretraining_dataset": pretraining, "few_cases": True, "announce": quiet}
    made = prepare_cohort(source, "hf-later", "hf", **settings)
    split_of = dict(zip(given["patient_id"], given["split"], strict=True))
    for split in SPLITS:
        assert {split_of[patient.decode()] for patient in open_token_store(made, split).patient_id} == {split}
    rules = [line["rule"] for line in json.loads((made / "ledger.json").read_text())["lines"]]
    assert rules[-1] == "serialization:no_split"
    (source / SPLITS_FILE).unlink()
    with pytest.raises(ValueError, match=r"come with the tables are in splits\.parquet: got none"):
        prepare_cohort(source, "hf-later", "hf2", **settings)


def test_given_splits_that_test_on_training_patients_are_refused(dataset, given, tmp_path):
    source = with_splits(tmp_path / "ehr", given)  # the dataset was split by the hash
    settings = {"few_cases": True, "data_dir": tmp_path, "pretraining_dataset": dataset, "announce": quiet}
    with pytest.raises(ValueError, match=r"must not be training patients of its pretraining .*: got \d\d+ who are"):
        prepare_cohort(source, "hf-later", "hf", **settings)
    # Of one that came without its token store it is made where the option says.
    bare = shutil.copytree(dataset, tmp_path / "bare", ignore=shutil.ignore_patterns("token_store"))
    elsewhere = settings | {"pretraining_dataset": bare, "cache_dir": tmp_path / "cache"}
    with pytest.raises(ValueError, match=r"must not be training patients of its pretraining .*: got \d\d+ who are"):
        prepare_cohort(source, "hf-later", "hf", **elsewhere)
    assert not (bare / "token_store").exists() and [*(tmp_path / "cache").glob("*/train/store.json")]
    tables = made_tables(400, seed=17)
    theirs = np.array(SPLITS)[assign_split(tables.patients["patient_id"], key="medbert")].tolist()
    same = with_splits(tmp_path / "same", {"patient_id": tables.patients["patient_id"].to_list(), "split": theirs})
    made = prepare_cohort(same, "hf-later", "hf", **settings)
    assert read_metadata(made)["split"]["key"] == "given"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.with_columns(split=pl.lit("held_out")), r"into one of train, .*: got \d+ rows with another"),
        (lambda rows: pl.concat([rows, rows]), r"got \d+ rows of patients who have one; correct it"),
        (lambda rows: rows.rename({"split": "part"}), r"must have the columns .*: got no \['split'\]"),
    ],
)
def test_faulty_splits_are_refused(given, tmp_path, change, message):
    source = with_splits(tmp_path / "ehr", given, shards=1)
    change(pl.DataFrame(given)).write_parquet(source / SPLITS_FILE)
    with pytest.raises(ValueError, match=message):
        prepare_pretraining(source, "given", data_dir=tmp_path, announce=quiet)


@pytest.mark.parametrize(("change", "message"), [(Path.unlink, "got none in"), (None, "must have the sha256 of")])
def test_splits_that_are_not_those_of_the_tables_are_refused(given, tmp_path, change, message):
    source = with_splits(tmp_path / "ehr", given)
    record = json.loads((source / "source.json").read_text())
    record["files"][SPLITS_FILE] = "0" * 64
    (source / "source.json").write_text(json.dumps(record))
    if change:
        change(source / SPLITS_FILE)
    with pytest.raises(ValueError, match=message):
        prepare_pretraining(source, "given", data_dir=tmp_path, announce=quiet)
