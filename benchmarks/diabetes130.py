"""The README's table: what pretraining is worth on diabetes130, three cohorts, four training sizes, five replicates.

    python benchmarks/diabetes130.py --data FOLDER --out FOLDER

Ingests, prepares, pretrains on the training patients, fine-tunes everything, and writes the tables and a JSON of every
mean into benchmarks/results/. What is there is not made again, so an interrupted run goes on. After `--pretrain-only`,
`--part 0 --parts 2` and `--part 1 --parts 2` may share the fine-tuning runs between two processes at the same time; the
command without them then writes the tables.
"""

import json
import platform
from dataclasses import replace
from pathlib import Path

import jax
import polars as pl
import tyro

import run_finetune
import run_pretrain
from configs.diabetes130 import CONFIG as GRID
from configs.pretrain_small import CONFIG as PRETRAIN
from medbert_jax.evaluation.results import read_results
from medbert_jax.evaluation.tables import auroc_table, paired_table
from medbert_jax.ingest.ingest import ingest
from medbert_jax.printed_tables import to_markdown
from tfds_builders.disease_cohort.disease_cohort_dataset_builder import prepare_cohort
from tfds_builders.ehr_pretraining.ehr_pretraining_dataset_builder import prepare_pretraining
from tfds_builders.options import CohortOptions, PrepareOptions

COHORTS = ("hf-later", "los-next", "readmission-30d")
RESULTS = Path(__file__).parent / "results"


def main(
    data: Path,
    out: Path,
    seed: int = 0,
    first_replicate: int = 0,
    part: int = 0,
    parts: int = 1,
    pretrain_only: bool = False,
) -> None:
    """Make the table.

    Args:
        data: folder of diabetic_data.parquet or diabetic_data.csv.
        out: folder for everything that is made.
        seed: of the pretraining.
        first_replicate: number of the first replicate; 5 gives a fresh run of the whole table.
        part: which part of the fine-tuning runs this process does.
        parts: into how many parts they are divided.
        pretrain_only: stop after the pretraining.
    """
    ehr = out / "ehr"
    if not (ehr / "source.json").exists():
        ingest(data, ehr, format="diabetes130")
    dataset = prepare_pretraining(PrepareOptions(ehr, "diabetes130", data_dir=out / "data"))
    checkpoint = out / "pretraining"
    if parts == 1:  # several parts share a finished checkpoint: the run directory has one writer
        run_pretrain.main(
            replace(
                PRETRAIN,
                dataset=str(dataset),
                run=str(checkpoint),
                rows=replace(PRETRAIN.rows, short_row=32),
                seed=seed,
            )
        )
    if pretrain_only:
        return
    cohorts = [
        str(prepare_cohort(CohortOptions(ehr, name, name, data_dir=out / "data", pretraining_dataset=dataset)))
        for name in COHORTS
    ]
    common = replace(GRID.finetune, checkpoint=str(checkpoint), results=str(out / f"results-{first_replicate}"))
    run_finetune.main(
        replace(GRID, datasets=tuple(cohorts), finetune=common, first_replicate=first_replicate, part=part, parts=parts)
    )
    if parts == 1:
        # The README's own figures are those of the first replicates; a fresh run's stand beside its results.
        report(read_results(out / f"results-{first_replicate}"), RESULTS if first_replicate == 0 else out)


def report(results, folder: Path) -> None:
    """Markdown for the README, and every cell with the runs behind it as JSON; also of an unfinished grid, said so."""
    tables = to_markdown([table.printed for table in auroc_table(results) + paired_table(results)])
    folder.mkdir(exist_ok=True)
    (folder / "diabetes130.md").write_text(tables)
    test = results.filter((results["split"] == "test") & (results["metric"] == "auroc"))
    cells = (
        test.sort("replicate")
        .group_by("cohort", "backbone", "head", "train_size_name", maintain_order=True)
        .agg("replicate", "value")
    )
    errors = results.filter((results["split"] == "test") & (results["metric"] == "auroc_standard_error"))["value"]
    seen = results.filter((results["metric"] == "best_step") & (results["split"] == "validation"))
    seen = seen.with_columns(pl.col("value") * GRID.finetune.batch_size)
    seen = seen.group_by("cohort", "train_size_name").agg(
        pl.col("train_size").first(), median=pl.col("value").median(), most=pl.col("value").max()
    )
    record = {
        "hardware": f"{platform.processor() or platform.machine()}, {jax.devices()[0].device_kind}",
        "versions": json.loads(results["versions"][0]),
        "commits": sorted(set(results["commit"])),
        "dataset_hashes": dict(sorted(set(zip(results["cohort"], results["dataset_hash"], strict=True)))),
        "runs": results["run_id"].n_unique(),
        "runs_of_the_whole_grid": len(replace(GRID, datasets=COHORTS).runs()),
        "wall_time_s": results.unique("run_id")["wall_time_s"].sum(),
        "standard_error_of_a_test_auroc": [errors.min(), errors.max()],
        "training_patients_seen_by_the_best_parameters": seen.sort("cohort", "train_size_name").to_dicts(),
        "cells": cells.sort("cohort", "train_size_name", "backbone", "head").to_dicts(),
    }
    (folder / "diabetes130.json").write_text(json.dumps(record, indent=1) + "\n")
    print(tables)


if __name__ == "__main__":
    tyro.cli(main)
