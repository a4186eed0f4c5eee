-- PostgreSQL: CSV files, one per table, in the working folder.
--
-- Exports the tables of an OMOP CDM 5.4 that `medbert ingest FOLDER EHR --format omop` reads, with the columns that it
-- takes and no others; of concept only the rows that the tables name.
-- CDM 5.3: write discharge_to_concept_id for discharged_to_concept_id.
-- Set the schemas below (that of the vocabulary second), then:  mkdir omop && cd omop && psql DATABASE -f postgres.sql

\set ON_ERROR_STOP on
SET search_path TO cdm, vocabulary;
SET client_encoding TO 'UTF8';
SET datestyle TO ISO;
-- One snapshot, so that no table is newer than another.
BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY;

COPY (
  SELECT person_id, gender_concept_id, year_of_birth, month_of_birth, day_of_birth, birth_datetime,
         race_concept_id, race_source_value
  FROM person
) TO STDOUT WITH (FORMAT csv, HEADER)
\g person.csv

COPY (
  SELECT visit_occurrence_id, person_id, visit_concept_id, visit_start_date, visit_start_datetime,
         visit_end_date, visit_end_datetime, discharged_to_concept_id
  FROM visit_occurrence
) TO STDOUT WITH (FORMAT csv, HEADER)
\g visit_occurrence.csv

COPY (
  SELECT person_id, visit_occurrence_id, condition_start_date, condition_start_datetime,
         condition_concept_id, condition_source_concept_id, condition_source_value,
         condition_status_concept_id, condition_type_concept_id
  FROM condition_occurrence
) TO STDOUT WITH (FORMAT csv, HEADER)
\g condition_occurrence.csv

COPY (
  SELECT person_id, visit_occurrence_id, drug_exposure_start_date, drug_exposure_start_datetime,
         drug_concept_id, drug_source_concept_id, drug_source_value
  FROM drug_exposure
) TO STDOUT WITH (FORMAT csv, HEADER)
\g drug_exposure.csv

COPY (
  SELECT person_id, visit_occurrence_id, measurement_date, measurement_datetime, measurement_concept_id,
         measurement_source_concept_id, measurement_source_value, value_as_number, unit_concept_id,
         unit_source_value
  FROM measurement
) TO STDOUT WITH (FORMAT csv, HEADER)
\g measurement.csv

COPY (
  SELECT person_id, visit_occurrence_id, procedure_date, procedure_datetime, procedure_concept_id,
         procedure_source_concept_id, procedure_source_value
  FROM procedure_occurrence
) TO STDOUT WITH (FORMAT csv, HEADER)
\g procedure_occurrence.csv

COPY (
  SELECT person_id, death_date, death_datetime
  FROM death
) TO STDOUT WITH (FORMAT csv, HEADER)
\g death.csv

COPY (
  SELECT person_id, observation_period_start_date, observation_period_end_date
  FROM observation_period
) TO STDOUT WITH (FORMAT csv, HEADER)
\g observation_period.csv

COPY (
  SELECT concept_id, vocabulary_id, concept_code, concept_name, concept_class_id
  FROM concept
  WHERE concept_id IN (
    SELECT race_concept_id FROM person
    UNION DISTINCT SELECT unit_concept_id FROM measurement
    UNION DISTINCT SELECT condition_concept_id FROM condition_occurrence
    UNION DISTINCT SELECT condition_source_concept_id FROM condition_occurrence
    UNION DISTINCT SELECT drug_concept_id FROM drug_exposure
    UNION DISTINCT SELECT drug_source_concept_id FROM drug_exposure
    UNION DISTINCT SELECT measurement_concept_id FROM measurement
    UNION DISTINCT SELECT measurement_source_concept_id FROM measurement
    UNION DISTINCT SELECT procedure_concept_id FROM procedure_occurrence
    UNION DISTINCT SELECT procedure_source_concept_id FROM procedure_occurrence
  )
) TO STDOUT WITH (FORMAT csv, HEADER)
\g concept.csv

COMMIT;
