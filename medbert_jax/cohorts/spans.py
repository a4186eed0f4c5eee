"""Conditions that compare a number of days or an age, which may be unknown."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import polars as pl

from medbert_jax.cohorts.comparisons import Comparison
from medbert_jax.cohorts.counts import CodesOfVisits, OfVisits
from medbert_jax.cohorts.record_columns import AT_INDEX, days_since_1970, first_day_with, visits_with


@dataclass(frozen=True, kw_only=True)
class Span(Comparison):
    """A number that may be unknown, of the whole record. `unknown`: the condition holds where it is, whatever else."""

    REFUSES: ClassVar[Mapping[str, str]] = {"window": "always looks at the whole record; leave the key out"}

    unknown: Literal[True] | None = None


@dataclass(frozen=True, kw_only=True)
class Days(Span):
    """Calendar days; where a date is unknown `fewer_than` holds: what must be long enough was not shown to be."""

    needs_days = True
    # Of a number that begins or ends with the index; without one it is unknown.
    needs_index = property(lambda self: self.looks_at_date and self.unknown is None)

    def ends(self) -> tuple[pl.Expr, pl.Expr]:
        """Per patient: the first and the last day."""
        raise NotImplementedError

    def number(self) -> pl.Expr:
        """Days from the first to the last."""
        begin, end = self.ends()
        return (end - begin).dt.total_days()


@dataclass(frozen=True, kw_only=True)
class DaysToIndex(OfVisits, Days):
    """From the first visit of the record with what is given (first visit, without it) to the index."""

    WORDS: ClassVar[str] = "Days to the index since the first of: {with_codes}"
    WITHOUT_CODES: ClassVar[str] = "Days to the index"
    looks_at_date = True

    measure: Literal["days_to_index"]

    def ends(self) -> tuple[pl.Expr, pl.Expr]:
        """First such visit, index."""
        return pl.col("day").filter(self.rows()).first(), pl.col("index_date").first()

    def turns(self) -> pl.Expr:
        """The last day on which there are not yet so many."""
        return days_since_1970(pl.col("day")).filter(self.rows()).first() + self.limit - 1


@dataclass(frozen=True, kw_only=True)
class DaysBetween(Days):
    """From the first visit with `since_codes` to the first with `with_codes`."""

    WORDS: ClassVar[str] = "Days to: {with_codes}, since the first of: {since_codes}"

    measure: Literal["days_between"]
    since_codes: CodesOfVisits
    with_codes: CodesOfVisits

    def ends(self) -> tuple[pl.Expr, pl.Expr]:
        """First visit with the ones, first with the others."""
        return first_day_with(self.since_codes), first_day_with(self.with_codes)


@dataclass(frozen=True, kw_only=True)
class DaysOfFollowUp(Days):
    """From the day of the prediction time to the last day of the source."""

    WORDS: ClassVar[str] = "Days from the prediction to the end of the source"
    looks_at_date = True
    # A later date leaves less time.
    rises = property(lambda self: self.at_least is None)

    measure: Literal["days_of_follow_up"]

    def ends(self) -> tuple[pl.Expr, pl.Expr]:
        """Prediction, end of the source."""
        return pl.col("cut_day").first(), pl.col("last_day").first()

    def turns(self) -> pl.Expr:
        """The last day with so many left."""
        return days_since_1970(pl.col("last_day").first()) - self.limit


@dataclass(frozen=True, kw_only=True)
class DaysOfLookback(Days):
    """From the first day of the follow-up that covers the day of the prediction to that day; where the source does not
    say who is followed, from the first visit. Of who is not followed on that day it is unknown."""

    WORDS: ClassVar[str] = "Days of follow-up before the prediction"
    looks_at_date = True

    measure: Literal["days_of_lookback"]

    def ends(self) -> tuple[pl.Expr, pl.Expr]:
        """First day of that follow-up, prediction."""
        return pl.col("covered_from").first(), pl.col("cut_day").first()


@dataclass(frozen=True, kw_only=True)
class EnrolledAtIndex(Comparison):
    """0 or 1: whether the table `follow_up` covers the day of the prediction."""

    REFUSES: ClassVar[Mapping[str, str]] = {
        "window": "looks at the day of the prediction; leave the key out",
        "unknown": "is known; use fewer_than: 1",
    }
    WORDS: ClassVar[str] = "Followed on the day of the prediction"
    needs_index = needs_days = True
    table = "follow_up"

    measure: Literal["enrolled_at_index"]

    def number(self) -> pl.Expr:
        """0 or 1."""
        return pl.col("covered_from").first().is_not_null().cast(pl.UInt32)

    def decidable(self, tables: Collection[str]) -> bool:
        """Whether the table is there."""
        return self.table in tables


@dataclass(frozen=True, kw_only=True)
class Age(Span):
    """Whole years at the admission of a visit; where unknown neither comparison holds."""

    UNKNOWN_IS_FEW: ClassVar[bool] = False
    judges_age = property(lambda self: self.unknown is None)

    def rows(self) -> pl.Expr:
        """Per row: is it a visit at which the age may be taken? It is taken at the first of them."""
        raise NotImplementedError

    def number(self) -> pl.Expr:
        """Years."""
        return pl.col("age").filter(self.rows()).first()

    def straddles(self) -> pl.Expr:
        """Per patient: may his true age lie on the other side of the number than the source's?"""
        low, high = (pl.col(name).filter(self.rows()).first() for name in ("lowest_age", "highest_age"))
        return ((low < self.limit) & (high >= self.limit)).fill_null(False)


@dataclass(frozen=True, kw_only=True)
class AgeAtFirst(Age):
    """At the first visit with `with_codes`."""

    WORDS: ClassVar[str] = "Age at the first encounter with: {with_codes}"

    measure: Literal["age_at_first"]
    with_codes: CodesOfVisits

    def rows(self) -> pl.Expr:
        """Per row: is it a visit with the codes?"""
        return visits_with(self.with_codes)


@dataclass(frozen=True, kw_only=True)
class AgeAtIndex(Age):
    """At the index visit."""

    WORDS: ClassVar[str] = "Age at the index"
    needs_index = True

    measure: Literal["age_at_index"]

    def rows(self) -> pl.Expr:
        """Per row: is it the index visit?"""
        return AT_INDEX.fill_null(False)
