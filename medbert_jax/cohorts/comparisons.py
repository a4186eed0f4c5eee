"""What the conditions of rules have in common: a number per patient that is compared, and how conditions go together.

In a matched cohort the index is a date that is not chosen yet. "At least two visits with diabetes before it" becomes
true with the day after the second one and stays so; "no heart failure before it" becomes false. So a condition turns
once, on a day that the record tells, and all together leave a patient a stretch of days: nobody's record is read again
for every case.
"""

import functools
import operator
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import polars as pl

from medbert_jax.cohorts.parsing import Positive, names_in
from medbert_jax.cohorts.record_columns import HAS_INDEX

if TYPE_CHECKING:
    from medbert_jax.cohorts.conditions import Condition, Measure

FOREVER = 10**8
"""More days than any date has since 1970."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A number per patient, compared with the one that is given. A kind of condition says which number, and what it
    needs for it; what it does not say is as it stands here."""

    KNOWN_BY: ClassVar[str] = "measure"
    EXACTLY_ONE_OF: ClassVar[tuple[str, ...]] = ("at_least", "fewer_than", "unknown")
    REFUSES: ClassVar[Mapping[str, str]] = {}
    """Keys of other kinds → why this one has them not."""
    WORDS: ClassVar[str]
    """What is looked for, without window and number; {with_codes} is the description of the set of that field."""
    UNKNOWN_IS_FEW: ClassVar[bool] = True
    """Whether `fewer_than` holds where the number is unknown."""
    needs_days = needs_index = looks_at_date = judges_age = False
    """Whether it can be told only where the source has dates, or where the patient has an index; whether it depends on
    the date of a matched cohort; whether it compares an age."""
    # What some kinds have as a field: with `= field()`, or it would be this.
    window = unknown = None
    looks_after_index = property(lambda self: self.window in ("whole_record", "after_index"))

    at_least: Positive | None = None
    fewer_than: Positive | None = None
    # Whether, of a condition that looks at a date, a later one can make it true; else it can make it false.
    rises = property(lambda self: self.at_least is not None)
    # Whether with a later date it becomes true, or false; None: it depends on no date.
    direction = property(lambda self: self.rises if self.looks_at_date and not self.unknown else None)
    # What the number is compared with.
    limit = property(lambda self: self.at_least or self.fewer_than)

    def leaves(self) -> Iterator[Self]:
        """Every condition that measures something: this one."""
        yield self

    def number(self) -> pl.Expr:
        """Per patient, as an aggregation over the rows of `record`: the number; null where it is unknown."""
        raise NotImplementedError

    def holds(self) -> pl.Expr:
        """Per patient, as an aggregation over the rows of `record`: does the condition hold?

        One that looks at the index visit holds for nobody without one: such a patient leaves under the rule that took
        his last possible index visit.
        """
        number = self.number()
        if self.unknown:
            says = number.is_null()
        elif self.at_least is not None:
            says = (number >= self.at_least).fill_null(False)
        else:
            says = (number < self.fewer_than).fill_null(self.UNKNOWN_IS_FEW)
        return HAS_INDEX & says if self.needs_index else says

    def turns(self) -> pl.Expr:
        """Of a condition that looks at a date: the last day (since 1970) before it turns; null where it never does."""
        raise NotImplementedError

    def turning_day(self) -> tuple[pl.Expr, bool]:
        """Per patient, over the rows of `record`: (day, after), days since 1970.

        With `after` the condition holds at dates after that day, else at that day and before it; a condition that looks
        at no date has ±FOREVER.
        """
        if self.direction is not None:
            return self.turns().fill_null(FOREVER), self.direction
        return pl.when(self.holds()).then(-FOREVER).otherwise(FOREVER), True

    def decidable(self, tables: Collection[str]) -> bool:
        """Whether the condition has something to rest on, where only these tables are there."""
        return True

    def words(self, described: Mapping[str, str]) -> str:
        """What is looked for, without window and number; `described` says what the sets of a spec are, by id."""
        return self.WORDS.format(**{name: described[id] for name, _, id in names_in(self)})


@dataclass(frozen=True, kw_only=True)
class Together:
    """Conditions put together, whatever each of them looks at: one of them holds, or (`NONE`) none."""

    KNOWN_BY: ClassVar[str]
    NONE: ClassVar[bool]

    def parts(self) -> "tuple[Condition, ...]":
        """The conditions that this one puts together; what the reading refused is passed over."""
        return tuple(part for part in getattr(self, self.KNOWN_BY) or () if part is not None)

    def leaves(self) -> "Iterator[Measure]":
        """Every condition below this one that measures something."""
        for part in self.parts():
            yield from part.leaves()

    def holds(self) -> pl.Expr:
        """As that of a comparison."""
        any_of = functools.reduce(operator.or_, (part.holds() for part in self.parts()))
        return ~any_of if self.NONE else any_of

    def directions(self) -> set[bool]:
        """Those of the parts that depend on a date; in a matched cohort there may be one."""
        return {part.direction for part in self.parts() if part.direction is not None}

    @property
    def direction(self) -> bool | None:
        """As that of a comparison; what holds where none of its parts does goes the other way."""
        return next((rises != self.NONE for rises in self.directions()), None)

    def turning_day(self) -> tuple[pl.Expr, bool]:
        """As that of a comparison; what depends on no date takes the direction of the rest."""
        after = next(iter(self.directions()), True)
        days = [day if its == after else -day for day, its in (part.turning_day() for part in self.parts())]
        return (pl.min_horizontal if after else pl.max_horizontal)(days), after != self.NONE


def holds_at(date: pl.Expr, day: pl.Expr, after: bool) -> pl.Expr:
    """Whether a condition with that turning day holds at a date (days since 1970)."""
    return (date > day) if after else (date <= day)
