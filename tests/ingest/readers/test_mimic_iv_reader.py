from datetime import date, datetime

import polars as pl
import pytest

from medbert_jax.ingest.assembly import assemble
from medbert_jax.ingest.readers.mimic_iv import MIMIC_IV, disposition
from medbert_jax.ingest.source_files import find_files

# As the files are published: text, in the published columns; the engine gives absent optional columns as nulls.
ROWS = {
    "patients": [
        {"subject_id": "10", "gender": "F", "anchor_age": "60", "anchor_year": "2153", "dod": "2155-01-09"},
        {"subject_id": "11", "gender": "M", "anchor_age": "91", "anchor_year": "2110", "dod": None},
        {"subject_id": "12", "gender": None, "anchor_age": None, "anchor_year": "2110", "dod": None},
    ],
    "admissions": [
        {
            "subject_id": "10",
            "hadm_id": "201",
            "admittime": "2153-04-03 22:10:00",
            "dischtime": "2153-04-12 15:00:00",
            "admission_type": "EW EMER.",
            "discharge_location": "HOME HEALTH CARE",
            "race": "WHITE - RUSSIAN",
            "hospital_expire_flag": "0",
        },
        {
            "subject_id": "10",
            "hadm_id": "202",
            "admittime": "2155-01-08 01:00:00",
            "dischtime": "2155-01-09 10:00:00",
            "admission_type": "URGENT",
            "discharge_location": "HOSPICE",
            "race": "UNKNOWN",
            "hospital_expire_flag": "1",
        },
        {
            "subject_id": "11",
            "hadm_id": "203",
            "admittime": "2110-02-01 01:00:00",
            "dischtime": "2110-02-01 20:00:00",
            "deathtime": "2110-02-01 20:00:00",
            "admission_type": "EU OBSERVATION",
            "ethnicity": "BLACK",
        },
    ],
    "diagnoses_icd": [
        {"subject_id": "10", "hadm_id": "201", "seq_num": "1", "icd_code": "4280 ", "icd_version": "9"},
        {"subject_id": "10", "hadm_id": "201", "seq_num": "2", "icd_code": "V4581", "icd_version": "9"},
        {"subject_id": "10", "hadm_id": "202", "seq_num": "1", "icd_code": "E119", "icd_version": "10"},
        {"subject_id": "10", "hadm_id": "202", "seq_num": "2", "icd_code": "I10", "icd_version": "11"},
        {"subject_id": "11", "hadm_id": "999", "seq_num": "1", "icd_code": "I10", "icd_version": "10"},
    ],
    "procedures_icd": [
        {"subject_id": "10", "hadm_id": "201", "icd_code": "3961", "icd_version": "9", "chartdate": "2153-04-04"},
        {"subject_id": "10", "hadm_id": "202", "icd_code": "02HV33Z", "icd_version": "10", "chartdate": "2155-01-08"},
    ],
    "prescriptions": [
        {"subject_id": "10", "hadm_id": "201", "starttime": "2153-04-04 08:00:00", "drug": "Insulin", "ndc": "0"},
        {
            "subject_id": "10",
            "hadm_id": "201",
            "starttime": "2153-04-04 09:00:00",
            "drug": "Aspirin",
            "ndc": "904404073",
        },
    ],
    "labevents": [
        {
            "subject_id": "10",
            "hadm_id": None,
            "itemid": "50912",
            "charttime": "2153-03-01 07:00:00",
            "valuenum": "1.4",
            "valueuom": "mg/dL",
        },
        {
            "subject_id": "10",
            "hadm_id": "201",
            "itemid": "50852",
            "charttime": "2153-04-04 07:00:00",
            "valuenum": "___",
        },
    ],
    "d_labitems": [{"itemid": "50852", "loinc_code": "4548-4"}, {"itemid": "50912", "loinc_code": None}],
}


def raw(*names, **changed) -> dict[str, pl.DataFrame]:
    """The tables as the engine hands them over: all optional columns, everything text."""
    frames = {}
    for table in MIMIC_IV.tables:
        if table.name in (names or ROWS):
            columns = dict.fromkeys((*table.required, *table.optional), pl.String)
            frames[table.name] = pl.DataFrame(changed.get(table.name, ROWS[table.name]), schema=columns)
    return frames


def build(*names, **changed):
    return MIMIC_IV.build(raw(*names, **changed), MIMIC_IV.options())


def test_people():
    rough = build()
    assert rough.patients.sort("patient_id").select("patient_id", "sex", "birth_year", "race").rows() == [
        ("10", "female", 2093, "WHITE - RUSSIAN"),
        ("11", "male", None, "BLACK"),
        ("12", None, None, None),
    ]
    died = assemble("mimic-iv", rough).tables.patients.sort("patient_id")["death_date"].to_list()
    assert died == [date(2155, 1, 9), date(2110, 2, 1), None]


def test_who_has_not_left_has_an_open_stay():
    stay = {"subject_id": "1", "hadm_id": "7", "admittime": "2150-01-01 10:00:00", "dischtime": "2150-01-04 23:59:00"}
    person = {"subject_id": "1", "gender": "F", "anchor_age": "50", "anchor_year": "2150"}
    for place in ("STILL PATIENT", "Still in hospital"):
        admissions = [{**stay, "discharge_location": place}]
        made = assemble("mimic-iv", build(patients=[person], admissions=admissions, diagnoses_icd=[]))
        columns = ("discharge_time", "length_of_stay", "discharge_disposition")
        assert made.tables.visits.select(columns).rows() == [(None, None, None)]
        assert made.unreadable == {"discharge_time that is no end": 1}


def test_the_cap_of_ages():
    years = {"89": 2021, "90": 2020, "91": None, "300": None, "0": 2110}
    person = {"subject_id": "1", "gender": "F", "anchor_year": "2110", "dod": None}
    people = [{**person, "anchor_age": age} for age in years]
    assert build(patients=people, admissions=[], diagnoses_icd=[]).patients["birth_year"].to_list() == [*years.values()]


def test_visits():
    visits = build().visits
    assert visits.drop("patient_id", "still_patient").rows() == [
        ("201", datetime(2153, 4, 3, 22, 10), datetime(2153, 4, 12, 15), "inpatient", "home"),
        ("202", datetime(2155, 1, 8, 1), datetime(2155, 1, 9, 10), "inpatient", "expired"),
        ("203", datetime(2110, 2, 1, 1), datetime(2110, 2, 1, 20), "other", None),
    ]


def test_diagnoses_have_system_and_priority():
    assert build().diagnoses.select("visit_id", "code_system", "code", "priority").rows() == [
        ("201", "ICD9CM", "4280", 1),
        ("201", "ICD9CM", "V4581", 2),
        ("202", "ICD10CM", "E119", 1),
        ("202", None, "I10", 2),
        ("999", "ICD10CM", "I10", 1),
    ]


def test_events():
    rough = build()
    assert rough.procedures.drop("patient_id").rows() == [
        ("201", "ICD9Proc", "3961", datetime(2153, 4, 4)),
        ("202", "ICD10PCS", "02HV33Z", datetime(2155, 1, 8)),
    ]
    assert rough.medications.select("code_system", "code", "ingredient", "time").rows() == [
        ("name", "Insulin", "Insulin", datetime(2153, 4, 4, 8)),
        ("NDC", "00904404073", "Aspirin", datetime(2153, 4, 4, 9)),
    ]
    measured = rough.measurements.sort("code").select("visit_id", "code_system", "code", "value", "unit").rows()
    assert measured == [("201", "LOINC", "4548-4", None, None), (None, "MIMIC_ITEM", "50912", 1.4, "mg/dL")]


def test_optional_tables_may_be_absent():
    rough = build("patients", "admissions", "diagnoses_icd", "labevents")
    assert rough.procedures is None and rough.medications is None
    assert set(rough.measurements["code_system"]) == {"MIMIC_ITEM"}


def test_assembled_and_counted():
    found = assemble("mimic-iv", build())
    visits = found.tables.visits.sort("visit_id")
    # No shifted date is a future date; ages are of the middle of the year of birth.
    assert visits["length_of_stay"].to_list() == [9, 1, 0]
    ages = visits.select("age_days", "age_precision_days").rows()
    assert ages[0] == ((date(2153, 4, 3) - date(2093, 7, 1)).days, 365) and ages[2] == (None, None)
    assert sorted(found.tables.diagnoses["code"]) == ["428.0", "E11.9", "V45.81"]
    left = {line.rule: line.left.codes for line in found.ledger.lines if line.left.codes}
    assert left == {"unlinked_code": 1, "unreadable_code": 1}
    assert found.ledger.kept.patients == 3
    assert not found.tables.source.known.get("diagnoses.present_on_admission", 0)


def test_a_subject_that_patients_lacks_is_counted():
    person = {"subject_id": "10", "gender": "F", "anchor_age": "60", "anchor_year": "2153", "dod": None}
    left = {line.rule: line.left for line in assemble("mimic-iv", build(patients=[person])).ledger.lines}
    assert (left["unlisted_patient"].patients, left["unlisted_patient"].visits) == (1, 1)


def test_parquet_types_give_the_same():
    typed = raw()
    for name, columns in {
        "patients": ["anchor_age", "anchor_year"],
        "admissions": ["hadm_id", "hospital_expire_flag"],
        "diagnoses_icd": ["hadm_id", "seq_num", "icd_version"],
        "labevents": ["hadm_id", "itemid"],
        "d_labitems": ["itemid"],
    }.items():
        typed[name] = typed[name].with_columns(pl.col(columns).cast(pl.Int64))
    times = ["admittime", "dischtime"]
    typed["admissions"] = typed["admissions"].with_columns(pl.col(times).str.to_datetime())
    typed["patients"] = typed["patients"].with_columns(pl.col("dod").str.to_date())
    rough, other = build(), MIMIC_IV.build(typed, MIMIC_IV.options())
    for table in ("patients", "visits", "diagnoses", "measurements"):
        assert sorted(getattr(rough, table).rows(), key=repr) == sorted(getattr(other, table).rows(), key=repr)


def test_numbers_too_large_are_unknown():
    coded = {"subject_id": "10", "hadm_id": "201", "icd_version": "9"}
    rows = [
        coded | {"icd_code": code, "seq_num": number} for code, number in (("4280", "20240105123456"), ("4281", "2"))
    ]
    people = [ROWS["patients"][0] | {"anchor_year": "20240105123456"}]
    made = assemble("mimic-iv", build(patients=people, admissions=ROWS["admissions"][:2], diagnoses_icd=rows))
    assert made.tables.diagnoses.sort("code").select("code", "priority").rows() == [("428.0", None), ("428.1", 2)]
    assert made.tables.visits["age_days"].to_list() == [None, None]
    assert not any(line.left.patients or line.left.visits or line.left.codes for line in made.ledger.lines)


def test_an_empty_shard():
    rough = MIMIC_IV.build({name: frame.clear() for name, frame in raw().items()}, MIMIC_IV.options())
    assert all(getattr(rough, name).is_empty() for name in ("patients", "visits", "diagnoses", "medications"))


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("HOME", "home"),
        ("HOME HEALTH CARE", "home"),
        ("DIED", "expired"),
        ("HOSPICE", "hospice"),
        ("SKILLED NURSING FACILITY", "facility"),
        ("CHRONIC/LONG TERM ACUTE CARE", "facility"),
        ("REHAB", "facility"),
        ("ACUTE HOSPITAL", "facility"),
        ("PSYCH FACILITY", "facility"),
        ("ASSISTED LIVING", "facility"),
        ("OTHER FACILITY", "facility"),
        ("AGAINST ADVICE", "other"),
        ("UNK", None),
        (None, None),
    ],
)
def test_every_place_has_a_disposition(place, said):
    assert pl.select(disposition(pl.lit(place, pl.String))).item() == said


@pytest.mark.parametrize(("folder", "end"), [("hosp/", "csv.gz"), ("", "csv"), ("core/", "csv.gz")])
def test_files(tmp_path, folder, end):
    needed = ("patients", "admissions", "diagnoses_icd", "labevents")
    for name in (*(f"{folder}{name}.{end}" for name in needed), "ed/diagnosis.csv", "icu/labevents.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found, unused, faults = find_files(MIMIC_IV, tmp_path)
    assert [file.table.name for file in found] == list(needed)
    assert unused == ["ed/diagnosis.csv", "icu/labevents.csv"] and faults == []
