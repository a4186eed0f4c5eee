"""Patients written as a few lines of text, as EHR tables; and what either implementation says of them.

One line (or part between semicolons with a blank behind them) is one visit, event or fact:

    born 1950-06-15 | died 2012-01-01   "died 2012-01-01T10:30": by the clock
    2010-01-01 250.00 401.9             visit of that day, 08:00 to 17:00, with its codes
    2010-01-01/2010-01-04 250.00        the same with a discharge; "?" is unknown; T10:30 gives the minute
    2010-01-01/? kind=inpatient 250.00@2010-01-05T10:00 401.9$   type of the visit; time of a code; "$": of the bill
    2010-01-01 kind=inpatient to=expired 410.9  its disposition
    2010-01-01 age=6575 width=365 E11.9 age at the visit as the source states it, width of its band
    rx 2010-01-01 metformin             drug by ingredient; "visit2" for the date takes that of the second visit
    lab 2010-01-01 4548-4 6.5 %         LOINC, value, unit
    px 2010-01-01 CPT4 90935            procedure
    followed 2009-01-01 2011-12-31      a time in which he is followed

Visits take their order from the lines. Codes that begin with a digit or V are ICD9CM, others ICD10CM, unless the system
is written ("ICD10GM/E11.9").
"""

import dataclasses
import re
from datetime import date, datetime, time

import polars as pl
from cohorts.independent import cohort_loops
from cohorts.independent.paca_matched_loops import paca_matched

from medbert_jax.ehr.schema import SCHEMAS, EhrSource, EhrTables, check_tables

LAST_DAY = "2020-12-31"
SPECS = ("dhf", "dhf-landmark", "dhf-matched", "paca")


def rows_of(patient_id: str, text: str) -> dict[str, list[dict]]:
    """The rows of one patient by table."""
    rows: dict[str, list[dict]] = {name: [] for name in SCHEMAS}
    facts = {"born": None, "died": None, "minute": None}
    for line in re.split(r"\n|;\s", text):
        words = line.split()
        if not words:
            continue
        match words[0]:
            case "born" | "died":
                facts[words[0]] = date.fromisoformat(words[1][:10])
                facts["minute"] = datetime.fromisoformat(words[1]) if "T" in words[1] else facts["minute"]
            case "followed":
                start, end = (date.fromisoformat(word) for word in words[1:])
                rows["follow_up"].append({"patient_id": patient_id, "start": start, "end": end})
            case "rx":
                event = _event(patient_id, words[1], "RxNorm", "1")
                rows["medications"].append({**event, "ingredient": line.split(None, 2)[2]})
            case "lab":
                event = _event(patient_id, words[1], "LOINC", words[2])
                unit = " ".join(words[4:]) or None
                rows["measurements"].append({**event, "value": float(words[3]), "unit": unit})
            case "px":
                rows["procedures"].append(_event(patient_id, words[1], words[2], words[3]))
            case _:
                visit, codes = _visit(patient_id, len(rows["visits"]) + 1, words)
                rows["visits"].append(visit)
                rows["diagnoses"] += codes
    dead = {"death_date": facts["died"], "death_time": facts["minute"]}
    rows["patients"].append({"patient_id": patient_id, "birth_date": facts["born"], **dead})
    return rows


def _moment(text: str, hour: int) -> datetime | None:
    if text == "?":
        return None
    return datetime.fromisoformat(text) if "T" in text else datetime.combine(date.fromisoformat(text), time(hour))


def _visit(patient_id: str, order: int, words: list[str]) -> tuple[dict, list[dict]]:
    start, _, end = words[0].partition("/")
    said = dict(word.split("=") for word in words[1:] if "=" in word)
    visit = {
        "visit_id": f"visit{order}",
        "patient_id": patient_id,
        "order": order,
        "admit_time": _moment(start, 8),
        "discharge_time": _moment(end or start.split("T")[0], 17),
        "age_days": int(said["age"]) if "age" in said else None,
        "age_precision_days": int(said["width"]) if "width" in said else None,
        "visit_type": said.get("kind"),
        "discharge_disposition": said.get("to"),
    }
    codes = []
    for word in words[1:]:
        if "=" not in word:
            word, _, at = word.partition("@")
            at, billed = at.removesuffix("$"), word.endswith("$") or at.endswith("$")
            system, _, code = word.removesuffix("$").rpartition("/")
            system = system or ("ICD9CM" if word[0].isdigit() or word[0] == "V" else "ICD10CM")
            about = {"time": _moment(at, 12) if at else None, "captured_at_billing": billed or None}
            key = {"patient_id": patient_id, "visit_id": visit["visit_id"]}
            codes.append({**key, "code_system": system, "code": code, **about})
    return visit, codes


def _event(patient_id: str, when: str, system: str, code: str) -> dict:
    visit_id = when if when.startswith("visit") else None
    moment = None if visit_id else _moment(when, 9)
    return {"patient_id": patient_id, "visit_id": visit_id, "time": moment, "code_system": system, "code": code}


def tables_of(patients: dict[str, str], last_day: str = LAST_DAY) -> EhrTables:
    """EHR tables of patients given as text."""
    rows: dict[str, list[dict]] = {name: [] for name in SCHEMAS}
    for patient_id, text in patients.items():
        for name, some in rows_of(patient_id, text).items():
            rows[name] += some
    return tables_of_rows(rows, last_day)


def tables_of_rows(rows: dict[str, list[dict]], last_day: str = LAST_DAY) -> EhrTables:
    frames = {
        name: pl.DataFrame([{column: row.get(column) for column in schema} for row in rows[name]], schema=schema)
        for name, schema in SCHEMAS.items()
        if name != "follow_up" or rows[name]
    }
    source = EhrSource(format="literal patients", has_dates=True, age_precision="day")
    if any(one.name == "last_day" for one in dataclasses.fields(EhrSource)):
        source = dataclasses.replace(source, last_day=last_day)
    tables = EhrTables(**frames, source=source)
    assert not (faults := check_tables(tables)), faults
    return tables


def ask_loops(spec: str, tables: EhrTables, last_day: str = LAST_DAY) -> dict[str, cohort_loops.Left | cohort_loops.In]:
    """What the loops say; `spec` may be "paca+30" for a gap of 30 days."""
    records = cohort_loops.records_of({name: frame.to_dicts() for name, frame in tables.present().items()})
    day = date.fromisoformat(last_day)
    name, _, gap = spec.partition("+")
    match name:
        case "dhf":
            return cohort_loops.dhf(records)
        case "dhf-landmark":
            return cohort_loops.dhf_landmark(records, day)
        case "dhf-matched":
            return cohort_loops.dhf_matched(records, day)
        case "dhf-matched-incident":
            return cohort_loops.dhf_matched(records, day, incident=True)
        case "paca-matched":
            return paca_matched(records, day)
        case "paca":
            return cohort_loops.paca(records, int(gap or 0))
    raise ValueError(spec)
