"""The rows that rules look at: a patient's visits, with the code sets that each has, and the events of his evidence."""

from collections.abc import Iterable

import polars as pl

from medbert_jax.cohorts.counts import Events
from medbert_jax.cohorts.derived import rows_with_derived
from medbert_jax.cohorts.episodes import with_episodes
from medbert_jax.cohorts.evidence_sets import CodeSet
from medbert_jax.cohorts.record_columns import (
    AT_INDEX,
    DAY_WINDOWS,
    NEVER,
    WITH_VISIT,
    has_code_of,
    told_of,
    was_told,
)
from medbert_jax.cohorts.spec import CohortSpec
from medbert_jax.ehr.known import IS_OPEN
from medbert_jax.ehr.schema import EhrTables

_DAYS_PER_YEAR = 365.25
_VISIT = ["patient_id", "visit_id"]
_APART = "unbilled "
"""Before the name of a column: the same of codes that are not on the bill."""


def visits_with_code_sets(tables: EhrTables, spec: CohortSpec) -> pl.DataFrame:
    """The visits in their order, with `day` (of the admission), per code set of diagnoses two columns: is there a code
    of it, and when was it told (`told_of`), and what `with_episodes` says of them."""
    sets = spec.diagnosis_sets()
    names = [has_code_of(code_set.id) for code_set in sets]
    open_stays = tables.visits.filter(IS_OPEN).select(*_VISIT, still_open=True) if tables.source.has_dates else None
    found = diagnoses_of(tables.diagnoses, sets).with_columns(still_open=False)
    if open_stays is not None:
        found = found.drop("still_open").join(open_stays, on=_VISIT, how="left")
    told = pl.coalesce("time", pl.when("still_open").then(NEVER).otherwise(WITH_VISIT))
    told_by = {one.id: told.filter(has_code_of(one.id)) for one in sets}
    coded = found.group_by(_VISIT).agg(
        pl.col(names).any(), *(of.min().alias(told_of(id)) for id, of in told_by.items())
    )
    if spec.input.waits_for_bill:
        apart = found.filter(pl.col("captured_at_billing").eq(False)).group_by(_VISIT)
        apart = apart.agg(of.min().alias(_APART + told_of(id)) for id, of in told_by.items())
        coded = coded.join(apart, on=_VISIT, how="left")
    visits = tables.visits.join(coded, on=_VISIT, how="left").with_columns(
        pl.col(names).fill_null(False), day=pl.col("admit_time").dt.date()
    )
    read_through = spec.input.until == "through_index"
    return with_episodes(visits, spec.episodes, read_through=read_through).sort("patient_id", "order")


def diagnoses_of(diagnoses: pl.DataFrame, sets: Iterable[CodeSet]) -> pl.DataFrame:
    """The diagnoses that are in any of the sets: visit, time, captured_at_billing and a boolean column per code set."""
    # Patterns run over the different codes, thousands of them, and not over the rows.
    pairs = diagnoses.select("code_system", "code").unique()
    member = pairs.with_columns(code_set.matches().alias(has_code_of(code_set.id)) for code_set in sets)
    names = [has_code_of(code_set.id) for code_set in sets]
    member = member.filter(pl.any_horizontal(names) if names else pl.lit(False))
    columns = (*_VISIT, "time", "captured_at_billing")
    found = diagnoses.select(*columns, "code_system", "code").join(member, on=["code_system", "code"])
    return found.select(*columns, *names)


def without_bill(record: pl.DataFrame, spec: CohortSpec) -> pl.DataFrame:
    """The record where codes of the index visit that are on its bill, or may be, are not told yet, if the spec asks."""
    if not spec.input.waits_for_bill:
        return record
    told = [told_of(one.id) for one in spec.diagnosis_sets()]
    apart = (
        pl.when(AT_INDEX & pl.col(name).is_not_null())
        .then(pl.col(_APART + name).fill_null(NEVER))
        .otherwise(name)
        .alias(name)
        for name in told
    )
    return record.with_columns(apart).drop(_APART + name for name in told)


def known_at_prediction(record: pl.DataFrame, spec: CohortSpec) -> pl.DataFrame:
    """The record as it was on the day of the prediction, of who has an index: without later visits, events and deaths,
    and without codes that were told later; of the index visit that is not read, without what its stay brings.

    Days and not moments: an index goes by the day on which a code was known.
    """
    window, no_index = spec.input.until, pl.col("index_order").is_null()
    by_order = pl.col("order") <= pl.col("index_order")
    begun = AT_INDEX | pl.coalesce(pl.col("day") <= pl.col("cut_day"), by_order)
    begun = pl.when(pl.col("order").is_not_null()).then(begun).otherwise(DAY_WINDOWS[window])
    record = record.filter(no_index | begun.fill_null(True))
    to_come = AT_INDEX if window == "before_index" else pl.lit(False)
    known = {one.id: no_index | (was_told(one.id, "by_index_date") & ~to_come) for one in spec.diagnosis_sets()}
    told = [(pl.col(has_code_of(id)) & by_then).alias(has_code_of(id)) for id, by_then in known.items()]
    stay = [pl.when(~to_come).then(name).alias(name) for name in ("discharge_disposition", "length_of_stay")]
    dead = pl.when(no_index | (pl.col("death_date") <= pl.col("cut_day")))
    deaths = [dead.then(name).alias(name) for name in ("death_date", "died_from", "died_at")]
    deaths += [dead.then("seen_after_death").otherwise(False).alias("seen_after_death")]
    return record.with_columns(*told, *(stay if window == "before_index" else ()), *deaths)


def events(tables: EhrTables, spec: CohortSpec) -> pl.DataFrame:
    """patient_id, day (null: unknown) and `event`, a row for each day with evidence that a rule counts, or the outcome;
    of the outcome's results also `value`, the mean of the day."""
    empty = pl.DataFrame(schema={"patient_id": pl.String, "day": pl.Date, "event": pl.String})
    leaves = [*(leaf for leaf in spec.leaves() if isinstance(leaf, Events)), *spec.outcome.evidence()]
    found, looked_for = [empty], {leaf.event: leaf for leaf in leaves}
    for name, leaf in looked_for.items():
        table = rows_with_derived(tables, spec, leaf.table)
        if table is None:
            continue
        rows = leaf.rows_of(table, spec.entry(*leaf.looked_for))
        rows = rows.select(*_VISIT, "time", *(("value",) if "value" in rows.columns else ()))
        if rows["time"].has_nulls():
            rows = rows.join(tables.visits.select(*_VISIT, "admit_time"), on=_VISIT, how="left")
            rows = rows.with_columns(pl.coalesce("time", "admit_time").alias("time"))
        days = rows.with_columns(day=pl.col("time").dt.date())
        if tables.source.has_dates:  # else no row has a day, and the whole record is all that can be asked
            days = days.drop_nulls("day")
        value = {"value": pl.col("value").mean()} if name in {one.event for one in spec.outcome.evidence()} else {}
        found.append(days.group_by("patient_id", "day").agg(**value).with_columns(event=pl.lit(name)))
    return pl.concat(found, how="diagonal")


def with_ages(visits: pl.DataFrame) -> pl.DataFrame:
    """`visits`, which carry birth_date, with `age` at admission in years, and the least and most that it may be.

    With a birth date, whole calendar years: somebody born on 29 February is a year older on 1 March of other years.
    Without one, the source's age, in the middle of a band of age_precision_days.
    """
    born, day = pl.col("birth_date"), pl.col("day")
    birthday, today = (date.dt.month().cast(pl.Int32) * 100 + date.dt.day() for date in (born, day))  # months are Int8
    to_come = today < birthday
    years = (day.dt.year() - born.dt.year() - to_come.cast(pl.Int32)).cast(pl.Float64)
    half = pl.col("age_precision_days").fill_null(0) / 2
    stated = [pl.col("age_days"), pl.col("age_days") - half, pl.col("age_days") + half]
    names = ("age", "lowest_age", "highest_age")
    return visits.with_columns(
        pl.when(born.is_not_null()).then(years).otherwise(days / _DAYS_PER_YEAR).alias(name)
        for name, days in zip(names, stated, strict=True)
    )
