"""The `medbert` command: thin over the same functions as the two scripts. Heavy imports wait for the command itself."""

import datetime
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
    format: Literal["omop", "meds", "mimic-iv", "med-bert-tsv", "med-bert-pickles", "desynpuf", "diabetes130"],
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
    from medbert_jax.disk.whole_files import write_json
    from medbert_jax.ehr.validation import validate as check

    report = check(ehr, workers=workers)
    print(report.render())
    if json_out:
        write_json(json_out, report.to_dict())
    if report.failed:
        sys.exit(1)


def attrition(folders: Positional[tuple[Path, ...]], /, out: Path = Path("attrition"), share: bool = False) -> None:
    """The ledgers of EHR tables and datasets as one table (CSV) and one flow chart (SVG), as in the paper's Fig. 1.

    Where the last folder is a dataset, both end with its splits, and for a cohort with cases and controls of each.

    Args:
        folders: folders of EHR tables and of the datasets made from them, in this order.
        out: path of the two files, without ending.
        share: hide counts under 11, and those that would give them away.
    """
    from medbert_jax.ehr.attrition_files import read_attrition, write_attrition

    print(*write_attrition(read_attrition(folders), out, share=share), sep=", ")


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
    exclude_cohort: Path | None = None,
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
        exclude_cohort: directory of a cohort dataset whose patients are left out; with --vocabulary, so that the same
            cohort can be fine-tuned with and without them.
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
        exclude_cohort=exclude_cohort,
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
    pretraining_dataset: Path | None = None,
    data_dir: Path = Path("data"),
    gap_days: int | None = None,
    test_from: datetime.date | None = None,
    few_cases: bool = False,
    unknown_code_limit: float = 0.5,
    back_off: bool = False,
    review: int = 0,
    review_seed: int = 0,
    why: str | None = None,
    workers: int = 0,
    shard: str | None = None,
    beam: tuple[str, ...] = (),
) -> None:
    """Select a disease cohort and serialize it with the vocabulary and split of a pretraining dataset.

    Args:
        ehr: folder of EHR tables.
        cohort: name of a built-in cohort, a YAML file, or a folder of MEDS labels.
        name: name of the dataset.
        pretraining_dataset: directory whose vocabulary and split the cohort inherits.
        data_dir: folder of all datasets.
        gap_days: the input ends so many days before the index, in place of what the spec says.
        test_from: a split by time within that by patient: test patients are predicted on this day (2015-01-01) or
            later, the others before it; who is on the wrong side leaves.
        few_cases: also with fewer than 50 test cases, which tell little.
        unknown_code_limit: share of codes outside of that vocabulary above which the cohort is refused.
        back_off: a code outside of that vocabulary becomes its nearest ICD ancestor there.
        review: write review.html beside the dataset: so many random cases, controls and patients of every exclusion,
            with what each rule rests on. Patient-level data: it must not leave the site.
        review_seed: another number draws other patients.
        why: print rule by rule why the patient with this id is in or out, and make no dataset. Rules alone: who leaves
            later (wrong times, --test-from) is in the ledger.
        workers: processes; 0: one per core.
        shard: i/N, the part of task i of N of a batch scheduler's job array, i from 0; given without it at the end.
        beam: options of an Apache Beam pipeline that works on the shards instead, as runner=FlinkRunner.
    """
    if why is not None:
        from medbert_jax.visualization.chart_text import explain_patient

        print(explain_patient(ehr, cohort, why, gap_days=gap_days))
        return
    if pretraining_dataset is None:
        raise ValueError(
            "a cohort dataset has the vocabulary and split of a pretraining dataset: got no --pretraining-dataset; give"
            " DATA_DIR/ehr_pretraining/NAME/1.0.0 (without it, --why PATIENT_ID explains one patient)"
        )
    from tfds_builders.disease_cohort.disease_cohort_dataset_builder import prepare_cohort

    directory = prepare_cohort(
        ehr,
        cohort,
        name,
        data_dir=data_dir,
        gap_days=gap_days,
        test_from=test_from,
        few_cases=few_cases,
        pretraining_dataset=pretraining_dataset,
        unknown_code_limit=unknown_code_limit,
        back_off=back_off,
        workers=workers,
        shard=shard,
        beam=beam,
    )
    _show_ledger(directory)
    if directory is not None:
        from medbert_jax.evaluation.describing import show_table2

        show_table2(directory)
    if directory is not None and review:
        from medbert_jax.visualization.chart_review import write_review

        page, key = write_review(ehr, directory, review, seed=review_seed, workers=workers)
        print(f"chart review in {page}, who is who in {key}: patient-level data, which must not leave the site")


def describe(
    datasets: Positional[tuple[Path, ...]],
    /,
    out: Path | None = None,
    paper: tuple[Literal["pretraining", "DHF-Cerner", "PaCa-Cerner", "PaCa-Truven"], ...] = (),
    share: bool = False,
    max_length: int = 512,
    seed: int = 0,
) -> None:
    """What the patients of datasets look like: Table 2 side by side, the measurable rows of Table 3, five timelines.

    Args:
        datasets: directories that `medbert prepare` and `medbert cohort` made.
        out: folder for the tables as markdown, CSV and JSON, and for timelines.html.
        paper: columns of the paper's Table 2 to stand beside them.
        share: for others' eyes: what rests on fewer than 11 patients is hidden, no timelines.
        max_length: codes that a model takes of one patient.
        seed: who is an example among patients with as many codes.
    """
    from medbert_jax.evaluation.describing import describe as tell

    tell(datasets, out=out, paper=paper, share=share, max_length=max_length, seed=seed)


def report(results: Positional[Path], /, out: Path | None = None) -> None:
    """Print the tables of an experiment.

    Args:
        results: folder of results.
        out: also write them there, as markdown.
    """
    from medbert_jax.disk.whole_files import write_whole
    from medbert_jax.evaluation.results import read_results
    from medbert_jax.evaluation.tables import auroc_table, paired_table
    from medbert_jax.printed_tables import print_tables, to_markdown

    frame = read_results(results)
    tables = auroc_table(frame)
    if {"pretrained", "untrained"} <= set(frame["backbone"]):
        tables += paired_table(frame)
    printed = [table.printed for table in tables]
    print_tables(printed)
    if out:
        write_whole(out, to_markdown(printed))


def demo(
    data: Path | None = None,
    out: Path = Path("demo"),
    format: Literal["diabetes130"] = "diabetes130",
    patients: int = 150_000,
    seed: int = 0,
    cohort: str | None = None,
    train_size: int = 1000,
    pretraining_epochs: float | None = None,
) -> None:
    """The whole line in minutes, with nothing but this package: simulate → prepare → pretrain → cohort → fine-tune.

    The patients are simulated, unless --data names a source: what comes out is then a result on simulated data.

    Args:
        data: a source to ingest in place of simulated patients.
        out: folder for everything that is made.
        format: what the source is.
        patients: number of simulated patients; nothing with --data.
        seed: of the simulation; nothing with --data.
        cohort: the disease cohort to fine-tune on; dhf for simulated patients, hf-later for diabetes130.
        train_size: training patients of the cohort.
        pretraining_epochs: passes over the pretraining patients; 1 for simulated ones, 5 for diabetes130.
    """
    import run_finetune
    import run_pretrain
    from configs.finetune_small import CONFIG as FINETUNE
    from configs.pretrain_small import CONFIG as PRETRAIN
    from medbert_jax.experiments.grid import GridConfig
    from tfds_builders.disease_cohort.disease_cohort_dataset_builder import prepare_cohort
    from tfds_builders.ehr_pretraining.ehr_pretraining_dataset_builder import prepare_pretraining

    ehr, datasets, run = out / "ehr", out / "data", out / "pretraining"
    _refuse_other_demo(out, None if data is not None else {"patients": patients, "seed": seed})
    if data is None:
        simulate(ehr, patients, seed=seed, truth=out / "truth")
    else:
        ingest(data, ehr, format=format)
    cohort = cohort or ("dhf" if data is None else "hf-later")
    epochs = pretraining_epochs if pretraining_epochs is not None else (1 if data is None else 5)
    # Of thousands of simulated codes most are rare: the commoner ones make the decoder small.
    rarest = max(1, patients // 1500) if data is None else 1
    dataset = prepare_pretraining(ehr, "demo", data_dir=datasets, minimum_patients=rarest)
    _show_ledger(dataset)
    # Before the pretraining, which takes longest: a cohort may be refused.
    chosen = prepare_cohort(ehr, cohort, cohort, data_dir=datasets, pretraining_dataset=dataset)
    _show_ledger(chosen)
    # Short rows: most of the demo's patients have few codes, and attention costs grow with the row.
    rows = replace(PRETRAIN.rows, short_row=32)
    pretraining = replace(PRETRAIN, dataset=str(dataset), run=str(run), rows=rows, epochs=epochs)
    run_pretrain.main(pretraining)
    grid = GridConfig(
        datasets=(str(chosen),),
        finetune=replace(FINETUNE, checkpoint=str(run), results=str(out / "results"), experiment="demo"),
        train_sizes=(train_size,),
        replicates=1,
        heads=("bi_gru",),
    )
    report(run_finetune.main(grid))


def _refuse_other_demo(out: Path, simulated: dict[str, int] | None) -> None:
    """ValueError where `out` holds a demo of other patients, whose tables would be replaced; None: of a real source."""
    source, truth = out / "ehr" / "source.json", out / "truth" / "truth.json"
    if not source.exists():
        return
    there = "a source that was ingested"
    if json.loads(source.read_bytes())["format"] == "simulated":
        made = json.loads(truth.read_bytes()) if truth.exists() else {}
        if simulated is not None and all(made.get(name) == value for name, value in simulated.items()):
            return
        there = f"{made.get('patients', 'other')} simulated patients, seed {made.get('seed', 'unknown')}"
    elif simulated is None:
        return  # what differs is seen when the datasets are made
    raise ValueError(
        f"a demo must have a folder of its own: got {out}, where one of {there} is; give another --out, or delete that"
        " folder"
    )


def simulate(
    out: Positional[Path],
    /,
    patients: int,
    site: Literal["cerner", "truven"] = "cerner",
    world: Literal["rich", "bag", "no-synonyms", "independent", "null"] = "rich",
    seed: int = 0,
    shards: int = 0,
    workers: int = 0,
    truth: Path | None = None,
) -> None:
    """A simulated health system, as EHR tables.

    Args:
        out: folder that will hold the EHR tables.
        patients: number of patients.
        site: cerner: hospital records 2000–2017, ICD-9-CM and then ICD-10-CM; truven: claims 2011–2015, ICD-9-CM.
        world: what the codes depend on; every other world than rich takes something away.
        seed: of everything random.
        shards: parts that the tables are cut into; 0: one per 32,768 patients.
        workers: processes; 0: one per core.
        truth: folder for what is hidden, never inside `out`.
    """
    from medbert_jax.simulation.simulate import simulate as make

    if shards > max(1, patients // 100):  # a hash deals the patients: smaller shards may stay empty
        raise ValueError(
            f"a shard must have about 100 simulated patients or more: got {shards} shards of {patients} patients; give"
            f" --shards {max(1, patients // 100)} or fewer"
        )
    source = make(
        out, patients=patients, site=site, world=world, seed=seed, shards=shards, workers=workers, truth=truth
    )
    print(*source.assumptions, sep="\n")
    print(f"EHR tables in {out}")


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
        "describe": describe,
        "report": report,
        "simulate": simulate,
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
