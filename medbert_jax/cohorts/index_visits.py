"""The kinds of index visits that a cohort may have: by case and control, or the same for everyone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import polars as pl

from medbert_jax.cohorts.counts import CodesOfVisits
from medbert_jax.cohorts.evidence_sets import Tag
from medbert_jax.cohorts.outcomes import Outcome
from medbert_jax.cohorts.parsing import NotNegative
from medbert_jax.cohorts.record_columns import AT_INDEX, first_known_day, has_code_of
from medbert_jax.ehr.known import IS_OPEN

_OVER = pl.when(~IS_OPEN).then(pl.coalesce("episode_end", "admit_time"))
"""Per visit: when it, or its episode, was over; null: unknown, or never."""


@dataclass(frozen=True, kw_only=True)
class IndexVisit:
    """What every kind of index has; what one does not say of itself is as it stands here."""

    KNOWN_BY: ClassVar[str] = "everyone"
    REFUSES_INPUT: ClassVar[Mapping[str, str]] = {}
    """`input.until` that does not go with it → why, and what does."""
    by_case = needs_days = is_last_visit = matched = False
    """Whether it differs for cases and controls; whether it can be told only where the source has dates; whether it is
    the last visit of somebody's record; whether that of a control is a date that is drawn for a case."""
    code_set = None
    """Id of the set of codes that it goes by; None: it goes by none."""

    description: str
    tag: Tag

    def refused_inputs(self) -> Mapping[str, str]:
        """As those of an outcome."""
        return self.REFUSES_INPUT

    def order(self, outcome: Outcome) -> pl.Expr:
        """Per patient, over his visits in their order: the order of the index visit; null where none can be it."""
        raise NotImplementedError

    def discharge(self) -> pl.Expr:
        """Per patient: when the index visit, or its episode, was over."""
        return pl.col("episode_end").filter(AT_INDEX).first()


@dataclass(frozen=True, kw_only=True)
class ByCase(IndexVisit):
    """Of a case the first visit with the outcome's codes; of a control his last, or (matched_date) a date, drawn for
    the case whose control he is."""

    KNOWN_BY: ClassVar[str] = "cases"
    by_case = True

    cases: Literal["first_outcome_visit"]
    controls: Literal["last_visit", "matched_date"]
    is_last_visit = property(lambda self: self.controls == "last_visit")
    matched = property(lambda self: self.controls == "matched_date")

    def order(self, outcome: Outcome) -> pl.Expr:
        """The first visit with the outcome's codes, else the last one."""
        assert outcome.code_set is not None  # `checks`: cases go with an outcome of codes
        first = pl.col("order").filter(pl.col(has_code_of(outcome.code_set))).min()
        return pl.coalesce(first, pl.col("order").max())


@dataclass(frozen=True, kw_only=True)
class EndOfRecord(IndexVisit):
    """The first, the second or the last visit that no rule passes over."""

    everyone: Literal["first_visit", "second_visit", "last_visit"]
    is_last_visit = property(lambda self: self.everyone == "last_visit")

    def order(self, outcome: Outcome) -> pl.Expr:
        """The first, the second or the last of those that are left."""
        possible = pl.col("order").filter(pl.col("stands") & pl.col("passed_over").is_null())
        if self.everyone == "second_visit":
            return possible.sort().slice(1, 1).first()
        return possible.min() if self.everyone == "first_visit" else possible.max()


@dataclass(frozen=True, kw_only=True)
class FirstVisitAfter(IndexVisit):
    """The first visit that ends so many days or more after the first one with these codes."""

    REFUSES_INPUT: ClassVar[Mapping[str, str]] = {"before_index": "first_visit_after is read itself; use through_index"}
    needs_days = True

    everyone: Literal["first_visit_after"]
    after_days: NotNegative
    after_codes: CodesOfVisits
    code_set = property(lambda self: self.after_codes)

    def order(self, outcome: Outcome) -> pl.Expr:
        """The first that was over late enough."""
        since = first_known_day(self.after_codes) + pl.duration(days=self.after_days)
        possible = pl.col("stands") & (_OVER.dt.date() >= since)
        return pl.col("order").filter(possible.fill_null(False)).min()

    def discharge(self) -> pl.Expr:
        """A contact whose discharge is unknown was over when it began."""
        return _OVER.filter(AT_INDEX).first()


Index = ByCase | EndOfRecord | FirstVisitAfter
