"""What training patients are worth (Fig. 4): curves, gains, labels for an equal AUROC; the distance to the oracle."""

from collections.abc import Iterator
from dataclasses import dataclass

from medbert_jax.printed_tables import Table
from medbert_jax.replication.estimates import Estimate, combination, difference, mean_auroc
from medbert_jax.replication.paper import BASE, BASES, MED_BERT, ONLY, REGRESSION, ROWS, UNTRAINED, Row
from medbert_jax.replication.study import Model, Study, TestedCohort
from medbert_jax.replication.words import UNITS, estimate_words, hundredths, row_words, size_words

ORACLE = "oracle"
"""Backbone of a run that predicts with what the simulation hides: no record can tell more."""
PAIRS: dict[str, tuple[Row, Row]] = {name: ((MED_BERT, head), (BASE, head)) for head, name in BASES.items()} | {
    "Med-BERT only": (ONLY, UNTRAINED)
}
"""Base → the pretrained row, and the one without pretraining that it is compared with."""


@dataclass(frozen=True)
class Point:
    """A row at one training size."""

    size: str
    patients: int
    mean: float
    lowest: float
    highest: float
    """Of the replicates."""


def curve(study: Study, cohort: TestedCohort, row: Row) -> list[Point]:
    """The AUROC of a row by training size, ascending; sizes without predictions are left out."""
    points = []
    for size in cohort.sizes(study.experiment):
        model = Model(study.experiment, *row, size)
        if runs := cohort.cells.get(model, ()):
            values = [run.auroc for run in runs]
            mean = sum(values) / len(values)
            points.append(Point(size, cohort.trained_on[model][1], mean, min(values), max(values)))
    return points


def gains(study: Study, cohort: TestedCohort, base: str) -> list[tuple[str, int, Estimate]]:
    """Training size, its patients, and Med-BERT's gain there on a base of `PAIRS`."""
    one, other = PAIRS[base]
    found = []
    for size in cohort.sizes(study.experiment):
        models = [Model(study.experiment, *row, size) for row in (one, other)]
        if (gain := difference(study, cohort, *models)) is not None:
            found.append((size, cohort.trained_on[models[0]][1], gain))
    return found


def gain_table(study: Study, cohort: TestedCohort) -> Table:
    """Med-BERT's gain by training size, with its 95 % interval."""
    sizes = cohort.sizes(study.experiment)
    rows = []
    for base, (one, other) in PAIRS.items():
        of = {size: gain for size, _, gain in gains(study, cohort, base)}
        if of:
            rows.append((f"{row_words(one)} − {row_words(other)}",
                         *(estimate_words(of.get(size), signed=True) for size in sizes)))  # fmt: skip
    return Table(
        f"Gain by training size: {cohort.title}",
        ("difference", *(size_words(cohort, study.experiment, size) for size in sizes)),
        tuple(rows),
        "<" + ">" * len(sizes),
        (
            f"{UNITS}, with the 95 % interval of each by itself: test patients and replicates drawn together, paired by"
            " both. Descriptive: adjusted for nothing.",
        ),
    )


def bracket(curve_of: list[Point], target: float) -> tuple[str, str]:
    """Between which of the sizes that were run a curve reaches an AUROC first: the last size below it, the first at it.

    Empty: it is there at the smallest size, or not at the largest.
    """
    below = ""
    for point in curve_of:
        if point.mean >= target:
            return below, point.size
        below = point.size
    return below, ""


def bracket_words(curve_of: list[Point], target: float) -> str:
    """The bracket in numbers of patients: "300 to 1,000", "300 or fewer", "more than 3,000"."""
    below, reached = bracket(curve_of, target)
    of = {point.size: f"{point.patients:,}" for point in curve_of}
    if not reached:
        return f"more than {of[below]}"
    return f"{of[below]} to {of[reached]}" if below else f"{of[reached]} or fewer"


def labels_table(study: Study, cohort: TestedCohort) -> Table:
    """How many training patients Med-BERT needs for the AUROC that a base has with so many."""
    rows = []
    for one, other in PAIRS.values():
        ours, theirs = (curve(study, cohort, row) for row in (one, other))
        for point in theirs if ours else ():
            rows.append(
                (row_words(other), f"{point.patients:,}", hundredths(point.mean), bracket_words(ours, point.mean))
            )
    return Table(
        f"Training patients for an equal AUROC: {cohort.title}",
        ("without pretraining", "training patients", UNITS, "the same with it"),
        tuple(rows),
        "<>>>",
        (
            "Brackets are between sizes that were run, by means over replicates; nothing is interpolated, and the means"
            " have the intervals of the tables above.",
        ),
    )


def oracle_table(study: Study, cohort: TestedCohort) -> Table | None:
    """How far rows are from what can be known, and the share of regression's distance they close; None without one."""
    oracles = [model for model in cohort.cells if model.backbone == ORACLE and cohort.cells[model]]
    if not oracles:
        return None
    oracle, rows = oracles[0], []
    size = cohort.sizes(study.experiment)[-1]
    regression = Model(study.experiment, *REGRESSION, size)
    left = combination(study, cohort, [(1, oracle), (-1, regression)])
    for row in ROWS:
        model = Model(study.experiment, *row, size)
        distance = difference(study, cohort, oracle, model)
        if distance is not None:
            closed = "–" if left is None or left.value <= 0 else f"{100 * (1 - distance.value / left.value):.0f} %"
            rows.append((row_words(row), estimate_words(distance, signed=True), closed.replace("-", "−")))
    known = mean_auroc(study, cohort, oracle)
    assert known is not None  # it has runs
    return Table(
        f"Distance to the oracle: {cohort.title}",
        ("row", f"oracle − row, {UNITS}", "of LR's distance closed"),
        tuple(rows),
        "<>>",
        (
            f"The oracle, the probability of the label given the hidden state, has {estimate_words(known)}; no record"
            f" can tell more. Rows trained on {size_words(cohort, study.experiment, size)}.",
        ),
    )


def size_tables(study: Study, cohort: TestedCohort) -> Iterator[Table]:
    """What there is to say of a cohort's training sizes."""
    if len(cohort.sizes(study.experiment)) > 1:
        yield from (table for table in (gain_table(study, cohort), labels_table(study, cohort)) if table.rows)
    if cohort.sizes(study.experiment) and (oracle := oracle_table(study, cohort)) is not None:
        yield oracle
