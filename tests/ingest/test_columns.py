"""Columns judged as columns: spellings of nothing, dates, separators, ids, numbers; what only all chunks show."""

import json
from datetime import date, datetime
from decimal import Decimal

import polars as pl
import pytest

from medbert_jax.ehr.tables import read_source, read_tables
from medbert_jax.ingest import chunks as chunked
from medbert_jax.ingest import columns, dates, text_files
from medbert_jax.ingest.chunks import read_chunks
from medbert_jax.ingest.columns import Judged
from medbert_jax.ingest.formats import get_reader
from medbert_jax.ingest.ingest import ingest
from medbert_jax.ingest.reader import RawTable, SourceOptions, counting_unreadable, day, number
from medbert_jax.ingest.source_files import FileFault, RawFile, SourceError

CONCEPT = """concept_id,concept_name,vocabulary_id,concept_class_id,concept_code
9001,Type 2 diabetes,ICD10CM,5-char billing code,E11.9
9002,"Hypertension, essential",ICD10CM,3-char billing code,I10
3004410,Hemoglobin A1c,LOINC,Lab Test,4548-4
1503297,metformin,RxNorm,Ingredient,6809
"""
PERSON = """person_id,gender_concept_id,year_of_birth,month_of_birth,day_of_birth
101,8507,1950,3,1
102,8532,1960,7,15
103,8507,1970,12,31
"""
VISIT = """visit_occurrence_id,person_id,visit_concept_id,visit_start_date,visit_end_date
1,101,9201,2011-05-03,2011-05-12
2,101,9202,2012-01-10,2012-01-10
3,102,9201,2013-02-01,2013-02-04
4,103,9203,2014-03-05,2014-03-05
"""
CONDITION = """person_id,visit_occurrence_id,condition_concept_id,condition_start_date,condition_source_concept_id
101,1,0,2011-05-03,9001
101,1,0,2011-05-04,9002
101,2,0,2012-01-10,9001
102,3,0,2013-02-01,9002
103,4,0,2014-03-05,9001
"""
DRUG = """person_id,visit_occurrence_id,drug_concept_id,drug_exposure_start_date
101,2,1503297,2012-01-10
"""
MEASUREMENT = """person_id,visit_occurrence_id,measurement_concept_id,measurement_date,value_as_number,unit_source_value
101,1,3004410,2011-05-04,7.2,%
102,3,3004410,2013-02-01,5.4,%
"""
TABLES = {
    "concept": CONCEPT,
    "person": PERSON,
    "visit_occurrence": VISIT,
    "condition_occurrence": CONDITION,
    "drug_exposure": DRUG,
    "measurement": MEASUREMENT,
}


def write(folder, **changed):
    """A source in OMOP's tables as text; `changed` are texts, or functions of them, by table."""
    folder.mkdir(exist_ok=True)
    for name, content in TABLES.items():
        change = changed.get(name, changed.get("each", content))
        text = change if isinstance(change, str) else change(content)
        (folder / f"{name}.csv").write_text(text, encoding="utf-8")
    return folder


def told(folder, *, format="omop", **options):
    """Tables, lines that were said, the ledger's record."""
    said, out = [], folder.with_name(f"{folder.name}-ehr")
    options = get_reader(format).options(**options)
    ingest(folder, out, format=format, workers=1, shards=2, options=options, announce=said.append)
    return read_tables(out), said, json.loads((out / "ledger.json").read_text())


def refusal(folder, **options) -> str:
    with pytest.raises(SourceError) as refused:
        told(folder, **options)
    assert not folder.with_name(f"{folder.name}-ehr").exists()
    return str(refused.value)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return told(write(tmp_path_factory.mktemp("sound") / "source"))[0]


def same(tables, others) -> bool:
    names = ("patients", "visits", "diagnoses", "medications", "measurements")
    return all(sorted(getattr(tables, n).rows(), key=str) == sorted(getattr(others, n).rows(), key=str) for n in names)


# Nothing


@pytest.mark.parametrize("spelling", ["NULL", r"\N", "NA", "#N/A", "None", "nan", "-", "--", ".", "(null)", " NULL "])
def test_nothing_is_no_patient_no_visit_and_no_unit_however_it_is_spelt(tmp_path, sound, spelling):
    tables, said, ledger = told(
        write(
            tmp_path / "source",
            person=PERSON + f"{spelling},8507,1950,1,1\n",
            visit_occurrence=VISIT + f"9,{spelling},9201,2011-01-01,2011-01-02\n",
            condition_occurrence=CONDITION.replace("101,1,0,2011-05-04", f"101,{spelling},0,2011-05-04"),
            measurement=MEASUREMENT.replace("7.2,%", f"7.2,{spelling}"),
        )
    )
    assert tables.patients.height == 3 and tables.diagnoses.height == 5
    assert same(
        tables,
        type(sound)(**vars(sound) | {"measurements": sound.measurements.with_columns(
            unit=pl.when(pl.col("patient_id") != "101").then("unit"))}),
    )  # fmt: skip
    written = spelling.strip()
    assert f"column unit_source_value of measurement: 1 cell {written!r} read as empty" in said
    assert ledger["read_as_empty"] == {
        "condition_occurrence.visit_occurrence_id": {written: 1},
        "measurement.unit_source_value": {written: 1},
        "person.person_id": {written: 1},
        "visit_occurrence.person_id": {written: 1},
    }


def frame_of(tmp_path, frame: pl.DataFrame, table: RawTable, **options):
    """A table as Parquet, read in chunks of two rows; what was seen."""
    path, judged = tmp_path / f"{table.name}.parquet", Judged()
    frame.write_parquet(path)
    read = read_chunks(RawFile(table, path, path.name), options=SourceOptions(**options), judged=judged)
    return pl.concat(list(read)), judged


def test_counts_add_up_over_chunks_types_and_lists(tmp_path, monkeypatch):
    monkeypatch.setattr(chunked, "CHUNK_ROWS", 2)
    table = RawTable("lab", "person", ("person", "unit", "value", "codes"), codes=("codes",))
    frame = pl.DataFrame(
        {
            "person": ["1", "NULL", " NULL ", "2", None],
            "unit": pl.Series(["mg", "NA", "-", "NA", ""], dtype=pl.Categorical),
            "value": [1.5, float("nan"), None, float("nan"), 2.0],
            "codes": [["I10", "NULL"], [], None, ["NA "], ["E11", "-"]],
        }
    )
    read, judged = frame_of(tmp_path, frame, table)
    assert read["person"].to_list() == ["1", None, None, "2", None]
    assert read["unit"].to_list() == ["mg", None, None, None, None]
    assert read["value"].to_list() == [1.5, None, None, None, 2.0]
    assert read["codes"].to_list() == [["I10", None], [], None, [None], ["E11", None]]
    assert columns.read_as_empty(judged) == {
        "lab.codes": {"-": 1, "NA": 1, "NULL": 1},
        "lab.person": {"NULL": 2},
        "lab.unit": {"-": 1, "NA": 2},
        "lab.value": {"NaN": 2},
    }


def test_names_may_be_words_and_the_spellings_are_an_option(tmp_path):
    table = RawTable("concept", "", ("id", "name", "unit"), names=("name",))
    frame = pl.DataFrame({"id": ["1", "2", "3"], "name": ["None", "NULL", "NA"], "unit": ["None", "?", "mg"]})
    for spellings, names, units in [
        (("default",), ["None", None, "NA"], [None, "?", "mg"]),
        (("default", "?"), ["None", None, "NA"], [None, None, "mg"]),
        (("?", "NA"), ["None", "NULL", None], ["None", None, "mg"]),
    ]:
        read, _ = frame_of(tmp_path, frame, table, null_spellings=spellings)
        assert (read["name"].to_list(), read["unit"].to_list()) == (names, units)


def test_what_is_no_spelling_of_nothing_stays(tmp_path):
    table = RawTable("rows", "person", ("person", "cell"))
    values = ["Na", "N", "0", "-1", "unknown", "E", "NA1", "n", "..", "null value"]
    read, judged = frame_of(tmp_path, pl.DataFrame({"person": ["1"] * len(values), "cell": values}), table)
    assert read["cell"].to_list() == values and not judged.empty


def test_a_row_of_dashes_under_the_header_is_no_row(tmp_path, sound):
    def ruled(text):
        header, _, rows = text.partition("\n")
        return f"{header}\n{','.join('-' * len(name) for name in header.split(','))}\n{rows}"

    tables, said, ledger = told(write(tmp_path / "source", each=ruled))
    assert same(tables, sound) and ledger["came"]["patients"] == 3
    assert "the row of dashes under the header of person is no row" in said and ledger["read_as_empty"] == {}


# Numbers


@pytest.mark.parametrize("dtype", [pl.Float32, pl.Float64, pl.Decimal(18, 6), pl.String])
def test_numbers_of_every_type_are_the_decimals_that_were_written(dtype):
    values = pl.Series(["5.7", "0.1", "1234.5", "-3", None]).cast(dtype)
    assert number(values).to_list() == [5.7, 0.1, 1234.5, -3.0, None]
    assert number(pl.Series([Decimal("5.7"), Decimal("126.4")])).to_list() == [5.7, 126.4]


def test_a_value_of_meds_is_at_least_what_it_is(tmp_path):
    events = [(7, datetime(2011, 5, 3), "ICD10CM/I10", None), (7, datetime(2011, 5, 3, 1), "LOINC/4548-4", 5.7)]
    frame = pl.DataFrame(
        events,
        schema={"subject_id": pl.Int64, "time": pl.Datetime("us"), "code": pl.String, "numeric_value": pl.Float32},
        orient="row",
    )
    folder = tmp_path / "source"
    (folder / "data").mkdir(parents=True)
    frame.write_parquet(folder / "data" / "0.parquet")
    tables, _, _ = told(folder, format="meds")
    assert tables.measurements["value"].to_list() == [5.7]


# Separators


@pytest.mark.parametrize("separator", [";", "|", "\t"])
def test_separators_are_seen_from_the_header(tmp_path, sound, separator):
    def separated(text):
        rows = text.replace('"Hypertension, essential"', "Hypertension& essential").replace(",", separator)
        return rows.replace("&", ",")

    tables, said, _ = told(write(tmp_path / "source", each=separated))
    assert same(tables, sound)
    name = columns.SEPARATORS[separator]
    assert f"columns between {name}s: {', '.join(sorted(TABLES))}" in said


def test_commas_in_a_tsv_and_no_separator_that_is_known(tmp_path):
    table = RawTable("visit", "person_id", ("person_id", "start"), separator="\t")
    path = tmp_path / "visit.tsv"
    path.write_text("person_id,start\n1,2000\n")
    assert pl.concat(list(read_chunks(RawFile(table, path, path.name)))).rows() == [("1", "2000")]
    path.write_text("person_id~start\n1~2000\n")
    with pytest.raises(FileFault, match="whichever of comma, semicolon, bar, tab separates"):
        list(read_chunks(RawFile(table, path, path.name)))


def test_a_decimal_comma_is_one_where_semicolons_separate(tmp_path):
    def german(text):
        return text.replace('"Hypertension, essential"', "Hypertension").replace(",", ";")

    rows = "101;1;3004410;2011-05-04;7,2;%\n102;3;3004410;2013-02-01;5.4;%\n103;4;3004410;2014-03-05;1.234,5;%\n"
    measurement = german(MEASUREMENT.splitlines()[0]) + "\n" + rows
    tables, said, ledger = told(write(tmp_path / "source", each=german, measurement=measurement))
    assert tables.measurements.sort("patient_id")["value"].to_list() == [7.2, 5.4, None]
    assert (
        "column value_as_number of measurement: 1 numbers with a decimal comma (5,7 is 5.7), beside 1 with a point"
        in said
    )
    assert ledger["unreadable_cells"] == {"value_as_number": 1}
    commas = MEASUREMENT.replace("7.2", '"7,2"')
    tables, _, ledger = told(write(tmp_path / "commas", measurement=commas))
    assert ledger["unreadable_cells"] == {"value_as_number": 1}
    assert tables.measurements.sort("patient_id")["value"].to_list() == [None, 5.4]


@pytest.mark.parametrize("block", [64, 2**25])
def test_ragged_rows_are_named_by_their_lines_and_counted(tmp_path, monkeypatch, block):
    monkeypatch.setattr(text_files, "BLOCK_BYTES", block)
    concept = CONCEPT.replace('"Hypertension, essential"', "Hypertension, essential").replace(
        "Type 2 diabetes", '"Type 2\ndiabetes"'
    )
    said = refusal(write(tmp_path / "source", concept=concept, person=PERSON.replace(",3,1\n", ",3\n")))
    assert "concept.csv: [ragged_row] rows must have the 5 fields of the header: got 1 other(s): line 4 has 6" in said
    assert "person.csv: [ragged_row] rows must have the 5 fields of the header: got 1 other(s): line 2 has 4" in said
    many = PERSON + "\n".join(f"{row},8507,1950,3" for row in range(200, 1300)) + "\n"
    said = refusal(write(tmp_path / "many", person=many))
    assert "got 1,100 other(s): line 5 has 4, line 6 has 4, line 7 has 4, line 8 has 4, line 9 has 4, …" in said


# Dates


def with_dates(form):
    """The tables with all dates in another form."""

    def change(text):
        days = set(pl.Series([text]).str.extract_all(r"\d{4}-\d{2}-\d{2}")[0])
        for one in days:
            text = text.replace(one, form(date.fromisoformat(one)))
        return text

    return change


FORMS = [
    ("%Y/%m/%d", "####/##/##", "%Y/%m/%d"),
    ("%d.%m.%Y", "##.##.####", "%d.%m.%Y"),
    ("%d-%b-%y", "##-aaa-##", "%d-%b-%y"),
    ("%m/%d/%y %H:%M", "##/##/## ##:##", "%m/%d/%y %H:%M, or %d/%m/%y %H:%M"),
]


@pytest.mark.parametrize(("form", "shape", "maybe"), FORMS, ids=[form for form, *_ in FORMS])
def test_dates_of_another_form_are_named_by_their_shape_and_read_by_an_option(tmp_path, sound, form, shape, maybe):
    source = write(tmp_path / "source", each=with_dates(lambda day: day.strftime(form)))
    said = refusal(source)
    for file, column, cells in (("visit_occurrence", "visit_end_date", 4), ("measurement", "measurement_date", 2)):
        assert (
            f"{file}.csv: [no_dates] column {column} has no date: {cells} of the shape {shape} (maybe {maybe})" in said
        )
    assert f"read are {dates.FORMS}" in said and "2011" not in said.replace(dates.FORMS, "")
    tables, _, _ = told(source, date_format=(form,))
    assert same(tables, sound)
    assumptions = read_source(tmp_path / "source-ehr").assumptions
    assert f"Dates are read as {form}, else as {dates.FORMS}." in assumptions


def test_day_numbers_of_a_spreadsheet(tmp_path, sound):
    def number_of(day):
        return str((day - date(1899, 12, 30)).days)

    source = write(tmp_path / "source", each=with_dates(number_of))
    assert "4 of the shape ##### (maybe excel)" in refusal(source)
    assert same(told(source, date_format=("excel",))[0], sound)
    table = RawTable("visit", "person", ("person", "start"), times=("start",))
    frame = pl.DataFrame({"person": ["1", "2", "3", "4"], "start": [40666.5868055556, 40666.0, 20110503.0, 7.0]})
    with pytest.raises(FileFault, match=r"start holds Float64 of the shape #####\.#"):
        frame_of(tmp_path, frame.head(2), table)
    read, _ = frame_of(tmp_path, frame, table, date_format=("excel",))
    assert read["start"].to_list()[:2] == ["2011-05-03 14:05:00", "2011-05-03 00:00:00"]
    assert day(read["start"]).to_list() == [date(2011, 5, 3)] * 3 + [None]


def test_forms_come_before_all_others_and_must_not_contradict_each_other(tmp_path):
    table = RawTable("visit", "person", ("person", "start"), times=("start",))
    frame = pl.DataFrame({"person": ["1", "2", "3"], "start": ["03052011", "20110503", "2011-05-03"]})
    read, _ = frame_of(tmp_path, frame, table, date_format=("%d%m%Y",))
    assert day(read["start"]).to_list() == [date(2011, 5, 3)] * 3
    slashes = pl.DataFrame({"person": ["1", "2"], "start": ["03/05/2011", "13/05/2011"]})
    with pytest.raises(FileFault, match="column start has 1 cells that two forms") as refused:
        frame_of(tmp_path, slashes, table, date_format=("%d/%m/%Y", "%m/%d/%Y"))
    assert refused.value.fault[1] == "two_dates"


@pytest.mark.parametrize("form", ["%d.%m", "%m/%Y", "%Q", "dd.mm.yyyy", "", "%H:%M"])
def test_a_form_that_says_no_day_is_refused(form):
    with pytest.raises(ValueError, match="date_format must be forms as"):
        SourceOptions(date_format=(form,))


def test_a_few_dates_that_are_none_are_counted_by_their_shape(tmp_path):
    visits = VISIT.replace("2014-03-05,2014-03-05", "2014-03-05,05.03.2014 <Anna>").replace(
        "2012-01-10\n", "10.01.2012\n"
    )
    _, said, ledger = told(write(tmp_path / "source", visit_occurrence=visits))
    assert ledger["unreadable_dates"] == {"visit_end_date": {"##.##.####": 1, "##.##.#### <aaaa>": 1}}
    (line,) = [line for line in said if line.startswith("no dates in")]
    assert line.startswith("no dates in visit_end_date: 1 of the shape ##.##.#### (maybe %d.%m.%Y), 1 of the shape")


@pytest.mark.parametrize(
    ("form", "written", "shape", "hint"),
    [
        ("%d/%m/%Y", "31/02/2014", "##/##/####, no such day", ""),  # not the hint of another form
        ("%d.%m.%Y", "31.04.2014", "##.##.####, no such day", ""),
        ("%m/%d/%Y", "25/03/2014", "##/##/####, day first", " (maybe %d/%m/%Y)"),
    ],
)
def test_what_is_no_date_in_the_form_that_was_given_is_told(tmp_path, form, written, shape, hint):
    visits = VISIT.replace("2014-03-05,2014-03-05", f"2014-03-05,{written}")
    _, said, ledger = told(write(tmp_path / "source", visit_occurrence=visits), date_format=(form,))
    assert ledger["unreadable_dates"] == {"visit_end_date": {shape: 1}}
    (line,) = [line for line in said if line.startswith("no dates in")]
    assert line.startswith(f"no dates in visit_end_date: 1 of the shape {shape}{hint}; read are")


def test_what_stands_first_in_some_dates_is_told_of_all_of_their_shape():
    found = dates.shapes(pl.Series(["05/03/2014", "05/03/2014", "25/03/2014"]))
    assert dates.told_shapes(found) == (
        "2 of the shape ##/##/#### (maybe %d/%m/%Y), 1 of the shape ##/##/####, day first"
    )
    assert dates.shapes(pl.Series(["2014-02-31", "2014-02-28", "31-MAI-2014"])) == {
        "####-##-##, no such day": 1, "####-##-##": 1, "##-aaa-####": 1,
    }  # fmt: skip


def test_a_column_is_without_dates_only_where_all_its_files_are(tmp_path, monkeypatch):
    """One chunk of ten, or one file of two, may well have a single date that is none."""
    source = write(tmp_path / "source")
    (source / "visit_occurrence.csv").unlink()
    (source / "visit_occurrence").mkdir()
    header, *rows = VISIT.splitlines()
    for part, its in enumerate((rows[:2], rows[2:3], [rows[3].replace("2014-03-05", "05.03.2014")])):
        (source / "visit_occurrence" / f"part-{part}.csv").write_text("\n".join([header, *its]) + "\n")
    tables, _, ledger = told(source)
    assert tables.visits.height == 3 and ledger["unreadable_cells"] == {"visit_end_date": 1, "visit_start_date": 1}
    monkeypatch.setattr(columns, "_SAMPLE", 1)
    late = VISIT.replace("2011-05-03,2011-05-12", "03.05.2011,12.05.2011")
    assert told(write(tmp_path / "late", visit_occurrence=late))[2]["unreadable_cells"]["visit_start_date"] == 1


# Ids


def test_ids_as_floats_are_read_where_every_value_of_a_column_is_whole(tmp_path, sound):
    def floating(text):
        return text.replace("\n101,", "\n101.0,").replace("\n102,", "\n102.0,").replace(",101,", ",101.0,")

    source = write(tmp_path / "source", person=floating, condition_occurrence=floating, visit_occurrence=floating)
    said = refusal(source)
    assert (
        "person.csv: [float_id] column person_id has ids written as floats; " in said and "--options.whole-ids" in said
    )
    assert same(told(source, whole_ids=True)[0], sound)
    part = write(tmp_path / "part", person=lambda text: floating(text).replace("103,", "103.5,"))
    assert "person.csv: [id_not_whole] 1 ids of patient are no whole numbers" in refusal(part, whole_ids=True)
    exponents = write(tmp_path / "exponents", person=PERSON.replace("103,", "1.03457E+11,"))
    assert "person_id has ids written as floats, not all of them whole and exact" in refusal(exponents, whole_ids=True)


@pytest.mark.parametrize(
    ("ids", "read"),
    [
        (pl.Series([1.0, 2.0, None]), ["1", "2", None]),
        (pl.Series([1.0, 2.0], dtype=pl.Float32), ["1", "2"]),
        (pl.Series([Decimal("1.00"), Decimal("20.00")]), ["1", "20"]),
        (pl.Series(["007", "7.0", "0", "-01.0"]), ["7", "7", "0", "-1"]),
        (pl.Series([1.0, 1.5]), None),
        (pl.Series([1.0, 2.0**53]), None),  # which is 2^53 + 1 as well
        (pl.Series([1.0, 2.0**24], dtype=pl.Float32), None),
        (pl.Series([Decimal("1.00"), Decimal("20.50")]), None),
    ],
)
def test_whole_ids_are_proven(tmp_path, ids, read):
    table, frame = RawTable("visit", "person", ("person",)), ids.alias("person").to_frame()
    if read is None:
        with pytest.raises(FileFault, match="float_id"):
            frame_of(tmp_path, frame, table, whole_ids=True)
    else:
        assert frame_of(tmp_path, frame, table, whole_ids=True)[0]["person"].to_list() == read


def zeros_in(*tables):
    """Patients' ids with a zero in front."""
    return {name: TABLES[name].replace("\n10", "\n010").replace(",10", ",010", 0) for name in tables}


def test_ids_of_two_tables_that_match_without_zeros_are_told(tmp_path, sound):
    source = write(tmp_path / "source", **zeros_in("condition_occurrence"))
    said = refusal(source)
    what = "column person_id: 0 % of its ids are those of person as written, 100 % without zeros in front"
    assert f"condition_occurrence.csv: [unlike_ids] {what}" in said and "--options.whole-ids" in said
    assert same(told(source, whole_ids=True)[0], sound)
    other = write(tmp_path / "other", **zeros_in("person"))
    assert refusal(other).count("[unlike_ids]") == 4
    alike = write(tmp_path / "alike", **zeros_in("person", "condition_occurrence", "drug_exposure", "measurement"),
                  visit_occurrence=VISIT.replace(",10", ",010"))  # fmt: skip
    assert told(alike)[0].patients["patient_id"].sort().to_list() == ["0101", "0102", "0103"]


def test_zeros_of_visits_and_a_few_ids_of_many(tmp_path):
    visits = VISIT.replace("\n", "\n000").removesuffix("000")
    said = refusal(write(tmp_path / "source", visit_occurrence=visits))
    assert "condition_occurrence.csv: [unlike_ids] column visit_occurrence_id: 0 % of its ids are those of" in said
    person = PERSON + "".join(f"{row},8507,1950,1,1\n" for row in range(1000, 1060))
    condition = CONDITION + "".join(f"{row},,0,2011-05-03,9001\n" for row in range(1000, 1060))
    few = write(tmp_path / "few", person=person, condition_occurrence=condition.replace("\n103,", "\n0103,"))
    _, said, _ = told(few)
    (line,) = [line for line in said if "zeros in front" in line]
    assert line.startswith("condition_occurrence, column person_id: 98 %") and "1 ids stay unlike" in line


def test_shapes_say_nothing_of_what_stands_there():
    with counting_unreadable() as cells:
        day(pl.Series("start", ["03.05.2011", "4.5.2011", "Ärztin Müller, geb. 1950 in Ulm", None, "2011-05-03"]))
    assert cells.shapes == {
        ("start", "##.##.####"): 1,
        ("start", "#.#.####"): 1,
        ("start", "aaaaaa aaaaaa, aaa. ####"): 1,
    }
