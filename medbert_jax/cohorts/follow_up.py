"""Until when, and since when, what happens to a person reaches the source: the time that covers his prediction."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import polars as pl

from medbert_jax.cohorts.evidence_sets import Tag
from medbert_jax.cohorts.parsing import NotNegative
from medbert_jax.ehr.schema import EhrSource, EhrTables

if TYPE_CHECKING:
    from medbert_jax.cohorts.spec import CohortSpec

BY_CONTACT = "contact"


@dataclass(frozen=True, kw_only=True)
class FollowUp:
    """How long a person is followed.

    enrolment: as the table `follow_up` says; a source without it follows everybody from his first encounter to its own
    last day. contact: from his first encounter to his last, a sensitivity analysis: who is seen no more is censored,
    where an event alone is a contact too, so that use of care is part of the label.
    """

    description: str
    tag: Tag
    until: Literal["enrolment", "contact"] = "enrolment"
    # periods are one where the next begins within so many days after the end of the one before
    bridge_days: NotNegative = 0


def with_cover(index: pl.DataFrame, tables: EhrTables, asked: FollowUp | None) -> pl.DataFrame:
    """`index` (patient_id, cut_day, …) with `covered_from` and `covered_until`, the first and the last day of the time
    that covers the day of the prediction.

    Where he is not followed then, covered_from is null and covered_until the day before; where only the source's end
    says until when, covered_until is null.
    """
    first, last = (pl.min_horizontal("admit_time", "discharge_time"), pl.max_horizontal("admit_time", "discharge_time"))
    seen = tables.visits.group_by("patient_id").agg(
        covered_from=first.min().dt.date(), covered_until=last.max().dt.date()
    )
    if (periods := followed_times(tables, asked)) is None:
        covered = index.join(seen, on="patient_id", how="left", maintain_order="left")
        by_contact = asked is not None and asked.until == BY_CONTACT
        return covered if by_contact else covered.with_columns(covered_until=pl.lit(None, pl.Date))
    found = index.select("patient_id", "cut_day").join(periods, on="patient_id")
    found = found.filter(pl.col("cut_day").is_between("start", "end"))
    found = found.select("patient_id", covered_from="start", covered_until="end")
    return index.join(found, on="patient_id", how="left", maintain_order="left").with_columns(
        pl.coalesce("covered_until", pl.col("cut_day") - pl.duration(days=1))
    )


def followed_times(tables: EhrTables, asked: FollowUp | None) -> pl.DataFrame | None:
    """patient_id, start, end of the times in which the table `follow_up` says that somebody is followed, bridged as
    asked; None: the table is not there, or not asked."""
    if tables.follow_up is None or (asked is not None and asked.until == BY_CONTACT):
        return None
    return _bridged(tables.follow_up, asked.bridge_days if asked is not None else 0)


def _bridged(periods: pl.DataFrame, days: int) -> pl.DataFrame:
    """The periods, of a patient one after the other; those with so many days between them, or none, are one."""
    periods = periods.sort("patient_id", "start", "end")
    until = pl.col("end").cum_max().shift(1).over("patient_id")
    apart = (pl.col("start") - until).dt.total_days() - 1
    periods = periods.with_columns(period=(apart > days).fill_null(True).cum_sum())
    return periods.group_by("patient_id", "period").agg(pl.col("start").min(), pl.col("end").max()).drop("period")


def said_of_follow_up(spec: "CohortSpec", source: EhrSource, tables: Collection[str]) -> list[str]:
    """What decides how long somebody is followed, in words, where it is not the table `follow_up`."""
    if not spec.looks_at_follow_up or not source.has_dates:
        return []
    if spec.follow_up is not None and spec.follow_up.until == BY_CONTACT:
        return ["follow_up: contact: who is seen no more is censored, and an event is a contact itself: use of care is"
                " part of the label; a sensitivity analysis beside one by enrolment"]  # fmt: skip
    if "follow_up" in tables:
        return []
    return ["no follow_up table: everybody counts as followed from his first encounter to the source's last day"]
