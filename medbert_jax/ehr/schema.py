"""EHR tables in memory: the one schema that every reader produces, and the check of tables against it.

null means unknown. No reader invents a value.
"""

from dataclasses import dataclass, field

import numpy as np
import polars as pl

_TEXT, _TIME, _WHOLE = pl.String(), pl.Datetime("us"), pl.Int32()
_EVENT = {"patient_id": _TEXT, "visit_id": _TEXT, "time": _TIME, "code_system": _TEXT, "code": _TEXT}

SCHEMAS: dict[str, dict[str, pl.DataType]] = {
    "patients": {
        "patient_id": _TEXT,
        "birth_date": pl.Date(),
        "sex": _TEXT,  # female | male
        "race": _TEXT,
        "death_date": pl.Date(),
        "death_time": _TIME,  # by the clock, where the source says it; its day is death_date
    },
    "visits": {
        "visit_id": _TEXT,
        "patient_id": _TEXT,
        "order": _WHOLE,  # 1, 2, 3 … within the patient: the only thing that later steps sort by
        "admit_time": _TIME,
        "discharge_time": _TIME,
        "length_of_stay": _WHOLE,  # whole days
        "visit_type": _TEXT,
        "age_days": _WHOLE,  # at admission as the source states it, middle of its band; null: see birth_date
        "age_precision_days": _WHOLE,  # width of that band
        "discharge_disposition": _TEXT,  # home | facility | expired | hospice | other
        "readmitted_30d": pl.Boolean(),  # as the source states it
    },
    "diagnoses": {
        "patient_id": _TEXT,
        "visit_id": _TEXT,
        "code_system": _TEXT,  # ICD9CM, ICD10CM, …
        "code": _TEXT,  # normalised, with the dot
        "present_on_admission": pl.Boolean(),
        "captured_at_billing": pl.Boolean(),
        "priority": _WHOLE,  # 1 = principal
        "time": _TIME,  # of the diagnosis, as the source states it; null: see the visit
    },
    "medications": {**_EVENT, "ingredient": _TEXT},
    "measurements": {**_EVENT, "value": pl.Float64(), "unit": _TEXT},
    "procedures": dict(_EVENT),
    # Times in which what happens to a patient reaches the source: observation periods, enrolment. Both days are in it.
    "follow_up": {"patient_id": _TEXT, "start": pl.Date(), "end": pl.Date()},
}
ADDED = {"patients": ("death_time",), "diagnoses": ("time",)}
"""Columns that tables of version 1 have not; they are null there."""
TITLES_SCHEMA: dict[str, pl.DataType] = {"code_system": _TEXT, "code": _TEXT, "title": _TEXT}
"""Of what the source calls its codes, beside the tables."""
REQUIRED_TABLES = ("patients", "visits", "diagnoses")
EVENT_TABLES = ("medications", "measurements", "procedures")
EARLIEST, LATEST = pl.datetime(1900, 1, 1), pl.datetime(2301, 1, 1)
"""Shifted calendars reach into the 2200s; times outside are placeholders or slips."""
SEXES = ("female", "male")
VISIT_TYPES = ("inpatient", "outpatient", "emergency", "other")
"""What the readers write; a source may have others."""
DISPOSITIONS = ("home", "facility", "expired", "hospice", "other")

_OF_CODES = tuple(name for name, schema in SCHEMAS.items() if "code" in schema)


@dataclass(frozen=True)
class RowFault:
    """What no row of EHR tables may be: they are not written with it, and `medbert validate` counts it."""

    rule: str
    tables: tuple[str, ...]
    what: str
    faulty: pl.Expr
    """Of the columns of the table, and `dated`: whether the source has dates."""


_col = pl.col
ROW_FAULTS = (
    RowFault("null_patient_id", tuple(SCHEMAS), "patient_id is null", _col("patient_id").is_null()),
    RowFault("null_visit_id", ("visits",), "visits without an id", _col("visit_id").is_null()),
    RowFault("null_order", ("visits",), "order is null", _col("order").is_null()),
    RowFault("missing_code", _OF_CODES, "rows without a code", _col("code").is_null()),
    RowFault("missing_system", _OF_CODES, "rows without a code system", _col("code_system").is_null()),
    RowFault(
        "system_name",
        _OF_CODES,
        "code_system is empty or holds a slash or a blank",
        ~_col("code_system").str.contains(r"^[^/\s]+$"),  # it goes into "system/code" strings
    ),
    RowFault("sex_value", ("patients",), f"sex is none of {', '.join(SEXES)}, null", ~_col("sex").is_in(SEXES)),
    RowFault(
        "disposition_value",
        ("visits",),
        f"discharge_disposition is none of {', '.join(DISPOSITIONS)}, null",
        ~_col("discharge_disposition").is_in(DISPOSITIONS),
    ),
    RowFault(
        "undated_time",
        ("visits",),
        "a time is given although source.json says that there are no dates",
        ~_col("dated") & (_col("admit_time").is_not_null() | _col("discharge_time").is_not_null()),
    ),
    RowFault(
        "no_period",
        ("follow_up",),
        "a time of follow-up has no first or last day, or ends before it begins",
        (_col("start") > _col("end")).fill_null(True),
    ),
    RowFault("value_nan", ("measurements",), "value is NaN (unknown is null)", _col("value").is_nan()),
)


@dataclass(frozen=True)
class EhrSource:
    """What the source can and cannot say (source.json)."""

    format: str
    has_dates: bool
    age_precision: str
    assumptions: tuple[str, ...] = ()
    shards: int = 1
    content_hash: str = ""
    known: dict[str, float] = field(default_factory=dict)
    """"table.column" → share of its rows that say something, of the columns that sources often lack."""
    last_day: str | None = None
    """The latest date of an admission in the whole source, in ISO form; null without dates."""


@dataclass(frozen=True, kw_only=True)
class EhrTables:
    """One source, or one shard of it, in memory. Columns as in `SCHEMAS`; absent optional tables are None."""

    patients: pl.DataFrame
    visits: pl.DataFrame
    diagnoses: pl.DataFrame
    medications: pl.DataFrame | None = None
    measurements: pl.DataFrame | None = None
    procedures: pl.DataFrame | None = None
    follow_up: pl.DataFrame | None = None
    source: EhrSource

    def present(self) -> dict[str, pl.DataFrame]:
        """The tables that are there, by name, in the order of `SCHEMAS`."""
        return {name: table for name in SCHEMAS if (table := getattr(self, name)) is not None}


def check_tables(tables: EhrTables) -> list[str]:
    """Every fault of the tables against the schema and its keys, in words, without ids; empty if none.

    A visit id need be unique within its patient only: shards are checked one by one. Empty tables are no fault of a
    shard; `write_tables` and `seal` refuse them.
    """
    present = tables.present()
    faults = [f"{name}: the table is missing" for name in REQUIRED_TABLES if name not in present]
    faults += [fault for name, frame in present.items() for fault in schema_faults(name, frame.schema)]
    if faults:
        return faults
    for name, frame in present.items():
        tests = {one.what: one.faulty for one in ROW_FAULTS if name in one.tables}
        # Less than `medbert validate` asks of texts: what a source has within its ids is written as it is.
        for column in [column for column in ("patient_id", "visit_id", "code") if column in frame.columns]:
            tests[f"{column} is empty or has blanks around it"] = _col(column).str.contains(r"^\s*$|^\s|\s$|\x00")
        if "code" in frame.columns:  # it goes into a tab-separated vocabulary
            tests["code holds a tab or a line break"] = _col("code").str.contains(r"[\t\r\n]")
        if name == "patients":
            tests["patient_id is there more than once"] = _col("patient_id").is_duplicated()
        elif name == "visits":
            tests["visit_id is there more than once"] = pl.struct("patient_id", "visit_id").is_duplicated()
            place = _col("order").rank("ordinal").over("patient_id")
            tests["order is not 1, 2, 3 … within the patient"] = _col("order") != place
        counts = frame.with_columns(dated=tables.source.has_dates).select(
            test.fill_null(False).sum().alias(what) for what, test in tests.items()
        )
        counts = counts.row(0, named=True)
        if name != "patients":
            stray = _runs(frame, ["patient_id"]).join(tables.patients, on="patient_id", how="anti")
            counts["patient_id is not in patients"] = stray["rows"].sum()
        if name != "visits" and "visit_id" in frame.columns:
            linked = frame if name == "diagnoses" else frame.drop_nulls("visit_id")
            keys = ["patient_id", "visit_id"]
            stray = _runs(linked, keys).join(tables.visits, on=keys, how="anti")
            counts["the patient has no such visit"] = stray["rows"].sum()
        faults += [f"{name}: {what} ({count:,} rows)" for what, count in counts.items() if count]
    return faults


def _runs(frame: pl.DataFrame, columns: list[str]) -> pl.DataFrame:
    """These columns of the rows that differ there from the one above, and how many `rows` are alike: few in order."""
    numbers = frame.select(pl.col(columns).rle_id().cast(pl.Int64)).to_numpy()
    first = np.flatnonzero(np.diff(numbers, axis=0, prepend=-1).any(axis=1))
    return frame.select(columns)[first].with_columns(rows=np.diff(first, append=frame.height))


def schema_faults(name: str, got: dict[str, pl.DataType]) -> list[str]:
    """Columns that are missing, foreign or of another dtype, in words; empty if none."""
    schema = SCHEMAS[name]
    return (
        [f"{name}: column {column} is missing" for column in schema if column not in got]
        + [f"{name}: column {column} is not in the schema" for column in got if column not in schema]
        + [
            f"{name}: column {column} must be {dtype}, is {got[column]}"
            for column, dtype in schema.items()
            if column in got and got[column] != dtype
        ]
    )
