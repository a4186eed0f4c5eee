"""Experiments with another pretraining beside the one that stands beside the paper: what the change was worth."""

from collections.abc import Iterator

import numpy as np

from medbert_jax.printed_tables import Table
from medbert_jax.replication.estimates import Estimate, difference, sum_of
from medbert_jax.replication.paper import MED_BERT
from medbert_jax.replication.sizes import PAIRS
from medbert_jax.replication.study import PERMUTED, Model, Study, TestedCohort
from medbert_jax.replication.words import UNITS, estimate_words, row_words, size_words


def variants(study: Study, word: str = "") -> Iterator[tuple[TestedCohort, Model, Estimate]]:
    """Pretrained rows of other experiments, each with (variant − the experiment beside the paper) on the same patients.

    `word`: what the name of the experiment has in it. A variant may have a dataset of its own, as one of another order
    of codes must: it is compared where its test patients and their labels are the same.
    """
    for cohort in study.cohorts:
        for model, runs in sorted(cohort.cells.items(), key=lambda one: str(one[0])):
            if model.experiment == study.experiment or model.experiment.startswith(PERMUTED):
                continue
            if model.backbone != MED_BERT or word not in model.experiment:
                continue
            base = Model(study.experiment, *model.row, model.size)
            for other in study.cohorts:
                if base in other.cells and same_patients(cohort, other):
                    found = sum_of(study, [(1, runs), (-1, other.cells[base])])
                    if found is not None:
                        yield cohort, model, found


def same_patients(one: TestedCohort, other: TestedCohort) -> bool:
    """Whether two cohorts have the same test patients with the same labels and sets: then their draws are the same."""
    of = []
    for patients in (one.filed.patients, other.filed.patients):
        sets = patients.subject if patients.sets is None else patients.sets
        order = np.lexsort((patients.time, patients.subject))
        of.append([column[order] for column in (patients.subject, patients.time, patients.label, sets)])
    return all(np.array_equal(left, right) for left, right in zip(*of, strict=True))


def gain_rows(study: Study) -> Iterator[tuple[str, str, str, str]]:
    """Experiment, cohort with size, difference, and Med-BERT's gain, of every other experiment that has both rows."""
    for cohort in study.cohorts:
        for model in sorted(cohort.cells, key=str):
            others = [other for one, other in PAIRS.values() if one == model.row]
            if model.experiment == study.experiment or model.experiment.startswith(PERMUTED):
                continue
            for other in others:
                gain = difference(study, cohort, model, Model(model.experiment, *other, model.size))
                if gain is not None:
                    size = size_words(cohort, model.experiment, model.size)
                    name = f"{row_words(model.row)} − {row_words(other)}"
                    yield model.experiment, f"{cohort.title}, {size}", name, estimate_words(gain, signed=True)


def gain_table(study: Study) -> Table | None:
    """What Med-BERT gains in other experiments; None where none has both rows."""
    rows = tuple(gain_rows(study))
    if not rows:
        return None
    return Table(
        "Gain in other experiments",
        ("experiment", "cohort", "difference", UNITS),
        rows,
        "<<<>",
        ("Descriptive, each with its own 95 % interval, paired by test patient and replicate.",),
    )


def variant_rows(study: Study, word: str) -> Iterator[tuple[str, str, str, str]]:
    """What, paper (which prints no number), ours, and what the interval says, of experiments named with a word."""
    for cohort, model, found in variants(study, word):
        where = " on simulated patients" if cohort.filed.is_simulated else ""
        place = "outside of" if found.excludes_zero else "inside"
        yield (
            f"{model.experiment} − {study.experiment}: {row_words(model.row)}, {model.size}, {cohort.title}",
            "no number",
            estimate_words(found, signed=True),
            f"0 is {place} the interval{where}",
        )


def variant_table(study: Study) -> Table | None:
    """All of them; None where there is none."""
    rows = tuple(
        (model.experiment, row_words(model.row), f"{cohort.title}, {size_words(cohort, model.experiment, model.size)}",
         estimate_words(found, signed=True))
        for cohort, model, found in variants(study)
    )  # fmt: skip
    if not rows:
        return None
    return Table(
        "The same rows in other experiments",
        ("experiment", "row", "cohort", f"less {study.experiment}, {UNITS}"),
        rows,
        "<<<>",
        (
            "Descriptive. Paired by test patient and replicate; another pretraining is one alone, whose own chance"
            " is in no interval.",
        ),
    )
