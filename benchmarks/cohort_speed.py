"""From EHR tables to cohorts: seconds of each built-in cohort on a simulated health system, and peak memory.

    python benchmarks/cohort_speed.py --ehr FOLDER

Simulates the patients where FOLDER holds no EHR tables yet. One process goes through the shards, reads each (with its
checksums), and selects; polars takes the cores that there are. The ledgers add up to the tables, difference 0, or it
stops.
"""

import functools
import json
import resource
import time
from pathlib import Path

import tyro
from provenance import machine

from medbert_jax.attrition.ledger import Ledger
from medbert_jax.cohorts.loading import load_spec
from medbert_jax.cohorts.select import select_cohort
from medbert_jax.ehr.tables import read_shard, read_source
from medbert_jax.simulation.simulate import simulate


def main(
    ehr: Path,
    patients: int = 1_000_000,
    cohorts: tuple[str, ...] = ("dhf", "dhf-landmark", "dhf-matched", "paca"),
    out: Path = Path(__file__).parent / "results" / "cohort_speed.json",
) -> None:
    """Measure and write the JSON.

    Args:
        ehr: folder of EHR tables; simulated there where it is missing.
        patients: how many to simulate then.
        cohorts: built-in cohorts, or YAML files.
        out: where the figures go.
    """
    if not (ehr / "source.json").is_file():
        simulate(ehr, patients=patients, site="cerner", world="rich", seed=0, shards=0, workers=0, truth=None)
    source = read_source(ehr)
    record = {"machine": machine(), "source": source.assumptions, "shards": source.shards, "cohorts": {}}
    for name in cohorts:
        spec, ledgers, reading, selecting, cases = load_spec(name), [], 0.0, 0.0, 0
        for shard in range(source.shards):
            started = time.perf_counter()
            tables = read_shard(ehr, shard)
            read = time.perf_counter()
            frame, ledger = select_cohort(tables, spec)
            selecting += time.perf_counter() - read
            reading += read - started
            cases += int((frame["label"] == 1).sum())
            ledgers.append(ledger)
        whole = functools.reduce(Ledger.merge, ledgers)
        record["cohorts"][name] = {
            "patients": whole.came.patients,
            "visits": whole.came.visits,
            "codes": whole.came.codes,
            "kept": whole.kept.patients,
            "cases": cases,
            "seconds_reading": round(reading, 1),
            "seconds_selecting": round(selecting, 1),
            "left": {line.rule: line.left.patients for line in whole.lines},
        }
        print(f"{name}: {whole.came.patients:,} patients in {reading + selecting:.1f} s, {cases:,} cases", flush=True)
    record["peak_memory_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    tyro.cli(main)
