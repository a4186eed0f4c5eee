"""Table 4 beside ours, and the further metrics of every row and training size (the Supplementary Tables)."""

from collections.abc import Iterator

import numpy as np

from medbert_jax.evaluation.design import MATCHED
from medbert_jax.evaluation.evaluation_tables import NAMES
from medbert_jax.evaluation.measures import Key
from medbert_jax.evaluation.tables import BACKBONE_ORDER
from medbert_jax.printed_tables import Table
from medbert_jax.replication.estimates import mean_auroc
from medbert_jax.replication.paper import ROWS, TABLE4, Row
from medbert_jax.replication.study import SPECIFICITIES, Model, Study, TestedCohort
from medbert_jax.replication.words import (
    MISSING,
    UNITS,
    empty_words,
    hundredths,
    interval_words,
    printed_words,
    row_words,
    size_words,
)

FURTHER: tuple[Key, ...] = (
    ("concordance_within_sets", None),
    ("average_precision", None),
    ("brier", None),
    ("calibration_slope", None),
    ("ici", None),
    *(("sensitivity_at_specificity", at) for at in SPECIFICITIES),
)
"""Metrics beside the AUROC; those that no cohort's design allows have no column."""
NO_AUROC = "no AUROC"


def rows_of(study: Study, cohorts: tuple[TestedCohort, ...] | None = None) -> list[Row]:
    """The rows of the experiment that stands beside the paper's: those of Table 4, in its order, and then ours."""
    there = {
        model.row
        for cohort in cohorts or study.cohorts
        for model in cohort.cells
        if model.experiment == study.experiment
    }
    order = {name: place for place, name in enumerate(BACKBONE_ORDER)}
    ours = sorted(there - set(ROWS), key=lambda row: (order.get(row[0], len(order)), row))
    return [*ROWS, *ours]


def largest(study: Study, cohort: TestedCohort) -> str | None:
    """The largest training size of that experiment in a cohort; None where it has none."""
    sizes = cohort.sizes(study.experiment)
    return sizes[-1] if sizes else None


def table4(study: Study) -> Table:
    """Every row × cohort: the paper's cell, ours, deviation over replicates, error of the test patients."""
    cohorts = [(cohort, size) for cohort in study.cohorts if (size := largest(study, cohort)) is not None]
    columns = ["row"]
    for cohort, _ in cohorts:
        columns += [f"{cohort.title}: paper"] if cohort.column else []
        columns += [f"{cohort.title}: ours" if not cohort.column else "ours", "SD", "SE"]
    rows = []
    for row in rows_of(study):
        cells = [row_words(row)]
        for cohort, size in cohorts:
            if cohort.column:
                cells.append(printed_words(TABLE4[cohort.column].get(row)))
            cells += _cells(study, cohort, Model(study.experiment, *row, size))
        rows.append(tuple(cells))
    return Table("Table 4", tuple(columns), tuple(rows), "<" + ">" * (len(columns) - 1), tuple(_notes(study, cohorts)))


def _cells(study: Study, cohort: TestedCohort, model: Model) -> tuple[str, str, str]:
    of = mean_auroc(study, cohort, model)
    if of is None:
        lost = NO_AUROC if model in cohort.cells else empty_words(cohort, model.size)
        return lost, MISSING, MISSING
    return hundredths(of.value), hundredths(of.deviation), hundredths(of.sampling_error)


def _notes(study: Study, cohorts: list[tuple[TestedCohort, str]]) -> Iterator[str]:
    yield (
        f"{UNITS}. Paper: mean (standard deviation over ten runs). Ours, of experiment {study.experiment}: mean over"
        " replicates; SD: sample standard deviation over them, the paper's number; SE: the standard error that the draw"
        f" of test patients gives that mean ({study.draws:,} bootstrap draws), which no SD over replicates holds."
    )
    for cohort, size in cohorts:
        yield f"{cohort.title}: trained on {size_words(cohort, study.experiment, size)}; {tested_words(cohort)}"


def tested_words(cohort: TestedCohort) -> str:
    """Test patients, cases, design and looks of a cohort, in a sentence."""
    of = cohort.filed.patients
    clustered = f" of {len(np.unique(of.subject)):,} patients" if of.is_clustered else " patients"
    drawn = "matched sets" if of.sets is not None else "patients"
    return (
        f"test: {int(of.known.sum()):,}{clustered}, {int((of.label == 1).sum()):,} cases; sampling:"
        f" {of.design.sampling}; drawn again: {drawn}; looked at {cohort.looks:,} times, once by each run."
    )


def further_table(study: Study, cohort: TestedCohort) -> Table:
    """Every row and size of a cohort, whatever its experiment: AUROC with its interval, and the further metrics."""
    shown = [key for key in FURTHER if any(key in run.further for of in cohort.cells.values() for run in of)]
    experiments = {model.experiment for model in cohort.cells}
    order = {row: place for place, row in enumerate(rows_of(study, (cohort,)))}
    rows = []
    for model in sorted(cohort.cells, key=lambda one: _place(cohort, one, order)):
        of = mean_auroc(study, cohort, model)
        named = (model.experiment,) * (len(experiments) > 1)
        size = size_words(cohort, model.experiment, model.size)
        if of is None:
            rows.append((*named, size, row_words(model.row), NO_AUROC, *[MISSING] * (len(shown) + 4)))
            continue
        auroc = (hundredths(of.value), hundredths(of.deviation), hundredths(of.sampling_error), interval_words(of))
        further = [_mean_words([run.further[key] for run in cohort.cells[model]]) for key in shown]
        rows.append((*named, size, row_words(model.row), str(of.replicates), *auroc, *further))
    heads = ("experiment",) * (len(experiments) > 1) + ("trained on", "row", "replicates", UNITS, "SD", "SE", "95 %")
    columns = (*heads, *(_metric_words(key) for key in shown))
    left = len(heads) - 5
    notes = (
        f"{tested_words(cohort)[0].upper()}{tested_words(cohort)[1:]} 95 %: interval of the mean AUROC, test patients"
        " and replicates drawn together. Further metrics: mean (SD) over replicates; their intervals are in `medbert"
        " evaluate`.",
    )
    if cohort.filed.patients.design.refused == MATCHED:
        notes += (f"{MATCHED[0].upper()}{MATCHED[1:]}.",)
    alignment = "<" * left + ">" * (len(columns) - left)
    return Table(f"Every row and size: {cohort.title}", columns, tuple(rows), alignment, notes)


def _place(cohort: TestedCohort, model: Model, order: dict[Row, int]) -> tuple:
    size = cohort.sizes(model.experiment).index(model.size)
    return model.experiment, size, order.get(model.row, len(order)), model.row


def _metric_words(key: Key) -> str:
    name, at = key
    return NAMES[name] if at is None else f"{NAMES[name]} {at:g}"


def _mean_words(values: list[float]) -> str:
    """Mean (SD) over replicates of a metric as it is; a dash where a replicate has none."""
    if not np.isfinite(values).all():
        return MISSING
    deviation = f"{np.std(values, ddof=1):.4f}" if len(values) > 1 else MISSING
    return f"{np.mean(values):z.4f} ({deviation})".replace("-", "−")
