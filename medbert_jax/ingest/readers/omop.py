"""Reader of the OMOP Common Data Model, versions 5.3 and 5.4 (ohdsi.github.io/CommonDataModel).

Tables and columns as documented there, CSV or Parquet; of `concept` only the rows that a shard's ids name are used.
"""

import polars as pl

from medbert_jax.ingest.linking import WORDS
from medbert_jax.ingest.reader import RawTable, Reader
from medbert_jax.ingest.readers.omop_codes import check_unread, icd_of_snomed, unread_icd
from medbert_jax.ingest.readers.omop_concepts import concepts_of
from medbert_jax.ingest.readers.omop_options import OmopOptions
from medbert_jax.ingest.readers.omop_tables import (
    deaths_of,
    diagnoses_of,
    events_of,
    follow_up_of,
    patients_of,
    visits_of,
)
from medbert_jax.ingest.rough import Left, Rough

ASSUMPTIONS = (
    "A visit is a row of visit_occurrence, from visit_start_datetime to visit_end_datetime, or the dates where these "
    "are not given or of another day: the CDM requires the date, so it holds, from midnight, and the time is counted; "
    "the times of drugs, measurements and procedures likewise.",
    "Visit concepts 9201, 262, 8717, 32037, 581379 are inpatient, 9203, 8870, 581381 emergency, "
    "9202, 581477, 5083, 8756, 8940, 38004207 outpatient, 0 unknown, all others other; visit_detail is not read.",
    "Diagnoses are the rows of condition_occurrence alone. ICD codes that the mapping puts into other domains "
    "(observation, procedure, measurement: many Z codes) are not there.",
    "A diagnosis' code is that of condition_source_concept_id if it is of an ICD, else condition_source_value where it "
    "names its system or the option source_value_system does, else that of the standard concept, else that of the "
    "other source concept, else none: the row leaves, under unnamed_system where its source value looks like a code. "
    "ICD9 in a source value is ICD-9-CM, ICD10 is that of WHO. The system is the concept's "
    "vocabulary_id; concept id 0 is unmapped. A source code that maps to several standard concepts is several rows "
    "there and one diagnosis here.",
    "Source values are taken only where they look like a code: up to 20 letters, digits, dots and dashes, at least one "
    "digit and no blank, and of the shape that the system's codes have; those of systems without a shape never where "
    "they look like a day, a telephone number or a number of nine digits. Other text is never a code; its row is "
    "without one.",
    "Priority is 1 for a primary status (32901, 32902, 32903), else the position that the condition type says, "
    "else 2 for a secondary status (32907, 32908, 32909). Present on admission is true for admission diagnoses "
    "(32890, 32901, 32907, 4203942) and otherwise unknown; captured at billing is unknown.",
    "The birth date is birth_datetime, else year, month and day where all are given, else only the year is known. A "
    "birth_datetime that contradicts a year, month or day beside it is not taken, and counted. A "
    "birth_datetime of 15 June without month and day is the CDM's stand-in for a known year and is read as that.",
    "Sex is 8507 male, 8532 female, others unknown. Race is the name of race_concept_id, else race_source_value. "
    "Rows of death without a readable date say nothing, and are counted.",
    "Discharge dispositions are taken from discharged_to_concept_id (5.3: discharge_to_concept_id) where it is one of "
    "the usual places; 0 is unknown, although the CDM lets it stand for home too. The stay of who is still a patient "
    "(32220) is open.",
    "Medications and measurements have the code of the standard concept (RxNorm, LOINC), procedures that of the source "
    "concept; the other where this one says nothing; where neither does, source values that name their system alone. "
    "They are of the visit that the row names; without one their time stands alone.",
    "A medication's ingredient is known only where the drug concept itself is an RxNorm ingredient. A measurement's "
    "unit is unit_source_value, else the code of unit_concept_id.",
)
_US_ICD = (
    "condition_source_value without an ICD source concept is an ICD code of a US site: its shape tells ICD-9-CM from "
    "ICD-10-CM. Where both have such a code (V27.0), it is ICD-10-CM from 2015-10-01 on, by the end of its visit, else "
    "by condition_start_date; without a day before 2100 it stays undecided: the row has the code of its standard "
    "concept, or leaves under unnamed_system."
)
_FROM_SNOMED = (
    "A diagnosis that has the SNOMED code of its standard concept is read as the code of {0} that maps to it in "
    "concept_relationship, or under which all fall that do. Where they part, or say more than it, it stays SNOMED."
)
_NO_CONCEPTS = "There is no table concept: code systems are known only where condition_source_value tells them."
_PERIODS = (
    "Follow-up is observation_period, periods that overlap or meet as one: that a patient has no codes outside of them "
    "is no sign of health."
)


def _build(raw: dict[str, pl.DataFrame], options: OmopOptions) -> Rough:
    """EHR tables of one shard's raw rows, bad ones included."""
    concepts = concepts_of(raw)
    visits = visits_of(raw["visit_occurrence"], concepts)
    said = [WORDS[options.unlinked]]
    if options.source_value_system:
        said.append(f"condition_source_value is read as {options.source_value_system} where it has a code's shape.")
    said += [_US_ICD] * options.us_icd
    said += [_NO_CONCEPTS] * ("concept" not in raw) + [_PERIODS] * ("observation_period" in raw)
    if options.icd_from_snomed:
        said.append(_FROM_SNOMED.format(options.icd_from_snomed))
    told = unread_icd(raw["condition_occurrence"], concepts, options)
    mapped = icd_of_snomed(raw.get("concept_relationship"), concepts, options.icd_from_snomed)
    diagnoses = diagnoses_of(raw["condition_occurrence"], visits, concepts, mapped, options, told)
    patients, deaths = patients_of(raw["person"], concepts), deaths_of(raw.get("death"))
    undated = deaths.filter(pl.col("death_date").is_null()).join(patients, on="patient_id", how="semi")
    return Rough(
        patients=patients,
        visits=visits,
        diagnoses=diagnoses,
        medications=events_of(raw.get("drug_exposure"), "drug", "drug_exposure_start", concepts),
        measurements=events_of(raw.get("measurement"), "measurement", "measurement", concepts),
        procedures=events_of(raw.get("procedure_occurrence"), "procedure", "procedure", concepts),
        deaths=deaths,
        follow_up=follow_up_of(raw.get("observation_period")),
        unlinked=options.unlinked,
        has_dates=True,
        age_precision="day or year",
        assumptions=(*ASSUMPTIONS, *said),
        left=(Left("unreadable_death", "Rows of death without a readable date; their patients stay", undated.height),),
        other_ids=deaths["patient_id"],
        told=told,
        titles=concepts.select("code", code_system="system", title="name"),
    )


def _event_table(name: str, kind: str, start: str, required: tuple[str, ...], *optional: str) -> RawTable:
    coded = ("visit_occurrence_id", f"{kind}_source_concept_id", f"{kind}_source_value", f"{start}_datetime")
    always = ("person_id", f"{kind}_concept_id", f"{start}_date")
    return RawTable(
        name, "person_id", always + required, coded + optional, needed=name == "condition_occurrence",
        times=(f"{start}_date", f"{start}_datetime"), codes=(f"{kind}_source_value",),
        numbers=tuple(column for column in optional if column.startswith("value_as")),
    )  # fmt: skip


_PERIOD = ("observation_period_start_date", "observation_period_end_date")
OMOP = Reader(
    format="omop",
    tables=(
        RawTable(
            "person", "person_id", ("person_id", "gender_concept_id", "year_of_birth"),
            ("month_of_birth", "day_of_birth", "birth_datetime", "race_concept_id", "race_source_value"),
            times=("birth_datetime",),
        ),
        RawTable(
            "visit_occurrence", "person_id",
            ("visit_occurrence_id", "person_id", "visit_concept_id", "visit_start_date", "visit_end_date"),
            ("visit_start_datetime", "visit_end_datetime", "discharged_to_concept_id", "discharge_to_concept_id"),
            times=("visit_start_date", "visit_end_date", "visit_start_datetime", "visit_end_datetime"),
            stay=("visit_start_date", "visit_end_date"),
        ),
        _event_table("condition_occurrence", "condition", "condition_start", (), "condition_status_concept_id",
                     "condition_type_concept_id"),
        _event_table("drug_exposure", "drug", "drug_exposure_start", ()),
        _event_table("measurement", "measurement", "measurement", (), "value_as_number", "unit_source_value",
                     "unit_concept_id"),
        _event_table("procedure_occurrence", "procedure", "procedure", ()),
        RawTable("death", "person_id", ("person_id", "death_date"), ("death_datetime",), needed=False,
                 times=("death_date", "death_datetime")),
        RawTable("observation_period", "person_id", ("person_id",), _PERIOD, needed=False, times=_PERIOD),
        RawTable("concept", "", ("concept_id", "vocabulary_id", "concept_code"), ("concept_name", "concept_class_id"),
                 needed=False, key="concept_id", codes=("concept_code",),
                 names=("concept_name", "concept_class_id", "vocabulary_id")),
        RawTable("concept_relationship", "", ("concept_id_1", "concept_id_2", "relationship_id"), ("invalid_reason",),
                 needed=False, leads=("concept_id", "concept_id_2", "concept_id_1"),
                 only=("relationship_id", "Maps to"), ids=("concept_id_1", "concept_id_2"), option="icd_from_snomed"),
    ),
    build=_build,
    options=OmopOptions,
    check=check_unread,
    remedies={
        "unlinked_code": "--options.unlinked visit_of_the_day",
        "unnamed_system": "--options.source-value-system SYSTEM, or --options.us-icd",
        "missing_code": "the table concept, with the concepts that these rows name",
        "no_admission": "dates as 2011-05-03",
        "unlisted_patient": "the table person, with all who have rows",
    },
)  # fmt: skip
