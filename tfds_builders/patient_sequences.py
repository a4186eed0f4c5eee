"""What both dataset families share: the features, and the writing of EHR tables as a TFDS dataset by shards.

TFDS's own generator path makes examples one by one in Python, writes their features in an order that changes
from process to process, and needs TensorFlow once a split passes a gigabyte. So these builders fill in
`_download_and_prepare` themselves and write whole shards; everything that TFDS reads (features.json,
dataset_info.json, ArrayRecord files of tf.train.Example, one record per group) is as TFDS writes it.
"""

import dataclasses
import functools
import hashlib
import json
import os
import tempfile
import time
import types
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from tensorflow_datasets.core.dataset_builder import FileReaderBuilder

from medbert_jax.data.example_records import (
    CODE_FEATURES,
    OUTCOMES,
    PATIENT_FEATURES,
    VISIT_FEATURES,
    encode_records,
)
from medbert_jax.data.sequences import PatientSequences
from medbert_jax.data.serialization import SerializationConfig, with_vocabulary
from medbert_jax.data.vocabulary import UNK, Vocabulary
from medbert_jax.ehr.hashing import SPLITS, assign_split, patient_hash
from medbert_jax.ehr.ledger import Ledger
from medbert_jax.ehr.schema import EhrTables
from medbert_jax.ehr.tables import read_shard, read_source

_RECORDS_AT_ONCE = 10_000  # fastest: the arrays stay in the cache


def sequence_features(kind: str) -> tfds.features.FeaturesDict:
    """Return the features of a "pretraining" or "cohort" dataset."""
    whole_numbers = tfds.features.Tensor(shape=(None,), dtype=np.int32)
    return tfds.features.FeaturesDict(
        {
            "patient_id": tfds.features.Text(),
            **dict.fromkeys((*CODE_FEATURES, *VISIT_FEATURES), whole_numbers),
            **{name: tfds.features.Scalar(np.int32) for name in PATIENT_FEATURES},
            **{name: tfds.features.Scalar(dtype) for name, dtype in OUTCOMES[kind].items()},
        }
    )


@dataclasses.dataclass(eq=False, kw_only=True)
class SequencesConfig(tfds.core.BuilderConfig):
    """What every dataset of patient sequences is made from; `name` is the dataset's name."""

    ehr_directory: Path
    preset: str
    serialization: SerializationConfig
    split_key: str
    ratios: tuple[float, float, float]
    announce: Callable[[str], None]

    def recipe(self) -> dict:
        """Return all that decides the dataset's content, as JSON data."""
        return {
            "ehr_content_hash": read_source(self.ehr_directory).content_hash,
            "preset": self.preset,
            "serialization": dataclasses.asdict(self.serialization),
            "split": {"key": self.split_key, "ratios": list(self.ratios)},
        }


@dataclasses.dataclass(frozen=True)
class SerializedShard:
    """One shard before there is a vocabulary: code_ids are places in `codes`, race is from 1 in `races`."""

    histories: PatientSequences
    codes: np.ndarray
    races: tuple[str, ...]
    split: np.ndarray
    """(n,) int8, places in SPLITS."""


class PatientSequencesBuilder(FileReaderBuilder, skip_registration=True):
    """Serializes the EHR tables shard by shard; then vocabulary, records, ledger and metadata.

    A subclass says what a shard's histories are, what it wants to know of each shard, what the vocabulary is,
    and which datasets must not be made.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Patient sequences as in the paper, whole histories."}  # noqa: RUF012
    KIND: str

    def histories(self, tables: EhrTables, races: tuple[str, ...]) -> tuple[PatientSequences, np.ndarray, Ledger]:
        """Return the histories of one shard, its codes and its ledger, as `order_histories` does."""
        raise NotImplementedError

    def see(self, shard: SerializedShard) -> None:
        """Take note of a serialized shard."""
        raise NotImplementedError

    def vocabulary(self) -> Vocabulary:
        """Return the vocabulary; every shard was seen."""
        raise NotImplementedError

    def check(self, counts: dict[str, int], ledger: Ledger) -> None:
        """Raise ValueError where patients per split, or what was seen, forbid the dataset."""
        raise NotImplementedError

    def describe(self, unknown_code_share: dict[str, float]) -> dict:
        """Return metadata of this family; raise ValueError where the shares forbid the dataset."""
        raise NotImplementedError

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{type(self).__doc__}\nMade by medbert_jax from EHR tables.",
            features=sequence_features(self.KIND),
            metadata=tfds.core.MetadataDict(),
        )

    def _download_and_prepare(self, dl_manager, download_config=None) -> None:
        del dl_manager, download_config  # nothing is downloaded
        config, directory = self.builder_config, Path(self.data_dir)
        source = read_source(config.ehr_directory)
        with tempfile.TemporaryDirectory(dir=directory, prefix="serialized.") as folder:
            spill = Path(folder)
            sizes, races, ledger = self._serialize_shards(source.shards, spill)
            counts = dict(zip(SPLITS, sizes.sum(axis=0).tolist(), strict=True))
            self.check(counts, ledger)
            vocabulary = self.vocabulary()
            splits, unknown_codes = self._write_shards(spill, sizes, races, vocabulary)
        recipe = config.recipe()
        hashed = json.dumps([str(self.version), recipe, vocabulary.hash], sort_keys=True)
        self.info.metadata.update(
            {
                "kind": self.KIND,
                "preset": config.preset,
                "serialization": recipe["serialization"],
                "source": dataclasses.asdict(source),
                "split": {**recipe["split"], "counts": counts},
                "vocabulary_hash": vocabulary.hash,
                "dataset_hash": hashlib.sha256(hashed.encode()).hexdigest(),
                "recipe": recipe,
                "races": races,
                "cohort": None,
                "unknown_code_share": unknown_codes,
                "time_is_ordinal": not source.has_dates,
                **self.describe(unknown_codes),
            }
        )
        vocabulary.write(directory / "vocabulary.tsv")
        (directory / "ledger.json").write_text(json.dumps(ledger.to_dict(), indent=1, ensure_ascii=False))
        self.info.set_splits(tfds.core.SplitDict(splits))

    def _serialize_shards(self, shards: int, spill: Path) -> tuple[np.ndarray, list[str], Ledger]:
        """Put every serialized shard into `spill`; return patients (shards, splits), races and ledger."""
        config, started = self.builder_config, time.monotonic()
        sizes, races, ledgers, hashes = [], set(), [], []
        for number in range(shards):
            tables = read_shard(config.ehr_directory, number)
            shard_races = tuple(tables.patients["race"].drop_nulls().unique().sort())
            histories, codes, ledger = self.histories(tables, shard_races)
            split = np.zeros(0, np.int8)
            if len(histories):
                split = assign_split(histories.patient_id, key=config.split_key, ratios=config.ratios)
                hashes.append(patient_hash(histories.patient_id, "unique"))
            shard = SerializedShard(histories, codes, shard_races, split)
            self.see(shard)
            _spill(spill / f"{number}.npz", shard)
            sizes.append(np.bincount(split, minlength=len(SPLITS)))
            races |= set(shard_races)
            ledgers.append(ledger)
            config.announce(_progress("serialized", number + 1, shards, int(np.sum(sizes)), started))
        _check_unique(hashes)
        return np.array(sizes), sorted(races), functools.reduce(Ledger.merge, ledgers)

    def _write_shards(
        self, spill: Path, sizes: np.ndarray, races: list[str], vocabulary: Vocabulary
    ) -> tuple[list[tfds.core.SplitInfo], dict[str, float]]:
        """Write one file per shard and split that has patients; return the splits and their UNK shares."""
        started, written = time.monotonic(), 0
        lengths: dict[str, list[int]] = {split: [] for split in SPLITS}
        size, codes, unknown = (dict.fromkeys(SPLITS, 0) for _ in range(3))
        for number in range(len(sizes)):
            shard = _spilled(spill / f"{number}.npz")
            sequences = with_vocabulary(shard.histories, shard.codes, vocabulary)
            race = np.array([0, *(races.index(name) + 1 for name in shard.races)], np.int32)
            sequences = dataclasses.replace(sequences, race=race[sequences.race])
            for place in np.flatnonzero(sizes[number]):
                split, part = SPLITS[place], sequences.take(shard.split == place)
                path = self._get_filename_template(split).sharded_filepath(
                    shard_index=len(lengths[split]), num_shards=int((sizes[:, place] > 0).sum())
                )
                size[split] += _write_records(os.fspath(path), part)
                lengths[split].append(len(part))
                codes[split] += len(part.code_ids)
                unknown[split] += int((part.code_ids == UNK).sum())
                written += len(part)
            self.builder_config.announce(_progress("written", number + 1, len(sizes), written, started))
        splits = [
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=lengths[split],
                num_bytes=size[split],
                filename_template=self._get_filename_template(split),
            )
            for split in SPLITS
            if lengths[split]
        ]
        return splits, {split: unknown[split] / max(codes[split], 1) for split in SPLITS if lengths[split]}

    # Nothing is downloaded: no folder for it, and no word of it on the terminal.
    def _make_download_manager(self, *args, **kwargs):
        return types.SimpleNamespace(downloaded_size=0)

    def _log_download_bytes(self) -> None: ...

    def _log_download_done(self) -> None: ...


def _spill(path: Path, shard: SerializedShard) -> None:
    columns = dict(vars(shard.histories))
    columns |= {f"outcomes.{name}": values for name, values in columns.pop("outcomes").items()}
    np.savez(path, codes=shard.codes, races=np.array(shard.races, np.str_), split=shard.split, **columns)


def _spilled(path: Path) -> SerializedShard:
    with np.load(path) as stored:
        columns = dict(stored)
    codes, races, split = (columns.pop(name) for name in ("codes", "races", "split"))
    outcomes = {name: columns.pop(name) for name in list(columns) if name.startswith("outcomes.")}
    outcomes = {name.removeprefix("outcomes."): values for name, values in outcomes.items()}
    return SerializedShard(PatientSequences(**columns, outcomes=outcomes), codes, tuple(races.tolist()), split)


def _write_records(path: str, sequences: PatientSequences) -> int:
    """Write an ArrayRecord file; return the bytes of its records. One record per group: random access."""
    writer, size = array_record_module.ArrayRecordWriter(path, "group_size:1"), 0
    for start in range(0, len(sequences), _RECORDS_AT_ONCE):
        part = sequences.take(np.arange(start, min(start + _RECORDS_AT_ONCE, len(sequences))))
        for record in encode_records(part):
            writer.write(record)
            size += len(record)
    writer.close()
    return size


def _check_unique(hashes: Iterable[np.ndarray]) -> None:
    hashes = np.concatenate([np.zeros(0, np.uint64), *hashes])
    if repeated := len(hashes) - len(np.unique(hashes)):
        raise ValueError(
            f"patient_id must be in one row of one shard: got {repeated} of {len(hashes)} patients again;"
            " write the EHR tables again with `medbert ingest`"
        )


def _progress(what: str, done: int, shards: int, patients: int, started: float) -> str:
    seconds = max(time.monotonic() - started, 1e-9)
    left = seconds / done * (shards - done)
    return f"{what} shard {done}/{shards}: {patients:,} patients, {patients / seconds:,.0f}/s, {left:.0f} s left"
