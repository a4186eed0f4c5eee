"""What is counted of many patients, so that parts add up to the whole: distributions and shares.

Both know how many patients each of their figures rests on, which decides what may be shared.
"""

from dataclasses import dataclass

import numpy as np

from medbert_jax.attrition.disclosure import SMALLEST
from medbert_jax.data.sequences import sums_within


@dataclass(frozen=True, eq=False)
class Distribution:
    """Whole numbers from 0 on, any number of them per patient, by value."""

    counts: np.ndarray
    """(largest + 1,) int64: how often each value is there."""
    lowest: np.ndarray
    """(largest + 1,) int64: patients by their lowest value."""
    highest: np.ndarray
    """(largest + 1,) int64: patients by their highest value."""

    @classmethod
    def of(cls, values: np.ndarray, owner: np.ndarray | None = None) -> "Distribution":
        """Of (n,) values, below 0 unknown and left out, and (n,) ascending patient numbers; None: one value each."""
        known = values >= 0
        if not known.all():
            values, owner = values[known], None if owner is None else owner[known]
        if not len(values):
            return cls(*(np.zeros(1, np.int64) for _ in range(3)))
        lowest = highest = values
        if owner is not None:
            start = np.flatnonzero(np.concatenate([[True], owner[1:] != owner[:-1]]))
            lowest, highest = np.minimum.reduceat(values, start), np.maximum.reduceat(values, start)
        length = int(values.max()) + 1
        return cls(*(np.bincount(column, minlength=length) for column in (values, lowest, highest)))

    def __add__(self, other: "Distribution") -> "Distribution":
        """Of the patients of both, who are different ones."""
        columns = ("counts", "lowest", "highest")
        return Distribution(*(_added(getattr(self, name), getattr(other, name)) for name in columns))

    @property
    def number(self) -> int:
        """How many values there are."""
        return int(self.counts.sum())

    @property
    def patients(self) -> int:
        """How many patients have a value."""
        return int(self.highest.sum())

    @property
    def mean(self) -> float | None:
        """The mean; None without a value."""
        return int(self.counts @ np.arange(len(self.counts))) / self.number if self.number else None

    @property
    def standard_deviation(self) -> float | None:
        """The sample standard deviation; None with fewer than two values."""
        mean = self.mean
        if mean is None or self.number < 2:
            return None
        squares = (np.arange(len(self.counts)) - mean) ** 2
        return float(np.sqrt(self.counts @ squares / (self.number - 1)))

    def percentile(self, percent: int) -> int | None:
        """The smallest value that at least `percent` % of the values do not exceed; 0: the smallest, 100: the largest.

        None without a value.
        """
        if not self.number:
            return None
        needed = max(-(-percent * self.number // 100), 1)
        return int(np.searchsorted(np.cumsum(self.counts), needed))

    def may_be_shared(self, value: int) -> bool:
        """Whether enough patients have a value of at least this one, and enough one of at most this one."""
        return min(int(self.highest[value:].sum()), int(self.lowest[: value + 1].sum())) >= SMALLEST


@dataclass(frozen=True)
class Share:
    """So many of so many, and how many patients are behind it."""

    count: int
    total: int
    patients_with: int
    """Patients who have one of those counted."""
    patients_without: int
    """Patients who have one of the others."""

    @classmethod
    def of(cls, flags: np.ndarray, offsets: np.ndarray) -> "Share":
        """Of (n,) flags, those of patient i at `offsets[i]:offsets[i + 1]`."""
        flagged = sums_within(flags, offsets)
        others = np.diff(offsets) - flagged
        return cls(int(flagged.sum()), len(flags), int((flagged > 0).sum()), int((others > 0).sum()))

    @classmethod
    def of_patients(cls, count: int, total: int) -> "Share":
        """Of patients themselves."""
        return cls(count, total, count, total - count)

    def __add__(self, other: "Share") -> "Share":
        """Of the patients of both, who are different ones."""
        return Share(
            self.count + other.count,
            self.total + other.total,
            self.patients_with + other.patients_with,
            self.patients_without + other.patients_without,
        )

    @property
    def may_be_shared(self) -> bool:
        """Whether neither side is a few patients' only; nobody at all is no few."""
        return not any(0 < patients < SMALLEST for patients in (self.patients_with, self.patients_without))


def _added(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    short, long = sorted((one, other), key=len)
    total = long.copy()
    total[: len(short)] += short
    return total
