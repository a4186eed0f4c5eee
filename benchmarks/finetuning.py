"""Fine-tuning and prediction: patients per second of ours, of the same heads in torch, and of an earlier checkout.

    python benchmarks/finetuning.py [--torch-python VENV/bin/python] [--before CHECKOUT] [--rounds 5]

Made patients of the length model with 43 codes on average, a vocabulary of 10,000, Bi-GRU, 32 patients a step, dropout
on, Adam at a clipped gradient. A round is an epoch of them, or a pass of predictions. Every variant is a process;
rounds are interleaved, ratios are of neighbouring rounds, and none is given where others used the machine
(side_by_side.py). Ten minutes on two quiet cores with all variants.
"""

import json
import sys
from pathlib import Path

import tyro
from provenance import machine
from side_by_side import interleaved, rate, ratio

HERE = Path(__file__).parent


def main(
    torch_python: Path | None = None,
    before: Path | None = None,
    patients: int = 1000,
    codes: float = 43.0,
    rounds: int = 5,
    kinds: tuple[str, ...] = ("train", "predict"),
    frozen: bool = False,
    out: Path = HERE / "results" / "finetuning.json",
) -> None:
    """Measure and write the JSON.

    Args:
        torch_python: the Python of an environment with torch and transformers; without it torch is left out.
        before: a checkout whose fine-tuning had one patient per row; without it that is left out.
        patients: made patients, all of whom are in a round.
        codes: their codes on average.
        rounds: rounds of each variant.
        kinds: train, predict, or both.
        frozen: measure the training of a head on kept states too.
        out: where the figures go.
    """
    record: dict = {"machine": machine(), "patients": patients, "vocabulary": 10_000, "batch_size": 32}
    for kind in kinds:
        words = ["--kind", kind, "--patients", str(patients), "--codes", str(codes)]
        ours = [sys.executable, str(HERE / "finetuning_variants.py"), *words]
        commands = {"ours": ours}
        if frozen and kind == "train":
            commands["ours, backbone frozen"] = [*ours, "--backbone", "frozen"]
        if before:
            commands["before rows were packed"] = [*ours, "--package", str(before)]
        if torch_python:
            in_torch = [str(torch_python), str(HERE / "finetuning_torch.py"), *words]
            commands["torch, batches of one length"] = in_torch
            if kind == "train":
                commands["torch, random batches"] = [*in_torch, "--order", "random"]
        found = interleaved(commands, rounds=rounds)
        record[kind] = {
            name: {**one["facts"], "peak_gib": one["peak_gib"], **rate(one["rounds"])} for name, one in found.items()
        }
        record[f"{kind}: ours against"] = {
            name: ratio(found["ours"]["rounds"], one["rounds"]) for name, one in found.items() if name != "ours"
        }
    out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    tyro.cli(main)
