"""Patients per second of `medbert simulate`, all tables on disk, three sizes: is time linear, and memory by shard?

python benchmarks/simulate.py --work FOLDER
"""

import json
import multiprocessing
import resource
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import tyro
from provenance import machine, simulated_by

from medbert_jax.ehr.tables import read_source
from medbert_jax.simulation.parameters import load_parameters
from medbert_jax.simulation.simulate import simulate


def main(
    work: Path,
    sizes: tuple[int, ...] = (50_000, 200_000, 800_000),
    workers: int = 2,
    out: Path = Path(__file__).parent / "results" / "simulate.json",
) -> None:
    """Measure and write the JSON.

    Args:
        work: folder on a disk with room; what is made there is deleted again.
        sizes: patients.
        workers: processes.
        out: where the figures go.
    """
    record = {"machine": machine(), "workers": workers, **simulated_by(load_parameters()), "sizes": {}}
    for patients in sizes:
        folder = work / f"{patients}"
        try:
            # A process of its own: the peak of children is that of all that the parent ever had.
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
                found = alone.submit(measure, folder, patients, workers).result()
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        record["sizes"][f"{patients:,} patients"] = found
        print(patients, json.dumps(found), flush=True)
        out.write_text(json.dumps(record, indent=1) + "\n")


def measure(folder: Path, patients: int, workers: int) -> dict:
    """Time, rate, disk and peak memory of a worker."""
    started = time.perf_counter()
    simulate(folder / "ehr", patients=patients, workers=workers, announce=lambda line: None)
    seconds = time.perf_counter() - started
    # A single shard is made by this very process.
    both = [resource.getrusage(of) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    busy = sum(one.ru_utime + one.ru_stime for one in both)
    size = sum(file.stat().st_size for file in folder.rglob("*.parquet"))
    return {
        "seconds": round(seconds, 1),
        "patients_per_second": round(patients / seconds),
        # What a core does that others leave alone; on a busy machine it says more than the clock.
        "cpu_seconds": round(busy, 1),
        "patients_per_cpu_second": round(patients / busy),
        "shards": read_source(folder / "ehr").shards,
        "megabytes_on_disk": round(size / 2**20, 1),
        "peak_mib_per_worker": round(max(one.ru_maxrss for one in both) / 1024),
    }


if __name__ == "__main__":
    tyro.cli(main)
