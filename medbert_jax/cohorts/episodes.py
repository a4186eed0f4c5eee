"""Episodes of care: stays that follow each other closely are one, whatever number of rows the source has for it."""

from dataclasses import dataclass

import polars as pl

from medbert_jax.cohorts.counts import VisitTypes
from medbert_jax.cohorts.evidence_sets import Tag
from medbert_jax.cohorts.life import has_clock
from medbert_jax.cohorts.parsing import NotNegative


@dataclass(frozen=True, kw_only=True)
class Episodes:
    """Which stays are one episode. A stay goes on with the one before it where it begins at most `gap_hours` after
    its end; where one of the two has days alone, on the same or the next day; and an inpatient stay always with an
    emergency visit of its day."""

    description: str
    tag: Tag
    gap_hours: NotNegative = 12
    # the types of visits that are stays; others are no part of an episode
    types: VisitTypes = ("inpatient", "emergency")


def with_episodes(visits: pl.DataFrame, episodes: Episodes | None, *, read_through: bool) -> pl.DataFrame:
    """`visits` (with `day`, of the admission) with what episode each is of; without `episodes`, of its own.

    Columns: `episode`, the order of its first visit; `episode_day`, the day on which it began; `episode_end`, when it
    was over; `stays`, how many it joins; `stands`, whether the visit stands for it as an index: the last one where the
    index is read through, else the first. Of several stays that visit has the disposition of the whole, and its length
    in days.
    """
    alone = {"episode": pl.col("order"), "episode_day": pl.col("day"), "episode_end": pl.col("discharge_time")}
    alone["stays"] = pl.lit(1, pl.Int32)
    if episodes is None:
        return visits.with_columns(**alone, stands=pl.lit(True))
    whole = _episodes(visits, episodes).rename({"standing_last" if read_through else "standing_first": "standing"})
    joined = visits.join(whole, on=["patient_id", "order"], how="left", maintain_order="left")
    stands = (pl.col("order") == pl.col("standing")).fill_null(True)
    several = stands & (pl.col("whole_stays") > 1)
    taken = {name: pl.when(several).then(f"whole_{name}").otherwise(name).alias(name) for name in _OF_THE_WHOLE}
    is_whole = pl.col("whole_stays").is_not_null()
    found = {name: pl.when(is_whole).then(f"whole_{name}").otherwise(own) for name, own in alone.items()}
    return joined.with_columns(*taken.values(), **found, stands=stands).select(*visits.columns, *alone, "stands")


_OF_THE_WHOLE = ("discharge_disposition", "length_of_stay")


def _episodes(visits: pl.DataFrame, episodes: Episodes) -> pl.DataFrame:
    """patient_id, order of every stay, with what is said of the episode that it is of."""
    admitted, left, kind = pl.col("admit_time"), pl.col("discharge_time"), pl.col("visit_type")
    stays = visits.filter(kind.is_in(list(episodes.types)), admitted.is_not_null()).sort(
        "patient_id", "admit_time", "order"
    )
    timed = has_clock(admitted) | has_clock(left).fill_null(False)
    stays = stays.with_columns(timed=timed, over=pl.max_horizontal(admitted, left))

    def latest_before(end: pl.Expr) -> pl.Expr:
        """The latest of the ends of the stays that began before."""
        return end.cum_max().forward_fill().shift(1).over("patient_id")

    over, timed, last_day = pl.col("over"), pl.col("timed"), pl.col("over").dt.date()
    next_day = pl.col("day") - pl.duration(days=1)
    by_clock = timed & (admitted - latest_before(pl.when(timed).then(over)) <= pl.duration(hours=episodes.gap_hours))
    by_day = (latest_before(pl.when(~timed).then(last_day)) >= next_day).fill_null(False)
    by_day = by_day | (~timed & (latest_before(last_day) >= next_day)).fill_null(False)
    same_day = (kind == "inpatient") & (latest_before(pl.when(kind == "emergency").then(last_day)) >= pl.col("day"))
    goes_on = by_clock.fill_null(False) | by_day | same_day.fill_null(False)
    stays = stays.with_columns((~goes_on).cum_sum().over("patient_id").alias("number"))
    # A stay alone keeps an end before its begin, which nobody takes for right.
    end = pl.when(left.last().is_not_null()).then(pl.when(pl.len() > 1).then(over.max()).otherwise(left.last()))
    expired = (pl.col("discharge_disposition") == "expired").any()
    disposition = pl.col("discharge_disposition").sort_by("over", maintain_order=True).last()
    return stays.group_by("patient_id", "number").agg(
        "order",
        pl.col("order").min().alias("whole_episode"),
        pl.col("order").min().alias("standing_first"),
        pl.col("order").max().alias("standing_last"),
        pl.col("day").min().alias("whole_episode_day"),
        pl.len().cast(pl.Int32).alias("whole_stays"),
        end.alias("whole_episode_end"),
        pl.when(expired).then(pl.lit("expired")).otherwise(disposition).alias("whole_discharge_disposition"),
        (end.dt.date() - pl.col("day").min()).dt.total_days().cast(pl.Int32).alias("whole_length_of_stay"),
    ).explode("order").drop("number")  # fmt: skip
