"""Every boundary of the disease cohorts as a literal patient, through two implementations that were made apart.

What is expected stands beside each patient and comes from the written definition: a leaving rule, a label, or label,
order of the index visit and order of the last visit of which a diagnosis is read.
"""

import dataclasses
from datetime import date
from functools import cache

import polars as pl
import pytest
from cohorts.independent.cohort_loops import In, Left, age_is_uncertain, records_of
from cohorts.independent.comparison import ask_package, ask_package_of_each
from cohorts.independent.literal_patients import ask_loops, tables_of

from medbert_jax.ehr.codes import normal_form
from medbert_jax.ehr.hashing import patient_hash

BORN = "born 1950-06-15; "
DM = "2010-01-01 250.00; 2010-02-01 250.00; rx 2010-01-01 metformin; "
HF = "2010-06-01 428.0; 2010-07-01 428.0; rx 2010-06-01 furosemide; "
LAST = "2010-12-01 401.9; "  # the index of a control
UNPROVEN = "2010-01-01 250.00; 2010-02-01 250.00; 2010-12-01 401.9; "  # diabetes that nothing verifies
UNVERIFIED = "2010-06-01 428.0; 2010-07-01 428.0; "  # heart failure that nothing verifies

PATIENTS: list[tuple[str, str, str, object]] = []
"""(spec, name, text, expected)."""


def some(spec: str, *patients: tuple[str, str, object]) -> None:
    PATIENTS.extend((spec, name, text, expected) for name, text, expected in patients)


# -------------------------------------------------------------------------------------- dhf: encounters with diabetes

some(
    "dhf",
    ("no diabetes", BORN + "2010-01-01 401.9; 2010-02-01 401.9", "no_diabetes"),
    ("no visit at all", BORN, "no_visits"),
    ("heart failure without diabetes", BORN + HF, "no_diabetes"),
    ("one diabetes encounter", BORN + "2010-01-01 250.00; rx 2010-01-01 metformin; " + LAST, "one_diabetes_encounter"),
    ("two codes in one encounter", BORN + "2010-01-01 250.00 250.02; rx 2010-01-01 metformin; " + LAST,
     "one_diabetes_encounter"),
    ("the same code twice in one encounter", BORN + "2010-01-01 250.00 250.00; rx 2010-01-01 metformin; " + LAST,
     "one_diabetes_encounter"),
    ("ICD-9 and ICD-10 in one encounter", BORN + "2010-01-01 250.00 E11.9; rx 2010-01-01 metformin; " + LAST,
     "one_diabetes_encounter"),
    ("two encounters at the same minute", BORN + "2010-01-01 250.00; 2010-01-01 250.00; rx 2010-01-01 metformin; "
     + LAST, (0, 3, 2)),
    ("two encounters", BORN + DM + LAST, (0, 3, 2)),
    ("the second is the last encounter", BORN + DM, (0, 2, 1)),
    ("the second is the first of heart failure",
     BORN + "2010-01-01 250.00; 2010-06-01 250.00 428.0; 2010-07-01 428.0; rx 2010-01-01 metformin; "
     "rx 2010-06-01 furosemide", (1, 2, 1)),
    ("a case", BORN + DM + HF, (1, 3, 2)),
    ("a case with more before and after", BORN + DM + "2010-03-01 401.9; " + HF + LAST, (1, 4, 3)),
)  # fmt: skip

# Codes of diabetes: both visits have the code, a drug verifies it.
for code, expected in {
    "250": "no_type_2", "250.0": "no_type_2", "250.6": "no_type_2",  # diabetes, but of no type
    "250.00": 0, "250.02": 0, "250.10": 0, "250.90": 0, "250.92": 0,
    "250.01": "type_1_diabetes", "250.03": "type_1_diabetes", "250.13": "type_1_diabetes", "250.91": "type_1_diabetes",
    "251.2": "no_diabetes", "249.99": "no_diabetes", "ICD9CM/2500": "no_diabetes", "790.29": "no_diabetes",
    "E11": 0, "E11.9": 0, "E11.3211": 0, "E13.9": "no_type_2", "E10.9": "type_1_diabetes", "E10": "type_1_diabetes",
    "E08.9": "no_diabetes", "E09.9": "no_diabetes", "R73.03": "no_diabetes",
    "ICD10/E11.9": "no_diabetes", "ICD10GM/E11.9": "no_diabetes", "ICD10CM/250.00": "no_diabetes",
    "ICD9CM/E11.9": "no_diabetes", "SNOMED/44054006": "no_diabetes",
}.items():  # fmt: skip
    text = BORN + f"2010-01-01 {code}; 2010-02-01 {code}; rx 2010-01-01 metformin; " + LAST
    some("dhf", (f"diabetes coded {code}", text, expected))
some(
    "dhf",
    ("bare 250 counts as encounter", BORN + "2010-01-01 250; 2010-02-01 250.00; rx 2010-01-01 metformin; " + LAST, 0),
    ("E13 counts as encounter", BORN + "2010-01-01 E13.9; 2010-02-01 E11.9; rx 2010-01-01 metformin; " + LAST, 0),
)

# Excluded kinds of diabetes, each beside its neighbours, which exclude nobody.
for rule, codes, neighbours in (
    ("diabetes_insipidus", "253.5 588.1 E23.2 N25.1", "253.6 253.4 588.0 588.81 E23.3 E23.0 N25.0 N25.81 ICD9CM/2535"),
    ("gestational_diabetes", "648 648.0 648.03 648.83 648.93 O24 O24.419 Z86.32 V12.21",
     "647.63 649.03 O25.10 O23.40 Z86.31 Z86.39 V12.29 V12.2 ICD9CM/6480"),
    ("neonatal_diabetes", "775 775.1 775.0 P70 P70.2", "774.6 776.0 P71.0 P69 ICD9CM/7751"),
    ("secondary_diabetes", "249 249.00 249.91 E08.9 E08 E09.65", "246.9 251.3 E07.9 E12 ICD9CM/2490"),
    ("type_1_diabetes", "250.01 250.53 250.83 E10.65", "250.02 250.1 250.20 E13.9 ICD10GM/E10.9"),
):  # fmt: skip
    for code in codes.split():
        some("dhf", (f"excluded by {code}", BORN + DM + f"2010-03-01 {code}; " + LAST, rule))
    for code in neighbours.split():
        some("dhf", (f"not excluded by {code}", BORN + DM + f"2010-03-01 {code}; " + LAST, (0, 4, 3)))
some(
    "dhf",
    ("excluded by the last encounter", BORN + DM + "2010-12-01 250.01", "type_1_diabetes"),
    ("excluded by an encounter after the index", BORN + DM + HF + "2012-01-01 E10.9", "type_1_diabetes"),
    ("excluded before diabetes", BORN + "2005-01-01 648.01; " + DM + LAST, "gestational_diabetes"),
    ("two exclusions, insipidus first", BORN + DM + "2010-03-01 250.01 253.5", "diabetes_insipidus"),
    ("two exclusions, gestational before neonatal", BORN + DM + "2010-03-01 775.1; 2010-04-01 648.0",
     "gestational_diabetes"),
    ("two exclusions, secondary before type 1", BORN + DM + "2010-03-01 250.01; 2010-04-01 249.00",
     "secondary_diabetes"),
    ("an exclusion comes before no type 2", BORN + "2010-01-01 250.01; 2010-02-01 250", "type_1_diabetes"),
    ("no type 2 comes before unverified", BORN + "2010-01-01 250; 2010-02-01 250", "no_type_2"),
    ("an exclusion comes before unverified", BORN + UNPROVEN + "2011-01-01 250.01", "type_1_diabetes"),
    ("wrong times come before an exclusion", BORN + DM + "2010-03-01/2010-02-27 250.01", "incorrect_times"),
    ("one encounter comes before wrong times", BORN + "2010-01-01 250.00; 2010-03-01/2010-02-27 401.9",
     "one_diabetes_encounter"),
)  # fmt: skip

# ------------------------------------------------------------------------------------------- dhf: diabetes is verified

for lab, verified in {
    "4548-4 6.4 %": False, "4548-4 6.5 %": True, "4548-4 6.49 %": False, "4548-4 6.5": True, "4548-4 6.4": False,
    "4549-2 6.5 %": True, "17855-8 6.5 %": True, "17856-6 6.5 %": True,
    "59261-8 47 mmol/mol": False, "59261-8 48 mmol/mol": True, "59261-8 47.9 mmol/mol": False,
    "59261-8 42": False, "59261-8 47": False, "59261-8 48": True, "59261-8 6.5 %": False,
    "4548-4 48 mmol/mol": True, "4548-4 47 mmol/mol": False, "4548-4 6.5 mmol/mol": False, "4548-4 9 g/dL": False,
    "4548-4 48 mmol/L": False, "4548-4 140 mg/dL": False, "4548-5 6.5 %": False, "2345-7 180 mg/dL": False,
    "2345-7 9 %": False, "30934-4 900 pg/mL": False,
}.items():  # fmt: skip
    expected = (0, 3, 2) if verified else "diabetes_unverified"
    some("dhf", (f"verified by lab {lab}", BORN + UNPROVEN + f"lab 2010-02-01 {lab}", expected))
for drug, verified in {
    "metformin": True, "Metformin": True, "METFORMIN HYDROCHLORIDE": True, "metformin  hydrochloride": True,
    "metforminum": False, "sitagliptin / metformin": True, "metformin/sitagliptin": True,
    "glipizide and metformin": True, "empagliflozin and linagliptin": True, "empagliflozin, metformin": True,
    "empagliflozin;metformin": True, "empagliflozin+metformin": True, "empagliflozin + Metformin hydrochloride": True,
    "empagliflozin": False, "dapagliflozin and ertugliflozin": False, "semaglutide": False,
    "insulin": True, "insulin glargine": True, "Insulin, aspart": True, "insulinlike growth factor": False,
    "glyburide-metformin": True, "Metformin-sitagliptin": True, "insulin-aspart": True, "non-insulin": False,
    "pro-insulin": False,
    "anti-insulin antibody": False, "metformin-free": False, "non-insulin-dependent": False,
    "glipizide&metformin": True, "insulin-like growth factor": False,
    "proinsulin": False, "biosynthetic human insulin": False, "chlorpropamide": True, "glimepiride": True,
    "glyburide": True, "tolbutamide": True, "tolazamide": True, "pioglitazone": True, "rosiglitazone maleate": True,
    "saxagliptin": True, "alogliptin": True, "repaglinide": True, "nateglinide": True, "miglitol": True,
    "acarbose": True, "gliclazide": False, "vildagliptin": False, "andmetformin": False, "furosemide": False,
}.items():  # fmt: skip
    expected = (0, 3, 2) if verified else "diabetes_unverified"
    some("dhf", (f"verified by drug {drug}", BORN + UNPROVEN + f"rx 2010-02-01 {drug}", expected))
some(
    "dhf",
    ("nothing verifies", BORN + UNPROVEN, "diabetes_unverified"),
    ("drug long before", BORN + UNPROVEN + "rx 1999-01-01 metformin", 0),
    ("drug long after", BORN + UNPROVEN + "rx 2019-01-01 metformin", 0),
    ("lab after the index of a case",
     BORN + "2010-01-01 250.00; 2010-02-01 250.00; " + HF + "lab 2013-01-01 4548-4 6.5 %", (1, 3, 2)),
    ("drug of unknown day", BORN + UNPROVEN + "rx ? metformin", "diabetes_unverified"),
    ("drug without time but of a visit", BORN + UNPROVEN + "rx visit2 metformin", 0),
    ("lab of unknown day", BORN + UNPROVEN + "lab ? 4548-4 9 %", "diabetes_unverified"),
    ("lab without time but of a visit", BORN + UNPROVEN + "lab visit1 4548-4 6.5 %", 0),
    ("two labs, the second is high", BORN + UNPROVEN + "lab 2010-01-01 4548-4 5 %; lab 2010-01-02 4548-4 7 %", 0),
)  # fmt: skip

# ----------------------------------------------------------------------------------------------------------- dhf: age

some(
    "dhf",
    ("18 on the birthday", "born 1992-01-01; " + DM + LAST, 0),
    ("17 the day before", "born 1992-01-02; " + DM + LAST, "under_18"),
    ("born on 29 February, 28 February", "born 1992-02-29; 2010-02-28 250.00; 2010-03-09 250.00; rx visit1 insulin",
     "under_18"),
    ("born on 29 February, 1 March", "born 1992-02-29; 2010-03-01 250.00; 2010-03-09 250.00; rx visit1 insulin", 0),
    ("born on 28 February, 28 February", "born 1992-02-28; 2010-02-28 250.00; 2010-03-09 250.00; rx visit1 insulin", 0),
    ("born on 1 March, 29 February", "born 1994-03-01; 2012-02-29 250.00; 2012-03-09 250.00; rx visit1 insulin",
     "under_18"),
    ("born on 28 February, 29 February", "born 1994-02-28; 2012-02-29 250.00; 2012-03-09 250.00; rx visit1 insulin", 0),
    ("17 at the first encounter, 18 at the first of diabetes", "born 1992-01-01; 2009-12-31 401.9; " + DM, (0, 3, 2)),
    ("17 at the first of diabetes, 18 at the second", "born 1992-02-01; " + DM + LAST, "under_18"),
    ("17 at the first of diabetes, 18 at the first of type 2",
     "born 1992-02-01; 2010-01-01 E13.9; 2010-02-01 E11.9; rx visit1 metformin; " + LAST, "under_18"),
    ("a child with heart failure", "born 2000-01-01; " + DM + HF, "under_18"),
    ("under 18 comes before heart failure that does not qualify", "born 2000-01-01; " + DM + "2010-06-01 428.0",
     "under_18"),
    ("unverified comes before under 18", "born 2000-01-01; " + UNPROVEN, "diabetes_unverified"),
    # 18 × 365.25 = 6574.5
    ("6,574 days", "2010-01-01 age=6574 250.00; 2010-02-01 250.00; rx visit1 metformin", "under_18"),
    ("6,575 days", "2010-01-01 age=6575 250.00; 2010-02-01 250.00; rx visit1 metformin", 0),
    ("year of birth only, 30 June", "2010-06-30 age=6573 width=365 250.00; 2010-08-01 250.00; rx visit1 metformin",
     "under_18"),
    ("year of birth only, 2 July", "2010-07-02 age=6575 width=365 250.00; 2010-08-01 250.00; rx visit1 metformin", 0),
    ("a birth date beats the stated age", "born 1992-01-01; 2010-01-01 age=6000 250.00; 2010-02-01 250.00; "
     "rx visit1 metformin", 0),
    ("age not known", DM + LAST, "age_unknown"),
    ("age known at another visit only", "2010-01-01 250.00; 2010-02-01 age=9999 250.00; rx visit1 metformin",
     "age_unknown"),
    ("age known at the first of diabetes only", "2010-01-01 401.9; 2010-02-01 age=9999 250.00; 2010-03-01 250.00; "
     "rx visit1 metformin", (0, 3, 2)),
    ("unverified comes before an unknown age", UNPROVEN, "diabetes_unverified"),
)  # fmt: skip

# -------------------------------------------------------------------------------------------------- dhf: heart failure

HEART_FAILURE = (
    "428 428.0 428.1 428.21 428.43 428.9 404.03 404.13 402.11 404.11 402.01 404.01 402.91 398.91 404.93 404.91 "
    "I50 I50.9 I50.23 I50.810 I11.0 I09.81 I13.2 I97.13 I97.130 I97.131 I13.0"
)
for code in HEART_FAILURE.split():
    text = BORN + DM + f"2010-06-01 {code}; 2010-07-01 {code}; rx visit1 furosemide"
    some("dhf", (f"heart failure coded {code}", text, (1, 3, 2)))
NO_HEART_FAILURE = (
    "427.31 429.9 402.00 402.10 402.90 402 404 404.00 404.02 404.10 404.12 404.90 404.92 398.90 398.99 398.9 "
    "ICD9CM/4280 ICD9CM/42 ICD9CM/I50.9 I49.9 I51.9 I51.81 I11.9 I11 I09.89 I09.8 I13 I13.10 I13.11 I97.1 "
    "I97.120 I97.190 I97.89 ICD10/I50.9 ICD10GM/I50.13 ICD10CM/428.0 SNOMED/84114007"
)
for code in NO_HEART_FAILURE.split():
    text = BORN + DM + f"2010-06-01 {code}; 2010-07-01 {code}; rx visit1 furosemide"
    some("dhf", (f"no heart failure is {code}", text, (0, 4, 3)))
some(
    "dhf",
    ("one heart failure encounter", BORN + DM + "2010-06-01 428.0; rx visit1 furosemide; " + LAST, "hf_one_encounter"),
    ("two heart failure codes in one encounter", BORN + DM + "2010-06-01 428.0 428.21 I50.9; rx visit1 furosemide",
     "hf_one_encounter"),
    ("two heart failure encounters on one day", BORN + DM + "2010-06-01 428.0; 2010-06-01 428.0; rx visit1 furosemide",
     (1, 3, 2)),
    ("HF 29 days after", BORN + "2010-01-01 250.00; 2010-01-30 250.00 428.0; 2010-04-01 428.0; rx visit1 insulin; "
     "rx visit1 furosemide", "hf_too_early"),
    ("HF 30 days after", BORN + "2010-01-01 250.00; 2010-01-31 250.00 428.0; 2010-04-01 428.0; rx visit1 insulin; "
     "rx visit1 furosemide", (1, 2, 1)),
    ("HF 30 calendar days but not 30 times 24 hours after", BORN + "2010-01-01T23:00/2010-01-01T23:30 250.00; "
     "2010-01-31T01:00/2010-01-31T02:00 250.00 428.0; 2010-04-01 428.0; rx visit1 insulin; rx visit1 furosemide", 1),
    ("HF 29 calendar days, almost 30 times 24 hours", BORN + "2010-01-01T00:05/2010-01-01T01:00 250.00; "
     "2010-01-30T23:55/2010-01-31T02:00 250.00 428.0; 2010-04-01 428.0; rx visit1 insulin; rx visit1 furosemide",
     "hf_too_early"),
    ("HF over 29 February", BORN + "2012-02-10 250.00; 2012-03-11 250.00 428.0; 2012-04-01 428.0; rx visit1 insulin; "
     "rx visit1 furosemide", 1),
    ("HF 29 days over 29 February", BORN + "2012-02-10 250.00; 2012-03-10 250.00 428.0; 2012-04-01 428.0; "
     "rx visit1 insulin; rx visit1 furosemide", "hf_too_early"),
    ("HF with the first diabetes", BORN + "2010-01-01 250.00 428.0; 2010-06-01 250.00 428.0; rx visit1 insulin; "
     "rx visit1 furosemide", "hf_too_early"),
    ("HF before diabetes", BORN + "2009-01-01 428.0; 2009-06-01 428.0; rx 2009-01-01 furosemide; " + DM,
     "hf_too_early"),
    ("HF once before and once after", BORN + "2009-12-01 428.0; " + DM + "2010-06-01 428.0; rx visit1 furosemide",
     "hf_too_early"),
    ("30 days count from type 2, not from diabetes", BORN + "2010-01-01 E13.9; 2010-05-20 E11.9; rx visit1 insulin; "
     + HF, "hf_too_early"),
    ("30 days from type 2", BORN + "2010-01-01 E13.9; 2010-05-02 E11.9; rx visit1 insulin; " + HF, (1, 3, 2)),
    ("one encounter comes before too early", BORN + "2010-01-01 250.00 428.0; 2010-02-01 250.00; rx visit1 insulin",
     "hf_one_encounter"),
    ("too early comes before unverified", BORN + "2010-01-01 250.00 428.0; 2010-02-01 250.00 428.0; rx visit1 insulin",
     "hf_too_early"),
    ("HF that nothing verifies", BORN + DM + UNVERIFIED, "hf_unverified"),
    ("unverified after death", BORN + "died 2010-05-01; " + DM + UNVERIFIED, "died_before_index"),
    ("unverified comes before death", BORN + "died 2010-07-01; " + DM + UNVERIFIED + LAST, "hf_unverified"),
    ("diuretic of unknown day", BORN + DM + UNVERIFIED + "rx ? furosemide", "hf_unverified"),
    ("diuretic without time but of a visit", BORN + DM + UNVERIFIED + "rx visit1 furosemide", 1),
    ("diuretic years before", BORN + DM + UNVERIFIED + "rx 2001-01-01 furosemide", 1),
    ("diuretic years after", BORN + DM + UNVERIFIED + "rx 2018-01-01 furosemide", 1),
    ("procedure of unknown day", BORN + DM + UNVERIFIED + "px ? CPT4 90935", "hf_unverified"),
    ("procedure without time but of a visit", BORN + DM + UNVERIFIED + "px visit4 CPT4 90935", 1),
    ("a diuretic does not make a case", BORN + DM + LAST + "rx visit1 furosemide", 0),
)  # fmt: skip
for lab, verified in {
    "30934-4 100 pg/mL": False, "30934-4 100.1 pg/mL": True, "30934-4 101 pg/mL": True, "42637-9 101 pg/mL": True,
    "30934-4 101 ng/L": True, "30934-4 101": True, "30934-4 100": False, "30934-4 900 pmol/L": False,
    "30934-4 900 ng/mL": False, "30934-4 900 %": False, "33762-6 300 pg/mL": False, "33762-6 301 pg/mL": True,
    "33762-6 200 pg/mL": False, "71425-3 301 ng/L": True, "71425-3 301": True, "71425-3 300": False,
    "33762-6 900 pmol/L": False, "33763-4 900 pg/mL": False, "4548-4 900": False,
}.items():  # fmt: skip
    text = BORN + DM + UNVERIFIED + f"lab 2010-06-01 {lab}"
    some("dhf", (f"heart failure and lab {lab}", text, 1 if verified else "hf_unverified"))
for drug, verified in {
    "furosemide": True, "bumetanide": True, "torsemide": True, "ethacrynic acid": True, "ethacrynic": False,
    "hydrochlorothiazide": True, "chlorthalidone": True, "metolazone": True, "indapamide": True,
    "spironolactone": True, "eplerenone": True, "amiloride hydrochloride": True, "triamterene": True,
    "candesartan and hydrochlorothiazide": True, "Lisinopril / Hydrochlorothiazide": True, "candesartan": False,
    "canrenone": False, "chlorothiazide": False, "furosemidex": False, "mannitol": False, "sacubitril": False,
    "metformin": False,
}.items():  # fmt: skip
    text = BORN + DM + UNVERIFIED + f"rx 2010-06-01 {drug}"
    some("dhf", (f"heart failure and drug {drug}", text, 1 if verified else "hf_unverified"))
for system, good, bad in (
    ("CPT4", "90935 90937 90945 90947 90951 90960 90970 90999 33975 33979 33983 33990 33993 33927 33929",
     "90934 90936 90940 90950 90971 90989 90998 33974 33984 33989 33994 33926 33930 9093 909350"),
    ("ICD9Proc", "39.95 54.98 37.52 37.60 37.62 37.63 37.65 37.66 37.68",
     "39.9 39.96 54.97 37.5 37.51 37.61 37.64 37.67"),
    ("ICD10PCS", "5A1D00Z 5A1D70Z 5A1D90Z 02HA0QZ 02HA3RS 02HA4RZ", "5A1C00Z 5A1935Z 5A1 02HB0QZ 02H63JZ 05A1D0Z"),
    ("HCPCS", "", "90935 33975"), ("ICD9CM", "", "39.95"), ("SNOMED", "", "5A1D70Z"),
):  # fmt: skip
    for code in good.split():
        some("dhf", (f"HF and {system} {code}", BORN + DM + UNVERIFIED + f"px 2010-06-01 {system} {code}", 1))
    for code in bad.split():
        text = BORN + DM + UNVERIFIED + f"px 2010-06-01 {system} {code}"
        some("dhf", (f"HF and {system} {code}", text, "hf_unverified"))

# ------------------------------------------------------------------------------------------ dhf: deaths, times, input

some(
    "dhf",
    ("dead before the first visit", BORN + "died 2009-12-31; " + DM + LAST, "incorrect_times"),
    ("dead on the day of the first visit", BORN + "died 2010-01-01; " + DM + LAST, "one_diabetes_encounter"),
    ("control dead the day before the last visit", BORN + "died 2010-11-30; " + DM + LAST, "died_before_index"),
    ("control dead on the day of the last visit", BORN + "died 2010-12-01; " + DM + LAST, 0),
    ("control dead after the last visit", BORN + "died 2010-12-02; " + DM + LAST, 0),
    ("case dead the day before heart failure", BORN + "died 2010-05-31; " + DM + HF, "died_before_index"),
    ("case dead on the day of heart failure", BORN + "died 2010-06-01; " + DM + HF, "hf_one_encounter"),
    ("case dead after heart failure", BORN + "died 2010-06-30; " + DM + HF, "hf_one_encounter"),
    ("case dead on the day of the second", BORN + "died 2010-07-01; " + DM + HF, 1),
    ("case dead after the second, seen again", BORN + "died 2010-07-02; " + DM + HF + LAST, 1),
    ("discharged a minute before admission",
     BORN + DM + "2010-03-01T10:00/2010-03-01T09:59 401.9; " + LAST, "incorrect_times"),
    ("discharged at admission", BORN + DM + "2010-03-01T10:00/2010-03-01T10:00 401.9; " + LAST, (0, 4, 3)),
    ("admission not known", BORN + DM + "?/2010-03-01 401.9; " + LAST, "incorrect_times"),
    ("neither time known", BORN + DM + "?/? 401.9; " + LAST, "incorrect_times"),
    ("discharge not known", BORN + DM + "2010-03-01/? 401.9; " + LAST, (0, 4, 3)),
    ("wrong times after the index of a case", BORN + DM + HF + "2012-01-02/2012-01-01 401.9", "incorrect_times"),
    ("wrong time of the index itself", BORN + DM + "2010-12-02/2010-12-01 401.9", "incorrect_times"),
    ("a visit open at the index is not read",
     BORN + "2010-01-01 250.00; 2010-02-01/2010-09-01 250.00; rx visit1 insulin; " + HF, (1, 3, 1)),
    ("a visit open at the index does not end the input",
     BORN + "2010-01-01 250.00; 2010-02-01/2010-09-01 250.00; 2010-03-01 401.9; rx visit1 insulin; " + HF, (1, 4, 3)),
    ("the first visits open at the index leave no input",
     BORN + "2010-01-01/2010-06-02 250.00; 2010-02-01/2010-06-02 250.00; rx visit1 insulin; " + HF, "input_codes"),
    ("over the day before", BORN + "2010-01-01/2010-05-31 250.00; 2010-02-01 250.00; rx visit1 insulin; " + HF,
     (1, 3, 2)),
    ("over an hour before the index on its day", BORN + DM + "2010-06-01T06:00/2010-06-01T07:00 401.9; " + HF,
     (1, 4, 3)),
    ("over at the minute of the index", BORN + DM + "2010-06-01T06:00/2010-06-01T08:00 401.9; " + HF,
     (1, 4, 3)),
    ("begun and over at the minute of the index", BORN + DM + "2010-06-01T08:00/2010-06-01T08:00 401.9; " + HF,
     (1, 4, 2)),
    ("begun at the minute of the index, discharge not known", BORN + DM + "2010-06-01T08:00/? 401.9; " + HF,
     (1, 4, 2)),
    ("over a minute after the index began", BORN + DM + "2010-06-01T06:00/2010-06-01T08:01 401.9; " + HF, (1, 4, 2)),
    ("over a minute before the index", BORN + DM + "2010-06-01T06:00/2010-06-01T07:59 401.9; " + HF, (1, 4, 3)),
    ("midnights only: another visit of the day of the index is not before it",
     BORN + DM + "2010-06-01T00:00/2010-06-01T00:00 401.9; 2010-06-01T00:00/2010-06-01T00:00 428.0; " + HF, (1, 4, 2)),
    ("a visit of the index day that comes after it", BORN + DM + "2010-06-01T06:00/2010-06-01T07:00 428.0; " + HF,
     (1, 3, 2)),
    ("the discharge of the visit before is not known", BORN + "2010-01-01 250.00; 2010-02-01/? 250.00; "
     "rx visit1 insulin; " + HF, (1, 3, 2)),
    ("a visit without codes in the input", BORN + "2009-01-01; " + DM + HF, (1, 4, 3)),
    ("only a visit without codes in the input",
     BORN + "2009-01-01; 2010-01-01/2011-01-01 250.00; 2010-02-01/2011-01-01 250.00; rx visit1 insulin; " + HF,
     "input_codes"),
)  # fmt: skip

# ------------------------------------------------------------------------------------------------------ dhf-landmark

T2 = BORN + DM  # T = 2010-01-01, so 365 days end on 2011-01-01
LANDMARK = "2011-01-01 401.9; "  # discharged on 2011-01-01 = t0; outcome from 2011-01-02 to 2012-01-01
some(
    "dhf-landmark",
    ("no diabetes", BORN + "2010-01-01 401.9; 2012-01-01 401.9", "no_diabetes"),
    ("no visit", BORN, "no_visits"),
    ("no type 2", BORN + "2010-01-01 250; 2010-02-01 E13.9; 2012-01-01 401.9", "no_type_2"),
    ("364 days", T2 + "2010-12-31 401.9", "no_index_visit"),
    ("365 days", T2 + LANDMARK, (0, 3, 3)),
    ("the first of several", T2 + LANDMARK + "2011-06-01 401.9; 2012-06-01 401.9", (0, 3, 3)),
    ("365 days over a leap day", BORN + "2012-01-01 250.00; 2012-02-01 250.00; rx visit1 insulin; 2012-12-31 401.9",
     (0, 3, 3)),
    ("364 days over a leap day", BORN + "2012-01-01 250.00; 2012-02-01 250.00; rx visit1 insulin; 2012-12-30 401.9",
     "no_index_visit"),
    ("the discharge counts, not the admission", T2 + "2010-12-25/2011-01-01 401.9", (0, 3, 3)),
    ("discharged a day short", T2 + "2010-12-25/2010-12-31 401.9; 2011-03-01 401.9", (0, 4, 4)),
    ("discharge not known, admitted at 365", T2 + "2011-01-01/? 401.9", (0, 3, 3)),
    ("discharge not known, admitted at 364", T2 + "2010-12-31/? 401.9", "no_index_visit"),
    ("counted from type 2, not from diabetes", BORN + "2010-01-01 E13.9; 2010-06-01 E11.9; rx visit1 insulin; "
     "2011-05-31 401.9; 2011-06-01 401.9", (0, 4, 4)),
    ("no index visit comes before one encounter", BORN + "2010-01-01 250.00; 2010-02-01 401.9", "no_index_visit"),
    ("one encounter up to the index", BORN + "2010-01-01 250.00; rx visit1 insulin; " + LANDMARK + "2011-02-01 250.00",
     "one_diabetes_encounter"),
    ("the index is the second encounter", BORN + "2010-01-01 250.00; rx visit1 insulin; 2011-01-01 250.00", (0, 2, 2)),
    ("the first visit is the index", BORN + "2010-01-01/2011-01-05 250.00; 2011-02-01 250.00; rx visit1 insulin",
     "one_diabetes_encounter"),
    ("wrong times before", T2 + "2010-03-02/2010-03-01 401.9; " + LANDMARK, "incorrect_times"),
    ("wrong times after", T2 + LANDMARK + "2011-03-02/2011-03-01 401.9", (0, 3, 3)),
    ("admission not known after", T2 + LANDMARK + "?/? 401.9", (0, 3, 3)),
    ("admission not known before", T2 + "?/? 401.9; " + LANDMARK, "incorrect_times"),
    ("dead before the first visit", BORN + "died 2009-12-31; " + DM + LANDMARK, "incorrect_times"),
    ("insipidus before", T2 + "2010-03-01 253.5; " + LANDMARK, "diabetes_insipidus"),
    ("gestational at the index", T2 + "2011-01-01 648.0", "gestational_diabetes"),
    ("neonatal before", T2 + "2010-03-01 775.1; " + LANDMARK, "neonatal_diabetes"),
    ("secondary before", T2 + "2010-03-01 249.00; " + LANDMARK, "secondary_diabetes"),
    ("type 1 before", T2 + "2010-03-01 250.01; " + LANDMARK, "type_1_diabetes"),
    ("type 1 after", T2 + LANDMARK + "2011-03-01 250.01", (0, 3, 3)),
    ("drug on the day of t0", BORN + UNPROVEN + LANDMARK + "rx 2011-01-01 metformin", 0),
    ("drug the day after t0", BORN + UNPROVEN + LANDMARK + "rx 2011-01-02 metformin", "diabetes_unverified"),
    ("drug after the discharge but on its day", BORN + UNPROVEN + LANDMARK + "rx 2011-01-01T23:00 metformin", 0),
    ("lab the day after t0", BORN + UNPROVEN + LANDMARK + "lab 2011-01-02 4548-4 9 %", "diabetes_unverified"),
    ("lab on the day of t0", BORN + UNPROVEN + LANDMARK + "lab 2011-01-01 4548-4 6.5 %", 0),
    ("drug of unknown day", BORN + UNPROVEN + LANDMARK + "rx ? metformin", "diabetes_unverified"),
    ("drug of a visit after", BORN + UNPROVEN + LANDMARK + "2011-03-01 401.9; rx visit5 metformin",
     "diabetes_unverified"),
    ("18 on the birthday", "born 1992-01-01; " + DM + LANDMARK, 0),
    ("17 the day before", "born 1992-01-02; " + DM + LANDMARK, "under_18"),
    ("age not known", DM + LANDMARK, "age_unknown"),
    ("age of the first of diabetes",
     "2010-01-01 age=6575 250.00; 2010-02-01 250.00; rx visit1 insulin; " + LANDMARK, 0),
    ("HF long before", BORN + "2005-01-01 428.0; " + DM + LANDMARK, "hf_before_index"),
    ("HF at the index", T2 + "2011-01-01 428.0", "hf_before_index"),
    ("HF on the day of t0, after it", T2 + LANDMARK + "2011-01-01T20:00/2011-01-03 428.0", "hf_before_index"),
    ("HF while the index visit lasts", T2 + "2010-12-01/2011-02-01 401.9; 2011-01-15 428.0", "hf_before_index"),
    ("HF a day after t0", T2 + LANDMARK + "2011-01-02 428.0", (1, 3, 3)),
    ("HF 365 days after t0", T2 + LANDMARK + "2012-01-01 428.0", (1, 3, 3)),
    ("HF 366 days after t0", T2 + LANDMARK + "2012-01-02 428.0", (0, 3, 3)),
    ("HF admitted at 365, discharged later", T2 + LANDMARK + "2012-01-01/2012-02-01 428.0", 1),
    ("HF needs neither a second code nor a drug", T2 + LANDMARK + "2011-05-01 I50.9", 1),
    ("HF of a visit without a date", T2 + LANDMARK + "?/? 428.0", 0),
    ("HF of another system", T2 + LANDMARK + "2011-05-01 ICD10GM/I50.9", 0),
    ("dead on the day of t0", BORN + "died 2011-01-01; " + DM + LANDMARK, "died_before_index"),
    ("dead before the index begins", BORN + "died 2010-06-01; " + DM + LANDMARK, "no_index_visit"),
    ("dead before t0", BORN + "died 2011-01-02; " + DM + "2010-12-31/2011-01-03 401.9", "died_before_index"),
    ("dead the day after t0", BORN + "died 2011-01-02; " + DM + LANDMARK, "competing"),
    ("dead 365 days after t0", BORN + "died 2012-01-01; " + DM + LANDMARK, "competing"),
    ("dead 366 days after t0", BORN + "died 2012-01-02; " + DM + LANDMARK, "not competing"),
    ("dead after heart failure", BORN + "died 2011-06-02; " + DM + LANDMARK + "2011-06-01 428.0", 1),
    ("dead on the day of heart failure", BORN + "died 2011-06-01; " + DM + LANDMARK + "2011-06-01 428.0", 1),
    ("dead before heart failure was coded", BORN + "died 2011-05-31; " + DM + LANDMARK + "2011-06-01 428.0",
     "competing"),
    ("heart failure at the index comes before death", BORN + "died 2011-01-01; " + DM + "2011-01-01 428.0",
     "hf_before_index"),
    ("heart failure after death at the index", BORN + "died 2010-12-31; " + DM + "2011-01-01 428.0", "no_index_visit"),
    ("follow-up ends on the last day", BORN + "2018-01-01 250.00; 2018-02-01 250.00; rx visit1 insulin; "
     "2020-01-01 401.9", (0, 3, 3)),
    ("follow-up is a day short", BORN + "2018-01-01 250.00; 2018-02-01 250.00; rx visit1 insulin; 2020-01-02 401.9",
     "short_follow_up"),
    ("follow-up is a day short, with an event", BORN + "2018-01-01 250.00; 2018-02-01 250.00; rx visit1 insulin; "
     "2020-01-02 401.9; 2020-03-01 428.0", "short_follow_up"),
    ("follow-up is a day short, dead in it", BORN + "died 2020-03-01; 2018-01-01 250.00; 2018-02-01 250.00; "
     "rx visit1 insulin; 2020-01-02 401.9", "short_follow_up"),
    ("follow-up counts from the discharge", BORN + "2018-01-01 250.00; 2018-02-01 250.00; rx visit1 insulin; "
     "2019-12-28/2020-01-02 401.9", "short_follow_up"),
)  # fmt: skip

# -------------------------------------------------------------------------------------------------------------- paca

WELL = "2010-01-01 401.9; "
PANCREATIC = "157 157.0 157.9 C25 C25.0 C25.9"
for code in PANCREATIC.split():
    some("paca", (f"pancreatic cancer coded {code}", BORN + WELL + f"2010-06-01 {code}; 2010-07-01 401.9", (1, 2, 1)))
OTHER_CANCER = (
    "140 140.0 149.9 150.9 156.9 158.0 172.9 174.9 199.1 200.10 208.91 209 209.00 209.79 C00 C00.0 C24.1 C26.0 "
    "C43.9 C45.0 C49.9 C4A.9 C50.911 C7A.010 C7B.02 C80.1 C96.Z C97"
)
for code in OTHER_CANCER.split():
    some("paca", (f"other cancer coded {code}", BORN + WELL + f"2010-06-01 {code}; 2010-07-01 401.9", "other_cancer"))
    text = BORN + WELL + f"2010-03-01 {code}; 2010-06-01 157.0"
    some("paca", (f"other cancer coded {code} before", text, "paca_other_cancer_before"))
NO_CANCER = (
    "139.8 173 173.0 173.91 210.1 230.1 234.9 235.2 239.9 V10.00 C44 C44.01 C44.92 C98 D00.0 D03.9 D37.8 D49.9 "
    "B99.9 Z85.07 ICD10/C25.9 ICD10GM/C25.9 ICD10GM/C50.9 ICD9CM/1570 ICD9CM/15 ICD10CM/157.0 ICD9CM/C25.9"
)
for code in NO_CANCER.split():
    some("paca", (f"no cancer is {code}", BORN + WELL + f"2010-06-01 {code}; 2010-07-01 401.9", (0, 3, 2)))
    some("paca", (f"{code} before", BORN + WELL + f"2010-03-01 {code}; 2010-06-01 157.0", (1, 3, 2)))
some(
    "paca",
    ("no visit", BORN, "no_visits"),
    ("one code makes a case", BORN + WELL + "2010-06-01 157.0", (1, 2, 1)),
    ("a control", BORN + WELL + "2010-06-01 401.9", (0, 2, 1)),
    ("a control with one visit", BORN + WELL, "input_codes"),
    ("pancreatic cancer at the first visit", BORN + "2010-01-01 157.0; 2010-02-01 157.0", "input_codes"),
    ("other cancer in the same encounter", BORN + WELL + "2010-06-01 157.0 197.7", (1, 2, 1)),
    ("other cancer after", BORN + WELL + "2010-06-01 157.0; 2010-07-01 197.7", (1, 2, 1)),
    ("other cancer on the same day, encounter before", BORN + WELL + "2010-06-01 197.7; 2010-06-01 157.0",
     "paca_other_cancer_before"),
    ("other cancer on the same day, encounter after", BORN + WELL + "2010-06-01 157.0; 2010-06-01 197.7", (1, 2, 1)),
    ("other cancer between two of the pancreas", BORN + WELL + "2010-06-01 157.0; 2010-07-01 153.9; 2010-08-01 157.0",
     (1, 2, 1)),
    ("other cancer at the last visit of a control", BORN + WELL + "2010-06-01 153.9", "other_cancer"),
    ("45 on the birthday", "born 1965-06-01; " + WELL + "2010-06-01 157.0", 1),
    ("44 the day before", "born 1965-06-02; " + WELL + "2010-06-01 157.0", "under_45"),
    ("control, 45 on the birthday", "born 1965-06-01; " + WELL + "2010-06-01 401.9", 0),
    ("control, 44 the day before", "born 1965-06-02; " + WELL + "2010-06-01 401.9", "under_45"),
    ("born on 29 February, 28 February", "born 1964-02-29; 2009-01-01 401.9; 2009-02-28 157.0", "under_45"),
    ("born on 29 February, 1 March", "born 1964-02-29; 2009-01-01 401.9; 2009-03-01 157.0", 1),
    ("44 at the first of the pancreas, 45 at the second", "born 1965-06-15; " + WELL + "2010-06-01 157.0; "
     "2010-07-01 157.0", "under_45"),
    # 45 × 365.25 = 16436.25
    ("16,436 days", WELL + "2010-06-01 age=16436 157.0", "under_45"),
    ("16,437 days", WELL + "2010-06-01 age=16437 width=365 157.0", 1),
    ("age not known", WELL + "2010-06-01 157.0", "age_unknown"),
    ("age known before the index only", "2010-01-01 age=20000 401.9; 2010-06-01 157.0", "age_unknown"),
    ("wrong times come first", BORN + WELL + "2010-03-01 153.9; 2010-06-02/2010-06-01 157.0", "incorrect_times"),
    ("wrong times after the index", BORN + WELL + "2010-06-01 157.0; 2010-08-02/2010-08-01 401.9", "incorrect_times"),
    ("admission not known", BORN + WELL + "2010-06-01 157.0; ?/? 401.9", "incorrect_times"),
    ("dead before the first visit", BORN + "died 2009-01-01; " + WELL + "2010-06-01 157.0", "incorrect_times"),
    ("cancer after death alone", BORN + "died 2010-05-01; " + WELL + "2010-06-01 157.0", "outcome_after_death"),
    ("cancer before death", BORN + "died 2010-06-01; " + WELL + "2010-06-01 157.0; 2010-06-02 157.0", (1, 2, 1)),
    ("other cancer before comes before age", "born 2000-01-01; 2010-01-01 153.9; 2010-06-01 157.0",
     "paca_other_cancer_before"),
    ("other cancer comes before age", "born 2000-01-01; 2010-01-01 153.9; 2010-06-01 401.9", "other_cancer"),
    ("a visit open at the index", BORN + WELL + "2010-02-01/2010-06-02 401.9; 2010-03-01 401.9; 2010-06-01 157.0",
     (1, 4, 3)),
    ("diabetes and heart failure don't matter", BORN + DM + HF + "2011-01-01 157.0", (1, 5, 4)),
)  # fmt: skip
some(
    "paca+30",  # index 2010-06-01, so the input ends on 2010-05-02
    ("over 30 days before", BORN + WELL + "2010-05-02 789.00; 2010-06-01 157.0", (1, 3, 2)),
    ("over 29 days before", BORN + WELL + "2010-05-03 789.00; 2010-06-01 157.0", (1, 3, 1)),
    ("admitted 30 days before, over 29 days before", BORN + WELL + "2010-05-02/2010-05-03 789.00; 2010-06-01 157.0",
     (1, 3, 1)),
    ("over 30 days before at the last minute", BORN + WELL + "2010-05-02/2010-05-02T23:59 789.00; "
     "2010-06-01T00:00/2010-06-01T09:00 157.0", (1, 3, 2)),
    ("discharge not known, admitted 30 days before", BORN + WELL + "2010-05-02/? 789.00; 2010-06-01 157.0", (1, 3, 2)),
    ("discharge not known, admitted 29 days before", BORN + WELL + "2010-05-03/? 789.00; 2010-06-01 157.0", (1, 3, 1)),
    ("nothing before the gap", BORN + "2010-05-03 401.9; 2010-06-01 157.0", "input_codes"),
    ("a control has the gap too", BORN + WELL + "2010-05-03 401.9; 2010-06-01 401.9", (0, 3, 1)),
    ("other cancer within the gap", BORN + WELL + "2010-05-20 153.9; 2010-06-01 157.0", "paca_other_cancer_before"),
    ("age is that of the index", "born 1965-06-01; " + WELL + "2010-06-01 157.0", (1, 2, 1)),
)  # fmt: skip


def told(outcome) -> object:
    if isinstance(outcome, Left):
        return outcome.rule
    return (outcome.label, outcome.index_order, outcome.last_read)


def agrees(outcome, expected) -> bool:
    if isinstance(expected, int):
        return isinstance(outcome, In) and outcome.label == expected
    if expected in ("competing", "not competing"):
        dead = expected == "competing"
        return isinstance(outcome, In) and outcome.label == 0 and outcome.competing_death is dead
    return told(outcome) == expected


NAMES = [f"{spec}: {name}" for spec, name, _, _ in PATIENTS]


def test_every_patient_has_a_name_of_its_own():
    assert len(set(NAMES)) == len(NAMES) >= 80


@cache
def outcomes_of(implementation: str, spec: str) -> dict[str, object]:
    texts = {name: text for its_spec, name, text, _ in PATIENTS if its_spec == spec}
    if implementation == "loops":
        return ask_loops(spec, tables_of(texts))
    expected = {name: one for its_spec, name, _, one in PATIENTS if its_spec == spec}
    return ask_package_of_each(spec, tables_of, texts, expected)


@pytest.mark.parametrize("implementation", ["loops", "package"])
@pytest.mark.parametrize(("spec", "name", "text", "expected"), PATIENTS, ids=NAMES)
def test_boundary(spec, name, text, expected, implementation):
    outcome = outcomes_of(implementation, spec)[name]
    assert agrees(outcome, expected), (text, told(outcome), expected)


def test_codes_as_sources_write_them():
    # "Codes with and without the dot, lower case, trailing blanks": through the readers' normal form.
    for system, written, code in (
        ("ICD9CM", "25000", "250.00"), ("ICD9CM", " 250.00 ", "250.00"), ("ICD9CM", "4280", "428.0"),
        ("ICD9CM", "428", "428"), ("ICD9CM", "v1221", "V12.21"), ("ICD10CM", "e119 ", "E11.9"),
        ("ICD10CM", "i97131", "I97.131"), ("ICD10CM", "I50.9  ", "I50.9"), ("ICD10CM", "c259", "C25.9"),
    ):  # fmt: skip
        frame = pl.DataFrame({"system": [system], "code": [written]})
        assert frame.select(normal_form(pl.col("system"), pl.col("code"))).item() == code


def test_age_is_uncertain_within_half_a_band_of_the_boundary():
    def uncertain(visit: str, born: str = "") -> bool:
        rows = {name: frame.to_dicts() for name, frame in tables_of({"p": born + visit}).present().items()}
        patient = records_of(rows)["p"]
        return age_is_uncertain(patient, patient.visits[0], 18)

    assert uncertain("2010-07-02 age=6575 width=365 250.00")
    assert uncertain("2010-01-01 age=6393 width=365 250.00")  # 6393 + 182.5 = 6575.5 ≥ 6574.5
    assert not uncertain("2010-01-01 age=6391 width=365 250.00")  # 6573.5
    assert not uncertain("2011-01-01 age=6757 width=365 250.00")  # 6574.5: at least 18 at either end
    assert uncertain("2010-12-31 age=6756 width=365 250.00")  # 6573.5
    assert not uncertain("2010-07-02 age=6575 250.00")
    assert not uncertain("2010-07-02 age=6575 width=365 250.00", born="born 1992-07-01; ")


# ------------------------------------------------------------------------------------ dhf-matched: shards, not patients


def ids(role: str, how_many: int) -> list[str]:
    """The patient ids of a pool that lie nearest to its border, in the order in which they draw or are drawn."""
    names = [f"patient {number}" for number in range(200)]
    place = {name: int(one) / 2**64 for name, one in zip(names, patient_hash(names, "dhf-matched/role"), strict=True)}
    drawn = dict(zip(names, patient_hash(names, "dhf-matched/draw"), strict=True))
    mine = [name for name in names if (place[name] < 0.3) == (role == "control")]
    mine = sorted(mine, key=lambda name: abs(place[name] - 0.3))[:how_many]
    return sorted(mine, key=lambda name: drawn[name])


CASES, CONTROLS = ids("case", 4), ids("control", 6)
CASE = BORN + DM + HF  # T = 2010-01-01, cut on 2010-06-01: after 151 days
CONTROL = BORN + "2010-01-11 250.00; 2010-02-11 250.00; rx 2010-01-11 metformin; "  # cut on 2010-06-11
THE_CUT = date(2010, 6, 11)


def control_born(day: str, *rest: str) -> str:
    return BORN + f"{day} 250.00; {day} 250.00; rx {day} metformin; " + "; ".join(rest)


@dataclasses.dataclass
class Shard:
    name: str
    cases: tuple[str, ...]
    controls: tuple[str, ...]
    expected_cases: tuple[object, ...]
    """Per case: None (left), "unmatched", or (index date, last readable order)."""
    expected_controls: tuple[object, ...]
    """Per control: None, or (index date, last readable order, weight)."""
    last_day: str = "2020-12-31"


MATCHED = (date(2010, 6, 1), 2)
DRAWN = (THE_CUT, 2, 1.0)
ONE_CONTROL = {
    "a control": (CONTROL, DRAWN),
    "one diabetes encounter": (BORN + "2010-01-11 250.00; rx visit1 insulin", None),
    "no type 2": (BORN + "2010-01-11 250; 2010-02-11 E13.9; rx visit1 insulin", None),
    "second diabetes encounter the day before the cut": (
        BORN + "2010-01-11 250.00; 2010-06-10 250.00; rx visit1 insulin", DRAWN),
    "second diabetes encounter on the day of the cut": (
        BORN + "2010-01-11 250.00; 2010-06-11 250.00; rx visit1 insulin", None),
    "drug the day before the cut": (CONTROL.replace("rx 2010-01-11", "rx 2010-06-10"), DRAWN),
    "drug on the day of the cut": (CONTROL.replace("rx 2010-01-11", "rx 2010-06-11"), None),
    "lab the day before the cut": (
        CONTROL.replace("rx 2010-01-11 metformin", "lab 2010-06-10 4548-4 6.5 %"), DRAWN),
    "lab on the day of the cut": (CONTROL.replace("rx 2010-01-11 metformin", "lab 2010-06-11 4548-4 6.5 %"), None),
    "excluded the day before the cut": (CONTROL + "2010-06-10 250.01", None),
    "excluded on the day of the cut": (CONTROL + "2010-06-11 250.01", DRAWN),
    "dead the day before the cut": ("died 2010-06-10; " + CONTROL, None),
    "dead on the day of the cut": ("died 2010-06-11; " + CONTROL, DRAWN),
    "heart failure the day before the cut": (CONTROL + "2010-06-10 428.0", None),
    "heart failure on the day of the cut": (CONTROL + "2010-06-11 428.0", None),
    "heart failure the day after the cut": (CONTROL + "2010-06-12 428.0", DRAWN),
    "a case later, all of it": (CONTROL + "2010-07-01 428.0; 2010-08-01 428.0; rx 2010-07-01 furosemide", DRAWN),
    "wrong times before the cut": (CONTROL + "2010-05-02/2010-05-01 401.9", None),
    "wrong times after the cut": (CONTROL + "2010-07-02/2010-07-01 401.9", DRAWN),
    "a visit after the cut, discharged before it, is not read": (CONTROL + "2010-07-01/2010-06-01 401.9", DRAWN),
    "18 at the first of diabetes": (CONTROL.replace("1950-06-15", "1992-01-11"), DRAWN),
    "17 at the first of diabetes": (CONTROL.replace("1950-06-15", "1992-01-12"), None),
    "age not known": (CONTROL.replace(BORN, ""), None),
    "over the day before the cut": (CONTROL + "2010-06-01/2010-06-10 401.9", (THE_CUT, 3, 1.0)),
    "over on the day of the cut": (CONTROL + "2010-06-01/2010-06-11 401.9", DRAWN),
    "over at midnight of the cut": (CONTROL + "2010-06-01/2010-06-11T00:00 401.9", DRAWN),
    "a visit open at the cut is not read": (
        BORN + "2010-01-11 250.00; 2010-02-11/2010-07-01 250.00; rx visit1 insulin", (THE_CUT, 1, 1.0)),
    "a visit open at the cut does not end the input": (
        BORN + "2010-01-11 250.00; 2010-02-11/2010-07-01 250.00; 2010-03-01 401.9; rx visit1 insulin",
        (THE_CUT, 3, 1.0)),
    "the first visits open at the cut": (
        BORN + "2010-01-11/2010-07-01 250.00; 2010-02-11/2010-07-01 250.00; rx visit1 insulin", None),
    "discharge not known": (CONTROL + "2010-06-10/? 401.9", (THE_CUT, 3, 1.0)),
    "visits after the cut are not asked for": (CONTROL + "2015-01-01 401.9", DRAWN),
    # The cut is T + 151 days, if that is in 2010.
    "cut on 31 December": (control_born("2010-08-02"), (date(2010, 12, 31), 2, 1.0)),
    "cut would be on 1 January of the next year": (control_born("2010-08-03"), None),
    "cut on 1 January": (control_born("2009-08-03"), (date(2010, 1, 1), 2, 1.0)),
    "cut would be on 31 December of the year before": (control_born("2009-08-02"), None),
    "heart failure after 1 January": (control_born("2009-08-03", "2010-01-02 428.0"), (date(2010, 1, 1), 2, 1.0)),
    "heart failure on 1 January": (control_born("2009-08-03", "2010-01-01 428.0"), None),
}  # fmt: skip
ONE_CASE = {
    "one heart failure encounter": (CASE.replace("2010-07-01 428.0", "2010-07-01 401.9"), None),
    "29 days": (BORN + "2010-05-03 250.00; 2010-05-04 250.00; rx visit1 insulin; " + HF, None),
    "heart failure unverified": (BORN + DM + UNVERIFIED, None),
    "heart failure verified years later": (BORN + DM + UNVERIFIED + "rx 2015-01-01 furosemide", MATCHED),
    "diabetes verified the day before": (CASE.replace("rx 2010-01-01", "rx 2010-05-31"), MATCHED),
    "diabetes verified on the day": (CASE.replace("rx 2010-01-01", "rx 2010-06-01"), None),
    "second diabetes encounter on the day": (
        BORN + "2010-01-01 250.00; 2010-06-01 250.00 428.0; 2010-07-01 428.0; rx visit1 insulin; rx visit1 furosemide",
        None),
    "excluded after the cut": (CASE + "2011-01-01 250.01", MATCHED),
    "excluded before the cut": (CASE.replace(HF, "2010-03-01 250.01; " + HF), None),
    "wrong times after the cut": (CASE + "2011-01-02/2011-01-01 401.9", MATCHED),
    "wrong times before the cut": (CASE.replace(HF, "2010-03-02/2010-03-01 401.9; " + HF), None),
    "dead the day before": ("died 2010-05-31; " + CASE, None),
    "dead on the day, the second after it": ("died 2010-06-01; " + CASE, None),
    "dead on the day of the second": ("died 2010-07-01; " + CASE, MATCHED),
    "17 at the first of diabetes": (CASE.replace("1950-06-15", "1992-01-02"), None),
    "18 at the first of diabetes": (CASE.replace("1950-06-15", "1992-01-01"), MATCHED),
    "a visit on the day of the cut is not before it": (
        CASE.replace(HF, "2010-06-01T01:00/2010-06-01T02:00 401.9; " + HF), MATCHED),
    "the index visit has a wrong discharge and is not read": (
        CASE.replace("2010-06-01 428.0", "2010-06-01/2010-05-30 428.0"), MATCHED),
    "no heart failure at all": (BORN + DM + LAST, None),
}  # fmt: skip

SHARDS = [Shard(f"control: {name}", (CASE,), (text,), ("unmatched" if expected is None else MATCHED,), (expected,))
          for name, (text, expected) in ONE_CONTROL.items()]  # fmt: skip
SHARDS += [
    Shard(f"case: {name}", (text,), (CONTROL,), (expected,), (expected and DRAWN,))
    for name, (text, expected) in ONE_CASE.items()
]
SHARDS += [
    Shard("30 days after type 2", (BORN + "2010-05-02 250.00; 2010-05-04 250.00; rx visit1 insulin; " + HF,),
          (control_born("2010-01-11"),), (MATCHED,), ((date(2010, 2, 10), 2, 1.0),)),
    Shard("29 days are left of the year", (BORN + "2010-05-02 250.00; 2010-05-04 250.00; rx visit1 insulin; " + HF,),
          (control_born("2010-12-02"),), ("unmatched",), (None,)),
    Shard("30 days are left of the year", (BORN + "2010-05-02 250.00; 2010-05-04 250.00; rx visit1 insulin; " + HF,),
          (control_born("2010-12-01"),), (MATCHED,), ((date(2010, 12, 31), 2, 1.0),)),
    Shard("on the source's last day", (CASE,), (CONTROL,), (MATCHED,), (DRAWN,), "2010-06-11"),
    Shard("after the source's last day", (CASE,), (CONTROL,), ("unmatched",), (None,), "2010-06-10"),
    Shard("two of three controls", (CASE,), (CONTROL,) * 3, (MATCHED,), ((THE_CUT, 2, 1.5), (THE_CUT, 2, 1.5), None)),
    Shard("two of five controls", (CASE,), (CONTROL,) * 5, (MATCHED,),
          ((THE_CUT, 2, 2.5), (THE_CUT, 2, 2.5), None, None, None)),
    Shard("the first in line is not eligible", (CASE,), ("died 2010-05-01; " + CONTROL, CONTROL, CONTROL, CONTROL),
          (MATCHED,), (None, (THE_CUT, 2, 1.5), (THE_CUT, 2, 1.5), None)),
    Shard("two cases, three controls", (CASE, CASE), (CONTROL,) * 3, (MATCHED, "unmatched"),
          ((THE_CUT, 2, 1.5), (THE_CUT, 2, 1.5), None)),
    Shard("two cases, two controls", (CASE, CASE), (CONTROL,) * 2, (MATCHED, "unmatched"), (DRAWN, DRAWN)),
    Shard("the second case goes first if the first has nobody",
          (BORN + "2012-01-01 250.00; 2012-02-01 250.00; rx visit1 insulin; 2012-06-01 428.0; 2012-07-01 428.0; "
           "rx visit1 furosemide", CASE), (CONTROL,), ("unmatched", MATCHED), (DRAWN,)),
    Shard("no control", (CASE, CASE), (), ("unmatched", "unmatched"), ()),
    Shard("no case", (), (CONTROL,), (), (None,)),
    Shard("a case of heart failure in the control pool is no case", (), (CASE, CONTROL), (), (None, None)),
    Shard("a patient without heart failure in the case pool is no control", (CASE, CONTROL), (), ("unmatched", None),
          ()),
]  # fmt: skip


@pytest.mark.parametrize("implementation", ["loops", "package"])
@pytest.mark.parametrize("shard", SHARDS, ids=lambda shard: shard.name)
def test_matched_shard(shard, implementation):
    cases = dict(zip(CASES, shard.cases, strict=False))
    # A case takes two controls or none: one who stands alone in the shard has a twin.
    twins = 2 if len(shard.controls) == 1 else 1
    controls = dict(zip(CONTROLS, shard.controls * twins, strict=False))
    tables = tables_of(cases | controls, shard.last_day)
    ask = ask_loops if implementation == "loops" else ask_package
    outcomes = ask("dhf-matched", tables, shard.last_day)
    for patient_id, expected in zip(cases, shard.expected_cases, strict=True):
        outcome = outcomes[patient_id]
        if expected is None or expected == "unmatched":
            assert isinstance(outcome, Left)
            assert implementation == "package" or (outcome.rule == "unmatched") == (expected == "unmatched")
        else:
            assert (outcome.label, outcome.index_date, outcome.last_read) == (1, *expected)
            assert outcome.index_order == outcome.last_readable_order + 1
            assert outcome.weight == pytest.approx(1 / 0.7)
    for patient_id, expected in zip(controls, shard.expected_controls * twins, strict=True):
        outcome = outcomes[patient_id]
        if expected is None:
            assert isinstance(outcome, Left)
        else:
            assert isinstance(outcome, In), outcome
            assert (outcome.label, outcome.index_date, outcome.last_read) == (0, *expected[:2])
            assert outcome.index_order == outcome.last_readable_order + 1
            assert outcome.weight == pytest.approx(expected[2])


def test_the_pools_are_three_tenths_and_seven_tenths():
    names = [f"patient {number}" for number in range(20_000)]
    pooled = sum(int(one) / 2**64 < 0.3 for one in patient_hash(names, "dhf-matched/role"))
    assert 5_800 < pooled < 6_200
