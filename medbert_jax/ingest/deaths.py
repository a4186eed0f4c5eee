"""When a patient died, out of all rows that say so: one rule for every source."""

import polars as pl

_MIDNIGHT = pl.time(0, 0)


def one_death_each(rows: pl.DataFrame, visits: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """patient_id, death_date, death_time of patients with a day of death; and how many of them have several.

    The earliest day counts, so that nothing which may lie after a death is taken for life. The time is the earliest
    that a row gives for this day, else the end of a stay of this day in which the patient died. Midnight is no time:
    it is what a day becomes where a time is asked for.

    Args:
        rows: patient_id, death_date, death_time, any number of rows a patient.
        visits: columns of the schema, ends that are none taken out.
    """
    rows = rows.with_columns(death_date=pl.coalesce("death_date", pl.col("death_time").dt.date()))
    rows = rows.drop_nulls(["patient_id", "death_date"])
    on_day = pl.col("death_time").dt.date() == pl.col("death_date").min()
    clock = on_day & (pl.col("death_time").dt.time() != _MIDNIGHT)
    died = rows.group_by("patient_id").agg(
        pl.col("death_date").min(),
        pl.col("death_time").filter(clock).min(),
        several=pl.col("death_date").n_unique() > 1,
    )
    ended = pl.col("discharge_time")
    stays = visits.filter(
        (pl.col("discharge_disposition") == "expired")
        & (ended >= pl.col("admit_time"))
        & (ended.dt.time() != _MIDNIGHT)
    )
    stays = stays.select("patient_id", death_date=ended.dt.date(), ended=ended)
    stays = stays.group_by("patient_id", "death_date").agg(pl.col("ended").min())
    died = died.join(stays, on=["patient_id", "death_date"], how="left")
    times = died.select("patient_id", "death_date", death_time=pl.coalesce("death_time", "ended"))
    return times, int(died["several"].sum())
