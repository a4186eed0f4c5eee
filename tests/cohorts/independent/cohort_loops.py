"""The disease cohorts once more, in plain Python loops, written from the definition alone and not from the package.

Two implementations that were made apart and agree on every patient are worth more than one with many tests. So nothing
here imports `medbert_jax.cohorts`; only the keyed hash of patient ids is shared, and polars to read Parquet.
Quotations above the rules are lines of the written definition. Where it leaves a choice, the comment says "Chosen:".

A patient's outcome is `Left(rule)` or `In(label, index_date, index_order, last_readable_order, weight)`.
Import as `from cohorts.independent.cohort_loops import …` (pytest puts `tests` on the path).
"""

import json
import re
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import NamedTuple

import polars as pl

from medbert_jax.ehr.hashing import patient_hash

NO_VISITS = "no_visits"
"""Chosen: patients without any visit leave under a rule of their own, before all others; the definition names none."""

TABLES = ("patients", "visits", "diagnoses", "medications", "measurements", "procedures", "follow_up")


class Left(NamedTuple):
    rule: str


class In(NamedTuple):
    label: int
    index_date: date
    index_order: int
    last_readable_order: int
    weight: float = 1.0
    competing_death: bool = False
    input: tuple = ()
    """(order of the visit, code system, code) of every diagnosis that is read, sorted."""
    event_day: int | None = None
    death_day: int | None = None
    censored_day: int | None = None

    @property
    def last_read(self) -> int:
        """Order of the last visit of which a diagnosis is read."""
        return max((order for order, *_ in self.input), default=0)


class Code(NamedTuple):
    system: str
    code: str
    time: datetime | None = None
    billed: bool | None = None


@dataclass
class Visit:
    order: int
    visit_id: str
    admit: datetime | None
    discharge: datetime | None
    age_days: int | None
    age_precision_days: int | None
    kind: str | None = None
    disposition: str | None = None
    codes: list[Code] = field(default_factory=list)
    answers: dict[str, bool] = field(default_factory=dict)  # of `has`, which the matched cohort asks many times

    @property
    def date(self) -> date | None:
        """ "Its date = calendar date of admit_time." """
        return self.admit.date() if self.admit else None

    @property
    def end(self) -> datetime | None:
        """ "discharged"; "a contact (any visit type but inpatient) without a discharge, over when it begins"; "an
        inpatient stay without a discharge, which is still open" """
        return self.discharge if self.discharge or self.is_open else self.admit

    @property
    def is_open(self) -> bool:
        return self.kind == "inpatient" and self.discharge is None

    @property
    def begin(self) -> datetime | None:
        """Chosen: where the admission is unknown, a visit had begun with its discharge."""
        return self.admit or self.discharge


@dataclass
class Event:
    """A row of medications, measurements or procedures."""

    date: date | None
    system: str
    code: str
    ingredient: str | None = None
    value: float | None = None
    unit: str | None = None
    visit: Visit | None = None
    time: datetime | None = None


@dataclass
class Patient:
    patient_id: str
    shard: int
    birth_date: date | None
    death_date: date | None
    death_time: datetime | None = None
    visits: list[Visit] = field(default_factory=list)  # by order
    medications: list[Event] = field(default_factory=list)
    measurements: list[Event] = field(default_factory=list)
    procedures: list[Event] = field(default_factory=list)
    late_visits: list[Visit] = field(default_factory=list)  # that begin after the death
    lifeless: bool = False  # "Who has no encounter in life leaves": his record is judged as it stands until then
    sex: str | None = None
    followed: list[tuple[date, date]] | None = None  # first and last days, in their order; None: the source has no such

    def followed_since(self, day: date) -> date | None:
        """ "from the first day of the follow-up that covers the day of the prediction; where the source does not say
        who is followed, from the first visit" """
        if self.followed is None:
            begun = [visit.begin.date() for visit in self.visits if visit.begin is not None]
            return min(begun, default=None)
        return next((start for start, end in self.followed if start <= day <= end), None)

    def followed_until(self, day: date) -> date | None:
        """The last day of that follow-up (the day before, of who is not followed); None: to the end of the source."""
        if self.followed is None:
            return None
        return next((end for start, end in self.followed if start <= day <= end), day - timedelta(days=1))


# ---------------------------------------------------------------------------------------------------------- reading


def read_ehr(folder) -> dict[str, Patient]:
    """All patients of a folder of EHR tables; each knows its shard, from the file's name."""
    folder = Path(folder)
    records: dict[str, Patient] = {}
    for path in sorted((folder / "patients").glob("*.parquet")):
        shard = int(re.fullmatch(r"shard-(\d+)-of-\d+\.parquet", path.name).group(1))
        tables = {}
        for name in TABLES:
            file = folder / name / path.name
            tables[name] = pl.read_parquet(file).to_dicts() if file.exists() else []
        records.update(records_of(tables, shard))
    return records


def read_last_day(folder) -> date:
    """ "Last day of the source = the latest admission date of the whole source (all shards)": `last_day`."""
    said = json.loads((Path(folder) / "source.json").read_text())
    last_day = said.get("last_day") or said["source"]["last_day"]
    return date.fromisoformat(last_day)


def records_of(tables: dict[str, list[dict]], shard: int = 0) -> dict[str, Patient]:
    """Patients from the rows of the tables of one shard, by table name."""
    records = {
        row["patient_id"]: Patient(
            row["patient_id"], shard, row["birth_date"], row["death_date"], row["death_time"], sex=row["sex"]
        )
        for row in tables["patients"]
    }
    if tables.get("follow_up"):
        for patient in records.values():
            patient.followed = []
        for row in sorted(tables["follow_up"], key=lambda row: row["start"]):
            records[row["patient_id"]].followed.append((row["start"], row["end"]))
    by_id: dict[tuple[str, str], Visit] = {}
    for row in tables["visits"]:
        visit = Visit(
            row["order"],
            row["visit_id"],
            row["admit_time"],
            row["discharge_time"],
            row["age_days"],
            row["age_precision_days"],
            row["visit_type"],
            row["discharge_disposition"],
        )
        by_id[row["patient_id"], row["visit_id"]] = visit
        records[row["patient_id"]].visits.append(visit)
    # "Visits are put in order by `order` alone."
    for patient in records.values():
        patient.visits.sort(key=lambda visit: visit.order)
    # "Two codes in one encounter are one encounter; encounters count by visit id": codes hang on their visit.
    for row in tables["diagnoses"]:
        by_id[row["patient_id"], row["visit_id"]].codes.append(
            Code(row["code_system"], row["code"], row["time"], row["captured_at_billing"])
        )
    for name in ("medications", "measurements", "procedures"):
        for row in tables.get(name) or []:
            visit = by_id.get((row["patient_id"], row["visit_id"]))
            event = Event(event_date(row["time"], visit), row["code_system"], row["code"])
            event.visit, event.time = visit, row["time"]
            event.ingredient, event.value, event.unit = row.get("ingredient"), row.get("value"), row.get("unit")
            getattr(records[row["patient_id"]], name).append(event)
    for patient in records.values():
        end_with_death(patient)
    return records


def end_with_death(patient: Patient) -> None:
    """ "A patient died at the earliest of what the source says: the death by the clock or, without one, its day, and
    the discharge of an encounter that ended in death. Midnight is no clock. Encounters that begin after it, and drugs,
    results and procedures of that time or of such encounters, are no part of the record." """
    said = []
    if patient.death_time is not None and patient.death_time.time() != time(0):
        said.append(patient.death_time)
    elif patient.death_date is not None:
        said.append(datetime.combine(patient.death_date, time.max))
    for visit in patient.visits:
        if visit.disposition == "expired" and visit.admit and visit.discharge and visit.discharge >= visit.admit:
            whole_day = visit.discharge.time() == time(0)
            said.append(datetime.combine(visit.discharge.date(), time.max) if whole_day else visit.discharge)
    if not said:
        return
    died = min(said)
    patient.death_date = died.date()
    day_alone = died.time() == time.max
    # "An encounter in which the death lies ended in death."
    for visit in patient.visits:
        if visit.admit and visit.discharge and visit.admit <= died:
            inside = visit.discharge.date() >= died.date() if day_alone else visit.discharge >= died
            visit.disposition = "expired" if inside else visit.disposition
    late = [visit for visit in patient.visits if visit.admit is not None and visit.admit > died]
    patient.late_visits = late
    if late and len(late) == len(patient.visits):
        patient.lifeless = True
        return
    patient.visits = [visit for visit in patient.visits if visit not in late]
    for name in ("medications", "measurements", "procedures"):
        kept = [
            event
            for event in getattr(patient, name)
            if event.visit not in late and not (event.time is not None and event.time > died)
        ]
        setattr(patient, name, kept)


def event_date(time: datetime | None, visit: Visit | None) -> date | None:
    """ "Date of a medication/measurement/procedure row = date of its `time`, else of its visit's admit_time, else
    unknown (never counted)." """
    if time is not None:
        return time.date()
    return visit.date if visit is not None else None


# ------------------------------------------------------------------------------------------------------------ codes


def falls_under(code: str, prefix: str) -> bool:
    """ "Codes match by whole prefix in the code system (ICD9CM/428 = 428, 428.0, 428.21; not 4280)."

    Chosen: below a prefix that has a dot itself, further digits fall under it (648.0 takes 648.03).
    """
    if code == prefix:
        return True
    return code.startswith(prefix) if "." in prefix else code.startswith(prefix + ".")


def has(visit: Visit, condition: str) -> bool:
    if condition not in visit.answers:
        visit.answers[condition] = any(is_code_of(condition, code.system, code.code) for code in visit.codes)
    return visit.answers[condition]


def is_code_of(condition: str, system: str, code: str) -> bool:
    if system == "ICD9CM":
        if condition == "type_2":  # "250.x0, 250.x2 (x = 0…9); bare 250 or 250.x without the fifth digit is not type_2"
            return re.fullmatch(r"250\.[0-9][02]", code) is not None
        if condition == "type_1":  # "250.x1, 250.x3"
            return re.fullmatch(r"250\.[0-9][13]", code) is not None
        if condition == "other_cancer":  # "ICD9 140–209 except 157, 173"
            category = code.split(".")[0]
            return category.isdigit() and 140 <= int(category) <= 209 and category not in ("157", "173")
        return any(falls_under(code, prefix) for prefix in ICD9[condition])
    # "ICD10CM only; other ICD-10 (ICD10, ICD10GM) are other systems."
    if system == "ICD10CM":
        if condition == "other_cancer":  # "ICD10 C00–C97 except C25, C44"
            # Chosen: categories whose second sign is no number (C4A Merkel cell, C7A, C7B) lie between C00 and C97
            # as text and are cancers.
            category = code.split(".")[0]
            return "C00" <= category <= "C97" and category not in ("C25", "C44")
        return any(falls_under(code, prefix) for prefix in ICD10[condition])
    return False


ICD9 = {
    "diabetes": ["250"],
    "diabetes_insipidus": ["253.5", "588.1"],
    "gestational": ["648", "V12.21"],
    "gestational_strict": ["648.0", "648.8"],
    "neonatal": ["775"],
    "secondary": ["249"],
    # "ICD-9 428.*, 404.03, 404.13, 402.11, 404.11, 402.01, 404.01, 402.91, 398.91, 404.93, 404.91"
    "heart_failure": [
        "428", "404.03", "404.13", "402.11", "404.11", "402.01", "404.01", "402.91", "398.91", "404.93", "404.91",
    ],
    "pancreatic_cancer": ["157"],
}  # fmt: skip
ICD10 = {
    "diabetes": ["E10", "E11", "E13"],
    "type_2": ["E11"],
    "diabetes_insipidus": ["E23.2", "N25.1"],
    "gestational": ["O24", "Z86.32"],
    "gestational_strict": ["O24"],
    "neonatal": ["P70"],
    "secondary": ["E08", "E09"],
    "type_1": ["E10"],
    # "ICD-10 I50.*, I11.0, I09.81, I13.2, I97.13, I97.130, I97.131, I13.0"
    "heart_failure": ["I50", "I11.0", "I09.81", "I13.2", "I97.13", "I97.130", "I97.131", "I13.0"],
    "pancreatic_cancer": ["C25"],
}


# ----------------------------------------------------------------------------- labs, drugs, procedures that verify

A1C = ("4548-4", "4549-2", "17855-8", "17856-6", "59261-8")
BNP = ("30934-4", "42637-9")
NT_PROBNP = ("33762-6", "71425-3")

DIABETES_DRUGS = (
    "metformin", "chlorpropamide", "glimepiride", "glyburide", "glipizide", "tolbutamide", "tolazamide",
    "pioglitazone", "rosiglitazone", "sitagliptin", "saxagliptin", "alogliptin", "linagliptin", "repaglinide",
    "nateglinide", "miglitol", "acarbose", "insulin",
)  # fmt: skip
DIURETICS = (
    "furosemide", "bumetanide", "torsemide", "ethacrynic acid", "hydrochlorothiazide", "chlorthalidone", "metolazone",
    "indapamide", "spironolactone", "eplerenone", "amiloride", "triamterene",
)  # fmt: skip

# "dialysis: CPT4 90935, 90937, 90945, 90947, 90951–90970, 90999; artificial heart: CPT4 33975–33983, 33990–33993,
# 33927–33929"
CPT4 = {"90935", "90937", "90945", "90947", "90999"}
for first, last in ((90951, 90970), (33975, 33983), (33990, 33993), (33927, 33929)):
    CPT4 |= {str(number) for number in range(first, last + 1)}
# "ICD9Proc 39.95, 54.98; 37.52, 37.60, 37.62, 37.63, 37.65, 37.66, 37.68"
ICD9_PROCEDURES = {"39.95", "54.98", "37.52", "37.60", "37.62", "37.63", "37.65", "37.66", "37.68"}
# "ICD10PCS 5A1D; ICD10PCS 02HA"
ICD10_PROCEDURES = ("5A1D", "02HA")


def unit_of(event: Event) -> str | None:
    """The unit without blanks around it; None: unknown. Chosen: an empty text is unknown, capitals don't matter."""
    return (event.unit or "").strip().lower() or None


def is_high_a1c(event: Event) -> bool:
    """ "value ≥ 6.5 with unit % or unknown unit; value ≥ 48 with unit mmol/mol." """
    if event.system != "LOINC" or event.code not in A1C or event.value is None:
        return False
    unit = unit_of(event)
    # "LOINC 59261-8 is in mmol/mol by its definition: so it counts without a unit, and in no other."
    if unit == "mmol/mol" or (event.code == "59261-8" and unit is None):
        return event.value >= 48
    return event.code != "59261-8" and unit in (None, "%") and event.value >= 6.5


def is_high_bnp(event: Event) -> bool:
    """ "BNP: > 100 pg/mL (or ng/L, or unknown unit). NT-proBNP: > 300 pg/mL (or ng/L, or unknown)." """
    if event.system != "LOINC" or event.value is None or unit_of(event) not in (None, "pg/ml", "ng/l"):
        return False
    return (event.code in BNP and event.value > 100) or (event.code in NT_PROBNP and event.value > 300)


def contains_drug(ingredient: str | None, names: tuple[str, ...]) -> bool:
    """ "by `ingredient`, lower-cased, stripped; a combination ("metformin / sitagliptin", "a and b", commas,
    semicolons, +, &, hyphens but those of non-, pro-, anti-, -like, -free, -dependent) counts by its parts; whole names
    only: the part begins with the listed name followed by a blank or its end" """
    if ingredient is None:
        return False
    for part in re.split(
        r"[/,;+&]|(?<!\bnon)(?<!\bpro)(?<!\banti)-(?!(?:like|free|dependent)\b)|\sand\s", ingredient.lower()
    ):
        part = part.strip()
        for name in names:
            if part == name or part.startswith(name + " "):
                return True
    return False


def is_heart_procedure(event: Event) -> bool:
    if event.system == "CPT4":
        return event.code in CPT4
    if event.system == "ICD9Proc":
        return event.code in ICD9_PROCEDURES
    return event.system == "ICD10PCS" and event.code.startswith(ICD10_PROCEDURES)


def dated(events: list[Event], until: date | None) -> list[Event]:
    """Rows dated on or before a day; rows of unknown date never count. None: the whole record."""
    return [event for event in events if event.date is not None and (until is None or event.date <= until)]


# --------------------------------------------------------------------------------------------- one function per rule


def visits_with(visits: list[Visit], condition: str) -> list[Visit]:
    """ "'Encounters with X' = number of visits with at least one diagnosis of X." """
    return [visit for visit in visits if has(visit, condition)]


def first_with(visits: list[Visit], condition: str) -> Visit | None:
    found = visits_with(visits, condition)
    return found[0] if found else None


def has_incorrect_times(patient: Patient, visits: list[Visit]) -> bool:
    """ "any visit with discharge_time before admit_time, or without admit_time; or a death before every encounter" """
    for visit in visits:
        if visit.admit is None:
            return True
        if visit.discharge is not None and visit.discharge < visit.admit:
            return True
    return patient.lifeless


def excluded_diabetes(visits: list[Visit], gestational: str = "gestational", counts=None) -> str | None:
    """ "diabetes_insipidus · gestational_diabetes · neonatal_diabetes · secondary_diabetes · type_1_diabetes (any
    encounter …)" """
    for rule, condition in (
        ("diabetes_insipidus", "diabetes_insipidus"),
        ("gestational_diabetes", gestational),
        ("neonatal_diabetes", "neonatal"),
        ("secondary_diabetes", "secondary"),
        ("type_1_diabetes", "type_1"),
    ):
        if any(counts is None or counts(visit, condition) for visit in visits_with(visits, condition)):
            return rule
    return None


def diabetes_is_verified(patient: Patient, until: date | None = None) -> bool:
    """ "A1C ≥ 6.5, or taking one of: metformin, …" """
    for event in dated(patient.measurements, until):
        if is_high_a1c(event):
            return True
    return any(contains_drug(event.ingredient, DIABETES_DRUGS) for event in dated(patient.medications, until))


def heart_failure_is_verified(patient: Patient) -> bool:
    """ "Verified by a diuretic or high B-type natriuretic peptide or a procedure (dialysis, artificial-heart)": "in the
    whole record"."""
    for event in dated(patient.measurements, None):
        if is_high_bnp(event):
            return True
    for event in dated(patient.procedures, None):
        if is_heart_procedure(event):
            return True
    return any(contains_drug(event.ingredient, DIURETICS) for event in dated(patient.medications, None))


def age_at(patient: Patient, visit: Visit) -> float | None:
    """ "calendar years from birth_date (29 Feb counts as 1 March in other years: 18 is reached on 1 March). birth_date
    unknown: age_days of that visit / 365.25" """
    if patient.birth_date is not None:
        if visit.date is None:
            return None
        born, on = patient.birth_date, visit.date
        years = on.year - born.year
        if (on.month, on.day) < (born.month, born.day):
            years -= 1
        return years
    return None if visit.age_days is None else visit.age_days / 365.25


def age_is_uncertain(patient: Patient, visit: Visit, boundary: int) -> bool:
    """ "flagged `age_uncertain` where age_precision_days lets the true age lie on both sides of the boundary" """
    if patient.birth_date is not None or visit.age_days is None or not visit.age_precision_days:
        return False
    half = visit.age_precision_days / 2
    return (visit.age_days - half) / 365.25 < boundary <= (visit.age_days + half) / 365.25


def too_young(patient: Patient, visit: Visit, boundary: int) -> str | None:
    """ "under_18 · age_unknown" """
    age = age_at(patient, visit)
    if age is None:
        return "age_unknown"
    return f"under_{boundary}" if age < boundary else None


# ----------------------------------------------------------------------------------------------------- what was known


@dataclass
class Cut:
    """The end of what may be read: of a moment, was it by then?"""

    index: Visit | None = None  # before this visit's admission
    day: date | None = None  # up to the end of this day
    time: datetime | None = None  # up to this moment, inclusive

    def has(self, moment: datetime) -> bool:
        if self.index is not None:
            return moment < self.index.admit
        return moment.date() <= self.day if self.day is not None else moment <= self.time

    def has_discharge(self, moment: datetime) -> bool:
        """ "discharged by the prediction time, or at the very admission of the index (a transfer)" """
        return self.has(moment) or (self.index is not None and moment == self.index.admit)


def last_begun(visits: list[Visit], cut: Cut, last: int) -> int:
    """ "The input ends with the first visit that had not begun at the prediction time, whatever comes after it in
    `order`." `last`: the order of the last visit that may be read at all."""
    until = 0
    for visit in visits:
        if visit.order > last:
            break
        moment = visit.begin if cut.day is not None else visit.admit
        if (moment is None and cut.day is not None) or (moment is not None and not cut.has(moment)):
            break
        until = visit.order
    return until


def was_over(visit: Visit, cut: Cut) -> bool:
    if visit.discharge is not None:
        return cut.has_discharge(visit.discharge)
    return not visit.is_open  # a contact that had begun


def is_known(visit: Visit, code: Code, cut: Cut) -> bool:
    """The table of "What was known"."""
    if was_over(visit, cut):
        if code.time is None or cut.has(code.time):
            return True
        return visit.discharge is not None and code.time <= visit.discharge
    return code.time is not None and cut.has(code.time) and not code.billed


def read_up_to(visits: list[Visit], cut: Cut, until: int) -> tuple:
    return tuple(
        sorted(
            (visit.order, code.system, code.code)
            for visit in visits
            if visit.order <= until
            for code in visit.codes
            if is_known(visit, code, cut)
        )
    )


NEVER = "never"


def told(visit: Visit, condition: str) -> datetime | str | None:
    """ "A code with a time is told at that time, one without with its visit (None), but in an open stay with the first
    of the set that has a time, and if none has never" """
    times = [code.time for code in visit.codes if is_code_of(condition, code.system, code.code)]
    timed = [time for time in times if time is not None]
    if len(timed) < len(times) and not visit.is_open:
        return None
    return min(timed) if timed else NEVER


def is_told(visit: Visit, condition: str, cut: Cut) -> bool:
    """ "in `before_index`, `through_index` a visit counts as one with a code of a set if the first was told by then"

    Chosen: what was told by the discharge of a visit that was over was told by then.
    """
    when = told(visit, condition)
    if when is None or when == NEVER:
        return when is None
    at_end = visit.discharge is not None and when <= visit.discharge and cut.has_discharge(visit.discharge)
    return cut.has(when) or at_end


def told_day(visit: Visit, condition: str) -> date | None:
    """ "the later one of its own and that of the code"; None: never."""
    when = told(visit, condition)
    if when is None:
        return visit.date
    if when == NEVER:
        return None
    return when.date() if visit.date is None else max(visit.date, when.date())


def told_with(visits: list[Visit], condition: str, cut: Cut) -> list[Visit]:
    return [visit for visit in visits_with(visits, condition) if is_told(visit, condition, cut)]


# -------------------------------------------------------------------------------------------------------------- dhf


def dhf(records: dict[str, Patient]) -> dict[str, Left | In]:
    return {patient_id: dhf_of(patient) for patient_id, patient in records.items()}


def dhf_of(patient: Patient) -> Left | In:
    visits = patient.visits
    if not visits:
        return Left(NO_VISITS)
    diabetes = visits_with(visits, "diabetes")
    if not diabetes:
        return Left("no_diabetes")
    if len(diabetes) < 2:
        return Left("one_diabetes_encounter")
    if has_incorrect_times(patient, visits):
        return Left("incorrect_times")
    if rule := excluded_diabetes(visits):
        return Left(rule)
    type_2 = first_with(visits, "type_2")
    if type_2 is None:
        return Left("no_type_2")
    if not diabetes_is_verified(patient):
        return Left("diabetes_unverified")
    if rule := too_young(patient, diabetes[0], 18):
        return Left(rule)
    failures = visits_with(visits, "heart_failure")
    if failures and (rule := heart_failure_does_not_qualify(patient, failures, type_2)):
        return Left(rule)
    index = failures[0] if failures else visits[-1]
    # "died_before_index: of controls, an encounter after the death"
    if not failures and patient.late_visits:
        return Left("died_before_index")
    cut = Cut(index=index)
    last = last_begun(visits, cut, index.order - 1)
    if not (read := read_up_to(visits, cut, last)):
        return Left("input_codes")
    return In(int(bool(failures)), index.date, index.order, last, input=read)


def heart_failure_does_not_qualify(patient: Patient, failures: list[Visit], type_2: Visit) -> str | None:
    """ "A patient with any heart-failure code who does not qualify as a case leaves the cohort and is never a
    control" """
    if len(failures) < 2:
        return "hf_one_encounter"
    # "date of first HF encounter − date of first type_2 encounter < 30 days, negative included"
    if (failures[0].date - type_2.date).days < 30:
        return "hf_too_early"
    if not heart_failure_is_verified(patient):
        return "hf_unverified"
    return None


# ----------------------------------------------------------------------------------------------------- dhf-landmark


def dhf_landmark(records: dict[str, Patient], last_day: date) -> dict[str, Left | In]:
    return {patient_id: dhf_landmark_of(patient, last_day) for patient_id, patient in records.items()}


def landmark_visit(visits: list[Visit]) -> Visit | None:
    """ "T is the first day on which an encounter with type 2 diabetes was known: that of the encounter, or the later
    one of its code's own time. The index is the first encounter, by order, that was over (a contact without a
    discharge: that began) on T + 365 days or later; a stay that is still open is none." """
    days = [told_day(visit, "type_2") for visit in visits_with(visits, "type_2")]
    days = [day for day in days if day is not None]
    if not days:  # Chosen: without T there is no index visit.
        return None
    for visit in visits:
        if visit.end is not None and (visit.end.date() - min(days)).days >= 365:
            return visit
    return None


def dhf_landmark_of(patient: Patient, last_day: date) -> Left | In:
    whole = patient.visits
    if not whole:
        return Left(NO_VISITS)
    # "no_diabetes, no_type_2 (whole record) · no_index_visit"
    if not visits_with(whole, "diabetes"):
        return Left("no_diabetes")
    if not visits_with(whole, "type_2"):
        return Left("no_type_2")
    index = landmark_visit(whole)
    if index is None:
        return Left("no_index_visit")
    # "t0 = its discharge time. Everything below is judged on visits of order ≤ index and rows dated ≤ date of t0"
    t0 = index.end.date()
    cut = Cut(time=index.end)
    visits = [visit for visit in whole if visit.order <= index.order]
    if len(told_with(visits, "diabetes", cut)) < 2:
        return Left("one_diabetes_encounter")
    if has_incorrect_times(patient, visits):
        return Left("incorrect_times")
    if rule := excluded_diabetes(visits, counts=lambda visit, condition: is_told(visit, condition, cut)):
        return Left(rule)
    if not diabetes_is_verified(patient, until=t0):
        return Left("diabetes_unverified")
    if rule := too_young(patient, first_with(whole, "diabetes"), 18):
        return Left(rule)
    # "hf_before_index (any HF code up to and including the index visit, or in a visit admitted on or before the date of
    # t0)"
    for visit in visits_with(whole, "heart_failure"):
        day = told_day(visit, "heart_failure") or visit.date  # "there such a stay counts with its day"
        by_day = visit.date is not None and visit.date <= t0 and day <= t0
        if by_day or (visit.order <= index.order and is_told(visit, "heart_failure", cut)):
            return Left("hf_before_index")
    # "died_before_index (death on or before date of t0)"
    if patient.death_date is not None and patient.death_date <= t0:
        return Left("died_before_index")
    # "short_follow_up (date of t0 + 365 days > last day of the source: for everybody, event or not)"
    if t0 + timedelta(days=365) > last_day:
        return Left("short_follow_up")
    # "Input = through the index visit."
    last = last_begun(whole, cut, index.order)
    if last < index.order:
        return Left("visit_open")
    if not (read := read_up_to(whole, cut, last)):
        return Left("input_codes")
    # "The label is 1 where an encounter with heart failure is admitted on day 1 to 365 after t0, or one that had begun
    # before is told its first code of heart failure then; one code suffices."
    days = [
        told_day(visit, "heart_failure") if visit.date <= t0 else visit.date
        for visit in visits_with(whole, "heart_failure")
        if visit.date is not None
    ]
    events = [day for day in days if day is not None and 1 <= (day - t0).days <= 365]
    label, *days = first_to_come(patient, t0, min(events, default=None), 365)
    return In(label, t0, index.order, index.order, 1.0, days[1] is not None, read, *days)


def first_to_come(patient: Patient, t0: date, event: date | None, horizon: int) -> tuple:
    """Label, and days to the event, to death and to the end of follow-up: "of a patient one is known at most".

    "What comes first counts: the event, label 1; death, label 0 and competing; the end of the time in which he is
    followed, label unknown (-1): censored. On one day, in that order." Whoever is not followed on the day of the
    prediction is censored on day 0.
    """
    until = patient.followed_until(t0)
    end = horizon if until is None else (until - t0).days
    event_day = None if event is None else (event - t0).days
    death_day = None if patient.death_date is None else (patient.death_date - t0).days
    candidates = []
    if event_day is not None and event_day <= min(horizon, end):
        candidates.append((event_day, 0))
    if death_day is not None and 0 <= death_day <= min(horizon, end):
        candidates.append((death_day, 1))
    if end < horizon:
        candidates.append((end, 2))
    if not candidates:
        return 0, None, None, None
    day, what = min(candidates)
    days = [None, None, None]
    days[what] = max(day, 0)
    return (1, 0, -1)[what], *days


# ------------------------------------------------------------------------------------------------------ dhf-matched

CONTROL_POOL = 0.3
CONTROLS_PER_CASE = 2


def dhf_matched(shard_records: dict[str, Patient], last_day: date, incident: bool = False) -> dict[str, Left | In]:
    """One shard; `incident`: "the first code of heart failure alone makes a case".

    The definition names only the rule `unmatched`; who else leaves does so as `not_case`, `not_control`
    or `not_drawn` here."""
    ids = list(shard_records)
    roles = dict(zip(ids, hashes(ids, "dhf-matched/role"), strict=True))
    place = dict(zip(ids, hashes(ids, "dhf-matched/draw"), strict=True))
    # "control pool if patient_hash(patient_id, "dhf-matched/role") / 2^64 < control_pool (0.3), else case pool"
    pool = [shard_records[one] for one in ids if roles[one] / 2**64 < CONTROL_POOL]
    rest = [shard_records[one] for one in ids if roles[one] / 2**64 >= CONTROL_POOL]
    outcomes: dict[str, Left | In] = {}
    cases = []
    for patient in rest:
        cut = case_cut(patient, incident)
        if cut is not None and eligible_at(patient, cut):
            cases.append((patient, cut))
        else:
            outcomes[patient.patient_id] = Left("not_case")
    # "cases in ascending patient_hash(patient_id, "dhf-matched/draw"); each takes the first `controls_per_case` (2)
    # eligible unused controls, controls in ascending hash of the same key"
    cases.sort(key=lambda pair: place[pair[0].patient_id])
    pool.sort(key=lambda patient: place[patient.patient_id])
    at_risk = [control for control in pool if first_with(control.visits, "type_2") is not None]
    ever_eligible: set[str] = set()
    # Asked once for each control and cut: few different questions, many cases.
    asked: dict[tuple[str, date], bool] = {}
    for case, cut in cases:
        waited = (cut - first_with(case.visits, "type_2").date).days
        eligible = []
        for control in at_risk:
            if control.patient_id in outcomes:  # used
                continue
            control_cut = cut_of_control(control, waited, cut.year, last_day)
            if control_cut is None:
                continue
            question = (control.patient_id, control_cut)
            if question not in asked:
                asked[question] = eligible_at(control, control_cut, control=True)
            if asked[question]:
                ever_eligible.add(control.patient_id)
                eligible.append((control, control_cut))
        drawn = eligible[:CONTROLS_PER_CASE]
        if len(drawn) < CONTROLS_PER_CASE:  # "A case who finds fewer than two leaves (unmatched) and takes none."
            outcomes[case.patient_id] = Left("unmatched")
            continue
        # "Weights: case 1/(1−control_pool); control of a case = eligible and unused at that moment / drawn."
        outcomes[case.patient_id] = matched_row(case, cut, 1, 1 / (1 - CONTROL_POOL))
        for control, control_cut in drawn:
            outcomes[control.patient_id] = matched_row(control, control_cut, 0, len(eligible) / len(drawn))
    for control in pool:
        rule = "not_drawn" if control.patient_id in ever_eligible else "not_control"
        outcomes.setdefault(control.patient_id, Left(rule))
    return outcomes


def hashes(ids: list[str], key: str) -> list[int]:
    return [int(one) for one in patient_hash(ids, key)] if ids else []


def case_cut(patient: Patient, incident: bool) -> date | None:
    """ "qualifies as HF as in dhf (≥ 2 HF encounters, first HF ≥ 30 days after T, verified in the whole record). Cut c
    = date of the first HF encounter." """
    failures = visits_with(patient.visits, "heart_failure")
    type_2 = first_with(patient.visits, "type_2")
    if len(failures) < 1 or type_2 is None or type_2.date is None or failures[0].date is None:
        return None
    if incident:  # at least 30 days are asked of everybody, at his date
        return failures[0].date
    if heart_failure_does_not_qualify(patient, failures, type_2):
        return None
    return failures[0].date


def cut_of_control(control: Patient, waited: int, year: int, last_day: date) -> date | None:
    """ "c = T_j + (c_i − T_i), if it lies in the calendar year of c_i, at least 30 days after T_j, and not after the
    source's last day; else not eligible" """
    type_2 = first_with(control.visits, "type_2")
    if type_2 is None or type_2.date is None:
        return None
    cut = type_2.date + timedelta(days=waited)
    return cut if cut.year == year and waited >= 30 and cut <= last_day else None


def eligible_at(patient: Patient, cut: date, control: bool = False) -> bool:
    """ "at the cut, judged on visits admitted before c and rows dated before c: ≥ 2 diabetes encounters, T exists, none
    of the five exclusions, diabetes verified, age ≥ 18 at the first diabetes encounter, no incorrect time in those
    visits, alive (no death_date < c), c − T ≥ 30 days, no HF code in a visit admitted before c (control: on or before
    c), at least one code in the input" """
    before = [visit for visit in patient.visits if visit.date is not None and visit.date < cut]
    diabetes = visits_with(before, "diabetes")
    # "At a matched date the day of such a visit is the later one of its own and that of the code."
    if sum(told_before(visit, "diabetes", cut) for visit in diabetes) < 2:
        return False
    type_2 = first_with(before, "type_2")
    if type_2 is None or (cut - type_2.date).days < 30:
        return False
    if excluded_diabetes(before, counts=lambda visit, condition: told_before(visit, condition, cut)):
        return False
    if not diabetes_is_verified(patient, until=cut - timedelta(days=1)):
        return False
    if too_young(patient, diabetes[0], 18):
        return False
    if has_incorrect_times(patient, before):
        return False
    if patient.death_date is not None and patient.death_date < cut:
        return False
    for visit in visits_with(patient.visits, "heart_failure"):
        day = told_day(visit, "heart_failure") or visit.date
        if told_before(visit, "heart_failure", cut) or (control and day is not None and day <= cut):
            return False
    last = Cut(day=cut - timedelta(days=1))
    return bool(read_up_to(patient.visits, last, last_begun(patient.visits, last, len(patient.visits))))


def told_before(visit: Visit, condition: str, cut: date) -> bool:
    day = told_day(visit, condition)
    return day is not None and day < cut


def matched_row(patient: Patient, cut: date, label: int, weight: float) -> In:
    """ "index_order = last readable order + 1" """
    day = Cut(day=cut - timedelta(days=1))
    last = last_begun(patient.visits, day, len(patient.visits))
    return In(label, cut, last + 1, last, weight, input=read_up_to(patient.visits, day, last))


# ------------------------------------------------------------------------------------------------------------- paca


def paca(records: dict[str, Patient], gap_days: int = 0) -> dict[str, Left | In]:
    return {patient_id: paca_of(patient, gap_days) for patient_id, patient in records.items()}


def paca_of(patient: Patient, gap_days: int = 0) -> Left | In:
    visits = patient.visits
    if not visits:
        return Left(NO_VISITS)
    if has_incorrect_times(patient, visits):
        return Left("incorrect_times")
    first = first_with(visits, "pancreatic_cancer")
    others = visits_with(visits, "other_cancer")
    # "has pancreatic cancer; another cancer in an encounter of lower order than the first with pancreatic cancer"
    before = [visit for visit in visits if first is not None and visit.order < first.order]
    if first is not None and told_with(before, "other_cancer", Cut(index=first)):
        return Left("paca_other_cancer_before")
    # "no pancreatic cancer; other cancer anywhere"
    if first is None and others:
        return Left("other_cancer")
    index = first or visits[-1]
    if rule := too_young(patient, index, 45):
        return Left(rule)
    # "Whoever has the outcome's codes after his death alone leaves; he is no control."
    if first is None and visits_with(patient.late_visits, "pancreatic_cancer"):
        return Left("outcome_after_death")
    # "`gap_days`: a diagnosis is read if it was known 30 days or more before the day of the index."
    cut = Cut(day=index.date - timedelta(days=gap_days)) if gap_days else Cut(index=index)
    last = last_begun(visits, cut, index.order - 1)
    if not (read := read_up_to(visits, cut, last)):
        return Left("input_codes")
    return In(int(first is not None), index.date, index.order, last, input=read)
