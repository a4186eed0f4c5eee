"""The `medbert` command: thin over the same functions as the two scripts. Heavy imports wait for the command itself."""

import functools
import importlib.metadata
import inspect
import json
import platform
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import tyro

Positional = tyro.conf.Positional


def ingest(
    source: Positional[Path],
    out: Positional[Path],
    /,
    format: Literal["omop", "meds", "mimic-iv", "med-bert-tsv", "desynpuf", "diabetes130"],
    shards: int = 0,
    workers: int = 0,
    outpatient_los_zero: bool = False,
    options: Any = None,
) -> None:
    """Read a source into EHR tables.

    Args:
        source: file or folder of the source.
        out: folder that will hold the EHR tables.
        format: what the source is; `medbert ingest --format FORMAT --help` shows the options of its reader.
        shards: parts that the tables are cut into, by a hash of the patient id; 0: as many as keep a worker below 1 GB.
        workers: processes; 0: one per core.
        outpatient_los_zero: outpatient visits without a discharge lasted 0 days; else their length of stay is unknown.
        options: of the reader.
    """
    from medbert_jax.ehr.ingest import IngestOptions
    from medbert_jax.ehr.ingest import ingest as read
    from medbert_jax.ehr.tables import read_source

    common = IngestOptions(outpatient_los_zero=outpatient_los_zero)
    ledger = read(source, out, format=format, shards=shards, workers=workers, options=options, common=common)
    written = read_source(out)
    print(ledger.render())
    print(*(f"assumed: {line}" for line in written.assumptions), sep="\n")
    print("known:", ", ".join(f"{column} {share:.1%}" for column, share in written.known.items()))
    print(f"EHR tables in {out}")


def _ingest_with_options(arguments: list[str]) -> Callable:
    """`ingest` with the options of the format that the arguments name, so that each is checked and has help."""
    words = [part for word in arguments for part in word.split("=", 1)]
    format = words[words.index("--format") + 1 :][:1] if "--format" in words else []
    signature = inspect.signature(ingest)
    parameters = dict(signature.parameters)
    del parameters["options"]
    command = functools.wraps(ingest)(lambda *args, **kwargs: ingest(*args, **kwargs))
    command.__annotations__ = {name: kind for name, kind in ingest.__annotations__.items() if name != "options"}
    try:
        from medbert_jax.ehr.ingest import get_reader

        kind = get_reader(*format).options
        place = inspect.Parameter("options", inspect.Parameter.KEYWORD_ONLY, default=kind(), annotation=kind)
        parameters["options"] = place
        command.__annotations__["options"] = kind
    except (TypeError, ValueError):
        pass  # the parser says what is wrong with the format
    command.__signature__ = signature.replace(parameters=list(parameters.values()))
    return command


def validate(ehr: Positional[Path], /, json_out: Path | None = None, workers: int = 1) -> None:
    """Every fault of EHR tables: rule, table, file, rows, cure. Exit code 1 where there are errors.

    Args:
        ehr: folder of EHR tables.
        json_out: also write the report there, as JSON.
        workers: processes.
    """
    from medbert_jax.ehr.validation import validate as check

    report = check(ehr, workers=workers)
    print(report.render())
    if json_out:
        json_out.write_text(json.dumps(report.to_dict(), indent=1, ensure_ascii=False))
    if report.failed:
        sys.exit(1)


def attrition(folders: Positional[tuple[Path, ...]], /, out: Path = Path("attrition"), share: bool = False) -> None:
    """The ledgers of EHR tables and datasets as one table (CSV) and one flow chart (SVG), as in the paper's Fig. 1.

    Args:
        folders: folders of EHR tables and of the datasets made from them, in this order.
        out: path of the two files, without ending.
        share: hide counts under 11, and those that would give them away.
    """
    from medbert_jax.ehr.flow_chart import flow_chart
    from medbert_jax.ehr.ledger import Attrition, Ledger

    ledgers = [Ledger.from_dict(json.loads((folder / "ledger.json").read_text())) for folder in folders]
    out.with_suffix(".csv").write_text(Attrition(ledgers).to_csv(share=share))
    out.with_suffix(".svg").write_text(flow_chart(ledgers, share=share))
    print(f"{out.with_suffix('.csv')}, {out.with_suffix('.svg')}")


def prepare(
    ehr: Positional[Path],
    name: Positional[str],
    /,
    data_dir: Path = Path("data"),
    preset: Literal["paper", "released_code"] = "paper",
    split_key: str = "medbert",
    minimum_patients: int = 1,
    vocabulary: Path | None = None,
    unknown_code_limit: float = 0.2,
    back_off: bool = False,
    workers: int = 0,
    shard: str | None = None,
    beam: tuple[str, ...] = (),
) -> None:
    """Serialize EHR tables into a pretraining dataset.

    Args:
        ehr: folder of EHR tables.
        name: name of the dataset.
        data_dir: folder of all datasets.
        preset: which side to take where the paper and its released code disagree.
        split_key: key of the hash that splits patients into training, validation and test.
        minimum_patients: codes that fewer training patients have are not in the vocabulary.
        vocabulary: vocabulary.tsv of another dataset, used as it is instead of a new one.
        unknown_code_limit: share of codes outside of that vocabulary above which the dataset is refused.
        back_off: a code outside of that vocabulary becomes its nearest ICD ancestor there.
        workers: processes; 0: one per core.
        shard: i/N, the part of task i of N of a batch scheduler's job array, i from 0; given without it at the end.
        beam: options of an Apache Beam pipeline that works on the shards instead, as runner=FlinkRunner.
    """
    from tfds_builders.ehr_pretraining.ehr_pretraining_dataset_builder import prepare_pretraining

    directory = prepare_pretraining(
        ehr,
        name,
        data_dir=data_dir,
        preset=preset,
        split_key=split_key,
        minimum_patients=minimum_patients,
        vocabulary=vocabulary,
        unknown_code_limit=unknown_code_limit,
        back_off=back_off,
        workers=workers,
        shard=shard,
        beam=beam,
    )
    _show_ledger(directory)


def cohort(
    ehr: Positional[Path],
    cohort: Positional[str],
    name: Positional[str],
    /,
    pretraining_dataset: Path,
    data_dir: Path = Path("data"),
    unknown_code_limit: float = 0.5,
    back_off: bool = False,
    workers: int = 0,
    shard: str | None = None,
    beam: tuple[str, ...] = (),
) -> None:
    """Select a disease cohort and serialize it with the vocabulary and split of a pretraining dataset.

    Args:
        ehr: folder of EHR tables.
        cohort: name of a built-in cohort, or a YAML file.
        name: name of the dataset.
        pretraining_dataset: directory whose vocabulary and split the cohort inherits.
        data_dir: folder of all datasets.
        unknown_code_limit: share of codes outside of that vocabulary above which the cohort is refused.
        back_off: a code outside of that vocabulary becomes its nearest ICD ancestor there.
        workers: processes; 0: one per core.
        shard: i/N, the part of task i of N of a batch scheduler's job array, i from 0; given without it at the end.
        beam: options of an Apache Beam pipeline that works on the shards instead, as runner=FlinkRunner.
    """
    from tfds_builders.disease_cohort.disease_cohort_dataset_builder import prepare_cohort

    directory = prepare_cohort(
        ehr,
        cohort,
        name,
        data_dir=data_dir,
        pretraining_dataset=pretraining_dataset,
        unknown_code_limit=unknown_code_limit,
        back_off=back_off,
        workers=workers,
        shard=shard,
        beam=beam,
    )
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


def _show_ledger(dataset: Path | None) -> None:
    if dataset is None:  # one task of many
        return
    from medbert_jax.ehr.ledger import Ledger

    print(Ledger.from_dict(json.loads((dataset / "ledger.json").read_text())).render())
    print(f"dataset in {dataset}")


def main() -> None:
    """Entry point: wrong input ends with its three-part message and exit code 2, without a traceback."""
    commands = {
        "demo": demo,
        "ingest": _ingest_with_options(sys.argv[2:]) if sys.argv[1:2] == ["ingest"] else ingest,
        "validate": validate,
        "prepare": prepare,
        "cohort": cohort,
        "attrition": attrition,
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
