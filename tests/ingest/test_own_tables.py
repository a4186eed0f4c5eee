"""Tables of one's own, in memory and as files → EHR tables as clean as those of any source; the page that shows it."""

import json
import re
from datetime import datetime
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from medbert_jax import cli, write_ehr_tables
from medbert_jax.attrition.ledger import Counts
from medbert_jax.ehr.tables import read_source, read_tables
from medbert_jax.quality.report import validate

PAGE = Path(__file__).parents[2] / "docs" / "own_tables.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)


def quiet(line):
    """Say nothing."""


def given(**changes):
    """Two patients: the first with two visits, the later one first; ids are numbers."""
    tables = {
        "patients": {"patient_id": [7310, 7311], "sex": ["F", "male"], "birth_year": [1950, None]},
        "visits": {
            "visit_id": [12, 11, 21],
            "patient_id": [7310, 7310, 7311],
            "admit_time": ["2011-06-09 14:05", "2011-05-03", "20120101"],
            "discharge_time": ["2011-06-12 09:00", None, None],
            "visit_type": ["Inpatient", "outpatient", None],
        },
        "diagnoses": {
            "patient_id": [7310, 7310, 7310, 7311, 7311],
            "visit_id": [11, 12, 12, 21, 99],
            "code_system": ["icd9cm", "ICD9CM", "ICD10CM", "ICD9CM", "ICD9CM"],
            "code": ["4280", "0414", "e119", "428.0", "401.9"],
        },
    }
    for name, columns in changes.items():
        table = tables.setdefault(name, {})
        tables[name] = {column: values for column, values in (table | columns).items() if values is not None}
    return {name: pl.DataFrame(columns) for name, columns in tables.items()}


def write(folder, tables, **options):
    return write_ehr_tables(folder, **tables, **{"announce": quiet, **options})


def left_of(ledger) -> dict[str, Counts]:
    return {line.rule: line.left for line in ledger.lines if line.left != Counts()}


def test_own_tables_become_as_clean_as_ingested_ones(tmp_path):
    said = []
    ledger = write(tmp_path / "ehr", given(), assumptions=["Made up."], announce=said.append)
    tables = read_tables(tmp_path / "ehr")
    visits = tables.visits.select("patient_id", "visit_id", "order", "length_of_stay", "visit_type").rows()
    assert visits == [
        ("7310", "11", 1, None, "outpatient"),
        ("7310", "12", 2, 3, "inpatient"),
        ("7311", "21", 1, None, None),
    ]
    assert tables.diagnoses.select("visit_id", "code_system", "code").rows() == [
        ("11", "ICD9CM", "428.0"), ("12", "ICD10CM", "E11.9"), ("12", "ICD9CM", "041.4"), ("21", "ICD9CM", "428.0"),
    ]  # fmt: skip
    assert tables.patients.select("sex", "birth_date").rows() == [("female", None), ("male", None)]
    assert tables.visits["age_precision_days"].to_list() == [365, 365, None]
    assert left_of(ledger) == {"unlinked_code": Counts(codes=1)}
    assert tables.source.format == "own-tables" and "Made up." in tables.source.assumptions
    assert ledger.render() in said and "assumed: Made up." in said and said[-1].startswith("known: ")
    assert not validate(tmp_path / "ehr").failed
    assert [path.name for path in tmp_path.iterdir()] == ["ehr"]


class Stream:
    """A table of a library that nobody here knows."""

    def __init__(self, table: pa.Table):
        self.table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self.table.__arrow_c_stream__(requested_schema)


@pytest.mark.parametrize("kind", ["lazy", "arrow", "stream", "pandas", "text ids"])
def test_whatever_table_it_is_the_rows_are_the_same(tmp_path, kind):
    tables = given()
    plain = {"admit_time": pl.col("admit_time").str.to_datetime("%Y-%m-%d", strict=False)}
    assert tables["visits"].with_columns(**plain)["admit_time"].null_count() == 2  # three forms of text
    write(tmp_path / "plain", tables)
    if kind == "lazy":
        tables = {name: table.lazy() for name, table in tables.items()}
    elif kind == "arrow":
        tables = {name: table.to_arrow() for name, table in tables.items()}
    elif kind == "pandas":
        pandas = pytest.importorskip("pandas")
        tables = {name: pandas.DataFrame(table.to_dict(as_series=False)) for name, table in tables.items()}
        tables["patients"]["birth_year"] = tables["patients"]["birth_year"].astype("Int64")
        tables["visits"] = tables["visits"].sample(frac=1, random_state=1)  # its index is no column
    elif kind == "text ids":
        tables = {name: table.with_columns(pl.col("^.*_id$").cast(pl.String)) for name, table in tables.items()}
    else:
        tables = {name: Stream(table.to_arrow()) for name, table in tables.items()}
    write(tmp_path / "ehr", tables)
    assert read_source(tmp_path / "ehr").content_hash == read_source(tmp_path / "plain").content_hash


def test_shards_cut_the_same_rows(tmp_path):
    for shards in (1, 3):
        write(tmp_path / str(shards), given(), shards=shards)
    one, three = (read_source(tmp_path / str(shards)) for shards in (1, 3))
    assert (one.shards, three.shards, one.content_hash) == (1, 3, three.content_hash)


def test_events_and_stated_values(tmp_path):
    event = {"patient_id": [7310, 7310], "visit_id": [12, None], "time": [datetime(2011, 6, 9, 15), None]}
    tables = given(
        measurements={
            **event,
            "code_system": "LOINC",
            "code": ["4548-4", "2160-0"],
            "value": [6.5, None],
            "unit": ["%", None],
        },
        medications={**event, "code_system": "name", "code": ["metformin", "insulin"]},
        diagnoses={"priority": [1, 1, 2, 0, None], "present_on_admission": ["Y", None, "N", "1", None]},
    )
    write(tmp_path / "ehr", tables)
    got = read_tables(tmp_path / "ehr")
    assert got.procedures is None and got.medications.height == 2
    assert got.measurements.select("visit_id", "value").rows() == [(None, None), ("12", 6.5)]
    assert got.diagnoses["priority"].to_list() == [1, 2, 1, None]
    assert got.diagnoses["present_on_admission"].to_list() == [True, False, None, True]


def test_deaths_and_diagnoses_by_the_clock_and_follow_up(tmp_path):
    tables = given(
        patients={"death_time": ["2012-03-04 10:00", "2012-05-06 11:00"], "death_date": [None, "2012-05-07"]},
        diagnoses={"time": ["2011-05-04", None, None, "2012-01-01 09:30", None]},
        follow_up={
            "patient_id": [7310, 7310, 7311, 9],
            "start": ["2010-01-01", "2012-01-01", "2012-02-01", "2012-01-01"],
            "end": ["2010-12-31", "2012-12-31", "2012-01-01", "2012-12-31"],
        },
    )
    said = []
    write(tmp_path / "ehr", tables, announce=said.append)
    got = read_tables(tmp_path / "ehr")
    deaths = got.patients.select(pl.col("death_date", "death_time").cast(pl.String)).rows()
    assert deaths == [("2012-03-04", "2012-03-04 10:00:00.000000"), ("2012-05-07", None)]
    assert got.diagnoses["time"].drop_nulls().to_list() == [datetime(2011, 5, 4), datetime(2012, 1, 1, 9, 30)]
    assert got.follow_up is not None and got.follow_up["start"].dt.year().to_list() == [2010, 2012]
    counted = next(line for line in said if line.startswith("unknown now"))
    assert "death_time of another day than death_date 1" in counted
    assert not validate(tmp_path / "ehr").failed


def test_without_dates_only_a_known_order_counts(tmp_path):
    undated = {"admit_time": None, "discharge_time": None}
    visits = {
        "visit_id": [1, 2, 3, 4, 5, 6, 6], "patient_id": [7310, 7310, 7310, 7311, 7311, 7311, 7311],
        "order": [2014, 2015, 2014, 1, None, 3, 3], "visit_type": None,
    }  # fmt: skip
    diagnoses = {"patient_id": [7310, 7310, 7311, 7311, 7311], "visit_id": [1, 2, 4, 5, 6]}
    ledger = write(tmp_path / "ehr", given(visits={**visits, **undated}, diagnoses=diagnoses), has_dates=False)
    got = read_tables(tmp_path / "ehr")
    assert got.visits.select("visit_id", "order").rows() == [("2", 1), ("4", 1), ("6", 2)]
    assert left_of(ledger) == {"no_order": Counts(visits=3, codes=2), "duplicate_visit": Counts(visits=1)}
    assert not got.source.has_dates and not validate(tmp_path / "ehr").failed


@pytest.mark.parametrize("kind", ["text", "categories"])
def test_a_visit_type_is_one_of_the_list_in_any_case_or_unknown_and_counted(tmp_path, kind):
    tables, said = given(visits={"visit_type": ["IP", " EMERGENCY ", "Ambulatory"]}), []
    if kind == "categories":
        tables["visits"] = tables["visits"].with_columns(pl.col("visit_type").cast(pl.Categorical))
    write(tmp_path / "ehr", tables, announce=said.append)
    types = read_tables(tmp_path / "ehr").visits.select("visit_id", "visit_type").rows()
    assert types == [("11", "emergency"), ("12", None), ("21", None)]
    (line,) = [line for line in said if line.startswith("unknown now, because nothing could be made of")]
    assert line.endswith(": visit_type 2") and not any("Ambulatory" in line for line in said)
    assert not validate(tmp_path / "ehr").failed


def test_icd_without_a_version_is_told_by_shape_and_day(tmp_path):
    codes = {"code_system": "ICD", "code": ["428.0", "V270", "I509", "V270", "401.9"]}
    ledger = write(tmp_path / "ehr", given(diagnoses=codes), us_icd=True)
    got = read_tables(tmp_path / "ehr").diagnoses.select("code_system", "code").rows()
    assert sorted(got) == [("ICD10CM", "I50.9"), ("ICD9CM", "428.0"), ("ICD9CM", "V27.0"), ("ICD9CM", "V27.0")]
    assert left_of(ledger) == {"unlinked_code": Counts(codes=1)}


REFUSED = [
    ({"visits": {"admit_time": None}}, {}, "visits: column admit_time is missing"),
    ({"diagnoses": {"code_system": None}}, {}, "diagnoses: column code_system is missing"),
    ({"patients": {"birth_dat": [None, None]}}, {}, "column birth_dat has no meaning here (birth_date?)"),
    ({"patients": {"mrn 7310": [1, 2]}}, {}, "column mrn #### has no meaning here"),
    ({"patients": {"Sex": ["F", "M"]}}, {}, "patients: column sex is there more than once"),
    ({"visits": {"order": [1, 2, 3]}}, {"has_dates": False}, "visits: column admit_time is given although"),
    ({"diagnoses": {"time": [None] * 5}}, {"has_dates": False}, "diagnoses: column time is given although"),
    ({"visits": {"admit_time": None, "discharge_time": None}}, {"has_dates": False}, "visits: column order is missing"),
    ({"visits": {"visit_id": [12.0, 11.0, None]}}, {}, "visits.parquet: [float_id] column visit_id"),
    ({"diagnoses": {"code": [428.0, 41.4, 250.0, 428.0, 401.9]}}, {}, "diagnoses.parquet: [float_code] column code"),
    ({"visits": {"admit_time": [1.5, 2.5, 3.5]}}, {}, "visits.parquet: [wrong_type] column admit_time"),
    ({"diagnoses": {"code": ["", None, "", None, ""]}}, {}, "diagnoses: [empty_table] all 5 rows left"),
]


@pytest.mark.parametrize(("changes", "options", "said"), REFUSED, ids=[said for *_, said in REFUSED])
def test_what_is_wrong_is_said_and_the_earlier_tables_stay(tmp_path, changes, options, said):
    write(tmp_path / "ehr", given())
    before = read_source(tmp_path / "ehr")
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        write(tmp_path / "ehr", given(**changes), **options)
    assert "7310" not in str(caught.value)
    assert read_source(tmp_path / "ehr") == before
    assert [path.name for path in tmp_path.iterdir()] == ["ehr"]


def test_all_faults_are_in_one_message_and_no_cell_is(tmp_path):
    class Mixed:
        def __arrow_c_stream__(self, requested_schema=None):
            raise TypeError("could not convert 7310 to int")

    tables = given(visits={"admit_time": None}) | {"patients": Mixed(), "procedures": [1, 2], "diagnoses": None}
    with pytest.raises(ValueError, match=r"got 4 fault\(s\)") as caught:
        write(tmp_path / "ehr", tables)
    said = str(caught.value)
    for part in (
        "patients: a column holds values of unlike",
        "procedures: is list, no table",
        "diagnoses: is not given",
    ):
        assert part in said
    assert "7310" not in said and not (tmp_path / "ehr").exists()


@pytest.mark.parametrize("odd", [["7310", 7311], [7310, {"a": 1}]], ids=["text", "dict"])
def test_a_column_of_unlike_types_is_named(tmp_path, odd):
    pandas = pytest.importorskip("pandas")
    tables = {name: pandas.DataFrame(table.to_dict(as_series=False)) for name, table in given().items()}
    tables["patients"]["race"] = pandas.Series(odd, dtype=object)
    tables["patients"]["mrn 7310"] = pandas.Series(odd, dtype=object)
    with pytest.raises(ValueError, match=r"got 2 fault\(s\)") as caught:
        write(tmp_path / "ehr", tables)
    said = str(caught.value)
    assert "patients: column race holds values of unlike types" in said and "make it one type" in said
    assert "patients: column mrn #### holds" in said and "7310" not in said


# ── Files ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def files(folder, form):
    """The tables as a program of one's own writes them, in the types of the schema or as text."""
    folder.mkdir()
    for name, table in given().items():
        if form == "parquet":
            table.write_parquet(folder / f"{name}.parquet")
        elif form == "csv":
            table.rename(str.upper).write_csv(folder / f"{name}.csv")
        else:
            (folder / name).mkdir()
            for number in range(table.height):
                table[number : number + 1].write_parquet(folder / name / f"part-{number}.parquet")
    return folder


def run(capsys, *arguments) -> tuple[int, str]:
    """Exit code and what was printed."""
    capsys.readouterr()
    code = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["medbert", *map(str, arguments)])
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
    said = capsys.readouterr()
    return code, said.out + said.err


@pytest.mark.parametrize("form", ["parquet", "csv", "parts"])
def test_files_of_ones_own_are_told_the_way_and_it_leads_there(tmp_path, capsys, form):
    source = files(tmp_path / "own", form)
    code, said = run(capsys, "validate", source)
    assert code == 1 and said.count("error ") == 1 and "3   3  files" in said
    assert "medbert_jax.write_ehr_tables (docs/own_tables.md)" in said and "--format own-tables" in said
    assert "write the tables again" not in said
    code, said = run(capsys, "prepare", source, "made", "--data-dir", tmp_path / "data")
    assert code == 2 and "write_ehr_tables (docs/own_tables.md)" in said
    code, said = run(capsys, "ingest", source, tmp_path / "ehr", "--format", "own-tables", "--allow-loss")
    assert code == 0 and "known: " in said
    code, said = run(capsys, "validate", tmp_path / "ehr")
    assert code == 0 and "no error: one may go on with `medbert prepare`" in said
    write(tmp_path / "written", given())
    assert read_source(tmp_path / "ehr").content_hash == read_source(tmp_path / "written").content_hash


def test_warnings_are_no_reason_to_stop(tmp_path, capsys):
    write(tmp_path / "ehr", given(diagnoses={"code_system": ["Ours"] * 5}))
    code, said = run(capsys, "validate", tmp_path / "ehr")
    assert code == 0 and "unknown_system" in said and said.rstrip().endswith("one may go on with `medbert prepare`")
    (tmp_path / "ehr" / "source.json").write_text("{")
    code, said = run(capsys, "validate", tmp_path / "ehr")
    assert code == 1 and "one may go on" not in said


# ── The page ──────────────────────────────────────────────────────────────────────────────────────────────────────────

MIMIC = {
    "PATIENTS": """ROW_ID,SUBJECT_ID,GENDER,DOB,DOD,DOD_HOSP,DOD_SSN,EXPIRE_FLAG
1,10006,F,2094-03-05 00:00:00,2165-08-12 00:00:00,2165-08-12 00:00:00,,1
2,10011,M,1844-06-05 00:00:00,,,,0
""",
    "ADMISSIONS": """ROW_ID,SUBJECT_ID,HADM_ID,ADMITTIME,DISCHTIME,DEATHTIME,ADMISSION_TYPE,ADMISSION_LOCATION,\
DISCHARGE_LOCATION,INSURANCE,LANGUAGE,RELIGION,MARITAL_STATUS,ETHNICITY,EDREGTIME,EDOUTTIME,DIAGNOSIS,\
HOSPITAL_EXPIRE_FLAG,HAS_CHARTEVENTS_DATA
1,10006,142345,2164-10-23 21:09:00,2164-11-01 17:15:00,,EMERGENCY,EMERGENCY ROOM ADMIT,HOME HEALTH CARE,Medicare,,,\
SEPARATED,BLACK/AFRICAN AMERICAN,,,SEPSIS,0,1
2,10006,142346,2165-08-01 10:00:00,2165-08-12 12:00:00,2165-08-12 12:00:00,EMERGENCY,EMERGENCY ROOM ADMIT,\
DEAD/EXPIRED,Medicare,,,SEPARATED,BLACK/AFRICAN AMERICAN,,,"SEPSIS, AGAIN",1,1
3,10011,105331,2144-08-14 22:32:00,2144-08-28 18:59:00,,ELECTIVE,CLINIC REFERRAL,SNF,Private,,,SINGLE,WHITE,,,FALL,0,1
""",
    "DIAGNOSES_ICD": """ROW_ID,SUBJECT_ID,HADM_ID,SEQ_NUM,ICD9_CODE
1,10006,142345,1,99591
2,10006,142345,2,0414
3,10006,142346,1,V5861
4,10011,105331,1,E8859
5,10011,105331,2,
""",
    "PROCEDURES_ICD": "ROW_ID,SUBJECT_ID,HADM_ID,SEQ_NUM,ICD9_CODE\n1,10006,142345,1,3893\n",
}
EICU = {
    "patient": """patientunitstayid,patienthealthsystemstayid,gender,age,ethnicity,hospitalid,hospitaladmitoffset,\
hospitaldischargeyear,hospitaldischargeoffset,hospitaldischargestatus,unitvisitnumber,uniquepid
1001,501,Female,70,Caucasian,59,-60,2014,4260,Alive,1,002-1
1002,501,Female,70,Caucasian,59,-3000,2014,1320,Alive,2,002-1
1003,502,Female,71,Caucasian,59,-10,2015,1430,Expired,1,002-1
1004,503,Male,> 89,Hispanic,60,0,2014,2880,Alive,1,002-2
1005,504,Male,> 89,Hispanic,60,0,2015,2880,,1,002-2
1006,505,Male,> 89,Hispanic,60,0,2015,2880,Alive,1,002-2
""",
    "diagnosis": """diagnosisid,patientunitstayid,activeupondischarge,diagnosisoffset,diagnosisstring,icd9code,\
diagnosispriority
1,1001,True,10,pulmonary|respiratory failure|acute,"518.81, J96.00",Primary
2,1002,True,20,pulmonary|respiratory failure|acute,"518.81, J96.00",Primary
3,1001,False,30,a|b,,Other
4,1003,True,10,cardiovascular|chf,"428.0, I50.9",Major
5,1004,True,10,endocrine|diabetes,E11.9,Other
6,1005,True,10,infectious|sepsis,"038.9, A41.9",Primary
""",
}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The folder in which all code of the page was run, and the ledgers that it names."""
    folder, names, ledgers = tmp_path_factory.mktemp("page"), {}, []
    for name, source in (("mimic-iii", MIMIC), ("eicu", EICU)):
        (folder / name).mkdir()
        for table, content in source.items():
            (folder / name / f"{table}.csv").write_text(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for block in BLOCKS:
            exec(block, names)
            ledgers.append(names.get("ledger"))
    return folder, ledgers


def test_the_page_begins_with_the_least(page):
    folder, _ = page
    got = read_tables(folder / "EHR")
    assert got.diagnoses["code"].to_list() == ["428.0", "250.00", "041.4"]
    assert got.visits["order"].to_list() == [1, 2, 1]


def test_the_page_reads_mimic_iii(page):
    folder, (_, ledger, _) = page
    got = read_tables(folder / "EHR-mimic-iii")
    assert left_of(ledger) == {"missing_code": Counts(codes=1)}
    patients = got.patients.select("patient_id", "sex", pl.col("birth_date").cast(pl.String)).rows()
    assert patients == [("10006", "female", "2094-03-05"), ("10011", "male", None)]
    assert got.visits.select("visit_id", "order", "length_of_stay", "discharge_disposition").rows() == [
        ("142345", 1, 9, "home"), ("142346", 2, 11, "expired"), ("105331", 1, 14, None),
    ]  # fmt: skip
    assert sorted(got.diagnoses["code"]) == ["041.4", "995.91", "E885.9", "V58.61"]
    assert got.procedures.select("code_system", "code").rows() == [("ICD9Proc", "38.93")]
    assert not validate(folder / "EHR-mimic-iii").failed


def test_the_page_reads_eicu(page):
    folder, (_, _, ledger) = page
    got = read_tables(folder / "EHR-eicu")
    assert left_of(ledger) == {"no_order": Counts(visits=2, codes=1)}
    columns = ("patient_id", "visit_id", "order", "length_of_stay", "age_days", "discharge_disposition", "admit_time")
    assert got.visits.select(columns).rows() == [
        ("002-1", "501", 1, 3, 25750, None, None), ("002-1", "502", 2, 1, 26115, "expired", None),
        ("002-2", "503", 1, 2, None, None, None),
    ]  # fmt: skip
    assert got.diagnoses.select("visit_id", "code_system", "code", "priority").rows() == [
        ("501", "ICD9CM", "518.81", 1), ("502", "ICD9CM", "428.0", None), ("503", "ICD10CM", "E11.9", None),
    ]  # fmt: skip
    assert not got.source.has_dates and not validate(folder / "EHR-eicu").failed
    assert json.loads((folder / "EHR-eicu" / "ledger.json").read_text())["unreadable_cells"] == {}
