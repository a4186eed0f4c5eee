"""Frames laid out by hand after ohdsi.github.io/CommonDataModel (5.3, 5.4), with concepts as Athena publishes them."""

from datetime import date, datetime

import polars as pl
import pytest

from medbert_jax.ehr.schema import check_tables
from medbert_jax.ingest.assembly import assemble
from medbert_jax.ingest.reader import counting_unreadable
from medbert_jax.ingest.readers.omop import OMOP
from medbert_jax.ingest.readers.omop_options import OmopOptions
from medbert_jax.ingest.readers.omop_tables import _POSITIONS

CONCEPTS = """
44826459|250.00|ICD9CM|4-dig billing code|Diabetes mellitus without mention of complication
35206882|E11.9|ICD10CM|5-char billing code|Type 2 diabetes mellitus without complications
45533021|E11|ICD10|ICD10 code|Type 2 diabetes mellitus
37204165|E11.90|ICD10GM|ICD10 code|Diabetes mellitus, Typ 2
42485204|E11|KCD7|KCD7 code|Type 2 diabetes mellitus
201826|44054006|SNOMED|Clinical Finding|Type 2 diabetes mellitus
1503297|6809|RxNorm|Ingredient|metformin
40164929|860975|RxNorm|Clinical Drug|metformin hydrochloride 500 MG Oral Tablet
45422834|C10F.00|Read|Read|Type 2 diabetes mellitus
45000001|00093-1048|NDC|11-digit NDC|Metformin 500mg
3004410|4548-4|LOINC|Lab Test|Hemoglobin A1c/Hemoglobin.total in Blood
8554|%|UCUM|Unit|percent
2108115|92928|CPT4|CPT4|Percutaneous transcatheter placement of stent
4184832|415070008|SNOMED|Procedure|Percutaneous coronary intervention
8527|5|Race|Race|White
8552|OMOP generated|Race|Race|Unknown
0|No matching concept|None|Undefined|No matching concept
"""
CONCEPT = pl.DataFrame(
    [line.split("|") for line in CONCEPTS.strip().splitlines()],
    schema=["concept_id", "concept_code", "vocabulary_id", "concept_class_id", "concept_name"],
    orient="row",
)
WHOLE = ("concept_id", "year_of_birth", "month_of_birth", "day_of_birth", "visit_occurrence_id")


def table(name: str, rows: list[dict], parquet: bool = False) -> pl.DataFrame:
    """What the engine hands over: every column of the reader's table, as text or (Parquet) as typed."""
    columns = next((*t.required, *t.optional) for t in OMOP.tables if t.name == name)
    assert not {key for row in rows for key in row} - set(columns)
    frame = pl.DataFrame({c: [row.get(c) for row in rows] for c in columns}, schema=dict.fromkeys(columns, pl.String))
    if not parquet:
        return frame
    return frame.with_columns(
        pl.col(c).cast(pl.Int64) if c.endswith(WHOLE) else pl.col(c).str.to_date()
        if c.endswith("_date") else pl.col(c).str.to_datetime("%Y-%m-%d %H:%M:%S")
        if c.endswith("_datetime") else pl.col(c)
        for c in columns
    )  # fmt: skip


PERSON = {"person_id": "1", "gender_concept_id": "8532", "year_of_birth": "1950"}
STAY = {
    "visit_occurrence_id": "10", "person_id": "1", "visit_concept_id": "9201",
    "visit_start_date": "2015-03-02", "visit_end_date": "2015-03-09",
}  # fmt: skip
CONDITION = {
    "person_id": "1", "visit_occurrence_id": "10", "condition_concept_id": "201826",
    "condition_start_date": "2015-03-02",
}  # fmt: skip


def build(options=None, parquet=False, **rows):
    """Rough tables of one patient's rows; tables that are not named are as usual or absent."""
    rows = {"person": [PERSON], "visit_occurrence": [STAY], "condition_occurrence": [CONDITION]} | rows
    raw = {name: table(name, of, parquet) for name, of in rows.items() if isinstance(of, list)}
    if "concept" not in rows:
        raw["concept"] = CONCEPT.with_columns(pl.col("concept_id").cast(pl.Int64)) if parquet else CONCEPT
    return OMOP.build(raw, options or OmopOptions())


def codes(conditions, **more):
    frame = build(condition_occurrence=[CONDITION | one for one in conditions], **more).diagnoses
    return frame.select("code_system", "code").rows()


@pytest.mark.parametrize("parquet", [False, True], ids=["csv", "parquet"])
def test_a_patient_from_text_and_typed_columns_is_the_same(parquet):
    rough = build(
        parquet=parquet,
        person=[PERSON | {"month_of_birth": "2", "day_of_birth": "9", "race_concept_id": "8527"}],
        visit_occurrence=[
            STAY | {"visit_start_datetime": "2015-03-02 14:30:00", "visit_end_datetime": "2015-03-09 10:00:00",
                    "discharged_to_concept_id": "8863"},
            {"visit_occurrence_id": "9", "person_id": "1", "visit_concept_id": "9202",
             "visit_start_date": "2014-01-05", "visit_end_date": "2014-01-05", "discharged_to_concept_id": "0"},
        ],
        condition_occurrence=[
            CONDITION | {"condition_source_concept_id": "35206882", "condition_source_value": "E119",
                         "condition_status_concept_id": "32901"},
            CONDITION | {"visit_occurrence_id": None, "condition_start_date": "2014-01-05"},
        ],
        drug_exposure=[{"person_id": "1", "visit_occurrence_id": "10", "drug_concept_id": "1503297",
                        "drug_exposure_start_date": "2015-03-03"}],
        measurement=[{"person_id": "1", "visit_occurrence_id": "10", "measurement_concept_id": "3004410",
                      "measurement_date": "2015-03-03", "measurement_datetime": "2015-03-03 06:00:00",
                      "value_as_number": "7.1", "unit_concept_id": "8554"}],
        procedure_occurrence=[{"person_id": "1", "visit_occurrence_id": "10", "procedure_concept_id": "4184832",
                               "procedure_source_concept_id": "2108115", "procedure_date": "2015-03-04"}],
        death=[{"person_id": "1", "death_date": "2019-07-01"}],
    )  # fmt: skip
    assembled = assemble("omop", rough)
    tables = assembled.tables
    assert check_tables(tables) == []
    assert tables.patients.rows() == [("1", date(1950, 2, 9), "female", "White", date(2019, 7, 1), None)]
    columns = ["visit_id", "admit_time", "discharge_time", "length_of_stay", "visit_type", "discharge_disposition"]
    assert tables.visits.select(columns).rows() == [
        ("9", datetime(2014, 1, 5), datetime(2014, 1, 5), 0, "outpatient", None),
        ("10", datetime(2015, 3, 2, 14, 30), datetime(2015, 3, 9, 10), 7, "inpatient", "facility"),
    ]
    assert sorted(tables.diagnoses.rows()) == [
        ("1", "10", "ICD10CM", "E11.9", True, None, 1, datetime(2015, 3, 2)),
        ("1", "9", "SNOMED", "44054006", None, None, None, datetime(2014, 1, 5)),
    ]  # fmt: skip
    assert tables.medications.rows() == [("1", "10", datetime(2015, 3, 3), "RxNorm", "6809", "metformin")]
    assert tables.measurements.rows() == [("1", "10", datetime(2015, 3, 3, 6), "LOINC", "4548-4", 7.1, "%")]
    assert tables.procedures.rows() == [("1", "10", datetime(2015, 3, 4), "CPT4", "92928")]
    assert rough.age_precision == "day or year" and assembled.ledger.kept.codes == 2


def test_source_concepts_keep_the_name_of_their_vocabulary():
    ids = {"44826459": ("ICD9CM", "250.00"), "35206882": ("ICD10CM", "E11.9"), "45533021": ("ICD10", "E11"),
           "37204165": ("ICD10GM", "E11.90"), "42485204": ("KCD7", "E11")}  # fmt: skip
    assert codes([{"condition_source_concept_id": one} for one in ids]) == list(ids.values())


def test_where_there_is_no_source_concept():
    source = ("0", None, "99999999")  # unmapped, not given, not in concept
    assert codes([{"condition_source_concept_id": one} for one in source]) == [("SNOMED", "44054006")] * 3
    unmapped = {"condition_concept_id": "0", "condition_source_concept_id": "0"}
    assert codes([unmapped, unmapped | {"condition_source_value": "DM2"}]) == [(None, None), ("SOURCE", "DM2")]
    # The text's own word for its system comes before the standard concept; its shape alone says nothing.
    texts = {"ICD10CM:E11.9": ("ICD10CM", "E11.9"), "icd-10-gm:E11.90": ("ICD10GM", "E11.90"),
             "ICD10/E11": ("ICD10", "E11"), "SNOMED-CT|44054006": ("SNOMED", "44054006"),
             "E11.9": ("SNOMED", "44054006"), "I10|x": ("SNOMED", "44054006")}  # fmt: skip
    assert codes([{"condition_source_value": one} for one in texts]) == list(texts.values())
    # ... and after the source concept of an ICD.
    both = {"condition_source_concept_id": "45533021", "condition_source_value": "ICD10CM:E11.9"}
    assert codes([both]) == [("ICD10", "E11")]


def test_a_source_concept_of_no_icd_comes_after_the_texts_and_the_standard_concept():
    read = {"condition_source_concept_id": "45422834"}
    told = {"condition_source_value": "ICD10:E11"}
    unmapped = {"condition_concept_id": "0", "condition_source_value": "local7"}
    assert codes([read, read | told, read | unmapped]) == [
        ("SNOMED", "44054006"), ("ICD10", "E11"), ("Read", "C10F.00"),
    ]  # fmt: skip
    german = codes([read | {"condition_source_value": "E11.90"}], options=OmopOptions("ICD10GM"))
    assert german == [("ICD10GM", "E11.90")]


FREE_TEXTS = (
    "Diabetes Typ 2", "Diabetes", "E11.9 since 1998", "E11.9,Mueller", "Müller1951", "x1" * 10 + "2", "DM2?",
    "ICD10: E11 of Mrs Mueller", "ICD10CM:E11.9 Mueller", "SNOMED:44054006 |Diabetes|", "SNOMED:diabetes, 73 years",
)  # fmt: skip


@pytest.mark.parametrize("system", ["", "ICD10GM", "ICD9CM", "LOCAL"])
def test_free_text_is_never_a_code(system):
    unmapped = {"condition_concept_id": "0", "condition_source_concept_id": "0"}
    rows = [CONDITION | unmapped | {"condition_source_value": one} for one in (*FREE_TEXTS, "DM-2.b")]
    events = {
        name: [{"person_id": "1", f"{kind}_source_value": one, f"{start}_date": "2015-03-03"}
               for one in (*FREE_TEXTS, "DM-2.b")]
        for name, kind, start in (("drug_exposure", "drug", "drug_exposure_start"),
                                  ("measurement", "measurement", "measurement"),
                                  ("procedure_occurrence", "procedure", "procedure"))
    }  # fmt: skip
    made = assemble("omop", build(OmopOptions(system), condition_occurrence=rows, **events))
    tables, named = made.tables, system == "LOCAL"
    assert tables.diagnoses.select("code_system", "code").rows() == [("LOCAL", "DM-2.b")] * named
    assert not any(table.height for table in (tables.medications, tables.measurements, tables.procedures))
    left = [{line.rule: line.left.codes for line in one.lines} for one in (made.ledger, made.events)]
    assert [one["missing_code"] for one in left] == [len(FREE_TEXTS), 3 * len(FREE_TEXTS)]
    assert [one["unnamed_system"] for one in left] == [1 - named, 3]


@pytest.mark.parametrize("system", ["", "ICD10CM", "ICD9CM", "SNOMED", "Read", "LOCAL"])
def test_days_and_numbers_of_persons_are_never_codes(system):
    values = ("2011-05-03", "03.05.2011", "20110503", "555-123-4567", "555-1234", "5551234567", "123-45-6789")
    rows = [{"condition_concept_id": "0", "condition_source_value": one} for one in values]
    made = assemble("omop", build(OmopOptions(system), condition_occurrence=[CONDITION | one for one in rows]))
    # The numbers that SNOMED has too can be told from nothing.
    assert set(made.tables.diagnoses["code"]) == ({"20110503", "5551234567"} if system == "SNOMED" else set())


def test_the_system_of_source_values_is_one_that_is_known():
    for written in ("icd10cm", "ICD-10-CM", "ICD10CM", "icd 10 cm"):
        assert OmopOptions(written).source_value_system == "ICD10CM"
    names = {"icd-9": "ICD9CM", "icd10": "ICD10", "ICD-10-GM": "ICD10GM", "snomed-ct": "SNOMED", "read": "Read"}
    assert {one: OmopOptions(one).source_value_system for one in names} == names
    with pytest.raises(ValueError, match=r"got ICD11CM; use LOCAL .* or one of ICD10, ICD10CM"):
        OmopOptions("ICD11CM")


def test_times_of_another_day_than_their_date_are_not_taken():
    rows = [STAY | {"visit_start_datetime": "2015-03-01T22:00:00Z", "visit_end_datetime": "2015-03-09 10:00:00"}]
    with counting_unreadable() as cells:
        visits = build(visit_occurrence=rows).visits
    assert visits.select("admit_time", "discharge_time").rows() == [(datetime(2015, 3, 2), datetime(2015, 3, 9, 10))]
    assert cells == {"visit_start_datetime of another day than visit_start_date": 1}


def test_a_concept_id_too_large_for_the_type_of_the_table_of_concepts_is_unmapped():
    raw = {name: table(name, rows) for name, rows in {
        "person": [PERSON], "visit_occurrence": [STAY],
        "condition_occurrence": [CONDITION | {"condition_source_concept_id": "20240105123456"}, CONDITION],
    }.items()}  # fmt: skip
    raw["concept"] = CONCEPT.with_columns(pl.col("concept_id").cast(pl.Int32))
    rough = OMOP.build(raw, OmopOptions())
    assert rough.diagnoses.select("code_system", "code").rows() == [("SNOMED", "44054006")] * 2


def test_the_option_says_the_system_of_texts_that_look_like_codes():
    conditions = [{"condition_source_value": one} for one in ("E11.90", "Diabetes Typ 2", "ICD10CM:E11.9", "250.00")]
    kept = ("SNOMED", "44054006")
    german = codes(conditions, options=OmopOptions(source_value_system="ICD10GM"))
    assert german == [("ICD10GM", "E11.90"), kept, ("ICD10CM", "E11.9"), kept]
    american = codes([*conditions, {"condition_source_value": "V4581"}],
                     options=OmopOptions(source_value_system="ICD9CM"))  # fmt: skip
    assert american == [kept, kept, ("ICD10CM", "E11.9"), ("ICD9CM", "250.00"), ("ICD9CM", "V4581")]


def test_without_a_table_of_concepts_only_texts_speak():
    rows = [CONDITION | {"condition_source_value": text} for text in (None, "E11.9", "ICD10CM:E11.9")]
    rough = build(condition_occurrence=rows, concept=None)
    assert rough.diagnoses.select("code_system", "code").rows() == [
        (None, None), ("SOURCE", "E11.9"), ("ICD10CM", "E11.9"),
    ]  # fmt: skip
    assert any("no table concept" in line for line in rough.assumptions)
    lines = {line.rule: line.left.codes for line in assemble("omop", rough).ledger.lines}
    assert lines["missing_code"] == 1


def visit(number, start, end, patient="1"):
    days = {"visit_start_date": start, "visit_end_date": end}
    return STAY | days | {"visit_occurrence_id": number, "person_id": patient}


def linked(dates, visits, options=None, patient="1"):
    rows = [CONDITION | {"visit_occurrence_id": None, "condition_start_date": one, "person_id": patient,
                         "condition_concept_id": "0"} for one in dates]  # fmt: skip
    rows = [one | {"condition_source_value": f"ICD10CM:A0{n}"} for n, one in enumerate(rows)]
    made = assemble("omop", build(options, visit_occurrence=visits, condition_occurrence=rows)).tables.diagnoses
    found = dict(made.select("code", "visit_id").rows())
    return [found.get(f"A0{n}") for n in range(len(dates))]


def test_conditions_without_a_visit_go_to_the_visit_of_their_day():
    stay, clinic = visit("10", "2015-03-02", "2015-03-09"), visit("11", "2015-03-04", "2015-03-04")
    days = ["2015-03-01", "2015-03-02", "2015-03-04", "2015-03-09", "2015-03-10", None, "no day"]
    assert linked(days, [stay, clinic]) == [None, "10", "11", "10", None, None, None]
    assert linked(days, [stay, clinic], OmopOptions(unlinked="drop")) == [None] * 7


def test_another_patients_visit_is_never_taken():
    days = ("2015-03-04", "2015-03-05", "2016-01-02")
    stays = [visit("10", "2015-03-02", "2015-03-09"), visit("11", "2015-03-05", "2015-03-05")]
    stays.append(visit("20", "2016-01-01", "2016-01-03", patient="2"))
    rows = [CONDITION | {"visit_occurrence_id": None, "person_id": patient, "condition_start_date": one}
            for patient in ("1", "2", "3") for one in days]  # fmt: skip
    people = [PERSON | {"person_id": patient} for patient in ("1", "2", "3")]
    made = assemble("omop", build(person=people, visit_occurrence=stays, condition_occurrence=rows))
    assert sorted(made.tables.diagnoses.select("patient_id", "visit_id").rows()) == [
        ("1", "10"), ("1", "11"), ("2", "20"),
    ]  # fmt: skip
    assert made.lost["diagnoses", "unlinked_code"] == 6


def test_shortest_then_earliest_then_lowest_id():
    at = ["2015-03-05"]
    longer, shorter = visit("1", "2015-03-01", "2015-03-09"), visit("2", "2015-03-04", "2015-03-06")
    assert linked(at, [longer, shorter]) == ["2"]
    assert linked(at, [shorter, visit("1", "2015-03-05", "2015-03-07")]) == ["2"]
    assert linked(at, [visit("10", "2015-03-04", "2015-03-06"), visit("9", "2015-03-04", "2015-03-06")]) == ["9"]
    same_day = [visit(number, "2015-03-05", "2015-03-05") for number in ("10", "9", "b", "a")]
    assert linked(at, same_day) == ["9"] and linked(at, same_day[2:]) == ["a"]


def test_a_visit_without_an_end_or_with_one_before_its_start_has_its_first_day():
    for end in (None, "2015-03-01"):
        assert linked(["2015-03-04", "2015-03-05"], [visit("1", "2015-03-04", end)]) == ["1", None]


BY_DAY = "diagnoses without a visit id, by their day", "diagnoses of a visit id that no visit has, by their day"


@pytest.mark.parametrize("parquet", [False, True], ids=["csv", "parquet"])
def test_visit_0_is_no_visit_and_one_that_is_not_there_is_found_by_day_and_counted_apart(parquet):
    codes = ("A01", "A02", "A03", "A04")
    ids = ("0", "77", "78", "10")
    days = ("2015-03-02", "2015-03-09", "2016-01-01", "2015-03-02")
    rows = [
        CONDITION | {"visit_occurrence_id": visit, "condition_start_date": one,
                     "condition_source_value": f"ICD10CM:{code}"}
        for visit, one, code in zip(ids, days, codes, strict=True)
    ]  # fmt: skip
    made = assemble("omop", build(condition_occurrence=rows, parquet=parquet))
    assert sorted(made.tables.diagnoses.select("code", "visit_id").rows()) == [
        ("A01", "10"),
        ("A02", "10"),
        ("A04", "10"),
    ]
    assert made.lost["diagnoses", "unlinked_code"] == 1 and made.told == dict.fromkeys(BY_DAY, 1)
    left_out = assemble("omop", build(OmopOptions(unlinked="drop"), condition_occurrence=rows, parquet=parquet))
    assert left_out.tables.diagnoses["code"].to_list() == ["A04"] and left_out.told == {}


def test_a_visit_of_another_patient_is_none_of_this_one():
    people = [PERSON, PERSON | {"person_id": "2"}]
    stays = [STAY, visit("20", "2015-03-01", "2015-03-31", patient="2")]
    rows = [CONDITION | {"person_id": "2"}]  # of visit 10, which is the first patient's
    made = assemble("omop", build(person=people, visit_occurrence=stays, condition_occurrence=rows))
    assert made.tables.diagnoses.select("patient_id", "visit_id").rows() == [("2", "20")]
    assert made.told == {BY_DAY[1]: 1}


def test_where_no_visit_covers_the_day_one_may_be_made_of_it():
    person = PERSON | {"month_of_birth": "2", "day_of_birth": "9"}
    made_of = OmopOptions(unlinked="visit_of_the_day")
    days = ("2015-03-05", "2016-01-02", "2016-01-02", "2016-01-03", None, "1949-01-01")
    rows = [
        CONDITION | {"visit_occurrence_id": f"9{n}", "condition_start_date": one,
                     "condition_source_value": f"ICD10CM:A0{n}"}
        for n, one in enumerate(days)
    ]  # fmt: skip
    rows[1]["condition_start_datetime"] = "2016-01-02 15:00:00"
    rows[2]["condition_start_datetime"] = "2016-01-02 09:00:00"
    made = assemble("omop", build(made_of, person=[person], condition_occurrence=rows))
    assert check_tables(made.tables) == []
    assert made.tables.visits.sort("order").select("visit_id", "admit_time", "discharge_time", "visit_type").rows() == [
        ("10", datetime(2015, 3, 2), datetime(2015, 3, 9), "inpatient"),
        ("day/2016-01-02", datetime(2016, 1, 2, 9), None, None),
        ("day/2016-01-03", datetime(2016, 1, 3), None, None),
    ]
    assert dict(made.tables.diagnoses.select("code", "visit_id").rows()) == {
        "A00": "10", "A01": "day/2016-01-02", "A02": "day/2016-01-02", "A03": "day/2016-01-03",
    }  # fmt: skip
    # A day that is none makes no visit; a visit of a day before the birth leaves like any other.
    assert {rule: rows for (table, rule), rows in made.lost.items() if table == "diagnoses"} == {
        "unlinked_code": 1, "before_birth": 1,
    }  # fmt: skip
    assert made.told["visits made of a day"] == 3 and made.told["diagnoses in visits made of their day"] == 4
    assert made.ledger.came.visits == 4


def test_a_stay_without_an_end_that_is_known_covers_no_later_day():
    stays = [visit("1", "2015-03-04", "9999-12-31"), visit("2", "2015-06-01", "2015-06-03")]
    assert linked(["2015-03-04", "2015-06-02", "2020-01-01"], stays) == ["1", "2", None]


@pytest.mark.parametrize(
    ("status", "kind", "priority", "on_admission"),
    [
        ("32902", None, 1, None), ("32903", "38000186", 1, None), ("32901", None, 1, True),
        ("32908", None, 2, None), ("32908", "38000202", 3, None), ("32909", "0", 2, None), ("32907", None, 2, True),
        ("32890", None, None, True), ("4203942", "38000201", 2, True), ("32896", None, None, None),
        ("0", "38000183", 1, None), ("0", "38000199", 1, None), (None, "44786627", 1, None),
        (None, "44786629", 2, None),
        (None, "38000184", 1, None), (None, "38000198", 15, None), (None, "38000214", 15, None),
        (None, "38000215", 1, None), (None, "38000244", 15, None), (None, "44818713", 20, None),
        (None, "45756842", 8, None), (None, "38000245", None, None), ("0", "32020", None, None),
        (None, None, None, None),
    ],
)  # fmt: skip
def test_priority_and_presence_on_admission(status, kind, priority, on_admission):
    row = CONDITION | {"condition_status_concept_id": status, "condition_type_concept_id": kind}
    for parquet in (False, True):
        got = build(condition_occurrence=[row], parquet=parquet).diagnoses
        assert got.select("priority", "present_on_admission").row(0) == (priority, on_admission)
    assert len(_POSITIONS) == 5 + 4 * 15 + 5 + 8 + 13


@pytest.mark.parametrize(
    ("told", "birth", "year"),
    [
        ({"birth_datetime": "1950-05-04 06:07:00", "month_of_birth": "5", "day_of_birth": "4"}, date(1950, 5, 4), None),
        # What contradicts the parts that the CDM gives beside it is not taken.
        ({"birth_datetime": "1950-05-04", "month_of_birth": "1", "day_of_birth": "1"}, date(1950, 1, 1), None),
        ({"birth_datetime": "1949-12-31 22:00:00"}, None, 1950),
        ({"birth_datetime": "1950-05-31 22:00:00", "month_of_birth": "6"}, None, 1950),
        ({"birth_datetime": "1950-05-04"}, date(1950, 5, 4), None),
        ({"month_of_birth": "12", "day_of_birth": "31"}, date(1950, 12, 31), None),
        ({"month_of_birth": "12"}, None, 1950),
        ({"month_of_birth": "2", "day_of_birth": "30"}, None, 1950),
        ({}, None, 1950),
        # The CDM's stand-in for an unknown day; a real 15 June has its month and day beside it.
        ({"birth_datetime": "1950-06-15 00:00:00"}, None, 1950),
        ({"birth_datetime": "1950-06-15", "month_of_birth": "6", "day_of_birth": "15"}, date(1950, 6, 15), None),
        ({"year_of_birth": None}, None, None),
    ],
)
def test_birth(told, birth, year):
    rough = build(person=[PERSON | told])
    assert rough.patients.select("birth_date", "birth_year").row(0) == (birth, year)
    assert rough.age_precision == "day or year"  # of the source: no shard may say another


def test_sex_race_and_death():
    people = [
        {"gender_concept_id": "8507", "race_concept_id": "8527", "race_source_value": "W"},
        {"gender_concept_id": "8532", "race_concept_id": "0", "race_source_value": "Other"},
        {"gender_concept_id": "0", "race_concept_id": "8552", "race_source_value": "0"},
        {"gender_concept_id": "8551", "race_concept_id": None, "race_source_value": "Unknown"},
    ]
    rows = [PERSON | {"person_id": str(n)} | one for n, one in enumerate(people)]
    deaths = [{"person_id": "1", "death_date": day} for day in ("2020-02-02", "2020-01-01", None)]
    deaths.append({"person_id": "2", "death_date": None, "death_datetime": "2020-03-03 01:02:03"})
    made = assemble("omop", build(person=rows, death=deaths))
    assert made.told == {"patients with several days of death, of which the earliest counts": 1}
    assert made.tables.patients.sort("patient_id").select("patient_id", "sex", "race", "death_date").rows() == [
        ("0", "male", "White", None), ("1", "female", "Other", date(2020, 1, 1)), ("2", None, None, date(2020, 3, 3)),
        ("3", None, None, None),
    ]  # fmt: skip
    assert build(person=rows, concept=None).patients["race"].to_list() == ["W", "Other", None, None]


def test_every_row_of_death_is_a_death_or_counted():
    days = {
        "1": ("2020-02-02", "no day", None), "7": ("2020-01-01", "2020-01-02"), "8": (None,),
        None: ("2020-01-01", None, "x"),
    }  # fmt: skip
    deaths = [{"person_id": person, "death_date": one} for person, of in days.items() for one in of]
    deaths.append({"person_id": "1", "death_date": "no day", "death_datetime": "2020-01-05 01:02:03"})
    made = assemble("omop", build(death=deaths))
    assert made.tables.patients["death_date"].to_list() == [date(2020, 1, 5)]
    left = {line.rule: (line.left.patients, line.left.visits, line.left.codes) for line in made.ledger.lines}
    # 7 and 8 are no persons; a row without a person has no other fault.
    assert {rule: counts for rule, counts in left.items() if any(counts)} == {
        "unreadable_death": (2, 0, 0), "null_patient_id": (3, 0, 0), "unlisted_patient": (2, 0, 0),
    }  # fmt: skip
    assert (made.ledger.came.patients, made.ledger.kept.patients) == (8, 1)
    assert "unreadable_death" in {line.rule for line in assemble("omop", build()).ledger.lines}


def test_who_is_still_a_patient_has_an_open_stay():
    names = pl.DataFrame({"concept_id": ["4000001"], "concept_name": ["Still a patient, expected to return"]})
    concepts = pl.concat([CONCEPT, names], how="diagonal")
    for column, concept in (("discharged_to", "32220"), ("discharge_to", "32220"), ("discharged_to", "4000001")):
        stays = [STAY | {f"{column}_concept_id": concept}]
        raw = {name: table(name, rows) for name, rows in {
            "person": [PERSON], "visit_occurrence": stays, "condition_occurrence": [CONDITION]}.items()}  # fmt: skip
        made = assemble("omop", OMOP.build(raw | {"concept": concepts}, OmopOptions()))
        stay = made.tables.visits.select("admit_time", "discharge_time", "length_of_stay", "discharge_disposition")
        assert stay.rows() == [(datetime(2015, 3, 2), None, None, None)]
        assert made.tables.diagnoses.height == 1 and made.unreadable == {"discharge_time that is no end": 1}


def test_kinds_of_visits_and_where_they_end():
    kinds = {"581379": "inpatient", "262": "inpatient", "9203": "emergency", "9202": "outpatient", "32693": "other",
             "581476": "other", "0": None, None: None}  # fmt: skip
    ends = {"8536": "home", "4216643": "expired", "8546": "hospice", "8717": "facility", "4021968": "other",
            "0": None, None: None, "123": None}  # fmt: skip
    rows = [
        STAY | {"visit_concept_id": kind, "discharged_to_concept_id": end}
        for kind, end in zip(kinds, ends, strict=True)
    ]
    for parquet in (False, True):
        visits = build(visit_occurrence=rows, parquet=parquet).visits
        assert visits["visit_type"].to_list() == list(kinds.values())
        assert visits["discharge_disposition"].to_list() == list(ends.values())
    older = [STAY | {"discharge_to_concept_id": end, "discharged_to_concept_id": new} for end, new in
             (("8536", None), ("8536", "0"), ("8536", "8546"))]  # fmt: skip
    assert build(visit_occurrence=older).visits["discharge_disposition"].to_list() == ["home", "home", "hospice"]


def test_times_are_dates_where_there_is_no_time():
    rows = [STAY | {"visit_start_datetime": "2015-03-02T08:00:00", "visit_end_date": None}, STAY]
    times = build(visit_occurrence=rows).visits.select("admit_time", "discharge_time").rows()
    assert times == [(datetime(2015, 3, 2, 8), None), (datetime(2015, 3, 2), datetime(2015, 3, 9))]


def test_drugs_have_an_ingredient_only_where_they_are_one():
    ids = [("1503297", None), ("40164929", "45000001"), ("0", "45000001"), ("0", None)]
    row = {"person_id": "1", "drug_source_value": "Glucophage", "drug_exposure_start_date": "2015-03-03"}
    rows = [row | {"drug_concept_id": one, "drug_source_concept_id": source} for one, source in ids]
    rough = build(drug_exposure=rows)
    assert rough.medications.select("code_system", "code", "ingredient").rows() == [
        ("RxNorm", "6809", "metformin"), ("RxNorm", "860975", None), ("NDC", "00093-1048", None),
        (None, None, None),
    ]  # fmt: skip
    assert rough.medications["visit_id"].null_count() == 4 and rough.measurements is None
    assert assemble("omop", rough).tables.medications.height == 3


def test_values_and_units_of_measurements():
    row = {"person_id": "1", "measurement_concept_id": "3004410", "measurement_date": "2015-03-03"}
    told = [{"value_as_number": "7.1", "unit_source_value": "percent", "unit_concept_id": "8554"},
            {"value_as_number": "NaN", "unit_concept_id": "0"}, {"value_as_number": "high"}]  # fmt: skip
    measured = build(measurement=[row | one for one in told]).measurements
    assert measured.select("value", "unit").rows() == [(7.1, "percent"), (None, None), (None, None)]


def test_rows_are_never_dropped_and_faults_are_counted():
    rough = build(
        person=[PERSON, PERSON],
        visit_occurrence=[STAY, STAY, STAY | {"visit_occurrence_id": None}, STAY | {"visit_occurrence_id": "12",
                          "visit_start_date": "02.03.2015"}, STAY | {"visit_occurrence_id": "13", "person_id": "5"}],
        condition_occurrence=[CONDITION, CONDITION, CONDITION | {"person_id": None}, CONDITION | {
            "condition_concept_id": None}],
    )  # fmt: skip
    assert (rough.patients.height, rough.visits.height, rough.diagnoses.height) == (2, 5, 4)
    ledger = assemble("omop", rough).ledger
    left = {line.rule: (line.left.patients, line.left.visits, line.left.codes) for line in ledger.lines}
    assert {rule: counts for rule, counts in left.items() if any(counts)} == {
        "null_patient_id": (0, 0, 1), "unlisted_patient": (1, 1, 0), "duplicate_patient": (1, 0, 0),
        "null_visit_id": (0, 1, 0), "duplicate_visit": (0, 1, 0), "no_admission": (0, 1, 0), "missing_code": (0, 0, 1),
        "duplicate_code": (0, 0, 1),
    }  # fmt: skip


def test_empty_tables_build():
    rough = build(person=[], visit_occurrence=[], condition_occurrence=[], drug_exposure=[], measurement=[],
                  procedure_occurrence=[], death=[])  # fmt: skip
    assert rough.diagnoses.is_empty() and rough.measurements.is_empty()
    assemble("omop", rough)


def test_periods_of_observation_are_follow_up_and_conditions_have_a_time():
    period = {
        "person_id": "1",
        "observation_period_start_date": "2014-01-01",
        "observation_period_end_date": "2015-12-31",
    }
    rows = [CONDITION, CONDITION | {"condition_start_datetime": "2015-03-02 09:30:00", "condition_concept_id": "0",
                                    "condition_source_value": "ICD10CM:I10"}]  # fmt: skip
    tables = assemble("omop", build(observation_period=[period], condition_occurrence=rows)).tables
    assert tables.follow_up.rows() == [("1", date(2014, 1, 1), date(2015, 12, 31))]
    assert dict(tables.diagnoses.select("code", "time").rows()) == {
        "44054006": datetime(2015, 3, 2), "I10": datetime(2015, 3, 2, 9, 30),
    }  # fmt: skip
    assert assemble("omop", build()).tables.follow_up is None


def test_what_is_assumed_is_said():
    said = build().assumptions
    assert not any("observation_period" in line for line in said)
    periods = build(observation_period=[{"person_id": "1"}], options=OmopOptions("ICD10GM", "drop")).assumptions
    assert any("no sign of health" in line for line in periods)
    assert any("ICD10GM" in line for line in periods) and any("left out" in line for line in periods)
    assert all(line.endswith(".") and "\n" not in line for line in periods)


UNMAPPED = {"condition_source_concept_id": "0", "condition_concept_id": "0"}
UNSAID = [
    UNMAPPED | {"condition_source_value": "V27.0"},  # in a stay that ends in October 2015
    UNMAPPED | {"condition_source_value": "V27.0", "visit_occurrence_id": None, "condition_start_date": "2015-09-30"},
    UNMAPPED | {"condition_source_value": "V27.0", "visit_occurrence_id": None, "condition_start_date": "2150-01-01"},
    UNMAPPED | {"condition_source_value": "428.0"},
    CONDITION | {"condition_source_value": "I50.9"},  # a standard concept alone
    CONDITION | {"condition_source_value": "V27.1", "visit_occurrence_id": None, "condition_start_date": None},
    CONDITION | {"condition_source_value": "E11", "condition_source_concept_id": "45533021"},  # of WHO's ICD-10
    UNMAPPED | {"condition_source_value": "ICD10GM:V27"},
    UNMAPPED | {"condition_source_value": "DM2"},
    UNMAPPED | {"condition_source_value": "Herr Meier"},
]


def test_source_values_of_a_us_site_that_do_not_say_their_version():
    stay = STAY | {"visit_start_date": "2015-09-28", "visit_end_date": "2015-10-01"}
    assert codes(UNSAID, visit_occurrence=[stay], options=OmopOptions(us_icd=True)) == [
        ("ICD10CM", "V27.0"), ("ICD9CM", "V27.0"), ("SOURCE", "V27.0"),  # undecided
        ("ICD9CM", "428.0"), ("ICD10CM", "I50.9"), ("SNOMED", "44054006"),  # undecided
        ("ICD10", "E11"), ("ICD10GM", "V27"), ("SOURCE", "DM2"), (None, None),
    ]  # fmt: skip
    assert any("2015-10-01" in line for line in build(options=OmopOptions(us_icd=True)).assumptions)


def test_a_version_is_not_guessed_unless_the_site_is_said_to_be_of_the_us():
    assert codes(UNSAID[:5]) == [*[("SOURCE", "V27.0")] * 3, ("SOURCE", "428.0"), ("SNOMED", "44054006")]
    assert not any("2015-10-01" in line for line in build().assumptions)


def test_a_placeholder_for_the_end_of_a_stay_decides_no_version():
    stay = STAY | {"visit_start_date": "2010-09-28", "visit_end_date": "2099-12-31"}
    rows = [UNMAPPED | {"condition_source_value": "V27.0", "condition_start_date": "2010-09-28"}]
    assert codes(rows, visit_occurrence=[stay], options=OmopOptions(us_icd=True)) == [("ICD9CM", "V27.0")]


def test_one_system_and_an_open_version_exclude_each_other():
    with pytest.raises(ValueError, match="got source_value_system ICD10GM and us_icd; leave one"):
        OmopOptions(source_value_system="ICD10GM", us_icd=True)
