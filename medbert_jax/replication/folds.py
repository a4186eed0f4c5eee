"""Cross-fitting: one cohort whose folds are datasets of their own, each patient tested once; means over the folds."""

from collections.abc import Iterator

import numpy as np

from medbert_jax.printed_tables import Table
from medbert_jax.replication.estimates import Estimate, difference, mean_auroc, mean_of
from medbert_jax.replication.sizes import PAIRS
from medbert_jax.replication.study import Model, Study, TestedCohort
from medbert_jax.replication.words import UNITS, hundredths, interval_words, row_words


def folds(study: Study) -> Iterator[tuple[str, list[TestedCohort]]]:
    """Experiment, and the datasets of one cohort in it whose test patients are all other ones; two or more."""
    of: dict[tuple[str, str, str], list[TestedCohort]] = {}
    for cohort in study.cohorts:
        for experiment in {model.experiment for model in cohort.cells} if not cohort.is_permuted else ():
            of.setdefault((experiment, cohort.name, cohort.site), []).append(cohort)
    for (experiment, *_), cohorts in sorted(of.items()):
        subjects = [np.unique(cohort.filed.patients.subject) for cohort in cohorts]
        if len(cohorts) > 1 and len(np.unique(np.concatenate(subjects))) == sum(map(len, subjects)):
            yield experiment, cohorts


def fold_table(study: Study, experiment: str, cohorts: list[TestedCohort]) -> Table:
    """Every row and size that all folds have, and what Med-BERT gains: means over the folds."""
    models = sorted(
        set.intersection(*({one for one in cohort.cells if one.experiment == experiment} for cohort in cohorts)),
        key=str,
    )
    rows = []
    for model in models:
        found = [mean_auroc(study, cohort, model) for cohort in cohorts]
        rows += _row(row_words(model.row), model.size, found, signed=False)
    for one, other in PAIRS.values():
        for size in dict.fromkeys(model.size for model in models):
            pair = [Model(experiment, *row, size) for row in (one, other)]
            found = [difference(study, cohort, *pair) for cohort in cohorts]
            rows += _row(f"{row_words(one)} − {row_words(other)}", size, found, signed=True)
    tested = sum(int(cohort.filed.patients.known.sum()) for cohort in cohorts)
    cases = sum(int((cohort.filed.patients.label == 1).sum()) for cohort in cohorts)
    simulated = " (simulated)" * any(cohort.filed.is_simulated for cohort in cohorts)
    return Table(
        f"{experiment}: {cohorts[0].name}{simulated}, {len(cohorts)} folds",
        ("row", "trained on", UNITS, "SD of the folds", "SE", "95 %"),
        tuple(rows),
        "<>>>>>",
        (
            f"Mean over folds of the mean over replicates; {tested:,} patients, {cases:,} cases, each tested once. The"
            " interval draws test patients and replicates together within each fold; that the folds' trainings share"
            " patients is in no interval of one cross-fitting. Descriptive.",
        ),
    )


def _row(name: str, size: str, found: list[Estimate | None], *, signed: bool) -> Iterator[tuple[str, ...]]:
    there = [of for of in found if of is not None]
    if len(there) == len(found):
        of = mean_of(there)
        numbers = hundredths(of.value, signed=signed), hundredths(of.deviation), hundredths(of.sampling_error)
        yield name, size, *numbers, interval_words(of, signed=signed)


def fold_tables(study: Study) -> list[Table]:
    """One for each cohort that is cross-fitted in an experiment."""
    return [fold_table(study, experiment, cohorts) for experiment, cohorts in folds(study)]
