"""What `medbert predict` makes a user wait for: one patient as a process, and many, step by step.

    python benchmarks/predict.py --work FOLDER [--patients 100000] [--scored 3000] [--codes 33]

A model of the paper's size whose parameters are drawn (they cost as much as trained ones), with the spec `dhf-landmark`
and the vocabulary of simulated patients, who lie in FOLDER afterwards. Figures: patients of the tables that are read,
judged and serialized in a second; predictions a second of the model alone, on made patients of the length model with
so many codes on average, programs compiled before; seconds of the command for one patient, with an empty folder of
compiled programs (cold) and with the one that this has filled (warm). Each stands beside the processor time that it
took and how much of the processors others used meanwhile.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import jax
import numpy as np
import polars as pl
import tyro
from length_model import length_model
from provenance import machine
from side_by_side import busy_seconds, spread

from medbert_jax.cohorts.loading import load_spec
from medbert_jax.cohorts.unlabelled import unlabelled
from medbert_jax.data.vocabulary import Vocabulary
from medbert_jax.ehr.tables import read_shard, read_source
from medbert_jax.models.config import ModelConfig
from medbert_jax.models.finetune_heads import HeadConfig
from medbert_jax.prediction.eligible import eligible_of
from medbert_jax.prediction.predictor import load_predictor
from medbert_jax.prediction.score import recipe_of
from medbert_jax.prediction.stored_predictor import write_predictor
from medbert_jax.prediction.validated import validated
from medbert_jax.simulation.simulate import simulate
from medbert_jax.training.checkpointing import save_step, step_fingerprint
from medbert_jax.training.finetuning import init_finetuning
from medbert_jax.training.run_directory import RunDirectory

ROOT = Path(__file__).parents[1]


def made_run(folder: Path, vocabulary: Vocabulary, layers: int) -> Path:
    """A fine-tuned run directory of the paper's size, untrained."""
    model, head = ModelConfig(vocabulary_size=vocabulary.size, layers=layers), HeadConfig(kind="bi_gru")
    params = jax.jit(lambda key: init_finetuning(model, head, key))(jax.random.key(0))
    config = {"model": asdict(model), "head": asdict(head), "dataset_hash": "made"}
    with RunDirectory.create_or_open(folder, config=config, vocabulary=vocabulary, kind="finetune") as run:
        save_step(run, 1, params=params, opt_state=None, progress={"step": 1})
    label = np.arange(400) % 4 == 0
    about = {
        "model": {"kind": "finetuned", "backbone": "untrained", "head": head.kind},
        "run_id": "made",
        "cohort": load_spec("dhf-landmark").to_dict(),
        "dataset_hash": "made",
        "ehr_content_hash": "made",
        "vocabulary_hash": vocabulary.hash,
        "preset": "paper",
        "serialization": {"minimum_codes": 1},
        "back_off": False,
        "design": {"sampling": "everybody", "estimand": "risk", "horizon_days": 365, "refused": ""},
        "train": {"patients": 0, "predictions": 0, "cases": 0},
        "validation": validated(label, np.linspace(0.1, 0.9, 400), np.ones(400), is_risk=True),
        "test": {},
    }
    about["model"]["parameters"] = step_fingerprint(folder, 1)
    write_predictor(folder, about)
    return folder


def timed(what) -> tuple[object, dict]:
    """What it gives, and seconds with the share of the processors that others used."""
    busy, cpu, began = busy_seconds(), time.process_time(), time.perf_counter()
    found = what()
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    foreign = max(0.0, busy_seconds() - busy - cpu) / (seconds * (os.cpu_count() or 1))
    return found, {"seconds": seconds, "cpu_seconds": cpu, "foreign": foreign}


def rates(count: int, took: dict) -> dict:
    """Of so many a second: by the clock, and of each processor second, whoever else used the processors."""
    return {"per_second": count / took["seconds"], "per_cpu_second": count / took["cpu_seconds"]}


def spreads(rounds: list[dict]) -> dict:
    """Median and range of each figure."""
    return {name: spread([one[name] for one in rounds]) for name in rounds[0]}


def one_patient(run: Path, ehr: Path, ids: Path, work: Path, programs: Path) -> dict:
    """Seconds of the whole command, as a process, by the clock and of the processors."""
    command = [sys.executable, "-m", "medbert_jax", "predict", run, ehr, work / "out", "--patients", ids]
    environment = os.environ | {"MEDBERT_CACHE": str(programs), "PYTHONPATH": str(ROOT)}
    began = time.perf_counter()
    process = subprocess.Popen(list(map(str, command)), env=environment, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"medbert predict must end with 0: got {process.returncode}")
    return {"seconds": time.perf_counter() - began, "cpu_seconds": used.ru_utime + used.ru_stime}


def main(
    work: Path,
    patients: int = 100_000,
    scored: int = 3000,
    codes: float = 33.0,
    rounds: int = 3,
    layers: int = 6,
    out: Path = Path(__file__).parent / "results" / "predict.json",
) -> None:
    """Measure and write the JSON.

    Args:
        work: folder for the simulated tables, the model and what is written; tables that are there are taken.
        patients: simulated.
        scored: made patients for the model alone.
        codes: their codes on average.
        rounds: of each figure.
        layers: of the model; fewer to try this out.
        out: where the figures go.
    """
    ehr, run = work / "ehr", work / "model"
    if not (ehr / "source.json").is_file():
        simulate(ehr, patients=patients, site="cerner", world="rich", seed=0, shards=0, workers=0, truth=None)
    source = read_source(ehr)
    if not run.exists():
        made_run(run, vocabulary_of(ehr, source.shards), layers)
    predictor = load_predictor(run)
    spec, _ = unlabelled(predictor.spec)
    tables, models, seen = [], [], 0
    for _ in range(rounds):
        parts, took = timed(lambda: list(eligible_of(ehr, spec, recipe_of(predictor))))
        came, seen = sum(part.ledger.came.patients for part in parts), sum(len(part.sequences) for part in parts)
        tables.append(took | rates(came, took))
    made = length_model(scored, predictor.vocabulary.size, seed=1, mean=codes)
    made = replace(made, outcomes={"label": made.outcomes["prolonged_los"]})
    predictor.predict(made)  # compiles
    for _ in range(rounds):
        _, took = timed(lambda: predictor.predict(made))
        models.append(took | rates(scored, took))
    ids, waits = work / "ids.txt", {"cold": [], "warm": []}
    ids.write_text(pl.Series(parts[0].rows["patient_id"])[0] + "\n")
    for number in range(rounds):
        for kind in waits:
            waits[kind].append(one_patient(run, ehr, ids, work, work / f"programs-{number}-{os.getpid()}"))
    figures = {
        "machine": machine(),
        "layers": layers,
        "vocabulary": predictor.vocabulary.size,
        "simulated_patients": patients,
        "eligible": seen,
        "mean_codes_of_the_made": float(made.lengths.mean()),
        "tables_to_sequences": spreads(tables),
        "model": spreads(models),
        "one_patient": {kind: spreads(of) for kind, of in waits.items()},
    }
    out.write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


def vocabulary_of(ehr: Path, shards: int) -> Vocabulary:
    """The codes of all simulated patients."""
    frames = [read_shard(ehr, shard).diagnoses for shard in range(shards)]
    names = pl.concat([frame.select(pl.concat_str("code_system", "code", separator="/")) for frame in frames])
    codes = names.to_series().unique().sort().to_list()
    return Vocabulary(tuple(codes), np.ones(len(codes), np.int64), ("",) * len(codes))


if __name__ == "__main__":
    tyro.cli(main)
