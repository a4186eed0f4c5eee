"""What each command of `medbert` does: thin over the functions of the package, which it imports when it is called."""

import importlib.metadata
import platform
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from medbert_jax.options import (
    AttritionOptions,
    DemoOptions,
    DescribeOptions,
    DoctorOptions,
    EvaluateOptions,
    HealthOptions,
    IngestCommand,
    ReportOptions,
    SimulateOptions,
    ValidateOptions,
)
from tfds_builders.options import CohortOptions, PrepareOptions

if TYPE_CHECKING:
    from tfds_builders.disease_cohort.disease_cohort_dataset_builder import RefusedCohort


def ingest(options: IngestCommand) -> None:
    """Write the EHR tables; print the ledger, what was assumed and what is known.

    Exit code 3 where much was lost that nobody meant to leave; the tables are there.
    """
    from medbert_jax.ehr.tables import read_source
    from medbert_jax.ingest.ingest import ingest as read
    from medbert_jax.ingest.ingest import summary
    from medbert_jax.ingest.job import IngestOptions
    from medbert_jax.ingest.losses import read_losses

    ledger = read(
        options.source,
        options.out,
        format=options.format,
        shards=options.shards,
        workers=options.workers,
        options=options.options,
        common=IngestOptions(outpatient_los_zero=options.outpatient_los_zero),
    )
    print(*summary(ledger, read_source(options.out)), sep="\n")
    print(f"EHR tables in {options.out}")
    if lost := read_losses(options.out):
        print(f"medbert: {lost}", file=sys.stderr, flush=True)
        if not options.allow_loss:
            sys.exit(3)


def validate(options: ValidateOptions) -> None:
    """Print every fault; exit code 1 where there are errors."""
    from medbert_jax.disk.whole_files import write_json
    from medbert_jax.quality.report import validate as check

    report = check(options.ehr, workers=options.workers)
    if options.json_out:
        write_json(options.json_out, report.to_dict())
    print(report.render())
    if report.failed:
        sys.exit(1)


def prepare(options: PrepareOptions) -> None:
    """Make the dataset; print its ledger."""
    from tfds_builders.ehr_pretraining.ehr_pretraining_dataset_builder import prepare_pretraining

    _show_ledger(prepare_pretraining(options))


def cohort(options: CohortOptions) -> None:
    """Make the dataset; print its ledger and Table 2, write the chart review. Or only tell why a patient is in, or what
    the spec finds in the tables."""
    if options.json_out and not options.check:
        raise ValueError(f"--json-out writes what --check finds: got {options.json_out} without it; give both")
    if options.check:
        _check_cohort(options)
        return
    if options.why is not None:
        from medbert_jax.chart_review.text import explain_patient

        settings = {"gap_days": options.gap_days, "pretraining_dataset": options.pretraining_dataset}
        print(explain_patient(options.ehr, options.cohort, options.why, **settings))
        return
    from tfds_builders.disease_cohort.disease_cohort_dataset_builder import RefusedCohort, prepare_cohort

    try:
        directory = prepare_cohort(options)
    except RefusedCohort as refused:
        _show_refused(refused, options)
        raise
    _show_ledger(directory)
    if directory is None:
        return
    from medbert_jax.description.describe import show_table2

    show_table2(directory, options.cache_dir)
    if options.review:
        from medbert_jax.chart_review.page import write_review

        written = write_review(
            options.ehr, directory, options.review, seed=options.review_seed, workers=options.workers
        )
        _tell_review(written)


def _check_cohort(options: CohortOptions) -> None:
    """Print what the spec finds; ValueError where something is refused."""
    from medbert_jax.cohorts.loading import load_cohort
    from medbert_jax.cohorts.meds_labels import LabelFolder
    from medbert_jax.cohorts.spec_check import check_spec
    from medbert_jax.disk.whole_files import write_json
    from medbert_jax.printed_tables import print_tables

    spec = load_cohort(options.cohort, gap_days=options.gap_days, test_from=options.test_from)
    if isinstance(spec, LabelFolder):
        raise ValueError(f"--check counts what a spec looks for: got the labels {spec.name}, which look for nothing")
    check = check_spec(options.ehr, spec, workers=options.workers)
    if options.json_out:
        write_json(options.json_out, check.to_dict())
    print_tables([check.table()])
    if check.ledger is not None:
        print("", check.ledger.render(), sep="\n")
    print("", *check.lines(), sep="\n")
    check.raise_if_refused()


def _show_refused(refused: "RefusedCohort", options: CohortOptions) -> None:
    """Print the ledger of a cohort that becomes no dataset; write its chart review."""
    from medbert_jax.chart_review.page import write_refused_review

    print(refused.ledger.render())
    if options.review and refused.spec is not None:
        settings = {"split": refused.split, "seed": options.review_seed, "workers": options.workers}
        _tell_review(write_refused_review(options.ehr, refused.spec, refused.review, options.review, **settings))


def _tell_review(written: tuple[Path, Path]) -> None:
    page, key = written
    print(f"chart review in {page}, who is who in {key}: patient-level data, which must not leave the site")


def attrition(options: AttritionOptions) -> None:
    """Write the table and the flow chart; print their paths."""
    from medbert_jax.attrition.files import read_attrition, write_attrition

    print(*write_attrition(read_attrition(options.folders), options.out, share=options.share), sep=", ")


def describe(options: DescribeOptions) -> None:
    """Print the tables; write them and the timelines."""
    from medbert_jax.description.describe import describe as tell

    tell(**vars(options))


def evaluate(options: EvaluateOptions) -> None:
    """Print the tables; write the evaluation."""
    from medbert_jax.disk.whole_files import write_whole
    from medbert_jax.evaluation.compared_models import read_models
    from medbert_jax.evaluation.evaluate import EvaluationSettings
    from medbert_jax.evaluation.evaluate import evaluate as judge
    from medbert_jax.evaluation.evaluated_patients import read_evaluated
    from medbert_jax.evaluation.evaluation_tables import evaluation_tables
    from medbert_jax.evaluation.stored_evaluation import write_evaluation
    from medbert_jax.printed_tables import print_tables, to_markdown

    if len(options.files) < 2:
        raise ValueError(f"files are PREDICTIONS … COHORT: got {len(options.files)} alone; give the cohort at last")
    patients = read_evaluated(options.cohort, cache_dir=options.cache_dir)
    models = read_models(options.predictions, patients, options.names)
    asked = {name: getattr(options, name) for name in ("risks", "specificities", "draws", "seed", "reference")}
    found = judge(patients, models, EvaluationSettings(**asked))
    tables = evaluation_tables(found)
    print_tables(tables)
    if options.out is not None:
        write_evaluation(found, options.out)
        write_whole(options.out / "evaluation.md", to_markdown(tables))
        print(f"evaluation in {options.out}")


def health(options: HealthOptions) -> None:
    """Print the tables; write the figures."""
    from medbert_jax.disk.whole_files import write_json
    from medbert_jax.evaluation.pretraining_health import pretraining_health
    from medbert_jax.printed_tables import print_tables

    found = pretraining_health(options.run, options.dataset, patients=options.patients, cache_dir=options.cache_dir)
    print_tables(found.tables())
    if options.json_out:
        write_json(options.json_out, found.to_dict())


def report(options: ReportOptions) -> None:
    """Print the tables; write the page, or the tables as markdown."""
    from medbert_jax.disk.whole_files import write_whole
    from medbert_jax.evaluation.evaluate import EvaluationSettings
    from medbert_jax.evaluation.results import read_results
    from medbert_jax.evaluation.tables import auroc_table, paired_table
    from medbert_jax.printed_tables import print_tables, to_markdown
    from medbert_jax.reporting.question import designs
    from medbert_jax.reporting.report import write_report
    from medbert_jax.reporting.report_tables import headline_words
    from medbert_jax.reporting.reported_cohort import report_cohorts

    frame, cohorts = read_results(options.results), []
    if not options.is_markdown:
        settings = EvaluationSettings(draws=options.draws, seed=options.seed)
        asked = {name: getattr(options, name) for name in ("cohorts", "data_dir", "ehr", "cache_dir")}
        cohorts = report_cohorts(frame, options.results, settings=settings, **asked)
    tables = auroc_table(frame, designs=designs(cohorts))
    if {"pretrained", "untrained"} <= set(frame["backbone"]):
        tables += paired_table(frame, designs=designs(cohorts))
    printed = [table.printed for table in tables]
    print_tables(printed)
    if options.is_markdown:
        write_whole(options.out, to_markdown(printed))
        return
    page = write_report(cohorts, options.folder, share=options.share, cache_dir=options.cache_dir)
    for cohort in cohorts:
        if cohort.evaluation is None:
            print(f"{cohort.name}: no evaluation, because {cohort.missing}")
        else:
            print(f"{cohort.name}, {cohort.model}: {headline_words(cohort, cohort.evaluation)}")
    print(f"report in {page}")


def demo(options: DemoOptions) -> None:
    """Every step with the options of its own command; print the tables of the experiment."""
    import run_finetune
    import run_pretrain
    from medbert_jax.data.metadata import read_metadata
    from medbert_jax.experiments.grid import GridConfig
    from medbert_jax.training.command_line import shipped_preset
    from tfds_builders.disease_cohort.disease_cohort_dataset_builder import prepare_cohort
    from tfds_builders.ehr_pretraining.ehr_pretraining_dataset_builder import prepare_pretraining

    out, simulated = options.out, options.data is None
    ehr, datasets, run = out / "ehr", out / "data", out / "pretraining"
    _refuse_other_demo(out, {"patients": options.patients, "seed": options.seed} if simulated else None)
    if options.data is None:
        simulate(SimulateOptions(ehr, options.patients, seed=options.seed, truth=out / "truth"))
    else:
        ingest(IngestCommand(options.data, ehr, options.format, options=None))
    sizes = options.sizes
    rarest = sizes.patients_of_a_code
    dataset = prepare_pretraining(PrepareOptions(ehr, "demo", data_dir=datasets, minimum_patients=rarest))
    _show_ledger(dataset)
    # Before the pretraining, which takes longest: a cohort may be refused.
    chosen = []
    for cohort in sizes.cohorts:
        # A first look may have few cases: what interval they allow is told with the cohort.
        few = len(sizes.cohorts) > 1 and cohort == sizes.cohorts[0]
        asked = CohortOptions(ehr, cohort, cohort, data_dir=datasets, pretraining_dataset=dataset, few_cases=few)
        directory = prepare_cohort(asked)
        assert directory is not None  # no task of many was asked for
        _show_ledger(directory)
        chosen.append(directory)
    pretraining, finetuning = shipped_preset("pretrain_small"), shipped_preset("finetune_small")
    rows = replace(pretraining.rows, short_row=sizes.short_row)
    run_pretrain.main(
        replace(pretraining, dataset=str(dataset), run=str(run), rows=rows, epochs=sizes.pretraining_epochs)
    )
    results = out / "results"
    finetuning = replace(finetuning, checkpoint=str(run), results=str(results), patience=sizes.patience)
    for number, directory in enumerate(chosen):
        there = read_metadata(directory)["split"]["counts"]["train"]
        grid = GridConfig(
            datasets=(str(directory),),
            # A report has its experiments in the order of their names.
            finetune=replace(finetuning, experiment=f"demo {number + 1}" if len(chosen) > 1 else "demo"),
            train_sizes=(sizes.train_size if sizes.train_size < there else 0,),
            replicates=1,
            heads=("bi_gru",),
            minimum_cases=1,  # as few as there are: a first look
        )
        run_finetune.main(grid)
    report(ReportOptions(results, data_dir=datasets))


def _refuse_other_demo(out: Path, simulated: dict[str, int] | None) -> None:
    """ValueError where `out` holds a demo of other patients, whose tables would be replaced; None: of a real source."""
    from medbert_jax.disk.stored_json import read_object
    from medbert_jax.ehr.tables import read_source

    ehr, truth = out / "ehr", out / "truth" / "truth.json"
    if not (ehr / "source.json").exists():
        return
    there = "a source that was ingested"
    if read_source(ehr).format == "simulated":
        made = read_object(truth) if truth.exists() else {}
        if simulated is not None and all(made.get(name) == value for name, value in simulated.items()):
            return
        there = f"{made.get('patients', 'other')} simulated patients, seed {made.get('seed', 'unknown')}"
    elif simulated is None:
        return  # what differs is seen when the datasets are made
    raise ValueError(
        f"a demo must have a folder of its own: got {out}, where one of {there} is; give another --out, or delete that"
        " folder"
    )


def simulate(options: SimulateOptions) -> None:
    """Write the EHR tables; print what they are."""
    from medbert_jax.simulation.simulate import simulate as make

    if options.shards > max(1, options.patients // 100):  # a hash deals the patients: smaller shards may stay empty
        raise ValueError(
            f"a shard must have about 100 simulated patients or more: got {options.shards} shards of"
            f" {options.patients} patients; give --shards {max(1, options.patients // 100)} or fewer"
        )
    source = make(**vars(options))
    print(*source.assumptions, sep="\n")
    print(f"EHR tables in {options.out}")


def doctor(options: DoctorOptions) -> None:
    """Versions, devices, and what is missing."""
    del options  # there are none
    print(f"Python {platform.python_version()} on {platform.platform()}")
    if sys.platform == "win32":
        print("  Windows is not supported (array-record has no wheel for it): use WSL (`wsl --install`) or a container")
    for name in ("medbert-jax", *_requirements()):
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


def _requirements() -> list[str]:
    """The packages that medbert-jax asks for, the extras' left out, as its own metadata name them."""
    asked = [line for line in importlib.metadata.requires("medbert-jax") or () if "extra ==" not in line]
    return [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in asked]


def _show_ledger(dataset: Path | None) -> None:
    if dataset is None:  # one task of many
        return
    from medbert_jax.attrition.files import read_ledger

    print(read_ledger(dataset).render())
    print(f"dataset in {dataset}")


def pretrain(arguments: list[str]) -> None:
    """Pretrain a model on a dataset: PRESET --field.name value …, as run_pretrain.py."""
    import run_pretrain
    from medbert_jax.training.command_line import run_script
    from medbert_jax.training.config import PretrainConfig

    run_script(run_pretrain.main, PretrainConfig, "medbert pretrain", arguments)


def finetune(arguments: list[str]) -> None:
    """Fine-tune and evaluate on a cohort, or run a whole grid: PRESET --field.name value …, as run_finetune.py."""
    import run_finetune
    from medbert_jax.experiments.grid import GridConfig
    from medbert_jax.experiments.tuning import TuningConfig
    from medbert_jax.training.command_line import run_script
    from medbert_jax.training.config import FinetuneConfig

    kinds = (FinetuneConfig, GridConfig, TuningConfig)
    run_script(run_finetune.main, kinds, "medbert finetune", arguments)
