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
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from medbert_jax.data.vocabulary import Vocabulary, check_unknown, fit_vocabulary, with_titles
from medbert_jax.ehr.hashing import SPLITS
from medbert_jax.ehr.ledger import Counts
from medbert_jax.ehr.workers import Workers
from tfds_builders.existing_dataset import take_existing
from tfds_builders.patient_sequences import Made, PatientSequencesBuilder, SequencesConfig
from tfds_builders.shards import (
    SERIALIZED,
    Serialized,
    ShardJob,
    check_source,
    code_counts,
    count_tables,
    gather,
    patient_hashes,
    serialize_shard,
    unknown_shares,
    write_shard,
    written,
)
from tfds_builders.work_folder import WorkFolder, not_written, one_at_a_time

_WORK_VERSION = 2  # another one makes everything anew: to be raised when the two steps change
_WORTH_PROCESSES = 16 * 2**20  # bytes of EHR tables that take longer than the start of processes


def prepare(
    builder_class: type[PatientSequencesBuilder],
    config: SequencesConfig,
    *,
    data_dir,
    workers: int = 0,
    shard: str | None = None,
    beam: Sequence[str] = (),
) -> Path | None:
    """Return the dataset's directory, DATA_DIR/FAMILY/NAME/VERSION, which appears whole or not at all.

    A dataset of that name is returned as it is when it was made by the same recipe and is whole. With `shard` "i/N" the
    part of one task of N is done, and None is returned. `workers` are processes (0: one per core, none beside this one
    for small tables), `beam` the options of an Apache Beam pipeline that is used instead. What unfinished runs of that
    name left is removed in the end.

    Raises:
        ValueError: a name that cannot be a folder, another or a damaged dataset under that name, a `shard` that is
            none, EHR tables that were replaced meanwhile, a vocabulary that knows too little, or patients that must
            not become a dataset; the work on these is removed, other work stays.
        OSError: a disk that takes no more.
        ChildProcessError: a worker died.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", config.name):
        raise ValueError(
            "a dataset's name must be letters, digits, '-', '_' and '.', and become a folder:"
            f" got {config.name!r}; choose such a name"
        )
    shards = config.source.shards
    mine, recipe = _shards_of(shard, shards), json.loads(json.dumps(config.recipe()))
    version = str(builder_class.VERSION)
    directory = Path(data_dir) / builder_class.name / config.name / version
    # Tasks need not wait for one another: their files appear whole, and a shard done twice has the same bytes.
    with one_at_a_time(directory.parent, config.announce) if shard is None else contextlib.nullcontext():
        if directory.exists():
            take_existing(directory, recipe, config.unknown_code_limit, config.announce)
            if shard is None:
                _remove_leftovers(directory, config.announce)
            return directory
        hashed = json.dumps([_WORK_VERSION, version, recipe, shards], sort_keys=True)
        work = WorkFolder(directory.with_name(f"{version}.work-{hashlib.sha256(hashed.encode()).hexdigest()[:12]}"))
        job = config.job(work)
        with work.in_use(), _each_shard(workers, beam, config.ehr_directory) as each:
            _do(functools.partial(serialize_shard, job), SERIALIZED, mine, work, each, config.announce)
            there = sum(work.note(SERIALIZED, number, verify=()) is not None for number in range(shards))
            if there < shards:  # never without `shard`
                config.announce(f"{there} of {shards} shards are serialized; give the command again when all are")
                return None
            found = gather(job)
            if shard is None:
                _check(config, job, found, directory)
            vocabulary, fitted = config.vocabulary, config.vocabulary is None
            if fitted:
                counts = code_counts(work, shards)
                vocabulary = with_titles(fit_vocabulary(counts, minimum_patients=config.minimum_patients))
            elif not vocabulary.codes:
                raise ValueError("a vocabulary must hold codes: got one with reserved rows alone; give another")
            shares = unknown_shares(job, vocabulary)
            shown = check_unknown(shares, config.unknown_code_limit, fitted=fitted)
            config.announce(f"codes unknown to the vocabulary: {shown}")
            step = written(vocabulary, found.races)
            _do(functools.partial(write_shard, job, vocabulary, found.races), step, mine, work, each, config.announce)
            if shard is not None:
                return None
            made = _merge(config, recipe, work, found, vocabulary, shares, builder_class)
            _build(builder_class, config, data_dir, made)
        if not work.remove_unless_used():
            config.announce(f"a task is still busy in {work.path}: the next command removes it")
        for left in directory.parent.glob(f"{version}.incomplete*"):
            shutil.rmtree(left, ignore_errors=True)
        _remove_leftovers(directory, config.announce)
        return directory


def _shards_of(shard: str | None, shards: int) -> list[int]:
    """Return the shards of a task "i/N", of all of them without one."""
    if shard is None:
        return list(range(shards))
    match = re.fullmatch(r"(\d+)/(\d+)", shard)
    if not match or int(match[1]) >= int(match[2]):
        raise ValueError(f"shard must be i/N with i from 0 to N − 1, as in 3/8: got {shard!r}; name one task of N")
    return list(range(int(match[1]), shards, int(match[2])))


def _remove_leftovers(directory: Path, announce: Callable[[str], None]) -> None:
    """Remove work that was never finished, of other settings or tables; the dataset's lock is held.

    Tasks hold no lock of the dataset, so that work in which one is busy stays.
    """
    left = sorted(directory.parent.glob(f"{directory.name}.work-*"))
    if removed := [path.name for path in left if WorkFolder(path).remove_unless_used()]:
        announce(f"removed what unfinished runs left in {directory.parent}: {', '.join(removed)}")


def _each_shard(workers: int, beam: Sequence[str], ehr_directory: Path) -> contextlib.AbstractContextManager:
    """Return what calls a function for each of some shards: processes, or Beam."""
    size = sum(path.stat().st_size for path in ehr_directory.rglob("*.parquet"))
    if not beam:
        return Workers(workers or int(size < _WORTH_PROCESSES))
    try:
        from tfds_builders.beam_pipeline import in_beam, read_options
    except ModuleNotFoundError as error:
        raise ValueError(
            f"Apache Beam must be installed to run a pipeline: got no module {error.name};"
            " pip install 'medbert-jax[beam]', or leave the options for Beam out"
        ) from None
    return contextlib.nullcontext(functools.partial(in_beam, options=read_options(beam, ehr_bytes=size)))


def _do(
    function: Callable[[int], int],
    step: str,
    shards: list[int],
    work: WorkFolder,
    each: Callable[[Callable[[int], int], list[int]], Iterable[int]],
    announce: Callable[[str], None],
) -> None:
    """Do a step for those of the shards that have no valid marker of it, and tell how it goes."""
    what = step.partition("-")[0]
    missing = [number for number in shards if work.note(step, number) is None]
    if len(missing) < len(shards):
        announce(f"{what} before: {len(shards) - len(missing)} of {len(shards)} shards")
    started, patients = time.monotonic(), 0
    for done, number in enumerate(each(function, missing), start=1):
        patients += sum(work.note(SERIALIZED, number, verify=())["sizes"])
        seconds = max(time.monotonic() - started, 1e-9)
        announce(
            f"{what} shard {done}/{len(missing)}: {patients:,} patients, {patients / seconds:,.0f}/s,"
            f" {seconds / done * (len(missing) - done):.0f} s left"
        )


@contextlib.contextmanager
def _removed_where_refused(work: WorkFolder) -> Iterator[None]:
    """Remove the work on patients who must not become a dataset; another failure leaves it, to be gone on with."""
    try:
        yield
    except ValueError:
        shutil.rmtree(work.path, ignore_errors=True)
        raise


def _check(config: SequencesConfig, job: ShardJob, found: Serialized, directory: Path) -> None:
    check_source(job)
    hashes, _ = patient_hashes(job.work, job.shards)
    with _removed_where_refused(job.work):
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
        config.check(found, job.work, directory)


def _merge(
    config: SequencesConfig,
    recipe: dict,
    work: WorkFolder,
    found: Serialized,
    vocabulary: Vocabulary,
    shares: dict[str, float],
    builder_class: type[PatientSequencesBuilder],
) -> Made:
    """Return the dataset from the markers of all shards, whose checksums hold."""
    step, source = written(vocabulary, found.races), config.source
    files, kept, content = {split: [] for split in SPLITS}, Counts(), []
    for number in range(source.shards):
        content.append(work.checksum(SERIALIZED, number, "sequences"))
        for split, part in work.note(step, number, verify=()).items():
            files[split].append((work.file(step, number, split), part["patients"], part["bytes"]))
            kept += Counts(part["patients"], part["visits"], part["codes"])
    found.ledger.check(**dataclasses.asdict(kept))
    # The sequences, whose order the shards decide, and not only what they were to be made by.
    hashed = json.dumps([_WORK_VERSION, str(builder_class.VERSION), recipe, vocabulary.hash, content], sort_keys=True)
    metadata = {
        "kind": builder_class.KIND,
        "preset": config.preset,
        "serialization": recipe["serialization"],
        "source": dataclasses.asdict(source),
        "split": {**recipe["split"], "counts": dict(zip(SPLITS, found.sizes.sum(axis=0).tolist(), strict=True))},
        "vocabulary_hash": vocabulary.hash,
        "dataset_hash": hashlib.sha256(hashed.encode()).hexdigest(),
        "recipe": recipe,
        "races": list(found.races),
        "cohort": None,
        "unknown_code_share": shares,
        "time_is_ordinal": not source.has_dates,
        **config.describe(found),
    }
    return Made(metadata, vocabulary, found.ledgers(), files, config.tables_beside(work))


def _build(builder_class: type[PatientSequencesBuilder], config: SequencesConfig, data_dir, made: Made) -> None:
    # TFDS calls every dataset that it does not list itself a custom configuration, as a warning.
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        builder = builder_class(config=config, data_dir=data_dir, file_format="array_record")
        builder.made = made
        builder.download_and_prepare()
    except OSError as error:
        raise not_written(error, Path(error.filename or data_dir)) from error
    finally:
        logger.setLevel(level)
