"""From raw OMOP tables to report.html, command by command: wall and processor time of each.

    python benchmarks/line.py --work FOLDER

Made OMOP tables as of `benchmarks/ingest.py`, whose codes mean nothing: the cohort is `los-next`, which asks none. The
six commands are those of the README; from a checkpoint it is four, without `prepare` and `pretrain`.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import tyro
from ingest import alone, write_raw
from provenance import machine

PRETRAINING, COHORT = "data/ehr_pretraining/site/1.0.0", "data/disease_cohort/los-next/1.0.0"
LINE = (
    "ingest omop ehr --format omop",
    "prepare ehr site",
    f"pretrain pretrain_small --dataset {PRETRAINING} --run runs/site --epochs 3",
    f"cohort ehr los-next los-next --pretraining-dataset {PRETRAINING}",
    f"finetune finetune_small --dataset {COHORT} --checkpoint runs/site --train-size 1000",
    "report results",
)


def main(work: Path, patients: int = 20_000, out: Path = Path(__file__).parent / "results" / "line.json") -> None:
    """Run and measure the line, and write the JSON.

    Args:
        work: folder that is made, and deleted again.
        patients: of the made tables.
        out: where the figures go.
    """
    work.mkdir(parents=True)
    try:
        alone(write_raw, work / "omop", patients)
        steps = {command: _timed(command, work) for command in LINE}
        page = work / "results" / "report" / "report.html"
        record = {"machine": machine(), "patients": patients, "steps": steps, "page_bytes": page.stat().st_size}
        record["processor_s"] = round(sum(one["processor_s"] for one in steps.values()), 1)
        record["wall_s"] = round(sum(one["wall_s"] for one in steps.values()), 1)
    finally:
        shutil.rmtree(work)
    out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


def _timed(command: str, work: Path) -> dict[str, float]:
    """Seconds that one command took, those of its workers too."""
    print(f"medbert {command}", flush=True)
    started, before = time.monotonic(), os.times()
    done = subprocess.run([sys.executable, "-m", "medbert_jax", *command.split()], cwd=work, check=False)
    after = os.times()
    if done.returncode:
        raise SystemExit(f"medbert {command} ended with {done.returncode}")
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return {"wall_s": round(time.monotonic() - started, 1), "processor_s": round(used, 1)}


if __name__ == "__main__":
    tyro.cli(main)
