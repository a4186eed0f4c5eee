"""A patient's chart, however it is shown: visits, their codes, and what is to be seen beside them.

Neither an id nor a date is part of it: everything is a day offset, and ages are words.
"""

from dataclasses import dataclass

from medbert_jax.attrition.disclosure import OLDEST_SHOWN

AGAIN = "again"
"""Mark of a code that an earlier visit has too."""


@dataclass(frozen=True)
class Entry:
    """A code, drug, result, … of the record; `day` from day 0, `visit` its order; None: unknown, or of no visit."""

    kind: str
    """diagnosis | medication | measurement | procedure | visit | age | death | follow_up | prediction."""
    day: int | None
    visit: int | None
    code: str | None
    title: str = ""
    value: float | None = None
    unit: str | None = None
    role: str = ""
    is_after: bool = False
    """Whether it comes after what a model may read."""
    is_known_later: bool = False
    """Whether it is of a visit that a model may read, and was known only after the prediction."""
    marks: tuple[str, ...] = ()
    """Rules that counted it, or `AGAIN`."""


@dataclass(frozen=True)
class Visit:
    """A visit: day of its admission from day 0, whole days that it lasted; None is unknown."""

    order: int
    day: int | None
    stay: int | None
    type: str | None
    codes: tuple[Entry, ...]
    is_read: bool | None = None
    """Whether a model may read it; None: that is not asked of this patient."""
    is_index: bool = False

    @property
    def heading(self) -> str:
        """As "day 412, 3 days", or "visit 2" where the day is unknown."""
        at = f"visit {self.order}" if self.day is None else day_words(self.day)
        stay = self.stay or 0
        return f"{at}, {_days(stay)}" if stay > 0 else at

    @property
    def words(self) -> str:
        """As "inpatient, 5 days"."""
        if self.stay is None:
            stay = ""
        else:
            stay = (
                f", discharged {_days(-self.stay)} before the admission" if self.stay < 0 else f", {_days(self.stay)}"
            )
        return f"{self.type or 'type unknown'}{stay}"


@dataclass(frozen=True)
class Annotation:
    """What a day means, or a number of a visit (4.5: between the fourth and the fifth); None: unknown."""

    kind: str
    """index | cut (what comes from here on may not be read) | risk (its end) | death."""
    text: str
    day: int | None
    visit: float | None = None


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One patient. Day 0 is the day of the index where `from_index`, else of the first visit."""

    name: str = ""
    person: str
    """Sex and age, as far as they are known and may be told."""
    outcome: str
    """What becomes of the patient."""
    from_index: bool = False
    visits: tuple[Visit, ...]
    annotations: tuple[Annotation, ...]

    @property
    def by_day(self) -> bool:
        """Whether its axis is days; where a visit has none it is the numbers of the visits."""
        return all(visit.day is not None for visit in self.visits)


def day_words(number: int | None) -> str:
    """As "day −12", "day 1,024"."""
    return "day unknown" if number is None else f"day {number:,}".replace("-", "−")


def age_words(years: int | None) -> str:
    """As "61 years"; older people than `OLDEST_SHOWN` are few enough to be known by their age."""
    if years is None:
        return "age unknown"
    return f"{years} years" if years <= OLDEST_SHOWN else f"over {OLDEST_SHOWN} years"


def person_words(sex: str | None, years: int | None) -> str:
    """As "female, 61 years"."""
    return f"{sex or 'sex unknown'}, {age_words(years)}"


def _days(count: int) -> str:
    return f"{count} day{'' if count == 1 else 's'}"
