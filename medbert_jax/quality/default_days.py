"""Days on which more patients come for the first time than can be: they stand for "unknown"."""

from collections import Counter
from datetime import date, timedelta

import polars as pl

from medbert_jax.attrition.disclosure import SMALLEST
from medbert_jax.ehr.days import DEFAULT_DAYS

LARGEST_SHARE = 0.01
"""Of all first visits, which one day may have."""
TIMES_ITS_MONTH = 10
"""Times the first visits of the busiest other day within a month before and after are too many. The days with
which a source begins are busy too, but one like the other."""
_MONTH = timedelta(days=31)


def first_days(visits: pl.DataFrame) -> Counter[date]:
    """Patients by the day of their first visit."""
    firsts = visits.group_by("patient_id").agg(pl.col("admit_time").min().dt.date()).drop_nulls()
    return Counter(dict(firsts["admit_time"].value_counts().iter_rows()))


def default_days(first: Counter[date]) -> dict[date, int]:
    """Days that stand for "unknown", with their first visits, the commonest first.

    Those from which programs count are told whoever has them; any other by its share, of `SMALLEST` patients or more.
    """
    found = {}
    for day, patients in first.most_common():
        if day not in DEFAULT_DAYS:
            if patients < SMALLEST or patients <= LARGEST_SHARE * first.total():
                break
            near = (first[other] for other in first if other != day and abs(other - day) <= _MONTH)
            if patients <= TIMES_ITS_MONTH * max(near, default=0):
                continue
        found[day] = patients
    return found | {day: first[day] for day in DEFAULT_DAYS if first[day]}
