"""Reader of tables of one's own that have the columns of the schema already: as files, or through `write_ehr_tables`.

Three tables are needed and few of their columns; every other column and table is unknown where it is not there.
"""

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from medbert_jax.ehr.schema import DISPOSITIONS, REQUIRED_TABLES, SCHEMAS, VISIT_TYPES
from medbert_jax.ingest.reader import (
    RawTable,
    Reader,
    SourceOptions,
    count_unknown,
    day,
    flag,
    moment,
    named,
    number,
    text,
    whole,
)
from medbert_jax.ingest.readers.med_bert_tsv import US_ICD, tell_version
from medbert_jax.ingest.rough import Left, Rough

NEEDED = {
    "patients": ("patient_id",),
    "visits": ("visit_id", "patient_id"),
    "diagnoses": ("patient_id", "visit_id", "code", "code_system"),
    "medications": ("patient_id", "code", "code_system"),
    "measurements": ("patient_id", "code", "code_system"),
    "procedures": ("patient_id", "code", "code_system"),
    "follow_up": ("patient_id", "start", "end"),
}
"""Columns without which a table is refused; visits have admit_time too or, where there are no dates, order."""
MORE = {"patients": ("birth_year", "split")}
"""Columns that a table may have beside those of the schema."""

_READ: dict[type[pl.DataType], Callable[[pl.Series], pl.Series]] = {
    pl.String: text, pl.Datetime: moment, pl.Date: day, pl.Int32: whole, pl.Float64: number, pl.Boolean: flag,
}  # fmt: skip
_SEX = {"F": "female", "FEMALE": "female", "M": "male", "MALE": "male"}
_SPLIT = {"TRAIN": "train", "VALIDATION": "validation", "TUNING": "validation", "TEST": "test", "HELD_OUT": "test"}
_VISIT_TYPE: dict[str, str] = {name.upper(): name for name in VISIT_TYPES}
_DISPOSITION: dict[str, str] = {name.upper(): name for name in DISPOSITIONS}
ASSUMPTIONS = (
    "Tables of one's own: columns have the meaning that docs/own_tables.md gives them; those that are not there are "
    "unknown.",
)
_ORDER = "There are no dates: visits are in the order that the column order gives."


@dataclass(frozen=True)
class OwnOptions(SourceOptions):
    """What tables cannot say of themselves."""

    has_dates: bool = True
    """Whether visits have dates. Else the column order says which comes first; visits without a place of their own in
    their patient's order leave under no_order."""
    us_icd: bool = False
    """Whether codes of the system ICD, which do not say their version, are those of a US site: read as ICD-9-CM or
    ICD-10-CM, by their shape and, where both have such a code, by the day of discharge or admission, which must then
    be of a real calendar."""
    assumptions: tuple[str, ...] = ()
    """What was assumed when the tables were made; goes into source.json."""


def columns_of(table: str) -> tuple[str, ...]:
    """All columns that the table may have."""
    return (*SCHEMAS[table], *MORE.get(table, ()))


def _columns(table: str, raw: pl.DataFrame) -> pl.DataFrame:
    """The table's columns as the schema has them; what cannot be read is null, and counted."""
    read = {name: _READ[type(dtype)](raw[name]) for name, dtype in SCHEMAS[table].items()}
    if table == "patients":
        read["sex"] = named(raw["sex"], _SEX)
        # Of a death by the clock the day follows; of two days that contradict each other, the day holds.
        days = read["death_time"].dt.date()
        read["death_date"] = read["death_date"].zip_with(read["death_date"].is_not_null(), days)
        other = (days != read["death_date"]).fill_null(False)
        count_unknown("death_time of another day than death_date", int(other.sum()))
        read["death_time"] = read["death_time"].set(other, None)
        read["birth_year"], read["split"] = whole(raw["birth_year"]), named(raw["split"], _SPLIT)
    elif table == "visits":
        read["visit_type"] = named(raw["visit_type"], _VISIT_TYPE)
        read["discharge_disposition"] = named(raw["discharge_disposition"], _DISPOSITION)
    return pl.DataFrame(read)


def build(raw: dict[str, pl.DataFrame], options: OwnOptions) -> Rough:
    """The rows of one shard as rough tables."""
    tables, left = {name: _columns(name, frame) for name, frame in raw.items()}, []
    keys, visits = ["patient_id", "visit_id"], tables["visits"]
    if not options.has_dates:
        visits = tables["visits"] = visits.with_columns(admit_time=None, discharge_time=None)
        places = visits.select(*keys, "order").drop_nulls().unique()
        # A visit of two places has none either.
        shared = pl.struct("patient_id", "order").is_duplicated() | pl.struct(keys).is_duplicated()
        placed = places.filter(~shared).select(keys)
        whose = pl.col("patient_id").is_not_null() & pl.col("visit_id").is_not_null()
        gone = visits.filter(whose).join(placed, on=keys, how="anti")
        tables["visits"] = visits.join(gone.select(keys).unique(), on=keys, how="anti")
        codes = tables["diagnoses"].join(gone.select(keys).unique(), on=keys, how="anti")
        count = tables["diagnoses"].height - codes.height
        left.append(
            Left("no_order", "Visits of no known place in their patient's order", visits=gone.height, codes=count)
        )
        tables["diagnoses"] = codes
    if options.us_icd:
        days = visits.select(*keys, day=pl.coalesce("discharge_time", "admit_time")).unique(keys, keep="first")
        told, undecided = tell_version(
            tables["diagnoses"].join(days, on=keys, how="left", maintain_order="left"), pl.col("day")
        )
        tables["diagnoses"] = told.drop("day")
        left.append(undecided)
    stated = visits["age_days"].count() > 0
    born = tables["patients"].select(pl.col("birth_date").count(), pl.col("birth_year").count()).row(0)
    precision = "days" if born[0] else "as stated" if stated else "years" if born[1] else "unknown"
    return Rough(
        patients=tables["patients"],
        visits=tables["visits"],
        diagnoses=tables["diagnoses"],
        medications=tables.get("medications"),
        measurements=tables.get("measurements"),
        procedures=tables.get("procedures"),
        follow_up=tables.get("follow_up"),
        has_dates=options.has_dates,
        age_precision=precision,
        assumptions=(*ASSUMPTIONS, *[_ORDER] * (not options.has_dates), *[US_ICD] * options.us_icd,
                     *options.assumptions),
        left=tuple(left),
    )  # fmt: skip


def _raw(table: str) -> RawTable:
    needed, schema = NEEDED[table], SCHEMAS[table]
    return RawTable(
        table,
        patient="patient_id",
        required=needed,
        optional=tuple(name for name in columns_of(table) if name not in needed),
        needed=table in REQUIRED_TABLES,
        times=tuple(name for name, dtype in schema.items() if isinstance(dtype, pl.Date | pl.Datetime)),
        codes=("code",) if "code" in schema else (),
        numbers=("value",) if "value" in schema else (),
    )


OWN_TABLES = Reader(format="own-tables", tables=tuple(map(_raw, NEEDED)), build=build, options=OwnOptions)
