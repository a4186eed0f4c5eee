"""The kinds of conditions that a rule may have, told apart by `measure`; any_of and none_of put them together.

To add a measure: write its class here, with its number and its words, and name it in `Condition`.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import polars as pl

from medbert_jax.cohorts.comparisons import Comparison, Together, Unknown
from medbert_jax.cohorts.parsing import Names, at_least_one, names_in
from medbert_jax.cohorts.record_columns import (
    AT_INDEX,
    DAY_WINDOWS,
    HAS_INDEX,
    VISIT_WINDOWS,
    WITHOUT_INDEX,
    days_since_1970,
    first_day_with,
    visits_with,
)

Disposition = Literal["home", "facility", "expired", "hospice", "other"]
VisitWindow = Literal[
    "whole_record", "first_visit", "before_index", "index_visit", "through_index", "by_index_date", "after_index"
]
EventWindow = Literal["whole_record", "before_index", "through_index"]
CodesOfVisits = Annotated[str, Names("code_sets")]


@dataclass(frozen=True, kw_only=True)
class Counted(Comparison):
    """A count of the rows of a record that are something, within a window.

    Windows of visits go by their order, those of anything else by days: `before_index` ends with the day before that
    of the index, `through_index` with the day of the prediction time. `by_index_date` is, for visits too, everything
    admitted on or before the day of the prediction time. Where the index is a date and no visit (a matched cohort)
    all windows go by days.
    """

    REFUSES: ClassVar[Mapping[str, str]] = {"unknown": "counts, and a count is known; use fewer_than: 1"}
    WINDOWS: ClassVar[Mapping[str, pl.Expr]] = DAY_WINDOWS

    @property
    def needs_index(self) -> bool:
        """Whether the window is there for those alone who have an index."""
        return self.window not in WITHOUT_INDEX

    @property
    def looks_at_date(self) -> bool:
        """Whether the window ends with the date of a matched cohort."""
        return self.window in ("before_index", "by_index_date")

    def rows(self) -> pl.Expr:
        """Per row: is it one that may be counted in some window?"""
        raise NotImplementedError

    def number(self) -> pl.Expr:
        """Rows in the window."""
        return (self.rows() & self.WINDOWS[self.window]).fill_null(False).sum()

    def turns(self) -> pl.Expr:
        """On the n-th of the rows' days there are not yet n before it."""
        days = days_since_1970(pl.col("day")).filter(self.rows()).drop_nulls()
        turns = days.min() if self.limit == 1 else days.sort().get(self.limit - 1, null_on_oob=True)
        return turns - (self.window == "by_index_date")


@dataclass(frozen=True, kw_only=True)
class _OfVisits(Comparison):
    """What visits are looked for, as far as it is given: with a code of the set, a disposition, a type."""

    with_codes: CodesOfVisits | None = None
    with_disposition: Annotated[tuple[Disposition, ...], at_least_one("or leave the key out")] | None = None
    with_type: Annotated[tuple[str, ...], at_least_one("or leave the key out")] | None = None

    def rows(self) -> pl.Expr:
        """Per row: is it such a visit?"""
        return visits_with(self.with_codes, self.with_disposition, self.with_type)

    def filter_words(self) -> list[str]:
        """What else is asked of the visits than their codes."""
        words = [f"of type {' or '.join(self.with_type)}"] if self.with_type else []
        return words + ([f"ending in {' or '.join(self.with_disposition)}"] if self.with_disposition else [])


@dataclass(frozen=True, kw_only=True)
class Visits(_OfVisits, Counted):
    """Visits; two codes in one visit are one visit, and what the source does not know is not counted.

    `with_wrong_times`: with a discharge before the admission, or no admission time.
    """

    WINDOWS: ClassVar[Mapping[str, pl.Expr]] = VISIT_WINDOWS

    measure: Literal["visits"] = "visits"
    with_wrong_times: Literal[True] | None = None
    window: VisitWindow

    @property
    def needs_days(self) -> bool:
        """Whether times or a day are looked at."""
        return self.with_wrong_times is not None or self.window == "by_index_date"

    def rows(self) -> pl.Expr:
        """Per row: is it such a visit?"""
        return visits_with(self.with_codes, self.with_disposition, self.with_type, self.with_wrong_times)

    def words(self, described: Mapping[str, str]) -> str:
        """As "Encounters: Heart failure, of type inpatient"."""
        words = [f"Encounters: {described[self.with_codes]}" if self.with_codes else "Encounters", *self.filter_words()]
        words += ["with a discharge before the admission, or no admission time"] if self.with_wrong_times else []
        return ", ".join(words)


@dataclass(frozen=True, kw_only=True)
class Events(Counted):
    """Calendar days with one of a set of events; its day is that of its own time, else of its visit's admission.

    The measure is the name of the table; the one field that names a set says what is looked for in it.
    """

    CALLED: ClassVar[str]
    SAID_BY: ClassVar[str | None] = None
    """The column without which a row of the table is no evidence."""
    MATCHED_BY: ClassVar[tuple[str, ...]]
    """The columns that a set's `matches` looks at."""

    window: EventWindow

    @property
    def looked_for(self) -> tuple[str, str]:
        """(group of sets, id) of the set that is looked for."""
        ((_, names, id),) = names_in(self)
        return names.group, id

    @property
    def needs_days(self) -> bool:
        """Whether the window ends with a day."""
        return self.window != "whole_record"

    @property
    def event(self) -> str:
        """What the column `event` says in the rows that are counted."""
        return f"{self.measure}:{self.looked_for[1]}"

    def rows(self) -> pl.Expr:
        """Per row: is it a day with such an event?"""
        return (pl.col("event") == self.event).fill_null(False)

    def rows_of(self, table: pl.DataFrame, wanted) -> pl.DataFrame:
        """The rows of the table that are of the set; patterns run over its different names, and not over its rows."""
        keys = list(self.MATCHED_BY)
        return table.join(table.select(keys).unique().filter(wanted.matches()), on=keys, how="semi")

    def decidable(self, tables: Collection[str]) -> bool:
        """Whether the table is there."""
        return self.measure in tables

    def words(self, described: Mapping[str, str]) -> str:
        """As "Days with: Diuretics"."""
        return f"Days with: {described[self.looked_for[1]]}"


@dataclass(frozen=True, kw_only=True)
class Medications(Events):
    """Days with one of a set of drugs."""

    CALLED: ClassVar[str] = "drugs"
    SAID_BY: ClassVar[str] = "ingredient"
    MATCHED_BY: ClassVar[tuple[str, ...]] = ("ingredient",)

    measure: Literal["medications"]
    with_drugs: Annotated[str, Names("drug_sets", "medications")]


@dataclass(frozen=True, kw_only=True)
class Measurements(Events):
    """Days with one of a set of laboratory results."""

    CALLED: ClassVar[str] = "laboratory results"
    SAID_BY: ClassVar[str] = "value"

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

    measure: Literal["procedures"]
    with_codes: Annotated[str, Names("code_sets", "procedures")]


@dataclass(frozen=True, kw_only=True)
class Deaths(Counted):
    """1 for a date of death within the window."""

    needs_days = True

    measure: Literal["deaths"]
    window: Literal["whole_record", "before_first_visit", "before_index", "through_index"]

    def number(self) -> pl.Expr:
        """0 or 1."""
        died, cut = pl.col("death_date").first(), pl.col("cut_day").first()
        within = {
            "whole_record": died.is_not_null(),
            "before_first_visit": died < pl.col("day").first(),
            "before_index": died < cut,
            "through_index": died <= cut,
        }[self.window]
        return within.fill_null(False).cast(pl.UInt32)

    def turns(self) -> pl.Expr:
        """The day of the death."""
        return days_since_1970(pl.col("death_date").first()) if self.limit == 1 else pl.lit(None, pl.Int64)

    def words(self, described: Mapping[str, str]) -> str:
        """As "Death"."""
        return "Death"


@dataclass(frozen=True, kw_only=True)
class IndexVisits(Comparison):
    """0 or 1: whether there is an index visit."""

    REFUSES: ClassVar[Mapping[str, str]] = {**Counted.REFUSES, "window": "looks at the index visit; leave the key out"}
    window = None

    measure: Literal["index_visits"]

    def number(self) -> pl.Expr:
        """0 or 1."""
        return HAS_INDEX.cast(pl.UInt32)

    def words(self, described: Mapping[str, str]) -> str:
        """As "Index encounters"."""
        return "Index encounters"


@dataclass(frozen=True, kw_only=True)
class Known(Comparison):
    """A number that may be unknown, of the whole record."""

    REFUSES: ClassVar[Mapping[str, str]] = {"window": "always looks at the whole record; leave the key out"}
    window = None

    unknown: Unknown = None


@dataclass(frozen=True, kw_only=True)
class Days(Known):
    """Calendar days; where a date is unknown `fewer_than` holds: what must be long enough was not shown to be."""

    needs_days = True

    def ends(self) -> tuple[pl.Expr, pl.Expr]:
        """Per patient: the first and the last day."""
        raise NotImplementedError

    def number(self) -> pl.Expr:
        """Days from the first to the last."""
        begin, end = self.ends()
        return (end - begin).dt.total_days()


@dataclass(frozen=True, kw_only=True)
class DaysToIndex(_OfVisits, Days):
    """From the first visit of the record with what is given (first visit, without it) to the index."""

    looks_at_date = True

    measure: Literal["days_to_index"]

    @property
    def needs_index(self) -> bool:
        """Whether a number is compared; without an index it is unknown."""
        return self.unknown is None

    def ends(self) -> tuple[pl.Expr, pl.Expr]:
        """First such visit, index."""
        return pl.col("day").filter(self.rows()).first(), pl.col("index_date").first()

    def turns(self) -> pl.Expr:
        """The last day on which there are not yet so many."""
        return days_since_1970(pl.col("day")).filter(self.rows()).first() + self.limit - 1

    def words(self, described: Mapping[str, str]) -> str:
        """As "Days to the index since the first of: Diabetes"."""
        since = f" since the first of: {described[self.with_codes]}" if self.with_codes else ""
        return ", ".join([f"Days to the index{since}", *self.filter_words()])


@dataclass(frozen=True, kw_only=True)
class DaysBetween(Days):
    """From the first visit with `since_codes` to the first with `with_codes`."""

    measure: Literal["days_between"]
    since_codes: CodesOfVisits
    with_codes: CodesOfVisits

    def ends(self) -> tuple[pl.Expr, pl.Expr]:
        """First visit with the ones, first with the others."""
        return first_day_with(self.since_codes), first_day_with(self.with_codes)

    def words(self, described: Mapping[str, str]) -> str:
        """As "Days to: Heart failure, since the first of: Diabetes"."""
        return f"Days to: {described[self.with_codes]}, since the first of: {described[self.since_codes]}"


@dataclass(frozen=True, kw_only=True)
class DaysOfFollowUp(Days):
    """From the day of the prediction time to the last day of the source."""

    looks_at_date = True

    measure: Literal["days_of_follow_up"]

    @property
    def needs_index(self) -> bool:
        """Whether a number is compared; without an index it is unknown."""
        return self.unknown is None

    @property
    def rises(self) -> bool:
        """A later date leaves less time."""
        return self.at_least is None

    def ends(self) -> tuple[pl.Expr, pl.Expr]:
        """Prediction, end of the source."""
        return pl.col("cut_day").first(), pl.col("last_day").first()

    def turns(self) -> pl.Expr:
        """The last day with so many left."""
        return days_since_1970(pl.col("last_day").first()) - self.limit

    def words(self, described: Mapping[str, str]) -> str:
        """As "Days from the prediction to the end of the source"."""
        return "Days from the prediction to the end of the source"


@dataclass(frozen=True, kw_only=True)
class Age(Known):
    """Whole years at the admission of a visit; where unknown neither comparison holds."""

    UNKNOWN_IS_FEW: ClassVar[bool] = False

    @property
    def judges_age(self) -> bool:
        """Whether a number is compared."""
        return self.unknown is None

    def rows(self) -> pl.Expr:
        """Per row: is it a visit at which the age may be taken? It is taken at the first of them."""
        raise NotImplementedError

    def number(self) -> pl.Expr:
        """Years."""
        return pl.col("age").filter(self.rows()).first()

    def age_straddles(self) -> pl.Expr:
        """Per patient: may his true age lie on the other side of the number than the source's?"""
        if not self.judges_age:
            return pl.lit(False)
        low, high = (pl.col(name).filter(self.rows()).first() for name in ("lowest_age", "highest_age"))
        return ((low < self.limit) & (high >= self.limit)).fill_null(False)


@dataclass(frozen=True, kw_only=True)
class AgeAtFirst(Age):
    """At the first visit with `with_codes`."""

    measure: Literal["age_at_first"]
    with_codes: CodesOfVisits

    def rows(self) -> pl.Expr:
        """Per row: is it a visit with the codes?"""
        return visits_with(self.with_codes)

    def words(self, described: Mapping[str, str]) -> str:
        """As "Age at the first encounter with: Diabetes"."""
        return f"Age at the first encounter with: {described[self.with_codes]}"


@dataclass(frozen=True, kw_only=True)
class AgeAtIndex(Age):
    """At the index visit."""

    needs_index = True

    measure: Literal["age_at_index"]

    def rows(self) -> pl.Expr:
        """Per row: is it the index visit?"""
        return AT_INDEX.fill_null(False)

    def words(self, described: Mapping[str, str]) -> str:
        """As "Age at the index"."""
        return "Age at the index"


@dataclass(frozen=True, kw_only=True)
class AnyOf(Together):
    """Holds where one of the conditions does."""

    KNOWN_BY: ClassVar[str] = "any_of"
    WORDS: ClassVar[str] = "any of these:"

    any_of: Annotated[tuple["Condition", ...], at_least_one("condition")]

    def holds(self) -> pl.Expr:
        """Per patient."""
        return self.any_holds()

    def turning_day(self) -> tuple[pl.Expr, bool]:
        """As that of a comparison."""
        return self.any_turns()


@dataclass(frozen=True, kw_only=True)
class NoneOf(Together):
    """Holds where none of the conditions does."""

    KNOWN_BY: ClassVar[str] = "none_of"
    WORDS: ClassVar[str] = "none of these:"

    none_of: Annotated[tuple["Condition", ...], at_least_one("condition")]

    def holds(self) -> pl.Expr:
        """Per patient."""
        return ~self.any_holds()

    def turning_day(self) -> tuple[pl.Expr, bool]:
        """As that of a comparison."""
        day, after = self.any_turns()
        return day, not after


Condition = (
    Visits
    | Medications
    | Measurements
    | Procedures
    | Deaths
    | IndexVisits
    | DaysToIndex
    | DaysBetween
    | DaysOfFollowUp
    | AgeAtFirst
    | AgeAtIndex
    | AnyOf
    | NoneOf
)
