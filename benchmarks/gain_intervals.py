"""Differences of models on diabetes130, with the intervals that their replicates allow, from the runs that are stored.

    python benchmarks/gain_intervals.py

Reads benchmarks/results/diabetes130.json. A difference is taken within a replicate (same training patients); its 95 %
interval is Student's, over the replicates. It holds the chance of training subset, head and order, and not that of the
test patients, who are the same in all replicates, nor that of the one checkpoint: with it intervals are wider.
"""

import json
from pathlib import Path

import numpy as np
from scipy.stats import t

RESULTS = Path(__file__).parent / "results" / "diabetes130.json"
SIZES = ("300", "1000", "3000", "all")
HEADS = ("bi_gru", "feed_forward")
Model = tuple[str, str]
"""Backbone and head."""


def difference(cells: list[dict], cohort: str, size: str, ours: Model, theirs: Model) -> np.ndarray:
    """(replicates,) of test AUROC, ours minus theirs."""
    of = {
        (cell["backbone"], cell["head"]): dict(zip(cell["replicate"], cell["value"], strict=True))
        for cell in cells
        if (cell["cohort"], cell["train_size_name"]) == (cohort, size)
    }
    return np.array([of[ours][one] - of[theirs][one] for one in sorted(of[theirs])])


def interval_words(of: np.ndarray) -> str:
    """Mean and 95 % bounds."""
    half = t.ppf(0.975, len(of) - 1) * of.std(ddof=1) / np.sqrt(len(of))
    low, high = of.mean() - half, of.mean() + half
    return f"{of.mean():+z.3f} [{low:z.3f}, {high:z.3f}]".replace("-", "−")


def main() -> None:
    """Print tables in markdown."""
    cells = json.loads(RESULTS.read_text())["cells"]
    pairs: dict[str, tuple[Model, Model]] = {
        f"pretrained − untrained, {head.replace('_', ' ')}": (("pretrained", head), ("untrained", head))
        for head in HEADS
    }
    regression = ("logistic_regression", "codes+age")
    pairs |= {
        f"regression on codes and age − pretrained, {head.replace('_', ' ')}": (regression, ("pretrained", head))
        for head in HEADS
    }
    for cohort in dict.fromkeys(cell["cohort"] for cell in cells):
        print(
            f"| {cohort} |",
            " | ".join(f"{int(size):,}" if size.isdecimal() else size for size in SIZES),
            "|\n| --- |" + " ---: |" * len(SIZES),
        )
        for name, (ours, theirs) in pairs.items():
            words = [interval_words(difference(cells, cohort, size, ours, theirs)) for size in SIZES]
            print(f"| {name} |", " | ".join(words), "|")
        print()


if __name__ == "__main__":
    main()
