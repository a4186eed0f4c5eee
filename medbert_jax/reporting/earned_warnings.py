"""What a reader has to be warned of, because the data of this very cohort earn it."""

from collections.abc import Iterator

import polars as pl

from medbert_jax.evaluation.evaluate import EVERYONE
from medbert_jax.evaluation.figures import FIGURE
from medbert_jax.evaluation.stored_evaluation import Evaluation
from medbert_jax.reporting.cohort_facts import CohortFacts
from medbert_jax.reporting.reported_cohort import ReportedCohort
from medbert_jax.reporting.reported_models import AGE, AGE_AND_SEX, SHAPE

CLOSE = 0.03
"""AUROC by which a model must be better than the shape of the record."""
FEW_CASES = 100
SLOPES = (0.8, 1.25)
"""Calibration slopes that are not far from 1."""
_BASELINES = (AGE, AGE_AND_SEX, SHAPE)


def earned_warnings(cohort: ReportedCohort, facts: CohortFacts, *, share: bool = False) -> list[str]:
    """Sentences, the gravest first. With `share` none of them has a count."""
    return [*_of_source(cohort), *_of_design(cohort, facts, share), *_of_figures(cohort, share)]


def _of_source(cohort: ReportedCohort) -> Iterator[str]:
    source = (cohort.metadata or {}).get("source", {})
    if source.get("format") == "simulated":
        yield "Simulated data: no patient is real, and no figure here says anything of real patients."
    if cohort.metadata is not None and cohort.metadata.get("time_is_ordinal"):
        yield "The source has no dates: only the order of encounters is known, and no time to the event."


def _of_design(cohort: ReportedCohort, facts: CohortFacts, share: bool) -> Iterator[str]:
    spec, evaluation = cohort.spec, cohort.evaluation
    if spec is not None and spec.index.is_last_visit:
        yield (
            "A spec with a known flaw: the index of a control is his last encounter, which nobody knows beforehand, so"
            " the shape of a record tells something of the label. Look at a matched cohort, or at one with an index"
            " for everybody."
        )
    if spec is not None and spec.matching is None and spec.outcome.by_case:
        yield "Scores, and no risks: the index of a case is his event, so nobody can be given this number in a clinic."
    if spec is not None and (said := spec.said_of_looking()):
        yield (
            f"Rules that look after the index: {said.split(': ', 2)[2]}. Who is judged so must have lived and come"
            " back, which nobody knows at the prediction."
        )
    if facts.with_outcome_codes:
        count = f"of {facts.with_outcome_codes:,} of {facts.patients:,} test patients" * (not share)
        yield f"Outcome codes in the input {count or 'of some test patients'}: to find them again is no prediction."
    if facts.competing_deaths:
        count = "Some" if share else f"{facts.competing_deaths:,}"
        yield (
            f"Competing deaths: {count} test patients died before the outcome could come and count as without it; a"
            " risk here is that of the outcome in a world with these deaths."
        )
    if evaluation is not None and evaluation.is_clustered:
        of = evaluation.about["counts"]
        yield (
            f"Several predictions of a patient: {of['rows']:,} of {of['subjects']:,} test patients. Who has more labels"
            " weighs more in the training and in every figure; intervals know which rows are of one patient."
        )
    if evaluation is not None and evaluation.about["counts"]["censored"]:
        count = "Some" if share else f"{evaluation.about['counts']['censored']:,}"
        yield (
            f"Labels censored: of {count.lower()} test patients nobody knows the outcome; those who were followed stand"
            " for them, which is right only if leaving has nothing to do with the outcome."
        )
    if evaluation is not None and evaluation.about["design"]["refused"]:
        refused = evaluation.about["design"]["refused"]
        yield f"{refused[0].upper()}{refused[1:]}."


def _of_figures(cohort: ReportedCohort, share: bool) -> Iterator[str]:
    evaluation, model = cohort.evaluation, cohort.model
    if evaluation is None:
        return
    cases = evaluation.about["counts"]["cases"]
    if cases < FEW_CASES:
        got = "" if share else f" ({cases:,})"
        judged = "" if evaluation.about["design"]["refused"] else ", and calibration can hardly be judged"
        yield f"Fewer than {FEW_CASES} test cases{got}: intervals are wide{judged}."
    for baseline in _BASELINES:
        if baseline not in cohort.models or model in _BASELINES:
            continue
        ours, theirs = (_value(evaluation, name, "auroc") for name in (model, baseline))
        if baseline == SHAPE and ours is not None and theirs is not None and ours - theirs < CLOSE:
            yield (
                f"Shape alone comes close: boosting on how long and how often somebody was seen, without any code, has"
                f" AUROC {theirs:.3f}, {model} {ours:.3f}. The codes may add little."
            )
        ours, theirs = (_value(evaluation, name, "brier") for name in (model, baseline))
        if baseline != SHAPE and ours is not None and theirs is not None and ours > theirs:
            yield (
                f"Brier score worse than that of {baseline}: {ours:.4f} against {theirs:.4f} (lower is better). As"
                " risks these probabilities are worse than a guess by age."
            )
    slope = _value(evaluation, model, "calibration_slope")
    if slope is not None and not SLOPES[0] <= slope <= SLOPES[1]:
        how = "too extreme: high risks are too high and low ones too low" if slope < 1 else "not spread enough"
        if slope <= 0:
            how = "in no order or the wrong one: the outcome is no likelier where they are higher"
        yield f"Calibration slope far from 1: {slope:.2f}. The predicted risks are {how}; recalibrate before any use."
    if lost := cohort.unpredicted:
        yield (
            f"Runs without predictions: {lost} of the training size that is shown are in no figure of the evaluation,"
            " because their scores were not finite, or their files are gone."
        )
    if SHAPE not in cohort.models:
        yield "No baseline on the shape of the record was run on these patients: how much the codes add is not known."


def _value(evaluation: Evaluation, model: str, metric: str) -> float | None:
    rows = evaluation.figures.filter(pl.col("at").is_null(), kind=FIGURE, model=model, stratum=EVERYONE, metric=metric)
    return rows["value"][0] if len(rows) else None
