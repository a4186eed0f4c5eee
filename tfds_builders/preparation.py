"""From EHR tables to a dataset: each shard serialized, the vocabulary, each shard written, and the merge; once.

On one machine a process pool works on the shards. On a cluster with a batch scheduler the same command is given in
three jobs, each after the one before (Slurm: `--dependency=afterok:…`), on a file system that all nodes see:

    sbatch --array=0-63 …   medbert prepare EHR NAME --shard $SLURM_ARRAY_TASK_ID/64    # serializes
    sbatch --array=0-63 …   medbert prepare EHR NAME --shard $SLURM_ARRAY_TASK_ID/64    # writes
    sbatch …                medbert prepare EHR NAME                                    # merges

Task i of N has the shards of the EHR tables whose number, divided by N, leaves i. It does what can be done: when every
shard is serialized the vocabulary is known, and then it writes. The last command does what is missing, compares all
checksums and counts, and makes the dataset appear. The order of tasks, their number and that of the workers change no
byte; a task that failed, or a run that was killed, is started again and goes on where it stopped. With options for
Apache Beam its workers take the place of the pool: see `tfds_builders.beam_pipeline`.

Until the dataset is there, what was done lies beside it in VERSION.work-…, under done-markers (`WorkFolder`).
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
import re
import shutil
from collections.abc import Callable, Generator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from medbert_jax.attrition.ledger import Counts
from medbert_jax.data.metadata import METADATA_VERSION
from medbert_jax.data.vocabulary import Vocabulary, check_unknown, fit_vocabulary, with_titles
from medbert_jax.ehr.hashing import SPLITS
from medbert_jax.ehr.tables import read_titles
from tfds_builders.excluded_cohort import COHORT_TABLE
from tfds_builders.existing_dataset import is_as_asked, take_existing
from tfds_builders.ingredients import Ingredients
from tfds_builders.options import CohortOptions, PrepareOptions
from tfds_builders.patient_sequences import Made, PatientSequencesBuilder
from tfds_builders.predictions import check_one_split
from tfds_builders.shards import (
    SERIALIZED,
    Serialized,
    ShardJob,
    check_source,
    code_counts,
    cohort_rows,
    count_tables,
    gather,
    patient_hashes,
    serialize_shard,
    unknown_shares,
    write_shard,
    written,
    written_columns,
)
from tfds_builders.tasks import do, each_shard, shards_of
from tfds_builders.work_folder import WorkFolder, not_written, one_at_a_time

_WORK_VERSION = 3  # another one makes everything anew: to be raised when the two steps change
_HASH_VERSION = 2  # of dataset_hash: to be raised when the same recipe makes other sequences


def prepare(
    builder_class: type[PatientSequencesBuilder],
    ingredients: Ingredients,
    options: PrepareOptions | CohortOptions,
    *,
    check: Callable[[Serialized, WorkFolder, Path], None],
    describe: Callable[[Serialized], dict],
    announce: Callable[[str], None],
) -> Path | None:
    """Return the dataset's directory, DATA_DIR/FAMILY/NAME/VERSION, which appears whole or not at all.

    A dataset of that name is returned as it is when it was made by the same recipe and is whole; any other is replaced,
    where `options.replace` says so, once the new one is whole. With `options.shard`
    the part of one task is done, and None is returned. What unfinished runs of that name left is removed in the end.

    Args:
        builder_class: the family.
        ingredients: what the dataset is made from.
        options: of the command; these functions read what both families have.
        check: raises ValueError where what was found in the shards, with the work on them, forbids the dataset that
            would stand in the directory.
        describe: returns the metadata that this family has beside that of every dataset.
        announce: gets one line per shard and step.

    Raises:
        ValueError: a name that cannot be a folder, another or a damaged dataset under that name, a `shard` that is
            none, EHR tables that were replaced meanwhile, a vocabulary that knows too little, or patients that must
            not become a dataset; the work on these is removed, other work stays.
        OSError: a disk that takes no more.
        ChildProcessError: a worker died.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", options.name):
        raise ValueError(
            "a dataset's name must be letters, digits, '-', '_' and '.', and become a folder:"
            f" got {options.name!r}; choose such a name"
        )
    shards, alone = ingredients.source.shards, options.shard is None
    mine, recipe = shards_of(options.shard, shards), json.loads(json.dumps(ingredients.recipe()))
    version = str(builder_class.VERSION)
    directory = options.data_dir / builder_class.name / options.name / version
    # Tasks need not wait for one another: their files appear whole, and a shard done twice has the same bytes.
    with one_at_a_time(directory.parent, announce) if alone else contextlib.nullcontext():
        if alone:
            _bring_back(directory)
        if directory.exists() and not (options.replace and not is_as_asked(directory, recipe)):
            take_existing(directory, recipe, options.unknown_code_limit, announce)
            if alone:
                _remove_leftovers(directory, announce)
            return directory
        hashed = json.dumps([_WORK_VERSION, version, recipe, shards], sort_keys=True)
        work = WorkFolder(directory.with_name(f"{version}.work-{hashlib.sha256(hashed.encode()).hexdigest()[:12]}"))
        job = ingredients.job(work)
        with work.in_use(), each_shard(options.workers, options.beam, ingredients.ehr_directory) as each:
            # 1 Each shard serialized
            do(functools.partial(serialize_shard, job), SERIALIZED, mine, work, each, announce)
            there = sum(work.note(SERIALIZED, number, verify=()) is not None for number in range(shards))
            if there < shards:  # never where one process does all
                announce(f"{there} of {shards} shards are serialized; give the command again when all are")
                return None
            found = gather(job)
            if alone:
                _check_rows(job, found)
                with _removed_where_refused(work):
                    check(found, work, directory)

            # 2 The vocabulary
            vocabulary, unknown = _vocabulary(ingredients, job, options.unknown_code_limit, announce)

            # 3 Each shard written
            step = written(vocabulary, found.races)
            do(functools.partial(write_shard, job, vocabulary, found.races), step, mine, work, each, announce)
            if not alone:
                return None

            # 4 The merge, and the dataset
            made = _merge(builder_class, ingredients, recipe, work, found, vocabulary, unknown, describe(found))
            with _replaced(directory):
                _build(builder_class, options, made)
        if not work.remove_unless_used():
            announce(f"a task is still busy in {work.path}: the next command removes it")
        for left in directory.parent.glob(f"{version}.incomplete*"):
            shutil.rmtree(left, ignore_errors=True)
        _remove_leftovers(directory, announce)
        return directory


@contextlib.contextmanager
def _removed_where_refused(work: WorkFolder) -> Generator[None]:
    """Remove the work on patients who must not become a dataset; another failure leaves it, to be gone on with."""
    try:
        yield
    except ValueError:
        shutil.rmtree(work.path, ignore_errors=True)
        raise


def _check_rows(job: ShardJob, found: Serialized) -> None:
    """Raise ValueError where the EHR tables are others now, or not each of their rows was serialized once."""
    check_source(job)
    hashes, splits = patient_hashes(job.work, job.shards)
    with _removed_where_refused(job.work):
        check_one_split(hashes, splits)
        if repeated := len(hashes) - len(np.unique(hashes)):
            raise ValueError(
                f"patient_id must be in one row of one shard: got {repeated} of {len(hashes)} patients again;"
                " write the EHR tables again with `medbert ingest`"
            )
        if found.ledger.came != (held := count_tables(job)):
            raise ValueError(
                f"every row of the EHR tables must be in one shard's ledger, difference 0: got {found.ledger.came} in"
                f" the ledgers and {held} in {job.ehr_directory}; give the same command again, and if this stays write"
                " the EHR tables again with `medbert ingest`"
            )


def _vocabulary(
    ingredients: Ingredients, job: ShardJob, unknown_code_limit: float, announce: Callable[[str], None]
) -> tuple[Vocabulary, dict[str, float]]:
    """Return the given vocabulary, or one that is fitted, and each split's share of codes that it does not know.

    Raises ValueError for an empty one, and where it knows too little.
    """
    vocabulary, fitted = ingredients.vocabulary, ingredients.vocabulary is None
    if vocabulary is None:
        counts = code_counts(job.work, job.shards)
        vocabulary = with_titles(
            fit_vocabulary(counts, minimum_patients=ingredients.minimum_patients), read_titles(job.ehr_directory)
        )
    elif not vocabulary.codes:
        raise ValueError("a vocabulary must hold codes: got one with reserved rows alone; give another")
    shares = unknown_shares(job, vocabulary)
    announce(f"codes unknown to the vocabulary: {check_unknown(shares, unknown_code_limit, fitted=fitted)}")
    return vocabulary, shares


def _merge(
    builder_class: type[PatientSequencesBuilder],
    ingredients: Ingredients,
    recipe: dict,
    work: WorkFolder,
    found: Serialized,
    vocabulary: Vocabulary,
    unknown: dict[str, float],
    described: dict,
) -> Made:
    """Return the dataset from the markers of all shards, whose checksums hold; `described`: by its family."""
    step, source = written(vocabulary, found.races), ingredients.source
    files, kept, content = {split: [] for split in SPLITS}, Counts(), []
    for number in range(source.shards):
        content.append(work.checksum(SERIALIZED, number, "sequences"))
        for split, part in work.noted(step, number).items():
            sha256 = work.checksum(step, number, split)
            records = part.get("predictions", part["patients"])
            files[split].append((work.file(step, number, split), records, part["bytes"], sha256))
            kept += Counts(**{level: count for level, count in part.items() if level != "bytes"})
    found.ledger.check(**kept.to_dict())
    # The sequences, whose order the shards decide, and not only what they were to be made by.
    hashed = json.dumps([_HASH_VERSION, str(builder_class.VERSION), recipe, vocabulary.hash, content], sort_keys=True)
    metadata = {
        "version": METADATA_VERSION,
        "kind": builder_class.KIND,
        "preset": ingredients.preset,
        "serialization": dataclasses.asdict(ingredients.serialization),
        "source": dataclasses.asdict(source),
        "split": {**recipe["split"], "counts": dict(zip(SPLITS, found.sizes.sum(axis=0).tolist(), strict=True))},
        "vocabulary_hash": vocabulary.hash,
        "dataset_hash": hashlib.sha256(hashed.encode()).hexdigest(),
        "recipe": recipe,
        "races": list(found.races),
        "cohort": None,
        "unknown_code_share": unknown,
        "time_is_ordinal": not source.has_dates,
        **described,
    }
    if found.patients is not None:
        metadata["patients"] = dict(zip(SPLITS, found.patients[0].tolist(), strict=True))
    tables = {}
    if ingredients.cohort is not None:
        tables[COHORT_TABLE] = cohort_rows(work, source.shards, ingredients.cohort)
    columns = {split: functools.partial(written_columns, work, step, source.shards, split) for split in SPLITS}
    return Made(metadata, vocabulary, found.ledgers(), files, columns, tables)


def _build(builder_class: type[PatientSequencesBuilder], options: PrepareOptions | CohortOptions, made: Made) -> None:
    # TFDS calls every dataset that it does not list itself a custom configuration, as a warning.
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        config = tfds.core.BuilderConfig(name=options.name)
        builder = builder_class(config=config, data_dir=options.data_dir, file_format="array_record")
        builder.made = made
        builder.download_and_prepare()  # ty: ignore[missing-argument]  # wrapt, around it, does not type its binding
    except OSError as error:
        raise not_written(error, Path(error.filename or options.data_dir)) from error
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _replaced(directory: Path) -> Generator[None]:
    """Move an earlier dataset aside while the block, which is short, puts another in its place; the lock is held."""
    earlier = _earlier(directory)
    if directory.exists():
        directory.rename(earlier)
    try:
        yield
    finally:
        _bring_back(directory)


def _bring_back(directory: Path) -> None:
    """Remove what `_replaced` moved aside; where nothing took its place, as when a run was killed, move it back."""
    earlier = _earlier(directory)
    if earlier.exists() and not directory.exists():
        earlier.rename(directory)
    shutil.rmtree(earlier, ignore_errors=True)


def _earlier(directory: Path) -> Path:
    return directory.with_name(f"{directory.name}.earlier")


def _remove_leftovers(directory: Path, announce: Callable[[str], None]) -> None:
    """Remove work that was never finished, of other settings or tables; the dataset's lock is held.

    Tasks hold no lock of the dataset, so that work in which one is busy stays.
    """
    left = sorted(directory.parent.glob(f"{directory.name}.work-*"))
    if removed := [path.name for path in left if WorkFolder(path).remove_unless_used()]:
        announce(f"removed what unfinished runs left in {directory.parent}: {', '.join(removed)}")
