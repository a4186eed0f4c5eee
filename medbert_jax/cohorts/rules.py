"""A rule's condition as one polars aggregation over a patient's visits."""

import polars as pl

from medbert_jax.cohorts.spec import CohortSpec, Condition
from medbert_jax.ehr.schema import EhrSource

# By order within the patient; index_order is null where a patient has no index visit.
_WINDOWS = {
    "whole_record": pl.lit(True),
    "first_visit": pl.col("order") == pl.col("order").min(),
    "before_index": pl.col("order") < pl.col("index_order"),
    "index_visit": pl.col("order") == pl.col("index_order"),
    "through_index": pl.col("order") <= pl.col("index_order"),
    "after_index": pl.col("order") > pl.col("index_order"),
}


def has_code_of(code_set_id: str) -> str:
    """Name of the boolean visit column that says whether the visit has a code of that set."""
    return f"has:{code_set_id}"


def visit_matches(condition: Condition) -> pl.Expr:
    """Per visit: has it the codes, disposition and type that the condition names? Unknown is no."""
    matches = pl.col("order").is_not_null()  # every visit; a literal would not be as long as the visits are
    if condition.with_codes is not None:
        matches = matches & pl.col(has_code_of(condition.with_codes))
    if condition.with_disposition is not None:
        matches = matches & pl.col("discharge_disposition").is_in(list(condition.with_disposition))
    if condition.with_type is not None:
        matches = matches & pl.col("visit_type").is_in(list(condition.with_type))
    return matches.fill_null(False)


def holds(condition: Condition) -> pl.Expr:
    """Per patient, as an aggregation over his visits in their order: does the condition hold?

    The visits carry `index_order` and `index_admit_time`. A condition that looks at the index visit holds for
    nobody without one: such a patient leaves under the rule that took his last possible index visit.
    """
    matches = visit_matches(condition)
    if condition.measure == "days_to_index":
        first_day = pl.col("admit_time").filter(matches).first().dt.date()
        days = (pl.col("index_admit_time").first().dt.date() - first_day).dt.total_days()
        enough = (days >= (condition.at_least or condition.fewer_than)).fill_null(False)
    else:
        counted = (matches & _WINDOWS[condition.window]).fill_null(False).sum()
        enough = counted >= (condition.at_least or condition.fewer_than)
    looks_at_index = condition.needs_days or condition.window not in ("whole_record", "first_visit")
    judged = pl.col("index_order").first().is_not_null() if looks_at_index else pl.lit(True)
    return judged & (enough if condition.at_least is not None else ~enough)


def refuse_days_without_dates(spec: CohortSpec, source: EhrSource) -> None:
    """ValueError that names every rule of the spec which needs days, where the source has no dates."""
    if source.has_dates:
        return
    faults = [f"rule {rule.id!r}" for rule in spec.rules if rule.when.needs_days]
    # The tables carry one such statement of the source itself: readmission within 30 days.
    if spec.outcome.readmitted_within_days not in (None, 30):
        faults.append(f"outcome 'readmitted_within_days: {spec.outcome.readmitted_within_days}'")
    if faults:
        raise ValueError(
            f"{', '.join(faults)} need{'s' if len(faults) == 1 else ''} days: the source has no dates "
            f"(format {source.format}); leave it out in a copy of the spec {spec.name!r}, or "
            "take a source with dates"
        )
