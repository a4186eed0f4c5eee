"""Small inputs in the public layouts, each with one thing that files of others have and no layout describes."""

import re
from datetime import date, datetime

import polars as pl
import pytest
from sources.made_layouts import write_source
from sources.made_sources import PATIENTS, VISITS, synpuf_id

from medbert_jax import write_ehr_tables
from medbert_jax.cohorts.loading import load_spec
from medbert_jax.cohorts.select import select_cohort
from medbert_jax.ehr.codes import normal_form
from medbert_jax.ehr.tables import read_tables
from medbert_jax.ingest.ingest import ingest
from medbert_jax.quality.report import validate

DIED = {"77310003": date(2009, 6, 20)}


def read(tmp_path, kind, change):
    """The tables, the rules under which rows left, and all that was said."""
    source, format, options = write_source(kind, tmp_path / "source", change)
    said = []
    ledger = ingest(source, tmp_path / "ehr", format=format, workers=1, options=options, announce=said.append)
    left = {line.rule for line in ledger.lines if line.left.patients or line.left.visits or line.left.codes}
    return read_tables(tmp_path / "ehr"), left, "\n".join(said)


def deaths(tables) -> dict:
    return dict(tables.patients.drop_nulls("death_date").select("patient_id", "death_date").rows())


@pytest.mark.parametrize("day", ["1900-01-01", "1970-01-01", "1753-01-01", "9999-12-31", "2199-12-31", "1931-04-04"])
def test_omop_a_death_of_the_living_is_none(tmp_path, day):
    """A warehouse that needs a day writes one for everybody; and a death before the birth is no death."""

    def change(raw):
        died = raw["death"].head(1)
        living = [
            id for id, born, _, _, death in PATIENTS if not death and not (day == "1931-04-04" and born.year < 1932)
        ]
        rows = [died.with_columns(person_id=pl.lit(id), death_date=pl.lit(day)) for id in living]
        raw["death"] = pl.concat([raw["death"], *rows])
        change.living = len(living)

    tables, left, said = read(tmp_path, "omop-csv", change)
    assert deaths(tables) == DIED and left == set() and tables.visits.height == len(VISITS)
    assert f"death that is none {change.living}" in said
    frame, _ = select_cohort(tables, load_spec("los-next"))
    assert frame.height == len({id for _, id, *_ in VISITS if sum(row[1] == id for row in VISITS) > 1})
    assert not any("death" in line.rule for line in validate(tmp_path / "ehr").lines)


def test_omop_births_of_two_digits_and_periods_from_before_the_birth(tmp_path):
    def change(raw):
        two = pl.col("person_id").is_in(["77310001", "77310002"])
        year = pl.when(two).then(pl.col("year_of_birth").str.slice(2)).otherwise("year_of_birth")
        raw["person"] = raw["person"].with_columns(year_of_birth=year, birth_datetime=pl.lit(None, pl.String))
        raw["observation_period"] = raw["observation_period"].with_columns(
            observation_period_start_date=pl.lit("1900-01-01")
        )

    tables, left, said = read(tmp_path, "omop-observed", change)
    born = {id: None if id in ("77310001", "77310002") else birth for id, birth, *_ in PATIENTS}
    assert dict(tables.patients.select("patient_id", "birth_date").rows()) == born and left == set()
    assert set(tables.visits.filter(pl.col("patient_id") == "77310001")["age_days"]) == {None}
    assert "birth that is none 2" in said
    starts = dict(tables.follow_up.select("patient_id", "start").rows())
    assert starts == {id: born[id] or date(1900, 1, 1) for id in starts} and len(starts) == 8
    assert any("begin before the birth, read from it on 6" in line for line in tables.source.assumptions)


def test_meds_a_birth_of_year_one_and_codes_that_were_floats(tmp_path):
    def change(raw):
        code, time = pl.col("code"), pl.col("time")
        born = (code == "MEDS_BIRTH") & (pl.col("subject_id") == 77310002)
        snomed = pl.when(code == "ICD9CM/428.0").then(pl.lit("SNOMED/42343007.0"))
        snomed = snomed.when(code == "ICD9CM/486").then(pl.lit("SNOMED/2.33604E8"))
        raw["events"] = raw["events"].with_columns(
            time=pl.when(born).then(pl.lit(datetime(1, 1, 1), pl.Datetime("us"))).otherwise(time),
            code=snomed.otherwise(code),
        )

    tables, left, said = read(tmp_path, "meds-0.3", change)
    births = dict(tables.patients.select("patient_id", "birth_date").rows())
    assert births["77310002"] is None and births["77310001"] == date(1941, 3, 17)
    assert "birth that is none 1" in said and left == {"unreadable_code"}
    systems = tables.diagnoses.filter(pl.col("code_system") == "SNOMED")
    assert systems.select("visit_id", "code").height == 1 and systems["code"].to_list() == ["42343007"]


def test_mimic_a_death_that_was_not_shifted_with_its_patient(tmp_path):
    def change(raw):
        dod = pl.when(pl.col("subject_id") == "77310001").then(pl.lit("2010-03-01")).otherwise("dod")
        raw["patients"] = raw["patients"].with_columns(dod=dod)

    tables, left, said = read(tmp_path, "mimic-iv", change)
    assert deaths(tables) == {"77310003": date(2159, 6, 20)} and left == set()
    assert tables.visits.filter(pl.col("patient_id") == "77310001").height == 3
    assert "death that is none 1" in said


def test_synthea_codes_of_snomed_that_a_program_took_for_numbers(tmp_path):
    """patients, encounters, conditions as Synthea writes them, conditions once read as numbers and written again."""
    patients = pl.DataFrame({"Id": ["p-1", "p-2"], "GENDER": ["M", "F"],
                             "BIRTHDATE": ["1950-01-02", "1961-07-08"], "DEATHDATE": [None, "2015-05-05"],
                             "RACE": ["white", "black"]})  # fmt: skip
    encounters = pl.DataFrame({"Id": ["e-1", "e-2", "e-3"], "PATIENT": ["p-1", "p-1", "p-2"],
                               "START": ["2010-02-03T10:11:12Z", "2012-02-03T10:11:12Z", "2014-02-03T10:11:12Z"],
                               "STOP": ["2010-02-03T10:26:12Z", "2012-02-05T10:26:12Z", "2014-02-03T10:26:12Z"],
                               "ENCOUNTERCLASS": ["ambulatory", "inpatient", "emergency"]})  # fmt: skip
    conditions = pl.DataFrame({"START": ["2010-02-03", "2012-02-03", "2014-02-03"], "PATIENT": ["p-1", "p-1", "p-2"],
                               "ENCOUNTER": ["e-1", "e-2", "e-3"],
                               "CODE": ["44054006.0", "84114007.0", "2.33604007E8"]})  # fmt: skip
    said = []
    ledger = write_ehr_tables(
        tmp_path / "ehr",
        patients=patients.select(patient_id="Id", birth_date="BIRTHDATE", death_date="DEATHDATE", race="RACE",
                                 sex="GENDER"),
        visits=encounters.select(patient_id="PATIENT", visit_id="Id", admit_time="START", discharge_time="STOP",
                                 visit_type="ENCOUNTERCLASS"),
        diagnoses=conditions.select(patient_id="PATIENT", visit_id="ENCOUNTER", time="START", code="CODE",
                                    code_system=pl.lit("SNOMED-CT")),
        announce=said.append,
    )  # fmt: skip
    tables = read_tables(tmp_path / "ehr")
    assert tables.diagnoses.select("visit_id", "code").rows() == [("e-1", "44054006"), ("e-2", "84114007")]
    assert {line.rule: line.left.codes for line in ledger.lines if line.left.codes} == {"unreadable_code": 1}
    assert "visit_type 1" in "\n".join(said)  # ambulatory is no word of ours: told, and unknown


def test_days_of_zeros_out_of_a_database_are_nothing(tmp_path):
    """MySQL writes 0000-00-00 where there is no day, and its dumps keep it; a whole column of it is an empty one."""

    def change(raw):
        raw["patients"] = raw["patients"].with_columns(death_date=pl.lit("0000-00-00"))
        open_end = pl.when(pl.col("visit_type") == "outpatient").then(pl.lit("0000-00-00 00:00:00"))
        raw["visits"] = raw["visits"].with_columns(discharge_time=open_end.otherwise("discharge_time"))

    tables, left, said = read(tmp_path, "own-tables", change)
    assert deaths(tables) == {} and left == set()
    assert tables.visits["discharge_time"].null_count() == 1
    assert "column death_date of patients: 12 cells '0000-00-00' read as empty" in said
    assert re.search("column discharge_time of visits: 1 cells? '0000-00-00 00:00:00' read as empty", said)


def test_claims_fill_diagnoses_and_days_with_zeros(tmp_path):
    """Files of fixed width: a diagnosis 00000 and a death 00000000 are what nobody filled in."""

    def change(raw):
        for year in (2008, 2009, 2010):
            people = raw[f"beneficiary_{year}"]
            raw[f"beneficiary_{year}"] = people.with_columns(pl.col("BENE_DEATH_DT").fill_null("00000000"))
        filled = {f"ICD9_DGNS_CD_{number}": pl.col(f"ICD9_DGNS_CD_{number}").fill_null("00000") for number in (9, 10)}
        raw["inpatient"] = raw["inpatient"].with_columns(**filled)

    tables, left, said = read(tmp_path, "desynpuf-csv", change)
    assert deaths(tables) == {synpuf_id(id): day for id, day in DIED.items()}
    assert left == {"unreadable_code"} and "cells '00000000' read as empty" in said
    assert not any(code.startswith("000") for code in tables.diagnoses["code"])


def test_no_zeros_are_a_code_and_no_float_a_concept():
    pairs = [("ICD9CM", "000"), ("ICD9CM", "0"), ("ICD9CM", "000.0"), ("ICD9CM", "001.0"), ("ICD9CM", "1"),
             ("SNOMED", "44054006.0"), ("SNOMED", "44054006"), ("SNOMED", "4.4E+07"), ("SNOMED", "44054006.5"),
             ("RxNorm", "6809.00"), ("LOCAL", "12.0"), ("LOINC", "4548-4")]  # fmt: skip
    frame = pl.DataFrame(pairs, schema=["system", "code"], orient="row")
    normal = frame.select(normal_form(pl.col("system"), pl.col("code")).alias("normal"))["normal"].to_list()
    assert normal == [None, None, None, "001.0", "001", "44054006", "44054006", None, None, "6809", "12.0", "4548-4"]
