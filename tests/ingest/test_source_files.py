"""Files of a source: which file is which table, chunks of text files, and what is refused before any row is read."""

import csv
import gzip
import io
import sqlite3
import time
from datetime import date, datetime

import duckdb
import numpy as np
import polars as pl
import pytest

from medbert_jax.ingest import text_files
from medbert_jax.ingest.chunks import read_chunks
from medbert_jax.ingest.reader import (
    RawTable,
    Reader,
    count_unknown,
    counting_unreadable,
    day,
    flag,
    moment,
    named,
    number,
    text,
    whole,
)
from medbert_jax.ingest.source_files import FileFault, RawFile, SourceError, find_files

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


def test_folders_named_like_files_are_folders_of_parts(tmp_path):
    """As Spark writes them: df.write.parquet("visit.parquet")."""
    of_hosp = RawTable("patients", "subject_id", ("subject_id",), files=("hosp/patients.csv", "hosp/patients.parquet"))
    reader = Reader("made", (VISIT, of_hosp), None)
    names = ("visit.parquet/part-0.snappy.parquet", "VISIT.csv/part-1.csv", "hosp/patients.parquet/part-0.parquet")
    strangers = ("visit.parquet/_SUCCESS", "visit.old/part-0.parquet", "hosp/patients.old/part-0.parquet")
    for name in (*names, *strangers):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found, unused, faults = find_files(reader, tmp_path)
    assert {file.name for file in found} == set(names) and set(unused) == set(strangers) and faults == []


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
    monkeypatch.setattr(text_files, "BLOCK_BYTES", block)
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
        (b"person_id,start\n1,2\n1,2,3\n", "ragged_row"),
        (b"person_id,start\n1,\xe4\n", "not_utf8"),
        ("person_id,start\n1,2\n".encode("utf-16"), "not_utf8"),
        (b"person_id,start\n1,\x00\n", "unreadable_file"),
        (b"person_id,start\n1.23457E+11,2\n", "float_id"),
        (b"person_id,start\n1e+16,2\n", "float_id"),
        (b"person_id,start\r1,2\r", "unreadable_file"),
        (b'person_id,"start\n1,2\n', "unreadable_file"),
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
    numbers = pl.Series(["20100313.0", "2010031", "201003130", "20101313.0", "20100313.5"])
    assert day(numbers).to_list() == [date(2010, 3, 13), None, None, None, None]
    assert day(pl.Series([20100313.0, None, float("nan")])).to_list() == [date(2010, 3, 13), None, None]
    with counting_unreadable() as cells:
        sexes = named(pl.Series("sex", ["1", "2.0", "f", "9", "0", None]), {"1": "male", "2": "female"}, unknown=("0",))
        count_unknown("cells against each other", 2)
        count_unknown("cells against each other", 2)
    assert sexes.to_list() == ["male", "female", None, None, None, None]
    assert cells == {"sex": 2, "cells against each other": 4}
    assert whole(pl.Series(["1", "1.0", "1.5", "x", " 2 ", "1e3"])).to_list() == [1, 1, None, None, 2, 1000]
    assert number(pl.Series(["1.5", "nan", "inf", "-2"])).to_list() == [1.5, None, None, -2]
    assert flag(pl.Series(["Y", "no", "1", "0.0", "?", None])).to_list() == [True, False, True, False, None, None]
    assert text(pl.Series([1, None])).to_list() == ["1", None]
    assert moment(pl.Series(["2011-05-03 20:00:00-05", "2011-05-03T20:00:00.5+05", "2011-05"])).to_list() == [
        datetime(2011, 5, 3, 20), datetime(2011, 5, 3, 20, 0, 0, 500_000), None
    ]  # fmt: skip
    zoned = pl.Series([datetime(2011, 5, 3, 20)]).dt.replace_time_zone("America/New_York")
    assert moment(zoned).to_list() == [datetime(2011, 5, 3, 20)]
    assert moment(zoned.dt.convert_time_zone("UTC")).to_list() == [datetime(2011, 5, 4)]


HEADER = b"person_id,start,note\n"
ROWS = b"".join(b"%d,2000,E%d\n" % (row, row) for row in range(20))


def refusal(path, content: bytes, table=VISIT, rule="unreadable_file") -> str:
    path.write_bytes(content)
    with pytest.raises(FileFault) as refused:
        read(path, table)
    file, found, what = refused.value.fault
    assert (file, found) == (path.name, rule)
    return what


@pytest.mark.parametrize("block", [64, 2**25])
@pytest.mark.parametrize(
    ("content", "what"),
    [
        # A mark too many in two rows, nine rows or one apart, in the last column, in the first; lines of CR and LF.
        (ROWS.replace(b",E3\n", b',"E3\n').replace(b",E12\n", b',E12"\n'), "span whole rows"),
        (ROWS.replace(b",E3\n", b',"E3\n').replace(b",E4\n", b',E4"\n'), "span whole rows"),
        (ROWS.replace(b"\n3,", b'\n"3,').replace(b"\n12,", b'\n12",'), "span whole rows"),
        (ROWS.replace(b",E3\n", b',"E3\n').replace(b",E9\n", b',""\n').replace(b",E12\n", b',E12"\n'), "span whole"),
        (
            ROWS.replace(b",E3\n", b',"E3\n').replace(b",E12\n", b',E12"\n\n').replace(b"\n", b"\r\n"),
            "span whole rows",
        ),
        (ROWS.replace(b",E3\n", b',"E3\n').replace(b"12,2000", b'12,2000"'), "span whole rows"),
        (ROWS.replace(b",E3\n", b',"E3\n'), "a quotation mark that nothing closes"),
        (ROWS.replace(b",E3\n", b',6" nail\n').replace(b",E5\n", b',6" nail\n'), "within a cell"),
        (ROWS.replace(b",E3\n", b',"E3"x\n'), "within a cell"),
        (ROWS.replace(b",E3\n", b',"a "b" c"\n'), "within a cell"),
        (ROWS.replace(b",E3\n", b', "E3"\n'), "within a cell"),
        (ROWS.replace(b",E3\n", b',"E3"\r4,2000,E4\n'), "within a cell"),
    ],
)
def test_quotation_marks_that_swallow_rows(tmp_path, monkeypatch, block, content, what):
    monkeypatch.setattr(text_files, "BLOCK_BYTES", block)
    assert what in refusal(tmp_path / "visit.csv", HEADER + content)


@pytest.mark.parametrize("block", [64, 2**25])
@pytest.mark.parametrize("place", [0, 7, 19])
@pytest.mark.parametrize(("row", "fields"), [(b"5", 1), (b"5,2000", 2), (b"5,2000,E5,", 4), (b'5,2000,E5,"a\nb"', 4)])
@pytest.mark.parametrize("separator", [b",", b"\t"])
def test_rows_of_fewer_or_more_fields_wherever_they_stand(tmp_path, monkeypatch, block, place, row, fields, separator):
    monkeypatch.setattr(text_files, "BLOCK_BYTES", block)
    lines = ROWS.splitlines()
    lines[place] = row if separator == b"," else row.replace(b"\n", b"")
    content = (HEADER + b"\n".join(lines)).replace(b",", separator)  # the last row without a line end: a cut file
    assert refusal(tmp_path / "visit.csv", content, rule="ragged_row") == (
        f"rows must have the 3 fields of the header: got 1 other(s): line {place + 2} has {fields}"
    )


@pytest.mark.parametrize("block", [16, 2**25])
def test_blank_lines_are_no_rows_and_rows_of_empty_cells_are(tmp_path, monkeypatch, block):
    monkeypatch.setattr(text_files, "BLOCK_BYTES", block)
    path = tmp_path / "visit.csv"
    path.write_bytes(b"person_id,start\r\n\r\n  \r\n1,2000\r\n\n,\r\n \t \n2,2001\r\n\r\n   ")
    assert read(path).rows() == [("1", "2000", None), (None, None, None), ("2", "2001", None)]


@pytest.mark.parametrize("block", [300, 1000, 2**25])
def test_rows_are_those_of_the_standard_library(tmp_path, monkeypatch, block):
    monkeypatch.setattr(text_files, "BLOCK_BYTES", block)
    draw, path = np.random.default_rng(0), tmp_path / "visit.csv"
    cells = ["", "I10", 'a "quoted" word', "one, two, three", "two\nlines", '"', 'x\r\n"y", z', '""', "ä" * 30]
    rows = [(str(row), *(cells[place] for place in draw.integers(len(cells), size=2))) for row in range(300)]
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL):
        written = io.StringIO(newline="")
        csv.writer(written, quoting=quoting).writerows([("person_id", "start", "note"), *rows])
        path.write_bytes(written.getvalue().encode())
        assert read(path).rows() == [(row, a or None, b or None) for row, a, b in rows]


def test_rows_that_the_parser_loses_are_missed(tmp_path, monkeypatch):
    parse = pl.read_csv
    monkeypatch.setattr(pl, "read_csv", lambda *args, **kwargs: parse(*args, **kwargs).head(-1))
    assert refusal(tmp_path / "visit.csv", HEADER + b"\n" + ROWS) == "has 20 rows where 19 can be read"


def test_the_parity_of_quotation_marks_over_words_of_64_bytes():
    for size in (1, 63, 64, 65, 1000):
        mark = np.random.default_rng(size).random(size) < 0.2
        assert np.array_equal(text_files._inside(mark), np.cumsum(mark) % 2 == 1)


def test_a_stray_mark_is_found_within_one_cell_whatever_the_size_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "BLOCK_BYTES", 2**18)
    read_bytes = []
    pieces = text_files._pieces
    monkeypatch.setattr(text_files, "_pieces", lambda file: (read_bytes.append(len(p)) or p for p in pieces(file)))
    content = HEADER + b'0,2000,"E0\n' + ROWS * 40_000
    started = time.monotonic()
    assert "cell of more than 1,048,576 bytes" in refusal(tmp_path / "visit.csv", content)
    assert sum(read_bytes) < 2 * 2**20 < len(content) / 4
    assert time.monotonic() - started < 5
    long = b'0,2000,"' + b"x" * 2**20 + b'y"\n'
    assert "cell of more than 1,048,576 bytes" in refusal(tmp_path / "visit.csv", HEADER + long)
    (tmp_path / "visit.csv").write_bytes(HEADER + long.replace(b"x" * 100, b"", 1) + ROWS)
    assert len(read(tmp_path / "visit.csv")) == 21


def test_line_ends_of_carriage_returns_alone_and_headers_that_no_one_reads(tmp_path):
    path = tmp_path / "visit.csv"
    assert "carriage returns" in refusal(path, (HEADER + ROWS).replace(b"\n", b"\r"))
    assert "no header line" in refusal(path, b'person_id,"start"x\n1,2\n')
    assert "no header line" in refusal(path, b"person_id," + b"x" * 200_000 + b"\n1,2\n")
    assert "no header line" in refusal(path, b"x" * (2**20 + 1))
    assert "no header line" in refusal(path, b"  \n1,2\n")
    path.write_bytes(b"id,begin\n1,2\n")
    with pytest.raises(FileFault, match="missing_column"):
        read(path)


def test_ids_that_only_look_like_floats(tmp_path):
    path = tmp_path / "visit.csv"
    path.write_bytes(b"person_id,start\n12E5,1\n1e77,2\n1.2.0,3\nE11.0,4\n")
    assert len(read(path)) == 4


def test_databases_are_named_with_the_way_out(tmp_path):
    reader = Reader("omop", (VISIT,), None)
    with sqlite3.connect(tmp_path / "cdm.db") as database:
        database.execute("CREATE TABLE visit (person_id, start)")
    database.close()
    with duckdb.connect(tmp_path / "cdm.duckdb") as database:
        database.execute("CREATE TABLE visit (person_id INT)")
    for source, rules in (
        (tmp_path / "cdm.db", {"sqlite_file"}),
        (tmp_path / "cdm.duckdb", {"duckdb_file"}),
        (tmp_path, {"sqlite_file", "duckdb_file"}),
    ):
        faults = find_files(reader, source)[2]
        assert {rule for _, rule, _ in faults} == rules
        said = str(SourceError("omop", faults))
        assert "database" in said and "docs/export/duckdb.sql" in said
        assert ("duckdb -readonly FILE" in said) is ("duckdb_file" in rules)
    (tmp_path / "visit.csv").write_text("person_id,start\n1,2011-05-03\n")
    assert find_files(reader, tmp_path)[2] == []  # its tables are there, a database may lie beside them
