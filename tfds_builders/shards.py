"""The two steps of a dataset, each a pure function of one shard that leaves files and a done-marker in a work folder.

`serialize_shard`: EHR tables → histories with the shard's own code numbers, and what the vocabulary, the ledger and the
checks need of them. `write_shard`: those histories and the vocabulary → ArrayRecord files and columns. In between,
`gather` reads the markers of all shards. Whoever calls them, in whatever order, how often, in how many processes: the
bytes are the same. This module imports no TFDS, so that a worker starts fast.
"""

import functools
import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from medbert_jax.attrition.ledger import Counts, Ledger
from medbert_jax.cohorts.ahead import DEATH_DAY, TIMES
from medbert_jax.cohorts.censoring import with_censoring_weights
from medbert_jax.cohorts.meds_labels import LabelFolder
from medbert_jax.cohorts.select import UNKNOWN, count_flagged, select_cohort
from medbert_jax.cohorts.spec import CohortSpec
from medbert_jax.data.sequences import PatientSequences
from medbert_jax.data.serialization import (
    IN_LEDGER,
    SerializationConfig,
    count_patients,
    order_histories,
    with_vocabulary,
)
from medbert_jax.data.token_store import store_columns
from medbert_jax.data.vocabulary import UNK, Vocabulary
from medbert_jax.disk.tables_on_disk import scan_parquet
from medbert_jax.disk.whole_files import sha256_of
from medbert_jax.ehr.hashing import SPLITS
from medbert_jax.ehr.icd import back_off
from medbert_jax.ehr.known import PREDICTION
from medbert_jax.ehr.schema import EhrSource
from medbert_jax.ehr.shard_files import SPLITS_FILE
from medbert_jax.ehr.split_rule import GIVEN, Split
from medbert_jax.ehr.tables import read_shard, read_source
from tfds_builders.excluded_cohort import ExcludedCohort
from tfds_builders.period import outside_period
from tfds_builders.predictions import hashed_patients, may_be_several, patients_with, predictions
from tfds_builders.record_files import write_records
from tfds_builders.work_folder import WorkFolder, write_columns

SERIALIZED = "serialized"
EXCLUDED = "excluded_cohort"
"""The ledger's line of patients who are left out with a cohort."""


@dataclass(frozen=True)
class ShardJob:
    """What both steps must know beside the number of their shard: plain data, which can be sent to any machine."""

    ehr_directory: Path
    content_hash: str
    shards: int
    """The two say which EHR tables: others in that folder are refused."""
    work: WorkFolder
    serialization: SerializationConfig
    split: Split
    fit_on_everybody: bool = False
    """Whether held-out patients count for the vocabulary too. Released code: yes. Paper: training patients alone."""
    cohort: CohortSpec | LabelFolder | None = None
    excluded: ExcludedCohort | None = None
    """A cohort whose patients are left out of a pretraining."""
    back_off: bool = False
    """Whether a code that the vocabulary does not know becomes its nearest ancestor there (ICD alone)."""


@dataclass(frozen=True)
class Serialized:
    """What the markers of all shards say, in the order of the shards."""

    sizes: np.ndarray
    """(shards, splits) patients; predictions, where one may have several."""
    patients: np.ndarray | None
    """(3, splits) where a patient may have several predictions: patients, those with label 1 at some time, with 0."""
    cases: np.ndarray
    """(splits,) of `sizes` with label 1."""
    censored: np.ndarray
    """(splits,) patients whose label is unknown."""
    died_first: np.ndarray
    """(splits,) patients with label 0 who died within the time at risk."""
    flags: dict[str, int]
    races: tuple[str, ...]
    ledger: Ledger
    by_shard: tuple[Ledger, ...]

    def ledgers(self) -> dict:
        """Return the ledger and that of each shard, as JSON data: ledger.json, as `medbert ingest` writes its own."""
        return {**self.ledger.to_dict(), "by_shard": [part.to_dict() for part in self.by_shard]}


def serialize_shard(job: ShardJob, shard: int) -> int:
    """Select, order and split the patients of a shard; return its number.

    Raises ValueError where other EHR tables than the job's are there, also when they came while the shard was read.
    """
    try:
        files, note = _serialized(job, shard)
    except (OSError, ValueError):
        check_source(job)  # tables that were replaced meanwhile look like damaged ones
        raise
    check_source(job)
    writers = {name: functools.partial(write_columns, columns=values) for name, values in files.items()}
    job.work.seal(SERIALIZED, shard, writers, note)
    return shard


def check_source(job: ShardJob, source: EhrSource | None = None) -> None:
    """Raise ValueError where the EHR tables (or `source`, what was read) are not those that the job is for."""
    source = source or read_source(job.ehr_directory)
    found = [f"content hash {source.content_hash[:12]} in {source.shards} shards"]
    wanted = [f"{job.content_hash[:12]} in {job.shards}"]
    same = (source.content_hash, source.shards) == (job.content_hash, job.shards)
    if same and job.split.sha256:
        sha256 = sha256_of(job.ehr_directory / SPLITS_FILE)
        same = sha256 == job.split.sha256
        found.append(f"sha256 {sha256[:12]} of {SPLITS_FILE}")
        wanted.append(job.split.sha256[:12])
    if not same:
        raise ValueError(
            f"EHR tables must stay as they are while a dataset is made of them: got {', '.join(found)} in"
            f" {job.ehr_directory}, and not {', '.join(wanted)}; give the same command again when nobody writes there:"
            " it makes the dataset of the tables that are there then"
        )


def _serialized(job: ShardJob, shard: int) -> tuple[dict[str, dict[str, np.ndarray]], dict]:
    """Return the columns of each file, and the note, of a shard."""
    tables = read_shard(job.ehr_directory, shard)
    check_source(job, tables.source)
    races = tuple(tables.patients["race"].drop_nulls().unique().sort())
    chosen = selection = None
    if job.cohort is not None:
        of_everybody = job.split.assign(job.ehr_directory, tables.patients["patient_id"])
        chosen, selection = select_cohort(tables, job.cohort, of_everybody)
    several = may_be_several(job.cohort)
    histories, codes, ledger = order_histories(tables, job.serialization, until=chosen, races=races, several=several)
    split = job.split.assign(job.ehr_directory, histories.patient_id)
    if job.split.key == GIVEN:
        lines = {"no_split": ("Patients whom splits.parquet puts into no split", split < 0)}
        histories, split = _without(lines, histories, split, ledger)
    if job.excluded is not None:
        text = f"Patients of the cohort {job.excluded.name}, which is excluded"
        lines = {EXCLUDED: (text, job.excluded.holds(histories.patient_id))}
        histories, split = _without(lines, histories, split, ledger)
    if isinstance(job.cohort, CohortSpec) and job.cohort.split is not None:
        lines = outside_period(job.cohort, split, histories.outcomes["prediction_time"])
        histories, split = _without(lines, histories, split, ledger, tag=job.cohort.split.tag)
    flags, cohort = {}, {}
    cases, censored, died_first = np.zeros((3, len(split)), bool)
    if chosen is not None and selection is not None:
        ledger = selection.followed_by(ledger, prefix=IN_LEDGER)
        # Of those who stay: the serialization lets some of the selected leave.
        rows = chosen.join(predictions(histories), on=PREDICTION, how="semi", maintain_order="left")
        flags, cases = count_flagged(rows), histories.outcomes["label"] == 1
        censored = histories.outcomes["label"] == UNKNOWN
        if DEATH_DAY in rows.columns:
            died_first = rows[DEATH_DAY].is_not_null().to_numpy()
        for_review = {name: rows[name].to_numpy() for name in rows.columns} | {"patient_id": histories.patient_id}
        cohort = {"cohort": for_review | {"split": split}}
    fitted_on = np.flatnonzero(job.fit_on_everybody | (split == SPLITS.index("train")))
    counted, patients = count_patients(histories.take(fitted_on), codes)
    places = histories.code_ids.astype(np.int64) * len(SPLITS) + np.repeat(split, histories.lengths)
    occurrences = np.bincount(places, minlength=len(codes) * len(SPLITS)).reshape(-1, len(SPLITS))
    columns = dict(vars(histories))
    columns |= {f"outcomes.{name}": values for name, values in columns.pop("outcomes").items()}
    columns |= {"codes": codes, "races": np.array(races, np.str_), "split": split}
    files = {
        "sequences": columns,
        "counts": {"codes": counted, "patients": patients},
        "occurrences": {"codes": codes, "occurrences": occurrences},
        "patients": hashed_patients(histories, split, several=several),
        **cohort,
    }
    note = {
        "ehr": [job.content_hash, job.shards],
        "sizes": np.bincount(split, minlength=len(SPLITS)).tolist(),
        **({"patients": patients_with(histories, split)} if several else {}),
        "cases": np.bincount(split[cases], minlength=len(SPLITS)).tolist(),
        "censored": np.bincount(split[censored], minlength=len(SPLITS)).tolist(),
        "died_first": np.bincount(split[died_first], minlength=len(SPLITS)).tolist(),
        "flags": flags,
        "races": races,
        "ledger": ledger.to_dict(),
    }
    return files, note


def write_shard(job: ShardJob, vocabulary: Vocabulary, races: tuple[str, ...], shard: int) -> int:
    """Write the records and the columns of each split that has patients of this shard; return its number.

    `races` are the names behind the numbers 1, 2, … of race in the dataset.
    """
    sequences, split = _read_sequences(job, shard, vocabulary, races)
    files, note = {}, {}
    for place in np.unique(split):
        name, part = SPLITS[place], sequences.take(split == place)
        note[name] = part.counts(several=may_be_several(job.cohort))
        files[name] = functools.partial(_write_records, sequences=part, counts=note[name])
        files[f"{name}.columns"] = functools.partial(write_columns, columns=store_columns(part))
    job.work.seal(written(vocabulary, races), shard, files, note)
    return shard


def written(vocabulary: Vocabulary, races: tuple[str, ...]) -> str:
    """Return the name of the second step: another vocabulary, or other races, are other work."""
    what = ("records and columns", vocabulary.hash, races)
    return f"written-{hashlib.sha256(repr(what).encode()).hexdigest()[:12]}"


def written_columns(work: WorkFolder, step: str, shards: int, split: str) -> Iterator[dict[str, np.ndarray]]:
    """Yield the columns of a split from the shards that have patients of it."""
    for shard in range(shards):
        if split in work.noted(step, shard):
            yield work.columns(step, shard, f"{split}.columns")


def gather(job: ShardJob) -> Serialized:
    """Return what is known of all shards; all are serialized. Raises ValueError for work on other EHR tables."""
    notes = [job.work.noted(SERIALIZED, shard) for shard in range(job.shards)]
    if other := sum(note["ehr"] != [job.content_hash, job.shards] for note in notes):
        raise ValueError(
            f"the work on every shard must be of one set of EHR tables: got {other} of {len(notes)} of others; delete"
            f" {job.work.path} and give the same command again"
        )
    ledgers = tuple(Ledger.from_dict(note["ledger"]) for note in notes)
    flags = Counter()
    for note in notes:
        flags.update(note["flags"])
    return Serialized(
        sizes=np.array([note["sizes"] for note in notes]),
        patients=np.sum([note["patients"] for note in notes], axis=0) if "patients" in notes[0] else None,
        cases=np.sum([note["cases"] for note in notes], axis=0),
        censored=np.sum([note["censored"] for note in notes], axis=0),
        died_first=np.sum([note["died_first"] for note in notes], axis=0),
        flags=dict(flags),
        races=tuple(sorted({race for note in notes for race in note["races"]})),
        ledger=functools.reduce(Ledger.merge, ledgers),
        by_shard=ledgers,
    )


def count_tables(job: ShardJob) -> Counts:
    """Return how many patients, visits and codes the EHR tables hold, as their files say: no column is read."""
    files = (sorted((job.ehr_directory / name).glob("*.parquet")) for name in ("patients", "visits", "diagnoses"))
    try:
        return Counts(*(scan_parquet(*of).select(pl.len()).collect().item() for of in files))
    except pl.exceptions.PolarsError:
        raise ValueError(
            f"EHR tables must be readable to the end: got {job.ehr_directory}, where a file is none any more; write"
            " the tables again from their source with `medbert ingest`"
        ) from None


def code_counts(work: WorkFolder, shards: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the codes of each shard and how many patients have them: for `fit_vocabulary`."""
    for shard in range(shards):
        counts = work.columns(SERIALIZED, shard, "counts")
        yield counts["codes"], counts["patients"]


def unknown_shares(job: ShardJob, vocabulary: Vocabulary) -> dict[str, float]:
    """Return split → share of its codes that become UNK, of the splits that have codes; all shards are serialized."""
    unknown, of = np.zeros((2, len(SPLITS)), np.int64)
    for shard in range(job.shards):
        columns = job.work.columns(SERIALIZED, shard, "occurrences")
        codes = back_off(columns["codes"], vocabulary.codes) if job.back_off else columns["codes"]
        unknown += columns["occurrences"][vocabulary.encode(codes) == UNK].sum(axis=0)
        of += columns["occurrences"].sum(axis=0)
    return {split: int(unknown[place]) / int(of[place]) for place, split in enumerate(SPLITS) if of[place]}


def patient_hashes(work: WorkFolder, shards: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a hash of every patient id, and his split."""
    columns = [work.columns(SERIALIZED, shard, "patients") for shard in range(shards)]
    hashes, splits = (np.concatenate([part[name] for part in columns]) for name in ("hash", "split"))
    return hashes, splits


def cohort_rows(work: WorkFolder, shards: int, cohort: CohortSpec | LabelFolder) -> pl.DataFrame:
    """Return `select_cohort`'s rows of the patients of a cohort dataset, with their split, in its order; of an outcome
    ahead with the weights that stand for the censored (`with_censoring_weights`)."""
    parts = [work.columns(SERIALIZED, shard, "cohort") for shard in range(shards)]
    frames = [
        pl.DataFrame({**part, "patient_id": pl.Series(part["patient_id"].tolist(), dtype=pl.Binary).cast(pl.String)})
        for part in parts
    ]
    split = pl.col("split").replace_strict(range(len(SPLITS)), SPLITS, return_dtype=pl.String)
    days = [pl.col(name).cast(pl.Float64).fill_nan(None).cast(pl.Int32) for name in TIMES if name in frames[0].columns]
    rows = pl.concat([frame.with_columns(days) for frame in frames]).with_columns(split).sort(PREDICTION)
    if not days or isinstance(cohort, LabelFolder):
        return rows
    return with_censoring_weights(rows, cohort.outcome.known_after_days)


def _without(
    lines: dict[str, tuple[str, np.ndarray]],
    histories: PatientSequences,
    split: np.ndarray,
    ledger: Ledger,
    *,
    tag: str = "ours",
) -> tuple[PatientSequences, np.ndarray]:
    """Return histories and splits of who is on no line (rule → text, (n,) bool); the others leave in the ledger."""
    for rule, (text, out) in lines.items():
        # Whoever leaves here leaves with all rows: splits and cohorts are of patients.
        ledger.leave(rule, text, tag=tag, **histories.take(out).counts(several=ledger.counts_predictions))
    stay = ~np.logical_or.reduce([out for _, out in lines.values()])
    return histories.take(stay), split[stay]


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
    counts["bytes"] = write_records(path, sequences)
