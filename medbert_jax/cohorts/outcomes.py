"""The kinds of outcomes that a cohort may predict, each known by one key of its own, and what the label of each is."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import polars as pl

from medbert_jax.cohorts.counts import CodesOfVisits, VisitTypes
from medbert_jax.cohorts.evidence_sets import Tag
from medbert_jax.cohorts.parsing import NotNegative, Positive
from medbert_jax.cohorts.record_columns import AT_INDEX, day_told, has_code_of


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What every kind of outcome has; what one does not say of itself is as it stands here."""

    KNOWN_BY: ClassVar[str]
    REFUSES_INPUT: ClassVar[Mapping[str, str]] = {}
    """`input.until` that does not go with it → why, and what does."""
    by_case = False
    """Whether the index is that of a case or of a control, told by the whole record."""
    is_ahead = False
    """Whether the outcome is looked for in a time at risk after the prediction."""
    always_known = False
    """Whether every record tells the label."""
    code_set = None
    """Id of the set of codes that cases have; None: codes do not make them."""
    needs_days = False
    """Whether the label can be told only where the source has dates."""
    stated_by = None
    """Column of the index visit by which the source itself says the label, where it says it."""
    known_after_days = 0
    """Days after the prediction by which what the label says has happened or can no more."""

    description: str
    tag: Tag

    def label(self, dated: bool) -> pl.Expr:
        """Per patient, as an aggregation over the rows of his record: the label; null where it cannot be told."""
        raise NotImplementedError

    def event(self) -> pl.Expr:
        """Per row of a patient's record: is it a visit that makes the label 1?"""
        raise NotImplementedError

    def no_event(self) -> str:
        """What a label 0 says, in words."""
        raise NotImplementedError

    def facts(self) -> dict[str, pl.Expr]:
        """Columns of the cohort beside the label: name → per patient, as an aggregation over the rows of his record."""
        return {}


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
class CodesAhead(Predicted):
    """A visit with a code of this set, admitted `from_day` to `to_day` days after the day of the prediction time."""

    KNOWN_BY: ClassVar[str] = "to_day"
    REFUSES_INPUT: ClassVar[Mapping[str, str]] = {
        "before_index": "days to the outcome are counted from the end of the index; use through_index"
    }
    is_ahead = always_known = needs_days = True

    codes: CodesOfVisits
    from_day: Positive
    to_day: Positive
    # competes: who dies in that time before such a visit has no outcome, and is marked in competing_death
    death: Literal["competes"] | None = None
    code_set = property(lambda self: self.codes)
    known_after_days = property(lambda self: self.to_day)

    def own_faults(self) -> Iterator[tuple[str, str]]:
        """What no single key shows."""
        if self.to_day < self.from_day:
            yield "to_day", f"must be from_day or more; got {self.from_day} to {self.to_day}"

    def label(self, dated: bool) -> pl.Expr:
        """Whether there is such a visit in that time."""
        return self.event().any()

    def event(self) -> pl.Expr:
        """Per row: is it a visit with the codes, admitted within the days at risk?

        Of a visit that had begun before, the day is that on which the code was told; after the death it is none.
        """
        begun = pl.col("day") <= pl.col("cut_day")
        day = pl.when(begun).then(day_told(self.codes)).otherwise("day")
        days = (day - pl.col("cut_day")).dt.total_days()
        within = pl.col(has_code_of(self.codes)) & days.is_between(self.from_day, self.to_day)
        return (within & (day <= pl.col("death_date")).fill_null(True)).fill_null(False)

    def no_event(self) -> str:
        """That there is none in that time."""
        return (
            f"no encounter with a code of the outcome from {self.from_day} to {self.to_day} days after the prediction"
        )

    def facts(self) -> dict[str, pl.Expr]:
        """competing_death: did death within the time at risk come before any outcome?"""
        if self.death is None:
            return {}
        died = (pl.col("death_date").first() - pl.col("cut_day").first()).dt.total_days()
        in_time = died.is_between(self.from_day, self.to_day).fill_null(False)
        return {"competing_death": in_time & ~self.event().any()}


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
class Readmission(Predicted):
    """Admitted again, to a visit of one of these types (any, where not given), 0 to so many days after the index
    visit's discharge, both ends included; where the source itself says it, it is believed. Of episodes: to another one
    with a stay of these types; its first day counts."""

    KNOWN_BY: ClassVar[str] = "readmitted_within_days"

    readmitted_within_days: NotNegative
    readmission_types: VisitTypes | None = None
    known_after_days = property(lambda self: self.readmitted_within_days)
    # The tables carry one such statement of the source itself: readmission within 30 days.
    needs_days = property(lambda self: self.readmitted_within_days != 30)
    stated_by = property(lambda self: None if self.needs_days else "readmitted_30d")

    def label(self, dated: bool) -> pl.Expr:
        """Whether he is; null where the source ends before the last of the days, or the discharge is unknown."""
        days = self.readmitted_within_days
        stated = pl.col(self.stated_by).filter(AT_INDEX).first() if self.stated_by else pl.lit(None, pl.Boolean)
        if not dated:
            return stated
        again = self._in_time().filter(self._later()).any(ignore_nulls=False)
        # Where the source ends earlier it is unknown, for those who came back too: a time that only cases can be of
        # would tell the calendar.
        followed = (pl.col("last_day").first() - pl.col("index_discharge").first().dt.date()).dt.total_days() >= days
        again = pl.when(followed.fill_null(True)).then(again)
        return pl.coalesce(stated, pl.when(pl.col("index_discharge").first().is_not_null()).then(again))

    def event(self) -> pl.Expr:
        """Per row: is it such an admission?"""
        return (self._later() & self._in_time()).fill_null(False)

    def no_event(self) -> str:
        """That there is no such admission in that time."""
        kinds = f" ({' or '.join(self.readmission_types)})" if self.readmission_types else ""
        return f"no admission{kinds} within {self.readmitted_within_days} days of the discharge"

    def _later(self) -> pl.Expr:
        """Per row: is it a visit of these types, after the index and of another episode?"""
        later = (pl.col("order") > pl.col("index_order")) & (pl.col("episode") != pl.col("index_episode"))
        if self.readmission_types is not None:
            later = later & pl.col("visit_type").is_in(list(self.readmission_types))
        return later.fill_null(False)

    def _in_time(self) -> pl.Expr:
        """Per row: is the day on which its episode began within the days? Null where it is unknown."""
        gap = (pl.col("episode_day") - pl.col("index_discharge").dt.date()).dt.total_days()
        return gap.is_between(0, self.readmitted_within_days)


Outcome = CodesAnywhere | LongStay | Readmission | CodesAhead
