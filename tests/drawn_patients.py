"""Hand-drawn patients as EHR tables, and the fate of each under a cohort spec."""

from datetime import date, datetime

import polars as pl

from medbert_jax.cohorts.judging import judge
from medbert_jax.cohorts.select import select_cohort
from medbert_jax.ehr.schema import SCHEMAS, EhrSource, EhrTables, check_tables


def visit(admit, codes="", days=0, *, discharge="", age_days=None, precision=None, kind="outpatient"):
    """One encounter: admitted on an ISO day (or time), for so many days; codes apart by blanks, ICD-9-CM where bare.

    `discharge` None is an unknown one, another text its time. "428.0@2010-01-05T10:00$": a code with a time of its own,
    and of the bill ("!": not of it).
    """
    begin = datetime.fromisoformat(admit) if admit else None
    end = begin.replace(hour=min(begin.hour + 1, 23)) if begin else None
    if discharge is None:
        end = None
    elif discharge:
        end = datetime.fromisoformat(discharge)
    elif days:
        end = datetime.fromordinal(begin.toordinal() + days).replace(hour=12)
    return {
        "admit_time": begin,
        "discharge_time": end,
        "codes": [code if "/" in code else f"ICD9CM/{code}" for code in codes.split()],
        "age_days": age_days,
        "age_precision_days": precision,
        "visit_type": kind,
    }


_BILLED = {"$": True, "!": False}


def _diagnosis(text):
    code, _, time = text.rstrip("".join(_BILLED)).partition("@")
    system, _, code = code.partition("/")
    time = datetime.fromisoformat(time) if time else None
    return {"code_system": system, "code": code, "time": time, "captured_at_billing": _BILLED.get(text[-1])}


def person(*visits, born="1950-06-15", died=None, drugs=(), results=(), procedures=(), followed=(), sex=None):
    """A patient: drugs (day, ingredient), results (day, LOINC code, value, unit), procedures (day, "SYSTEM/code"), the
    times in which he is followed (first day, last day)."""
    return {
        "birth_date": date.fromisoformat(born) if born else None,
        "death_date": date.fromisoformat(died) if died else None,
        "sex": sex,
        "visits": visits,
        "follow_up": [{"start": date.fromisoformat(start), "end": date.fromisoformat(end)} for start, end in followed],
        "medications": [
            {"time": time, "ingredient": name, "code_system": "RxNorm", "code": "1"} for time, name in drugs
        ],
        "measurements": [
            {"time": time, "code_system": "LOINC", "code": code, "value": value, "unit": unit}
            for time, code, value, unit in results
        ],
        "procedures": [
            {"time": time, "code_system": code.split("/")[0], "code": code.split("/")[1]} for time, code in procedures
        ],
    }


def tables_of(people: dict[str, dict], *, last_day="2017-12-31", without=(), dates=True) -> EhrTables:
    """EHR tables of such people; `follow_up` is there where one is followed. An event's day may be a visit's number:
    then it has that visit and no time."""
    rows = {name: [] for name in SCHEMAS}
    for patient_id, one in people.items():
        rows["patients"].append({"patient_id": patient_id, **one})
        for order, drawn in enumerate(one["visits"], 1):
            key = {"patient_id": patient_id, "visit_id": f"{patient_id}-{order}"}
            rows["visits"].append({**key, "order": order, **drawn})
            rows["diagnoses"] += [{**key, **_diagnosis(code)} for code in drawn["codes"]]
        rows["follow_up"] += [{"patient_id": patient_id, **period} for period in one["follow_up"]]
        for table in ("medications", "measurements", "procedures"):
            for event in one[table]:
                at = event["time"]
                place = (
                    {"visit_id": f"{patient_id}-{at}", "time": None}
                    if isinstance(at, int)
                    else {"time": datetime.fromisoformat(at) if at else None}
                )
                rows[table].append({"patient_id": patient_id, **event, **place})
    frames = {
        name: pl.DataFrame(
            {column: [row.get(column) for row in rows[name]] for column in schema}, schema=schema, strict=False
        )
        for name, schema in SCHEMAS.items()
        if name not in without and (name != "follow_up" or rows[name])
    }
    source = EhrSource("drawn", has_dates=dates, age_precision="day", last_day=last_day)
    tables = EhrTables(**frames, source=source)
    assert [fault for fault in check_tables(tables) if "empty" not in fault] == []
    return tables


def explain(tables: EhrTables, spec) -> pl.DataFrame:
    """One row per patient, by patient_id: leaves_under, label, index_order, input_until, prediction_time, and what each
    rule says, in a Boolean column named by its id."""
    patients, _ = judge(tables, spec, every_rule=True)
    rules = [pl.col(f"rule:{rule.id}").fill_null(False).alias(rule.id) for rule in spec.rules]
    columns = ("patient_id", "leaves_under", "label", "index_order", "input_until", "prediction_time")
    return patients.select(*columns, *rules).sort("patient_id")


def fates(people: dict[str, dict], spec, **settings) -> dict:
    """For every patient: (label, index_order, input_until), or the rule under which he left. Frame, ledger and
    explanation say the same."""
    tables = tables_of(people, **settings)
    (frame, ledger), said = select_cohort(tables, spec), explain(tables, spec)
    found = {row[0]: row[1] for row in said.select("patient_id", "leaves_under").iter_rows()}
    found |= {row[0]: row[1:4] for row in frame.iter_rows()}
    assert sum(said["leaves_under"].is_null()) == frame.height
    assert {line.rule: line.left.patients for line in ledger.lines if line.left.patients} == {
        rule: list(found.values()).count(rule) for rule in found.values() if isinstance(rule, str)
    }
    for row in said.iter_rows(named=True):
        assert row.get(row["leaves_under"], True) is True
    return {name: found[name] for name in people}
