"""On an accelerator: is it exact there, how fast is the paper's size, beside torch too, and what does fine-tuning take?

    python benchmarks/gpu.py [--torch-python ENVIRONMENT/bin/python]

Twelve minutes of one device in all, sized for an H200: sections in the order of their weight, each a process with its
time (`timed_sections.py`, `gpu_sections.py`), whose figures are in the JSON as soon as they are found. One that fails
says why there, and stops no other; then the exit status is 1. Figures:

- packed = padded, no gradient from a patient to another, and the golden numbers;
- patients/s, ms a step, peak memory from 32 to 8,192 patients a step, exactly 32, and a minute on 28.5 million
  patients; the FLOPs that are useful (`useful_work.py`), and their share of what a large product in bfloat16 reaches on
  this very device (MFU);
- Hugging Face's BERT in torch on the same device, where torch is installed;
- an epoch of fine-tuning; 1, 10 and 100 steps in a program.

Patients are made: only their lengths are like real ones. Needs neither TFDS nor polars nor torch. `--rehearse` runs all
sections on a CPU with small numbers, in under three minutes: its figures say nothing but that the script works.
"""

import os
import signal
import sys
import tempfile
from pathlib import Path

import tyro
from gpu_sections import SECTIONS
from timed_sections import Section, all_fine, run_sections, summary

from medbert_jax.printed_tables import print_tables

HERE = Path(__file__).parent
SECONDS = {
    "exactness": 110.0,
    "4,096 patients a step": 55.0,
    "a minute on 28.5 million patients": 155.0,
    "torch": 70.0,
    "fine-tuning": 55.0,
    "steps a dispatch": 60.0,
}
"""Of sections, by twelve minutes; of those that are not named `SECONDS_OF_A_SIZE`."""
SECONDS_OF_A_SIZE = 43.0
COLUMNS = {"patients/s": ("patients_per_s", ",.0f"), "ms a step": ("step_ms", ",.1f"), "MFU": ("mfu", ".1%")}
COLUMNS |= {"GiB of the device": ("peak_device_gib", ",.1f")}


def main(
    out: Path | None = None, minutes: float = 12.0, torch_python: str = sys.executable, rehearse: bool = False
) -> None:
    """Measure, and write the JSON after every figure.

    Args:
        out: where the figures go; none: gpu.json in the results beside this script, a rehearsal's nowhere.
        minutes: for all sections; each has its share.
        torch_python: interpreter that may have torch and transformers.
        rehearse: small numbers, on any device.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a section ends with this process
    seconds = {name: SECONDS.get(name, SECONDS_OF_A_SIZE) for name in SECTIONS}
    share = 60 * minutes / sum(seconds.values())
    options = ["--torch-python", torch_python, *["--rehearse"] * rehearse]
    script = str(HERE / "gpu_sections.py")
    sections = {
        name: Section([sys.executable, script, "--name", name, *options], share * seconds[name]) for name in SECTIONS
    }
    with tempfile.TemporaryDirectory() as scratch:
        # Sections share programs, and none is found that an earlier run has compiled.
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(scratch) / "programs")
        out = out or (Path(scratch) if rehearse else HERE / "results") / "gpu.json"
        record = run_sections(sections, out, rehearsal=rehearse, minutes=minutes, patients="made, of the length model")
    print_tables([summary(record, {name: cell(*one) for name, one in COLUMNS.items()})])
    sys.exit(0 if all_fine(record) else 1)


def cell(figure: str, form: str):
    """Figures → this one as text."""
    return lambda figures: format(figures[figure], form) if figures.get(figure) else ""


if __name__ == "__main__":
    tyro.cli(main)
