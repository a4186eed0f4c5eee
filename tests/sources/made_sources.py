"""Small valid sources in every format that the project reads, laid out from the formats' public documentation.

One hand-written hospital (patients, visits, codes below) is told in each format: OMOP CDM 5.4 (CSV) and 5.3 (Parquet in
folders of parts, names in capitals), MEDS 0.3 and 0.4, MIMIC-IV hosp, the Med-BERT TSV, CMS DE-SynPUF as the CSV files
of the publisher and as Parquet. UCI 296 has no dates and no such patients: a hospital of its own.

A writer's `change` may alter the raw tables (name → frame) before they are written, `files` the bytes (path → bytes).
"""

import gzip
import io
import json
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path

import polars as pl

Tables = dict[str, pl.DataFrame]
Files = dict[str, bytes]

# Patient, birth, sex, race, death.
PATIENTS = (
    ("77310001", date(1941, 3, 17), "female", "White", None),
    ("77310002", date(1938, 7, 4), "male", "Black", None),
    ("77310003", date(1929, 11, 30), "female", "White", date(2009, 6, 20)),
    ("77310004", date(1944, 2, 9), "male", "White", None),
    ("77310005", date(1950, 5, 25), "female", "Black", None),
    ("77310006", date(1936, 12, 12), "male", "White", None),
    ("77310007", date(1947, 8, 19), "female", "Black", None),
    ("77310008", date(1933, 1, 28), "male", "White", None),
    ("77310009", date(1955, 10, 6), "female", "White", None),
    ("77310010", date(1960, 4, 14), "male", "White", None),  # the one with ICD-10
    ("77310011", date(1942, 9, 2), "female", "White", None),  # a visit, no codes
    ("77310012", date(1951, 6, 11), "male", "Black", None),  # no visits
)

# Visit, patient, admission, discharge, whole days, type, system, codes with the principal one first. In order of time.
VISITS = (
    ("88420011", "77310001", "2008-02-11 08:30", "2008-02-15 12:00", 4, "inpatient", "ICD9CM", "410.71 428.0 250.00"),
    ("88420012", "77310001", "2008-09-03 09:15", "2008-09-03 11:45", 0, "outpatient", "ICD9CM", "V58.61 427.31"),
    ("88420013", "77310001", "2010-01-22 23:50", "2010-02-01 10:05", 10, "inpatient", "ICD9CM", "428.23 584.9"),
    ("88420021", "77310002", "2009-03-05 14:00", "2009-03-14 13:00", 9, "inpatient", "ICD9CM", "486 491.21"),
    ("88420022", "77310002", "2009-10-19 07:20", "2009-10-21 16:40", 2, "inpatient", "ICD9CM", "491.21 401.9 E885.9"),
    ("88420031", "77310003", "2009-06-10 03:10", "2009-06-20 22:30", 10, "inpatient", "ICD9CM", "038.9 518.81 585.3"),
    ("88420041", "77310004", "2008-05-01 08:00", "2008-05-03 10:00", 2, "inpatient", "ICD9CM", "715.96"),
    ("88420042", "77310004", "2008-05-20 18:25", "2008-05-28 09:30", 8, "inpatient", "ICD9CM", "996.66 041.11"),
    ("88420051", "77310005", "2009-01-07 21:00", "2009-01-08 06:00", 1, "emergency", "ICD9CM", "493.90"),
    ("88420061", "77310006", "2008-12-24 05:45", "2009-01-02 14:15", 9, "inpatient", "ICD9CM", "433.10 342.90"),
    ("88420062", "77310006", "2009-07-15 10:10", "2009-07-18 10:10", 3, "inpatient", "ICD9CM", "436 V12.54"),
    ("88420071", "77310007", "2010-04-04 12:00", "2010-04-06 12:30", 2, "inpatient", "ICD9CM", "250.60 357.2"),
    ("88420081", "77310008", "2008-08-08 16:16", "2008-08-13 11:11", 5, "inpatient", "ICD9CM", "820.8 E888.9"),
    ("88420091", "77310009", "2009-11-11 07:00", "2009-11-12 15:00", 1, "inpatient", "ICD9CM", "574.10 V64.41"),
    ("88420101", "77310010", "2010-02-02 19:40", "2010-02-07 12:20", 5, "inpatient", "ICD10CM", "I21.4 E11.9 I50.9"),
    ("88420102", "77310010", "2010-08-16 13:13", "2010-08-17 14:14", 1, "emergency", "ICD10CM", "J45.909 Z79.4"),
    ("88420111", "77310011", "2009-05-05 08:00", "2009-05-06 17:00", 1, "inpatient", "ICD9CM", ""),
)
CODES = tuple(
    (visit, patient, system, code, priority)
    for visit, patient, *_, system, codes in VISITS
    for priority, code in enumerate(codes.split(), 1)
)
SHIFT = 150  # years that MIMIC-IV's calendar is ahead


def day(moment: str) -> str:
    return moment[:10]


def shifted(moment: str) -> str:
    return f"{int(moment[:4]) + SHIFT}{moment[4:]}:00"


def frame(columns: str, rows, schema: dict | None = None) -> pl.DataFrame:
    """All text unless the schema says otherwise; rows in an order of their own."""
    names = columns.split()
    dtypes = {name: (schema or {}).get(name, pl.String) for name in names}
    mixed = sorted(rows, key=lambda row: str(row)[::-1])
    return pl.DataFrame(mixed, schema=dtypes, orient="row")


def csv(table: pl.DataFrame, separator: str = ",") -> bytes:
    return table.write_csv(separator=separator).encode()


def parquet(table: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.write_parquet(buffer)
    return buffer.getvalue()


def put(folder: Path, content: Files, files: Callable[[Files], None] | None) -> Path:
    if files:
        files(content)
    folder.mkdir(parents=True, exist_ok=True)
    for path, data in content.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def altered(tables: Tables, change: Callable[[Tables], None] | None) -> Tables:
    if change:
        change(tables)
    return tables


# OMOP

GENDER = {"female": "8532", "male": "8507"}
RACE = {"White": "8527", "Black": "8516"}
VISIT_CONCEPT = {"inpatient": "9201", "outpatient": "9202", "emergency": "9203"}
_UNIQUE = sorted({(system, code) for _, _, system, code, _ in CODES})
SOURCE_CONCEPT = {name: str(44800001 + place) for place, name in enumerate(_UNIQUE)}
STANDARD_CONCEPT = {name: str(4300001 + place) for place, name in enumerate(_UNIQUE)}


def omop_tables(version: str) -> Tables:
    concepts = [
        (SOURCE_CONCEPT[name], f"Condition, named {name[1]}", "Condition", name[0], "billing code", None, name[1])
        for name in _UNIQUE
    ]
    concepts += [
        (
            STANDARD_CONCEPT[name],
            f'"Standard" of {name[1]}',
            "Condition",
            "SNOMED",
            "Disorder",
            "S",
            str(22298006 + place),
        )
        for place, name in enumerate(_UNIQUE)
    ]
    concepts += [
        ("1503297", "metformin", "Drug", "RxNorm", "Ingredient", "S", "6809"),
        ("3004410", "Hemoglobin A1c/Hemoglobin.total in Blood", "Measurement", "LOINC", "Lab Test", "S", "4548-4"),
        ("2211381", "Chest X-ray, 2 views", "Procedure", "CPT4", "CPT4", "S", "71020"),
        ("8554", "percent", "Unit", "UCUM", "Unit", "S", "%"),
    ]
    where = "discharged_to" if version == "5.4" else "discharge_to"
    return {
        "person": frame(
            "person_id gender_concept_id year_of_birth month_of_birth day_of_birth birth_datetime race_concept_id "
            "ethnicity_concept_id location_id provider_id care_site_id person_source_value gender_source_value "
            "gender_source_concept_id race_source_value race_source_concept_id ethnicity_source_value "
            "ethnicity_source_concept_id",
            [
                (patient, GENDER[sex], str(birth.year), str(birth.month), str(birth.day), f"{birth} 00:00:00",
                 RACE[race], "38003564", None, None, None, f"mrn,{patient}", sex[0].upper(), "0", race, "0", None, "0")
                for patient, birth, sex, race, _ in PATIENTS
            ],
        ),
        "visit_occurrence": frame(
            "visit_occurrence_id person_id visit_concept_id visit_start_date visit_start_datetime visit_end_date "
            "visit_end_datetime visit_type_concept_id provider_id care_site_id visit_source_value "
            f"visit_source_concept_id {where}_concept_id {where}_source_value preceding_visit_occurrence_id",
            [
                (visit, patient, VISIT_CONCEPT[kind], day(admit), f"{admit}:00", day(discharge), f"{discharge}:00",
                 "32817", None, None, "ward, A", "0", "0", None, None)
                for visit, patient, admit, discharge, _, kind, *_ in VISITS
            ],
        ),
        "condition_occurrence": frame(
            "condition_occurrence_id person_id condition_concept_id condition_start_date condition_start_datetime "
            "condition_end_date condition_end_datetime condition_type_concept_id condition_status_concept_id "
            "stop_reason provider_id visit_occurrence_id visit_detail_id condition_source_value "
            "condition_source_concept_id condition_status_source_value",
            [
                (str(55500001 + place), patient, STANDARD_CONCEPT[system, code], _admission(visit), None, None, None,
                 "32817", "32902" if priority == 1 else "32908", None, None, visit, None, code,
                 SOURCE_CONCEPT[system, code], None)
                for place, (visit, patient, system, code, priority) in enumerate(CODES)
            ],
        ),
        "death": frame(
            "person_id death_date death_datetime death_type_concept_id cause_concept_id cause_source_value "
            "cause_source_concept_id",
            [(patient, str(death), None, "32817", "0", None, "0") for patient, *_, death in PATIENTS if death],
        ),
        "concept": frame(
            "concept_id concept_name domain_id vocabulary_id concept_class_id standard_concept concept_code "
            "valid_start_date valid_end_date invalid_reason",
            [(*concept, "1970-01-01", "2099-12-31", None) for concept in concepts],
        ),
        "drug_exposure": frame(
            "drug_exposure_id person_id drug_concept_id drug_exposure_start_date drug_exposure_start_datetime "
            "drug_exposure_end_date drug_exposure_end_datetime drug_type_concept_id quantity visit_occurrence_id "
            "drug_source_value drug_source_concept_id",
            [("66600001", "77310001", "1503297", "2008-02-12", "2008-02-12 09:00:00", "2008-02-15", None, "32838", "30",
              "88420011", "metformin 500 mg", "0")],
        ),
        "measurement": frame(
            "measurement_id person_id measurement_concept_id measurement_date measurement_datetime "
            "measurement_type_concept_id operator_concept_id value_as_number value_as_concept_id unit_concept_id "
            "range_low range_high visit_occurrence_id measurement_source_value measurement_source_concept_id "
            "unit_source_value value_source_value",
            [("66700001", "77310007", "3004410", "2010-04-05", "2010-04-05 06:00:00", "32856", "4172703", "9.4", None,
              "8554", None, None, "88420071", "HbA1c", "0", "%", "9.4")],
        ),
        "procedure_occurrence": frame(
            "procedure_occurrence_id person_id procedure_concept_id procedure_date procedure_datetime "
            "procedure_type_concept_id modifier_concept_id quantity provider_id visit_occurrence_id "
            "procedure_source_value procedure_source_concept_id",
            [("66800001", "77310002", "2211381", "2009-03-05", None, "32817", None, "1", None, "88420021", "71020",
              "2211381")],
        ),
    }  # fmt: skip


def _admission(visit: str) -> str:
    return next(day(row[2]) for row in VISITS if row[0] == visit)


def write_omop_csv(folder: Path, change=None, files=None) -> Path:
    """CDM 5.4, one CSV file a table, names in lower case."""
    tables = altered(omop_tables("5.4"), change)
    return put(folder, {f"{name}.csv": csv(table) for name, table in tables.items()}, files)


def write_omop_parquet(folder: Path, change=None, files=None) -> Path:
    """CDM 5.3, a folder of typed Parquet parts a table, names of tables and columns in capitals."""
    tables = {name: _typed_omop(table) for name, table in omop_tables("5.3").items()}
    content = {}
    for name, table in altered(tables, change).items():
        half = (table.height + 1) // 2
        capitals = table.rename(str.upper)
        content[f"{name.upper()}/part-00000.parquet"] = parquet(capitals[:half])
        content[f"{name.upper()}/part-00001.parquet"] = parquet(capitals[half:])
    return put(folder, content, files)


def _typed_omop(table: pl.DataFrame) -> pl.DataFrame:
    casts = []
    for name in table.columns:
        if name.endswith("_datetime"):
            casts.append(pl.col(name).str.to_datetime("%Y-%m-%d %H:%M:%S", time_unit="us"))
        elif name.endswith("_date"):
            casts.append(pl.col(name).str.to_date("%Y-%m-%d"))
        elif name.endswith("_id") and name not in ("domain_id", "vocabulary_id", "concept_class_id"):
            casts.append(pl.col(name).cast(pl.Int64))
        elif name.endswith("_of_birth"):
            casts.append(pl.col(name).cast(pl.Int32))
        elif name == "value_as_number":
            casts.append(pl.col(name).cast(pl.Float64))
    return table.with_columns(casts)


# MEDS

MEDS_SPLIT = {patient: ("train", "tuning", "held_out")[place % 3] for place, (patient, *_) in enumerate(PATIENTS)}
_MEDS_SCHEMA = {
    "subject_id": pl.Int64,
    "time": pl.Datetime("us"),
    "code": pl.String,
    "numeric_value": pl.Float32,
    "text_value": pl.String,
    "hadm_id": pl.Int64,
}


def _meds_events(version: str) -> pl.DataFrame:
    def at(moment: str) -> datetime:
        return datetime.fromisoformat(moment)

    rows = []
    for patient, birth, sex, race, death in PATIENTS:
        rows.append((patient, datetime(birth.year, birth.month, birth.day), "MEDS_BIRTH", None))
        rows += [(patient, None, f"GENDER//{sex[0].upper()}", None), (patient, None, f"RACE//{race.upper()}", None)]
        if death:
            rows.append((patient, datetime(death.year, death.month, death.day, 22, 30), "MEDS_DEATH", None))
    how = {"0.3": ("HOSPITAL_ADMISSION", "HOSPITAL_DISCHARGE")}.get(
        version, ("HOSPITAL_ADMISSION//EW EMER.//EMERGENCY ROOM", "HOSPITAL_DISCHARGE//HOME")
    )
    for visit, patient, admit, discharge, _, _, system, codes in VISITS:
        rows += [(patient, at(admit), how[0], visit), (patient, at(discharge), how[1], visit)]
        for code in codes.split():
            plain = code.replace(".", "")
            name = f"DIAGNOSIS//ICD//{system[3:-2]}//{plain}" if version == "0.4" else f"{system}/{code}"
            rows.append((patient, at(discharge), name, visit))
        rows.append((patient, at(admit) + timedelta(minutes=5), "LAB//50912//mg/dL", visit))
    columns = "subject_id time code numeric_value text_value hadm_id"
    table = pl.DataFrame(
        [(int(p), t, c, 1.1 if c.startswith("LAB") else None, None, int(v) if v else None) for p, t, c, v in rows],
        schema={name: _MEDS_SCHEMA[name] for name in columns.split()},
        orient="row",
    )
    return table if version == "0.4" else table.drop("text_value", "hadm_id")


def _write_meds(folder: Path, version: str, change, files) -> Path:
    tables = {
        "events": _meds_events(version),
        "splits": pl.DataFrame(
            [(int(patient), split) for patient, split in MEDS_SPLIT.items()],
            schema={"subject_id": pl.Int64, "split": pl.String},
            orient="row",
        ),
    }
    tables = altered(tables, change)
    content = {
        "metadata/dataset.json": json.dumps(
            {"dataset_name": "made", "dataset_version": "1", "etl_name": "made", "etl_version": "1",
             "meds_version": {"0.3": "0.3.3", "0.4": "0.4.0"}[version]}
        ).encode(),
        "metadata/codes.parquet": parquet(
            tables["events"].select(pl.col(c) for c in tables["events"].columns if c.lower() == "code").unique()
        ),
    }  # fmt: skip
    if "splits" in tables:
        content["metadata/subject_splits.parquet"] = parquet(tables["splits"])
    # Whole patients per file, sorted by time with static rows first, as the standard asks.
    events = tables["events"]
    patient = next((c for c in events.columns if c.lower() == "subject_id"), None)
    order = [c for c in events.columns if c.lower() in ("subject_id", "time")]
    as_asked = tables.pop("sorted", True) is True
    if patient and as_asked:
        events = events.sort(order, nulls_last=False, maintain_order=True)
    if patient and (as_asked or version == "0.4"):  # the folders of 0.4 are splits: a subject is in one
        number = events[patient].cast(pl.Float64, strict=False).fill_null(0).cast(pl.Int64)
    else:
        number = pl.Series(range(events.height))
    for shard, split in enumerate(("train", "tuning", "held_out")):
        path = f"data/{split}/0.parquet" if version == "0.4" else f"data/{shard}.parquet"
        content[path] = parquet(events.filter((number - 1) % 3 == shard))
    return put(folder, content, files)


def write_meds_03(folder: Path, change=None, files=None) -> Path:
    """MEDS 0.3: no visit column, admission and discharge events, codes named by vocabulary."""
    return _write_meds(folder, "0.3", change, files)


def write_meds_04(folder: Path, change=None, files=None) -> Path:
    """MEDS 0.4 as the MIMIC-IV extraction writes it: hadm_id, codes of several parts, a folder per split."""
    return _write_meds(folder, "0.4", change, files)


# MIMIC-IV


def mimic_tables() -> Tables:
    names = {
        "patients": "subject_id gender anchor_age anchor_year anchor_year_group dod",
        "admissions": "subject_id hadm_id admittime dischtime deathtime admission_type admit_provider_id "
        "admission_location discharge_location insurance language marital_status race edregtime edouttime "
        "hospital_expire_flag",
        "diagnoses_icd": "subject_id hadm_id seq_num icd_code icd_version",
        "d_icd_diagnoses": "icd_code icd_version long_title",
    }
    race = {patient: race.upper() for patient, _, _, race, _ in PATIENTS}
    dies = {"88420031"}
    return {
        "patients": frame(
            names["patients"],
            [
                (patient, sex[0].upper(), str(2009 - birth.year), str(2009 + SHIFT), "2008 - 2010",
                 f"{death.year + SHIFT}{str(death)[4:]}" if death else None)
                for patient, birth, sex, _, death in PATIENTS
            ],
        ),
        "admissions": frame(
            names["admissions"],
            [
                (patient, visit, shifted(admit), shifted(discharge), shifted(discharge) if visit in dies else None,
                 "EW EMER.", "P00AB1", "EMERGENCY ROOM", "DIED" if visit in dies else "HOME", "Medicare", "English",
                 None, race[patient], None, None, str(int(visit in dies)))
                for visit, patient, admit, discharge, *_ in VISITS
            ],
        ),
        "diagnoses_icd": frame(
            names["diagnoses_icd"],
            [
                (patient, visit, str(priority), code.replace(".", ""), system[3:-2])
                for visit, patient, system, code, priority in CODES
            ],
        ),
        "d_icd_diagnoses": frame(
            names["d_icd_diagnoses"],
            [(code.replace(".", ""), system[3:-2], f"Title of {code}, in words") for system, code in _UNIQUE],
        ),
    }  # fmt: skip


def write_mimic(folder: Path, change=None, files=None) -> Path:
    """hosp/*.csv.gz; the calendar of the patients lies in the years 2158–2160."""
    tables = altered(mimic_tables(), change)
    return put(
        folder, {f"hosp/{name}.csv.gz": gzip.compress(csv(table), mtime=0) for name, table in tables.items()}, files
    )


# Med-BERT TSV


def write_tsv(folder: Path, change=None, files=None) -> Path:
    """The seven columns of the published example; only visits with codes can be told."""
    visits = {row[0]: row for row in VISITS}
    columns = "patient_id vadate vddate diag poa diagnosis_priority third_party_ind"
    rows = [
        (patient, day(visits[visit][2]), day(visits[visit][3]), f"{system.replace('CM', '')}_{code}", "6",
         str(priority), str(int(code.startswith("E") and system == "ICD9CM")))
        for visit, patient, system, code, priority in CODES
    ]  # fmt: skip
    tables = altered({"data_file": frame(columns, rows)}, change)
    return put(folder, {"data_file.tsv": csv(tables["data_file"], "\t")}, files)


# DE-SynPUF: ICD-9 only, so without the patient of ICD-10

CLAIMANTS = tuple(row for row in PATIENTS if row[0] != "77310010")
STAYS = tuple(row for row in VISITS if row[1] != "77310010")
CLAIM_CODES = tuple(row for row in CODES if row[1] != "77310010")


def synpuf_id(patient: str) -> str:
    return f"{patient}FA17C0DE"


def compact(moment) -> str:
    return str(moment)[:10].replace("-", "")


def desynpuf_tables() -> Tables:
    flags = [
        "ALZHDMTA",
        "CHF",
        "CHRNKIDN",
        "CNCR",
        "COPD",
        "DEPRESSN",
        "DIABETES",
        "ISCHMCHT",
        "OSTEOPRS",
        "RA_OA",
        "STRKETIA",
    ]
    money = [f"{payer}_{where}" for where in ("IP", "OP", "CAR") for payer in ("MEDREIMB", "BENRES", "PPPYMT")]
    columns = (
        "DESYNPUF_ID BENE_BIRTH_DT BENE_DEATH_DT BENE_SEX_IDENT_CD BENE_RACE_CD BENE_ESRD_IND SP_STATE_CODE "
        "BENE_COUNTY_CD BENE_HI_CVRAGE_TOT_MONS BENE_SMI_CVRAGE_TOT_MONS BENE_HMO_CVRAGE_TOT_MONS PLAN_CVRG_MOS_NUM "
        + " ".join(f"SP_{flag}" for flag in flags) + " " + " ".join(money)
    )  # fmt: skip
    tables = {}
    for year in (2008, 2009, 2010):
        tables[f"beneficiary_{year}"] = frame(
            columns,
            [
                (synpuf_id(patient), compact(birth), compact(death) if death and death.year == year else None,
                 {"male": "1", "female": "2"}[sex], {"White": "1", "Black": "2"}[race], "0", "26", "950", "12", "12",
                 "0", "12", *["2"] * len(flags), *["0.00"] * len(money))
                for patient, birth, sex, race, death in CLAIMANTS
                if not (death and death.year < year)
            ],
        )  # fmt: skip
    claim = (
        "DESYNPUF_ID CLM_ID SEGMENT CLM_FROM_DT CLM_THRU_DT PRVDR_NUM CLM_PMT_AMT NCH_PRMRY_PYR_CLM_PD_AMT "
        "AT_PHYSN_NPI OP_PHYSN_NPI OT_PHYSN_NPI CLM_ADMSN_DT ADMTNG_ICD9_DGNS_CD CLM_PASS_THRU_PER_DIEM_AMT "
        "NCH_BENE_IP_DDCTBL_AMT "
        "NCH_BENE_PTA_COINSRNC_LBLTY_AM NCH_BENE_BLOOD_DDCTBL_LBLTY_AM CLM_UTLZTN_DAY_CNT NCH_BENE_DSCHRG_DT "
        "CLM_DRG_CD "
        + " ".join(f"ICD9_DGNS_CD_{i}" for i in range(1, 11)) + " "
        + " ".join(f"ICD9_PRCDR_CD_{i}" for i in range(1, 7)) + " "
        + " ".join(f"HCPCS_CD_{i}" for i in range(1, 46))
    )  # fmt: skip
    rows = []
    for visit, patient, admit, discharge, stay, _, _, codes in STAYS:
        slots = [code.replace(".", "") for code in codes.split()]
        rows.append(
            (synpuf_id(patient), visit, "1", compact(admit), compact(discharge), "2600GD", "4000.00", "0.00",
             "3139083564", None, None, compact(admit), None, "0.00", "1024.00", "0.00", "0.00", str(stay),
             compact(discharge), "217",
             *slots, *[None] * (10 - len(slots)), "3893" if visit == "88420011" else None, *[None] * (5 + 45))
        )  # fmt: skip
    return {**tables, "inpatient": frame(claim, rows)}


def write_desynpuf_csv(folder: Path, change=None, files=None) -> Path:
    """The publisher's CSV files of sample 1: a beneficiary file a year, one of the stays of all three."""
    tables = altered(desynpuf_tables(), change)
    content = {
        f"DE1_0_{year}_Beneficiary_Summary_File_Sample_1.csv": csv(tables[f"beneficiary_{year}"])
        for year in (2008, 2009, 2010)
        if f"beneficiary_{year}" in tables
    }
    if "inpatient" in tables:
        content["DE1_0_2008_to_2010_Inpatient_Claims_Sample_1.csv"] = csv(tables["inpatient"])
    return put(folder, content, files)


def write_desynpuf_parquet(folder: Path, change=None, files=None) -> Path:
    """beneficiary.parquet (all years) and inpatient.parquet (codes as lists), as they lie in shared/data."""
    raw = desynpuf_tables()
    years = [
        raw[f"beneficiary_{year}"].with_columns(
            pl.lit(1, pl.Int16).alias("sample"), pl.lit(year, pl.Int16).alias("file_year")
        )
        for year in (2008, 2009, 2010)
    ]
    codes = {row[0]: [code.replace(".", "") for code in row[7].split()] for row in STAYS}
    stays = pl.DataFrame(
        [
            (1, synpuf_id(patient), visit, 1, date.fromisoformat(day(admit)), date.fromisoformat(day(discharge)), stay,
             None, "217", codes[visit], ["3893"] if visit == "88420011" else [])
            for visit, patient, admit, discharge, stay, *_ in reversed(STAYS)
        ],
        schema={"sample": pl.Int16, "subject_id": pl.String, "claim_id": pl.String, "segment": pl.Int8,
                "admit": pl.Date, "discharge": pl.Date, "utilization_days": pl.Int32, "admitting_icd9": pl.String,
                "drg": pl.String, "icd9_dx": pl.List(pl.String), "icd9_px": pl.List(pl.String)},
        orient="row",
    )  # fmt: skip
    tables = altered({"beneficiary": pl.concat(years), "inpatient": stays}, change)
    return put(folder, {f"{name}.parquet": parquet(table) for name, table in tables.items()}, files)


# UCI 296: patient, race, gender, age band; encounters in order of time with days, disposition, codes, readmission

DIABETICS = (
    ("77320001", "Caucasian", "Female", "[70-80)"),
    ("77320002", "AfricanAmerican", "Male", "[60-70)"),
    ("77320003", "Caucasian", "Female", "[80-90)"),
    ("77320004", "Hispanic", "Male", "[40-50)"),
    ("77320005", "Asian", "Female", "[50-60)"),
    ("77320006", "Other", "Male", "[30-40)"),
    ("77320007", "?", "Female", "[0-10)"),
    ("77320008", "Caucasian", "Male", "[90-100)"),
    ("77320009", "Caucasian", "Female", "[20-30)"),
    ("77320010", "AfricanAmerican", "Male", "[10-20)"),
    ("77320011", "Caucasian", "Female", "[70-80)"),
    ("77320012", "Caucasian", "Male", "[70-80)"),
)
ENCOUNTERS = (
    ("912345", "77320001", 3, "1", "250.83 428 414", ">30"),
    ("8842001", "77320001", 9, "3", "428 250.02 584", "<30"),  # 8842001 comes after 912345 as a number, not as text
    ("88420013", "77320001", 14, "11", "38 518 250.4", "NO"),  # 038 as the file has it; died
    ("1842002", "77320002", 1, "1", "486 250 V45", "NO"),
    ("1842003", "77320003", 7, "6", "410 250.6 E888", "NO"),
    ("1842004", "77320004", 2, "1", "250.13 276 305", "<30"),
    ("1842005", "77320004", 5, "1", "250.11 276 305", "NO"),
    ("1842006", "77320005", 8, "22", "996 250.01 41", "NO"),
    ("1842007", "77320006", 4, "1", "577 250 303", "NO"),
    ("1842008", "77320007", 2, "1", "250.03 493 462", ">30"),
    ("1842009", "77320008", 6, "13", "434 342 250", "NO"),
    ("1842010", "77320009", 3, "1", "648 250.01 V27", "NO"),
    ("1842011", "77320010", 1, "1", "250.03 787 780", "NO"),
    ("1842012", "77320011", 10, "3", "820 250 E885", "NO"),
    ("1842013", "77320012", 12, "1", "414 411 250", "NO"),
)
_DRUGS = (
    "metformin repaglinide nateglinide chlorpropamide glimepiride acetohexamide glipizide glyburide tolbutamide "
    "pioglitazone rosiglitazone acarbose miglitol troglitazone tolazamide examide citoglipton insulin "
    "glyburide-metformin glipizide-metformin glimepiride-pioglitazone metformin-rosiglitazone metformin-pioglitazone"
)


def write_diabetes130(folder: Path, change=None, files=None) -> Path:
    """diabetic_data.csv as UCI 296 publishes it: 50 columns, "?" for what is missing, no dates."""
    columns = (
        "encounter_id patient_nbr race gender age weight admission_type_id discharge_disposition_id "
        "admission_source_id time_in_hospital payer_code medical_specialty num_lab_procedures "
        "num_procedures num_medications "
        "number_outpatient number_emergency number_inpatient diag_1 diag_2 diag_3 number_diagnoses max_glu_serum "
        f"A1Cresult {_DRUGS} change diabetesMed readmitted"
    )
    people = {row[0]: row for row in DIABETICS}
    rows = [
        (encounter, *people[patient], "?", "1", disposition, "7", str(days), "?", "?", "41", "1", "13", "0", "0", "0",
         *codes.split(), "9", "None", "None", *["No"] * 23, "No", "Yes", readmitted)
        for encounter, patient, days, disposition, codes, readmitted in ENCOUNTERS
    ]  # fmt: skip
    tables = altered({"diabetic_data": frame(columns, rows)}, change)
    return put(folder, {"diabetic_data.csv": csv(tables["diabetic_data"])}, files)


WRITERS: dict[str, tuple[str, Callable]] = {
    "omop-csv": ("omop", write_omop_csv),
    "omop-parquet": ("omop", write_omop_parquet),
    "meds-0.3": ("meds", write_meds_03),
    "meds-0.4": ("meds", write_meds_04),
    "mimic-iv": ("mimic-iv", write_mimic),
    "med-bert-tsv": ("med-bert-tsv", write_tsv),
    "desynpuf-csv": ("desynpuf", write_desynpuf_csv),
    "desynpuf-parquet": ("desynpuf", write_desynpuf_parquet),
    "diabetes130": ("diabetes130", write_diabetes130),
}


def write_source(kind: str, folder: Path, change=None, files=None) -> tuple[Path, str]:
    """The source's folder and its format."""
    name, writer = WRITERS[kind]
    return writer(folder, change, files), name


def canaries() -> set[str]:
    """Everything that no message may hold: patient ids, and dates in every form that a source writes them."""
    ids = {row[0] for row in PATIENTS + DIABETICS} | {"77319999"}
    days = {day(moment) for row in VISITS for moment in row[2:4]}
    days |= {str(moment) for row in PATIENTS for moment in (row[1], row[4]) if moment}
    days |= {"1800-01-01", "9999-12-31", "1931-01-01", "2050-01-01", "2009-05-01"}
    days |= {f"{int(moment[:4]) + SHIFT}{moment[4:]}" for moment in days}
    return ids | days | {moment.replace("-", "") for moment in days}
