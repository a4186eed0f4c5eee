"""How often intervals hold the truth: simulated test sets of every design, their 95 % intervals, and the share that do.

    python benchmarks/coverage.py --out benchmarks/results/coverage.json

About 500 patients a set (a fifth cases, or a case and one or two controls a set), two models of known faults. The truth
is the same figure of a set of a million. `everybody`: one prediction each. `clustered`: one to five predictions of a
patient, who share a part of risk and score. `matched`: sets, whose score has a part in common. `sampled`: two controls
for each case out of 3,000 patients. AUROCs by DeLong (everybody) and Obuchowski (clustered), all else by the bootstrap.
"""

import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import tyro
from scipy.special import expit

from medbert_jax.metrics.bootstrap import Draws, percentile_interval
from medbert_jax.metrics.clusters import auroc_obuchowski, obuchowski_difference, within_set_concordance
from medbert_jax.metrics.decisions import at_risk
from medbert_jax.metrics.discrimination import auroc_delong, delong_difference
from medbert_jax.metrics.weighted_calibration import calibration_slope, weighted_brier
from medbert_jax.metrics.weighted_ranks import RankedPatients

RISK = 0.2
LARGE = 1_000_000


class Simulated:
    """Labels, probabilities of two models, clusters, weights, and who was sampled, of one set of n rows."""

    def __init__(self, labels, odds, random, *, clusters=None, weights=None, sampled=None):
        n = len(labels)
        self.labels = labels
        noise = random.normal(size=(2, n))
        self.models = (expit(0.7 * odds + 0.1 + 0.5 * noise[0]), expit(0.9 * odds + 0.9 * noise[1]))
        self.clusters = np.arange(n) if clusters is None else clusters
        self.weights = np.ones(n) if weights is None else weights
        self.sampled = sampled


def everybody(random, size: int) -> Simulated:
    odds = random.normal(-1.7, 1.2, size)
    return Simulated(random.random(size) < expit(odds), odds, random)


def clustered(random, size: int) -> Simulated:
    rows = random.integers(1, 6, size // 3)
    of = np.repeat(np.arange(size // 3), rows)
    odds = -1.7 + 0.9 * random.normal(size=size // 3)[of] + 0.8 * random.normal(size=len(of))
    return Simulated(random.random(len(of)) < expit(odds), odds, random, clusters=of)


def matched(random, size: int) -> Simulated:
    rows = 2 + (random.random(size // 3) < 0.8)
    of = np.repeat(np.arange(size // 3), rows)
    labels = np.diff(of, prepend=-1) > 0
    odds = -1.7 + random.normal(size=size // 3)[of] + random.normal(size=len(of)) + labels
    return Simulated(labels, odds, random, clusters=of)


def sampled(random, size: int) -> Simulated:
    odds = random.normal(-3.5, 1.2, 6 * size)
    labels = random.random(len(odds)) < expit(odds)
    cases, controls = np.flatnonzero(labels), np.flatnonzero(~labels)
    if size < LARGE // 4:
        controls = random.choice(controls, min(len(controls), 2 * len(cases)), replace=False)
    rows = np.concatenate([cases, controls])
    weights = np.where(labels[rows], 1.0, np.count_nonzero(~labels) / len(controls))
    return Simulated(labels[rows], odds[rows], random, weights=weights, sampled=~labels[rows])


DESIGNS = {"everybody": everybody, "clustered": clustered, "matched": matched, "sampled": sampled}


def figures(design: str, one: Simulated, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Name → figure (…,) of weights (…, n)."""
    found = {}
    for name, scores in zip(("a", "b"), one.models, strict=True):
        found[f"auroc {name}"] = RankedPatients(one.labels, scores).auroc(weights)
        if design == "matched":
            names, shares = within_set_concordance(one.labels, scores, one.clusters)
            of_sets = weights[..., np.searchsorted(one.clusters, names)]
            found[f"within sets {name}"] = of_sets @ shares / of_sets.sum(-1)
            continue
        found[f"brier {name}"] = weighted_brier(one.labels, scores, weights)
        found[f"net benefit {name}"] = at_risk(one.labels, scores, weights, RISK)["net_benefit"]
        if name == "a":
            found["slope a"] = calibration_slope(one.labels, scores, weights)
    for metric in ("auroc", "within sets", "brier", "net benefit"):
        if f"{metric} a" in found:
            found[f"{metric}, a − b"] = found[f"{metric} a"] - found[f"{metric} b"]
    return found


def intervals(design: str, one: Simulated, draws: int, seed: int) -> dict[str, tuple[float, float]]:
    """Name → the interval that an evaluation gives."""
    sample = figures(design, one, one.weights)
    parts = [
        figures(design, one, weights)
        for weights in Draws(one.clusters, draws, seed, one.weights, one.sampled).weights()
    ]
    drawn = {name: np.concatenate([part[name] for part in parts]) for name in sample}
    found = {name: percentile_interval(float(value), drawn[name]) for name, value in sample.items()}
    if design == "everybody":
        found["auroc a"], found["auroc b"] = (auroc_delong(one.labels, scores) for scores in one.models)
        found["auroc, a − b"] = delong_difference(one.labels, *one.models)
    if design == "clustered":
        found["auroc a"], found["auroc b"] = (
            auroc_obuchowski(one.labels, scores, one.clusters) for scores in one.models
        )
        found["auroc, a − b"] = obuchowski_difference(one.labels, *one.models, one.clusters)
    return {name: (interval.low, interval.high) for name, interval in found.items()}


def truth(design: str) -> dict[str, float]:
    large = DESIGNS[design](np.random.default_rng(12345), LARGE // (4 if design == "sampled" else 1))
    return {name: float(value) for name, value in figures(design, large, large.weights).items()}


def one_set(design: str, number: int, size: int, draws: int) -> dict[str, tuple[float, float]]:
    return intervals(design, DESIGNS[design](np.random.default_rng([7, number]), size), draws, number)


def main(
    sets: int = 500,
    draws: int = 1000,
    size: int = 500,
    designs: tuple[str, ...] = tuple(DESIGNS),
    workers: int = 2,
    out: Path | None = None,
) -> None:
    """Measure and write the JSON.

    Args:
        sets: simulated test sets of each design.
        draws: of each bootstrap.
        size: patients of a set, about.
        designs: which.
        workers: processes.
        out: where the figures go besides the terminal; designs that are not measured stay as they are there.
    """
    from provenance import machine  # not in the workers: it loads jax

    record = json.loads(out.read_bytes()) if out is not None and out.exists() else {"sets": {}}
    record |= {"draws": draws, "size": size, "confidence": 0.95, "machine": machine()}
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for design in designs:
            expected = truth(design)
            arguments = ([design] * sets, range(sets), [size] * sets, [draws] * sets)
            found = list(pool.map(one_set, *arguments, chunksize=10))
            record[design] = {
                name: {
                    "truth": value,
                    "covered": float(np.mean([low <= value <= high for low, high in (one[name] for one in found)])),
                    "below": float(np.mean([one[name][1] < value for one in found])),
                    "above": float(np.mean([one[name][0] > value for one in found])),
                }
                for name, value in expected.items()
            }
            record["sets"][design] = sets
            print(json.dumps({design: {name: one["covered"] for name, one in record[design].items()}}), flush=True)
            if out is not None:  # after each design, so that what was measured is not lost
                out.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
