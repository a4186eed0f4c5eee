"""The export files of docs/export: DuckDB runs its own, the others' are read in their dialect and run by DuckDB too."""

import re
from datetime import date
from pathlib import Path

import duckdb
import polars as pl
import pytest
import sqlglot
from polars.testing import assert_frame_equal
from sqlglot import exp

from medbert_jax.ehr.tables import read_tables
from medbert_jax.ingest.formats import get_reader
from medbert_jax.ingest.ingest import ingest

FOLDER = Path(__file__).parents[1] / "docs" / "export"
DIALECTS = ("duckdb", "postgres", "bigquery", "spark")
OMOP = {table.name: table for table in get_reader("omop").tables if not table.option}  # those are asked for by name
# A CDM of three patients; "note" stands for the columns that nobody asked for.
CDM = """
CREATE SCHEMA cdm;
CREATE TABLE cdm.person AS SELECT * FROM (VALUES
  (1, 8507, 1950, 3, 4, TIMESTAMP '1950-03-04', 8527, NULL, 'SECRET'),
  (2, 8532, 1961, NULL, NULL, NULL, 0, 'white, "other"', 'SECRET'),
  (3, 0, 1970, 1, 1, NULL, NULL, NULL, 'SECRET')) AS t(person_id, gender_concept_id, year_of_birth, month_of_birth,
  day_of_birth, birth_datetime, race_concept_id, race_source_value, note);
CREATE TABLE cdm.visit_occurrence AS SELECT * FROM (VALUES
  (9007199254740993, 1, 9201, DATE '2010-01-02', TIMESTAMP '2010-01-02 13:05:00', DATE '2010-01-12', NULL::TIMESTAMP,
   8536, 'SECRET'),
  (11, 1, 9202, DATE '2011-05-03', NULL, DATE '2011-05-03', NULL, NULL, 'SECRET'),
  (12, 2, 9203, DATE '2012-07-08', NULL, DATE '2012-07-09', NULL, 0, 'SECRET'),
  (13, 3, 9201, DATE '2012-07-08', NULL, NULL, NULL, NULL, 'SECRET')) AS t(visit_occurrence_id, person_id,
  visit_concept_id, visit_start_date, visit_start_datetime, visit_end_date, visit_end_datetime,
  discharged_to_concept_id, note);
CREATE TABLE cdm.condition_occurrence AS SELECT * FROM (VALUES
  (1, 9007199254740993, DATE '2010-01-02', NULL::TIMESTAMP, 201826, 35206882, 'E119', 32902, 32817, 'SECRET'),
  (1, 11, DATE '2011-05-03', NULL, 201826, 35206882, 'E11.9, again', NULL, 32817, 'SECRET'),
  (2, 12, DATE '2012-07-08', NULL, 316139, 0, 'KHK' || chr(10) || 'old', NULL, NULL, 'SECRET'),
  (3, NULL, DATE '2012-07-08', NULL, 0, 44825428, '428.0', 32890, NULL, 'SECRET')) AS t(person_id, visit_occurrence_id,
  condition_start_date, condition_start_datetime, condition_concept_id, condition_source_concept_id,
  condition_source_value, condition_status_concept_id, condition_type_concept_id, note);
CREATE TABLE cdm.drug_exposure AS SELECT 1 AS person_id, 11 AS visit_occurrence_id, DATE '2011-05-03'
  AS drug_exposure_start_date, TIMESTAMP '2011-05-03 08:00:00' AS drug_exposure_start_datetime, 1503297 AS
  drug_concept_id, 0 AS drug_source_concept_id, 'metformin' AS drug_source_value, 'SECRET' AS note;
CREATE TABLE cdm.measurement AS SELECT 2 AS person_id, 12 AS visit_occurrence_id, DATE '2012-07-08' AS measurement_date,
  NULL::TIMESTAMP AS measurement_datetime, 3004410 AS measurement_concept_id, 0 AS measurement_source_concept_id,
  'HbA1c' AS measurement_source_value, 6.5::DECIMAL(10, 2) AS value_as_number, 8554 AS unit_concept_id,
  NULL::VARCHAR AS unit_source_value, 'SECRET' AS note;
CREATE TABLE cdm.procedure_occurrence AS SELECT 3 AS person_id, 13 AS visit_occurrence_id, DATE '2012-07-08' AS
  procedure_date, NULL::TIMESTAMP AS procedure_datetime, 4032243 AS procedure_concept_id, 2108115 AS
  procedure_source_concept_id, '90935' AS procedure_source_value, 'SECRET' AS note;
CREATE TABLE cdm.death AS SELECT 2 AS person_id, DATE '2015-06-07' AS death_date, NULL::TIMESTAMP AS death_datetime;
CREATE TABLE cdm.observation_period AS SELECT 1 AS observation_period_id, 2 AS person_id, DATE '2010-01-01' AS
  observation_period_start_date, DATE '2015-06-07' AS observation_period_end_date, 'SECRET' AS note;
CREATE TABLE cdm.concept AS SELECT * FROM (VALUES
  (201826, 'SNOMED', '44054006', 'Type 2 diabetes mellitus', 'Disorder', 'S'),
  (35206882, 'ICD10CM', 'E11.9', 'Type 2 diabetes mellitus without complications', '5-char billing code', NULL),
  (316139, 'SNOMED', '84114007', 'Heart failure', 'Disorder', 'S'),
  (44825428, 'ICD9CM', '428.0', 'Congestive heart failure, unspecified', '4-dig billing code', NULL),
  (1503297, 'RxNorm', '6809', 'metformin', 'Ingredient', 'S'),
  (3004410, 'LOINC', '4548-4', 'Hemoglobin A1c', 'Lab Test', 'S'),
  (8554, 'UCUM', '%', 'percent', 'Unit', 'S'), (8527, 'Race', '5', 'White', 'Race', 'S'),
  (4032243, 'SNOMED', '108241001', 'Dialysis procedure', 'Procedure', 'S'),
  (2108115, 'CPT4', '90935', 'Hemodialysis', 'CPT4', 'S'),
  (777, 'SNOMED', '1', 'nobody has it', 'Disorder', 'S')) AS t(concept_id, vocabulary_id, concept_code, concept_name,
  concept_class_id, standard_concept);
"""


def statements(dialect: str) -> dict[str, exp.Expression]:
    """The query of every exported table, read by sqlglot in its dialect."""
    text = (FOLDER / f"{dialect}.sql").read_text()
    if dialect == "postgres":  # psql's own commands are no SQL; of the head sqlglot reads only a part
        found = {name: f"{one};" for one, name in re.findall(r"(?ms)^(COPY .*?)\n\\g (\w+)\.csv$", text)}
    elif dialect == "spark":  # sqlglot does not know USING after DIRECTORY: the query alone is read
        written = r"(?ms)^INSERT OVERWRITE DIRECTORY '/export/omop/(\w+)' USING parquet\n(.*?;)$"
        found = dict(re.findall(written, text))
    else:
        place = r"'(?:gs://BUCKET/omop/)?(\w+)(?:/\*)?\.parquet'"
        kind = "COPY" if dialect == "duckdb" else "EXPORT"
        found = {re.search(place, one)[1]: one for one in re.findall(rf"(?ms)^{kind} .*?;$", text)}
    parsed = {name: sqlglot.parse_one(one, read=dialect) for name, one in found.items()}
    kinds = {"duckdb": exp.Copy, "postgres": exp.Copy, "bigquery": exp.Export, "spark": exp.Select}
    assert {type(statement) for statement in parsed.values()} == {kinds[dialect]}
    return {name: statement.find(exp.Select) for name, statement in parsed.items()}


@pytest.fixture
def warehouse():
    with duckdb.connect() as connection:
        connection.execute(CDM)
        yield connection


def export(dialect: str, connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Files as the dialect's own would lay them out."""
    folder.mkdir()
    if dialect == "duckdb":
        text = (FOLDER / "duckdb.sql").read_text()
        connection.execute(re.sub(r"TO '(\w+\.parquet)'", rf"TO '{folder}/\1'", text))
        return
    connection.execute("USE cdm")
    for name, query in statements(dialect).items():
        path = folder / f"{name}.csv" if dialect == "postgres" else folder / name / "000000000000.parquet"
        path.parent.mkdir(exist_ok=True)
        kind = "FORMAT csv, HEADER" if dialect == "postgres" else "FORMAT parquet"
        connection.execute(f"COPY ({query.sql(dialect='duckdb')}) TO '{path}' ({kind})")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_exports_the_readers_columns_and_no_others(dialect):
    found = statements(dialect)
    assert list(found) == list(OMOP)
    for name, query in found.items():
        columns = [column.alias_or_name for column in query.expressions]
        assert len(columns) == len(set(columns))
        for column in query.expressions:
            # Spark's times alone are anything but the column itself: as TIMESTAMPs they would be written in UTC.
            as_text = dialect == "spark" and column.alias_or_name.endswith("_datetime")
            assert isinstance(column.this if as_text else column, exp.Cast if as_text else exp.Column)
            if as_text:
                assert column.this.to.this in exp.DataType.TEXT_TYPES and column.this.this.name == column.alias
        wanted = {*OMOP[name].required, *OMOP[name].optional} - {"discharge_to_concept_id"}
        assert set(columns) == wanted


@pytest.mark.parametrize("dialect", ["duckdb", "postgres", "spark"])  # BigQuery's files are laid out like Spark's
def test_exported_tables_are_read(dialect, warehouse, tmp_path):
    export(dialect, warehouse, tmp_path / "omop")
    said: list[str] = []
    ledger = ingest(tmp_path / "omop", tmp_path / "ehr", format="omop", shards=1, workers=1, announce=said.append)
    assert not any("not read" in line for line in said)
    assert (ledger.kept.patients, ledger.kept.visits, ledger.kept.codes) == (3, 4, 4)
    tables = read_tables(tmp_path / "ehr")
    codes = tables.diagnoses.sort("patient_id", "visit_id").select("patient_id", "visit_id", "code_system", "code")
    assert codes.rows() == [
        ("1", "11", "ICD10CM", "E11.9"),
        ("1", "9007199254740993", "ICD10CM", "E11.9"),
        ("2", "12", "SNOMED", "84114007"),
        ("3", "13", "ICD9CM", "428.0"),
    ]
    patients = tables.patients.sort("patient_id")
    assert patients["sex"].to_list() == ["male", "female", None]
    assert patients["race"].to_list() == ["White", 'white, "other"', None]
    stays = tables.visits.sort("patient_id", "order")
    assert stays["length_of_stay"].to_list() == [10, 0, 1, None] and stays["admit_time"][0].hour == 13
    assert tables.medications["ingredient"].to_list() == ["metformin"]
    assert tables.measurements.select("code", "value", "unit").rows() == [("4548-4", 6.5, "%")]
    assert tables.procedures.select("code_system", "code").rows() == [("CPT4", "90935")]
    assert tables.follow_up.rows() == [("2", date(2010, 1, 1), date(2015, 6, 7))]
    everything = b"".join(path.read_bytes() for path in (tmp_path / "omop").rglob("*") if path.is_file())
    assert b"SECRET" not in everything and b"nobody has it" not in everything


def test_dialects_export_the_same(warehouse):
    warehouse.execute("USE cdm")
    first = statements("duckdb")
    for dialect in DIALECTS[1:]:
        for name, query in statements(dialect).items():
            one, two = (
                pl.DataFrame(warehouse.execute(which.sql(dialect="duckdb")).fetchall(), orient="row", strict=False)
                for which in (first[name], query)
            )
            if dialect == "spark":  # whose times are text
                one = one.with_columns(pl.col(pl.Datetime).cast(pl.String).str.strip_suffix(".000000"))
            assert_frame_equal(one, two, check_row_order=False)
            assert one.height > 0


def test_the_line_for_cdm_5_3(warehouse, tmp_path):
    warehouse.execute("ALTER TABLE cdm.visit_occurrence RENAME discharged_to_concept_id TO discharge_to_concept_id")
    with pytest.raises(duckdb.BinderException, match="discharged_to_concept_id"):
        export("duckdb", warehouse, tmp_path / "omop")
    text = (FOLDER / "duckdb.sql").read_text()
    assert "-- CDM 5.3: write discharge_to_concept_id for discharged_to_concept_id." in text
    text = text.replace("discharged_to_concept_id", "discharge_to_concept_id")
    warehouse.execute(re.sub(r"TO '(\w+\.parquet)'", rf"TO '{tmp_path}/omop/\1'", text))
    visits = pl.read_parquet(tmp_path / "omop" / "visit_occurrence.parquet")
    assert visits["discharge_to_concept_id"].to_list() == [8536, None, 0, None]
    assert {*visits.columns} <= {*OMOP["visit_occurrence"].required, *OMOP["visit_occurrence"].optional}
