"""Bad input: every fault of a file is refused by name, rule and cure; every fault of a row is counted.

`CASES` is the table: kind of source, what is done to it, and what must come of it:

- `Fault(rule, file)`: exit code not 0, a message with the file, [rule] and a cure, no traceback, no tables.
- `Left(rule=(patients, visits, codes), …)`: these left under these rules and nobody under any other. None stands where
  the contract does not say which level counts it.
- `Same()`: nothing leaves and the tables are those of the sound source, byte for byte.
- `Kept()`: nothing leaves, but a cell may differ.
- `cells={column: count}` of all these: so many cells, and no others, are said to be unknown now.
- `Told(*rules)`: refused as under `Fault`, by one of these rules: which of them depends on how the file is read.

Whatever comes, no patient id and no date is printed or written into the ledger.
"""

import gzip
import json
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest
from sources.made_sources import canaries, csv, parquet, synpuf_id, write_source

from medbert_jax import cli
from medbert_jax.attrition.ledger import Ledger
from medbert_jax.ehr.tables import read_tables

FILE_RULES = ("missing_file", "missing_column", "unreadable_file", "not_utf8", "float_id", "empty_table", "two_files",
              "duplicate_column", "wrong_type", "float_code", "unexpected_value", "ragged_row", "no_dates")  # fmt: skip


@dataclass(frozen=True)
class Fault:
    rule: str
    file: str


class Left:
    def __init__(self, cells=None, **lines):
        self.lines, self.cells = lines, cells or {}


class Same(Left):
    pass


class Kept(Left):
    pass


class Told:
    def __init__(self, *rules):
        self.rules = rules


class Either:
    """Two readings that the contract allows."""

    def __init__(self, *ways):
        self.ways = ways


# Changes of tables


def at(frame, cells):
    here = pl.all_horizontal(pl.col(c).cast(pl.String) == v for c, v in cells.items()).fill_null(False)
    assert frame.filter(here).height, "the case must hit a row"
    return here


def put(table, where, **cells):
    """Other cells where the columns of `where` have its values."""

    def change(raw):
        frame = raw[table]
        here = at(frame, where)
        raw[table] = frame.with_columns(
            pl.when(here).then(pl.lit(value, frame.schema[c])).otherwise(c).alias(c) for c, value in cells.items()
        )

    return change


def add(table, where, **cells):
    """One more row: a copy of the first that fits, with other cells."""

    def change(raw):
        frame = raw[table]
        row = frame.filter(at(frame, where))[:1]
        row = row.with_columns(pl.lit(value, frame.schema[c]).alias(c) for c, value in cells.items())
        raw[table] = pl.concat([frame, row])

    return change


def append(table, **cells):
    """One more row of these cells alone."""

    def change(raw):
        raw[table] = pl.concat([raw[table], pl.DataFrame([cells], schema_overrides=raw[table].schema)], how="diagonal")

    return change


def without_column(table, column):
    def change(raw):
        raw[table] = raw[table].drop(column)

    return change


def without_rows(table):
    def change(raw):
        raw[table] = raw[table].clear()

    return change


def with_column(table, expression):
    def change(raw):
        raw[table] = raw[table].with_columns(expression)

    return change


def both(*changes):
    def change(raw):
        for each in changes:
            each(raw)

    return change


# Changes of files; "wrapped" marks them in the table


@dataclass(frozen=True)
class Files:
    alter: object

    def __call__(self, content):
        self.alter(content)


def file(path, alter):
    def change(content):
        content[path] = alter(content[path])

    return Files(change)


def text_of(path, alter):
    """Alter the text under the compression."""
    if path.endswith(".gz"):
        return file(path, lambda data: gzip.compress(alter(gzip.decompress(data)), mtime=0))
    return file(path, alter)


def gone(path):
    return Files(lambda content: content.pop(path))


def half(data):
    return data[: len(data) // 2]


def nothing(data):
    return b""


def utf16(data):
    return data.decode().encode("utf-16")


def latin1(data):
    """An umlaut of Latin-1 at the end of the second line's last cell."""
    first, second, rest = data.split(b"\n", 2)
    return b"\n".join([first, second + "Müller".encode("latin-1"), rest])


def semicolons(data):
    return data.replace(b",", b";").replace(b"\t", b";")


def twice_named(column, other, separator=b","):
    """The header names a column twice."""

    def alter(data):
        head, rest = data.split(b"\n", 1)
        names = head.split(separator)
        names[names.index(other)] = column
        return separator.join(names) + b"\n" + rest

    return alter


def cut_row(mark, separator=b","):
    """The first row that begins with the mark loses all cells but the first two."""

    def alter(data):
        lines = data.split(b"\n")
        place = next(i for i, line in enumerate(lines) if mark in line)
        lines[place] = separator.join(lines[place].split(separator)[:2])
        return b"\n".join(lines)

    return alter


def long_row(mark, separator=b","):
    def alter(data):
        lines = data.split(b"\n")
        place = next(i for i, line in enumerate(lines) if mark in line)
        lines[place] += separator + b"one" + separator + b"too many"
        return b"\n".join(lines)

    return alter


def open_quote(mark):
    """A quotation mark that nothing closes."""
    return lambda data: data.replace(mark, b'"' + mark, 1)


def nul(mark):
    return lambda data: data.replace(mark, mark[:3] + b"\0" + mark[3:], 1)


def html(data):
    return b"<!DOCTYPE html>\n<html><body>Your session has expired</body></html>\n"


def floats(*columns):
    return [(pl.col(c) + ".0").alias(c) for c in columns]


ROW_OF = {"v21": (0, 1, 2), "v22": (0, 1, 3), "v51": (0, 1, 1)}


def text_faults(kind, path, separator, patient_first, *, other):
    """Faults that every text file can have. `path` holds the codes; `other` is (column, its neighbour)."""
    name = Path(path).name
    patterns = {CLAIMS: "Inpatient_Claims", "data_file.tsv": "*.tsv"}
    missing = patterns.get(path, name.split(".")[0])
    return [
        (kind, "missing file", gone(path), Fault("missing_file", missing)),
        (kind, "file of no bytes", file(path, nothing), Told("unreadable_file", "empty_table", "missing_column")),
        # Claims may be in either of two layouts, so neither file is needed by itself: the empty result is refused.
        (kind, "header alone", text_of(path, lambda data: data.split(b"\n")[0] + b"\n"),
         Fault("empty_table", "visits" if path == CLAIMS else name)),
        (kind, "Latin-1", text_of(path, latin1), Fault("not_utf8", name)),
        (kind, "UTF-16", text_of(path, utf16), Told("not_utf8", "unreadable_file")),
        (kind, "semicolons", text_of(path, semicolons), Same()),
        (kind, "a web page", text_of(path, html), Told("missing_column", "unreadable_file", "empty_table")),
        (kind, "too many fields", text_of(path, long_row(patient_first, separator)), Fault("ragged_row", name)),
        (kind, "too few fields", text_of(path, cut_row(patient_first, separator)),
         Told("ragged_row", "unexpected_value")),
        # Tabs come without quotation: there a mark is a character like any other, and columns are known by place.
        (kind, "open quotation mark", text_of(path, open_quote(patient_first)),
         Kept() if separator == b"\t" else Told("unreadable_file")),
        (kind, "NUL in a patient id", text_of(path, nul(patient_first)), Told("unreadable_file")),
        (kind, "binary", file(path, lambda data: bytes(range(256)) * 64), Told(*FILE_RULES)),
        (kind, "a column named twice", text_of(path, twice_named(*other, separator)),
         Same() if separator == b"\t" else Told("duplicate_column", "missing_column", "unreadable_file")),
    ]  # fmt: skip


# OMOP

PERSON, VISIT, CONDITION = "person", "visit_occurrence", "condition_occurrence"
V21, V11 = {"visit_occurrence_id": "88420021"}, {"visit_occurrence_id": "88420111"}
C41 = {"visit_occurrence_id": "88420041"}  # the visit's only code
OPEN_STAY = Kept(cells={"discharge_time that is no end": 1})
NEVER = {"condition_start_date": "2007-01-01", "condition_start_datetime": "2007-01-01 00:00:00"}
P12, P2 = {"person_id": "77310012"}, {"person_id": "77310002"}
NO_CONCEPTS = {"condition_source_concept_id": "0", "condition_concept_id": "0"}


def starts(moment):
    return {"visit_start_date": moment[:10], "visit_start_datetime": moment}


def ends(moment):
    return {"visit_end_date": moment[:10], "visit_end_datetime": moment}


def recode(code=None, vocabulary=None):
    """The code of visit 41 and its concept, changed alike."""

    def change(raw):
        here = pl.col("concept_code") == "715.96"
        if code:
            put(CONDITION, C41, condition_source_value=code)(raw)
        raw["concept"] = raw["concept"].with_columns(
            pl.when(here).then(pl.lit(code or "715.96")).otherwise("concept_code").alias("concept_code"),
            pl.when(here).then(pl.lit(vocabulary or "ICD9CM")).otherwise("vocabulary_id").alias("vocabulary_id"),
        )

    return change


OMOP = [
    ("null id of a person", put(PERSON, P12, person_id=None), Left(null_patient_id=(1, 0, 0))),
    ("blank id of a person", put(PERSON, P12, person_id="   "), Left(null_patient_id=(1, 0, 0))),
    ("null person of a visit", put(VISIT, V11, person_id=None), Left(null_patient_id=(0, 1, 0))),
    ("null person of a code", put(CONDITION, C41, person_id=None), Left(null_patient_id=(0, 0, 1))),
    ("visit of an unlisted person", put(VISIT, V11, person_id="77319999"), Left(unlisted_patient=(1, 1, 0))),
    ("code of an unlisted person", put(CONDITION, C41, person_id="77319999"), Left(unlisted_patient=(1, 0, 1))),
    ("unlisted person with visit and code",
     both(add(VISIT, V21, person_id="77319999", visit_occurrence_id="88429999"),
          add(CONDITION, V21, person_id="77319999", visit_occurrence_id="88429999")),
     Left(unlisted_patient=(1, 1, 1))),
    ("person twice", add(PERSON, P2), Left(duplicate_patient=(1, 0, 0))),
    ("person twice, unlike", add(PERSON, P2, year_of_birth="1939"),
     Left(cells={"birth_datetime against year, month or day of birth": 1}, duplicate_patient=(1, 0, 0))),
    ("null id of a visit", put(VISIT, V11, visit_occurrence_id=None), Left(null_visit_id=(0, 1, 0))),
    ("null id of a visit with codes", put(VISIT, V21, visit_occurrence_id=None),
     Left(cells={"visit_id of procedures": 1}, null_visit_id=(0, 1, 0), unlinked_code=(0, 0, 2))),
    ("blank id of a visit", put(VISIT, V11, visit_occurrence_id=" "), Left(null_visit_id=(0, 1, 0))),
    ("visit twice", add(VISIT, V21), Left(duplicate_visit=(0, 1, 0))),
    ("visit thrice, unlike", both(add(VISIT, V21, **ends("2009-03-15 10:00:00")),
                                   add(VISIT, V21, visit_concept_id="9203")),
     Left(duplicate_visit=(0, 2, 0))),
    ("no start", put(VISIT, V21, visit_start_date=None, visit_start_datetime=None), Left(no_admission=ROW_OF["v21"])),
    ("start is no date", put(VISIT, V21, **starts("unknown")),
     Left(cells={"visit_start_date": 1, "visit_start_datetime": 1}, no_admission=ROW_OF["v21"])),
    ("start on a 31st of February", put(VISIT, V21, **starts("2009-02-31 00:00:00")),
     Left(cells={"visit_start_date": 1, "visit_start_datetime": 1}, no_admission=ROW_OF["v21"])),
    ("end is no date", put(VISIT, V21, **ends("14/03/2009")),
     Kept(cells={"visit_end_date": 1, "visit_end_datetime": 1})),
    # As Spark and BigQuery write a moment in UTC beside a local date.
    ("start of another day than its date", put(VISIT, V21, visit_start_datetime="2009-03-04 22:00:00"),
     Kept(cells={"visit_start_datetime of another day than visit_start_date": 1})),
    ("end of another day than its date", put(VISIT, V21, visit_end_datetime="2009-03-13 22:00:00"),
     Kept(cells={"visit_end_datetime of another day than visit_end_date": 1})),
    ("birth is no date", put(PERSON, P2, birth_datetime="July 1938"), Kept(cells={"birth_datetime": 1})),
    ("birth against its day", put(PERSON, P2, birth_datetime="1938-07-03 22:00:00"),
     Kept(cells={"birth_datetime against year, month or day of birth": 1})),
    ("birth on a 31st of June", put(PERSON, P2, birth_datetime=None, month_of_birth="6", day_of_birth="31"),
     Kept(cells={"year, month and day of birth that are no day": 1})),
    ("year of birth is no number", put(PERSON, P2, year_of_birth="unknown", birth_datetime=None),
     Kept(cells={"year_of_birth": 1})),
    ("death is no date", append("death", person_id="77310002", death_date="in May 2009"),
     Left(cells={"death_date": 1}, unreadable_death=(1, 0, 0))),
    ("sex of an unknown concept", put(PERSON, P2, gender_concept_id="M"), Kept(cells={"gender_concept_id": 1})),
    *((f"source value like {what}", put(CONDITION, C41, condition_source_value=value, **NO_CONCEPTS),
       Left(unnamed_system=(0, 0, 1)))
      for what, value in (("a day", "2011-05-03"), ("a telephone number", "555-123-4567"), ("a person", "Smith1950"),
                          ("a record number", "MRN-10000032"), ("a code of no system", "715.96"))),
    *((f"source value that names its system, {value}", put(CONDITION, C41, condition_source_value=value, **NO_CONCEPTS),
       Kept()) for value in ("ICD9:715.96", "ICD-9:71596", "ICD9CM 715.96", "icd-9-cm^715.96")),
    ("a code that was a number", recode("496.0"), Left(unreadable_code=(0, 0, 1))),
    ("start in 1800", put(VISIT, V21, **starts("1800-01-01 00:00:00")), Left(implausible_time=ROW_OF["v21"])),
    ("end in 9999", put(VISIT, V21, **ends("9999-12-31 00:00:00")), OPEN_STAY),
    ("start before birth", put(VISIT, V21, **starts("1931-01-01 00:00:00")), Left(before_birth=ROW_OF["v21"])),
    ("start after death", append("death", person_id="77310002", death_date="2009-05-01"),
     Left(after_death=ROW_OF["v22"])),
    ("end before start", put(VISIT, V21, **ends("2009-03-01 09:00:00")), Kept()),
    # By default it goes to the visit of its day; `--options.unlinked drop` leaves it out.
    ("code without a visit", put(CONDITION, C41, visit_occurrence_id=None), Kept()),
    ("code of an unknown visit", put(CONDITION, C41, visit_occurrence_id="88429999"), Kept()),
    ("code of an unknown visit on a day without one", put(CONDITION, C41, visit_occurrence_id="88429999", **NEVER),
     Left(unlinked_code=(0, 0, 1))),
    ("code of another's visit", put(CONDITION, C41, visit_occurrence_id="88420021"), Kept()),
    ("code of another's visit on a day without one", put(CONDITION, C41, visit_occurrence_id="88420021", **NEVER),
     Left(unlinked_code=(0, 0, 1))),
    ("null code", put(CONDITION, C41, condition_source_value=None, **NO_CONCEPTS), Left(missing_code=(0, 0, 1))),
    ("blank code", put(CONDITION, C41, condition_source_value="  ", **NO_CONCEPTS), Left(missing_code=(0, 0, 1))),
    ("null source value beside its concept", put(CONDITION, C41, condition_source_value=None), Same()),
    ("code of no shape", recode("71-AB!"), Left(unreadable_code=(0, 0, 1))),
    ("ICD-9 called ICD-10", recode(vocabulary="ICD10CM"), Left(unreadable_code=(0, 0, 1))),
    ("ICD-10 called ICD-9", recode("I50.9"), Left(unreadable_code=(0, 0, 1))),
    ("row twice", add(CONDITION, C41), Left(duplicate_code=(0, 0, 1))),
    ("row twice under another number", add(CONDITION, C41, condition_occurrence_id="55599999"),
     Left(duplicate_code=(0, 0, 1))),
    ("sex without a concept", put(PERSON, P2, gender_concept_id="0"), Kept()),
    ("two rows of death", append("death", person_id="77310003", death_date="2009-06-21"), Kept()),
    ("death of an unlisted person", append("death", person_id="77319999", death_date="2009-06-21"),
     Left(unlisted_patient=(1, 0, 0))),
    ("ids as floats in one table", with_column(CONDITION, floats("person_id")),
     Fault("float_id", "condition_occurrence.csv")),
    ("visit ids as floats in one table", with_column(CONDITION, floats("visit_occurrence_id")),
     Fault("float_id", "condition_occurrence.csv")),
    ("one id as a float", put(VISIT, V21, person_id="77310002.0"), Fault("float_id", "visit_occurrence.csv")),
    ("no person table", gone("person.csv"), Fault("missing_file", "person")),
    ("no visit table", gone("visit_occurrence.csv"), Fault("missing_file", "visit_occurrence")),
    ("no person_id", without_column(PERSON, "person_id"), Fault("missing_column", "person.csv")),
    ("no visit_start_date", without_column(VISIT, "visit_start_date"), Told("missing_column")),
    ("no visit_occurrence_id in the codes", without_column(CONDITION, "visit_occurrence_id"), Kept()),
    ("person table without rows", without_rows(PERSON), Fault("empty_table", "person.csv")),
    ("visit table without rows", without_rows(VISIT), Fault("empty_table", "visit_occurrence.csv")),
    ("death table without rows", without_rows("death"), Kept()),
    ("truncated gz", Files(lambda content: content.update(
        {"person.csv.gz": half(gzip.compress(content.pop("person.csv"), mtime=0))})),
     Fault("unreadable_file", "person.csv.gz")),
    ("no gz under the name", Files(lambda content: content.update({"person.csv.gz": content.pop("person.csv")})),
     Fault("unreadable_file", "person.csv.gz")),
    ("table there twice", Files(lambda content: content.update({"PERSON.csv": content["person.csv"]})),
     Told(*FILE_RULES)),
    ("empty folder", Files(lambda content: content.clear()), Fault("missing_file", "person")),
]  # fmt: skip

# The same tables as typed Parquet

PART = "PERSON/part-00000.parquet"
OMOP_PARQUET = [
    ("null id of a person", put(PERSON, P12, person_id=None), Left(null_patient_id=(1, 0, 0))),
    ("person twice", add(PERSON, P2), Left(duplicate_patient=(1, 0, 0))),
    ("visit twice", add(VISIT, V21), Left(duplicate_visit=(0, 1, 0))),
    ("no start", put(VISIT, V21, visit_start_date=None, visit_start_datetime=None), Left(no_admission=ROW_OF["v21"])),
    # By default it goes to the visit of its day; `--options.unlinked drop` leaves it out.
    ("code without a visit", put(CONDITION, C41, visit_occurrence_id=None), Kept()),
    ("start in 1800", put(VISIT, V21, visit_start_date=datetime(1800, 1, 1), visit_start_datetime=datetime(1800, 1, 1)),
     Left(implausible_time=ROW_OF["v21"])),
    ("ids as floats", with_column(CONDITION, pl.col("person_id").cast(pl.Float64)),
     Fault("float_id", "CONDITION_OCCURRENCE")),
    ("visit ids as floats", with_column(CONDITION, pl.col("visit_occurrence_id").cast(pl.Float64)),
     Fault("float_id", "CONDITION_OCCURRENCE")),
    ("ids as text", with_column(CONDITION, pl.col("person_id").cast(pl.String)), Same()),
    ("visit ids as text in one table", with_column(CONDITION, pl.col("visit_occurrence_id").cast(pl.String)), Same()),
    ("dates as text", with_column(VISIT, pl.col("visit_start_date").cast(pl.String)), Same()),
    ("days since 1970 as starts", with_column(VISIT, pl.col("visit_start_date").cast(pl.Int32)),
     Fault("wrong_type", "VISIT_OCCURRENCE/part-0000")),
    ("truth as an end", with_column(VISIT, pl.col("visit_end_date").is_not_null()),
     Fault("wrong_type", "VISIT_OCCURRENCE/part-0000")),
    ("codes as floats", with_column(CONDITION, pl.lit(496.0).alias("condition_source_value")),
     Fault("float_code", "CONDITION_OCCURRENCE/part-0000")),
    ("NUL in ids", with_column(PERSON, pl.col("person_id").cast(pl.String) + "\0"),
     Fault("unreadable_file", "PERSON/part-0000")),
    ("ids as whole decimals",
     with_column(CONDITION, pl.col("person_id", "visit_occurrence_id").cast(pl.Decimal(38, 0))), Same()),
    ("ids as decimals with places", with_column(CONDITION, pl.col("visit_occurrence_id").cast(pl.Decimal(38, 2))),
     Fault("float_id", "CONDITION_OCCURRENCE/part-0000")),
    ("folders named like files", Files(lambda content: [
        content.update({path.replace("PERSON/", "person.parquet/"): content.pop(path)})
        for path in list(content) if path.startswith("PERSON/")]), Same()),
    ("a patient in the name of a damaged part",
     Files(lambda content: content.update({"PERSON/77310002_2009-03-05.parquet": half(content.pop(PART))})),
     Fault("unreadable_file", "PERSON/########_####-##-##.parquet")),
    ("truncated part", file(PART, half), Fault("unreadable_file", "part-00000.parquet")),
    ("part of no bytes", file(PART, nothing), Fault("unreadable_file", "part-00000.parquet")),
    ("part without its end", file(PART, lambda data: data[:-8]), Fault("unreadable_file", "part-00000.parquet")),
    ("part that is CSV", file(PART, lambda data: b"person_id\n1\n"), Fault("unreadable_file", "part-00000.parquet")),
    ("flipped footer", file(PART, lambda data: data[:-40] + bytes(b ^ 0xFF for b in data[-40:-8]) + data[-8:]),
     Fault("unreadable_file", "part-00000.parquet")),
    ("one part lacks a column", file(PART, lambda data: parquet(pl.read_parquet(data).drop("PERSON_ID"))),
     Fault("missing_column", "part-00000.parquet")),
    ("no rows in any part", without_rows(PERSON), Fault("empty_table", "PERSON")),
]  # fmt: skip

# MIMIC-IV

PATIENTS, ADMISSIONS, DIAGNOSES = "patients", "admissions", "diagnoses_icd"
H21, H11, H41 = ({"hadm_id": f"88420{visit}"} for visit in ("021", "111", "041"))
S12, S2 = {"subject_id": "77310012"}, {"subject_id": "77310002"}
MIMIC = [
    ("null id of a patient", put(PATIENTS, S12, subject_id=None), Left(null_patient_id=(1, 0, 0))),
    ("null patient of an admission", put(ADMISSIONS, H11, subject_id=None), Left(null_patient_id=(0, 1, 0))),
    ("blank patient of a code", put(DIAGNOSES, H41, subject_id=" "), Left(null_patient_id=(0, 0, 1))),
    ("admission of an unlisted patient", put(ADMISSIONS, H11, subject_id="77319999"), Left(unlisted_patient=(1, 1, 0))),
    ("code of an unlisted patient", put(DIAGNOSES, H41, subject_id="77319999"), Left(unlisted_patient=(1, 0, 1))),
    ("patient twice", add(PATIENTS, S2), Left(duplicate_patient=(1, 0, 0))),
    ("null hadm_id of an admission", put(ADMISSIONS, H11, hadm_id=None), Left(null_visit_id=(0, 1, 0))),
    ("admission twice", add(ADMISSIONS, H21), Left(duplicate_visit=(0, 1, 0))),
    ("no admittime", put(ADMISSIONS, H21, admittime=None), Left(no_admission=ROW_OF["v21"])),
    ("admittime is no time", put(ADMISSIONS, H21, admittime="2159-13-05 14:00:00"),
     Left(cells={"admittime": 1}, no_admission=ROW_OF["v21"])),
    ("no dischtime", put(ADMISSIONS, H21, dischtime=None), Kept()),
    ("dischtime is no time", put(ADMISSIONS, H21, dischtime="3/14/2159 13:00"), Kept(cells={"dischtime": 1})),
    ("deathtime is no time", put(ADMISSIONS, H21, deathtime="3/14/2159 13:00"), Kept(cells={"deathtime": 1})),
    ("dod is no date", put(PATIENTS, S2, dod="5/1/2159"), Kept(cells={"dod": 1})),
    ("sex of no kind", put(PATIENTS, S2, gender="2"), Kept(cells={"gender": 1})),
    ("age is no number", put(PATIENTS, S2, anchor_age="52 years"), Kept(cells={"anchor_age": 1})),
    ("flag of no kind", put(ADMISSIONS, H21, hospital_expire_flag="perhaps"), Kept(cells={"hospital_expire_flag": 1})),
    ("a code that was a number", put(DIAGNOSES, H41, icd_code="496.0"), Left(unreadable_code=(0, 0, 1))),
    ("a number that is a code", put(DIAGNOSES, H41, icd_code="428.0"), Kept()),
    ("a patient in the name of a file that is not read",
     Files(lambda content: content.update({"files/p10/p77310002/s1_2009-03-05.txt": b"x"})), Same()),
    ("admittime in 1800", put(ADMISSIONS, H21, admittime="1800-01-01 00:00:00"), Left(implausible_time=ROW_OF["v21"])),
    ("dischtime in 9999", put(ADMISSIONS, H21, dischtime="9999-12-31 00:00:00"), OPEN_STAY),
    ("admission before birth", put(ADMISSIONS, H21, admittime="2050-01-01 00:00:00"), Left(before_birth=ROW_OF["v21"])),
    ("admission after death", put(PATIENTS, S2, dod="2159-05-01"), Left(after_death=ROW_OF["v22"])),
    ("discharge before admission", put(ADMISSIONS, H21, dischtime="2159-03-01 00:00:00"), Kept()),
    ("code without hadm_id", put(DIAGNOSES, H41, hadm_id=None), Left(unlinked_code=(0, 0, 1))),
    ("code of an unknown admission", put(DIAGNOSES, H41, hadm_id="88429999"), Left(unlinked_code=(0, 0, 1))),
    ("code of another's admission", put(DIAGNOSES, H41, hadm_id="88420021"), Left(unlinked_code=(0, 0, 1))),
    ("null code", put(DIAGNOSES, H41, icd_code=None), Left(missing_code=(0, 0, 1))),
    ("blank code", put(DIAGNOSES, H41, icd_code="       "), Left(missing_code=(0, 0, 1))),
    ("code of no shape", put(DIAGNOSES, H41, icd_code="NoDx"), Left(unreadable_code=(0, 0, 1))),
    ("ICD-9 called ICD-10", put(DIAGNOSES, H41, icd_version="10"), Left(unreadable_code=(0, 0, 1))),
    ("ICD-10 called ICD-9", put(DIAGNOSES, H41, icd_code="I509"), Left(unreadable_code=(0, 0, 1))),
    ("no version", put(DIAGNOSES, H41, icd_version=None), Left(unreadable_code=(0, 0, 1))),
    ("version 11", put(DIAGNOSES, H41, icd_version="11"), Left(unreadable_code=(0, 0, 1))),
    ("row twice", add(DIAGNOSES, H41), Left(duplicate_code=(0, 0, 1))),
    ("negative priority", put(DIAGNOSES, H41, seq_num="-1"), Kept(cells={"priority": 1})),
    ("priority is no number", put(DIAGNOSES, H41, seq_num="first"), Kept(cells={"seq_num": 1})),
    ("no anchor_age", put(PATIENTS, S2, anchor_age=None), Kept()),
    ("visit ids as pandas writes them", with_column(DIAGNOSES, floats("hadm_id")),
     Fault("float_id", "diagnoses_icd.csv.gz")),
    ("patient ids as floats", with_column(ADMISSIONS, floats("subject_id")), Fault("float_id", "admissions.csv.gz")),
    ("no patients", gone("hosp/patients.csv.gz"), Fault("missing_file", "patients")),
    ("no admissions", gone("hosp/admissions.csv.gz"), Fault("missing_file", "admissions")),
    ("no icd_version", without_column(DIAGNOSES, "icd_version"), Fault("missing_column", "diagnoses_icd.csv.gz")),
    ("no admittime column", without_column(ADMISSIONS, "admittime"), Fault("missing_column", "admissions.csv.gz")),
    ("admissions without rows", without_rows(ADMISSIONS), Fault("empty_table", "admissions.csv.gz")),
    ("truncated gz", file("hosp/diagnoses_icd.csv.gz", half), Fault("unreadable_file", "diagnoses_icd.csv.gz")),
    ("gz without its end", file("hosp/admissions.csv.gz", lambda data: data[:-6]),
     Fault("unreadable_file", "admissions.csv.gz")),
    ("flipped bits in gz", file("hosp/patients.csv.gz", lambda data: data[:60] + bytes([data[60] ^ 0x55]) + data[61:]),
     Fault("unreadable_file", "patients.csv.gz")),
    ("no gz under the name", file("hosp/patients.csv.gz", gzip.decompress),
     Fault("unreadable_file", "patients.csv.gz")),
]  # fmt: skip

# Med-BERT TSV: visits without an id, patients without a table

DATA = "data_file"
T21, T41, T51 = (
    {"patient_id": patient, "vadate": admit}
    for patient, admit in (("77310002", "2009-03-05"), ("77310004", "2008-05-01"), ("77310005", "2009-01-07"))
)
T21_SECOND = {**T21, "diagnosis_priority": "2"}
TSV = [
    ("null patient", put(DATA, T21_SECOND, patient_id=None), Left(null_patient_id=(None, None, 1))),
    ("blank patient", put(DATA, T21_SECOND, patient_id="  "), Left(null_patient_id=(None, None, 1))),
    ("no admission", put(DATA, T21, vadate=None), Left(no_admission=ROW_OF["v21"])),
    ("admission is no date", put(DATA, T21, vadate="unclear"), Left(cells={"admit": 2}, no_admission=ROW_OF["v21"])),
    ("admission is not there", put(DATA, T21, vadate="n/a"), Left(no_admission=ROW_OF["v21"])),
    ("no discharge", put(DATA, T21, vddate=None), Kept()),
    ("discharge is no date", put(DATA, T21, vddate="14/03/2009"), Kept(cells={"discharge": 2})),
    ("flags of no kind", put(DATA, T41, poa="W", third_party_ind="perhaps"), Kept(cells={"poa": 1, "third_party": 1})),
    ("a code that was a number", put(DATA, T41, diag="ICD9_311.0"), Left(unreadable_code=(0, 0, 1))),
    ("admission in 1800", put(DATA, T21, vadate="1800-01-01"), Left(implausible_time=ROW_OF["v21"])),
    ("discharge in 9999", put(DATA, T21, vddate="9999-12-31"), OPEN_STAY),
    ("discharge before admission", put(DATA, T21, vddate="2009-03-01"), Kept()),
    ("null code", put(DATA, T41, diag=None), Left(missing_code=(0, 0, 1))),
    ("blank code", put(DATA, T41, diag="  "), Left(missing_code=(0, 0, 1))),
    ("system without a code", put(DATA, T41, diag="ICD9_"), Left(missing_code=(0, 0, 1))),
    ("code without its system", put(DATA, T41, diag="715.96"), Left(unreadable_code=(0, 0, 1))),
    ("code of no shape", put(DATA, T41, diag="ICD9_XYZ"), Left(unreadable_code=(0, 0, 1))),
    ("ICD-9 called ICD-10", put(DATA, T41, diag="ICD10_715.96"), Left(unreadable_code=(0, 0, 1))),
    ("ICD-10 called ICD-9", put(DATA, T41, diag="ICD9_I50.9"), Left(unreadable_code=(0, 0, 1))),
    ("ICD-10 called ICD-9, with an E", put(DATA, T41, diag="ICD9_E11.9"), Left(unreadable_code=(0, 0, 1))),
    ("row twice", add(DATA, T41), Left(duplicate_code=(0, 0, 1))),
    ("negative priority", put(DATA, T41, diagnosis_priority="-1"), Kept(cells={"priority": 1})),
    ("priority is no number", put(DATA, T41, diagnosis_priority="principal"), Kept(cells={"priority": 1})),
    ("no flags", put(DATA, T41, poa=None, third_party_ind=None), Kept()),
    ("ids as floats", with_column(DATA, floats("patient_id")), Fault("float_id", "data_file.tsv")),
    ("one id as a float", put(DATA, T41, patient_id="77310004.0"), Fault("float_id", "data_file.tsv")),
    ("six columns", without_column(DATA, "third_party_ind"), Told("missing_column")),
    ("no rows", without_rows(DATA), Fault("empty_table", "data_file.tsv")),
    ("no header", file("data_file.tsv", lambda data: data.split(b"\n", 1)[1]),
     Fault("unreadable_file", "data_file.tsv")),
    ("truncated in a row", file("data_file.tsv", lambda data: data[: data.rindex(b"ICD")]), Told("ragged_row")),
    ("empty folder", Files(lambda content: content.clear()), Fault("missing_file", "")),
]  # fmt: skip

# MEDS 0.4: hadm_id says the visit

EVENTS = "events"
E41 = {"hadm_id": "88420041", "code": "DIAGNOSIS//ICD//9//71596"}
ADMIT, GO = "HOSPITAL_ADMISSION//EW EMER.//EMERGENCY ROOM", "HOSPITAL_DISCHARGE//HOME"
A21, D21 = {"hadm_id": "88420021", "code": ADMIT}, {"hadm_id": "88420021"}
CODE41 = "DIAGNOSIS//ICD//"
TRAIN = "data/train/0.parquet"


BIRTH2 = {"subject_id": "77310002", "code": "MEDS_BIRTH"}
AS_TEXT = with_column(EVENTS, pl.col("time").dt.strftime("%Y-%m-%d %H:%M:%S"))


def all_of_visit_21(moment):
    """Every event of the visit."""
    return put(EVENTS, D21, time=moment)


MEDS_04 = [
    ("null subject of a code", put(EVENTS, E41, subject_id=None), Left(null_patient_id=(None, None, 1))),
    ("null code", put(EVENTS, E41, code=None), Left(missing_code=(0, 0, 1))),
    ("blank code", put(EVENTS, E41, code="  "), Left(missing_code=(0, 0, 1))),
    ("diagnosis without its code", put(EVENTS, E41, code="DIAGNOSIS//ICD//9//"), Left(unknown_pattern=(0, 0, 1))),
    ("code of no shape", put(EVENTS, E41, code=CODE41 + "9//NoDx"), Left(unreadable_code=(0, 0, 1))),
    ("ICD-9 called ICD-10", put(EVENTS, E41, code=CODE41 + "10//71596"), Left(unreadable_code=(0, 0, 1))),
    ("ICD-10 called ICD-9", put(EVENTS, E41, code=CODE41 + "9//I509"), Left(unreadable_code=(0, 0, 1))),
    # It goes to the stay around its time; outside of every stay it is a visit of its day (`--options.outside`).
    ("code without a visit", put(EVENTS, E41, hadm_id=None), Kept()),
    ("row twice", add(EVENTS, E41), Left(duplicate_code=(0, 0, 1))),
    ("code without a time", put(EVENTS, E41, time=None), Kept()),
    ("admission in 1800", put(EVENTS, A21, time=datetime(1800, 1, 1)), Left(implausible_time=ROW_OF["v21"])),
    ("visit in 9999", all_of_visit_21(datetime(9999, 12, 31)), Left(implausible_time=ROW_OF["v21"])),
    ("visit before birth", all_of_visit_21(datetime(1931, 1, 1)), Left(before_birth=ROW_OF["v21"])),
    ("visit without any time", all_of_visit_21(None), Left(no_admission=ROW_OF["v21"])),
    ("visit after death", add(EVENTS, {"subject_id": "77310002", "code": "MEDS_BIRTH"}, code="MEDS_DEATH",
                              time=datetime(2009, 5, 1)), Left(after_death=ROW_OF["v22"])),
    ("death without a time", add(EVENTS, BIRTH2, code="MEDS_DEATH", time=None), Kept(cells={"time of MEDS_DEATH": 1})),
    ("birth without a time", put(EVENTS, BIRTH2, time=None), Kept(cells={"time of MEDS_BIRTH": 1})),
    ("birth is no time", both(AS_TEXT, put(EVENTS, BIRTH2, time="July 1938")), Kept(cells={"time": 1})),
    ("death is no time", both(AS_TEXT, add(EVENTS, BIRTH2, code="MEDS_DEATH", time="in May")), Kept(cells={"time": 1})),
    ("discharge is no time", both(AS_TEXT, put(EVENTS, {"hadm_id": "88420021", "code": GO}, time="14/03/2009")),
     Kept(cells={"time": 1})),
    ("sex of no kind", put(EVENTS, {"subject_id": "77310002", "code": "GENDER//M"}, code="GENDER//8507"),
     Kept(cells={"code of sex": 1})),
    ("codes as floats", with_column(EVENTS, pl.lit(496.0).alias("code")), Fault("float_code", "0.parquet")),
    ("seconds since 1970 as times", with_column(EVENTS, pl.col("time").dt.epoch("s")),
     Fault("wrong_type", "0.parquet")),
    ("a code that was a number", put(EVENTS, E41, code=CODE41 + "9//496.0"), Left(unreadable_code=(0, 0, 1))),
    ("a code of SNOMED that is an observation",
     both(with_column(EVENTS, pl.lit(None, pl.String).alias("omop_table")),
          put(EVENTS, E41, code="SNOMED/266919005", omop_table="Observation")), Left(other_table=(0, 0, 1))),
    ("birth twice", add(EVENTS, {"subject_id": "77310002", "code": "MEDS_BIRTH"}), Kept()),
    ("discharge before admission", put(EVENTS, {"hadm_id": "88420021", "code": GO}, time=datetime(2009, 3, 1)), Kept()),
    ("no births", lambda raw: raw.update(events=raw["events"].filter(pl.col("code") != "MEDS_BIRTH")), Kept()),
    ("event of no known pattern", add(EVENTS, E41, code="SHOE SIZE//44"), Left(unknown_pattern=(0, 0, 1))),
    ("visit of two subjects", put(EVENTS, {"hadm_id": "88420111"}, hadm_id=88420021), Kept()),
    ("subject in two splits", append("splits", subject_id=77310001, split="held_out"),
     Fault("unlike_splits", "subject_splits.parquet")),
    ("subject in no split",
     lambda raw: raw.update(splits=raw["splits"].filter(pl.col("subject_id") != 77310002)), Kept()),
    ("ids as floats", with_column(EVENTS, pl.col("subject_id").cast(pl.Float64)), Fault("float_id", "0.parquet")),
    ("ids as text", with_column(EVENTS, pl.col("subject_id").cast(pl.String)), Same()),
    ("visit ids as floats", with_column(EVENTS, pl.col("hadm_id").cast(pl.Float64)), Fault("float_id", "0.parquet")),
    ("times as text", with_column(EVENTS, pl.col("time").dt.strftime("%Y-%m-%d %H:%M:%S")), Same()),
    ("no data", Files(lambda content: [content.pop(path) for path in list(content) if path.startswith("data")]),
     Fault("missing_file", "data")),
    ("no splits", gone("metadata/subject_splits.parquet"), Kept()),
    ("no dataset.json", gone("metadata/dataset.json"), Same()),
    ("no subject_id", without_column(EVENTS, "subject_id"), Fault("missing_column", "0.parquet")),
    ("no time", without_column(EVENTS, "time"), Fault("missing_column", "0.parquet")),
    ("no code", without_column(EVENTS, "code"), Fault("missing_column", "0.parquet")),
    ("no numeric_value", without_column(EVENTS, "numeric_value"), Kept()),
    ("no rows", without_rows(EVENTS), Fault("empty_table", "")),
    ("one part without rows", file(TRAIN, lambda data: parquet(pl.read_parquet(data).clear())), Kept()),
    ("truncated", file(TRAIN, half), Fault("unreadable_file", "0.parquet")),
    ("of no bytes", file(TRAIN, nothing), Fault("unreadable_file", "0.parquet")),
    ("a pointer of Git LFS", file(TRAIN, lambda data: b"version https://git-lfs.github.com/spec/v1\nsize 9\n"),
     Fault("unreadable_file", "0.parquet")),
    ("flipped footer", file(TRAIN, lambda data: data[:-40] + bytes(b ^ 0xFF for b in data[-40:-8]) + data[-8:]),
     Fault("unreadable_file", "0.parquet")),
    ("flipped pages", file(TRAIN, lambda data: data[:4] + bytes(b ^ 0xFF for b in data[4:400]) + data[400:]),
     Fault("unreadable_file", "0.parquet")),
    ("splits truncated", file("metadata/subject_splits.parquet", half),
     Fault("unreadable_file", "subject_splits.parquet")),
    ("one part lacks a column", file(TRAIN, lambda data: parquet(pl.read_parquet(data).drop("time"))),
     Fault("missing_column", "0.parquet")),
]  # fmt: skip

# MEDS 0.3: admissions and discharges say the visit

OUTSIDE = {"subject_id": "77310004", "code": "ICD9CM/715.96"}
MEDS_03 = [
    ("code outside every visit", put(EVENTS, OUTSIDE, time=datetime(2008, 5, 10)), Kept()),
    ("code of no shape", put(EVENTS, OUTSIDE, code="ICD9CM/XYZ"), Left(unreadable_code=(0, 0, 1))),
    ("row twice", add(EVENTS, OUTSIDE), Left(duplicate_code=(0, 0, 1))),
    ("null code", put(EVENTS, OUTSIDE, code=None), Left(missing_code=(0, 0, 1))),
    ("null subject of a code", put(EVENTS, OUTSIDE, subject_id=None), Left(null_patient_id=(None, None, 1))),
    ("code before birth", put(EVENTS, OUTSIDE, time=datetime(1931, 1, 1)), Left(before_birth=(0, 1, 1))),
    ("truncated", file("data/1.parquet", half), Fault("unreadable_file", "1.parquet")),
    ("no code", without_column(EVENTS, "code"), Fault("missing_column", ".parquet")),
    ("ids as floats", with_column(EVENTS, pl.col("subject_id").cast(pl.Float64)), Fault("float_id", ".parquet")),
]  # fmt: skip

# DE-SynPUF as published

STAYS, B2008 = "inpatient", "beneficiary_2008"
CLAIMS = "DE1_0_2008_to_2010_Inpatient_Claims_Sample_1.csv"
SUMMARY = "DE1_0_2008_Beneficiary_Summary_File_Sample_1.csv"
S21, S111, S51, S41 = ({"CLM_ID": f"88420{visit}"} for visit in ("021", "111", "051", "041"))
SYN2, SYN12 = ({"DESYNPUF_ID": synpuf_id(patient)} for patient in ("77310002", "77310012"))
NOBODY = synpuf_id("77319999")


def in_all_years(**cells):
    return both(*(put(f"beneficiary_{year}", SYN12, **cells) for year in (2008, 2009, 2010)))


DESYNPUF = [
    ("null id of a beneficiary", put(B2008, SYN12, DESYNPUF_ID=None), Left(null_patient_id=(1, 0, 0))),
    ("null beneficiary of a stay", put(STAYS, S111, DESYNPUF_ID=None), Left(null_patient_id=(0, 1, 0))),
    ("null beneficiary of a stay with a code", put(STAYS, S51, DESYNPUF_ID=" "), Left(null_patient_id=(0, 1, 1))),
    ("stay of an unlisted beneficiary", put(STAYS, S51, DESYNPUF_ID=NOBODY), Left(unlisted_patient=(1, 1, 1))),
    ("null claim number", put(STAYS, S111, CLM_ID=None), Left(null_visit_id=(0, 1, 0))),
    ("null claim number with a code", put(STAYS, S51, CLM_ID=None),
     Either(Left(null_visit_id=(0, 1, 0), unlinked_code=(0, 0, 1)), Left(null_visit_id=(0, 1, 1)))),
    ("stay twice", add(STAYS, S21),
     Either(Left(duplicate_visit=(0, 1, 0), duplicate_code=(0, 0, 2)), Left(duplicate_visit=(0, 1, 2)))),
    ("no admission", put(STAYS, S21, CLM_ADMSN_DT=None), Left(no_admission=ROW_OF["v21"])),
    ("admission is no date", put(STAYS, S21, CLM_ADMSN_DT="2009030X"),
     Left(cells={"clm_admsn_dt": 1}, no_admission=ROW_OF["v21"])),
    ("admission in 1800", put(STAYS, S21, CLM_ADMSN_DT="18000101"), Left(implausible_time=ROW_OF["v21"])),
    ("discharge in 9999", put(STAYS, S21, NCH_BENE_DSCHRG_DT="99991231"), OPEN_STAY),
    ("admission before birth", put(STAYS, S21, CLM_ADMSN_DT="19310101"), Left(before_birth=ROW_OF["v21"])),
    ("admission after death", put("beneficiary_2009", SYN2, BENE_DEATH_DT="20090501"), Left(after_death=ROW_OF["v22"])),
    ("discharge before admission", put(STAYS, S21, NCH_BENE_DSCHRG_DT="20090301"), Kept()),
    ("days as pandas writes them", both(with_column(STAYS, floats("NCH_BENE_DSCHRG_DT", "CLM_ADMSN_DT")),
                                        *(with_column(f"beneficiary_{year}", floats("BENE_DEATH_DT", "BENE_BIRTH_DT"))
                                          for year in (2008, 2009, 2010))), Same()),
    ("sexes and races as pandas writes them", with_column(B2008, floats("BENE_SEX_IDENT_CD", "BENE_RACE_CD")), Same()),
    ("discharge is no date", put(STAYS, S21, NCH_BENE_DSCHRG_DT="14MAR2009"), Kept(cells={"nch_bene_dschrg_dt": 1})),
    ("death is no date", put("beneficiary_2009", SYN2, BENE_DEATH_DT="MAY2009"), Kept(cells={"bene_death_dt": 1})),
    ("birth is no date", put(B2008, SYN12, BENE_BIRTH_DT="1951061"), Kept(cells={"bene_birth_dt": 1})),
    ("a code that was a number", put(STAYS, S41, ICD9_DGNS_CD_1="496.0"), Left(unreadable_code=(0, 0, 1))),
    ("code of no shape", put(STAYS, S41, ICD9_DGNS_CD_1="OTHER"), Left(unreadable_code=(0, 0, 1))),
    ("ICD-10 in ICD-9's column", put(STAYS, S41, ICD9_DGNS_CD_1="I509"), Left(unreadable_code=(0, 0, 1))),
    ("a gap among the codes", put(STAYS, S21, ICD9_DGNS_CD_2=None, ICD9_DGNS_CD_3="49121"), Kept()),
    ("second segment without codes", add(STAYS, S111, SEGMENT="2"), Left(further_segment=(0, 1, 0))),
    ("beneficiary in two years of three",  # enrolled for less
     lambda raw: raw.update({B2008: raw[B2008].filter(pl.col("DESYNPUF_ID") != SYN12["DESYNPUF_ID"])}), Kept()),
    ("sex of no kind", in_all_years(BENE_SEX_IDENT_CD="9"), Kept(cells={"bene_sex_ident_cd": 3})),
    ("a birth that differs by year", put(B2008, SYN12, BENE_BIRTH_DT="19510612"), Kept()),
    ("claim numbers as floats", with_column(STAYS, floats("CLM_ID")), Fault("float_id", CLAIMS)),
    ("claim numbers as a spreadsheet writes them", with_column(STAYS, pl.lit("8.842E+07").alias("CLM_ID")),
     Told(*FILE_RULES)),
    ("no beneficiary files", Files(lambda content: [content.pop(p) for p in list(content) if "Beneficiary" in p]),
     Fault("missing_file", "eneficiary")),
    ("no DESYNPUF_ID", without_column(B2008, "DESYNPUF_ID"), Fault("missing_column", SUMMARY)),
    ("no CLM_ADMSN_DT", without_column(STAYS, "CLM_ADMSN_DT"), Fault("missing_column", CLAIMS)),
    ("stays without rows", without_rows(STAYS), Fault("empty_table", "visits")),
    ("one beneficiary file of three is cut", file(SUMMARY, lambda data: data[: data.rindex(b",0.00,0.00,")]),
     Told("ragged_row")),
]  # fmt: skip

Q21, Q41 = ({"claim_id": f"88420{visit}"} for visit in ("021", "041"))
DESYNPUF_PARQUET = [
    ("no admission", put(STAYS, Q21, admit=None), Left(no_admission=ROW_OF["v21"])),
    ("stay twice", add(STAYS, Q21),
     Either(Left(duplicate_visit=(0, 1, 0), duplicate_code=(0, 0, 2)), Left(duplicate_visit=(0, 1, 2)))),
    ("code of no shape", put(STAYS, Q41, icd9_dx=["XYZ"]), Left(unreadable_code=(0, 0, 1))),
    ("stay of an unlisted beneficiary", put(STAYS, {"claim_id": "88420051"}, subject_id=NOBODY),
     Left(unlisted_patient=(1, 1, 1))),
    ("codes as floats", with_column(STAYS, pl.col("icd9_dx").list.eval(pl.lit(496.0))),
     Fault("float_code", "inpatient.parquet")),
    ("days since 1970", with_column(STAYS, pl.col("discharge").cast(pl.Date, strict=False).cast(pl.Int32)
                                    .fill_null(14_000)), Fault("wrong_type", "inpatient.parquet")),
    ("truncated", file("inpatient.parquet", half), Fault("unreadable_file", "inpatient.parquet")),
    ("codes as one text", with_column(STAYS, pl.col("icd9_dx").list.join(" ")), Told(*FILE_RULES)),
    ("no inpatient", gone("inpatient.parquet"), Fault("missing_file", "inpatient")),
]  # fmt: skip

# UCI 296

UCI, UCI_FILE = "diabetic_data", "diabetic_data.csv"
N6, N5 = {"encounter_id": "1842007"}, {"encounter_id": "1842006"}
DIABETES = [
    ("null patient", put(UCI, N6, patient_nbr=None), Left(null_patient_id=(None, 1, 3))),
    ("blank patient", put(UCI, N6, patient_nbr="  "), Left(null_patient_id=(None, 1, 3))),
    ("null encounter", put(UCI, N6, encounter_id=None),
     Either(Left(null_visit_id=(0, 1, 0), unlinked_code=(0, 0, 3)), Left(null_visit_id=(0, 1, 3)))),
    ("encounter twice", add(UCI, N6),
     Either(Left(duplicate_visit=(0, 1, 0), duplicate_code=(0, 0, 3)), Left(duplicate_visit=(0, 1, 3)))),
    ("code of no shape", put(UCI, N6, diag_1="diabetes"), Left(unreadable_code=(0, 0, 1))),
    ("ICD-10 among them", put(UCI, N6, diag_2="I50.9"), Left(unreadable_code=(0, 0, 1))),
    ("three codes of no shape", put(UCI, N6, diag_1="x", diag_2="y", diag_3="z"), Left(unreadable_code=(0, 0, 3))),
    ("missing code", put(UCI, N6, diag_3="?"), Either(Kept(), Left(missing_code=(0, 0, 1)))),
    ("no sex", put(UCI, N6, gender="Unknown/Invalid"), Kept()),
    ("sex of no kind", put(UCI, N6, gender="2"), Told("unexpected_value")),
    ("a code that was a number", put(UCI, N6, diag_1="496.0"), Left(unreadable_code=(0, 0, 1))),
    # This one published file is taken unchanged or not at all.
    ("no age", put(UCI, N6, age="?"), Told("unexpected_value")),
    ("two sexes of one patient", put(UCI, {"encounter_id": "8842001"}, gender="Male"), Kept()),
    ("days are no number", put(UCI, N6, time_in_hospital="week"), Told("unexpected_value")),
    ("disposition of no kind", put(UCI, N6, discharge_disposition_id="99"), Told("unexpected_value")),
    ("number is no number", put(UCI, N6, encounter_id="A-17"), Told(*FILE_RULES)),
    ("patient ids as floats", with_column(UCI, floats("patient_nbr")), Fault("float_id", UCI_FILE)),
    ("encounter ids as floats", with_column(UCI, floats("encounter_id")), Fault("float_id", UCI_FILE)),
    ("no patient_nbr", without_column(UCI, "patient_nbr"), Fault("missing_column", UCI_FILE)),
    ("no diag_1", without_column(UCI, "diag_1"), Fault("missing_column", UCI_FILE)),
    ("no time_in_hospital", without_column(UCI, "time_in_hospital"), Fault("missing_column", UCI_FILE)),
]  # fmt: skip

CASES = [
    *(("omop-csv", *case) for case in OMOP),
    *text_faults("omop-csv", "condition_occurrence.csv", b",", b"77310004", other=(b"person_id", b"stop_reason")),
    *(("omop-parquet", *case) for case in OMOP_PARQUET),
    *(("mimic-iv", *case) for case in MIMIC),
    *text_faults("mimic-iv", "hosp/diagnoses_icd.csv.gz", b",", b"77310004", other=(b"subject_id", b"seq_num")),
    *(("med-bert-tsv", *case) for case in TSV),
    *text_faults("med-bert-tsv", "data_file.tsv", b"\t", b"77310004", other=(b"patient_id", b"poa")),
    *(("meds-0.4", *case) for case in MEDS_04),
    *(("meds-0.3", *case) for case in MEDS_03),
    *(("desynpuf-csv", *case) for case in DESYNPUF),
    *text_faults("desynpuf-csv", CLAIMS, b",", b"77310004", other=(b"DESYNPUF_ID", b"AT_PHYSN_NPI")),
    *(("desynpuf-parquet", *case) for case in DESYNPUF_PARQUET),
    *(("diabetes130", *case) for case in DIABETES),
    *text_faults("diabetes130", UCI_FILE, b",", b"77320006", other=(b"patient_nbr", b"weight")),
]


@dataclass(frozen=True)
class Outcome:
    code: int
    said: str
    out: Path

    @property
    def ledger(self):
        return Ledger.from_dict(json.loads((self.out / "ledger.json").read_text(encoding="utf-8")))


@pytest.fixture
def ingested(tmp_path, monkeypatch, capfd):
    """Run `medbert ingest` in this process and check what must hold whatever came."""

    def run(kind, change=None, files=None, *more, shards=2):
        source, name = write_source(kind, tmp_path / "source", change, files)
        out = tmp_path / "ehr"
        argv = ["medbert", "ingest", str(source), str(out), "--format", name, "--workers", "1", *more]
        argv += ["--shards", str(shards)]
        argv.append("--allow-loss")  # one visit of few is more than the share of which the command complains
        monkeypatch.setattr(sys, "argv", argv)
        capfd.readouterr()
        try:
            code = cli.main() or 0
        except SystemExit as end:
            code = end.code or 0
        said = capfd.readouterr()
        outcome = Outcome(code, said.out + said.err, out)
        assert_private(outcome)
        return outcome

    return run


def assert_private(outcome):
    assert "Traceback" not in outcome.said
    written = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(outcome.out.glob("*.json"))]
    for record in written:
        record.pop("last_day", None)  # of source.json: data like the tables beside it, and never said
    leaks = {word for word in canaries() for text in (outcome.said, *map(json.dumps, written)) if word in text}
    assert leaks == set()


def assert_refused(outcome, rules, name=""):
    assert outcome.code not in (0, None), "a fault of a file must be refused"
    lines = [line for line in outcome.said.splitlines() if any(f"[{rule}]" in line for rule in rules)]
    assert lines, f"no line names one of {rules}: {outcome.said}"
    assert any(name in line for line in lines), f"no line names {name}: {lines}"
    assert all("; " in line or ": " in line for line in lines)
    assert not (outcome.out / "source.json").exists(), "nothing that looks like finished tables"


def counted(outcome):
    """Lines of the ledger that took somebody, after the balance was struck against the tables."""
    assert outcome.code == 0, outcome.said
    ledger, tables = outcome.ledger, read_tables(outcome.out)
    ledger.check(patients=tables.patients.height, visits=tables.visits.height, codes=tables.diagnoses.height)
    lines = {line.rule: (line.left.patients, line.left.visits, line.left.codes) for line in ledger.lines}
    return {rule: counts for rule, counts in lines.items() if any(counts)}


def agrees(lines, expected):
    return set(lines) == set(expected) and all(
        want is None or got == want for rule in expected for got, want in zip(lines[rule], expected[rule], strict=True)
    )


@pytest.fixture(scope="session")
def sound(tmp_path_factory):
    """The sound sources' content hashes and what came of them."""
    from medbert_jax.ingest.ingest import ingest

    known = {}

    def of(kind):
        if kind not in known:
            folder = tmp_path_factory.mktemp("sound")
            source, name = write_source(kind, folder / "source")
            ledger = ingest(source, folder / "ehr", format=name, shards=2, workers=1)
            known[kind] = read_tables(folder / "ehr").source.content_hash, ledger
        return known[kind]

    return of


@pytest.mark.parametrize(
    ("kind", "change", "expected"),
    [pytest.param(kind, *case, id=f"{kind}: {name}".replace(" ", "_")) for kind, name, *case in CASES],
)
@pytest.mark.parametrize("shards", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_bad_input(ingested, sound, kind, change, expected, shards):
    files = change if isinstance(change, Files) else None
    outcome = ingested(kind, None if files else change, files, shards=shards)
    if isinstance(expected, Fault):
        assert_refused(outcome, [expected.rule], expected.file)
    elif isinstance(expected, Told):
        assert_refused(outcome, expected.rules)
    else:
        lines = counted(outcome)
        ways = expected.ways if isinstance(expected, Either) else (expected,)
        assert any(agrees(lines, way.lines) for way in ways), f"left: {lines}"
        unknown = json.loads((outcome.out / "ledger.json").read_text(encoding="utf-8"))["unreadable_cells"]
        assert unknown in [way.cells for way in ways]
        if isinstance(expected, Same):
            assert read_tables(outcome.out).source.content_hash == sound(kind)[0]


def test_the_table_is_large_enough():
    """At least 120 cases, at least 8 for every reader, none named twice."""
    readers = Counter(kind.rsplit("-", 1)[0] if kind[:4] in ("omop", "meds", "desy") else kind for kind, *_ in CASES)
    assert len(CASES) >= 120
    assert set(readers) == {"omop", "meds", "mimic-iv", "med-bert-tsv", "desynpuf", "diabetes130"}
    assert min(readers.values()) >= 8
    assert max(Counter((kind, name) for kind, name, *_ in CASES).values()) == 1


def test_a_sound_source_passes_the_command_line(ingested, sound):
    for kind in ("omop-csv",):
        outcome = ingested(kind)
        assert counted(outcome) == {}
        assert outcome.ledger.to_dict() == sound(kind)[1].to_dict()


def test_the_canaries_sing(ingested, monkeypatch):
    """Planted fault: a command that prints a patient id is noticed."""
    monkeypatch.setattr(cli, "main", lambda: print("patient 77310002 came on 2009-03-05"))
    with pytest.raises(AssertionError, match="77310002"):
        ingested("omop-csv")


def test_faults_of_all_files_are_said_at_once(ingested):
    def change(raw):
        without_column(PERSON, "person_id")(raw)
        with_column(VISIT, floats("person_id"))(raw)
        without_rows(CONDITION)(raw)

    outcome = ingested("omop-csv", change)
    assert_refused(outcome, ["missing_column"], "person.csv")
    assert_refused(outcome, ["float_id"], "visit_occurrence.csv")
    assert_refused(outcome, ["empty_table"], "condition_occurrence.csv")


def test_all_missing_files_and_columns_are_said_at_once(ingested):
    def change(raw):
        without_column(DIAGNOSES, "icd_code")(raw)
        without_column(DIAGNOSES, "icd_version")(raw)

    outcome = ingested(
        "mimic-iv", change, lambda content: [content.pop(f"hosp/{n}.csv.gz") for n in (PATIENTS, ADMISSIONS)]
    )
    for name in (PATIENTS, ADMISSIONS):
        assert_refused(outcome, ["missing_file"], name)
    assert "icd_code" in outcome.said and "icd_version" in outcome.said


def test_many_row_faults_are_each_counted_once(ingested):
    """First rule that applies; a visit that is both in 1800 and before birth is counted in 1800."""
    change = both(
        put(PERSON, P12, person_id=None),
        add(PERSON, P2),
        put(VISIT, V21, **starts("1800-01-01 00:00:00")),
        put(VISIT, V11, visit_start_date=None, visit_start_datetime=None),
        put(CONDITION, C41, visit_occurrence_id="77", **NEVER),
        add(CONDITION, {"visit_occurrence_id": "88420051"}),
    )
    assert counted(ingested("omop-csv", change)) == {
        "null_patient_id": (1, 0, 0),
        "duplicate_patient": (1, 0, 0),
        "no_admission": (0, 1, 0),
        "implausible_time": (0, 1, 2),
        "unlinked_code": (0, 0, 1),
        "duplicate_code": (0, 0, 1),
    }


@pytest.mark.parametrize("kind", ["omop-csv", "mimic-iv"])
def test_one_visit_id_of_two_patients_does_not_depend_on_the_shards(tmp_path, kind):
    """The contract's duplicate_visit is of one patient; whatever two patients' visit is, shards must not decide it."""
    from medbert_jax.ingest.ingest import ingest

    table, visit = {"omop-csv": (VISIT, "visit_occurrence_id"), "mimic-iv": (ADMISSIONS, "hadm_id")}[kind]
    source, name = write_source(kind, tmp_path / "source", put(table, {visit: "88420111"}, **{visit: "88420021"}))
    results = []
    for shards in (1, 2, 5, 16):
        out = tmp_path / f"ehr-{shards}"
        try:
            ledger = ingest(source, out, format=name, shards=shards, workers=1)
        except ValueError as error:
            assert not leaked(str(error))
            results.append("refused")
        else:
            results.append((read_tables(out).source.content_hash, ledger.to_dict()))
    assert all(result == results[0] for result in results)


def leaked(text):
    return [word for word in canaries() if word in text]


@pytest.mark.parametrize("kind", ["omop-csv", "mimic-iv"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_which_of_two_unlike_rows_stays_does_not_depend_on_their_order(tmp_path, kind, seed):
    """A patient and a visit are there twice, unlike; the rows come in other orders and shards."""
    from medbert_jax.ingest.ingest import ingest

    change = {
        "omop-csv": both(add(PERSON, P2, year_of_birth="1939"), add(VISIT, V21, **ends("2009-03-15 10:00:00"))),
        "mimic-iv": both(add(PATIENTS, S2, gender="F"), add(ADMISSIONS, H21, dischtime="2159-03-15 10:00:00")),
    }[kind]

    def mixed(raw):
        change(raw)
        raw.update({n: table.sample(fraction=1, shuffle=True, seed=seed) for n, table in raw.items()})

    hashes = []
    for place, alter in enumerate((change, mixed)):
        source, name = write_source(kind, tmp_path / f"source{place}", alter)
        ingest(source, tmp_path / f"ehr{place}", format=name, shards=1 + 2 * place, workers=1)
        hashes.append(read_tables(tmp_path / f"ehr{place}").source.content_hash)
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("omop-csv", without_column(PERSON, "person_id")),
        ("meds-0.4", file(TRAIN, half)),
        ("mimic-iv", with_column(DIAGNOSES, floats("hadm_id"))),
    ],
    ids=["missing column", "truncated", "floats"],
)
def test_a_fault_ends_the_real_command(tmp_path, kind, change):
    files = change if isinstance(change, Files) else None
    source, name = write_source(kind, tmp_path / "source", None if files else change, files)
    command = "from medbert_jax.cli import main; main()"
    argv = ["ingest", str(source), str(tmp_path / "ehr"), "--format", name, "--workers", "1"]
    done = subprocess.run([sys.executable, "-c", command, *argv], capture_output=True, text=True, timeout=120)
    outcome = Outcome(done.returncode, done.stdout + done.stderr, tmp_path / "ehr")
    assert_private(outcome)
    assert_refused(outcome, FILE_RULES)


@pytest.mark.parametrize("source", ["nowhere", "a file"])
def test_a_source_that_is_not_there(tmp_path, monkeypatch, capsys, source):
    path = tmp_path / "nowhere"
    if source == "a file":
        path = tmp_path / "notes.docx"
        path.write_bytes(b"PK\x03\x04")
    monkeypatch.setattr(sys, "argv", ["medbert", "ingest", str(path), str(tmp_path / "ehr"), "--format", "omop"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    said = capsys.readouterr()
    assert end.value.code not in (0, None) and "Traceback" not in said.err + said.out
    assert path.name in said.err


def test_an_earlier_result_does_not_pass_for_that_of_a_refused_source(tmp_path, monkeypatch):
    """After a refusal the folder holds the old tables whole, or none; never a mixture."""
    from medbert_jax.ingest.ingest import ingest

    source, name = write_source("omop-csv", tmp_path / "source")
    ingest(source, tmp_path / "ehr", format=name, shards=2, workers=1)
    before = read_tables(tmp_path / "ehr").source.content_hash
    bad, _ = write_source("omop-csv", tmp_path / "bad", without_rows(PERSON))
    with pytest.raises(ValueError, match="empty_table"):
        ingest(bad, tmp_path / "ehr", format=name, shards=3, workers=1)
    try:
        after = read_tables(tmp_path / "ehr").source.content_hash
    except (FileNotFoundError, ValueError):
        return
    assert after == before


def test_csv_writes_what_the_cases_expect():
    """The writers' text: header, then rows, ended by a line break."""
    assert csv(pl.DataFrame({"a": ["1"], "b": ["x,y"]})) == b'a,b\n1,"x,y"\n'
