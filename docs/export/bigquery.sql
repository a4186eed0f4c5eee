-- BigQuery: Parquet files in one folder per table, in a bucket.
--
-- Exports the tables of an OMOP CDM 5.4 that `medbert ingest FOLDER EHR --format omop` reads, with the columns that it
-- takes and no others; of concept only the rows that the tables name.
-- CDM 5.3: write discharge_to_concept_id for discharged_to_concept_id.
-- Set the dataset below and BUCKET, then:  bq query --nouse_legacy_sql < bigquery.sql
-- and:  gcloud storage cp -r gs://BUCKET/omop .

SET @@dataset_id = 'cdm';

EXPORT DATA OPTIONS (uri = 'gs://BUCKET/omop/person/*.parquet', format = 'PARQUET', overwrite = TRUE) AS (
  SELECT person_id, gender_concept_id, year_of_birth, month_of_birth, day_of_birth, birth_datetime,
         race_concept_id, race_source_value
  FROM person
);

EXPORT DATA OPTIONS (uri = 'gs://BUCKET/omop/visit_occurrence/*.parquet', format = 'PARQUET', overwrite = TRUE) AS (
  SELECT visit_occurrence_id, person_id, visit_concept_id, visit_start_date, visit_start_datetime,
         visit_end_date, visit_end_datetime, discharged_to_concept_id
  FROM visit_occurrence
);

EXPORT DATA OPTIONS (uri = 'gs://BUCKET/omop/condition_occurrence/*.parquet', format = 'PARQUET', overwrite = TRUE) AS (
  SELECT person_id, visit_occurrence_id, condition_start_date, condition_start_datetime,
         condition_concept_id, condition_source_concept_id, condition_source_value,
         condition_status_concept_id, condition_type_concept_id
  FROM condition_occurrence
);

EXPORT DATA OPTIONS (uri = 'gs://BUCKET/omop/drug_exposure/*.parquet', format = 'PARQUET', overwrite = TRUE) AS (
  SELECT person_id, visit_occurrence_id, drug_exposure_start_date, drug_exposure_start_datetime,
         drug_concept_id, drug_source_concept_id, drug_source_value
  FROM drug_exposure
);

EXPORT DATA OPTIONS (uri = 'gs://BUCKET/omop/measurement/*.parquet', format = 'PARQUET', overwrite = TRUE) AS (
  SELECT person_id, visit_occurrence_id, measurement_date, measurement_datetime, measurement_concept_id,
         measurement_source_concept_id, measurement_source_value, value_as_number, unit_concept_id,
         unit_source_value
  FROM measurement
);

EXPORT DATA OPTIONS (uri = 'gs://BUCKET/omop/procedure_occurrence/*.parquet', format = 'PARQUET', overwrite = TRUE) AS (
  SELECT person_id, visit_occurrence_id, procedure_date, procedure_datetime, procedure_concept_id,
         procedure_source_concept_id, procedure_source_value
  FROM procedure_occurrence
);

EXPORT DATA OPTIONS (uri = 'gs://BUCKET/omop/death/*.parquet', format = 'PARQUET', overwrite = TRUE) AS (
  SELECT person_id, death_date, death_datetime
  FROM death
);

EXPORT DATA OPTIONS (uri = 'gs://BUCKET/omop/observation_period/*.parquet', format = 'PARQUET', overwrite = TRUE) AS (
  SELECT person_id, observation_period_start_date, observation_period_end_date
  FROM observation_period
);

EXPORT DATA OPTIONS (uri = 'gs://BUCKET/omop/concept/*.parquet', format = 'PARQUET', overwrite = TRUE) AS (
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
);
