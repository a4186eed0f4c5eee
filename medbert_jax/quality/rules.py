"""The rules of `medbert validate`, as data: what is counted in EHR tables, how grave it is, and what cures it.

Modelled on the checks of the OHDSI Data Quality Dashboard (conformance, completeness, plausibility). An *error* breaks
what later steps rely on; a *warning* is a value that can hardly be true, and later steps go on with it; a *note* says
what the source leaves open. A rule that ingestion applies too has the id that it has in the ledger.

Dates in the future. Sources that hide dates shift the whole calendar of a patient, often into 2100–2200. A patient
whose first admission lies after today has such a calendar, and none of his dates counts as future; that there are such
patients is a note. A single slip into the future beside visits of the past is counted. A slip in the only visit of a
patient is not seen by this rule, but by the age that follows from it.
"""

from dataclasses import dataclass, field

import polars as pl
from polars import selectors

from medbert_jax.ehr.codes import system_name
from medbert_jax.ehr.hashing import SPLITS
from medbert_jax.ehr.schema import EARLIEST, EVENT_TABLES, LATEST, REQUIRED_TABLES, ROW_FAULTS, SCHEMAS, VISIT_TYPES

SEVERITIES = ("error", "warning", "note")
UNMAPPED = ("SOURCE", "NONE", "UNKNOWN", "UNMAPPED", "LOCAL")
"""Code systems, in capitals, that stand for having none."""


@dataclass(frozen=True)
class Rule:
    """One rule; (id, table) is unique for every one of its tables. Those of files are counted in `report.py`."""

    id: str
    tables: tuple[str, ...]
    severity: str
    what: str
    cure: str
    above: float = field(default=0.0, kw_only=True)
    """Share of the rows up to which it is silent."""
    unit: str = field(default="rows", kw_only=True)
    """What is counted: rows | files | columns (of every file)."""


@dataclass(frozen=True)
class Check(Rule):
    """One rule of rows."""

    faulty: pl.Expr
    """True on what it finds in the frames of `frames.py`."""
    level: str = "row"
    """row | patient | visit | code: of each row, or of each distinct patient, visit or code, all of whose rows count.
    A rule is not run where a column that it names is not there."""


ALL = tuple(SCHEMAS)
_P, _V, _D, _M = ("patients",), ("visits",), ("diagnoses",), ("measurements",)
_FILES = (*ALL, "splits", "titles")
_OF_VISITS = tuple(name for name in ALL if "visit_id" in SCHEMAS[name])
_OF_CODES = tuple(name for name in ALL if "code" in SCHEMAS[name])
_DATED = ("diagnoses", *EVENT_TABLES)

_AGAIN = "write the tables again from their source with `medbert ingest`"
_WRITE = (
    "write them with `medbert ingest . EHR --format own-tables`, or from Python with medbert_jax.write_ehr_tables"
    " (docs/own_tables.md)"
)
_READER = "mend the reader or the program that wrote the tables, then write them again"
_SOURCE = "look these rows up in the source; mend or leave out what is wrong there, then ingest again"
_KNOW = "nothing, if the source does not say it; otherwise name the column to the reader and ingest again"

_col = pl.col
_TODAY = _col("today")
_SHIFTED = (_col("patient.first").dt.date() > _TODAY).fill_null(False)
_BIRTH, _DEATH = _col("patient.birth_date"), _col("patient.death_date")
_ADMIT, _DISCHARGE, _STAY = _col("admit_time"), _col("discharge_time"), _col("length_of_stay")
_DAYS = (_DISCHARGE.dt.date() - _ADMIT.dt.date()).dt.total_days()
_AGE = (_ADMIT.dt.date() - _BIRTH).dt.total_days()
_SAME, _TIME = _col("row.same_patient"), _col("time")
_OLDEST, _LONGEST = 125 * 365.25, 3 * 365
_NO_TEXT = r"^\s*$|^\s|\s$|[\x00-\x1f]"
_FLOAT = r"^\d+\.0+$|^\d(?:\.\d+)?[eE]\+\d+$"


def _of_schema(rule: str, cure: str, level: str = "row") -> Check:
    """The rule of a fault that no row of EHR tables may be."""
    fault = next(one for one in ROW_FAULTS if one.rule == rule)
    return Check(rule, fault.tables, "error", fault.what, cure, fault.faulty, level)


def _outside(time: pl.Expr) -> pl.Expr:
    return (time < EARLIEST) | (time >= LATEST)


def _future(time: pl.Expr) -> pl.Expr:
    return (time.cast(pl.Date) > _TODAY) & ~_SHIFTED


def _there(columns: list[str]) -> pl.Expr:
    """Those of the columns that a frame has; the others have a rule of their own."""
    return selectors.by_name(columns, require_all=False)


def _text_rules() -> tuple[Check, ...]:
    rules = []
    for name, schema in SCHEMAS.items():
        texts = [column for column, dtype in schema.items() if dtype == pl.String]
        rules.append(
            Check("replacement_character", (name,), "warning", "text holds U+FFFD: it was read in a wrong encoding",
                 "export the source as UTF-8 and ingest again",
                 pl.any_horizontal(_there(texts).str.contains("\ufffd", literal=True)))
        )  # fmt: skip
        if free := [column for column in texts if column in ("race", "ingredient", "unit")]:
            rules.append(
                Check("blank_text", (name,), "warning", "a text is empty or has blanks around it (unknown is null)",
                     _READER, pl.any_horizontal(_there(free).str.contains(_NO_TEXT)))
            )  # fmt: skip
    return tuple(rules)


# fmt: off
FILE_RULES: tuple[Rule, ...] = (
    Rule("unwritten_table", ("files",), "error",
         "tables as a program made them: EHR tables are what is written from them, with source.json and in shards",
         _WRITE, unit="files"),
    Rule("missing_source", ("files",), "error", "source.json, written last, is not there: the writing never ended",
         _AGAIN,
         unit="files"),
    Rule("damaged_source", ("files",), "error", "source.json is damaged or of another program or version", _AGAIN,
         unit="files"),
    Rule("missing_table", REQUIRED_TABLES, "error", "a required table is missing", _AGAIN, unit="files"),
    Rule("missing_file", _FILES, "error", "files of the table are missing", "put them back, or " + _AGAIN,
         unit="files"),
    Rule("truncated_file", _FILES, "error", "files end too early", "copy them again, or " + _AGAIN, unit="files"),
    Rule("changed_file", _FILES, "error", "not the files that were written: their sha256 is not that in source.json",
         "copy them again, or " + _AGAIN, unit="files"),
    Rule("unreadable_file", _FILES, "error", "files cannot be read as Parquet", _AGAIN, unit="files"),
    Rule("unlisted_file", ALL, "error", "source.json does not list the files; they were not read",
         "remove them, or " + _AGAIN,
         unit="files"),
    Rule("other_shards", ALL, "error", "files of another number of shards than source.json says; they were not read",
         "remove what is left of an earlier set of tables, or " + _AGAIN, unit="files"),
    Rule("unfinished_file", ("files", *ALL), "warning", "files that were never finished", "remove them", unit="files"),
    Rule("foreign_file", ("files", *ALL), "warning", "files or folders that are no part of EHR tables",
         "move them elsewhere",
         unit="files"),
    Rule("missing_column", _FILES, "error", "columns of the schema are missing", _READER, unit="columns"),
    Rule("foreign_column", _FILES, "error", "columns that are not in the schema", _READER, unit="columns"),
    Rule("wrong_type", _FILES, "error", "columns of another type than in the schema", _READER, unit="columns"),
    Rule("empty_table", REQUIRED_TABLES, "error", "a required table has no rows",
         "look into ledger.json for where they left",
         unit="files"),
    Rule("split_value", ("splits",), "error",
         f"a split of the source is none of {', '.join(SPLITS)}, or has no patient",
         _READER),
    Rule("shared_visit_id", _V, "warning",
         "visits whose id another patient has too, in a format where ids of visits are unique", _SOURCE),
    Rule("duplicate_split", ("splits",), "error", "further splits of one patient: he would be in training and test",
         _SOURCE),
)

DEFAULT_DAY = Rule(
    "default_day", _V, "warning", "{day}, which {share:.1%} of patients have as the day of their first visit, may stand"
    " for unknown",
    "if it does, ingest again with --options.unknown-days {day}", unit="first visits")

ROW_RULES: tuple[Check, ...] = (
    # Conformance: keys, order, values
    _of_schema("null_patient_id", _SOURCE, "patient"),
    Check("blank_patient_id", ALL, "error", "patient_id is empty, has blanks around it or control characters", _READER,
         _col("patient_id").str.contains(_NO_TEXT), "patient"),
    Check("float_patient_id", ALL, "error", 'patient_id was written as a float ("12.0")',
         "export ids as text, then ingest again",
         _col("patient_id").str.contains(_FLOAT), "patient"),
    Check("unlisted_patient", ALL[1:], "error", "rows of patients that the table of patients lacks", _SOURCE,
         ~_col("patient.listed"), "patient"),
    Check("patient_in_other_shard", ALL, "error", "rows of a patient who belongs to another shard: he is cut in two",
         _AGAIN,
         ~_col("patient.own"), "patient"),
    Check("duplicate_patient", _P, "error", "further rows of one patient", _SOURCE,
         _SAME & _col("patient_id").is_not_null()),
    _of_schema("null_visit_id", _SOURCE, "visit"),
    Check("blank_visit_id", _OF_VISITS, "error", "visit_id is empty, has blanks around it or control characters",
         _READER,
         _col("visit_id").str.contains(_NO_TEXT), "visit"),
    Check("float_visit_id", _OF_VISITS, "error", 'visit_id was written as a float ("12.0")',
         "export ids as text, then ingest again", _col("visit_id").str.contains(_FLOAT), "visit"),
    Check("duplicate_visit", _V, "error", "further rows of one visit of a patient", _SOURCE,
         _col("visit.again") & _col("visit_id").is_not_null()),
    Check("unlinked_code", _D, "error", "codes of no visit of their patient", _SOURCE, ~_col("visit.found"), "visit"),
    Check("unlinked_event", EVENT_TABLES, "error", "events that name a visit which their patient has not", _READER,
         _col("visit_id").is_not_null() & ~_col("visit.found"), "visit"),
    Check("unsorted", ALL, "warning", "rows that stand before the row above them in the order of writing", _AGAIN,
         _col("row.unsorted")),
    _of_schema("null_order", _READER),
    Check("wrong_order", _V, "error", "order is not 1, 2, 3 … within the patient", _READER,
         _col("order") != _col("row.place")),
    Check("order_against_time", _V, "error", "admission before that of the visit before it in order", _AGAIN,
         _SAME & (_ADMIT.shift(1) > _ADMIT)),
    _of_schema("sex_value", _READER),
    _of_schema("disposition_value", _READER),
    Check("visit_type_value", _V, "warning", f"visit_type is none of {', '.join(VISIT_TYPES)}, null", _READER,
         ~_col("visit_type").is_in(VISIT_TYPES)),
    Check("no_admission", _V, "error", "visits without an admission time in a source with dates", _SOURCE,
         _col("dated") & _ADMIT.is_null()),
    _of_schema("undated_time", _READER),
    # Conformance: codes
    _of_schema("missing_code", _SOURCE, "code"),
    _of_schema("missing_system", _READER, "code"),
    Check("blank_code", _OF_CODES, "error", "code is empty, has blanks around it or control characters", _READER,
         _col("code").str.contains(_NO_TEXT), "code"),
    _of_schema("system_name", _READER, "code"),
    Check("misspelt_system", _OF_CODES, "warning",
         "another spelling of a code system: nothing that is asked of the system finds these codes",
         "write the system's name as in the documentation (ICD9CM, ICD10CM, SNOMED, …), or " + _AGAIN,
         system_name(_col("code_system")) != _col("code_system"), "code"),
    Check("unknown_system", _OF_CODES, "warning",
         "codes of a system that is not known here: nothing checks or titles them",
         "nothing, if it is the site's own; otherwise write its name as in the documentation",
         system_name(_col("code_system")).is_null() & _col("code_system").str.contains(r"^[^/\s]+$")
         & ~_col("code_system").str.to_uppercase().is_in(UNMAPPED), "code"),
    Check("unreadable_code", _OF_CODES, "error", "text that is no code of its system", _SOURCE,
         _col("normal").is_null() & _col("code_system").is_not_null() & (_col("code").str.strip_chars() != ""), "code"),
    Check("not_normal_code", _OF_CODES, "error",
         "codes that are not in the normal form of their system (E119 for E11.9)",
         _AGAIN, _col("normal") != _col("code").str.strip_chars(), "code"),
    Check("priority_value", _D, "error", "priority is below 1, which is the principal diagnosis", _READER,
         _col("priority") < 1),
    _of_schema("value_nan", _READER),
    _of_schema("no_period", _SOURCE),
    Check("death_time_against_date", _P, "error", "death_time is not on the day of death_date", _READER,
         (_col("death_time").dt.date() != _col("death_date")).fill_null(_col("death_time").is_not_null())),
    Check("value_infinite", _M, "error", "value is infinite", _READER, _col("value").is_infinite()),
    # Completeness
    Check("unmapped_codes", _OF_CODES, "warning", f"codes of no code system ({', '.join(UNMAPPED)}) are over a tenth",
         "map the source's own codes, or give the reader the table that does",
         _col("code_system").str.to_uppercase().is_in(UNMAPPED), "code", above=0.1),
    Check("no_time", EVENT_TABLES, "note", "events without a time in a source with dates", _KNOW,
         _col("dated") & _TIME.is_null()),
    Check("patient_without_visits", _P, "note", "patients without a visit",
         "nothing: later steps leave them out and count them",
         _col("patient.visits") == 0),
    Check("patient_without_codes", _P, "note", "patients without a diagnosis",
         "nothing: later steps leave them out and count them",
         _col("patient.codes") == 0),
    Check("visit_without_codes", _V, "note", "visits without a diagnosis", "nothing: they hold no token",
         _col("visit.codes") == 0),
    Check("unknown_sex", _P, "note", "sex is unknown", _KNOW, _col("sex").is_null()),
    Check("unknown_race", _P, "note", "race is unknown", _KNOW, _col("race").is_null()),
    Check("unknown_age", _V, "note", "neither date of birth nor age is known", _KNOW,
         _col("age_days").is_null() & _BIRTH.is_null()),
    Check("unknown_stay", _V, "note", "length of stay is unknown", _KNOW, _STAY.is_null()),
    Check("unknown_present_on_admission", _D, "note", "present_on_admission is unknown", _KNOW,
         _col("present_on_admission").is_null()),
    Check("unknown_priority", _D, "note", "priority is unknown", _KNOW, _col("priority").is_null()),
    Check("value_without_unit", _M, "note", "values without a unit", _KNOW,
         _col("value").is_not_null() & _col("unit").is_null()),
    # Plausibility: dates
    Check("implausible_time", _V, "error", "times before 1900 or after 2300", _SOURCE,
         _outside(_ADMIT) | _outside(_DISCHARGE)),
    Check("implausible_date", _P, "warning", "birth or death after 2300, or death before 1900", _SOURCE,
         _outside(_col("death_date")) | (_col("birth_date") >= LATEST)),
    Check("implausible_event_time", _DATED, "warning", "times before 1900 or after 2300", _SOURCE,
         _outside(_TIME)),
    Check("birth_before_1850", _P, "warning", "birth before 1850", _SOURCE, _col("birth_date") < pl.date(1850, 1, 1)),
    Check("birth_in_future", _P, "warning", "birth after today, of patients whose calendar is not shifted", _SOURCE,
         _future(_col("birth_date"))),
    Check("death_in_future", _P, "warning", "death after today, of patients whose calendar is not shifted", _SOURCE,
         _future(_col("death_date"))),
    Check("death_before_birth", _P, "warning", "death before birth", _SOURCE, _col("death_date") < _col("birth_date")),
    Check("shifted_calendar", _P, "note", "patients whose whole calendar lies after today",
         "nothing, if the source hides its dates so",
         _SHIFTED),
    Check("future_time", _V, "warning", "times after today, of patients whose calendar is not shifted", _SOURCE,
         _future(_ADMIT) | _future(_DISCHARGE)),
    Check("future_event", _DATED, "warning", "times after today, of patients whose calendar is not shifted",
         _SOURCE,
         _future(_TIME)),
    Check("before_birth", _V, "error", "visits before the patient's birth", _SOURCE, _ADMIT.dt.date() < _BIRTH),
    Check("after_death", _V, "error", "visits that begin after death, by the clock where it is known, else by the day",
         _SOURCE, (_col("patient.death_time") < _ADMIT).fill_null(_ADMIT.dt.date() > _DEATH)),
    Check("event_before_birth", _DATED, "warning", "events and diagnoses before the patient's birth", _SOURCE,
         _TIME.dt.date() < _BIRTH),
    Check("event_after_death", _DATED, "warning", "events and diagnoses after the day of death", _SOURCE,
         _TIME.dt.date() > _DEATH),
    Check("event_outside_visit", _DATED, "warning", "events and diagnoses on no day of their visit", _SOURCE,
         (_TIME.dt.date() < _col("visit.admit_time").dt.date())
         | (_TIME.dt.date() > _col("visit.discharge_time").dt.date())),
    Check("visit_after_expired", _V, "warning", "visits after one that ended with death", _SOURCE,
         _SAME & (_col("discharge_disposition").shift(1) == "expired")),
    # Plausibility: stays and ages
    Check("discharge_before_admission", _V, "warning", "discharge before admission",
         "nothing: the paper's own exclusion takes these patients out when sequences are made", _DISCHARGE < _ADMIT),
    Check("negative_stay", _V, "warning", "length of stay below 0",
         f"nothing for visits under discharge_before_admission, from which it follows; others: {_SOURCE}", _STAY < 0),
    Check("long_stay", _V, "warning", "stays of over three years", _SOURCE, pl.coalesce(_STAY, _DAYS) > _LONGEST),
    Check("stay_against_dates", _V, "warning", "length of stay is off discharge − admission by more than a day",
         _SOURCE, (_DAYS >= 0) & ((_STAY - _DAYS).abs() > 1)),
    Check("overlapping_stays", _V, "warning", "inpatient stays that begin before the day on which an earlier one ends",
         "join the parts of one stay in the source, then ingest again",
         (_col("visit_type") == "inpatient") & (_ADMIT.dt.date().cast(pl.Int64) < _col("row.inpatient_until"))),
    Check("age_value", _V, "warning", "age at admission below 0 (stated) or over 125 years", _SOURCE,
         (_col("age_days") < 0) | (_col("age_days") > _OLDEST) | (_AGE > _OLDEST)),
    Check("age_precision_value", _V, "warning", "width of the age band below 0, or given without an age", _READER,
         (_col("age_precision_days") < 0) | (_col("age_precision_days").is_not_null() & _col("age_days").is_null())),
    Check("age_against_birth", _V, "warning",
         "stated age is off the date of birth by over a year and the width of its band", _SOURCE,
         (_col("age_days") - _AGE).abs() > _col("age_precision_days").fill_null(0) + 366),
    Check("age_falls", _V, "warning", "stated age below that of the visit before it", _SOURCE,
         _SAME & (_col("age_days") < _col("age_days").shift(1))),
    # Plausibility: duplicates
    Check("same_times", _V, "warning", "further visits of one type and patient with the same admission and discharge",
         _SOURCE,
         _SAME & (_ADMIT.shift(1) == _ADMIT) & (_DISCHARGE.shift(1) == _DISCHARGE)
         & _col("visit_type").eq_missing(_col("visit_type").shift(1))),
    Check("duplicate_code", _OF_CODES, "warning", "identical rows beyond the first", _AGAIN, _col("row.again")),
    Check("several_principals", _D, "note", "diagnoses of visits with more than one of priority 1",
         "nothing, if the source has several principal diagnoses", _col("visit.principals") > 1, "visit"),
    # Text
    *_text_rules(),
)
# fmt: on
