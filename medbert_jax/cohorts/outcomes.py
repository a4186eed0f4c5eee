"""The kinds of outcomes that a cohort may predict, each known by one key of its own, and what the label of each is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import polars as pl

from medbert_jax.cohorts.ahead import CodesAhead, DiedWithin, TimeAtRisk, died_first
from medbert_jax.cohorts.counts import CodesOfVisits, VisitTypes
from medbert_jax.cohorts.laboratory_outcomes import ResultChange, ResultsAhead
from medbert_jax.cohorts.parsing import NotNegative
from medbert_jax.cohorts.predicted import Predicted
from medbert_jax.cohorts.record_columns import AT_INDEX, days_ahead, has_code_of
from medbert_jax.cohorts.several_outcomes import AllOfAhead, AnyOfAhead


@dataclass(frozen=True, kw_only=True)
class CodesAnywhere(Predicted):
    """A visit with a code of this set; cases have one, controls have none in the whole record."""

    KNOWN_BY: ClassVar[str] = "codes"
    REFUSES_INPUT: ClassVar[Mapping[str, str]] = {
        "through_index": "through_index would show the outcome's own codes; use before_index"
    }
    by_case = always_known = True

    codes: CodesOfVisits
    code_set = property(lambda self: self.codes)

    def label(self, dated: bool) -> pl.Expr:
        """Whether there is such a visit."""
        return self.event().any()

    def event(self) -> pl.Expr:
        """Per row: is it such a visit?"""
        return pl.col(has_code_of(self.codes)).fill_null(False)

    def no_event(self) -> str:
        """That there is none."""
        return "no encounter with a code of the outcome"


@dataclass(frozen=True, kw_only=True)
class LongStay(Predicted):
    """The index visit's length of stay is more than so many days."""

    KNOWN_BY: ClassVar[str] = "stay_over_days"

    stay_over_days: NotNegative
    known_after_days = property(lambda self: self.stay_over_days + 1)

    def label(self, dated: bool) -> pl.Expr:
        """Whether it is; null where the length is unknown."""
        return (pl.col("length_of_stay") > self.stay_over_days).filter(AT_INDEX).first()

    def event(self) -> pl.Expr:
        """Per row: is it the index visit, and so long?"""
        return (AT_INDEX & (pl.col("length_of_stay") > self.stay_over_days)).fill_null(False)

    def no_event(self) -> str:
        """That it is not so long."""
        return f"the index encounter lasts {self.stay_over_days} days or less"


@dataclass(frozen=True, kw_only=True)
class Readmission(TimeAtRisk):
    """Admitted again, to a visit of one of these types (any, where not given), 0 to so many days after the index
    visit's discharge, both ends included; where the source itself says it, it is believed. Of episodes: to another one
    with a stay of these types; its first day counts. Days are counted from the discharge."""

    KNOWN_BY: ClassVar[str] = "readmitted_within_days"

    readmitted_within_days: NotNegative
    readmission_types: VisitTypes | None = None
    known_after_days = property(lambda self: self.readmitted_within_days)
    # The tables carry one such statement of the source itself: readmission within 30 days.
    needs_days = property(lambda self: self.readmitted_within_days != 30)
    stated_by = property(lambda self: None if self.needs_days else "readmitted_30d")

    def label(self, dated: bool) -> pl.Expr:
        """Whether he is; null where the record does not tell, or he was not followed until the last of the days."""
        stated = self._stated()
        if not dated:
            return stated
        came, _, censored = self._times()
        told = pl.when(~self._untold() & censored.is_null()).then(came.is_not_null())
        return pl.coalesce(stated, told)

    def facts(self, dated: bool) -> dict[str, pl.Expr]:
        """And competing_death: did death within the days come first? Null days where the source states the label and
        no admission of the record is what it states."""
        facts = super().facts(dated)
        return facts | died_first(facts)

    def since(self) -> pl.Expr:
        """Per patient: the day of the discharge."""
        return pl.col("index_discharge").first().dt.date()

    def days(self) -> pl.Expr:
        """Days to the first such admission."""
        return days_ahead(pl.col("episode_day"), pl.col("index_discharge").dt.date()).filter(self.event()).min()

    def event(self) -> pl.Expr:
        """Per row: is it such an admission?"""
        return (self._later() & self._in_time()).fill_null(False)

    def no_event(self) -> str:
        """That there is no such admission in that time."""
        kinds = f" ({' or '.join(self.readmission_types)})" if self.readmission_types else ""
        return f"no admission{kinds} within {self.readmitted_within_days} days of the discharge"

    def _stated(self) -> pl.Expr:
        """Per patient: what the source itself says."""
        return pl.col(self.stated_by).filter(AT_INDEX).first() if self.stated_by else pl.lit(None, pl.Boolean)

    def _untold(self) -> pl.Expr:
        """Per patient: does the record not tell the label? Where the source ends before the last of the days it does
        not, of those who came back too: a time that only cases can be of would tell the calendar."""
        ends = days_ahead(pl.col("last_day").first(), self.since()) < self.readmitted_within_days
        perhaps = self._in_time().filter(self._later()).any(ignore_nulls=False).is_null()
        return ends.fill_null(False) | perhaps | self.since().is_null()

    def _times(self) -> tuple[pl.Expr, pl.Expr, pl.Expr]:
        """What the source states is believed, whoever was followed: it is of no admission, or of one before a death."""
        stated, (event, died, censored) = self._stated(), super()._times()
        unstated = stated.is_null()
        return (
            pl.when(unstated).then(event).when(stated).then(self.days()),
            pl.when(unstated).then(died).when(~stated).then(self._death()),
            pl.when(unstated & ~self._untold()).then(censored),
        )

    def _later(self) -> pl.Expr:
        """Per row: is it a visit of these types, after the index and of another episode?"""
        later = (pl.col("order") > pl.col("index_order")) & (pl.col("episode") != pl.col("index_episode"))
        if self.readmission_types is not None:
            later = later & pl.col("visit_type").is_in(list(self.readmission_types))
        return later.fill_null(False)

    def _in_time(self) -> pl.Expr:
        """Per row: is the day on which its episode began within the days? Null where it is unknown."""
        gap = days_ahead(pl.col("episode_day"), pl.col("index_discharge").dt.date())
        return gap.is_between(0, self.readmitted_within_days)


@dataclass(frozen=True, kw_only=True)
class DiedInStay(Predicted):
    """The index visit ends in death; where its disposition is unknown, by the recorded death alone."""

    KNOWN_BY: ClassVar[str] = "died_in_stay"
    REFUSES_INPUT: ClassVar[Mapping[str, str]] = {
        "through_index": "the stay is over when its end is read; use before_index"
    }

    died_in_stay: Literal[True]

    def label(self, dated: bool) -> pl.Expr:
        """Whether it does; null where it is unknown how it ended, and when."""
        disposition, left = (
            pl.col(name).filter(AT_INDEX).first() for name in ("discharge_disposition", "discharge_time")
        )
        return pl.when(disposition.is_not_null() | left.is_not_null()).then((disposition == "expired").fill_null(False))

    def event(self) -> pl.Expr:
        """Per row: is it the index visit, and ends so?"""
        return (AT_INDEX & (pl.col("discharge_disposition") == "expired")).fill_null(False)

    def no_event(self) -> str:
        """That it does not."""
        return "the index encounter does not end in death"


Outcome = (
    CodesAnywhere
    | LongStay
    | Readmission
    | DiedInStay
    | CodesAhead
    | DiedWithin
    | ResultsAhead
    | ResultChange
    | AnyOfAhead
    | AllOfAhead
)
