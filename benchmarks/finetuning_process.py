"""What a user waits for: `run_finetune.py` as a process, timed from its start by what it says.

    python benchmarks/finetuning_process.py [--preset finetune_small] [--patients 2000] [--codes 33]

Made patients of the length model, and a pretraining of the paper's size whose parameters are drawn: they cost as much
as trained ones. Figures: seconds to the first step, with an empty folder of compiled programs (cold) and with the one
that this has filled (warm); seconds of the training of an epoch, from the process's lines, its first step left out;
the most memory of the process, one validation included. How much of the processors others used meanwhile stands beside
each. An epoch of 50,000 patients is `--patients 50000 --rounds 1`, the memory of the paper's preset `--preset
finetune_paper`; minutes for the former, two quiet cores.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
import tyro
from length_model import length_model
from provenance import machine
from side_by_side import busy_seconds, spread

from medbert_jax.data.vocabulary import FIRST_CODE, Vocabulary
from medbert_jax.models.config import ModelConfig
from medbert_jax.models.med_bert import init
from medbert_jax.training.checkpointing import save_step
from medbert_jax.training.run_directory import RunDirectory

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from made_datasets import write_dataset  # noqa: E402  (beside the tests, which are no package)

LINE = re.compile(r"^\s*(train|validation)\s+([\d,]+)/")
PRETRAINING = "made"


def prepared(folder: Path, patients: int, codes: float, model: ModelConfig) -> tuple[str, str]:
    """Directories of a cohort of so many training patients, and of a pretraining."""
    names = tuple(f"ICD10CM/{number}" for number in range(FIRST_CODE, model.vocabulary_size))
    vocabulary = Vocabulary(names, np.ones(len(names), np.int64), ("",) * len(names))
    splits = {}
    for seed, (split, size) in enumerate((("train", patients), ("validation", 256), ("test", 64))):
        one = length_model(size, model.vocabulary_size, seed=seed, mean=codes)
        label = {"label": one.outcomes["prolonged_los"], "index_day": np.full(size, -1, np.int32)}
        label |= {
            "index_order": np.diff(one.visit_offsets).astype(np.int32) + 1,
            "prediction_time": np.zeros(size, int),
        }
        ids = np.char.add(split, one.patient_id.astype("U")).astype("S")
        splits[split] = replace(one, patient_id=ids, outcomes=label)
    counts = {name: len(one) for name, one in splits.items()}
    dataset = write_dataset(
        folder / "cohort" / "1.0.0",
        splits,
        kind="cohort",
        vocabulary=vocabulary,
        cohort={"name": "made"},
        split={"counts": counts, "key": "k"},
        pretraining_dataset_hash=PRETRAINING,
        time_is_ordinal=True,
        members=True,
    )
    params = jax.jit(partial(init, model))(jax.random.key(0))
    described = {"model": asdict(model), "dataset_hash": PRETRAINING}
    with RunDirectory.create_or_open(folder / "pretraining", config=described, vocabulary=vocabulary) as run:
        save_step(run, 1, params=params, opt_state=None, progress={"step": 1})
    return str(dataset), str(folder / "pretraining")


def run(words: list[str], programs: Path, *, until: str) -> dict:
    """Start it, and end it when a line of the kind `until` has come: "train" (the first step) or "validation"."""
    command = [sys.executable, str(ROOT / "run_finetune.py"), *words]
    environment = os.environ | {"MEDBERT_CACHE": str(programs), "PYTHONPATH": str(ROOT)}
    began, busy, said, seen = time.perf_counter(), busy_seconds(), [], []
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    for line in process.stderr:
        said.append(line)
        if found := LINE.match(line):
            seen.append((found[1], int(found[2].replace(",", "")), time.perf_counter() - began))
            if found[1] == until:
                break
    process.terminate()
    process.stderr.read()  # to its end
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - began
    if not seen or seen[-1][0] != until:
        raise RuntimeError(f"run_finetune.py must come to a {until} line: got {''.join(said)[-2000:]}")
    steps = [(step, at) for kind, step, at in seen if kind == "train"]
    cpu = used.ru_utime + used.ru_stime
    (first, first_at), (last, last_at) = steps[0], steps[-1]
    return {
        "seconds_to_first_step": first_at,
        "seconds_of_an_epoch": (last_at - first_at) * last / (last - first) if last > first else None,
        "peak_gib": used.ru_maxrss / 2**20,
        "cpu_seconds": cpu,
        "foreign": max(0.0, busy_seconds() - busy - cpu) / (seconds * (os.cpu_count() or 1)),
    }


def main(
    preset: str = "finetune_small",
    patients: int = 2000,
    codes: float = 33.0,
    vocabulary: int = 10_000,
    rounds: int = 3,
    layers: int = 6,
    out: Path = Path(__file__).parent / "results" / "finetuning_process.json",
) -> None:
    """Measure and add the preset's figures to the JSON.

    Args:
        preset: a configuration of configs/.
        patients: made training patients.
        codes: their codes on average.
        vocabulary: ids, special ones included.
        rounds: starts of each kind, and epochs.
        layers: of the model; fewer to try this out.
        out: where the figures go; those of other presets and sizes stay.
    """
    found: dict[str, list[dict]] = {"cold": [], "warm": [], "epoch": []}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        dataset, checkpoint = prepared(folder, patients, codes, ModelConfig(vocabulary_size=vocabulary, layers=layers))
        words = [preset, "--dataset", dataset, "--checkpoint", checkpoint, "--log-every", "1"]
        run([*words, "--results", str(folder / "store")], folder / "other", until="train")  # makes the token store
        for number in range(rounds):
            programs = folder / f"programs-{number}"
            for kind, until in (("cold", "train"), ("warm", "train"), ("epoch", "validation")):
                results = ["--results", str(folder / f"{kind}-{number}")]
                found[kind].append(run([*words, *results], programs, until=until))
    figures = {
        "machine": machine(),
        "patients": patients,
        "mean_codes": codes,
        "vocabulary": vocabulary,
        "layers": layers,
        "seconds_to_first_step": {
            kind: spread([one["seconds_to_first_step"] for one in found[kind]]) for kind in ("cold", "warm")
        },
        "seconds_of_an_epoch": spread([one["seconds_of_an_epoch"] for one in found["epoch"]]),
        "peak_gib": max(one["peak_gib"] for one in found["epoch"]),
        "foreign": {kind: [round(one["foreign"], 3) for one in runs] for kind, runs in found.items()},
        "runs": found,
    }
    record = json.loads(out.read_text()) if out.exists() else {}
    record[f"{preset}, {patients:,} patients"] = figures
    out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps({name: value for name, value in figures.items() if name != "runs"}, indent=1))


if __name__ == "__main__":
    tyro.cli(main)
