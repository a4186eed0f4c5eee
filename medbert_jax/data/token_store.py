"""The token store: a dataset's splits as memory-mapped columns, written with its TFDS files and beside them.

DATASET/token_store/SPLIT/ holds one .npy file per column of `PatientSequences` and store.json, with the hash of
the dataset, the split and a checksum of every file. The records are the interchange: of a dataset that was copied
without its store, or has one of another version, dataset or split, they are decoded, once; where the dataset cannot be
written, into another folder that is named. A folder appears whole or not at all, and one process makes it. Reading
needs nothing but numpy; TFDS is not imported even for decoding.
"""

import contextlib
import errno
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np

from medbert_jax.data.column_files import ColumnFile, mapped_column
from medbert_jax.data.example_records import OUTCOMES, decode_records
from medbert_jax.data.metadata import read_dataset_info, read_metadata
from medbert_jax.data.sequence_faults import sequence_faults
from medbert_jax.data.sequences import PatientSequences
from medbert_jax.data.vocabulary import Vocabulary
from medbert_jax.disk.lock import locked
from medbert_jax.disk.replaced_folder import replaced
from medbert_jax.disk.seals import SUMS, check_files
from medbert_jax.disk.stored_json import form_faults, read_object
from medbert_jax.disk.whole_files import write_json
from medbert_jax.ehr.hashing import SPLITS, assign_split

_VERSION = 3  # since 3 store.json says the split
_AGAIN = "delete that folder and prepare the dataset again"
_ALL = re.compile(r".*", re.DOTALL)
_RECORDS_AT_ONCE = 10_000  # fastest: the arrays stay in the cache


def read_vocabulary(dataset_directory) -> Vocabulary:
    """Return the vocabulary of a dataset. Raises ValueError where it is another one than metadata.json says."""
    said = read_metadata(dataset_directory)["vocabulary_hash"]
    vocabulary = Vocabulary.read(Path(dataset_directory) / "vocabulary.tsv")
    if vocabulary.hash != said:
        raise ValueError(
            f"vocabulary.tsv must be the one of metadata.json: got hash {vocabulary.hash[:12]} and not {said[:12]} in"
            f" {dataset_directory}; restore the file or prepare the dataset again"
        )
    return vocabulary


def open_token_store(
    dataset_directory, split: str, cache_dir="", tell: Callable[[str], object] = lambda line: None
) -> PatientSequences:
    """Return the patients of a split ("train", "validation" or "test") as memory maps, in the dataset's order.

    Decodes the split from the dataset's ArrayRecord files where the store is absent, of another version, or of another
    dataset hash or split, whatever its folder is called; verifies the checksum of every file otherwise. With
    `cache_dir` what is decoded is kept there, under the dataset's hash, and not beside the dataset. Files that are
    decoded must have the sha256 that metadata.json says of them; `tell` is told where it says none.

    Raises:
        OSError: the store is absent, and cannot be written where it is to be kept.
        FileNotFoundError: no dataset, or a file of it that must be decoded is missing.
        ValueError: an unknown split, a file that is damaged, one whose checksum differs, one of another dataset, or
            patients that are not as many as metadata.json says.
    """
    directory, metadata = Path(dataset_directory), read_metadata(dataset_directory)
    if split not in metadata["split"]["counts"]:
        raise ValueError(f"split must be one of {', '.join(metadata['split']['counts'])}: got {split!r}; correct it")
    if not metadata["split"]["counts"][split]:
        raise ValueError(
            f"a split that is read must have patients: got none in {split} of {metadata['split']['counts']}; prepare"
            " the dataset with a split that has some"
        )
    store = directory / "token_store" / split
    checksums = _fresh_checksums(store, metadata, split)
    if checksums is None and cache_dir:
        store = Path(cache_dir) / metadata["dataset_hash"] / split
        checksums = _fresh_checksums(store, metadata, split)
    if checksums is None:
        checksums = _build(directory, metadata, split, store, tell)
    mapped = {name: mapped_column(store / f"{name}.npy", checksum) for name, checksum in checksums.items()}
    columns = {name: column for name, column in mapped.items() if column is not None}
    if damaged := sorted(mapped.keys() - columns.keys()):
        raise ValueError(
            f"columns of the token store must have the checksums of store.json: got others for {damaged};"
            f" delete {store} and it is decoded again"
        )
    if (patients := len(columns["patient_id"])) != (expected := metadata["split"]["counts"][split]):
        raise ValueError(
            f"the token store of split {split} must hold {expected} patients, as metadata.json says: got {patients};"
            f" put the dataset's own metadata.json back, or delete {store} and it is decoded again"
        )
    outcomes = {name: columns.pop(f"outcome_{name}") for name in OUTCOMES[metadata["kind"]]}
    return PatientSequences(**columns, outcomes=outcomes)


def _fresh_checksums(store: Path, metadata: dict, split: str) -> dict[str, int] | None:
    """Return column → checksum, as store.json says, or None where the store must be made (again)."""
    try:
        record = read_object(store / "store.json")
    except (FileNotFoundError, ValueError):
        return None
    checksums = record.get("columns")
    names = {field.name for field in fields(PatientSequences)} - {"outcomes"}
    names |= {f"outcome_{name}" for name in OUTCOMES[metadata["kind"]]}
    if not isinstance(checksums, dict) or any(form_faults(checksums, dict[str, int])) or set(checksums) != names:
        return None
    said = {name: record.get(name) for name in ("version", "dataset_hash", "split")}
    fresh = said == {"version": _VERSION, "dataset_hash": metadata["dataset_hash"], "split": split}
    return checksums if fresh and type(said["version"]) is int else None


def _build(directory: Path, metadata: dict, split: str, store: Path, tell: Callable[[str], object]) -> dict[str, int]:
    """Decode a split into a folder of its own, which takes its place; who waits for another that does so has it too.

    Returns column → checksum.
    """
    files = _record_files(directory, split)
    try:
        with locked(store.with_name(f".{split}.build.lock"), stays=False):
            if (there := _fresh_checksums(store, metadata, split)) is not None:
                return there
            _check_records(directory, metadata, split, [path.name for path, _ in files], tell)
            with replaced(store, _ALL) as new:
                records = _parts(files, OUTCOMES[metadata["kind"]])
                return write_token_store(new, map(store_columns, records), metadata, split)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        raise OSError(
            "a dataset without a token store is decoded once, into a folder that may be written: got"
            f" '{error.strerror}' for {store.parent}; give --cache-dir FOLDER, with one that may be written, or"
            " copy the dataset into one"
        ) from error


def store_columns(sequences: PatientSequences) -> dict[str, np.ndarray]:
    """Return the columns under their names in the store."""
    columns = {field.name: getattr(sequences, field.name) for field in fields(sequences)}
    return columns | {f"outcome_{name}": values for name, values in columns.pop("outcomes").items()}


def write_token_store(
    folder: Path, parts: Iterable[dict[str, np.ndarray]], metadata: dict, split: str
) -> dict[str, int]:
    """Write a split's columns, a part at a time (see `store_columns`), and what is said of them, into an empty folder.

    Returns column → checksum. Raises ValueError where the parts do not hold as many patients as the dataset's metadata
    say, or patients of another split.
    """
    patient_ids, columns = [], {}
    with contextlib.ExitStack() as open_files:
        for part in parts:
            patient_ids.append(part["patient_id"])
            for name in part.keys() - {"patient_id"}:
                if name not in columns:
                    columns[name] = ColumnFile(folder / f"{name}.npy", part[name].dtype, open_files)
                columns[name].append(part[name], offsets=name.endswith("_offsets"))
        # The longest id sets the width of the column, so it is written when all are known.
        ids = np.concatenate(patient_ids)
        if len(ids) != (expected := metadata["split"]["counts"][split]):
            raise ValueError(
                f"the files of split {split} must hold {expected} patients, as metadata.json says: got {len(ids)};"
                " prepare the dataset again"
            )
        if strangers := _of_other_splits(ids, metadata["split"], split):
            raise ValueError(
                f"the files of split {split} must hold its own patients, as the key and ratios of metadata.json say:"
                f" got {strangers:,} of other splits among {len(ids):,}; give the files their names back, or prepare"
                " the dataset again"
            )
        columns["patient_id"] = ColumnFile(
            folder / "patient_id.npy", np.dtype(f"S{max(1, np.strings.str_len(ids).max(initial=1))}"), open_files
        )
        columns["patient_id"].append(ids)
        checksums = {name: columns[name].finish() for name in sorted(columns)}
    record = {
        "version": _VERSION,
        "dataset_hash": metadata["dataset_hash"],
        "split": split,
        "columns": checksums,
    }
    write_json(folder / "store.json", record)
    return checksums


def _of_other_splits(ids: np.ndarray, rule: dict, split: str) -> int:
    """How many patients a keyed hash puts elsewhere; none where the splits were given and not drawn."""
    if not rule.get("ratios"):
        return 0
    place = assign_split(ids, key=rule["key"], ratios=tuple(rule["ratios"]))
    return int(np.count_nonzero(place != SPLITS.index(split)))


def _record_files(directory: Path, split: str) -> list[tuple[Path, int]]:
    """Return the ArrayRecord files of a split and how many records each must have, from dataset_info.json."""
    info = read_dataset_info(directory)
    lengths = {one["name"]: one["shardLengths"] for one in info["splits"]}.get(split)
    if lengths is None:
        raise ValueError(
            f"dataset_info.json must have the splits of metadata.json: got no {split} in {directory}; copy"
            " the file again, or prepare the dataset again"
        )
    name, shards = info["name"], len(lengths)
    files = [
        (directory / f"{name}-{split}.array_record-{shard:05d}-of-{shards:05d}", int(length))
        for shard, length in enumerate(lengths)
    ]
    if missing := [path.name for path, _ in files if not path.is_file()]:
        raise FileNotFoundError(
            f"the files of a dataset must all be there: {len(missing)} of {len(files)} are missing in {directory};"
            " copy them too, or prepare the dataset again"
        )
    return files


def _check_records(
    directory: Path, metadata: dict, split: str, names: list[str], tell: Callable[[str], object]
) -> None:
    """Raise ValueError where files of a split are another dataset's; tell where nothing says whose they are."""
    if SUMS in metadata:
        check_files(directory / "metadata.json", metadata, names, _AGAIN)
    else:
        tell(
            f"the records of split {split} are taken as they are: metadata.json of {directory} says no {SUMS} of them,"
            " as those of earlier versions; prepare the dataset again to have them compared"
        )


def _parts(files: list[tuple[Path, int]], outcomes: dict[str, type]) -> Iterator[PatientSequences]:
    """Yield the patients of the records, a chunk at a time."""
    from array_record.python import array_record_module

    for path, length in files:
        try:
            reader = array_record_module.ArrayRecordReader(os.fspath(path))
            found = reader.num_records()
            if found == length:
                for start in range(0, length, _RECORDS_AT_ONCE):
                    records = reader.read(start, min(start + _RECORDS_AT_ONCE, length))
                    yield _in_order(decode_records(records, outcomes), path)
                reader.close()
        except RuntimeError:  # what the library says of a damaged file
            found = "a damaged file"
        if found != length:
            raise ValueError(
                f"{path.name} must hold {length} records, as dataset_info.json says: got {found};"
                " copy the file again, or prepare the dataset again"
            )


def _in_order(sequences: PatientSequences, path: Path) -> PatientSequences:
    """Return the sequences; ValueError where visits or ranks are not numbered. Ids are the model's to look at."""
    found = sequence_faults(sequences, vocabulary_size=np.iinfo(np.int32).max)
    if faults := [line for rule, line in found.items() if rule in ("visit_ids", "serialization_ids")]:
        raise ValueError("\n".join([*faults, f"so it is in {path}; copy the file again, or prepare the dataset again"]))
    return sequences
