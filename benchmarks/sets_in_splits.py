"""How many matched sets stay whole where they are drawn from the whole shard, and where from their case's split.

    medbert simulate EHR --patients 100000 --seed 1
    python benchmarks/sets_in_splits.py EHR --out benchmarks/results/sets_in_splits.json

Of every matched cohort: cases and controls of the test split, cases there who have a control there (those on whom the
concordance within sets rests), such pairs, and cases of the whole cohort who did not find their controls.
"""

from dataclasses import dataclass
from pathlib import Path

import polars as pl
import tyro

from medbert_jax.cohorts.loading import load_spec
from medbert_jax.cohorts.select import select_cohort
from medbert_jax.disk.whole_files import write_json
from medbert_jax.ehr.hashing import SPLITS, assign_split
from medbert_jax.ehr.tables import read_shard, read_source

COHORTS = ("dhf-matched", "paca-matched")


@dataclass(frozen=True)
class Options:
    """What is counted."""

    ehr: tyro.conf.Positional[Path]
    """folder of EHR tables."""
    out: Path | None = None
    """JSON file for the figures."""
    split_key: str = "medbert"
    """key of the hash that splits patients."""


def count(ehr: Path, name: str, key: str, *, apart: bool) -> dict[str, int]:
    """Counts of one cohort, drawn within splits (`apart`) or within shards alone."""
    frames, unmatched = [], 0
    for shard in range(read_source(ehr).shards):
        tables = read_shard(ehr, shard)
        split = assign_split(tables.patients["patient_id"], key=key)
        frame, ledger = select_cohort(tables, load_spec(name), split if apart else None)
        frames.append(frame)
        unmatched += sum(line.left.patients for line in ledger.lines if line.rule == "unmatched")
    rows = pl.concat(frames)
    rows = rows.with_columns(split=assign_split(rows["patient_id"], key=key))
    test = rows.filter(pl.col("split") == SPLITS.index("test"))
    sets = test.group_by("set_id").agg(cases=pl.col("label").sum(), controls=(1 - pl.col("label")).sum())
    whole = sets.filter(pl.col("cases") == 1, pl.col("controls") > 0)
    cases = int((test["label"] == 1).sum())
    return {
        "cases": int((rows["label"] == 1).sum()),
        "controls": int((rows["label"] == 0).sum()),
        "unmatched": unmatched,
        "test_cases": cases,
        "test_controls": len(test) - cases,
        "test_cases_with_a_control": whole.height,
        "test_pairs": int(whole["controls"].sum()),
    }


def main(options: Options) -> None:
    """Count, print and write."""
    found = {
        name: {way: count(options.ehr, name, options.split_key, apart=way == "split") for way in ("shard", "split")}
        for name in COHORTS
    }
    for name, ways in found.items():
        for way, counts in ways.items():
            print(name, way, ", ".join(f"{what} {number:,}" for what, number in counts.items()))
    if options.out is not None:
        source = read_source(options.ehr)
        said = {"source": source.format, "shards": source.shards, "cohorts": found}
        write_json(options.out, said)


if __name__ == "__main__":
    main(tyro.cli(Options))
