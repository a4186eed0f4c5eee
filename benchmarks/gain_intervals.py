"""What pretraining gains on diabetes130, with the interval that the replicates allow, of every run that is stored.

    python benchmarks/gain_intervals.py

Reads benchmarks/results/diabetes130.json. The gain is pretrained minus untrained within a replicate; its 95 % interval
is Student's, over the replicates. It holds the chance of training subset, head and order, and not that of the test
patients, who are the same in all replicates, nor that of the one checkpoint. Bold stands where 0 is outside.
"""

import json
from pathlib import Path

import numpy as np
from scipy.stats import t

RESULTS = Path(__file__).parent / "results" / "diabetes130.json"
SIZES = ("300", "1000", "3000", "all")


def gains(runs: list[dict]) -> dict[tuple[str, str, str], np.ndarray]:
    """(cohort, head, size) → (replicates,) gain in test AUROC."""
    found: dict[tuple[str, str, str], dict[str, dict[int, float]]] = {}
    for run in runs:
        if run["backbone"] in ("pretrained", "untrained"):
            cell = found.setdefault((run["cohort"], run["head"], str(run["train_size_name"])), {})
            cell.setdefault(run["backbone"], {})[run["replicate"]] = run["auroc"]
    return {
        key: np.array([cell["pretrained"][one] - cell["untrained"][one] for one in sorted(cell["untrained"])])
        for key, cell in found.items()
    }


def interval(of: np.ndarray) -> tuple[float, float, float]:
    """Mean and 95 % bounds."""
    half = t.ppf(0.975, len(of) - 1) * of.std(ddof=1) / np.sqrt(len(of))
    return of.mean(), of.mean() - half, of.mean() + half


def main() -> None:
    """Print a table in markdown."""
    found = gains(json.loads(RESULTS.read_text()))
    print("| cohort | head |", " | ".join(SIZES), "|")
    print("| --- | --- |" + " ---: |" * len(SIZES))
    for cohort, head in sorted({key[:2] for key in found}):
        cells = []
        for size in SIZES:
            mean, low, high = interval(found[cohort, head, size])
            text = f"{mean:+.3f} [{low:.3f}, {high:.3f}]".replace("-", "−")
            cells.append(f"**{text}**" if low > 0 or high < 0 else text)
        print(f"| {cohort} | {head.replace('_', ' ')} |", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
