"""Conditions that count: visits, days with a drug, a result or a procedure, deaths, index visits."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import polars as pl

from medbert_jax.cohorts.comparisons import Comparison
from medbert_jax.cohorts.parsing import NameOf, Names, at_least_one, names_in
from medbert_jax.cohorts.record_columns import (
    DAY_WINDOWS,
    HAS_INDEX,
    VISIT_WINDOWS,
    WITHOUT_INDEX,
    day_told,
    days_since_1970,
    visits_with,
    was_told,
)

Disposition = Literal["home", "facility", "expired", "hospice", "other"]
VisitWindow = Literal[
    "whole_record", "first_visit", "before_index", "index_visit", "through_index", "by_index_date", "after_index"
]
EventWindow = Literal["whole_record", "before_index", "through_index"]
CodesOfVisits = Annotated[str, Names("code_sets")]
VisitTypes = Annotated[tuple[str, ...], at_least_one("or leave the key out"), NameOf("visit_type")]


@dataclass(frozen=True, kw_only=True)
class Count(Comparison):
    """A count, within a window.

    Of a visit with codes those count in windows that end with the index which were told by then. Windows of visits go
    by their order, those of anything else by days: `before_index` ends with the day before that
    of the index, `through_index` with the day of the prediction time. `by_index_date` is, for visits too, everything
    admitted on or before the day of the prediction time. Where the index is a date and no visit (a matched cohort)
    all windows go by days.
    """

    REFUSES: ClassVar[Mapping[str, str]] = {"unknown": "counts, and a count is known; use fewer_than: 1"}
    needs_index = property(lambda self: self.window not in WITHOUT_INDEX)
    looks_at_date = property(lambda self: self.window in ("before_index", "by_index_date"))


@dataclass(frozen=True, kw_only=True)
class CountOfRows(Count):
    """A count of rows of the record."""

    WINDOWS: ClassVar[Mapping[str, pl.Expr]] = DAY_WINDOWS
    if TYPE_CHECKING:  # each kind has it as a field, among its own ones
        window: str

    def rows(self) -> pl.Expr:
        """Per row: is it one that may be counted in some window?"""
        raise NotImplementedError

    def day(self) -> pl.Expr:
        """Per row: the day from which on it counts."""
        return pl.col("day")

    def counted(self, *, by_day: bool = False) -> pl.Expr:
        """Per row: is it one of those in the window? `by_day`: the index is a date, and everything goes by days."""
        if by_day and self.window == "before_index":
            return self.rows() & (self.day() < pl.col("cut_day"))
        return self.rows() & self.WINDOWS[self.window]

    def number(self) -> pl.Expr:
        """Rows in the window."""
        return self.counted().fill_null(False).sum()

    def turns(self) -> pl.Expr:
        """On the n-th of the rows' days there are not yet n before it."""
        days = days_since_1970(self.day()).filter(self.rows()).drop_nulls()
        turns = days.min() if self.limit == 1 else days.sort().get(self.limit - 1, null_on_oob=True)
        return turns - (self.window == "by_index_date")


@dataclass(frozen=True, kw_only=True)
class OfVisits(Comparison):
    """What visits are looked for, as far as it is given: with a code of the set, a disposition, a type."""

    WITHOUT_CODES: ClassVar[str]
    """`WORDS`, where no set of codes is given."""

    with_codes: CodesOfVisits | None = None
    with_disposition: (
        Annotated[tuple[Disposition, ...], at_least_one("or leave the key out"), NameOf("discharge_disposition")] | None
    ) = None
    with_type: VisitTypes | None = None
    with_wrong_times = None

    def rows(self) -> pl.Expr:
        """Per row: is it such a visit?"""
        return visits_with(self.with_codes, self.with_disposition, self.with_type, self.with_wrong_times)

    def words(self, described: Mapping[str, str]) -> str:
        """As "Encounters: Heart failure, of type inpatient"."""
        words = [super().words(described) if self.with_codes else self.WITHOUT_CODES]
        words += [f"of type {' or '.join(self.with_type)}"] if self.with_type else []
        words += [f"ending in {' or '.join(self.with_disposition)}"] if self.with_disposition else []
        words += ["with a discharge before the admission, or no admission time"] if self.with_wrong_times else []
        return ", ".join(words)


@dataclass(frozen=True, kw_only=True)
class Visits(OfVisits, CountOfRows):
    """Visits; two codes in one visit are one visit, and what the source does not know is not counted.

    `with_wrong_times`: with a discharge before the admission, or no admission time.
    """

    WINDOWS: ClassVar[Mapping[str, pl.Expr]] = VISIT_WINDOWS
    WORDS: ClassVar[str] = "Encounters: {with_codes}"
    WITHOUT_CODES: ClassVar[str] = "Encounters"

    measure: Literal["visits"] = "visits"
    with_wrong_times: Literal[True] | None = None
    window: VisitWindow = field()
    needs_days = property(lambda self: self.with_wrong_times is not None or self.window == "by_index_date")

    def day(self) -> pl.Expr:
        """The visit's, or that on which a code was told later."""
        return day_told(self.with_codes, self.window)

    def counted(self, *, by_day: bool = False) -> pl.Expr:
        """What was told only after the end of the window is not in it."""
        inside = super().counted(by_day=by_day)
        return inside if self.with_codes is None or by_day else inside & was_told(self.with_codes, self.window)


@dataclass(frozen=True, kw_only=True)
class Events(CountOfRows):
    """Calendar days with one of a set of events; its day is that of its own time, else of its visit's admission.

    The measure is the name of the table; the one field that names a set says what is looked for in it.
    """

    CALLED: ClassVar[str]
    SAID_BY: ClassVar[str | None] = None
    """The column without which a row of the table is no evidence."""
    MATCHED_BY: ClassVar[tuple[str, ...]]
    """The columns that a set's `matches` looks at."""

    window: EventWindow = field()
    needs_days = property(lambda self: self.window != "whole_record")
    # What the column `event` says in the rows that are counted.
    event = property(lambda self: f"{self.table}:{self.looked_for[1]}")

    @property
    def table(self) -> str:
        """Name of the table, which the measure has too."""
        ((_, names, _),) = names_in(self)
        return names.table

    @property
    def looked_for(self) -> tuple[str, str]:
        """(group of sets, id) of the set that is looked for."""
        ((_, names, id),) = names_in(self)
        return names.group, id

    def rows(self) -> pl.Expr:
        """Per row: is it a day with such an event?"""
        return (pl.col("event") == self.event).fill_null(False)

    def rows_of(self, table: pl.DataFrame, wanted) -> pl.DataFrame:
        """The rows of the table that are of the set; patterns run over its different names, and not over its rows."""
        keys = list(self.MATCHED_BY)
        return table.join(table.select(keys).unique().filter(wanted.matches()), on=keys, how="semi")

    def decidable(self, tables: Collection[str]) -> bool:
        """Whether the table is there."""
        return self.table in tables


@dataclass(frozen=True, kw_only=True)
class Medications(Events):
    """Days with one of a set of drugs."""

    CALLED: ClassVar[str] = "drugs"
    SAID_BY: ClassVar[str | None] = "ingredient"
    MATCHED_BY: ClassVar[tuple[str, ...]] = ("ingredient",)
    WORDS: ClassVar[str] = "Days with: {with_drugs}"

    measure: Literal["medications"]
    with_drugs: Annotated[str, Names("drug_sets", "medications")]


@dataclass(frozen=True, kw_only=True)
class Measurements(Events):
    """Days with one of a set of laboratory results."""

    CALLED: ClassVar[str] = "laboratory results"
    SAID_BY: ClassVar[str | None] = "value"
    WORDS: ClassVar[str] = "Days with: {with_results}"

    measure: Literal["measurements"]
    with_results: Annotated[str, Names("laboratory_sets", "measurements")]

    def rows_of(self, table: pl.DataFrame, wanted) -> pl.DataFrame:
        """The rows of the table that are of the set: those of its codes first, which are few."""
        codes = [code.split("/", 1)[1] for part in wanted.results for code in part.codes]
        return table.filter(pl.col("code").is_in(codes)).filter(wanted.matches())


@dataclass(frozen=True, kw_only=True)
class Procedures(Events):
    """Days with one of a set of procedures."""

    CALLED: ClassVar[str] = "procedures"
    MATCHED_BY: ClassVar[tuple[str, ...]] = ("code_system", "code")
    WORDS: ClassVar[str] = "Days with: {with_codes}"

    measure: Literal["procedures"]
    with_codes: Annotated[str, Names("code_sets", "procedures")]


@dataclass(frozen=True, kw_only=True)
class Deaths(Count):
    """1 for a date of death within the window."""

    WORDS: ClassVar[str] = "Death"
    needs_days = True

    measure: Literal["deaths"]
    window: Literal["whole_record", "before_first_visit", "before_last_visit", "before_index", "through_index"] = (
        field()
    )

    def number(self) -> pl.Expr:
        """0 or 1."""
        died, cut = pl.col("death_date").first(), pl.col("cut_day").first()
        within = {
            "whole_record": died.is_not_null(),
            # Visits after a death are rows of the record where nobody's life would be left without them.
            "before_first_visit": (pl.col("admit_time") > pl.col("died_at")).any(),
            "before_last_visit": pl.col("seen_after_death").first(),
            "before_index": died < cut,
            "through_index": died <= cut,
        }[self.window]
        return within.fill_null(False).cast(pl.UInt32)

    def turns(self) -> pl.Expr:
        """The day of the death."""
        return days_since_1970(pl.col("death_date").first()) if self.limit == 1 else pl.lit(None, pl.Int64)


@dataclass(frozen=True, kw_only=True)
class IndexVisits(Comparison):
    """0 or 1: whether there is an index visit."""

    REFUSES: ClassVar[Mapping[str, str]] = {**Count.REFUSES, "window": "looks at the index visit; leave the key out"}
    WORDS: ClassVar[str] = "Index encounters"

    measure: Literal["index_visits"]

    def number(self) -> pl.Expr:
        """0 or 1."""
        return HAS_INDEX.cast(pl.UInt32)
