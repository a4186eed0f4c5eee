"""What a step of the faithful presets costs on this machine: seconds of processor time, whatever else it is doing.

    python benchmarks/preset_steps.py

Made patients of the length model (mean 15 codes, up to 512), V = 82,603, 32 patients a step in three rows of 512.
Processor time is that of all cores together: two that have nothing else to do take half of it at best.
"""

import json
import statistics
import time
from pathlib import Path

import tyro
from length_model import length_model
from provenance import machine
from step_rate import timed_step

from medbert_jax.training.command_line import shipped_preset
from medbert_jax.training.corpus import CorpusConfig

PRESETS = ("pretrain_paper", "pretrain_released_code")


def main(rounds: int = 5, steps: int = 5, out: Path = Path("benchmarks/results/preset_steps.json")) -> None:
    """Time the steps.

    Args:
        rounds: timed rounds of each preset.
        steps: steps of a round.
        out: JSON file of the figures.
    """
    figures = {"machine": machine(), "processor_s_per_step": {}}
    for name in PRESETS:
        preset = shipped_preset(name)
        patients = length_model(20_000, preset.model.vocabulary_size)
        corpus = CorpusConfig(steps_per_dispatch=steps)
        timed, measured = timed_step(patients, preset.model, preset.rows, preset.masking, corpus), []
        for _ in range(rounds):
            began = time.process_time()
            timed.run(steps)
            measured.append((time.process_time() - began) / steps)
        figures["processor_s_per_step"][name] = {
            "median": statistics.median(measured),
            "range": [min(measured), max(measured)],
            "rounds": rounds,
            "steps_per_round": steps,
        }
        print(f"{name}: {statistics.median(measured):.3f} s ({min(measured):.3f} to {max(measured):.3f})")
    out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
