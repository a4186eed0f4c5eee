"""The two steps of a dataset, each a pure function of one shard that leaves files and a done-marker in a work folder.

`serialize_shard`: EHR tables → histories with the shard's own code numbers, and what the vocabulary, the ledger and the
checks need of them. `write_shard`: those histories and the vocabulary → ArrayRecord files. In between, `gather` reads
the markers of all shards. Whoever calls them, in whatever order, how often, in how many processes: the bytes are the
same. This module imports no TFDS, so that a worker starts fast.
"""

import dataclasses
import functools
import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from array_record.python import array_record_module

from medbert_jax.cohorts.select import count_flagged, select_cohort
from medbert_jax.cohorts.spec import CohortSpec
from medbert_jax.data.example_records import encode_records
from medbert_jax.data.sequences import PatientSequences
from medbert_jax.data.serialization import SerializationConfig, count_patients, order_histories, with_vocabulary
from medbert_jax.data.vocabulary import UNK, Vocabulary
from medbert_jax.ehr.hashing import SPLITS, patient_hash
from medbert_jax.ehr.icd import back_off
from medbert_jax.ehr.ledger import Ledger
from medbert_jax.ehr.tables import read_shard
from tfds_builders.splits import GIVEN, Split
from tfds_builders.work_folder import WorkFolder, write_columns

SERIALIZED = "serialized"
_RECORDS_AT_ONCE = 10_000  # fastest: the arrays stay in the cache


@dataclass(frozen=True)
class ShardJob:
    """What both steps must know beside the number of their shard: plain data, which can be sent to any machine."""

    ehr_directory: Path
    work: WorkFolder
    serialization: SerializationConfig
    split: Split
    fit_on_everybody: bool = False
    """Whether held-out patients count for the vocabulary too. Released code: yes. Paper: training patients alone."""
    cohort: CohortSpec | None = None
    back_off: bool = False
    """Whether a code that the vocabulary does not know becomes its nearest ancestor there (ICD alone)."""


@dataclass(frozen=True)
class Serialized:
    """What the markers of all shards say, in the order of the shards."""

    sizes: np.ndarray
    """(shards, splits) patients."""
    cases: np.ndarray
    """(splits,) patients with label 1."""
    flags: dict[str, int]
    races: tuple[str, ...]
    ledger: Ledger


def serialize_shard(job: ShardJob, shard: int) -> int:
    """Select, order and split the patients of a shard; return its number."""
    tables = read_shard(job.ehr_directory, shard)
    races = tuple(tables.patients["race"].drop_nulls().unique().sort())
    chosen = selection = None
    if job.cohort is not None:
        chosen, selection = select_cohort(tables, job.cohort)
    histories, codes, ledger = order_histories(tables, job.serialization, until=chosen, races=races)
    split = job.split.assign(job.ehr_directory, histories.patient_id)
    if job.split.key == GIVEN:
        left = histories.take(split < 0)
        counts = {"patients": len(left), "visits": len(left.visit_days), "codes": len(left.code_ids)}
        ledger.leave("no_split", "Patients whom splits.parquet puts into no split", **counts)
        histories, split = histories.take(split >= 0), split[split >= 0]
    flags, cases = {}, np.zeros(len(split), bool)
    if chosen is not None:
        ledger = _continued(selection, ledger)
        # Of those who stay: the serialization lets some of the selected leave.
        stays = chosen["patient_id"].cast(pl.Binary).is_in(histories.patient_id.tolist())
        flags, cases = count_flagged(chosen.filter(stays), job.cohort), histories.outcomes["label"] == 1
    fitted_on = np.flatnonzero(job.fit_on_everybody | (split == SPLITS.index("train")))
    counted, patients = count_patients(histories.take(fitted_on), codes)
    hashes = patient_hash(histories.patient_id, "unique") if len(histories) else np.zeros(0, np.uint64)
    columns = dict(vars(histories))
    columns |= {f"outcomes.{name}": values for name, values in columns.pop("outcomes").items()}
    columns |= {"codes": codes, "races": np.array(races, np.str_), "split": split}
    files = {
        "sequences": columns,
        "counts": {"codes": counted, "patients": patients},
        "patients": {"hash": hashes, "split": split},
    }
    note = {
        "sizes": np.bincount(split, minlength=len(SPLITS)).tolist(),
        "cases": np.bincount(split[cases], minlength=len(SPLITS)).tolist(),
        "flags": flags,
        "races": races,
        "ledger": ledger.to_dict(),
    }
    writers = {name: functools.partial(write_columns, columns=values) for name, values in files.items()}
    job.work.seal(SERIALIZED, shard, writers, note)
    return shard


def write_shard(job: ShardJob, vocabulary: Vocabulary, races: tuple[str, ...], shard: int) -> int:
    """Write one ArrayRecord file per split that has patients of this shard; return its number.

    `races` are the names behind the numbers 1, 2, … of race in the dataset.
    """
    sequences, split = _read_sequences(job, shard, vocabulary, races)
    files, note = {}, {}
    for place in np.unique(split):
        name, part = SPLITS[place], sequences.take(split == place)
        unknown = int((part.code_ids == UNK).sum())
        note[name] = {"patients": len(part), "codes": len(part.code_ids), "unknown": unknown}
        files[name] = functools.partial(_write_records, sequences=part, counts=note[name])
    job.work.seal(written(vocabulary, races), shard, files, note)
    return shard


def written(vocabulary: Vocabulary, races: tuple[str, ...]) -> str:
    """Return the name of the second step: another vocabulary, or other races, are other work."""
    return f"written-{hashlib.sha256(repr((vocabulary.hash, races)).encode()).hexdigest()[:12]}"


def gather(work: WorkFolder, shards: int) -> Serialized:
    """Return what is known of all shards; all are serialized."""
    notes = [work.note(SERIALIZED, shard, verify=()) for shard in range(shards)]
    flags = Counter()
    for note in notes:
        flags.update(note["flags"])
    return Serialized(
        sizes=np.array([note["sizes"] for note in notes]),
        cases=np.sum([note["cases"] for note in notes], axis=0),
        flags=dict(flags),
        races=tuple(sorted({race for note in notes for race in note["races"]})),
        ledger=functools.reduce(Ledger.merge, (Ledger.from_dict(note["ledger"]) for note in notes)),
    )


def code_counts(work: WorkFolder, shards: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the codes of each shard and how many patients have them: for `fit_vocabulary`."""
    for shard in range(shards):
        counts = work.columns(SERIALIZED, shard, "counts")
        yield counts["codes"], counts["patients"]


def patient_hashes(work: WorkFolder, shards: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a hash of every patient id, and his split."""
    columns = [work.columns(SERIALIZED, shard, "patients") for shard in range(shards)]
    return tuple(np.concatenate([part[name] for part in columns]) for name in ("hash", "split"))


def _continued(selection: Ledger, serialized: Ledger) -> Ledger:
    """Return the selection's ledger with the serialization's lines after its own."""
    if selection.kept != serialized.came:
        raise RuntimeError(
            "what the cohort's selection keeps must be what is serialized, difference 0: got"
            f" {selection.kept} and {serialized.came}; this is a fault of the program"
        )
    lines = [dataclasses.replace(line, rule=f"serialization:{line.rule}") for line in serialized.lines]
    return Ledger(selection.title, selection.came, [*selection.lines, *lines])


def _read_sequences(
    job: ShardJob, shard: int, vocabulary: Vocabulary, races: tuple[str, ...]
) -> tuple[PatientSequences, np.ndarray]:
    """Return the histories of a shard, with the dataset's numbers of codes and races, and their splits."""
    columns = job.work.columns(SERIALIZED, shard, "sequences")
    codes, names, split = (columns.pop(name) for name in ("codes", "races", "split"))
    outcomes = {name: columns.pop(name) for name in list(columns) if name.startswith("outcomes.")}
    outcomes = {name.removeprefix("outcomes."): values for name, values in outcomes.items()}
    race = np.array([0, *(races.index(name) + 1 for name in names.tolist())], np.int32)[columns.pop("race")]
    histories = PatientSequences(**columns, race=race, outcomes=outcomes)
    if job.back_off:
        codes = back_off(codes, vocabulary.codes)
    return with_vocabulary(histories, codes, vocabulary), split


def _write_records(path: Path, sequences: PatientSequences, counts: dict[str, int]) -> None:
    """Write an ArrayRecord file, and the bytes of its records into `counts`. One record per group: random access."""
    writer, size = array_record_module.ArrayRecordWriter(os.fspath(path), "group_size:1"), 0
    for start in range(0, len(sequences), _RECORDS_AT_ONCE):
        part = sequences.take(np.arange(start, min(start + _RECORDS_AT_ONCE, len(sequences))))
        for record in encode_records(part):
            writer.write(record)
            size += len(record)
    writer.close()
    counts["bytes"] = size
