"""Outcomes in a time at risk after the prediction: the event, or what came first: death, or the end of follow-up."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import polars as pl

from medbert_jax.cohorts.counts import CodesOfVisits
from medbert_jax.cohorts.parsing import NotNegative, Positive
from medbert_jax.cohorts.predicted import Predicted
from medbert_jax.cohorts.record_columns import day_told, days_ahead, death_day, has_code_of

EVENT_DAY, DEATH_DAY, CENSORED_DAY = TIMES = ("event_day", "death_day", "censored_day")
"""Columns of a cohort: whole days from the day of the prediction; of a patient one is known at most."""


@dataclass(frozen=True, kw_only=True)
class TimeAtRisk(Predicted):
    """An event that may come in a time after a day. What comes first counts: the event, label 1; death, label 0 and
    competing; the end of the time in which he is followed, label unknown: censored. On one day, in that order."""

    asks_follow_up = True

    def since(self) -> pl.Expr:
        """Per patient, over the rows of his record: the day from which the days are counted."""
        return pl.col("cut_day").first()

    def days(self) -> pl.Expr:
        """Per patient, over the rows of his record: days to the first event of the time at risk; null: none."""
        raise NotImplementedError

    def facts(self, dated: bool) -> dict[str, pl.Expr]:
        """Days to what came first; a source without dates has none."""
        if not dated:
            return {}
        return {name: days.cast(pl.Int32) for name, days in zip(TIMES, self._times(), strict=True)}

    def _event_day(self) -> pl.Expr:
        """Days to the event, if it came first."""
        days = self.days()
        first = (days <= self._death()).fill_null(True) & (days <= self._followed()).fill_null(True)
        return pl.when(first).then(days)

    def _death(self) -> pl.Expr:
        """Days to the death, if it is within the time at risk."""
        days = days_ahead(death_day().first(), self.since())
        return pl.when(days.is_between(0, self.known_after_days)).then(days)

    def _times(self) -> tuple[pl.Expr, pl.Expr, pl.Expr]:
        """Per patient: days to the event, to a death and to the end of follow-up, if that came first."""
        event, death, followed = self._event_day(), self._death(), self._followed()
        died = pl.when(event.is_null() & (death <= followed).fill_null(death.is_not_null())).then(death)
        left = event.is_null() & died.is_null() & (followed < self.known_after_days)
        # Who was not followed at the prediction is censored at once, whatever was recorded of him.
        return event, died, pl.when(left.fill_null(False)).then(followed.clip(lower_bound=0))

    def _followed(self) -> pl.Expr:
        """Days to the last one on which he was followed (below 0: he was not); null: to the end of the source."""
        return days_ahead(pl.col("covered_until").first(), self.since())


def died_first(facts: Mapping[str, pl.Expr]) -> dict[str, pl.Expr]:
    """The column competing_death, where there are the days to what came first."""
    return {"competing_death": facts[DEATH_DAY].is_not_null()} if facts else {}


@dataclass(frozen=True, kw_only=True)
class Ahead(TimeAtRisk):
    """An event within days after the day of the prediction."""

    is_ahead = always_known = needs_days = needs_own_follow_up = True

    def without_baseline(self) -> pl.Expr | None:
        """Per patient: is there nothing that the event is a change of? None: it is none of anything."""
        return None

    def label(self, dated: bool) -> pl.Expr:
        """Whether the event came first; null where he was not followed to the end and nothing had come."""
        _, died, censored = self._times()
        came = self._event_day().is_not_null()
        return pl.when(died.is_not_null() | censored.is_null() | came).then(came)

    def unjudged(self) -> dict[str, tuple[str, pl.Expr]]:
        """Lines of the ledger under which cases and controls leave alike: id → text, and whether a patient does."""
        left = days_ahead(pl.col("last_day").first(), pl.col("cut_day").first())
        text = f"The source ends less than {self.known_after_days} days after the prediction, whatever happens by then"
        lines = {"source_ends": (text, (left < self.known_after_days).fill_null(False))}
        if (nothing := self.without_baseline()) is not None:
            lines["no_baseline"] = ("No result by the day of the prediction that the outcome is a change of", nothing)
        return lines


@dataclass(frozen=True, kw_only=True)
class InDays(Ahead):
    """`from_day` to `to_day` days after the day of the prediction time."""

    KNOWN_BY: ClassVar[str] = "to_day"
    REFUSES_INPUT: ClassVar[Mapping[str, str]] = {
        "before_index": "days to the outcome are counted from the end of the index; use through_index"
    }

    from_day: Positive
    to_day: Positive
    known_after_days = property(lambda self: self.to_day)

    def own_faults(self) -> Iterator[tuple[str, str]]:
        """What no single key shows."""
        if self.to_day < self.from_day:
            yield "to_day", f"must be from_day or more; got {self.from_day} to {self.to_day}"

    def in_time(self, day: pl.Expr) -> pl.Expr:
        """Whether a day is one of the time at risk."""
        return days_ahead(day, pl.col("cut_day")).is_between(self.from_day, self.to_day).fill_null(False)

    def days(self) -> pl.Expr:
        """Days to the first row that is an event."""
        return days_ahead(self.day(), pl.col("cut_day")).filter(self.event()).min()

    def day(self) -> pl.Expr:
        """Per row: the day on which it is an event."""
        return pl.col("day")


@dataclass(frozen=True, kw_only=True)
class CodesAhead(InDays):
    """A visit with a code of this set, admitted in that time."""

    codes: CodesOfVisits
    # competes: who dies in that time before such a visit is marked in competing_death
    death: Literal["competes"] | None = None
    code_set = property(lambda self: self.codes)

    def day(self) -> pl.Expr:
        """The visit's; of one that had begun before, that on which the code was told."""
        begun = pl.col("day") <= pl.col("cut_day")
        return pl.when(begun).then(day_told(self.codes)).otherwise("day")

    def event(self) -> pl.Expr:
        """Per row: is it such a visit?"""
        return pl.col(has_code_of(self.codes)).fill_null(False) & self.in_time(self.day())

    def no_event(self) -> str:
        """That there is none in that time."""
        return (
            f"no encounter with a code of the outcome from {self.from_day} to {self.to_day} days after the prediction"
        )

    def facts(self, dated: bool) -> dict[str, pl.Expr]:
        """And competing_death: did death within the time at risk come first?"""
        facts = super().facts(dated)
        return facts if self.death is None else facts | died_first(facts)


@dataclass(frozen=True, kw_only=True)
class DiedWithin(Ahead):
    """A death, 0 to so many days after the day of the prediction, both ends included."""

    KNOWN_BY: ClassVar[str] = "died_within_days"

    died_within_days: NotNegative
    needs_own_follow_up = False
    known_after_days = property(lambda self: self.died_within_days)

    def days(self) -> pl.Expr:
        """Days to the death."""
        return self._death()

    def event(self) -> pl.Expr:
        """No visit is a death."""
        return pl.lit(False)

    def no_event(self) -> str:
        """That no death is recorded in that time."""
        return f"no death within {self.died_within_days} days of the prediction"
