"""Effect sizes found again in simulated lives: do 95 % intervals cover what was put in?

python benchmarks/simulate_refit.py --patients 1000000
"""

import json
from concurrent.futures import ProcessPoolExecutor
from functools import reduce
from pathlib import Path

import numpy as np
import tyro
from effect_estimates import Evidence, gather
from provenance import simulated_by

from medbert_jax.simulation.block import World
from medbert_jax.simulation.parameters import load_parameters

_BATCH = 8_192


def main(
    patients: int = 1_000_000,
    seed: int = 0,
    workers: int = 2,
    out: Path = Path(__file__).parent / "results" / "simulate_refit.json",
) -> None:
    """Gather, estimate, print, write the JSON.

    Args:
        patients: lives.
        seed: of these.
        workers: processes.
        out: where the figures go.
    """
    world = World(load_parameters())
    batches = -(-patients // _BATCH)
    with ProcessPoolExecutor(workers) as pool:
        jobs = [pool.submit(one, seed, range(worker, batches, workers)) for worker in range(workers)]
        evidence = reduce(Evidence.add, (job.result() for job in jobs))
    rows = evidence.estimates(world)
    true, estimate, error = (np.array([row[place] for row in rows]) for place in (2, 3, 4))
    inside = np.abs(estimate - true) < 1.96 * error
    record = {
        **simulated_by(world.parameters),
        "patients": batches * _BATCH,
        "effects": len(world.parameters.effects),
        "effects_told_apart": len(rows),
        "covered": float(inside.mean()),
        "mean_error_over_standard_error": float(((estimate - true) / error).mean()),
        "rows": [
            {"target": t, "of": f, "true": round(b, 4), "estimate": round(e, 4), "standard_error": round(s, 4)}
            for t, f, b, e, s in rows
        ],
    }
    print(json.dumps({key: value for key, value in record.items() if key != "rows"}, indent=1))
    out.write_text(json.dumps(record, indent=1) + "\n")


def one(seed: int, batches: range) -> Evidence:
    """The evidence of some batches of lives."""
    world, total = World(load_parameters()), None
    for batch in batches:
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=(1, batch))))
        found = gather(world, _BATCH, rng)
        total = found if total is None else total.add(found)
    return total


if __name__ == "__main__":
    tyro.cli(main)
