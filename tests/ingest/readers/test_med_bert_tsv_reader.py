import polars as pl
import pytest

from medbert_jax.attrition.ledger import Counts
from medbert_jax.ehr.tables import read_tables
from medbert_jax.ingest.ingest import ingest
from medbert_jax.ingest.readers.med_bert_tsv import MedBertOptions

HEADER = "patient_id\tvadate\tvddate\tdiag\tpoa\tdiagnosis_priority\tthird_party_ind"
# The layout of the example that the original project published, with its 6 in the column of poa.
PUBLISHED = """\
1	2014-03-01	2014-03-01	ICD9_150.6	6	1	0
1	2014-03-01	2014-03-01	ICD9_152.53	6	2	0
1	2015-11-27	2015-11-29	ICD10_I15.6	6	1	0
1	2015-11-27	2015-11-29	ICD10_C50	6	2	0
2	2012-03-17	2012-03-17	ICD9_150	6	1	0
2	2014-03-24	2014-03-24	ICD9_001.2	6	1	0
2	2014-03-26	2014-04-07	ICD9_157	6	1	1
"""


def read(tmp_path, rows=PUBLISHED, header=HEADER, name="data_file.tsv", **more):
    source = tmp_path / "source"
    source.mkdir(exist_ok=True)
    (source / name).write_text(f"{header}\n{rows}")
    ledger = ingest(source, tmp_path / "ehr", format="med-bert-tsv", workers=1, announce=lambda line: None, **more)
    return read_tables(tmp_path / "ehr"), ledger


def left(ledger) -> dict[str, Counts]:
    return {line.rule: line.left for line in ledger.lines if line.left != Counts()}


def test_the_published_example(tmp_path):
    tables, ledger = read(tmp_path)
    assert ledger.came == Counts(2, 4, 7) + Counts(0, 1, 0) == ledger.kept and left(ledger) == {}
    visits = tables.visits.sort("patient_id", "order")
    assert visits.select("patient_id", "order", "length_of_stay").rows() == [
        ("1", 1, 0), ("1", 2, 2), ("2", 1, 0), ("2", 2, 0), ("2", 3, 12),
    ]  # fmt: skip
    assert visits["visit_id"].n_unique() == 5
    codes = tables.diagnoses.sort("patient_id", "visit_id", "priority")
    assert codes.select("code_system", "code", "priority").rows()[:4] == [
        ("ICD9CM", "150.6", 1), ("ICD9CM", "152.53", 2), ("ICD10CM", "I15.6", 1), ("ICD10CM", "C50", 2),
    ]  # fmt: skip
    assert codes["present_on_admission"].null_count() == 7
    assert codes.filter(pl.col("captured_at_billing"))["code"].to_list() == ["157"]
    assert tables.source.has_dates and tables.source.age_precision == "unknown"


def test_columns_are_known_by_place_and_shards_change_nothing(tmp_path):
    one, _ = read(tmp_path)
    two, _ = read(tmp_path, header="a\tb\tc\td\te\tf\tg", shards=3)
    assert one.source.content_hash == two.source.content_hash
    swapped, _ = read(tmp_path, PUBLISHED.replace("\t6\t1\t0", "\t1\t6\t0"))
    assert swapped.source.content_hash != one.source.content_hash


def test_unlike_dates_that_cannot_be_read_are_not_one(tmp_path):
    days = ("05/06/2011", "06/06/2011", "", "05/06/2011", "20110605", "2011-06-05 10:00")
    rows = "".join(f"7\t2011-06-03\t{one}\tICD9_{150 + place}\t1\t1\t0\n" for place, one in enumerate(days))
    tables, ledger = read(tmp_path, rows)
    assert ledger.kept == Counts(1, 4, 6) and left(ledger) == {}
    together = tables.diagnoses.group_by("visit_id").agg(pl.col("code").sort())["code"].to_list()
    assert sorted(together) == [["150", "153"], ["151"], ["152"], ["154", "155"]]


def test_visit_ids_say_no_date(tmp_path):
    tables, _ = read(tmp_path)
    assert not tables.visits["visit_id"].str.contains("201").any()


@pytest.mark.parametrize(
    ("poa", "meaning"), [("Y", True), ("1", True), ("0", False), ("N", False), ("6", None), ("U", None), ("", None)]
)
def test_present_on_admission(tmp_path, poa, meaning):
    tables, _ = read(tmp_path, f"1\t2014-03-01\t2014-03-02\tICD9_150.6\t{poa}\t1\t1\n")
    assert tables.diagnoses.select("present_on_admission", "captured_at_billing").rows() == [(meaning, True)]


GOOD = "9\t2014-03-01\t2014-03-02\tICD9_428\t1\t1\t0\n"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("1\t2014-03-01\t2014-03-02\tI50.9\t1\t1\t0", {"unreadable_code": Counts(codes=1)}),
        ("1\t2014-03-01\t2014-03-02\tICD9_I50.9\t1\t1\t0", {"unreadable_code": Counts(codes=1)}),
        ("1\t2014-03-01\t2014-03-02\tICD9_\t1\t1\t0", {"missing_code": Counts(codes=1)}),
        ("1\t2014-03-01\t2014-03-02\t\t1\t1\t0", {"missing_code": Counts(codes=1)}),
        ("1\tsoon\t2014-03-02\tICD9_428\t1\t1\t0", {"no_admission": Counts(visits=1, codes=1)}),
        ("1\t\t2014-03-02\tICD9_428\t1\t1\t0", {"no_admission": Counts(visits=1, codes=1)}),
        ("1\t1800-03-01\t2014-03-02\tICD9_428\t1\t1\t0", {"implausible_time": Counts(visits=1, codes=1)}),
        ("1\t2014-03-01\t9999-03-02\tICD9_428\t1\t1\t0", {}),
        ("\t2014-03-01\t2014-03-02\tICD9_428\t1\t1\t0", {"null_patient_id": Counts(visits=1, codes=1)}),
        (GOOD.strip(), {"duplicate_code": Counts(codes=1)}),
        ("1\t2014-03-01\t\tICD9_428\t1\t99999999999\tx", {}),
        ("1\t2014-03-05\t2014-03-02\tICD9_428\t1\t1\t0", {}),
    ],
)
def test_bad_rows_are_counted(tmp_path, row, expected):
    tables, ledger = read(tmp_path, GOOD + row + "\n")
    assert left(ledger) == expected
    assert ledger.kept == Counts(tables.patients.height, tables.visits.height, tables.diagnoses.height)


def test_other_systems_keep_their_name(tmp_path):
    tables, _ = read(tmp_path, GOOD + "1\t2014-03-01\t2014-03-02\tICD10GM_I50.1\t1\t1\t0\n")
    assert set(tables.diagnoses.select("code_system", "code").rows()) == {("ICD9CM", "428"), ("ICD10GM", "I50.1")}


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"a\tb\tc\n1\t2\t3\n", "missing_column"),
        (HEADER.replace("\t", " ").encode() + b"\n", "missing_column"),
        (HEADER.replace("\t", ",").encode() + b"\n", "empty_table"),  # commas are seen
        (HEADER.encode() + b"\n", "empty_table"),
        (b"", "unreadable_file"),
        (HEADER.encode() + b"\n1.0\t2014-03-01\t2014-03-02\tICD9_428\t1\t1\t0\n", "float_id"),
        (HEADER.encode() + b"\n1\t2014-03-01\t2014-03-02\tICD9_\xff\t1\t1\t0\n", "not_utf8"),
    ],
)
def test_files_that_are_not_the_format_are_refused(tmp_path, content, rule):
    (tmp_path / "data_file.tsv").write_bytes(content)
    with pytest.raises(ValueError, match=rf"data_file.tsv: \[{rule}\]") as caught:
        ingest(tmp_path, tmp_path / "ehr", format="med-bert-tsv", workers=1, announce=lambda line: None)
    assert "2014-03" not in str(caught.value)


UNSAID = """\
1	2015-09-28	2015-09-30	V27.0	1	1	0
1	2015-09-28	2015-10-01	V27.0	1	1	0
1	2015-10-02		E849	1	1	0
1	2150-10-02	2150-10-03	V27.0	1	1	0
1	2016-01-01	2016-01-02	428.0	1	1	0
1	2014-01-01	2014-01-02	I50.9	1	1	0
1	2014-01-01	2014-01-02	ICD_E11.9	1	2	0
1	2014-01-01	2014-01-02	strange	1	3	0
1	2014-01-01	2014-01-02	ICD10GM_V27	1	4	0
"""


def test_codes_of_a_us_site_that_do_not_say_their_version(tmp_path):
    tables, ledger = read(tmp_path, UNSAID, options=MedBertOptions(us_icd=True))
    found = tables.diagnoses.join(tables.visits, on="visit_id").sort("admit_time", "discharge_time", "priority")
    assert found.select("code_system", "code").rows() == [
        ("ICD10CM", "I50.9"), ("ICD10CM", "E11.9"), ("ICD10GM", "V27"),
        ("ICD9CM", "V27.0"), ("ICD10CM", "V27.0"),  # by the day of discharge
        ("ICD10CM", "E84.9"), ("ICD9CM", "428.0"),
    ]  # fmt: skip
    assert left(ledger) == {"undecided_version": Counts(codes=1), "unreadable_code": Counts(codes=1)}
    assert any("2015-10-01" in line for line in tables.source.assumptions)


def test_a_version_is_not_guessed_unless_the_site_is_said_to_be_of_the_us(tmp_path):
    tables, ledger = read(tmp_path, UNSAID)
    assert set(tables.diagnoses.select("code_system", "code").rows()) == {("ICD", "E11.9"), ("ICD10GM", "V27")}
    assert left(ledger) == {"unreadable_code": Counts(codes=7)}
    assert not any("2015-10-01" in line for line in tables.source.assumptions)
