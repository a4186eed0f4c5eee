"""Outcomes of laboratory results in a time at risk: a result, two of them some days apart, a relative change."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

import polars as pl

from medbert_jax.cohorts.ahead import InDays
from medbert_jax.cohorts.counts import Events, Measurements
from medbert_jax.cohorts.parsing import Names, Positive
from medbert_jax.cohorts.record_columns import days_ahead

ResultsOfTests = Annotated[str, Names("laboratory_sets", "measurements")]


@dataclass(frozen=True, kw_only=True)
class OfResults(InDays):
    """Days with results of a set in that time."""

    results_of = property(lambda self: getattr(self, self.KNOWN_BY))

    def evidence(self) -> Iterator[Events]:
        """The results of the set."""
        yield Measurements(measure="measurements", with_results=self.results_of, window="whole_record", at_least=1)

    def of_set(self) -> pl.Expr:
        """Per row: is it a day with a result of the set?"""
        (leaf,) = self.evidence()
        return leaf.rows()


@dataclass(frozen=True, kw_only=True)
class ResultsAhead(OfResults):
    """A result of this set in that time; with `days_apart` a second one, so many days or more after the first of the
    time: its day is the event's."""

    KNOWN_BY: ClassVar[str] = "results"

    results: ResultsOfTests
    days_apart: Positive | None = None

    def event(self) -> pl.Expr:
        """Per row: is it a day with such a result?"""
        return self.of_set() & self.in_time(pl.col("day"))

    def days(self) -> pl.Expr:
        """Days to it, or to the one that confirms it."""
        days = days_ahead(pl.col("day"), pl.col("cut_day")).filter(self.event())
        return days.min() if self.days_apart is None else days.filter(days - days.min() >= self.days_apart).min()

    def no_event(self) -> str:
        """That there is none in that time."""
        apart = f", {self.days_apart} days apart twice," if self.days_apart else ""
        return f"no such result{apart} from {self.from_day} to {self.to_day} days after the prediction"


@dataclass(frozen=True, kw_only=True)
class ResultChange(OfResults):
    """A result of this set in that time that is so many percent above or below the last one by the day of the
    prediction; the mean of a day counts."""

    KNOWN_BY: ClassVar[str] = "change_of"
    EXACTLY_ONE_OF: ClassVar[tuple[str, ...]] = ("rise_percent", "fall_percent")

    change_of: ResultsOfTests
    rise_percent: Positive | None = None
    fall_percent: Positive | None = None

    def without_baseline(self) -> pl.Expr | None:
        """Per patient: is there no result to compare with?"""
        return self._baseline().is_null()

    def event(self) -> pl.Expr:
        """Per row: is it a day with such a result?"""
        by = 1 + self.rise_percent / 100 if self.rise_percent is not None else 1 - (self.fall_percent or 0) / 100
        limit, value = self._baseline().over("patient_id") * by, pl.col("value")
        beyond = value >= limit if self.rise_percent is not None else value <= limit
        return self.of_set() & self.in_time(pl.col("day")) & beyond.fill_null(False)

    def days(self) -> pl.Expr:
        """Days to it."""
        by = 1 + self.rise_percent / 100 if self.rise_percent is not None else 1 - (self.fall_percent or 0) / 100
        limit, value = self._baseline() * by, pl.col("value")
        beyond = value >= limit if self.rise_percent is not None else value <= limit
        found = self.of_set() & self.in_time(pl.col("day")) & beyond.fill_null(False)
        return days_ahead(pl.col("day"), pl.col("cut_day")).filter(found).min()

    def no_event(self) -> str:
        """That there is no such change in that time."""
        by = f"{self.rise_percent} % above" if self.rise_percent is not None else f"{self.fall_percent} % below"
        return f"no result {by} the last one before, from {self.from_day} to {self.to_day} days after the prediction"

    def _baseline(self) -> pl.Expr:
        before = self.of_set() & (pl.col("day") <= pl.col("cut_day")).fill_null(False)
        return pl.col("value").filter(before).sort_by(pl.col("day").filter(before)).last()
