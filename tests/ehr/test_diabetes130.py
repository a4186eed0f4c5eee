from pathlib import Path

import polars as pl
import pytest

from medbert_jax.ehr.diabetes130 import DRUGS, read_diabetes130
from medbert_jax.ehr.ingest import ingest
from medbert_jax.ehr.ledger import Counts
from medbert_jax.ehr.schema import check_tables
from medbert_jax.ehr.tables import read_tables, write_tables

REAL = Path(__file__).parents[2].parent / "shared/data/diabetes130/diabetic_data.parquet"

USUAL = {
    "race": "Caucasian",
    "gender": "Female",
    "age": "[70-80)",
    "weight": "?",
    "discharge_disposition_id": "1",
    "time_in_hospital": "3",
    "diag_1": "428",
    "diag_2": "250.01",
    "diag_3": "V45",
    "max_glu_serum": "None",
    "A1Cresult": "None",
    **dict.fromkeys(DRUGS, "No"),
    "readmitted": "NO",
}
# Two patients by hand, encounters out of order; "9" comes before "10" and "100" by number, not as text.
ROWS = [
    {"encounter_id": "100", "patient_nbr": "8", "diag_1": "8", "diag_2": "41", "diag_3": "?", "age": "[80-90)"},
    {"encounter_id": "9", "patient_nbr": "8", "race": "?", "insulin": "Up", "glyburide-metformin": "Steady"},
    {"encounter_id": "10", "patient_nbr": "8", "A1Cresult": ">8", "max_glu_serum": "Norm", "readmitted": "<30"},
    {"encounter_id": "50", "patient_nbr": "12", "gender": "Unknown/Invalid", "race": "?", "readmitted": ">30",
     "discharge_disposition_id": "11", "diag_1": "v57", "diag_2": "E885", "diag_3": "E885", "time_in_hospital": "14"},
]  # fmt: skip


def published(rows=ROWS) -> pl.DataFrame:
    return pl.DataFrame([{**USUAL, **row} for row in rows])


@pytest.fixture
def by_hand(tmp_path):
    published().write_parquet(tmp_path / "diabetic_data.parquet")
    return read_diabetes130(tmp_path)


def test_encounters_are_visits_in_numeric_order(by_hand):
    visits = by_hand[0].visits.sort("patient_id", "order")
    assert visits.select("patient_id", "visit_id", "order").rows() == [
        ("12", "50", 1), ("8", "9", 1), ("8", "10", 2), ("8", "100", 3),
    ]  # fmt: skip
    assert visits["length_of_stay"].to_list() == [14, 3, 3, 3]
    assert visits["readmitted_30d"].to_list() == [False, False, True, False]
    assert visits["discharge_disposition"].to_list() == ["expired", "home", "home", "home"]


def test_no_date_is_invented_and_ages_say_their_precision(by_hand):
    tables = by_hand[0]
    assert not tables.source.has_dates and check_tables(tables) == []
    for frame in tables.present().values():
        for column, dtype in frame.schema.items():
            if dtype in (pl.Date, pl.Datetime):
                assert frame[column].null_count() == frame.height
    assert tables.visits["age_days"].unique().sort().to_list() == [int(75 * 365.25), int(85 * 365.25)]
    assert tables.visits["age_precision_days"].unique().to_list() == [3652]


def test_people(by_hand):
    assert sorted(by_hand[0].patients.select("patient_id", "sex", "race").rows()) == [
        ("12", None, None), ("8", "female", "Caucasian"),
    ]  # fmt: skip


def test_codes_are_normalised_and_repeats_stay(by_hand):
    diagnoses = by_hand[0].diagnoses.sort("visit_id", "priority")
    assert diagnoses.select("visit_id", "code", "priority").rows() == [
        ("10", "428", 1), ("10", "250.01", 2), ("10", "V45", 3),
        ("100", "008", 1), ("100", "041", 2),
        ("50", "V57", 1), ("50", "E885", 2), ("50", "E885", 3),
        ("9", "428", 1), ("9", "250.01", 2), ("9", "V45", 3),
    ]  # fmt: skip
    assert diagnoses["code_system"].unique().to_list() == ["ICD9CM"]
    assert diagnoses["present_on_admission"].null_count() == diagnoses.height
    assert diagnoses["captured_at_billing"].null_count() == diagnoses.height


def test_drugs_and_bands(by_hand):
    tables = by_hand[0]
    columns = ["visit_id", "code_system", "code", "ingredient"]
    assert sorted(tables.medications.select(columns).rows()) == [
        ("9", "name", "glyburide-metformin", "glyburide-metformin"), ("9", "name", "insulin", "insulin"),
    ]  # fmt: skip
    assert sorted(tables.measurements.select("visit_id", "code", "value", "unit").rows()) == [
        ("10", "A1C >8", None, None), ("10", "max_glu_serum Norm", None, None),
    ]  # fmt: skip


def test_ledger_counts_missing_and_foreign_codes(tmp_path):
    published([*ROWS, {"encounter_id": "60", "patient_nbr": "13", "diag_1": "I50.9", "diag_2": None}]).write_parquet(
        tmp_path / "some_name.parquet"
    )
    tables, ledger = read_diabetes130(tmp_path / "some_name.parquet")
    assert ledger.came == Counts(3, 5, 15) and ledger.kept == Counts(3, 5, 12) == Counts(3, 5, tables.diagnoses.height)
    assert {line.rule: line.left.codes for line in ledger.lines} == {"missing_code": 2, "not_icd9": 1}


@pytest.mark.parametrize("number", range(1, 31))
def test_every_disposition_has_a_meaning(tmp_path, number):
    published([{**ROWS[0], "discharge_disposition_id": str(number)}]).write_parquet(tmp_path / "a.parquet")
    way = read_diabetes130(tmp_path / "a.parquet")[0].visits["discharge_disposition"].item()
    literal = {1: "home", 6: "home", 8: "home", 13: "hospice", 14: "hospice", 18: None, 25: None, 26: None}
    literal |= dict.fromkeys((11, 19, 20, 21), "expired") | dict.fromkeys((7, 9, 12, 16, 17), "other")
    assert way == literal.get(number, "facility")


def test_published_csv_is_the_same(tmp_path, by_hand):
    folder = tmp_path / "csv"
    folder.mkdir()
    published().write_csv(folder / "diabetic_data.csv")
    tables, ledger = read_diabetes130(folder)
    assert ledger == by_hand[1]
    one, two = write_tables(tables, tmp_path / "one"), write_tables(by_hand[0], tmp_path / "two")
    assert one == two
    published(ROWS[:3]).write_csv(folder / "fewer.csv")
    tables, _ = read_diabetes130(folder / "fewer.csv")
    assert write_tables(tables, tmp_path / "three").content_hash != one.content_hash


def test_every_fault_of_a_file_is_listed_without_ids(tmp_path):
    path = tmp_path / "diabetic_data.parquet"
    published().drop("diag_2", "insulin").with_columns(pl.col("time_in_hospital").cast(pl.Int64)).write_parquet(path)
    with pytest.raises(ValueError) as caught:
        read_diabetes130(path)
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("with 3 fault(s):") and lines[-1].startswith("give the file of UCI data set 296")
    assert [line.strip(" -") for line in lines[1:-1]] == [
        "column insulin is missing",
        "column diag_2 is missing",
        "column time_in_hospital must be text as published, is Int64",
    ]
    wrong = {"encounter_id": "444239.0", "patient_nbr": None, "age": "75", "gender": "F", "insulin": "yes"}
    published([*ROWS, wrong, {**ROWS[0], "discharge_disposition_id": "31"}]).write_parquet(path)
    with pytest.raises(ValueError, match=r"with 7 fault\(s\)") as caught:
        read_diabetes130(path)
    assert "encounter_id is there more than once in 2 rows" in str(caught.value)
    assert "column age has unexpected values in 1 rows" in str(caught.value)
    assert "444239" not in str(caught.value)


def test_wrong_paths_and_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="which holds neither; give the file or its folder"):
        read_diabetes130(tmp_path)
    with pytest.raises(FileNotFoundError, match="which is not there; give"):
        read_diabetes130(tmp_path / "nothing.parquet")
    for name in ("diabetic_data.csv", "diabetic_data.parquet"):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(ValueError, match="which is empty or damaged; download it again"):
            read_diabetes130(tmp_path / name)
    published().clear().write_parquet(tmp_path / "none.parquet")
    with pytest.raises(ValueError, match="the file has no rows"):
        read_diabetes130(tmp_path / "none.parquet")
    (tmp_path / "other.csv").write_text("admission_type_id,description\n1,Emergency\n")
    with pytest.raises(ValueError, match=r"column encounter_id is missing"):
        read_diabetes130(tmp_path / "other.csv")


def ingested(rows, tmp_path, **more):
    source = tmp_path / "source"
    source.mkdir(exist_ok=True)
    published(rows).write_csv(source / "diabetic_data.csv")
    ledger = ingest(source, tmp_path / "ehr", format="diabetes130", workers=1, announce=lambda line: None, **more)
    return read_tables(tmp_path / "ehr"), {line.rule: line.left for line in ledger.lines if line.left != Counts()}


def test_ingest_gives_the_same_tables(tmp_path, by_hand):
    written = write_tables(by_hand[0], tmp_path / "one")
    for shards in (1, 2):
        tables, left = ingested(ROWS, tmp_path, shards=shards)
        assert tables.source.content_hash == written.content_hash and left == {"missing_code": Counts(codes=1)}
    assert ingested(ROWS[:3], tmp_path)[0].source.content_hash != written.content_hash


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"patient_nbr": None}, {"null_patient_id": Counts(0, 1, 3)}),
        ({"encounter_id": "?"}, {"null_visit_id": Counts(0, 1), "unlinked_code": Counts(codes=3)}),
        ({"encounter_id": "50"}, {"duplicate_visit": Counts(0, 1)}),
        ({"diag_1": "I50.9"}, {"unreadable_code": Counts(codes=1)}),
        ({"diag_1": "", "diag_3": " "}, {"missing_code": Counts(codes=2)}),
    ],
)
def test_ingest_counts_bad_rows(tmp_path, row, expected):
    rows = [*ROWS[1:], {"encounter_id": "60", "patient_nbr": "12", **row}]
    tables, left = ingested(rows, tmp_path)
    assert left == expected
    assert tables.visits.height == 4 - left.get("null_patient_id", Counts()).visits - (
        left.keys() & {"null_visit_id", "duplicate_visit"} != set()
    )


def test_ingest_refuses_what_the_published_file_never_says(tmp_path):
    wrong = {"encounter_id": "60", "patient_nbr": "12", "age": "?", "gender": "F", "discharge_disposition_id": "31"}
    with pytest.raises(ValueError, match=r"with 3 fault\(s\)") as caught:
        ingested([*ROWS, wrong], tmp_path)
    assert "column age has unexpected values in 1 rows" in str(caught.value)


@pytest.mark.real_data
def test_known_figures_of_the_real_file(tmp_path):
    if not REAL.is_file():
        pytest.skip(f"NOT CHECKED: the real file is not at {REAL}")
    tables, ledger = read_diabetes130(REAL)
    assert ledger.came == Counts(71_518, 101_766, 3 * 101_766)
    assert {line.rule: line.left for line in ledger.lines} == {
        "missing_code": Counts(0, 0, 21 + 358 + 1_423),
        "not_icd9": Counts(),
    }
    ledger.check(patients=71_518, visits=101_766, codes=303_496)
    raw = pl.read_parquet(REAL)
    codes = pl.concat([raw[f"diag_{i}"] for i in (1, 2, 3)]).drop_nulls()
    # Normalising joins no two of the published codes.
    assert codes.n_unique() == tables.diagnoses["code"].n_unique() == 915
    visits = tables.visits
    assert (visits.group_by("patient_id").len()["len"] >= 2).sum() == 16_773
    assert (visits["discharge_disposition"] == "expired").sum() == 1_652
    assert not visits.filter(pl.col("discharge_disposition") == "expired")["readmitted_30d"].any()
    assert visits["readmitted_30d"].sum() == 11_357
    assert visits["length_of_stay"].is_between(1, 14).all()
    assert 0.14 < (visits["length_of_stay"] > 7).mean() < 0.16
    assert (raw["A1Cresult"] != "None").sum() + (raw["max_glu_serum"] != "None").sum() == tables.measurements.height
    repeats = tables.diagnoses.height - tables.diagnoses.unique(["visit_id", "code"]).height
    assert repeats == 5_591
    assert write_tables(tables, tmp_path, shards=2).content_hash == read_tables(tmp_path).source.content_hash
