"""The token store: what is decoded, when it is made again, and what it refuses."""

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from array_record.python import array_record_module
from made_sequences import made_sequences

from medbert_jax.data import token_store
from medbert_jax.data.example_records import encode_records
from medbert_jax.data.token_store import open_token_store, read_metadata
from medbert_jax.disk import replaced_folder
from medbert_jax.disk.lock import locked

CHECKOUT = Path(__file__).parents[2]


def write_dataset(directory, sequences, *, shards=2, dataset_hash="first"):
    """The files of a dataset as far as the token store reads them, with one split."""
    directory.mkdir(parents=True, exist_ok=True)
    lengths = []
    for shard, places in enumerate(np.array_split(np.arange(len(sequences)), shards)):
        path = directory / f"made-train.array_record-{shard:05d}-of-{shards:05d}"
        writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
        for record in encode_records(sequences.take(places)):
            writer.write(record)
        writer.close()
        lengths.append(str(len(places)))
    info = {"name": "made", "splits": [{"name": "train", "shardLengths": lengths}]}
    (directory / "dataset_info.json").write_text(json.dumps(info))
    metadata = {
        "kind": "pretraining",
        "dataset_hash": dataset_hash,
        "vocabulary_hash": "",
        "split": {"counts": {"train": len(sequences)}},
    }
    (directory / "metadata.json").write_text(json.dumps(metadata))
    return directory


def assert_same(one, other):
    for name in set(one.__dataclass_fields__) - {"outcomes"}:
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    for name in one.outcomes | other.outcomes:
        assert np.array_equal(one.outcomes[name], other.outcomes[name])


@pytest.fixture(scope="module")
def sequences():
    return made_sequences(57, seed=4)


@pytest.fixture
def dataset(sequences, tmp_path):
    return write_dataset(tmp_path / "dataset", sequences)


def test_the_store_holds_the_sequences_as_memory_maps(dataset, sequences):
    opened = open_token_store(dataset, "train")
    assert_same(opened, sequences)
    columns = [getattr(opened, name) for name in opened.__dataclass_fields__ if name != "outcomes"]
    assert all(isinstance(column, np.memmap) for column in [*columns, *opened.outcomes.values()])
    assert opened.code_ids.dtype == np.int32 and opened.code_offsets.dtype == np.int64
    assert_same(opened.truncate(5), sequences.truncate(5))


def test_it_is_decoded_in_chunks_and_once(dataset, sequences, monkeypatch):
    monkeypatch.setattr(token_store, "_RECORDS_AT_ONCE", 7)
    assert_same(open_token_store(dataset, "train"), sequences)
    before = {path: path.stat().st_mtime_ns for path in (dataset / "token_store" / "train").iterdir()}
    open_token_store(dataset, "train")
    assert {path: path.stat().st_mtime_ns for path in (dataset / "token_store" / "train").iterdir()} == before
    assert [path.name for path in (dataset / "token_store").iterdir()] == ["train"]


def test_a_store_of_another_dataset_hash_is_made_again(dataset):
    open_token_store(dataset, "train")
    others = made_sequences(31, seed=9)
    write_dataset(dataset, others, dataset_hash="second")
    assert_same(open_token_store(dataset, "train"), others)
    assert [path.name for path in (dataset / "token_store").iterdir()] == ["train"]


def test_a_flipped_bit_is_seen(dataset):
    open_token_store(dataset, "train")
    store = dataset / "token_store" / "train"
    # In the header too, where one bit makes <i4 a >i4 or a 57 a 56, and others what numpy cannot parse.
    for name in ("visit_ids", "patient_id"):
        path = store / f"{name}.npy"
        content = path.read_bytes()
        for place in (*range(128), *range(128, len(content), 211), len(content) - 1):
            for bit in {0, 2, place % 8} if 20 <= place < 64 else {place % 8}:
                flipped = bytearray(content)
                flipped[place] ^= 1 << bit
                path.write_bytes(flipped)
                with pytest.raises(ValueError, match=rf"checksums of store\.json: got others for \['{name}'\]; delete"):
                    open_token_store(dataset, "train")
        path.write_bytes(content)
    open_token_store(dataset, "train")


def test_a_column_that_is_cut_or_gone_is_seen(dataset, sequences):
    open_token_store(dataset, "train")
    store = dataset / "token_store" / "train"
    path = store / "code_ids.npy"
    content = path.read_bytes()
    for length in (0, 1, 5, 9, 10, 100, 127, 128, 129, len(content) - 5, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=rf"got others for \['code_ids'\]; delete {store} and it is decoded again"):
            open_token_store(dataset, "train")
    (store / "race.npy").unlink()
    with pytest.raises(ValueError, match=r"got others for \['code_ids', 'race'\]"):
        open_token_store(dataset, "train")
    shutil.rmtree(store)  # what the message says
    assert_same(open_token_store(dataset, "train"), sequences)


def test_a_store_that_metadata_counts_otherwise_is_seen(dataset):
    open_token_store(dataset, "train")
    metadata = json.loads((dataset / "metadata.json").read_text())
    metadata["split"]["counts"]["train"] = 58
    (dataset / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match=r"must hold 58 patients, as metadata\.json says: got 57; put"):
        open_token_store(dataset, "train")


def test_all_is_on_disk_before_it_has_its_name(dataset, monkeypatch):
    store, waited = dataset / "token_store" / "train", []
    wait = replaced_folder.wait_for_disk
    monkeypatch.setattr(
        replaced_folder, "wait_for_disk", lambda path: (waited.append((path, store.exists())), wait(path))
    )
    open_token_store(dataset, "train")
    before = [path.name for path, named in waited if not named]
    assert set(before[:-1]) == {path.name for path in store.iterdir()} and before[-1] == "new"
    assert waited[-1] == (store.parent, True)


def test_an_interrupted_decoding_leaves_nothing(dataset, sequences, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(token_store, "decode_records", interrupted)
        with pytest.raises(KeyboardInterrupt):
            open_token_store(dataset, "train")
    assert list((dataset / "token_store").iterdir()) == []
    assert_same(open_token_store(dataset, "train"), sequences)


def test_a_damaged_store_json_is_made_again_or_told(dataset, sequences):
    open_token_store(dataset, "train")
    path = dataset / "token_store" / "train" / "store.json"
    content = path.read_bytes()
    for damaged in (content[:14], b"", b"[]", b'{"version": 2}', content.replace(b"age_days", b"age_dayz"), b"\xff"):
        path.write_bytes(damaged)
        assert_same(open_token_store(dataset, "train"), sequences)
        assert path.read_bytes() == content
    path.write_bytes(content.replace(b'"sex": ', b'"sex": 1'))
    with pytest.raises(ValueError, match=r"got others for \['sex'\]"):
        open_token_store(dataset, "train")


def test_a_split_without_patients_is_refused(dataset):
    metadata = json.loads((dataset / "metadata.json").read_text())
    metadata["split"]["counts"]["validation"] = 0
    (dataset / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match="a split that is read must have patients: got none in validation"):
        open_token_store(dataset, "validation")


def test_a_flipped_bit_in_a_record_file_is_told_or_harmless(dataset, sequences):
    path = next(dataset.glob("*.array_record-00000-*"))
    written = path.read_bytes()
    told = 0
    for place in np.linspace(0, len(written) - 1, 30).astype(int):
        content = bytearray(written)
        content[place] ^= 1
        path.write_bytes(content)
        try:
            assert_same(open_token_store(dataset, "train"), sequences)  # it fell into padding
        except ValueError as error:
            told += 1
            assert "must hold 29 records" in str(error) and "copy the file again" in str(error)
        shutil.rmtree(dataset / "token_store", ignore_errors=True)
    assert told > 0


def test_files_that_do_not_fit_are_refused(dataset, sequences):
    files = sorted(dataset.glob("*.array_record*"))
    content = files[0].read_bytes()
    files[0].write_bytes(files[1].read_bytes())
    with pytest.raises(ValueError, match=r"must hold 29 records.*: got 28"):
        open_token_store(dataset, "train")
    files[0].unlink()
    with pytest.raises(FileNotFoundError, match="1 of 2 are missing"):
        open_token_store(dataset, "train")
    files[0].write_bytes(content)
    metadata = json.loads((dataset / "metadata.json").read_text())
    metadata["split"]["counts"]["train"] = 58
    (dataset / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match=r"must hold 58 patients, .*: got 57"):
        open_token_store(dataset, "train")


def test_records_whose_visits_or_ranks_are_not_numbered_are_refused(sequences, tmp_path):
    wrong = replace(sequences, visit_ids=sequences.visit_ids + 1, serialization_ids=sequences.serialization_ids * 2)
    directory = write_dataset(tmp_path / "wrong", wrong)
    with pytest.raises(ValueError, match=r"(?s)visit_ids must be 1, 2, 3.*\nserialization_ids must .*made-train.*copy"):
        open_token_store(directory, "train")
    assert not (directory / "token_store" / "train").exists()


def test_what_is_no_dataset_is_refused(dataset, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"must hold metadata\.json: got"):
        read_metadata(tmp_path)
    with pytest.raises(ValueError, match="split must be one of train: got 'dev'"):
        open_token_store(dataset, "dev")
    (dataset / "metadata.json").write_text("[]")
    with pytest.raises(ValueError, match=r"got a list and no object in .*metadata\.json; put"):
        read_metadata(dataset)
    (dataset / "metadata.json").write_text("{")
    with pytest.raises(ValueError, match=r"got no JSON \(.*metadata\.json; put"):
        read_metadata(dataset)


OPEN = """
import sys
sys.path.insert(0, {checkout!r})
from medbert_jax.data.token_store import open_token_store
print(open_token_store({dataset!r}, "train").code_ids.sum())
print(*sorted({{"tensorflow_datasets", "polars", "sklearn", "jax", "array_record"}} & set(sys.modules)))
"""


def test_a_fresh_store_is_opened_with_numpy_alone(dataset, sequences):
    open_token_store(dataset, "train")
    script = OPEN.format(checkout=str(CHECKOUT), dataset=str(dataset))
    opened = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert opened.stdout.split("\n")[:2] == [str(sequences.code_ids.sum()), ""]


def test_processes_that_decode_at_once_all_succeed(dataset, sequences):
    script = OPEN.format(checkout=str(CHECKOUT), dataset=str(dataset))
    running = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    said = [process.communicate(timeout=60)[0].split("\n")[0] for process in running]
    assert said == [str(sequences.code_ids.sum())] * 4
    assert [path.name for path in (dataset / "token_store").iterdir()] == ["train"]


def test_who_waits_for_another_process_decodes_nothing(dataset, sequences, monkeypatch):
    parts, decoded = token_store._parts, []
    monkeypatch.setattr(token_store, "_parts", lambda *args: (decoded.append(args), parts(*args))[1])
    with ThreadPoolExecutor(2) as pool:
        with locked(dataset / "token_store" / ".train.build.lock", stays=False):
            waiting = [pool.submit(open_token_store, dataset, "train") for _ in range(2)]
            time.sleep(0.2)
            assert not decoded and not any(each.done() for each in waiting)
        for each in waiting:
            assert_same(each.result(timeout=60), sequences)
    assert len(decoded) == 1
    assert [path.name for path in (dataset / "token_store").iterdir()] == ["train"]


def test_what_a_killed_decoding_left_goes_with_the_next(dataset, sequences):
    left = dataset / "token_store" / ".train.new" / "killed" / "new"
    left.mkdir(parents=True)
    (left / "code_ids.npy").write_bytes(b"half")
    for lock in (".train.lock", ".train.build.lock"):
        (dataset / "token_store" / lock).touch()
    assert_same(open_token_store(dataset, "train"), sequences)
    assert [path.name for path in (dataset / "token_store").iterdir()] == ["train"]


# ── a dataset that cannot be written ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def read_only(dataset, monkeypatch):
    """The dataset on a file system that is mounted read-only, also for root."""

    def refuse(real):
        def refused(path, *args, **named):
            if Path(path).is_relative_to(dataset):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
            return real(path, *args, **named)

        return refused

    monkeypatch.setattr(os, "mkdir", refuse(os.mkdir))
    monkeypatch.setattr(os, "rename", refuse(os.rename))
    return dataset


def test_a_read_only_dataset_without_a_store_is_told_with_its_cure(read_only):
    with pytest.raises(OSError, match=r"into a folder that may be written: got 'Read-only.*' for .*give .*--cache-dir"):
        open_token_store(read_only, "train")


def test_a_read_only_dataset_is_decoded_into_the_cache_once(read_only, sequences, tmp_path, monkeypatch):
    cache = tmp_path / "cache [1]"
    assert_same(open_token_store(read_only, "train", cache), sequences)
    assert [path.name for path in read_only.iterdir() if path.is_dir()] == []
    assert [path.relative_to(cache).as_posix() for path in cache.rglob("store.json")] == ["first/train/store.json"]
    monkeypatch.setattr(token_store, "decode_records", lambda *_: pytest.fail("the store was decoded again"))
    assert_same(open_token_store(read_only, "train", cache), sequences)


def test_a_cache_knows_datasets_by_what_they_hold(sequences, tmp_path):
    """Two of one name, and one that was made again."""
    others, cache = made_sequences(31, seed=5), tmp_path / "cache"
    one = write_dataset(tmp_path / "a" / "dataset", sequences)
    two = write_dataset(tmp_path / "b" / "dataset", others, dataset_hash="second")
    assert_same(open_token_store(one, "train", cache), sequences)
    assert_same(open_token_store(two, "train", cache), others)
    write_dataset(one, others, dataset_hash="second")
    assert_same(open_token_store(one, "train", cache), others)


def test_a_store_beside_the_dataset_is_taken_before_the_cache(dataset, sequences, tmp_path):
    open_token_store(dataset, "train")
    assert_same(open_token_store(dataset, "train", tmp_path / "cache"), sequences)
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_cannot_be_written_is_told_too(dataset, read_only):
    with pytest.raises(OSError, match=r"got 'Read-only.*' for .*dataset/cache/first; give"):
        open_token_store(read_only, "train", dataset / "cache")
