"""One shard in memory → the frames that the rules see, and the count of every rule.

Per table there is a frame per level: "row" is the table in the order of writing; "patient", "visit" and "code" have one
row per distinct patient, (patient, visit) and (system, code), with `n`, its rows in the table. Columns with a dot say
what else is known of the row (row.*), its patient (patient.*) and its visit (visit.*); `today` is the day of the run,
`dated` whether the source has dates. A frame lacks what rests on a table or column that the shard lacks, and the rules
that name it are not run. Rows are numbered by patient and visit first, so that texts are joined once per patient or
visit and the rows take what they need by number.
"""

from collections.abc import Iterable
from datetime import date

import numpy as np
import polars as pl

from medbert_jax.ehr.codes import normal_codes
from medbert_jax.ehr.schema import SCHEMAS
from medbert_jax.ehr.text_hash import shard_numbers
from medbert_jax.quality.rules import ROW_RULES

Counts = dict[tuple[str, str], int]
KEYS = ("patient_id", "visit_id", "order")
"""Columns without which nothing can be said of a table's rows."""

_PAIR = ["patient_id", "visit_id"]


def count_faults(
    tables: dict[str, pl.DataFrame], *, today: date, dated: bool | None = None, shard: int = 0, shards: int = 0
) -> tuple[Counts, list[tuple[str, str]]]:
    """Run the rules of rows over one shard.

    Args:
        tables: the tables that are there, in the schema's types; columns other than `KEYS` may be missing.
        today: after which times count as future.
        dated: whether the source has dates; None: not known.
        shard: number of the shard.
        shards: number of shards; 0: not known.

    Returns:
        Rows by (rule, table), zeros included, and the (rule, table) that could not be run on the tables there.
    """
    counts, not_run = {}, []
    for table, level, frame in _frames(tables, shard, shards):
        literals = {"today": pl.lit(today)} | ({} if dated is None else {"dated": pl.lit(dated)})
        frame = frame.with_columns(**literals)
        rules = {rule.id: rule for rule in ROW_RULES if table in rule.tables and rule.level == level}
        run = {id for id, rule in rules.items() if set(rule.faulty.meta.root_names()) <= set(frame.columns)}
        not_run += [(id, table) for id in rules if id not in run]
        rows = pl.lit(1, pl.UInt32) if level == "row" else pl.col("n")
        sums = frame.select(
            (rule.faulty.sum() if level == "row" else rows.filter(rule.faulty).sum()).alias(id)
            for id, rule in rules.items()
            if id in run
        )
        counts |= {(id, table): count or 0 for id, count in (sums.row(0, named=True) if run else {}).items()}
    return counts, not_run


def _frames(tables: dict[str, pl.DataFrame], shard: int, shards: int) -> Iterable[tuple[str, str, pl.DataFrame]]:
    """(table, level, frame) of everything there."""
    lost = {name: [c for c in SCHEMAS[name] if c not in table.columns] for name, table in tables.items()}
    rows = {name: _ordered(name, table, lost[name]) for name, table in tables.items()}
    of_patient = {name: _firsts(table, "row.same_patient", ["patient_id"]) for name, table in rows.items()}
    of_visit = {name: _firsts(table, "row.same_visit", _PAIR) for name, table in rows.items() if "visit_id" in table}
    listed, visits = None, None
    if "patients" in rows:
        listed = _listed_patients(rows, of_patient, lost)
    if "visits" in rows:
        visits = rows["visits"].filter(~pl.col("visit.again")).select(*_PAIR, "admit_time", "discharge_time")
        visits = visits.rename({c: f"visit.{c}" for c in visits.columns if c not in _PAIR})
        visits = visits.drop(f"visit.{c}" for c in lost["visits"] if f"visit.{c}" in visits.columns)
        visits = visits.with_columns(pl.lit(True).alias("visit.found"))
    for name, table in rows.items():
        people = of_patient[name]
        if listed is not None:
            people = people.join(listed, on="patient_id", how="left", maintain_order="left")
            people = people.with_columns(pl.col("patient.listed").fill_null(False))
        if shards:
            people = people.with_columns(_own(people["patient_id"], shard, shards))
        parts = [table, people.drop("patient_id", "n")[table["row.patient"]]]
        yield name, "patient", people
        if name in of_visit:
            stays = of_visit[name]
            if name == "visits" and "diagnoses" in rows:
                coded = of_visit["diagnoses"].rename({"n": "visit.codes"})
                stays = stays.join(coded, on=_PAIR, how="left", maintain_order="left")
                stays = stays.with_columns(pl.col("visit.codes").fill_null(0))
            elif name != "visits" and visits is not None:
                stays = stays.join(visits, on=_PAIR, how="left", maintain_order="left")
                stays = stays.with_columns(pl.col("visit.found").fill_null(False))
            if name == "diagnoses" and "priority" not in lost[name]:
                first = table.filter(pl.col("priority") == 1)["row.visit"]
                principals = np.bincount(first.to_numpy(), minlength=stays.height)
                stays = stays.with_columns(pl.Series("visit.principals", principals))
            yield name, "visit", stays
            parts.append(stays.drop(*_PAIR, "n")[table["row.visit"]])
        if "code" in SCHEMAS[name] and not {"code", "code_system"} & set(lost[name]):
            codes = table.group_by("code_system", "code").agg(n=pl.len())
            yield name, "code", normal_codes(codes)
        elif "code" in SCHEMAS[name]:
            yield name, "code", pl.DataFrame({"n": []}, schema={"n": pl.UInt32})
        gone = [*lost[name], *(["row.unsorted", "row.again"] if lost[name] else [])]
        gone += ["row.inpatient_until"] if name == "visits" and "discharge_time" in gone else []
        yield name, "row", pl.concat(parts, how="horizontal").drop(gone)


def _ordered(name: str, table: pl.DataFrame, lost: list[str]) -> pl.DataFrame:
    """The table in the order of writing, numbered by patient and visit; `lost` columns are there as nulls."""
    schema = SCHEMAS[name]
    first = [column for column in ("patient_id", "order") if column in schema]
    columns = [*first, *(column for column in schema if column not in first)]
    table = table.select(
        pl.lit(None, schema[column]).alias(column) if column in lost else pl.col(column) for column in columns
    )
    below, again = pl.lit(False), pl.lit(True)  # than the row above; as the row above
    for column in reversed(columns):
        now, above = pl.col(column), pl.col(column).shift(1)
        lower = ((now < above) | (now.is_null() & above.is_not_null())).fill_null(False)
        below, again = lower | (now.eq_missing(above) & below), again & now.eq_missing(above)
    first_row = pl.int_range(pl.len()) == 0
    marks = {"row.unsorted": below & ~first_row, "row.again": again & ~first_row}
    marks["row.same_patient"] = pl.col("patient_id").eq_missing(pl.col("patient_id").shift(1)) & ~first_row
    if name != "visits" and "visit_id" in columns:
        same_visit = pl.col("visit_id").eq_missing(pl.col("visit_id").shift(1))
        marks["row.same_visit"] = marks["row.same_patient"] & same_visit
    marked = table.with_columns(**marks)
    if marked["row.unsorted"].any():
        unsorted = marked["row.unsorted"]
        marked = table.sort(columns).with_columns(**marks).with_columns(unsorted)
    marked = marked.with_columns(((~pl.col("row.same_patient")).cum_sum() - 1).alias("row.patient"))
    if "row.same_visit" in marked.columns:
        return marked.with_columns(((~pl.col("row.same_visit")).cum_sum() - 1).alias("row.visit"))
    if name == "visits":
        patient = pl.col("row.patient")
        twice = marked.unique(["row.patient", "visit_id"]).height < marked.height  # windows over texts cost: rarely run
        again = pl.int_range(pl.len()).over("row.patient", "visit_id") > 0 if twice else pl.lit(False)
        stay = pl.when((pl.col("visit_type") == "inpatient") & (pl.col("discharge_time") >= pl.col("admit_time")))
        # A running maximum that no patient hands on to the next: each has days of his own.
        days = stay.then(pl.col("discharge_time").dt.date().cast(pl.Int64)) + patient.cast(pl.Int64) * 10**9
        until = days.cum_max().forward_fill().shift(1) - patient.cast(pl.Int64) * 10**9
        ordered = pl.col("order").is_not_null().cum_sum().cast(pl.Int64)
        before = (ordered - pl.col("order").is_not_null().cast(pl.Int64)).filter(~pl.col("row.same_patient"))
        return marked.with_columns(
            pl.lit(False).alias("row.same_visit"),
            pl.int_range(pl.len()).alias("row.visit"),
            again.alias("visit.again"),
            until.alias("row.inpatient_until"),
            (ordered - before.gather(patient)).alias("row.place"),
        )
    return marked


def _firsts(table: pl.DataFrame, same: str, columns: list[str]) -> pl.DataFrame:
    """One row per run of rows that are the same, with `n`, its length."""
    starts = (~table[same]).arg_true()
    runs = np.diff(np.append(starts.to_numpy(), table.height))
    return table.select(columns)[starts].with_columns(pl.Series("n", runs, pl.UInt32))


def _listed_patients(
    rows: dict[str, pl.DataFrame], of_patient: dict[str, pl.DataFrame], lost: dict[str, list[str]]
) -> pl.DataFrame:
    """patient_id of the table of patients, null left out, and what is known of them."""
    columns = ["patient_id", *(c for c in ("birth_date", "death_date", "death_time") if c not in lost["patients"])]
    people = rows["patients"].filter(~pl.col("row.same_patient") & pl.col("patient_id").is_not_null()).select(columns)
    people = people.rename({c: f"patient.{c}" for c in columns[1:]}).with_columns(pl.lit(True).alias("patient.listed"))
    if "visits" in rows:
        by_patient = rows["visits"].group_by("row.patient", maintain_order=True)
        known = by_patient.agg(pl.col("admit_time").min().alias("patient.first"), pl.len().alias("patient.visits"))
        known = pl.concat([of_patient["visits"].select("patient_id"), known.drop("row.patient")], how="horizontal")
        people = people.join(known, on="patient_id", how="left", maintain_order="left")
        people = people.with_columns(pl.col("patient.visits").fill_null(0))
        if "admit_time" in lost["visits"]:
            people = people.drop("patient.first")
    if "diagnoses" in rows:
        coded = of_patient["diagnoses"].rename({"n": "patient.codes"})
        people = people.join(coded, on="patient_id", how="left", maintain_order="left")
        people = people.with_columns(pl.col("patient.codes").fill_null(0))
    return people


def _own(patient_ids: pl.Series, shard: int, shards: int) -> pl.Series:
    """Whether the shard is that of the patient's hash; true for ids that have none, which other rules find."""
    hashed = (patient_ids.str.len_bytes() > 0) & ~patient_ids.str.contains("\0", literal=True)
    hashed = hashed.fill_null(False).to_numpy()
    own = np.ones(len(patient_ids), bool)
    if hashed.any():
        own[hashed] = shard_numbers(patient_ids.filter(pl.Series(hashed)), shards) == shard
    return pl.Series("patient.own", own)
