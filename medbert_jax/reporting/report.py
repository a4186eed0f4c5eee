"""`medbert report`: results to one page, its tables as CSV and its figures as SVG and PNG."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from medbert_jax.attrition.disclosure import SMALLEST
from medbert_jax.attrition.flow_chart import flow_chart
from medbert_jax.attrition.steps import Attrition
from medbert_jax.description.table2 import table2
from medbert_jax.disk.replaced_folder import replaced
from medbert_jax.disk.whole_files import write_whole
from medbert_jax.evaluation.stored_evaluation import Evaluation
from medbert_jax.printed_tables import Table
from medbert_jax.reporting.checked_answers import Answers
from medbert_jax.reporting.checklists import probast, tripod
from medbert_jax.reporting.cohort_facts import cohort_facts
from medbert_jax.reporting.earned_warnings import earned_warnings
from medbert_jax.reporting.figures import draw
from medbert_jax.reporting.grouped_attrition import grouped
from medbert_jax.reporting.learning import learning_curve
from medbert_jax.reporting.page import CohortSection, report_page
from medbert_jax.reporting.paper_flows import paper_flow
from medbert_jax.reporting.question import question, tested_words
from medbert_jax.reporting.report_tables import all_tables, environment_rows, headline_table, headline_words
from medbert_jax.reporting.reported_cohort import ReportedCohort
from medbert_jax.reporting.shared_evaluation import shareable
from medbert_jax.reporting.threshold_counts import threshold_counts

PAGE = "report.html"
OURS = re.compile(r"report\.html|[^/]+__[a-z0-9-]+\.(csv|svg|png)")


def write_report(cohorts: Sequence[ReportedCohort], out: Path, *, share: bool = False, cache_dir: str = "") -> Path:
    """Write report.html, COHORT__TABLE.csv, COHORT__FIGURE.svg and .png into the folder, in place of an earlier report.

    Equal results are equal bytes. With `share`, nothing tells a count of 1 to 10. Returns the page's path. Raises
    ValueError where `out` holds results or records of single patients.
    """
    out = Path(out)
    if out.is_dir() and (found := sorted(path.name for path in out.iterdir() if _is_not_for_a_report(path))):
        raise ValueError(
            f"a report must have a folder of its own: got {out} with {', '.join(found[:3])} in it; name another folder"
        )
    sections = [report_section(one, share=share, cache_dir=cache_dir) for one in cohorts]
    names = ", ".join(dict.fromkeys(one.experiment for one in cohorts))
    out.parent.mkdir(parents=True, exist_ok=True)
    with replaced(out, OURS) as folder:
        for section in sections:
            for slug, table in _tables(section):
                write_whole(folder / f"{section.slug}__{slug}.csv", table_csv(table))
            for drawn in section.figures:
                write_whole(folder / f"{section.slug}__{drawn.slug}.svg", drawn.svg)
                write_whole(folder / f"{section.slug}__{drawn.slug}.png", drawn.png)
            if section.flow:
                write_whole(folder / f"{section.slug}__flow.svg", section.flow)
        write_whole(folder / PAGE, report_page(f"Report: {names}", sections, share=share))
    return out / PAGE


def report_section(cohort: ReportedCohort, *, share: bool = False, cache_dir: str = "") -> CohortSection:
    """What the page says of a dataset of a cohort."""
    facts = cohort_facts(cohort, cache_dir=cache_dir)
    attrition = grouped(cohort.attrition) if cohort.attrition is not None else None
    evaluation = cohort.evaluation
    if share and evaluation is not None:
        evaluation = shareable(evaluation, hides_totals=hides_test(attrition))
    if share and hides_training(attrition, cohort.runs):
        cohort = replace(cohort, runs=_without_training_size(cohort.runs))
    answers = Answers(cohort, evaluation, facts)
    source = (cohort.metadata or {}).get("source", {})
    about = [
        f"Training patients of the figures: {cohort.size}. The page is about {cohort.model}: pretrained where there is"
        " one, and of its kind the best on validation patients.",
        tested_words(cohort, evaluation),
    ]
    if cohort.spec is not None:
        about.insert(0, f"Index: {cohort.spec.index.description}.")
    if source.get("format"):
        about.append(f"Source: {source['format']}.")
    described = cohort.description
    if described is not None and attrition is not None:
        described = replace(described, attrition=attrition)  # the page's flow: both must be safe together
    return CohortSection(
        slug=_slug(cohort),
        title=f"{cohort.name} ({cohort.experiment}), dataset {cohort.dataset_hash[:8]}",
        question=question(cohort),
        about=tuple(about),
        warnings=tuple(earned_warnings(cohort, facts, share=share)),
        missing=cohort.missing,
        headline_words="" if evaluation is None else headline_words(cohort, evaluation),
        headline=None if evaluation is None else headline_table(cohort, evaluation),
        figures=() if evaluation is None else tuple(_figures(cohort, evaluation)),
        thresholds=None if evaluation is None else threshold_counts(evaluation, cohort.models),
        flow="" if attrition is None else flow_chart(attrition.steps, branches=attrition.branches, share=share),
        paper_flow=None if attrition is None else paper_flow(cohort.name, attrition, share=share),
        table2=None if described is None else table2([described], share=share).printed,
        tables=tuple(all_tables(cohort, evaluation, share=share)),
        checklists=(("tripod-ai", tripod(answers)), ("probast", probast(answers))),
        environment=tuple(environment_rows(cohort, evaluation)),
    )


def table_csv(table: Table) -> str:
    """The cells as they are printed, under the names of the columns."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([table.columns, *table.rows])
    return out.getvalue()


def _figures(cohort: ReportedCohort, evaluation: Evaluation):
    return draw(evaluation, cohort.models, learning_curve(cohort.runs, cohort.models))


def _tables(section: CohortSection) -> list[tuple[str, Table]]:
    single = (("headline", section.headline), ("paper-flow", section.paper_flow), ("table2", section.table2))
    return [*((slug, of) for slug, of in single if of is not None), *section.tables, *section.checklists]


def hides_test(attrition: Attrition | None) -> bool:
    """Whether the flow chart to be shared hides the test split, or its cases and controls."""
    if attrition is None:
        return False
    *_, ends = attrition.cells(share=True)["patients"]
    groups = zip(attrition.groups(), ends, strict=True)
    return any(names[0] == "test" and not isinstance(cell, int) for (names, _), cell in groups)


def hides_training(attrition: Attrition | None, runs: pl.DataFrame) -> bool:
    """Whether the number of training patients of those trained on all would tell what a shared flow chart hides.

    Or how few of them have an unknown label, which nobody is trained on.
    """
    sizes = runs.filter(train_size_name="all")["train_size"].unique().to_list()
    if attrition is None or not sizes:
        return False
    *_, ends = attrition.cells(share=True)["patients"]
    (train,) = [end for (names, _), end in zip(attrition.groups(), ends, strict=True) if names == ("train",)] or [0]
    return not isinstance(train, int) or any(0 < train - size < SMALLEST for size in sizes)


def _without_training_size(runs: pl.DataFrame) -> pl.DataFrame:
    known = pl.when(pl.col("train_size_name") != "all").then("train_size")
    return runs.with_columns(known.alias("train_size"))


def _is_not_for_a_report(path: Path) -> bool:
    return path.suffix == ".parquet" or path.name in ("predictions", "review.html", "review_key.csv", "timelines.html")


def _slug(cohort: ReportedCohort) -> str:
    text = f"{cohort.name}-{cohort.experiment}-{cohort.dataset_hash[:8]}".lower()
    return re.sub("[^a-z0-9]+", "-", text).strip("-")
