"""The pretraining builder on a made source: content, splits, vocabulary, bytes, refusals."""

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import tensorflow_datasets as tfds
from made_ehr import made_tables
from prepared_datasets import prepare_pretraining

import tfds_builders.preparation as preparation
import tfds_builders.shards as shards
from medbert_jax.attrition.ledger import Ledger
from medbert_jax.data import token_store
from medbert_jax.data.serialization import SerializationConfig, serialize
from medbert_jax.data.token_store import open_token_store, read_metadata
from medbert_jax.data.vocabulary import Vocabulary
from medbert_jax.ehr.hashing import SPLITS, assign_split, patient_hash
from medbert_jax.ehr.tables import read_shard, read_source, read_tables, write_tables

CHECKOUT = Path(__file__).parents[2]


def quiet(text):
    """Say nothing."""


@pytest.fixture(scope="module")
def ehr(tmp_path_factory):
    """Made tables; one code is had by a single patient, of the test split."""
    tables = made_tables(400, seed=11)
    codes = tables.diagnoses.group_by("patient_id").agg(pl.col("code").n_unique()).sort("patient_id")
    ids = codes.filter(pl.col("code") > 3)["patient_id"]
    tester = ids.filter(assign_split(ids, key="medbert") == SPLITS.index("test"))[0]
    row = tables.diagnoses.filter(pl.col("patient_id") == tester).head(1)
    diagnoses = pl.concat([tables.diagnoses, row.with_columns(code=pl.lit("Q99.9"), code_system=pl.lit("ICD10CM"))])
    directory = tmp_path_factory.mktemp("source") / "ehr"
    write_tables(replace(tables, diagnoses=diagnoses), directory, shards=3)
    return directory


@pytest.fixture(scope="module")
def dataset(ehr, tmp_path_factory):
    return prepare_pretraining(ehr, "made", data_dir=tmp_path_factory.mktemp("data"), announce=quiet)


def serialized(ehr, vocabulary):
    """Everybody, by split, straight from the tables, in the order of the shards."""
    tables = read_tables(ehr)
    races = tuple(tables.patients["race"].drop_nulls().unique().sort())
    everybody, _ = serialize(tables, vocabulary, SerializationConfig(), races=races)
    shard = patient_hash(everybody.patient_id, "shard") % np.uint64(tables.source.shards)
    everybody = everybody.take(np.argsort(shard, kind="stable"))
    split = assign_split(everybody.patient_id, key="medbert")
    return {name: everybody.take(split == place) for place, name in enumerate(SPLITS)}


def assert_same(one, other):
    for name in set(one.__dataclass_fields__) - {"outcomes"}:
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert one.outcomes.keys() == other.outcomes.keys()
    assert all(np.array_equal(one.outcomes[name], other.outcomes[name]) for name in one.outcomes)


def digests(directory):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir() if path.is_file()}


def test_the_token_store_is_there_and_is_what_the_records_decode_to(dataset, tmp_path, monkeypatch):
    copied = tmp_path / "copied"
    shutil.copytree(dataset, copied, ignore=shutil.ignore_patterns("token_store"))
    for split in SPLITS:
        with monkeypatch.context() as patched:
            patched.setattr(token_store, "decode_records", lambda *_: pytest.fail("the store was decoded"))
            open_token_store(dataset, split)
        open_token_store(copied, split)
        written, decoded = (
            {path.name: path.read_bytes() for path in (folder / "token_store" / split).iterdir()}
            for folder in (dataset, copied)
        )
        assert written == decoded and len(written) == 13


def test_the_token_store_is_the_serialization_of_the_tables(ehr, dataset):
    vocabulary = Vocabulary.read(dataset / "vocabulary.tsv")
    expected = serialized(ehr, vocabulary)
    for split in SPLITS:
        opened = open_token_store(dataset, split)
        assert len(opened) > 20
        assert_same(opened, expected[split])
    expected["test"].serialization_ids[0] += 1
    with pytest.raises(AssertionError, match="serialization_ids"):
        assert_same(opened, expected["test"])


def test_nothing_is_pickled():
    files = [*(CHECKOUT / "tfds_builders").rglob("*.py"), *(CHECKOUT / "medbert_jax").rglob("*.py")]
    # pickletools only names opcodes, and plain_pickles.py reads values by them without executing anything.
    pattern = re.compile(r"^\s*(import|from)\s.*pickle\b|allow_pickle\s*=\s*True", re.MULTILINE)
    assert len(files) > 40 and [file for file in files if pattern.search(file.read_text())] == []
    planted = ("import pickle", "    from pickle import loads", "import os, cloudpickle", "load(x, allow_pickle=True)")
    assert all(map(pattern.search, planted))


def test_tfds_reads_the_same_examples_without_tensorflow(dataset):
    source = tfds.builder_from_directory(dataset).as_data_source(split="validation")
    opened = open_token_store(dataset, "validation")
    assert len(source) == len(opened)
    for i, example in enumerate(source):
        codes, visits = (slice(*offsets[i : i + 2]) for offsets in (opened.code_offsets, opened.visit_offsets))
        assert example["patient_id"] == opened.patient_id[i]
        for name in ("code_ids", "visit_ids", "serialization_ids"):
            assert np.array_equal(example[name], getattr(opened, name)[codes]) and example[name].dtype == np.int32
        for name in ("visit_days", "age_days", "length_of_stay"):
            assert np.array_equal(example[name], getattr(opened, name)[visits])
        assert (example["sex"], example["race"]) == (opened.sex[i], opened.race[i])
        assert example["prolonged_los"] == opened.outcomes["prolonged_los"][i]
    assert "tensorflow" not in sys.modules
    slices = tfds.builder_from_directory(dataset).as_data_source(split="train[:10]")
    assert len(slices) == 10


def test_a_patient_is_in_one_split_the_one_of_his_hash(dataset):
    split_of = {}
    for place, split in enumerate(SPLITS):
        ids = open_token_store(dataset, split).patient_id
        assert (assign_split(ids, key="medbert") == place).all()
        split_of |= dict.fromkeys(ids.tolist(), split)
    counts = read_metadata(dataset)["split"]["counts"]
    assert len(split_of) == sum(counts.values())
    assert counts == {split: list(split_of.values()).count(split) for split in SPLITS}


def test_a_code_of_test_patients_alone_is_not_in_the_vocabulary(ehr, dataset, tmp_path):
    assert "ICD10CM/Q99.9" in set(
        read_tables(ehr).diagnoses.select(pl.concat_str("code_system", pl.lit("/"), "code")).to_series()
    )
    vocabulary = Vocabulary.read(dataset / "vocabulary.tsv")
    assert "ICD10CM/Q99.9" not in vocabulary.codes
    train = open_token_store(dataset, "train")
    patient = np.repeat(np.arange(len(train)), train.lengths)
    counted = np.bincount(np.unique(np.stack([patient, train.code_ids]), axis=1)[1], minlength=vocabulary.size)
    assert counted[16:].tolist() == vocabulary.patients.tolist()
    shares = read_metadata(dataset)["unknown_code_share"]
    assert shares["train"] == shares["validation"] == 0 < shares["test"] < 0.01
    # The released code fits it on everybody, so there it is: the test above can fail.
    released = prepare_pretraining(ehr, "released", data_dir=tmp_path, preset="released_code", announce=quiet)
    assert "ICD10CM/Q99.9" in Vocabulary.read(released / "vocabulary.tsv").codes


def test_rare_codes_are_left_out_on_request(ehr, dataset, tmp_path):
    rare = prepare_pretraining(
        ehr, "rare", data_dir=tmp_path, minimum_patients=40, unknown_code_limit=0.9, announce=quiet
    )
    vocabulary, whole = (Vocabulary.read(path / "vocabulary.tsv") for path in (rare, dataset))
    assert vocabulary.codes == tuple(np.array(whole.codes)[whole.patients >= 40])
    assert read_metadata(rare)["unknown_code_share"]["train"] > 0


def test_unknown_codes_back_off_to_their_category_in_a_frozen_vocabulary(ehr, dataset, tmp_path):
    whole = Vocabulary.read(dataset / "vocabulary.tsv")
    # E66.9 and 401.9 are known by their categories alone.
    renamed = tuple(
        {"ICD10CM/E66.9": "ICD10CM/E66", "ICD9CM/401.9": "ICD9CM/401"}.get(code, code) for code in whole.codes
    )
    assert renamed != whole.codes
    Vocabulary(renamed, whole.patients, whole.titles).write(tmp_path / "frozen.tsv")
    frozen = {"vocabulary": tmp_path / "frozen.tsv", "data_dir": tmp_path, "announce": quiet, "unknown_code_limit": 1.0}
    strict, backed = (
        prepare_pretraining(ehr, name, back_off=back_off, **frozen)
        for name, back_off in (("strict", False), ("backed", True))
    )
    shares = [read_metadata(path)["unknown_code_share"]["train"] for path in (strict, backed)]
    assert shares[0] > 0.02 and shares[1] == 0
    # The vocabulary has the same order of ids, so backing off gives the very ids of the whole one.
    assert (open_token_store(backed, "train").code_ids == open_token_store(dataset, "train").code_ids).all()
    assert read_metadata(backed)["dataset_hash"] != read_metadata(strict)["dataset_hash"]


def test_metadata_ledger_and_files(ehr, dataset):
    assert dataset.parts[-3:] == ("ehr_pretraining", "made", "1.0.0")
    metadata, source = read_metadata(dataset), read_source(ehr)
    assert metadata["kind"] == "pretraining" and metadata["preset"] == "paper"
    assert metadata["source"]["content_hash"] == source.content_hash
    assert metadata["serialization"] == {
        "minimum_codes": 3,
        "unique": True,
        "prolonged_los_days": 7,
        "visit_rule": "encounter",
        "code_order": "priority",
    }
    assert metadata["split"] | {"counts": 0} == {"key": "medbert", "ratios": [0.7, 0.1, 0.2], "counts": 0}
    assert metadata["vocabulary_hash"] == Vocabulary.read(dataset / "vocabulary.tsv").hash
    assert metadata["races"] == ["Amber", "Cobalt", "Jade"]
    assert metadata["cohort"] is None and metadata["time_is_ordinal"] is False
    assert dict(tfds.builder_from_directory(dataset).info.metadata) == metadata
    ledger = Ledger.from_dict(json.loads((dataset / "ledger.json").read_text()))
    assert ledger.came.patients == 400
    assert ledger.kept.patients == sum(metadata["split"]["counts"].values())
    opened = [open_token_store(dataset, split) for split in SPLITS]
    assert ledger.kept.codes == sum(len(part.code_ids) for part in opened)
    assert ledger.kept.visits == sum(len(part.visit_days) for part in opened)
    # Nothing but the dataset is left in the folders of datasets.
    assert [path.name for path in dataset.parent.iterdir()] == ["1.0.0"]
    assert [path.name for path in dataset.parents[2].iterdir()] == ["ehr_pretraining"]
    assert not [path for path in dataset.iterdir() if "serialized" in path.name]


def test_another_process_writes_the_same_bytes_without_a_network_or_a_word(ehr, dataset, tmp_path):
    script = f"""
import socket, sys
def refuse(*args, **kwargs):
    raise AssertionError("the network was used")
socket.getaddrinfo = socket.socket.connect = refuse
sys.path[:0] = [{str(CHECKOUT)!r}, {str(CHECKOUT / "tests")!r}]
from prepared_datasets import prepare_pretraining
prepare_pretraining({str(ehr)!r}, "made", data_dir={str(tmp_path)!r}, announce=lambda text: None)
"""
    environment = os.environ | {"PYTHONHASHSEED": "7", "POLARS_MAX_THREADS": "1"}
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert digests(tmp_path / "ehr_pretraining" / "made" / "1.0.0") == digests(dataset)


def test_other_settings_are_other_datasets(ehr, dataset, tmp_path):
    hashes = {read_metadata(dataset)["dataset_hash"]}
    random = SerializationConfig(code_order="random")
    for name, settings in {
        "key": {"split_key": "another"},
        "ratios": {"ratios": (0.6, 0.2, 0.2)},
        "order": {"serialization": random},
    }.items():
        made = prepare_pretraining(ehr, name, data_dir=tmp_path, announce=quiet, **settings)
        hashes.add(read_metadata(made)["dataset_hash"])
    assert len(hashes) == 4


def test_the_same_dataset_is_found_again_and_another_does_not_replace_it(ehr, dataset, monkeypatch):
    before = digests(dataset)
    monkeypatch.setattr(socket, "getaddrinfo", None)
    said = []
    assert prepare_pretraining(ehr, "made", data_dir=dataset.parents[2], announce=said.append) == dataset
    assert said[0].startswith("codes unknown to the vocabulary: train 0.0%, ")
    assert said[1:] == [f"the dataset is there already: {dataset}"]
    with pytest.raises(ValueError, match=r"is not replaced by another: .* differs .* minimum_patients: 1 → 2; choose"):
        prepare_pretraining(ehr, "made", data_dir=dataset.parents[2], minimum_patients=2, announce=quiet)
    assert digests(dataset) == before


def test_another_dataset_takes_the_place_where_that_is_asked_for(ehr, tmp_path, monkeypatch):
    def make(**options):
        return prepare_pretraining(ehr, "made", data_dir=tmp_path, announce=quiet, **options)

    first = make()
    before, written = digests(first), (first / "metadata.json").stat().st_mtime_ns
    assert make(replace=True) == first
    assert (first / "metadata.json").stat().st_mtime_ns == written  # as it was asked for: not made again

    # Refused or killed while the new one is made: the earlier one is there, if need be from the next command on.
    with pytest.raises(ValueError, match="vocabulary"):
        make(vocabulary=first / "vocabulary.tsv", unknown_code_limit=0.0, replace=True)
    assert digests(first) == before

    def die(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(preparation, "_build", die)
        with pytest.raises(KeyboardInterrupt):
            make(minimum_patients=2, replace=True)
        assert digests(first) == before
        patch.setattr(preparation, "_bring_back", lambda directory: None)
        with pytest.raises(KeyboardInterrupt):
            make(minimum_patients=2, replace=True)
    assert not first.exists()
    make()
    assert digests(first) == before

    make(minimum_patients=2, replace=True)
    assert digests(first) != before
    assert read_metadata(first)["recipe"]["minimum_patients"] == 2
    (first / "vocabulary.tsv").unlink()
    with pytest.raises(ValueError, match="give the same command with --replace"):
        make(minimum_patients=2)
    make(replace=True)
    assert digests(first) == before
    assert [path.name for path in first.parent.iterdir() if not path.name.startswith(".")] == [first.name]


def test_progress_is_told_by_shard(ehr, tmp_path, capsys):
    prepare_pretraining(ehr, "told", data_dir=tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        *(f"serialized shard {i}/3" for i in (1, 2, 3)),
        "codes unknown to the vocabulary",
        *(f"written shard {i}/3" for i in (1, 2, 3)),
    ]


def test_duplicated_patients_are_refused_and_nothing_is_left(ehr, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "read_shard", lambda directory, shard: read_shard(directory, shard % 2))
    with pytest.raises(ValueError, match=r"patient_id must be in one row of one shard: got \d+ of \d+ patients again"):
        prepare_pretraining(ehr, "twice", data_dir=tmp_path, announce=quiet)
    assert list((tmp_path / "ehr_pretraining" / "twice").iterdir()) == []


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    directory = tmp_path_factory.mktemp("few") / "ehr"
    write_tables(made_tables(4, seed=1, dates=False), directory, shards=2)
    return directory


def test_an_empty_split_is_refused_with_the_attrition(few, tmp_path):
    with pytest.raises(ValueError, match=r"every split must have patients: got (.|\n)*Fewer than 3 different codes"):
        prepare_pretraining(few, "few", data_dir=tmp_path, ratios=(0.998, 0.001, 0.001), announce=quiet)


def test_a_split_that_nobody_wants_may_be_empty(few, tmp_path):
    made = prepare_pretraining(few, "few", data_dir=tmp_path, ratios=(1.0, 0.0, 0.0), announce=quiet)
    assert len(open_token_store(made, "train")) == read_metadata(made)["split"]["counts"]["train"] > 0
    assert read_metadata(made)["time_is_ordinal"] is True


def test_the_released_rule_is_refused_by_name_on_a_source_without_dates(few, tmp_path):
    with pytest.raises(ValueError, match="visit_rule 'discharge_date' needs discharge dates"):
        prepare_pretraining(few, "few", data_dir=tmp_path, preset="released_code", announce=quiet)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"preset": "papr"}, "preset must be one of paper, released_code: got 'papr'"),
        ({"name": "a/b"}, "a dataset's name must be letters"),
        ({"ratios": (0.7, 0.1)}, "split ratios must be three numbers"),
        ({"shard": "3/3"}, "shard must be i/N with i from 0 to N − 1, as in 3/8: got '3/3'"),
        ({"shard": "1"}, "shard must be i/N"),
        ({"split_key": "given"}, r"are in splits\.parquet: got none in"),
        ({"vocabulary": Path("x"), "minimum_patients": 2}, "minimum_patients acts where a vocabulary is fitted: got 2"),
    ],
)
def test_wrong_arguments_are_refused(few, tmp_path, wrong, message):
    arguments = {"name": "few", "data_dir": tmp_path, "announce": quiet} | wrong
    with pytest.raises(ValueError, match=message):
        prepare_pretraining(few, **arguments)


def test_what_is_no_ehr_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"source\.json"):
        prepare_pretraining(tmp_path, "nothing", data_dir=tmp_path / "data", announce=quiet)
