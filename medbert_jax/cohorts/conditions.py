"""The condition of a rule: a count, a number of days or an age, compared with one number."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Window = Literal[
    "whole_record",
    "first_visit",
    "before_first_visit",
    "before_index",
    "index_visit",
    "through_index",
    "by_index_date",
    "after_index",
]
Disposition = Literal["home", "facility", "expired", "hospice", "other"]
Measure = Literal[
    "visits",
    "medications",
    "measurements",
    "procedures",
    "deaths",
    "index_visits",
    "days_to_index",
    "days_between",
    "days_of_follow_up",
    "age_at_first",
    "age_at_index",
]

COUNTS = ("visits", "medications", "measurements", "procedures", "deaths", "index_visits")
EVENTS = ("medications", "measurements", "procedures")
AGES = ("age_at_first", "age_at_index")


@dataclass(frozen=True)
class Condition:
    """What is measured in a patient's record, and the number that it is compared with.

    Counts, within `window`:
    - `visits`: visits that have a code of the set `with_codes`, one of the dispositions `with_disposition`, one of
      the types `with_type`, and (`with_wrong_times`) a discharge before the admission or no admission time, as far
      as these are given. Two codes in one visit are one visit, and what the source does not know is not counted.
    - `medications`, `measurements`, `procedures`: calendar days with one of the set `with_drugs`, `with_results` or
      `with_codes`. Its day is that of its own time, else of its visit's admission, else it is not counted.
    - `deaths`: 1 for a date of death within the window.
    - `index_visits`: 0 or 1; without a window.

    Windows of visits go by their order, those of anything else by days: `before_index` ends with the day before that
    of the index, `through_index` with the day of the prediction time. `by_index_date` is, for visits too, everything
    admitted on or before the day of the prediction time. Where the index is a date and no visit (a matched cohort)
    all windows go by days.

    Calendar days: `days_to_index` from the first visit of the record with `with_codes` (first visit, where not given)
    to the index, `days_between` from the first with `since_codes` to the first with `with_codes`, `days_of_follow_up`
    from the day of the prediction time to the last day of the source. Where a date is unknown, `fewer_than` holds:
    what must be long enough was not shown to be.

    Whole years of age at the admission of the first visit with `with_codes` (`age_at_first`) or of the index visit
    (`age_at_index`): where it is unknown neither `at_least` nor `fewer_than` holds, but `unknown: true`.

    `any_of` and `none_of` put conditions together, whatever each of them looks at.
    """

    measure: Measure = "visits"
    with_codes: str | None = None
    since_codes: str | None = None
    with_drugs: str | None = None
    with_results: str | None = None
    with_disposition: tuple[Disposition, ...] | None = None
    with_type: tuple[str, ...] | None = None
    with_wrong_times: bool | None = None
    window: Window | None = None
    # exactly one of the five
    at_least: int | None = None
    fewer_than: int | None = None
    unknown: bool | None = None
    any_of: tuple["Condition", ...] | None = None
    none_of: tuple["Condition", ...] | None = None

    def parts(self) -> tuple["Condition", ...]:
        """The conditions that this one puts together; none where it measures something itself."""
        return tuple(part for part in (*(self.any_of or ()), *(self.none_of or ())) if part is not None)

    def leaves(self) -> Iterator["Condition"]:
        """Every condition below this one that measures something; itself where it puts none together."""
        if self.any_of is None and self.none_of is None:
            yield self
        for part in self.parts():
            yield from part.leaves()

    @property
    def needs_days(self) -> bool:
        """Whether the condition can be told only where the source has dates."""
        return any(
            leaf.measure in ("days_to_index", "days_between", "days_of_follow_up", "deaths")
            or leaf.with_wrong_times is not None
            or leaf.window in ("by_index_date", "before_first_visit")
            or (leaf.measure in EVENTS and leaf.window != "whole_record")
            for leaf in self.leaves()
        )

    @property
    def judges_age(self) -> bool:
        """Whether the condition compares an age."""
        return any(leaf.measure in AGES and leaf.unknown is None for leaf in self.leaves())
