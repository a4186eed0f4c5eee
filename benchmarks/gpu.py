"""On an accelerator: the paper's size on the length model for a minute, and the golden files on the card.

    python benchmarks/gpu.py --out benchmarks/results/gpu.json

Made patients of the length model, V = 82,603, one masked code each, bf16 products. Figures: patients per second, step
time, peak memory, and the largest error against the golden files in float32 at the highest matmul precision. Needs
neither TFDS nor polars nor torch. `--rehearse` takes a few seconds and small numbers, to try the script on a CPU.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import jax
from length_model import length_model
from step_rate import machine, timed_step

from medbert_jax.data.row_plan import RowsConfig
from medbert_jax.models.config import preset

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from golden import make_bert  # noqa: E402  (beside the tests, which are no package)
from golden.comparison import config_of, golden_shares, ours  # noqa: E402


def main(out: Path, *, rehearse: bool) -> None:
    """Measure and write the JSON."""
    vocabulary, patients, seconds = (2_000, 4_000, 3.0) if rehearse else (82_603, 1_000_000, 60.0)
    made = length_model(patients, vocabulary)
    record = {"machine": machine(), "rehearsal": rehearse, "pretraining": {}}
    for batch in (32,) if rehearse else (32, 256, 1024, 4096):
        model = replace(preset("paper", vocabulary), compute_dtype="bfloat16")
        timed = timed_step(made, model, RowsConfig(batch_size=batch, short_row=128))
        steps, trained, spent = 0, 0, 0.0
        while spent < seconds / (1 if batch == 4096 or rehearse else 4):
            done, took = timed.run(20)
            steps, trained, spent = steps + 20, trained + done, spent + took
        stats = jax.devices()[0].memory_stats() or {}
        record["pretraining"][f"batch {batch}"] = {
            "patients_per_s": trained / spent,
            "step_ms": 1e3 * spent / steps,
            "seconds": spent,
            "compile_s": timed.compile_s,
            "fill": timed.fill,
            "peak_bytes_so_far": stats.get("peak_bytes_in_use"),
        }
        print(batch, record["pretraining"][f"batch {batch}"], flush=True)
    with jax.default_matmul_precision("highest"):
        errors = {
            f"{case.name}, length {length}": max(
                golden_shares(
                    ours(case, length, config_of(case), make_bert.inputs(case, length)), case, length
                ).values()
            )
            for case in make_bert.CASES
            for length in ((7,) if rehearse else make_bert.LENGTHS)
        }
    record["golden_parity"] = {"largest_error_of_an_arrays_maximum": errors, "tolerance_of_the_test": 1e-5}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record["golden_parity"], indent=1))


if __name__ == "__main__":
    import argparse

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "gpu.json")
    parser.add_argument("--rehearse", action="store_true")
    arguments = parser.parse_args()
    main(arguments.out, rehearse=arguments.rehearse)
