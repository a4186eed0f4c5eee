-- Spark SQL, Databricks: Parquet files in one folder per table.
--
-- Exports the tables of an OMOP CDM 5.4 that `medbert ingest FOLDER EHR --format omop` reads, with the columns that it
-- takes and no others; of concept only the rows that the tables name.
-- CDM 5.3: write discharge_to_concept_id for discharged_to_concept_id.
-- Set the schema below and the folder /export/omop, then:  spark-sql -f spark.sql
-- Times go out as text: Spark writes a TIMESTAMP to Parquet in UTC, which would move them to another day.

USE cdm;

INSERT OVERWRITE DIRECTORY '/export/omop/person' USING parquet
  SELECT person_id, gender_concept_id, year_of_birth, month_of_birth, day_of_birth,
         CAST(birth_datetime AS STRING) AS birth_datetime,
         race_concept_id, race_source_value
  FROM person;

INSERT OVERWRITE DIRECTORY '/export/omop/visit_occurrence' USING parquet
  SELECT visit_occurrence_id, person_id, visit_concept_id, visit_start_date,
         CAST(visit_start_datetime AS STRING) AS visit_start_datetime,
         visit_end_date, CAST(visit_end_datetime AS STRING) AS visit_end_datetime, discharged_to_concept_id
  FROM visit_occurrence;

INSERT OVERWRITE DIRECTORY '/export/omop/condition_occurrence' USING parquet
  SELECT person_id, visit_occurrence_id, condition_start_date,
         CAST(condition_start_datetime AS STRING) AS condition_start_datetime,
         condition_concept_id, condition_source_concept_id, condition_source_value,
         condition_status_concept_id, condition_type_concept_id
  FROM condition_occurrence;

INSERT OVERWRITE DIRECTORY '/export/omop/drug_exposure' USING parquet
  SELECT person_id, visit_occurrence_id, drug_exposure_start_date,
         CAST(drug_exposure_start_datetime AS STRING) AS drug_exposure_start_datetime,
         drug_concept_id, drug_source_concept_id, drug_source_value
  FROM drug_exposure;

INSERT OVERWRITE DIRECTORY '/export/omop/measurement' USING parquet
  SELECT person_id, visit_occurrence_id, measurement_date,
         CAST(measurement_datetime AS STRING) AS measurement_datetime, measurement_concept_id,
         measurement_source_concept_id, measurement_source_value, value_as_number, unit_concept_id,
         unit_source_value
  FROM measurement;

INSERT OVERWRITE DIRECTORY '/export/omop/procedure_occurrence' USING parquet
  SELECT person_id, visit_occurrence_id, procedure_date,
         CAST(procedure_datetime AS STRING) AS procedure_datetime, procedure_concept_id,
         procedure_source_concept_id, procedure_source_value
  FROM procedure_occurrence;

INSERT OVERWRITE DIRECTORY '/export/omop/death' USING parquet
  SELECT person_id, death_date, CAST(death_datetime AS STRING) AS death_datetime
  FROM death;

INSERT OVERWRITE DIRECTORY '/export/omop/observation_period' USING parquet
  SELECT person_id, observation_period_start_date, observation_period_end_date
  FROM observation_period;

INSERT OVERWRITE DIRECTORY '/export/omop/concept' USING parquet
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
  );
