"""Diagnoses that name no visit, or one that is not there: given to a visit by their day."""

from collections import Counter
from typing import Literal

import polars as pl

Unlinked = Literal["by_date", "visit_of_the_day", "drop"]
"""What becomes of a diagnosis without a visit, or with the id of none: it goes to the patient's visit of its day; where
there is none, to a visit made of that day; or it leaves, counted."""

DAY_VISIT = "day/"
"""Ids of visits that are made of a day begin with it."""
WORDS = {
    "by_date": "A diagnosis without the id of a visit, or with one that its patient has no visit of, is of his visit "
    "whose days contain its own: the shortest, then the earliest, then the one with the lowest id; else of none.",
    "visit_of_the_day": "A diagnosis without the id of a visit, or with one that its patient has no visit of, is of "
    "his visit whose days contain its own: the shortest, then the earliest, then the one with the lowest id; else of a "
    "visit made of its day (visit ids that begin with day/), from its first diagnosis on, of unknown type and end.",
    "drop": "A diagnosis without the id of a visit, or with one that its patient has no visit of, is of no visit and "
    "left out.",
}


def link_strays(rows: pl.DataFrame, visits: pl.DataFrame, how: Unlinked) -> tuple[pl.DataFrame, pl.DataFrame, Counter]:
    """The rows with the visit ids that they get, the visits made for them, and counts of how each came to its own.

    Args:
        rows: of no visit: patient_id, visit_id (null, or that of none), time, and others, which stay as they are.
        visits: patient_id, visit_id, admit_time, discharge_time; those that a row may be given to.
        how: of `Unlinked`.
    """
    none = visits.select("patient_id", "visit_id", "admit_time").clear()
    if how == "drop" or rows.is_empty():
        return rows, none, Counter()
    rows = rows.with_columns(date=pl.col("time").dt.date())
    found = _visits_of_days(rows.select("patient_id", "date").drop_nulls().unique(), visits)
    rows = rows.join(found, on=["patient_id", "date"], how="left")
    by_day, named = pl.col("found").is_not_null(), pl.col("visit_id").is_not_null()
    counts = Counter({
        "diagnoses without a visit id, by their day": rows.filter(by_day & ~named).height,
        "diagnoses of a visit id that no visit has, by their day": rows.filter(by_day & named).height,
    })  # fmt: skip
    made = none
    if how == "visit_of_the_day":
        rows = rows.with_columns(made=pl.when(~by_day).then(DAY_VISIT + pl.col("date").dt.to_string("%Y-%m-%d")))
        made = rows.drop_nulls("made").group_by("patient_id", visit_id="made").agg(admit_time=pl.col("time").min())
        counts["diagnoses in visits made of their day"] = rows["made"].count()
        counts["visits made of a day"] = made.height
        rows = rows.with_columns(found=pl.coalesce("found", "made")).drop("made")
    rows = rows.with_columns(visit_id=pl.coalesce("found", "visit_id")).drop("found", "date")
    return rows, made, counts


def _visits_of_days(asked: pl.DataFrame, visits: pl.DataFrame) -> pl.DataFrame:
    """patient_id, date, found: the visit that contains the date, of those asked for (patient_id, date)."""
    start, end = pl.col("admit_time").dt.date(), pl.col("discharge_time").dt.date()
    stays = visits.drop_nulls(["visit_id", "admit_time"]).join(asked, on="patient_id", how="semi")
    stays = stays.select("patient_id", "visit_id", start=start, end=pl.max_horizontal(start, end))
    stays = stays.with_columns(number=pl.col("visit_id").cast(pl.Int64, strict=False))
    shortest = (pl.col("end") - pl.col("start"), "start", "number", "visit_id")
    stays = stays.sort(shortest, nulls_last=True).with_row_index("rank")
    one_day = pl.col("start") == pl.col("end")
    # Most visits last a day and are found by it; only the longer ones are compared with every date of their patient.
    longer = (
        asked.lazy()
        .join(stays.lazy().filter(~one_day), on="patient_id")
        .filter(pl.col("date").is_between("start", "end"))
        .select("patient_id", "date", "rank")
        .collect(engine="streaming")
    )
    days = asked.join(stays.filter(one_day), left_on=["patient_id", "date"], right_on=["patient_id", "start"])
    both = pl.concat([days.select(longer.columns), longer]).group_by("patient_id", "date").agg(pl.col("rank").min())
    return both.join(stays.select("rank", found="visit_id"), on="rank").drop("rank")
