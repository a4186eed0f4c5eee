"""The simulated health system → EHR tables on disk, shard by shard, and the truth in a folder of its own."""

import functools
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from medbert_jax.attrition.ledger import Counts, Ledger
from medbert_jax.disk.replaced_folder import replaced
from medbert_jax.disk.whole_files import whole_file, write_json
from medbert_jax.ehr.schema import EhrSource, EhrTables
from medbert_jax.ehr.shard_files import ShardRecord, holds_tables, new_folder, seal, write_shard
from medbert_jax.ehr.tables import read_source
from medbert_jax.ehr.workers import Workers
from medbert_jax.simulation.block import BLOCK, World
from medbert_jax.simulation.identity import ENGINE, Run
from medbert_jax.simulation.parameters import load_parameters
from medbert_jax.simulation.records import frames
from medbert_jax.simulation.truth import TRUTH_FILES, made_by, truth_frames

SIMULATED = "simulated"
"""The format of simulated tables in source.json."""
SHARD_PATIENTS = 32_768
"""Patients of a shard, about, where the number of shards is not given: some 300 MB in memory."""


@dataclass(frozen=True)
class _Job:
    world: World
    run: Run
    new: Path
    truth: Path | None
    keep: "Keep | None"
    last_day: str
    """The last day of the site's data, in ISO form."""


@dataclass(frozen=True)
class Keep:
    """Of a large simulation the patients who are wanted alone: the others are counted and never written."""

    who: Callable[[EhrTables], EhrTables]
    """The tables of a shard → those of whom it keeps; must be picklable."""
    words: str
    """Who that is, for source.json and the ledger."""


def simulate(
    out,
    *,
    patients: int,
    site: str = "cerner",
    world: str = "rich",
    seed: int = 0,
    shards: int = 0,
    workers: int = 0,
    truth=None,
    keep: Keep | None = None,
    announce: Callable[[str], None] = print,
) -> EhrSource:
    """Write the EHR tables of a simulated health system.

    The same seed, patients and shards give the same bytes, whatever the number of workers.

    Args:
        out: folder that will hold the EHR tables; earlier simulated ones there are replaced, others never.
        patients: number of patients.
        site: cerner (2000–2017, ICD-9-CM, then ICD-10-CM) or truven (claims, 2011–2015, ICD-9-CM).
        world: rich, or what a dial turns off: bag, no-synonyms, independent, null.
        seed: of everything random.
        shards: parts of the tables; 0: one per 32,768 patients.
        workers: processes; 0: one per core, one for few patients.
        truth: folder for what is hidden: states, events, planted errors; beside `out`. An earlier truth there stays
            until the new tables are in their place, and then is replaced as a whole.
        keep: write these patients alone; what they are is not changed by it. Then source.json has for its last day that
            of the site, whoever was there on it, and there can be no truth.
        announce: gets lines of progress.

    Raises:
        ValueError: settings out of range, or `out` holds tables that are not simulated.
        BlockingIOError: another process is writing `out` or `truth`.
    """
    if patients < 1 or shards < 0 or seed < 0:
        raise ValueError(
            "patients must be at least 1, shards and seed at least 0:"
            f" got {patients}, {shards} and {seed}; correct them"
        )
    if truth is not None:
        inside, outside = Path(truth).resolve(), Path(out).resolve()
        for one, other in ((inside, outside), (outside, inside)):
            if other in (one, *one.parents):
                raise ValueError(
                    f"the truth must stand outside of the tables: got {one} inside {other}; name a folder beside it"
                )
    if truth is not None and keep is not None:
        raise ValueError(
            f"a truth is of all simulated patients: got {truth} and a choice of {keep.words}; leave one of them out"
        )
    _refuse_other_tables(Path(out))
    parameters = load_parameters(site, world)
    shards = shards or -(-patients // SHARD_PATIENTS)
    run = Run(site, world, seed, patients, shards, ENGINE, parameters.hash)
    started, done, records, came = time.monotonic(), 0, {}, Counts()
    # The tables take their place first: a run that dies in between leaves them beside a truth that is of other tables
    # by its own account, which `check_truth` refuses.
    staged = replaced(truth, TRUTH_FILES) if truth is not None else nullcontext()
    with staged as hidden, new_folder(out) as new, Workers(workers or int(patients < 2 * BLOCK)) as each:
        job = _Job(World(parameters), run, new, hidden, keep, str(parameters.site["last_day"]))
        for shard, record, counts in each(functools.partial(_shard, job), list(enumerate(run.numbers_by_shard()))):
            records[shard], came = record, came + counts
            done += counts.patients
            seconds = time.monotonic() - started
            announce(f"simulated shard {len(records)}/{shards}: {done:,} patients, {done / seconds:,.0f}/s,"
                     f" {(patients - done) * seconds / max(done, 1):.0f} s left")  # fmt: skip
        ordered = [records[shard] for shard in range(shards)]
        rows = {name: sum(record.rows[name] for record in ordered) for name in ("patients", "visits", "diagnoses")}
        ledger = Ledger.start(f"simulate {site} {world}", **came.to_dict())
        kept = Counts(rows["patients"], rows["visits"], rows["diagnoses"])
        if keep is not None:
            left = came - kept
            ledger.leave(
                "not_kept", f"Others than {keep.words}", patients=left.patients, visits=left.visits, codes=left.codes
            )
            ledger.check(**kept.to_dict())
        write_json(new / "ledger.json", ledger.to_dict())
        source = EhrSource(
            format=SIMULATED,
            has_dates=True,
            age_precision="days",
            assumptions=(
                "Simulated data: no patient is real.",
                made_by(asdict(run)),
                *([f"Of these the {keep.words} alone."] if keep else []),
            ),
        )
        source = seal(new, source, ordered)
        if hidden is not None:
            write_json(hidden / "truth.json", {**asdict(run), "tables": source.content_hash})
    return source


def _refuse_other_tables(out: Path) -> None:
    """Raise ValueError where tables stand that no simulation made: replaced, they might be gone for good."""
    if not holds_tables(out):
        return
    try:
        format = read_source(out).format
    except (OSError, ValueError):  # damaged, unfinished or of a later version: it may be anybody's
        format = "unknown"
    if format != SIMULATED:
        raise ValueError(
            f"simulated tables replace no others: got {out}, which holds tables of format {format}; name another"
            " folder, or delete that one"
        )


def _shard(job: _Job, work: tuple[int, np.ndarray]) -> tuple[int, ShardRecord, Counts]:
    """Simulate one shard block by block; its number, what was written, and how much was simulated."""
    shard, numbers = work
    run, starts = job.run, range(0, max(len(numbers), 1), BLOCK)  # of nobody: one block that is empty
    blocks = [_block(job, (shard, number), numbers[start : start + BLOCK]) for number, start in enumerate(starts)]
    tables, hidden = (
        {name: pl.concat([one[name] for one in parts]) for name in parts[0]} for parts in zip(*blocks, strict=True)
    )
    made = EhrTables(**tables, source=EhrSource(SIMULATED, True, "days"))
    came = Counts(made.patients.height, made.visits.height, made.diagnoses.height)
    if job.keep is not None:
        # Rules that look at the end of the source must find the same one here and in the tables that are written.
        made = job.keep.who(replace(made, source=replace(made.source, last_day=job.last_day)))
    record = write_shard(made, job.new, shard, run.shards)
    record = record if job.keep is None else replace(record, last_day=job.last_day)
    for name, frame in hidden.items():
        (job.truth / name).mkdir(parents=True, exist_ok=True)
        with whole_file(job.truth / name / f"shard-{shard:05d}-of-{run.shards:05d}.parquet") as partial:
            frame.write_parquet(partial)
    return shard, record, came


def _block(job: _Job, place: tuple[int, int], numbers: np.ndarray) -> tuple[dict[str, pl.DataFrame], ...]:
    """The tables of a block, `place` (shard, block), and those of its truth where they are wanted."""
    world, sequence = job.world, np.random.SeedSequence(job.run.seed, spawn_key=(job.run.shards, *place))
    rng = np.random.Generator(np.random.Philox(sequence))
    # Ids in random order: lives are made oldest first, which an id must not tell.
    ids = job.run.ids(rng.permutation(numbers))
    block = world.block(len(numbers), rng)
    made = frames(world, block, ids, rng)
    return made.tables, {} if job.truth is None else truth_frames(world, block, ids) | {"errors": made.errors}
