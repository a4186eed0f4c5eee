"""A MEDS folder as others publish it: splits by folder, people by any code, codes.parquet, what nobody knows."""

import json
from datetime import date, datetime
from pathlib import Path

import polars as pl
import pytest

from medbert_jax.cohorts.meds_labels import LabelFolder
from medbert_jax.cohorts.select import select_cohort
from medbert_jax.ehr.tables import read_tables
from medbert_jax.ingest.ingest import ingest
from medbert_jax.ingest.readers.meds import MedsOptions
from medbert_jax.ingest.source_files import SourceError


def at(day: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(2010, 3, day, hour, minute)


def write(folder: Path, parts: dict[str, list[tuple]], codes: dict | None = None, splits=()) -> Path:
    """Files of rows (subject, time, code) below data, and metadata."""
    for name, rows in parts.items():
        frame = pl.DataFrame(rows, schema=["subject_id", "time", "code"], orient="row", infer_schema_length=None)
        (folder / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        frame.with_columns(pl.col("time").cast(pl.Datetime("us"))).write_parquet(folder / "data" / name)
    (folder / "metadata").mkdir(exist_ok=True)
    if codes:
        schema = {"code": pl.String, "description": pl.String, "parent_codes": pl.List(pl.String)}
        rows = [(code, *said) for code, said in codes.items()]
        pl.DataFrame(rows, schema=schema, orient="row").write_parquet(folder / "metadata" / "codes.parquet")
    if splits:
        frame = pl.DataFrame(splits, schema=["subject_id", "split"], orient="row")
        frame.write_parquet(folder / "metadata" / "subject_splits.parquet")
    return folder


def read(source: Path, out: Path, shards: int = 1, **options):
    """The tables, their splits by patient, and what was printed."""
    said: list[str] = []
    ingest(source, out, format="meds", shards=shards, workers=1, options=MedsOptions(**options), announce=said.append)
    given = out / "splits.parquet"
    splits = dict(pl.read_parquet(given).iter_rows()) if given.exists() else {}
    return read_tables(out), splits, said


def some(*subjects) -> list[tuple]:
    return [row for one in subjects for row in ((one, at(1), "MEDS_BIRTH"), (one, at(2, 9), "ICD10CM/I10"))]


FOLDERS = {"train/0.parquet": some(1, 2), "tuning/deep/1.parquet": some(3), "held_out/0.parquet": some(4)}
SPLITS = {"1": "train", "2": "train", "3": "validation", "4": "test"}


@pytest.mark.parametrize("shards", [1, 3])
def test_folders_of_splits_are_the_splits(tmp_path, shards):
    _, splits, _ = read(write(tmp_path / "src", FOLDERS), tmp_path / "ehr", shards)
    assert splits == SPLITS
    (counted,) = [line for line in _assumed(tmp_path / "ehr") if line.startswith("Counted")]
    assert "subjects split by the folders of data 4" in counted


def _assumed(ehr: Path) -> list[str]:
    return json.loads((ehr / "source.json").read_text())["assumptions"]


def test_folders_of_other_names_are_no_splits(tmp_path):
    _, splits, _ = read(write(tmp_path / "src", {"shard_0/0.parquet": some(1), "1.parquet": some(2)}), tmp_path / "ehr")
    assert splits == {}


def test_ids_that_are_text_have_splits_too(tmp_path):
    parts = {"train/0.parquet": some("s01", "a b"), "held_out/0.parquet": some("s1")}
    assert read(write(tmp_path / "src", parts), tmp_path / "ehr")[1] == {"s01": "train", "a b": "train", "s1": "test"}


@pytest.mark.parametrize("shards", [1, 3])
def test_splits_unlike_each_other_are_refused_with_their_counts(tmp_path, shards):
    table = [(1, "train"), (2, "held_out"), (4, "tuning"), (9, "train")]
    source = write(tmp_path / "src", FOLDERS, splits=table)
    with pytest.raises(
        SourceError, match=r"\[unlike_splits\] gives 2 subjects another split .* --options.splits table"
    ):
        read(source, tmp_path / "ehr", shards)
    assert read(source, tmp_path / "table", splits="table")[1] == {
        "1": "train",
        "2": "test",
        "4": "validation",
        "9": "train",
    }
    assert read(source, tmp_path / "folders", splits="folders")[1] == SPLITS
    assert read(source, tmp_path / "none", splits="none")[1] == {}


def test_where_both_say_the_same_whom_the_table_lacks_has_the_split_of_his_folder(tmp_path):
    source = write(tmp_path / "src", FOLDERS, splits=[(1, "train"), (3, "tuning")])
    assert read(source, tmp_path / "ehr")[1] == SPLITS


def test_a_subject_in_two_split_folders_is_refused(tmp_path):
    source = write(tmp_path / "src", FOLDERS | {"held_out/1.parquet": some(1, 2)})
    with pytest.raises(SourceError, match=r"\[two_splits\] has 2 subjects whose rows lie in the folders of two splits"):
        read(source, tmp_path / "ehr")
    # A second file of the same split is none, nor is one in no folder.
    source = write(tmp_path / "sound", FOLDERS | {"train/1.parquet": some(1), "2.parquet": some(2)})
    assert read(source, tmp_path / "ehr")[1] == SPLITS


BORN, DIED = datetime(1950, 5, 6), datetime(2015, 7, 8, 22, 30)


@pytest.mark.parametrize(
    ("birth", "death"),
    [
        ("MEDS_BIRTH", "MEDS_DEATH"),
        ("MEDS_BIRTH//x", "MEDS_DEATH//I21"),
        ("SNOMED/3950001", "SNOMED/419620001"),
        ("SNOMEDCT//184099003", "SNOMED//419099009"),
        ("LOINC/21112-8", "LOINC//81954-0"),
        ("dob", "DEATH"),
        ("SITE/BORN", "site//gone"),
    ],
)
def test_birth_and_death_have_many_codes(tmp_path, birth, death):
    rows = [(1, BORN, birth), (1, at(2), "ICD10CM/I10"), (1, DIED, death)]
    own = {"birth_codes": ("SITE//BORN",), "death_codes": ("SITE/GONE",)} if "SITE" in birth else {}
    tables, _, said = read(write(tmp_path / "src", {"0.parquet": rows}), tmp_path / "ehr", **own)
    assert tables.patients.select("birth_date", "death_date", "death_time").rows() == [
        (date(1950, 5, 6), date(2015, 7, 8), DIED)
    ]
    assert tables.diagnoses.select("code", "time").rows() == [("I10", at(2))]
    assert not [line for line in said if "no pattern knows" in line]


def test_a_code_that_only_begins_alike_is_no_birth(tmp_path):
    rows = [(1, BORN, "BIRTH//WEIGHT"), (1, BORN, "SNOMED/39500011"), (1, at(2), "ICD10CM/I10")]
    tables, *_ = read(write(tmp_path / "src", {"0.parquet": rows}), tmp_path / "ehr")
    assert tables.patients["birth_date"].to_list() == [None]


def test_the_standards_own_code_comes_first_and_of_several_deaths_the_earliest(tmp_path):
    rows = [
        (1, BORN, "MEDS_BIRTH"), (1, at(3), "DOB"), (1, at(2), "ICD10CM/I10"), (1, DIED, "MEDS_DEATH"),
        (1, at(9), "SNOMED/419099009"), (2, at(2), "ICD10CM/I10"), (2, at(9), "DEATH"), (2, at(8), "SNOMED/419099009"),
    ]  # fmt: skip
    tables, *_ = read(write(tmp_path / "src", {"0.parquet": rows}), tmp_path / "ehr")
    assert tables.patients.sort("patient_id").select("birth_date", "death_date", "death_time").rows() == [
        (date(1950, 5, 6), date(2015, 7, 8), DIED), (None, date(2010, 3, 8), None),
    ]  # fmt: skip


def test_a_day_begins_with_its_first_event_of_any_kind(tmp_path):
    rows = [
        (1, at(2, 15), "ICD10CM/I50.9"), (1, at(2, 6, 30), "LOINC/2160-0"), (1, at(4, 15), "ICD10CM/I10"),
        (1, at(6), "ICD10CM/I10"), (1, at(8, 6), "LOINC/2160-0"),
    ]  # fmt: skip
    tables, *_, said = read(write(tmp_path / "src", {"0.parquet": rows}), tmp_path / "ehr")
    assert tables.visits.sort("order")["admit_time"].to_list() == [at(2, 6, 30), at(4, 15), at(6)]
    assert tables.measurements.sort("time")["visit_id"].to_list() == ["day/2010-03-02", None]
    assert not [line for line in said if line.startswith("unknown now")]  # a day without a diagnosis is no lost visit


def test_a_code_of_the_afternoon_is_not_in_the_input_of_a_prediction_in_the_morning(tmp_path):
    rows = some(*range(1, 4)) + [(one, at(5, 15), "ICD10CM/I50.9") for one in range(1, 4)]
    tables, *_ = read(write(tmp_path / "src", {"0.parquet": rows}), tmp_path / "ehr")
    labels = pl.DataFrame(
        {
            "subject_id": [1, 2, 3],
            "prediction_time": [at(5, 7), at(5, 14, 59), at(5, 15)],
            "boolean_value": [True, True, False],
        }
    )
    (tmp_path / "labels").mkdir()
    labels.write_parquet(tmp_path / "labels" / "0.parquet")
    frame, _ = select_cohort(tables, LabelFolder.find(tmp_path / "labels"))
    assert frame["input_until"].to_list() == [1, 1, 2]


CODES = {
    "LOCAL//HF": ("Heart failure,\n local", ["SNOMED/84114007", "ICD10CM//I50.9"]),
    "LOCAL//TWICE": ("One code spelt twice", ["ICD10CM/E11.9", "ICD10CM//E119"]),
    "LOCAL//TWO": ("Two things", ["ICD10CM/I10", "ICD10CM/I11.0"]),
    "LOCAL//SN": ("Asthma", ["SNOMED/195967001"]),
    "LOCAL//NONE": ("Nothing", []),
    "LOCAL//STRANGE": ("Of a strange parent", ["LOCAL//HF"]),
    "LAB//50912//mg/dL": ("Creatinine", ["LOINC/2160-0"]),
    "LAB//50971//mEq/L": ("Potassium", ["ICD10CM/E87.6"]),
    "ICD10CM/J45.909": ("Asthma, as the site calls it", ["SNOMED/195967001"]),
    "LOCAL//BORN": ("Birth", ["SNOMED/3950001"]),
}


def test_parents_say_what_codes_of_the_site_are(tmp_path):
    rows = [(1, at(5, hour), code) for hour, code in enumerate(CODES) if code != "LOCAL//BORN"]
    source = write(tmp_path / "src", {"0.parquet": [*rows, (1, BORN, "LOCAL//BORN")]}, CODES)
    tables, *_ = read(source, tmp_path / "ehr")
    assert set(tables.diagnoses.select("code_system", "code").rows()) == {
        ("ICD10CM", "I50.9"), ("ICD10CM", "E11.9"), ("SNOMED", "195967001"), ("ICD10CM", "J45.909"),
    }  # fmt: skip
    # A parent of another table does not move a code that a pattern knows.
    assert set(tables.measurements.select("code_system", "code", "unit").rows()) == {
        ("LOINC", "2160-0", "mg/dL"), ("MIMIC_ITEM", "50971", "mEq/L"),
    }  # fmt: skip
    assert tables.patients["birth_date"].to_list() == [date(1950, 5, 6)]
    (counted,) = [line for line in _assumed(tmp_path / "ehr") if line.startswith("Counted")]
    assert "rows read as the parent of their code (codes.parquet) 5," in counted
    assert "rows whose code has parents of several meanings, which stay as they are 1" in counted
    unknown = pl.read_csv(tmp_path / "ehr" / "unknown_codes.csv")
    assert set(unknown["code"]) == {"LOCAL//TWO", "LOCAL//NONE", "LOCAL//STRANGE"}
    assert unknown.filter(code="LOCAL//NONE").row(0) == ("LOCAL//NONE", 1, 1, "Nothing")

    tables, *_ = read(source, tmp_path / "as_written", parent_codes=False)
    assert tables.diagnoses.select("code_system", "code").rows() == [("ICD10CM", "J45.909")]
    assert tables.patients["birth_date"].to_list() == [None]


@pytest.mark.parametrize("shards", [1, 3])
def test_codes_that_nobody_knows_are_listed_and_those_of_few_people_are_not_printed(tmp_path, shards):
    rows = some(*range(1, 13)) + [(one, at(3), code) for one in range(1, 13) for code in ("SHOE//44", "SHOE//45")]
    rows += [(1, at(3), "Jane Doe 1950-05-06")] * 40 + [(1, at(3), 'a "quoted, code"')]
    _, _, said = read(write(tmp_path / "src", {"0.parquet": rows}), tmp_path / "ehr", shards)
    (line,) = [line for line in said if "no pattern knows" in line]
    assert line == (
        "codes that no pattern knows: 65 rows of 4 codes, all of them in unknown_codes.csv;"
        " the most frequent: SHOE//## 24"
    )
    assert pl.read_csv(tmp_path / "ehr" / "unknown_codes.csv").select("code", "rows", "patients").rows() == [
        ("Jane Doe 1950-05-06", 40, 1), ("SHOE//44", 12, 12), ("SHOE//45", 12, 12), ('a "quoted, code"', 1, 1),
    ]  # fmt: skip
    # The list goes with the tables when they are replaced.
    read(write(tmp_path / "known", {"0.parquet": some(1)}), tmp_path / "ehr")
    assert not (tmp_path / "ehr" / "unknown_codes.csv").exists()
