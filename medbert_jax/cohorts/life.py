"""Death as the end of a record: what begins after it is no index, no input and no outcome of any cohort."""

from dataclasses import dataclass
from datetime import time, timedelta

import polars as pl

from medbert_jax.ehr.schema import EVENT_TABLES, EhrTables

ENDS = {
    "patient_id": pl.String(),
    "died_from": pl.Datetime("us"),  # the first moment at which he may have died
    "died_at": pl.Datetime("us"),  # the last one: both are the clock's, or the ends of the day
    "seen_after_death": pl.Boolean(),  # whether the source has visits that begin after it
}
_VISIT = ["patient_id", "visit_id"]
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Lives:
    """The tables as far as patients lived, and what was taken out of them.

    Who has no visit in life at all, because the death or the record is wrong, keeps his: `judge` lets him leave.
    """

    tables: EhrTables
    ends: pl.DataFrame
    """Columns of `ENDS`, one row for each who is known to have died."""
    late: pl.DataFrame
    """The visits that begin after a death, as the source has them."""

    def known(self) -> pl.DataFrame:
        """patient_id, birth_date, sex, death_date (the day of `died_at`) and the columns of `ENDS` of every patient."""
        born = self.tables.patients.select("patient_id", "birth_date", "sex")
        return born.join(self.ends, on="patient_id", how="left").with_columns(
            pl.col("seen_after_death").fill_null(False), death_date=pl.col("died_at").dt.date()
        )


def has_clock(moment: pl.Expr) -> pl.Expr:
    """Whether a time tells more than its day: sources that know days alone write midnight."""
    return moment.dt.time() != time(0)


def in_life(tables: EhrTables) -> Lives:
    """What may be judged: visits that begin in life, with their codes, and drugs, results and procedures of that time.

    Somebody died at the earliest of what the source says: his death by the clock or, without one, its day, and the
    discharge of a visit that ended in death. A visit in which the death lies ended in death (`expired`).
    """
    ends = _ends(tables) if tables.source.has_dates else None
    if ends is None or ends.is_empty():
        return Lives(tables, pl.DataFrame(schema=ENDS), tables.visits.clear())
    moments = ends.select("patient_id", "died_from", "died_at")
    begins_late = (pl.col("admit_time") > pl.col("died_at")).fill_null(False)
    inside = (pl.col("admit_time") <= pl.col("died_at")) & (pl.col("discharge_time") >= pl.col("died_from"))
    marked = tables.visits.join(moments, on="patient_id", how="left", maintain_order="left").with_columns(
        pl.when(inside).then(pl.lit("expired")).otherwise("discharge_disposition").alias("discharge_disposition"),
        is_late=begins_late & ~begins_late.all().over("patient_id"),
        is_seen=begins_late,
    )
    names, is_late = tables.visits.columns, marked["is_late"]
    late = tables.visits.filter(is_late)
    lifeless = marked.filter("is_seen", ~pl.col("is_late")).select("patient_id").unique()
    seen = marked.filter("is_seen").select("patient_id").unique().with_columns(seen_after_death=True)
    ends = ends.drop("seen_after_death").join(seen, on="patient_id", how="left")
    ends = ends.with_columns(pl.col("seen_after_death").fill_null(False))
    frames = tables.present() | {
        "visits": marked.filter(~pl.col("is_late")).select(names),
        "diagnoses": _without(tables.diagnoses, late),
    }
    moments = moments.join(lifeless, on="patient_id", how="anti")
    for name in EVENT_TABLES:
        if name in frames:
            rows = _without(frames[name], late).join(moments, on="patient_id", how="left", maintain_order="left")
            after = (pl.col("time") > pl.col("died_at")).fill_null(False)
            frames[name] = rows.filter(~after).drop("died_from", "died_at")
    return Lives(EhrTables(**frames, source=tables.source), ends.select(*ENDS), late)


def _ends(tables: EhrTables) -> pl.DataFrame:
    """patient_id, died_from, died_at of all who are known to have died, and a column for what is seen afterwards."""
    left = pl.col("discharge_time")
    expired = tables.visits.filter(pl.col("discharge_disposition") == "expired", left >= pl.col("admit_time"))
    said = [
        tables.patients.select("patient_id", at="death_time", day="death_date"),
        expired.select("patient_id", at=left, day=left.dt.date()),
    ]
    day = pl.coalesce(pl.col("at").dt.date(), "day").cast(pl.Datetime("us"))
    clock = pl.when(has_clock(pl.col("at"))).then("at")
    moments = pl.concat(said).select(
        "patient_id",
        died_from=pl.coalesce(clock, day),
        died_at=pl.coalesce(clock, day + _DAY - timedelta(microseconds=1)),
    )
    first = moments.drop_nulls("died_at").sort("patient_id", "died_at").unique("patient_id", keep="first")
    return first.with_columns(seen_after_death=pl.lit(None, pl.Boolean))


def _without(rows: pl.DataFrame, late: pl.DataFrame) -> pl.DataFrame:
    return rows.join(late.select(_VISIT), on=_VISIT, how="anti", maintain_order="left") if late.height else rows
