"""The `medbert` command: thin over the same functions as the two scripts. Heavy imports wait for the command itself."""

import importlib.metadata
import json
import platform
import sys
from dataclasses import replace
from pathlib import Path
from typing import Literal

import tyro

Positional = tyro.conf.Positional


def ingest(source: Positional[Path], out: Positional[Path], /, format: Literal["diabetes130"], shards: int = 1) -> None:
    """Read a source into EHR tables.

    Args:
        source: file or folder of the source.
        out: folder that will hold the EHR tables.
        format: what the source is.
        shards: parts that the tables are cut into, by a hash of the patient id.
    """
    from medbert_jax.ehr.diabetes130 import read_diabetes130
    from medbert_jax.ehr.tables import write_tables

    readers = {"diabetes130": read_diabetes130}
    tables, ledger = readers[format](source)
    written = write_tables(tables, out, shards=shards)
    (out / "ledger.json").write_text(json.dumps(ledger.to_dict(), indent=1))
    print(ledger.render())
    print(*(f"assumed: {line}" for line in written.assumptions), sep="\n")
    print(f"EHR tables in {out}")


def prepare(
    ehr: Positional[Path],
    name: Positional[str],
    /,
    data_dir: Path = Path("data"),
    preset: Literal["paper", "released_code"] = "paper",
    split_key: str = "medbert",
) -> None:
    """Serialize EHR tables into a pretraining dataset.

    Args:
        ehr: folder of EHR tables.
        name: name of the dataset.
        data_dir: folder of all datasets.
        preset: which side to take where the paper and its released code disagree.
        split_key: key of the hash that splits patients into training, validation and test.
    """
    from tfds_builders.ehr_pretraining.ehr_pretraining_dataset_builder import prepare_pretraining

    directory = prepare_pretraining(ehr, name, data_dir=data_dir, preset=preset, split_key=split_key)
    _show_ledger(directory)


def cohort(
    ehr: Positional[Path],
    cohort: Positional[str],
    name: Positional[str],
    /,
    pretraining_dataset: Path,
    data_dir: Path = Path("data"),
) -> None:
    """Select a disease cohort and serialize it with the vocabulary and split of a pretraining dataset.

    Args:
        ehr: folder of EHR tables.
        cohort: name of a built-in cohort, or a YAML file.
        name: name of the dataset.
        pretraining_dataset: directory whose vocabulary and split the cohort inherits.
        data_dir: folder of all datasets.
    """
    from tfds_builders.disease_cohort.disease_cohort_dataset_builder import prepare_cohort

    directory = prepare_cohort(ehr, cohort, name, data_dir=data_dir, pretraining_dataset=pretraining_dataset)
    _show_ledger(directory)


def report(results: Positional[Path], /, out: Path | None = None) -> None:
    """Print the tables of an experiment.

    Args:
        results: folder of results.
        out: also write them there, as markdown.
    """
    from medbert_jax.evaluation.results import read_results
    from medbert_jax.evaluation.tables import auroc_table, paired_table, print_tables, to_markdown

    frame = read_results(results)
    tables = auroc_table(frame)
    if {"pretrained", "untrained"} <= set(frame["backbone"]):
        tables += paired_table(frame)
    print_tables(tables)
    if out:
        out.write_text(to_markdown(tables))


def demo(
    data: Path | None = None,
    out: Path = Path("demo"),
    format: Literal["diabetes130"] = "diabetes130",
    cohort: str = "hf-later",
    train_size: int = 1000,
    pretraining_epochs: float = 5,
) -> None:
    """The whole line in minutes: ingest → prepare → pretrain → cohort → fine-tune → report.

    Args:
        data: the source; there is no simulated health system yet, so it must be named.
        out: folder for everything that is made.
        format: what the source is.
        cohort: the disease cohort to fine-tune on.
        train_size: training patients of the cohort.
        pretraining_epochs: passes over the pretraining patients.
    """
    if data is None:
        raise ValueError(
            "medbert demo needs a source: got no --data, and the simulated health system is not built yet; "
            "use --data FOLDER with diabetic_data.parquet or diabetic_data.csv (UCI dataset 296) in it"
        )
    import run_finetune
    import run_pretrain
    from configs.finetune_small import CONFIG as FINETUNE
    from configs.pretrain_small import CONFIG as PRETRAIN
    from medbert_jax.experiments.grid import GridConfig
    from tfds_builders.disease_cohort.disease_cohort_dataset_builder import prepare_cohort
    from tfds_builders.ehr_pretraining.ehr_pretraining_dataset_builder import prepare_pretraining

    ehr, datasets, run = out / "ehr", out / "data", out / "pretraining"
    ingest(data, ehr, format=format)
    dataset = prepare_pretraining(ehr, "demo", data_dir=datasets)
    _show_ledger(dataset)
    # Rows of 32: the demo's patients have four codes on average, and attention costs grow with the row.
    rows = replace(PRETRAIN.rows, short_row=32)
    pretraining = replace(PRETRAIN, dataset=str(dataset), run=str(run), rows=rows, epochs=pretraining_epochs)
    run_pretrain.main(pretraining)
    chosen = prepare_cohort(ehr, cohort, cohort, data_dir=datasets, pretraining_dataset=dataset)
    _show_ledger(chosen)
    grid = GridConfig(
        datasets=(str(chosen),),
        finetune=replace(FINETUNE, checkpoint=str(run), results=str(out / "results"), experiment="demo"),
        train_sizes=(train_size,),
        replicates=1,
        heads=("bi_gru",),
    )
    report(run_finetune.main(grid))


def doctor() -> None:
    """Versions, devices, and what is missing."""
    print(f"Python {platform.python_version()} on {platform.platform()}")
    for name in ("medbert-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets",
                 "array-record", "numpy", "scikit-learn", "polars", "tyro"):  # fmt: skip
        try:
            print(f"  {name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            print(f"  {name} is missing: pip install {name}")
    try:
        import jax
    except ImportError:
        return
    for device in jax.devices():
        print(f"  device {device.id}: {device.device_kind} ({device.platform})")
    if jax.devices()[0].platform == "cpu":
        print("  no accelerator: pip install 'medbert-jax[gpu]' or 'medbert-jax[tpu]' where there is one")


def _show_ledger(dataset: Path) -> None:
    from medbert_jax.ehr.ledger import Ledger

    print(Ledger.from_dict(json.loads((dataset / "ledger.json").read_text())).render())
    print(f"dataset in {dataset}")


def main() -> None:
    """Entry point: wrong input ends with its three-part message and exit code 2, without a traceback."""
    commands = {
        "demo": demo,
        "ingest": ingest,
        "prepare": prepare,
        "cohort": cohort,
        "report": report,
        "doctor": doctor,
    }
    try:
        tyro.extras.subcommand_cli_from_dict(commands, prog="medbert", description=__doc__)
    except Exception as error:
        # A FloatingPointError is a diverged run, a CheckpointError a damaged folder: both say what to do.
        if isinstance(error, ValueError | OSError | FloatingPointError) or type(error).__name__ == "CheckpointError":
            print(f"medbert: {error}", file=sys.stderr)
            sys.exit(2)
        raise
