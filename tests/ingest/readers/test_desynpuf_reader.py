from datetime import date
from pathlib import Path

import polars as pl
import pytest

from medbert_jax.attrition.ledger import Counts
from medbert_jax.ehr.tables import read_tables
from medbert_jax.ingest.assembly import assemble
from medbert_jax.ingest.ingest import ingest
from medbert_jax.ingest.reader import SourceOptions
from medbert_jax.ingest.readers.desynpuf import DESYNPUF

REAL = Path(__file__).parents[3].parent / "shared/data/desynpuf"
PEOPLE = "DESYNPUF_ID,BENE_BIRTH_DT,BENE_DEATH_DT,BENE_SEX_IDENT_CD,BENE_RACE_CD,BENE_ESRD_IND\n"
STAYS = "DESYNPUF_ID,CLM_ID,SEGMENT,CLM_FROM_DT,CLM_ADMSN_DT,NCH_BENE_DSCHRG_DT," + ",".join(
    f"ICD9_DGNS_CD_{number}" for number in range(1, 11)
)
YEARS = {
    "2008": "A1,19430101,,1,1,0\nB2,19500701,,2,5,0\n",
    "2009": "A1,19430101,,1,1,0\nB2,19500701,20091001,2,5,Y\n",
    "2010": "A1,19430101,,2,1,0\n",
}
CLAIMS = """\
A1,11,1,20080301,20080301,20080311,4280,25000,,V4581,,,,,,
A1,12,1,20080105,20080105,20080106,486,,,,,,,,,
A1,12,2,20071205,20071205,20080106,,,,,,,,,,
B2,21,1,20090301,20090301,20090303,E8498,4019,,,,,,,,
"""


@pytest.fixture
def source(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for year, rows in YEARS.items():
        (source / f"DE1_0_{year}_Beneficiary_Summary_File_Sample_1.csv").write_text(PEOPLE + rows)
    (source / "DE1_0_2008_to_2010_Inpatient_Claims_Sample_1.csv").write_text(f"{STAYS}\n{CLAIMS}")
    return source


def read(source, **more):
    out = source.parent / "ehr"
    ledger = ingest(source, out, format="desynpuf", workers=1, announce=lambda line: None, **more)
    return read_tables(out), ledger


def left(ledger) -> dict[str, Counts]:
    return {line.rule: line.left for line in ledger.lines if line.left != Counts()}


def add(source, claims) -> None:
    (source / "DE1_0_2008_to_2010_Inpatient_Claims_Sample_2.csv").write_text(f"{STAYS}\n{claims}\n")


def test_published_files(source):
    tables, ledger = read(source)
    assert sorted(tables.patients.rows()) == [
        ("A1", date(1943, 1, 1), None, "White", None, None),  # two sexes in three years: unknown
        ("B2", date(1950, 7, 1), "female", "Hispanic", date(2009, 10, 1), None),
    ]
    visits = tables.visits.sort("patient_id", "order")
    assert visits.select("visit_id", "order", "length_of_stay", "visit_type").rows() == [
        ("12", 1, 1, "inpatient"), ("11", 2, 10, "inpatient"), ("21", 1, 2, "inpatient"),
    ]  # fmt: skip
    assert tables.diagnoses.sort("visit_id", "priority").select("visit_id", "code", "priority").rows() == [
        ("11", "428.0", 1), ("11", "250.00", 2), ("11", "V45.81", 4), ("12", "486", 1),
        ("21", "E849.8", 1), ("21", "401.9", 2),
    ]  # fmt: skip
    assert ledger.came == Counts(2, 4, 6) and left(ledger) == {"further_segment": Counts(visits=1)}


def test_births_that_contradict_each_other_are_unknown_and_told(source):
    """Of A1 the file of 2009 says another birth than those of 2008 and 2010; B2's is missing in that of 2009."""
    years = {
        "2008": "A1,19430101,,1,1,0\nB2,19500701,,2,5,0\nC3,19200101,,1,1,0\nC3,19200101,,1,1,0\n",
        "2009": "A1,19340101,,1,1,0\nB2,,20091001,2,5,Y\nC3,19200201,,1,1,0\n",
        "2010": "A1,19430101,,1,1,0\n",
    }
    for year, rows in years.items():
        (source / f"DE1_0_{year}_Beneficiary_Summary_File_Sample_1.csv").write_text(PEOPLE + rows)
    # Before one of A1's births: no birth of his is known, so nothing is before it. B2's is known from the other year.
    add(source, "A1,31,1,,19350301,19350302,4280,,,,,,,,,\nB2,32,1,,19490301,19490302,4280,,,,,,,,,")
    for shards in (1, 5):
        tables, ledger = read(source, shards=shards)
        assert dict(tables.patients.select("patient_id", "birth_date").rows()) == {
            "A1": None, "B2": date(1950, 7, 1), "C3": None,
        }  # fmt: skip
        assert set(tables.visits.filter(patient_id="A1")["age_days"]) == {None}
        assert left(ledger) == {"further_segment": Counts(visits=1), "before_birth": Counts(0, 1, 1)}
        told = [line for line in tables.source.assumptions if "contradict" in line]
        assert len(told) == 1 and "patients whose rows contradict each other in birth_date" in told[0]
        assert told[0].endswith("which is unknown now 2.")


def test_the_parquet_layout_is_the_same(source, tmp_path):
    csv = read(source, shards=2)
    for path in source.glob("*Inpatient*"):
        path.unlink()
    stay = ("subject_id", "claim_id", "segment", "admit", "discharge", "icd9_dx")
    rows = [
        ("A1", "11", 1, date(2008, 3, 1), date(2008, 3, 11), ["4280", "25000", "", "V4581"]),
        ("A1", "12", 1, date(2008, 1, 5), date(2008, 1, 6), ["486"]),
        ("A1", "12", 2, date(2007, 12, 5), date(2008, 1, 6), []),
        ("B2", "21", 1, date(2009, 3, 1), date(2009, 3, 3), ["E8498", "4019"]),
    ]
    pl.DataFrame(rows, schema=stay, orient="row").write_parquet(source / "inpatient.parquet")
    parquet = read(source)
    assert parquet[1] == csv[1] and parquet[0].source.content_hash == csv[0].source.content_hash


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ("C3,31,1,,20080301,20080302,4280,,,,,,,,,", {"unlisted_patient": Counts(1, 1, 1)}),
        (",31,1,,20080301,20080302,4280,,,,,,,,,", {"null_patient_id": Counts(0, 1, 1)}),
        ("A1,,1,,20080301,20080302,4280,,,,,,,,,", {"null_visit_id": Counts(0, 1), "unlinked_code": Counts(codes=1)}),
        ("A1,31,1,,,20080302,4280,,,,,,,,,", {"no_admission": Counts(0, 1, 1)}),
        ("A1,31,1,,19400301,20080302,4280,,,,,,,,,", {"before_birth": Counts(0, 1, 1)}),
        ("B2,31,1,,20091002,20091003,4280,,,,,,,,,", {"after_death": Counts(0, 1, 1)}),
        ("A1,31,1,,18000301,20080302,4280,,,,,,,,,", {"implausible_time": Counts(0, 1, 1)}),
        ("A1,31,1,,20080301,20080302,OTHER,,,,,,,,,", {"unreadable_code": Counts(codes=1)}),
        (
            "A1,11,1,20080301,20080301,20080311,4280,25000,,V4581,,,,,,",
            {"duplicate_visit": Counts(0, 1), "duplicate_code": Counts(codes=3)},
        ),
        ("A1,31,2,,20080301,20080302,4280,,,,,,,,,", {}),  # a second segment without a first is the visit
        ("A1,31,,,20080301,20080302,4280,,,,,,,,,", {}),
    ],
)
def test_bad_rows_are_counted(source, claims, expected):
    add(source, claims)
    tables, ledger = read(source)
    assert left(ledger) == {"further_segment": Counts(visits=1)} | expected
    assert ledger.kept == Counts(tables.patients.height, tables.visits.height, tables.diagnoses.height)


def test_a_beneficiary_without_id_is_counted(source):
    (source / "DE1_0_2010_Beneficiary_Summary_File_Sample_2.csv").write_text(PEOPLE + ",19430101,,1,1,0\n" * 2)
    assert left(read(source)[1])["null_patient_id"] == Counts(patients=2)


def test_missing_files_and_columns(source):
    for path in source.glob("*Inpatient*"):
        path.unlink()
    with pytest.raises(ValueError, match=r"Inpatient_Claims_Sample_\*.csv or inpatient.parquet: \[missing_file\]"):
        read(source)
    (source / "inpatient.csv").write_text("DESYNPUF_ID,CLM_ID\nA1,11\n")
    with pytest.raises(ValueError, match=r"inpatient.csv: \[missing_column\] column segment, clm_admsn_dt"):
        read(source)
    for path in source.glob("*Beneficiary*"):
        path.unlink()
    with pytest.raises(ValueError, match=r"\[missing_file\]"):
        read(source)


@pytest.mark.real_data
def test_known_figures_of_the_real_files():
    if not REAL.is_dir():
        pytest.skip(f"NOT CHECKED: the real files are not at {REAL}")
    raw = {name: pl.read_parquet(REAL / f"{name}.parquet") for name in ("beneficiary", "inpatient")}
    raw = {name: frame.rename(str.lower) for name, frame in raw.items()}
    ids = raw["inpatient"]["subject_id"].unique().sort()[:4000]  # a shard
    raw = {
        "beneficiary": raw["beneficiary"].filter(pl.col("desynpuf_id").is_in(ids.implode())),
        "inpatient": raw["inpatient"].filter(pl.col("subject_id").is_in(ids.implode())),
    }
    built = assemble("desynpuf", DESYNPUF.build(raw, SourceOptions()))
    further = (raw["inpatient"]["segment"] == 2).sum()
    assert further > 0 and left(built.ledger)["further_segment"] == Counts(visits=further)
    assert set(left(built.ledger)) <= {"further_segment", "unreadable_code"}
    assert built.tables.visits.height == raw["inpatient"].height - further
    assert left(built.ledger).get("unreadable_code", Counts()).codes < 0.002 * built.ledger.came.codes
    assert built.tables.patients["sex"].null_count() == built.tables.patients["birth_date"].null_count() == 0


def test_years_that_are_covered_whole_are_follow_up(source):
    """By the year of the file's name; up to a death."""
    head = PEOPLE.strip() + ",BENE_HI_CVRAGE_TOT_MONS,BENE_HMO_CVRAGE_TOT_MONS\n"
    years = {
        "2008": "A1,19430101,,1,1,0,12,0\nB2,19500701,,2,5,0,12,12\n",
        "2009": "A1,19430101,,1,1,0,12,0\nB2,19500701,20091001,2,5,Y,10,0\n",
        "2010": "A1,19430101,,1,1,0,11,0\n",
    }
    for year, rows in years.items():
        (source / f"DE1_0_{year}_Beneficiary_Summary_File_Sample_1.csv").write_text(head + rows)
    for shards in (1, 5):
        tables, _ = read(source, shards=shards)
        assert sorted(tables.follow_up.rows()) == [
            ("A1", date(2008, 1, 1), date(2009, 12, 31)),
            ("B2", date(2009, 1, 1), date(2009, 10, 1)),
        ]


def test_a_source_that_does_not_say_who_was_covered_has_no_follow_up(source):
    assert read(source)[0].follow_up is None


def test_a_diagnosis_is_known_from_the_end_of_its_claim_on(source):
    tables, _ = read(source)
    times = dict(tables.diagnoses.select("visit_id", pl.col("time").cast(pl.Date)).rows())
    assert times == {"11": date(2008, 3, 11), "12": date(2008, 1, 6), "21": date(2009, 3, 3)}
