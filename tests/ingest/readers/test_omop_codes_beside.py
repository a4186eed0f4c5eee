"""OMOP folders that say more of a code than its standard concept: ICD in the source values, maps from ICD, names."""

import re

import numpy as np
import pytest

from medbert_jax.data.vocabulary import Vocabulary, with_titles
from medbert_jax.ehr.shard_files import TITLES_FILE
from medbert_jax.ehr.tables import read_source, read_tables, read_titles
from medbert_jax.ingest.ingest import ingest
from medbert_jax.ingest.readers.omop_options import OmopOptions
from medbert_jax.ingest.source_files import SourceError
from medbert_jax.quality.report import validate

CONCEPTS = """
201826|Type 2 diabetes mellitus|SNOMED|44054006
316866|Hypertensive   disorder|SNOMED|38341003
255573|COPD|SNOMED|13645005
192279|Disorder of kidney due to diabetes mellitus|SNOMED|127013003
4329847|Myocardial infarction|SNOMED|22298006
1|T2DM|ICD10CM|E11
2|T2DM without complications|ICD10CM|E11.9
3|Hypertension|ICD10CM|I10
4|Secondary hypertension|ICD10CM|I15.9
5|T2DM with nephropathy|ICD10CM|E11.21
6|COPD|ICD10GM|J44.9
7|Retired|ICD10CM|J44.8
8|Old MI|ICD10CM|I25.2
9|Never named|SNOMED|999
10|Retinopathy|SNOMED|4855003
3004410|Hemoglobin A1c|LOINC|4548-4
"""
MAPS = """
1|201826|Maps to|
2|201826|Maps to|
201826|201826|Maps to|
3|316866|Maps to|
4|316866|Maps to|
5|192279|Maps to|
5|10|Maps to|
6|255573|Maps to|
7|255573|Maps to|D
8|4329847|Is a|
9|9|Maps to|
"""


def folder(path, conditions, maps=MAPS):
    """A patient for each (condition_concept_id, condition_source_value, condition_source_concept_id), one day each."""
    people = range(1, len(conditions) + 1)
    tables = {
        "person": ["person_id,gender_concept_id,year_of_birth", *(f"{id},8507,1950" for id in people)],
        "visit_occurrence": ["visit_occurrence_id,person_id,visit_concept_id,visit_start_date,visit_end_date",
                             *(f"{id},{id},9201,2011-05-03,2011-05-12" for id in people)],
        "condition_occurrence": ["person_id,visit_occurrence_id,condition_start_date,condition_concept_id,"
                                 "condition_source_value,condition_source_concept_id",
                                 *(f"{id},{id},2011-05-03,{','.join(row)}" for id, row in enumerate(conditions, 1))],
        "measurement": ["person_id,visit_occurrence_id,measurement_concept_id,measurement_date,value_as_number",
                        "1,1,3004410,2011-05-04,7.2"],
        "concept": ["concept_id|concept_name|vocabulary_id|concept_code", *CONCEPTS.strip().splitlines()],
        "concept_relationship": ["concept_id_1|concept_id_2|relationship_id|invalid_reason",
                                 *maps.strip().splitlines()],
    }  # fmt: skip
    path.mkdir()
    for name, lines in tables.items():
        if lines[1:]:
            (path / f"{name}.csv").write_text("\n".join(lines).replace("|", ",") + "\n")
    return path


def read(path, out, **options):
    """system/code of the diagnoses in the order of the patients, and the lines that were told."""
    said = []
    ingest(path, out, format="omop", shards=2, workers=1, options=OmopOptions(**options), announce=said.append)
    codes = read_tables(out).diagnoses.sort("patient_id").select("code_system", "code")
    return ["/".join(row) for row in codes.rows()], said


LOOKS = r"(\d+) of (\d+) source values look like ICD; see --options\.source-value-system"


@pytest.mark.parametrize(
    ("values", "counts"),
    [
        (["E11.9", "I10", "E119", "J44.9", "V45.81"], ("5", "5")),
        (["4280", "25000", "E849.0", "250.00", "Diabetes"], ("4", "5")),
        (["77", "A-12", "Smith1950", "diabetes", "3"], None),
        (["", "", "", "", ""], None),
    ],
)
def test_icd_in_source_values_that_nothing_reads_is_told(tmp_path, values, counts):
    path = folder(tmp_path / "src", [("201826", value, "0") for value in values])
    codes, said = read(path, tmp_path / "ehr")
    assert codes == ["SNOMED/44054006"] * 5
    assert [found.groups() for line in said if (found := re.match(LOOKS, line))] == ([counts] if counts else [])


def test_icd_that_is_read_is_not_told(tmp_path):
    path = folder(tmp_path / "src", [("201826", "E11.9", "0"), ("316866", "I10", "0")])
    codes, said = read(path, tmp_path / "one", source_value_system="ICD10CM")
    assert codes == ["ICD10CM/E11.9", "ICD10CM/I10"] and not any(re.match(LOOKS, line) for line in said)
    known = folder(tmp_path / "known", [("201826", "E11.9", "2"), ("316866", "ICD10CM:I10", "0")])
    codes, said = read(known, tmp_path / "two")
    assert codes == ["ICD10CM/E11.9", "ICD10CM/I10"] and not any(re.match(LOOKS, line) for line in said)


SNOMED = [("201826", "x", "0"), ("316866", "x", "0"), ("255573", "x", "0"), ("192279", "x", "0"), ("4329847", "x", "0"),
          ("201826", "x", "3")]  # fmt: skip


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        # Hypertension may be I10 or I15.9, E11.21 says more than the kidney's disease, J44.8 is retired, "Is a" no map.
        ("icd-10-cm", ["ICD10CM/E11", "SNOMED/38341003", "SNOMED/13645005", "SNOMED/127013003", "SNOMED/22298006"]),
        ("ICD10GM", ["SNOMED/44054006", "SNOMED/38341003", "ICD10GM/J44.9", "SNOMED/127013003", "SNOMED/22298006"]),
    ],
)
def test_icd_out_of_snomed_where_the_source_has_the_map(tmp_path, system, expected):
    path = folder(tmp_path / "src", SNOMED)
    codes, _ = read(path, tmp_path / "ehr", icd_from_snomed=system)
    assert codes == [*expected, "ICD10CM/I10"]  # the source concept comes first
    counted = read_source(tmp_path / "ehr").assumptions[-1]
    name = system.upper().replace("-", "")
    assert f"SNOMED diagnoses read as {name} 1" in counted
    assert ("to which several codes of ICD10CM map 1" in counted) is (name == "ICD10CM")
    assert f"SNOMED diagnoses to which no code of {name} maps alone {3 if name == 'ICD10CM' else 4}" in counted


def test_the_map_is_read_only_where_it_is_asked_for(tmp_path):
    path = folder(tmp_path / "src", SNOMED)
    codes, said = read(path, tmp_path / "ehr")
    assert codes[:5] == [f"SNOMED/{code}" for code in (44054006, 38341003, 13645005, 127013003, 22298006)]
    assert "not read: concept_relationship.csv" in said
    (path / "concept_relationship.csv").unlink()
    with pytest.raises(SourceError, match=r"concept_relationship\.csv or \.parquet: \[missing_file\]"):
        read(path, tmp_path / "ehr", icd_from_snomed="ICD10CM")
    with pytest.raises(ValueError, match="icd_from_snomed must be an ICD of diagnoses: got SNOMED"):
        OmopOptions(icd_from_snomed="SNOMED")


def test_names_of_concepts_are_titles(tmp_path):
    path, out = folder(tmp_path / "src", SNOMED), tmp_path / "ehr"
    read(path, out)
    titles = read_titles(out)
    assert titles["SNOMED/38341003"] == "Hypertensive disorder" and titles["LOINC/4548-4"] == "Hemoglobin A1c"
    assert "SNOMED/999" not in titles  # nobody has it
    vocabulary = with_titles(
        Vocabulary(("SNOMED/38341003", "ICD10CM/I10", "SNOMED/1"), np.array([3, 2, 1]), ("",) * 3), titles
    )
    assert dict(zip(vocabulary.codes, vocabulary.titles, strict=True)) == {
        "SNOMED/38341003": "Hypertensive disorder", "ICD10CM/I10": "Essential (primary) hypertension", "SNOMED/1": "",
    }  # fmt: skip
    assert not validate(out).failed
    (out / TITLES_FILE).write_bytes(b"other")
    assert validate(out).failed
    with pytest.raises(ValueError, match="not the file that was written"):
        read_titles(out)
