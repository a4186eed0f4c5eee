"""The conditions that a rule may have, told apart by `measure`; any_of and none_of put them together.

To add a measure: write its class beside those that it is like, with its number and its words, and name it here.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from medbert_jax.cohorts.comparisons import Together
from medbert_jax.cohorts.counts import Deaths, IndexVisits, Measurements, Medications, Procedures, Visits
from medbert_jax.cohorts.parsing import at_least_one
from medbert_jax.cohorts.spans import (
    AgeAtFirst,
    AgeAtIndex,
    DaysBetween,
    DaysOfFollowUp,
    DaysOfLookback,
    DaysToIndex,
    EnrolledAtIndex,
)

Measure = (
    Visits
    | Medications
    | Measurements
    | Procedures
    | Deaths
    | IndexVisits
    | DaysToIndex
    | DaysBetween
    | DaysOfFollowUp
    | DaysOfLookback
    | EnrolledAtIndex
    | AgeAtFirst
    | AgeAtIndex
)
"""A condition that measures something."""


@dataclass(frozen=True, kw_only=True)
class AnyOf(Together):
    """Holds where one of the conditions does."""

    KNOWN_BY: ClassVar[str] = "any_of"
    NONE: ClassVar[bool] = False

    any_of: Annotated[tuple["Condition", ...], at_least_one("condition")]


@dataclass(frozen=True, kw_only=True)
class NoneOf(Together):
    """Holds where none of the conditions does."""

    KNOWN_BY: ClassVar[str] = "none_of"
    NONE: ClassVar[bool] = True

    none_of: Annotated[tuple["Condition", ...], at_least_one("condition")]


Condition = Measure | AnyOf | NoneOf
