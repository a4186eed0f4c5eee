"""From raw files to a store that can be trained on: patients per second of every step, and peak memory per process.

    python benchmarks/ingest.py --work FOLDER
    python benchmarks/ingest.py --work FOLDER --tasks 2 --sizes 200000 --out benchmarks/results/ingest_shards.json

Made OMOP tables (Parquet, rows in random order): per patient 5 visits and 15 condition rows on average, 5,000 codes,
some wrong rows. Three sizes, so that one sees whether time is linear in them. Two million patients need 20 GB of disk.
With `--tasks N` only how `medbert prepare --shard i/N` scales: N tasks at once, one process each, against one alone.
"""

import importlib.metadata
import json
import multiprocessing
import os
import re
import resource
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
import tyro
from provenance import machine

from medbert_jax.attrition.ledger import Ledger
from medbert_jax.data.token_store import open_token_store
from medbert_jax.ehr.hashing import SPLITS
from medbert_jax.ingest.ingest import ingest
from tfds_builders.ehr_pretraining.ehr_pretraining_dataset_builder import prepare_pretraining
from tfds_builders.options import PrepareOptions

CODES = 5_000
PART_ROWS = 5_000_000
RATE = re.compile(r"([\d,]+)/s")
PACKAGES = ("polars", "pyarrow", "array_record", "tensorflow-datasets")
"""What does the work here, beside what `machine` names."""
EHR_SHARDS = 8  # of tables whose shards tasks divide


def main(
    work: Path,
    sizes: tuple[int, ...] = (125_000, 500_000, 2_000_000),
    out: Path = Path(__file__).parent / "results" / "ingest.json",
    tasks: int = 0,
) -> None:
    """Measure and write the JSON.

    Args:
        work: folder on a disk with room; what is made there is deleted again.
        sizes: patients.
        out: where the figures go.
        tasks: measure so many tasks of `--shard` at once, and nothing else.
    """
    record = {"machine": machine(), "source": "made OMOP tables, Parquet, rows in random order", "sizes": {}}
    record["machine"]["versions"] |= {name: importlib.metadata.version(name) for name in PACKAGES}
    for patients in sizes:
        folder = work / f"{patients}"
        try:
            # Each in a process of its own: a child's peak counts from its parent's size, so the parent must be small.
            rows = alone(write_raw, folder / "raw", patients)
            os.sync()
            steps = measure_tasks(folder, tasks) if tasks else alone(measure, folder, patients)
            record["sizes"][f"{patients:,} patients"] = {"condition_rows": rows} | steps
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(record, indent=1) + "\n")
        print(json.dumps(record["sizes"][f"{patients:,} patients"], indent=1), flush=True)


def alone(function: Callable, *arguments):
    """What the function returns, run in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as one:
        return one.submit(function, *arguments).result()


def measure(folder: Path, patients: int) -> dict:
    """Every step once; the raw files are there."""
    seconds, cpu_seconds, load, lines = {}, {}, {}, []

    def timed(name, function, *args, **kwargs):
        load[name], began, spent = os.getloadavg()[0], time.perf_counter(), processor_time()
        value = function(*args, **kwargs)
        seconds[name], cpu_seconds[name] = time.perf_counter() - began, processor_time() - spent
        return value

    def announce(line: str) -> None:
        lines.append(line)
        print(line, flush=True)

    ledger = timed("raw files → EHR tables", ingest, folder / "raw", folder / "ehr", format="omop", announce=announce)
    options = PrepareOptions(folder / "ehr", "made", data_dir=folder / "data")
    dataset = timed("EHR tables → TFDS dataset and token store", prepare_pretraining, options, announce=announce)
    kept = sum(len(open_token_store(dataset, split)) for split in SPLITS)
    sequences = Ledger.from_dict(json.loads((dataset / "ledger.json").read_text()))
    last = {
        name: int(RATE.search([line for line in lines if line.startswith(start)][-1]).group(1).replace(",", ""))
        for name, start in (("tables → sequences", "serialized"), ("sequences → ArrayRecord", "written"))
    }
    return {
        "raw_bytes": sum(path.stat().st_size for path in (folder / "raw").rglob("*.parquet")),
        "patients_kept": kept,
        "ledger_difference": [ledger.kept.patients - sequences.came.patients, sequences.kept.patients - kept],
        "load_average": load,  # of one minute, just before each: what else the machine was doing
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,  # of all processes: do not depend so much on what else the machine was doing
        "patients_per_s": {name: patients / value for name, value in seconds.items()} | last,
        "patients_per_s_end_to_end": patients / sum(seconds.values()),
        "patients_per_cpu_s": {name: patients / value for name, value in cpu_seconds.items()},
        "patients_per_cpu_s_end_to_end": patients / sum(cpu_seconds.values()),
        "peak_bytes_of_a_worker": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
        "peak_bytes_of_the_main_process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def processor_time() -> float:
    """Seconds of this process and of those that it started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def measure_tasks(folder: Path, tasks: int) -> dict:
    """Tables → sequences → ArrayRecord by one task, then by `tasks` at once, one process each; the raw files are there.

    The merge, which writes metadata once, is timed apart; both datasets must be the same, byte for byte.
    """
    alone(ingest_shards, folder)
    seconds, cpu_seconds, patients_per_s, bytes_of, peaks, load = {}, {}, {}, [], {}, {}
    for count in (1, tasks):
        data, name = folder / f"data-{count}", f"{count} task{'s at once' if count > 1 else ' alone'}"
        context, load[name] = multiprocessing.get_context("spawn"), os.getloadavg()[0]
        with context.Manager() as shared, ProcessPoolExecutor(count, mp_context=context) as pool:
            together = shared.Barrier(count, timeout=600)
            parts = [(folder / "ehr", data, f"{number}/{count}", together) for number in range(count)]
            told = list(pool.map(run_task, *zip(*parts, strict=True)))
        assert not list(data.rglob("metadata.json"))
        dataset, seconds[f"merge of {name}"] = alone(merge, folder / "ehr", data)
        ledger = Ledger.from_dict(json.loads((dataset / "ledger.json").read_text()))
        for step in ("tables → sequences", "sequences → ArrayRecord"):
            took = max(one[step][1][0] for one in told) - min(one[step][0][0] for one in told)
            seconds[f"{step}, {name}"] = took
            cpu_seconds[f"{step}, {name}"] = sum(one[step][1][1] - one[step][0][1] for one in told)
            patients_per_s[f"{step}, {name}"] = ledger.kept.patients / took
        peaks[name] = max(one["peak"] for one in told)
        paths = sorted(path for path in dataset.rglob("*") if path.is_file())
        bytes_of.append({path.relative_to(dataset).as_posix(): path.read_bytes() for path in paths})
    one, several = (patients_per_s[f"sequences → ArrayRecord, {name}"] for name in peaks)
    return {
        "raw_bytes": sum(path.stat().st_size for path in (folder / "raw").rglob("*.parquet")),
        "patients_kept": ledger.kept.patients,
        "ehr_shards": EHR_SHARDS,
        "load_average": load,  # of one minute, just before each: what else the machine was doing
        "seconds": seconds,
        "cpu_seconds_of_all_tasks": cpu_seconds,  # do not depend on what else the machine was doing
        "patients_per_s": patients_per_s,
        "speed_up_of_sequences_to_ArrayRecord": several / one,
        "same_bytes": bytes_of[0] == bytes_of[1],
        "peak_bytes_of_a_task": peaks,
    }


def ingest_shards(folder: Path) -> None:
    """EHR tables in shards that tasks can divide."""
    ingest(folder / "raw", folder / "ehr", format="omop", shards=EHR_SHARDS, announce=lambda line: None)


def run_task(ehr: Path, data: Path, shard: str, together) -> dict:
    """One task of a job array, given again until all shards are serialized and its own are written.

    Returns the clocks at the start and the end of both steps, and the peak memory. All tasks begin a step together.
    """
    at, clocks = {}, lambda: (time.time(), time.process_time())

    def announce(line: str) -> None:
        if line.startswith("codes unknown"):  # the last line before the step of writing
            together.wait()
            at["sequences → ArrayRecord"] = [clocks(), clocks()]
        for start, step in (("serialized shard", "tables → sequences"), ("written shard", "sequences → ArrayRecord")):
            if line.startswith(start):
                at[step][1] = clocks()

    together.wait()
    at["tables → sequences"] = [clocks(), clocks()]
    while "sequences → ArrayRecord" not in at:
        prepare_pretraining(PrepareOptions(ehr, "made", data_dir=data, workers=1, shard=shard), announce=announce)
    return at | {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def merge(ehr: Path, data: Path) -> tuple[Path, float]:
    """The command without `--shard`, given once after all tasks: the dataset, and seconds."""
    began = time.perf_counter()
    dataset = prepare_pretraining(PrepareOptions(ehr, "made", data_dir=data, workers=1), announce=lambda line: None)
    return dataset, time.perf_counter() - began


def write_raw(folder: Path, patients: int) -> int:
    """person, visit_occurrence, condition_occurrence and concept; returns the condition rows."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    concepts = np.arange(1, CODES + 1)
    codes = [f"{letter}{number:02d}.{digit}" for letter in "ABCDEFGHIJ" for number in range(100) for digit in range(5)]
    pl.DataFrame(
        {
            "concept_id": concepts,
            "concept_name": [f"made {code}" for code in codes],
            "vocabulary_id": "ICD10CM",
            "concept_class_id": "4-char billing code",
            "concept_code": codes,
        }
    ).write_parquet(folder / "concept.parquet")
    person = rng.permutation(np.arange(1, patients + 1)) * 7 + 10**9
    pl.DataFrame(
        {
            "person_id": person,
            "gender_concept_id": rng.choice([8507, 8532, 0], patients),
            "year_of_birth": rng.integers(1930, 2000, patients),
            "race_concept_id": np.zeros(patients, np.int64),
        }
    ).write_parquet(folder / "person.parquet")
    visits_of = 1 + rng.poisson(rng.gamma(1.0, 4.0, patients))
    owner = np.repeat(np.arange(patients), visits_of)
    visits = len(owner)
    start = rng.integers(10_957, 18_262, visits).astype("datetime64[D]")  # 2000 to 2019
    stay = rng.geometric(0.3, visits) - 1
    stay[rng.random(visits) < 0.0005] = -1  # discharged before the admission
    visit = rng.permutation(visits) + 1
    order = rng.permutation(visits)
    _write_parts(
        folder / "visit_occurrence",
        {
            "visit_occurrence_id": visit[order],
            "person_id": person[owner][order],
            "visit_concept_id": rng.choice([9201, 9202, 9203], visits),
            "visit_start_date": start[order],
            "visit_end_date": (start + stay)[order],
        },
    )
    codes_in = 1 + rng.poisson(2.0, visits)
    at = np.repeat(np.arange(visits), codes_in)
    rows = len(at)
    at = at[rng.permutation(rows)]
    concept = np.minimum((rng.pareto(0.8, rows) * 20).astype(np.int64), CODES - 1) + 1
    concept[rng.random(rows) < 0.001] = 0  # unmapped
    _write_parts(
        folder / "condition_occurrence",
        {
            "condition_occurrence_id": np.arange(rows),
            "person_id": person[owner[at]],
            "visit_occurrence_id": visit[at],
            "condition_start_date": start[at],
            "condition_concept_id": np.zeros(rows, np.int64),
            "condition_source_concept_id": concept,
        },
    )
    return rows


def _write_parts(folder: Path, columns: dict[str, np.ndarray]) -> None:
    folder.mkdir()
    rows = len(next(iter(columns.values())))
    for part, begin in enumerate(range(0, rows, PART_ROWS)):
        pl.DataFrame({name: values[begin : begin + PART_ROWS] for name, values in columns.items()}).write_parquet(
            folder / f"part-{part:04d}.parquet"
        )


if __name__ == "__main__":
    tyro.cli(main)
