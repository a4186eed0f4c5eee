"""The simulated health system → EHR tables on disk, shard by shard, and the truth in a folder of its own."""

import functools
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from medbert_jax.disk.replaced_folder import replaced
from medbert_jax.disk.whole_files import whole_file, write_json
from medbert_jax.ehr.hashing import patient_hash
from medbert_jax.ehr.ledger import Ledger
from medbert_jax.ehr.schema import SCHEMAS, EhrSource, EhrTables
from medbert_jax.ehr.tables import ShardRecord, new_folder, seal, write_shard
from medbert_jax.ehr.workers import Workers
from medbert_jax.simulation.block import BLOCK, World
from medbert_jax.simulation.parameters import load_parameters
from medbert_jax.simulation.records import frames
from medbert_jax.simulation.truth import TRUTH_FILES, made_by, truth_frames

SHARD_PATIENTS = 32_768
"""Patients of a shard, about, where the number of shards is not given: some 300 MB in memory."""


@dataclass(frozen=True)
class _Job:
    world: World
    seed: int
    shards: int
    new: Path
    truth: Path | None


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
    announce: Callable[[str], None] = print,
) -> EhrSource:
    """Write the EHR tables of a simulated health system.

    The same seed, patients and shards give the same bytes, whatever the number of workers.

    Args:
        out: folder that will hold the EHR tables; an earlier set of tables there is replaced.
        patients: number of patients.
        site: cerner (2000–2017, ICD-9-CM, then ICD-10-CM) or truven (claims, 2011–2015, ICD-9-CM).
        world: rich, or what a dial turns off: bag, no-synonyms, independent, null.
        seed: of everything random.
        shards: parts of the tables; 0: one per 32,768 patients.
        workers: processes; 0: one per core, one for few patients.
        truth: folder for what is hidden: states, events, planted errors; beside `out`. An earlier truth there stays
            until the new tables are in their place, and then is replaced as a whole.
        announce: gets lines of progress.

    Raises:
        ValueError: settings out of range.
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
    parameters = load_parameters(site, world)
    shards = shards or -(-patients // SHARD_PATIENTS)
    numbers = np.arange(patients)
    shard_of = patient_hash(patient_ids(numbers), "shard") % np.uint64(shards)
    by_shard = np.split(
        np.argsort(shard_of, kind="stable"), np.cumsum(np.bincount(shard_of.astype(np.int64), minlength=shards))[:-1]
    )
    started, done, records = time.monotonic(), 0, {}
    # The tables take their place first: a run that dies in between leaves them beside a truth that is of other tables
    # by its own account, which `check_truth` refuses.
    staged = replaced(truth, TRUTH_FILES) if truth is not None else nullcontext()
    with staged as hidden, new_folder(out) as new, Workers(workers or int(patients < 2 * BLOCK)) as each:
        job = _Job(World(parameters), seed, shards, new, hidden)
        for shard, record in each(functools.partial(_shard, job), list(enumerate(by_shard))):
            records[shard] = record
            done += record.rows["patients"]
            rate = done / (time.monotonic() - started)
            announce(f"simulated shard {len(records)}/{shards}: {done:,} patients, {rate:,.0f}/s,"
                     f" {(patients - done) / rate:.0f} s left")  # fmt: skip
        ordered = [records[shard] for shard in range(shards)]
        rows = {name: sum(record.rows[name] for record in ordered) for name in ("patients", "visits", "diagnoses")}
        ledger = Ledger.start(f"simulate {site} {world}", patients=rows["patients"], visits=rows["visits"],
                              codes=rows["diagnoses"])  # fmt: skip
        write_json(new / "ledger.json", ledger.to_dict())
        said = {"site": site, "world": world, "seed": seed, "patients": patients, "shards": shards,
                "parameters": parameters.hash}  # fmt: skip
        source = EhrSource(
            format="simulated",
            has_dates=True,
            age_precision="days",
            assumptions=("Simulated data: no patient is real.", made_by(said)),
        )
        source = seal(new, source, ordered)
        if hidden is not None:
            write_json(hidden / "truth.json", {**said, "tables": source.content_hash})
    return source


def patient_ids(numbers: np.ndarray) -> np.ndarray:
    """Ids of patients by number (n,) 'S'."""
    return np.char.mod("s%08d", numbers).astype("S")


def _shard(job: _Job, work: tuple[int, np.ndarray]) -> tuple[int, ShardRecord]:
    """Simulate one shard block by block; its number and what was written."""
    shard, numbers = work
    world = job.world
    tables, hidden = {name: [] for name in SCHEMAS}, {}
    for block_number, start in enumerate(range(0, len(numbers), BLOCK)):
        sequence = np.random.SeedSequence(job.seed, spawn_key=(job.shards, shard, block_number))
        rng = np.random.Generator(np.random.Philox(sequence))
        mine = numbers[start : start + BLOCK]
        # Ids in random order: lives are made oldest first, which an id must not tell.
        ids = pl.Series(patient_ids(rng.permutation(mine)).astype(str).tolist(), dtype=pl.String)
        block = world.block(len(mine), rng)
        made = frames(world, block, ids, rng)
        for name, frame in made.tables.items():
            tables[name].append(frame)
        if job.truth is not None:
            for name, frame in {**truth_frames(world, block, ids), "errors": made.errors}.items():
                hidden.setdefault(name, []).append(frame)
    if not len(numbers):
        tables = {name: [pl.DataFrame(schema=schema)] for name, schema in SCHEMAS.items()}
    source = EhrSource("simulated", True, "days")
    record = write_shard(
        EhrTables(**{name: pl.concat(parts) for name, parts in tables.items()}, source=source),
        job.new,
        shard,
        job.shards,
    )
    for name, parts in hidden.items():
        folder = job.truth / name
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(folder / f"shard-{shard:05d}-of-{job.shards:05d}.parquet") as partial:
            pl.concat(parts).write_parquet(partial)
    return shard, record
