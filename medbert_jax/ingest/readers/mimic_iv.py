"""Reader of MIMIC-IV's `hosp` tables as published on PhysioNet (versions 1.0 to 3.1; CSV, gzipped or not)."""

import polars as pl

from medbert_jax.ingest.reader import RawTable, Reader, SourceOptions, day, flag, moment, named, number, text, whole
from medbert_jax.ingest.rough import Rough

ASSUMPTIONS = (
    "Every row of admissions is a visit: an inpatient stay, or other where admission_type is an ambulatory, direct or "
    "EU observation. Emergency and intensive care modules are not read.",
    "Calendars are shifted per patient into the years 2100 to 2200: only differences of dates within a patient mean "
    "anything.",
    "Birth year is anchor_year − anchor_age. anchor_age 91 stands for every age above 89: birth and ages of these "
    "patients are unknown.",
    "Death is dod or deathtime of an admission; MIMIC-IV knows deaths up to a year after the last discharge.",
    "Race is the known value of the latest admission that has one, as published.",
    "Priority is seq_num; present on admission and captured at billing are unknown: all diagnoses are coded for "
    "billing after discharge.",
    "icd_version 9 and 10 are ICD9CM and ICD10CM for diagnoses, ICD9Proc and ICD10PCS for procedures.",
    "A prescription's code is its NDC, or the drug's name where there is none (0); ingredient is the drug's name as "
    "written; time is starttime.",
    "A laboratory value's code is its LOINC code where d_labitems gives one, else its itemid (MIMIC_ITEM); values that "
    "are no number are unknown.",
)

_OBSERVATIONS = ("AMBULATORY OBSERVATION", "DIRECT OBSERVATION", "EU OBSERVATION")
_UNKNOWN_RACES = ("UNKNOWN", "UNABLE TO OBTAIN", "PATIENT DECLINED TO ANSWER")
_CAPPED_AGE = 91


def _table(name: str, required: tuple[str, ...], optional: tuple[str, ...] = (), **more) -> RawTable:
    files = tuple(f"{folder}{name}.{end}" for folder in ("hosp/", "core/", "") for end in ("csv.gz", "csv", "parquet"))
    return RawTable(name, more.pop("patient", "subject_id"), required, optional, files=files, **more)


TABLES = (
    _table("patients", ("subject_id", "gender", "anchor_age", "anchor_year"), ("dod",), times=("dod",)),
    _table(
        "admissions",
        ("subject_id", "hadm_id", "admittime", "dischtime"),
        ("deathtime", "admission_type", "discharge_location", "race", "ethnicity", "hospital_expire_flag"),
        times=("admittime", "dischtime", "deathtime"),
        stay=("admittime", "dischtime"),
    ),
    _table("diagnoses_icd", ("subject_id", "hadm_id", "icd_code", "icd_version"), ("seq_num",), codes=("icd_code",)),
    _table("procedures_icd", ("subject_id", "hadm_id", "icd_code", "icd_version"), ("chartdate",), needed=False,
           times=("chartdate",), codes=("icd_code",)),
    _table("prescriptions", ("subject_id", "hadm_id", "starttime", "drug"), ("ndc",), needed=False,
           times=("starttime",), ids=("ndc",)),
    _table("labevents", ("subject_id", "hadm_id", "itemid", "charttime", "valuenum"), ("valueuom",), needed=False,
           times=("charttime",), ids=("itemid",), numbers=("valuenum",)),
    _table("d_labitems", ("itemid",), ("loinc_code",), needed=False, patient="", ids=("itemid",)),
)  # fmt: skip


def disposition(place: pl.Expr) -> pl.Expr:
    """Discharge disposition of the schema for the place that a patient was discharged to, in MIMIC-IV's words."""
    named = place.str.to_uppercase()
    return (
        pl.when(named.str.contains("DIED|EXPIRED|DECEASED"))
        .then(pl.lit("expired"))
        .when(named.str.contains("HOSPICE"))
        .then(pl.lit("hospice"))
        .when(named.str.contains("^HOME"))
        .then(pl.lit("home"))
        .when(still_patient(place))
        .then(pl.lit(None, pl.String))
        .when(named.str.contains("FACILITY|HOSPITAL|REHAB|NURSING|ACUTE|PSYCH|ASSISTED"))
        .then(pl.lit("facility"))
        .when(named.is_not_null() & ~named.is_in(("UNK", "UNKNOWN")))
        .then(pl.lit("other"))
    )


def still_patient(place: pl.Expr) -> pl.Expr:
    """Whether the place that a patient was discharged to says that he was not."""
    return place.str.contains(r"(?i)\bstill\b.*\b(?:patient|in hospital)\b|^not discharged").fill_null(False)


def _build(raw: dict[str, pl.DataFrame], options: SourceOptions) -> Rough:
    admissions = raw["admissions"]
    stays = admissions.select(
        patient_id="subject_id",
        visit_id=text(admissions["hadm_id"]),
        admit_time=moment(admissions["admittime"]),
        discharge_time=moment(admissions["dischtime"]),
        death_time=moment(admissions["deathtime"]),
        kind=text(admissions["admission_type"]).str.to_uppercase(),
        place=text(admissions["discharge_location"]),
        died=flag(admissions["hospital_expire_flag"]),
        # Version 1.0 calls it ethnicity.
        race=pl.coalesce(text(admissions["race"]), text(admissions["ethnicity"])),
    )
    visits = stays.select(
        "visit_id",
        "patient_id",
        "admit_time",
        "discharge_time",
        visit_type=pl.when(pl.col("kind").is_in(_OBSERVATIONS)).then(pl.lit("other")).otherwise(pl.lit("inpatient")),
        discharge_disposition=pl.when(pl.col("died")).then(pl.lit("expired")).otherwise(disposition(pl.col("place"))),
        still_patient=still_patient(pl.col("place")),
    )
    known_race = ~pl.col("race").str.to_uppercase().is_in(_UNKNOWN_RACES)
    of_stays = stays.group_by("patient_id").agg(
        race=pl.when(known_race).then("race").sort_by("admit_time", "race").drop_nulls().last(),
    )
    people = raw["patients"]
    age = whole(people["anchor_age"])
    patients = people.select(
        patient_id="subject_id",
        sex=named(people["gender"], {"F": "female", "M": "male"}),
        birth_year=pl.when(age < _CAPPED_AGE).then(whole(people["anchor_year"]) - age),
    ).join(of_stays, on="patient_id", how="left")
    deaths = [
        people.select(patient_id="subject_id", death_date=day(people["dod"])),
        stays.select("patient_id", "death_time"),
    ]
    diagnoses = _icd(raw["diagnoses_icd"], "ICD9CM", "ICD10CM").with_columns(
        priority=whole(raw["diagnoses_icd"]["seq_num"])
    )
    return Rough(
        patients=patients.select("patient_id", "sex", "birth_year", "race"),
        deaths=pl.concat(deaths, how="diagonal"),
        visits=visits,
        diagnoses=diagnoses,
        medications=_medications(raw["prescriptions"]) if "prescriptions" in raw else None,
        measurements=_measurements(raw["labevents"], raw.get("d_labitems")) if "labevents" in raw else None,
        procedures=(
            _icd(table, "ICD9Proc", "ICD10PCS").with_columns(time=moment(table["chartdate"]))
            if (table := raw.get("procedures_icd")) is not None
            else None
        ),
        has_dates=True,
        age_precision="year",
        assumptions=ASSUMPTIONS,
    )


def _icd(table: pl.DataFrame, nine: str, ten: str) -> pl.DataFrame:
    systems = {9: nine, 10: ten}
    return table.select(
        patient_id="subject_id",
        visit_id=text(table["hadm_id"]),
        code_system=whole(table["icd_version"]).replace_strict(systems, default=None, return_dtype=pl.String),
        code=text(table["icd_code"]),
    )


def _medications(table: pl.DataFrame) -> pl.DataFrame:
    ndc, drug = text(table["ndc"]), text(table["drug"])
    # 11 digits; those read as numbers have lost leading zeros. 0 means none.
    ndc = ndc.set(ndc.str.contains(r"^0*$").fill_null(True), None).str.zfill(11)
    return table.select(
        patient_id="subject_id",
        visit_id=text(table["hadm_id"]),
        time=moment(table["starttime"]),
        code_system=pl.when(ndc.is_not_null()).then(pl.lit("NDC")).otherwise(pl.lit("name")),
        code=pl.coalesce(ndc, drug),
        ingredient=drug,
    )


def _measurements(table: pl.DataFrame, items: pl.DataFrame | None) -> pl.DataFrame:
    rows = table.select(
        patient_id="subject_id",
        visit_id=text(table["hadm_id"]),
        time=moment(table["charttime"]),
        item=text(table["itemid"]),
        value=number(table["valuenum"]),
        unit=text(table["valueuom"]),
    )
    loinc = pl.DataFrame(schema={"item": pl.String, "loinc": pl.String})
    if items is not None:
        loinc = items.select(item=text(items["itemid"]), loinc=text(items["loinc_code"])).drop_nulls()
    rows = rows.join(loinc.sort("loinc").unique("item", keep="first", maintain_order=True), on="item", how="left")
    return rows.select(
        "patient_id",
        "visit_id",
        "time",
        "value",
        "unit",
        code_system=pl.when(pl.col("loinc").is_null()).then(pl.lit("MIMIC_ITEM")).otherwise(pl.lit("LOINC")),
        code=pl.coalesce("loinc", "item"),
    )


MIMIC_IV = Reader("mimic-iv", TABLES, _build)
