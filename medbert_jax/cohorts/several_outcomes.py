"""Outcomes ahead put together: any of them, or all."""

import functools
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import polars as pl

from medbert_jax.cohorts.ahead import Ahead, CodesAhead, DiedWithin
from medbert_jax.cohorts.counts import Events
from medbert_jax.cohorts.laboratory_outcomes import ResultChange, ResultsAhead
from medbert_jax.cohorts.parsing import at_least_one

Part = CodesAhead | DiedWithin | ResultsAhead | ResultChange


@dataclass(frozen=True, kw_only=True)
class Several(Ahead):
    """Outcomes ahead put together, each with its own time."""

    known_after_days = property(lambda self: max(part.known_after_days for part in self.parts()))
    REFUSES: ClassVar[Mapping[str, str]] = dict.fromkeys(("from_day", "to_day"), "is a part's, each its own")

    def refused_inputs(self) -> Mapping[str, str]:
        """Those of the parts."""
        return {key: why for part in self.parts() for key, why in part.refused_inputs().items()}

    def parts(self) -> tuple[Part, ...]:
        """The outcomes that are put together; what the reading refused is passed over."""
        return tuple(part for part in getattr(self, self.KNOWN_BY) or () if part is not None)

    def event(self) -> pl.Expr:
        """Per row: is it an event of one of them?"""
        return functools.reduce(lambda one, other: one | other, (part.event() for part in self.parts()))

    def without_baseline(self) -> pl.Expr | None:
        """Per patient: has one of them nothing to compare with?"""
        found = [one for part in self.parts() if (one := part.without_baseline()) is not None]
        return pl.any_horizontal(*found) if found else None

    def evidence(self) -> Iterator[Events]:
        """Those of the parts."""
        for part in self.parts():
            yield from part.evidence()


@dataclass(frozen=True, kw_only=True)
class AnyOfAhead(Several):
    """One of them: the first."""

    KNOWN_BY: ClassVar[str] = "any_of"

    any_of: Annotated[tuple[Part, ...], at_least_one("outcome")]

    def days(self) -> pl.Expr:
        """Days to the first of them."""
        return pl.min_horizontal(*(part.days() for part in self.any_of))

    def decidable(self, tables: Collection[str]) -> bool:
        """Whether one of them has."""
        return any(part.decidable(tables) for part in self.any_of)

    def no_event(self) -> str:
        """That there is none."""
        return "; ".join(part.no_event() for part in self.any_of)


@dataclass(frozen=True, kw_only=True)
class AllOfAhead(Several):
    """All of them: the day is that of the last to come."""

    KNOWN_BY: ClassVar[str] = "all_of"

    all_of: Annotated[tuple[Part, ...], at_least_one("outcome")]

    def days(self) -> pl.Expr:
        """Days until all have come."""
        days = [part.days() for part in self.all_of]
        missing = pl.any_horizontal(*(one.is_null() for one in days))
        return pl.when(~missing).then(pl.max_horizontal(*days))

    def no_event(self) -> str:
        """That one is missing."""
        return "not all of: " + "; ".join(part.description for part in self.all_of)
