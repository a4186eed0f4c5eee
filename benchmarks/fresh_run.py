"""How far a fresh run of the README's table (other subsets, heads, orders) lies from the first, in its own deviations.

    python benchmarks/fresh_run.py OUT/results-0 OUT/results-5

Writes the JSON of every cell that both have: both means, the fresh run's standard deviation, and their ratio.
"""

import json
from pathlib import Path

import polars as pl
import tyro

from medbert_jax.evaluation.results import read_results

CELL = ["cohort", "train_size_name", "backbone", "head"]


def main(
    first: tyro.conf.Positional[Path],
    fresh: tyro.conf.Positional[Path],
    /,
    out: Path = Path(__file__).parent / "results" / "fresh_run.json",
) -> None:
    """Compare and write the JSON.

    Args:
        first: results of the table.
        fresh: results of the fresh run.
        out: where the figures go.
    """
    if shared := set(read_results(first)["run_id"]) & set(read_results(fresh)["run_id"]):
        raise ValueError(f"a fresh run has runs of its own: got {len(shared)} that are in both; give its own folder")
    cells = _means(first).join(_means(fresh), on=CELL, suffix="_fresh", how="left", validate="1:1").sort(CELL)
    missing = cells.filter(pl.col("replicates_fresh").is_null() | (pl.col("replicates_fresh") < pl.col("replicates")))
    cells = cells.join(missing, on=CELL, how="anti")
    # With all training patients the baselines have nothing that varies.
    cells = cells.filter(pl.col("sd_fresh") > 0).sort(CELL)
    off = (pl.col("mean_fresh") - pl.col("mean")).abs() / pl.col("sd_fresh")
    cells = cells.with_columns(difference_in_sd=off)
    record = {
        "cells": cells.to_dicts(),
        "compared": cells.height,
        "not_compared_for_want_of_fresh_runs": missing.select(CELL).rows(),
        "largest_difference_in_sd": cells["difference_in_sd"].max(),
        "cells_over_2_sd": int((cells["difference_in_sd"] > 2).sum()),
    }
    out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps({name: value for name, value in record.items() if name != "cells"}, indent=1))


def _means(folder: Path) -> pl.DataFrame:
    results = read_results(folder)
    test = results.filter((results["split"] == "test") & (results["metric"] == "auroc"))
    return test.group_by(CELL).agg(
        pl.col("value").mean().alias("mean"), pl.col("value").std().alias("sd"), pl.len().alias("replicates")
    )


if __name__ == "__main__":
    tyro.cli(main)
