"""Files of a source: which file is which table, chunks of text files, and what is refused before any row is read."""

import gzip

import polars as pl
import pytest

from medbert_jax.ehr import raw_files
from medbert_jax.ehr.raw import RawTable, Reader, day, flag, moment, number, text, whole
from medbert_jax.ehr.raw_files import FileFault, RawFile, SourceError, find_files, read_chunks

VISIT = RawTable("visit", "person_id", ("person_id", "start"), ("note",))


def read(path, table=VISIT) -> pl.DataFrame:
    return pl.concat(list(read_chunks(RawFile(table, path, path.name))))


def test_a_table_is_found_as_a_file_or_a_folder_of_parts_in_any_case(tmp_path):
    reader = Reader("made", (VISIT, RawTable("death", "person_id", ("person_id",), needed=False)), None)
    for name in (
        "Visit.CSV",
        "DEATH/part-0.parquet",
        "DEATH/part-1.parquet",
        "visitors.csv",
        ".hidden.csv",
        "readme.md",
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    found, unused, faults = find_files(reader, tmp_path)
    assert faults == []
    assert [(file.table.name, file.name) for file in found] == [
        ("visit", "Visit.CSV"),
        ("death", "DEATH/part-0.parquet"),
        ("death", "DEATH/part-1.parquet"),
    ]
    assert unused == ["readme.md", "visitors.csv"]
    (tmp_path / "Visit.CSV").unlink()
    faults = find_files(reader, tmp_path)[2]
    assert faults == [("visit.csv or .parquet", "missing_file", f"is not in {tmp_path.name}")]


def test_one_table_in_two_formats_is_refused(tmp_path):
    for name in ("visit.csv", "visit.csv.gz"):
        (tmp_path / name).write_bytes(b"")
    faults = find_files(Reader("made", (VISIT,), None), tmp_path)[2]
    assert faults == [("visit.csv", "two_files", "is there as visit.csv.gz too")]


def test_patterns_find_files_at_any_depth(tmp_path):
    table = RawTable("data", "subject_id", ("subject_id",), files=("data/**/*.parquet",))
    for name in ("data/0.parquet", "data/train/1.parquet", "other/2.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert [file.name for file in find_files(Reader("made", (table,), None), tmp_path)[0]] == [
        "data/0.parquet",
        "data/train/1.parquet",
    ]


@pytest.mark.parametrize("block", [16, 64, 10_000])
def test_text_is_read_in_blocks_whatever_is_in_it(tmp_path, monkeypatch, block):
    monkeypatch.setattr(raw_files, "BLOCK_BYTES", block)
    path = tmp_path / "visit.csv.gz"
    content = '\ufeffPerson_ID,x,START,note\r\n 1 ,a,2000,"two\nlines, one ""note"""\r\n\r\n2,b,, \r\n3,c,2002,ä'
    path.write_bytes(gzip.compress(content.encode()))
    expected = [("1", "2000", 'two\nlines, one "note"'), ("2", None, None), ("3", "2002", "ä")]
    assert read(path).rows() == expected


def test_tabs_under_the_ending_csv_and_quotation_marks_that_are_text(tmp_path):
    path = tmp_path / "concept.csv"
    path.write_text('concept_id\tconcept_name\n1\t6" nail\n2\t"quoted"\n')
    table = RawTable("concept", "", ("concept_id", "concept_name"))
    assert read(path, table).rows() == [("1", '6" nail'), ("2", '"quoted"')]


def test_columns_by_position(tmp_path):
    path = tmp_path / "any.tsv"
    path.write_text("a\tb\tc\n1\t2\t3\n")
    table = RawTable("rows", "person", ("person", "code"), separator="\t", by_position=True)
    assert read(path, table).rows() == [("1", "2")]
    path.write_text('"a"\t"b"\n"1"\t"2"\n')
    assert read(path, table).rows() == [("1", "2")]
    path.write_text("1\t2011-05-03\n")
    with pytest.raises(FileFault, match="data in place of a header line"):
        read(path, table)


def test_parquet_keeps_its_types_but_for_the_patient(tmp_path):
    path = tmp_path / "visit.parquet"
    pl.DataFrame({"PERSON_ID": [7, None], "start": [1.5, None], "more": [1, 2]}).write_parquet(path)
    frame = read(path)
    assert frame.rows() == [("7", 1.5, None), (None, None, None)]
    assert frame.schema["start"] == pl.Float64 and frame.schema["person_id"] == pl.String


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"", "unreadable_file"),
        (b"person_id,begin\n1,2\n", "missing_column"),
        (b"person_id,start,START\n1,2,3\n", "duplicate_column"),
        (b"person_id,start\n1.0,2\n", "float_id"),
        (b"person_id,start\n1,2\n1,2,3\n", "unreadable_file"),
        (b"person_id,start\n1,\xe4\n", "not_utf8"),
        ("person_id,start\n1,2\n".encode("utf-16"), "not_utf8"),
        (b"person_id,start\n1,\x00\n", "unreadable_file"),
    ],
)
def test_what_is_refused(tmp_path, content, rule):
    path = tmp_path / "visit.csv"
    path.write_bytes(content)
    with pytest.raises(FileFault) as refused:
        read(path)
    file, found, what = refused.value.fault
    assert (file, found) == ("visit.csv", rule)
    message = str(SourceError("made", [refused.value.fault]))
    assert f"visit.csv: [{rule}] {what}; " in message


def test_conversions_read_what_sources_write_and_nothing_else():
    written = pl.Series(
        ["2011-05-03", "20110503", "2011-05-03 14:05", "2011-05-03T14:05:06Z", "2011-05-03 14:05:06.5",
         "2011-05-03 14:05:06-03:00", "03.05.2011", "2011-13-01", "", None]
    )  # fmt: skip
    assert [str(value) for value in moment(written)] == [
        "2011-05-03 00:00:00", "2011-05-03 00:00:00", "2011-05-03 14:05:00", "2011-05-03 14:05:06",
        "2011-05-03 14:05:06.500000", "2011-05-03 14:05:06", "None", "None", "None", "None",
    ]  # fmt: skip
    assert day(written).drop_nulls().n_unique() == 1
    assert whole(pl.Series(["1", "1.0", "1.5", "x", " 2 ", "1e3"])).to_list() == [1, 1, None, None, 2, 1000]
    assert number(pl.Series(["1.5", "nan", "inf", "-2"])).to_list() == [1.5, None, None, -2]
    assert flag(pl.Series(["Y", "no", "1", "0.0", "?", None])).to_list() == [True, False, True, False, None, None]
    assert text(pl.Series([1, None])).to_list() == ["1", None]
