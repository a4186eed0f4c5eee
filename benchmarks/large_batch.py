"""Do larger steps lose anything per patient seen? `pretrain_small` and `pretrain_large_batch` over several seeds.

    python benchmarks/large_batch.py --dataset data/ehr_pretraining/diabetes130/1.0.0 --work FOLDER

Both see the same patients as often; validation is compared after the last of them, within each seed. What is there is
not made again.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import tyro
from provenance import machine

import run_pretrain
from medbert_jax.data.token_store import read_metadata
from medbert_jax.training.command_line import shipped_preset
from medbert_jax.training.progress import metrics_row

PRESETS = {name: shipped_preset(name) for name in ("pretrain_small", "pretrain_large_batch")}
HIGHER_IS_BETTER = {"masked_code_loss": False, "masked_code_accuracy": True, "prolonged_los_auroc": True}


def last_validation(run: Path) -> dict:
    rows = [row for row in map(metrics_row, (run / "metrics.jsonl").read_bytes().split(b"\n")) if row]
    return [row for row in rows if row["kind"] == "validation"][-1]


def main(
    dataset: Path,
    work: Path,
    seeds: int = 3,
    epochs: float = 4.0,
    short_row: int = 32,
    out: Path = Path(__file__).parent / "results" / "large_batch.json",
) -> None:
    """Measure and write the JSON after every run.

    Args:
        dataset: pretraining dataset directory.
        work: folder of the runs.
        seeds: of each preset.
        epochs: passes over the training patients.
        short_row: slots of the short rows.
        out: where the figures go.
    """
    record = {
        "machine": machine(),
        "dataset_hash": read_metadata(dataset)["dataset_hash"],
        "epochs": epochs,
        "runs": {name: {} for name in PRESETS},
    }
    for seed in range(seeds):
        for name, preset in PRESETS.items():
            rows = replace(preset.rows, short_row=short_row)
            run = work / f"{name}-{seed}-{epochs:g}"
            config = replace(preset, dataset=str(dataset), run=str(run), rows=rows, epochs=epochs, seed=seed)
            record["runs"][name][seed] = last_validation(run_pretrain.main(config))
            small, large = (record["runs"][name] for name in PRESETS)
            record["large minus small"] = {
                metric: summary([large[one][metric] - small[one][metric] for one in large])
                for metric in HIGHER_IS_BETTER
                if large
            }
            out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record["large minus small"], indent=1))


def summary(differences: list[float]) -> dict:
    """Mean over seeds and the standard error of it; three seeds make no interval to rely on."""
    error = np.std(differences, ddof=1) / np.sqrt(len(differences)) if len(differences) > 1 else float("nan")
    return {"mean": float(np.mean(differences)), "standard_error": None if np.isnan(error) else float(error)}


if __name__ == "__main__":
    tyro.cli(main)
