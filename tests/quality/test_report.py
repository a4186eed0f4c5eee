import hashlib
import json
import shutil
from dataclasses import replace
from datetime import date, datetime, timedelta

import polars as pl
import pytest
from made_ehr import made_tables

from medbert_jax.ehr.schema import ROW_FAULTS, SCHEMAS, EhrSource, EhrTables, check_tables
from medbert_jax.ehr.tables import write_tables
from medbert_jax.quality.frames import count_faults
from medbert_jax.quality.report import validate
from medbert_jax.quality.rules import FILE_RULES, ROW_RULES, SEVERITIES

TODAY = date(2020, 6, 1)
ONLY = "shard-00000-of-00001.parquet"
PLANTED = set()  # (rule, table) that a test below has found


def frame(name, rows):
    """Rows of a table; what they do not say is null."""
    data = [{column: row.get(column) for column in SCHEMAS[name]} for row in rows]
    return pl.DataFrame(data, schema=SCHEMAS[name])


def at(day, hour=12):
    return datetime(2010, 1, 1, hour) + timedelta(days=day)


def clean():
    """Three patients, two visits each, without any fault and with everything known."""
    patients, visits, diagnoses, events = [], [], [], []
    for who in "abc":
        patients.append({"patient_id": who, "birth_date": date(1950, 1, 1), "sex": "female", "race": "Jade"})
        for order in (1, 2):
            keys, day = {"patient_id": who, "visit_id": f"{who}{order}"}, 100 * order
            visits.append({**keys, "order": order, "admit_time": at(day), "discharge_time": at(day + 3),
                           "length_of_stay": 3, "visit_type": "inpatient",
                            "discharge_disposition": "home"})  # fmt: skip
            for priority, (system, code) in enumerate([("ICD10CM", "E11.9"), ("ICD9CM", "428.0")], start=1):
                diagnoses.append({**keys, "code_system": system, "code": code, "present_on_admission": True,
                                  "captured_at_billing": False, "priority": priority, "time": at(day)})  # fmt: skip
            events.append({**keys, "time": at(day + 1), "code_system": "LOINC", "code": "4548-4", "value": 6.5,
                           "unit": "%", "ingredient": "metformin"})  # fmt: skip
    followed = [{"patient_id": who, "start": date(2010, 1, 1), "end": date(2011, 1, 1)} for who in "abc"]
    return {"patients": patients, "visits": visits, "diagnoses": diagnoses, "follow_up": followed} | {
        name: [dict(row) for row in events] for name in ("medications", "measurements", "procedures")
    }


def reseal(directory):
    """source.json as another program would have written it over the files that are there now."""
    path = directory / "source.json"
    record = json.loads(path.read_text())
    record["files"] = {
        file.relative_to(directory).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in directory.glob("**/*.parquet")
    }
    path.write_text(json.dumps(record))


def put(directory, name, table, file=ONLY):
    table.write_parquet(directory / name / file)
    reseal(directory)


def check(directory, **options):
    return validate(directory, today=TODAY, **options)


def found(report):
    lines = {(line.rule, line.table): line.rows for line in report.lines}
    PLANTED.update(lines)
    return lines


@pytest.fixture(scope="module")
def clean_ehr(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clean") / "ehr"
    tables = {name: frame(name, rows) for name, rows in clean().items()}
    write_tables(EhrTables(**tables, source=EhrSource("made", True, "day")), folder)
    return folder


@pytest.fixture
def ehr(tmp_path, clean_ehr):
    """The clean tables, of which the test may make what it likes."""
    return shutil.copytree(clean_ehr, tmp_path / "ehr")


def test_rules_are_told_apart():
    keys = [(rule.id, table) for rule in (*FILE_RULES, *ROW_RULES) for table in rule.tables]
    assert len(keys) == len(set(keys))
    assert len({id for id, _ in keys}) >= 80
    assert {rule.severity for rule in (*FILE_RULES, *ROW_RULES)} == set(SEVERITIES)


def test_nothing_is_found_where_nothing_is_wrong(ehr):
    report = check(ehr)
    assert (report.lines, report.not_run, report.failed) == ((), (), False)
    assert report.rows == {"patients": 3, "visits": 6, "diagnoses": 12, "follow_up": 3} | dict.fromkeys(
        ("medications", "measurements", "procedures"), 6
    )
    assert report.render().startswith("0 errors, 0 warnings, 0 notes by ")


@pytest.mark.parametrize("dates", [True, False])
def test_made_tables_have_notes_only(tmp_path, dates):
    write_tables(made_tables(patients=150, seed=2, dates=dates), tmp_path, shards=3)
    assert {line.severity for line in check(tmp_path).lines} == {"note"}


V0 = {"patient_id": "a", "visit_id": "a1"}
ICD = {**V0, "code_system": "ICD9CM", "code": "401.9", "present_on_admission": True, "priority": 3}
EVENTS = ("medications", "measurements", "procedures")
OUTSIDE = {("event_outside_visit", name): 1 for name in EVENTS} | {("event_outside_visit", "diagnoses"): 2}
OTHERS = {("unlisted_patient", name): {"diagnoses": 4, "follow_up": 1}.get(name, 2) for name in list(SCHEMAS)[1:]}
# (table, row changed (None: a new one), its values, everything that is then found)
ROWS = [
    ("patients", None, {"patient_id": None, "birth_date": date(1950, 1, 1), "sex": "male", "race": "Jade"},
     {("null_patient_id", "patients"): 1}),
    ("patients", None, {"patient_id": "a", "birth_date": date(1960, 1, 1), "sex": "male", "race": "Jade"},
     {("duplicate_patient", "patients"): 1}),
    ("patients", 0, {"patient_id": "12.0"}, OTHERS | {("float_patient_id", "patients"): 1,
     ("patient_without_visits", "patients"): 1, ("patient_without_codes", "patients"): 1, ("unknown_age",
      "visits"): 2}),
    ("patients", 0, {"patient_id": " a"}, OTHERS | {("blank_patient_id", "patients"): 1,
     ("patient_without_visits", "patients"): 1, ("patient_without_codes", "patients"): 1, ("unknown_age",
      "visits"): 2}),
    ("patients", None, {"patient_id": "d", "sex": "male", "race": "Jade"},
     {("patient_without_visits", "patients"): 1, ("patient_without_codes", "patients"): 1}),
    ("patients", 0, {"sex": "Female"}, {("sex_value", "patients"): 1}),
    ("patients", 0, {"sex": None, "race": None}, {("unknown_sex", "patients"): 1, ("unknown_race", "patients"): 1}),
    ("patients", 0, {"death_date": date(2015, 1, 1), "death_time": datetime(2015, 1, 2, 3)},
     {("death_time_against_date", "patients"): 1}),
    ("patients", 0, {"death_time": datetime(2015, 1, 2, 3)}, {("death_time_against_date", "patients"): 1}),
    ("diagnoses", 0, {"time": at(99, 23)}, {("event_outside_visit", "diagnoses"): 1}),
    ("diagnoses", 0, {"time": at(104, 0)}, {("event_outside_visit", "diagnoses"): 1}),
    ("follow_up", 0, {"end": date(2009, 12, 31)}, {("no_period", "follow_up"): 1}),
    ("follow_up", 1, {"start": None}, {("no_period", "follow_up"): 1}),
    ("patients", 0, {"race": "J\ufffdde"}, {("replacement_character", "patients"): 1}),
    ("patients", 0, {"race": "Jade "}, {("blank_text", "patients"): 1}),
    ("patients", 0, {"birth_date": date(1849, 12, 31)}, {("birth_before_1850", "patients"): 1, ("age_value",
     "visits"): 2}),
    ("patients", 0, {"birth_date": date(2020, 6, 2)}, {("birth_in_future", "patients"): 1, ("before_birth",
     "visits"): 2}
     | {("event_before_birth", name): 2 for name in EVENTS} | {("event_before_birth", "diagnoses"): 4}),
    ("patients", 0, {"death_date": date(2020, 6, 2)}, {("death_in_future", "patients"): 1}),
    ("patients", 0, {"death_date": date(2010, 7, 20)},  # the day of the second admission
     {("event_after_death", name): 1 for name in EVENTS}),
    ("patients", 0, {"death_date": date(2010, 7, 19)}, {("after_death", "visits"): 1}
     | {("event_after_death", name): 1 for name in EVENTS} | {("event_after_death", "diagnoses"): 2}),
    ("patients", 0, {"death_date": date(1899, 12, 31)}, {("implausible_date", "patients"): 1,
     ("death_before_birth", "patients"): 1, ("after_death", "visits"): 2} | {("event_after_death",
      n): 2 for n in EVENTS} | {("event_after_death", "diagnoses"): 4}),
    ("visits", 0, {"visit_id": None}, {("null_visit_id", "visits"): 1, ("unlinked_code", "diagnoses"): 2,
     ("visit_without_codes", "visits"): 1} | {("unlinked_event", name): 1 for name in EVENTS}),
    ("visits", 0, {"visit_id": "1.0"}, {("float_visit_id", "visits"): 1, ("unlinked_code", "diagnoses"): 2,
     ("visit_without_codes", "visits"): 1} | {("unlinked_event", name): 1 for name in EVENTS}),
    ("visits", 0, {"visit_id": "a1\t"}, {("blank_visit_id", "visits"): 1, ("unlinked_code", "diagnoses"): 2,
     ("visit_without_codes", "visits"): 1} | {("unlinked_event", name): 1 for name in EVENTS}),
    ("visits", 1, {"visit_id": "a1"}, {("duplicate_visit", "visits"): 1, ("unlinked_code", "diagnoses"): 2}
     | {("unlinked_event", name): 1 for name in EVENTS}),
    ("visits", 1, {"order": None}, {("null_order", "visits"): 1, ("order_against_time", "visits"): 1,
     ("overlapping_stays", "visits"): 1}),
    ("visits", 1, {"order": 3}, {("wrong_order", "visits"): 1}),
    ("visits", 1, {"admit_time": at(50), "discharge_time": at(53)}, {("order_against_time", "visits"): 1,
     ("overlapping_stays", "visits"): 1} | OUTSIDE),
    ("visits", 1, {"admit_time": at(102), "discharge_time": at(105)}, {("overlapping_stays", "visits"): 1}
     | OUTSIDE),
    ("visits", 1, {"admit_time": at(100), "discharge_time": at(103)}, {("overlapping_stays", "visits"): 1,
     ("same_times", "visits"): 1} | OUTSIDE),
    ("visits", 0, {"discharge_disposition": "Home"}, {("disposition_value", "visits"): 1}),
    ("visits", 0, {"discharge_disposition": "expired"}, {("visit_after_expired", "visits"): 1}),
    ("visits", 0, {"visit_type": "IP"}, {("visit_type_value", "visits"): 1}),
    ("visits", 0, {"admit_time": None}, {("no_admission", "visits"): 1}),
    ("visits", 0, {"admit_time": datetime(1800, 1, 1), "length_of_stay": None}, {("implausible_time", "visits"): 1,
     ("before_birth", "visits"): 1, ("unknown_stay", "visits"): 1, ("long_stay", "visits"): 1,
    }),
    ("visits", 1, {"discharge_time": datetime(9999, 1, 1)}, {("implausible_time", "visits"): 1,
     ("future_time", "visits"): 1, ("stay_against_dates", "visits"): 1}),
    ("visits", 1, {"discharge_time": at(203 + 1096), "length_of_stay": 1099}, {("long_stay", "visits"): 1}),
    ("visits", 0, {"discharge_time": at(98), "length_of_stay": -2}, {("discharge_before_admission", "visits"): 1,
     ("negative_stay", "visits"): 1} | OUTSIDE),
    ("visits", 0, {"length_of_stay": 5}, {("stay_against_dates", "visits"): 1}),
    ("visits", 0, {"age_days": -1, "age_precision_days": 30000}, {("age_value", "visits"): 1}),
    ("visits", 0, {"age_days": 20000, "age_precision_days": 1}, {("age_against_birth", "visits"): 1}),
    ("visits", 0, {"age_precision_days": 365}, {("age_precision_value", "visits"): 1}),
    ("visits", slice(0, 2), [{"age_days": 22100}, {"age_days": 22000}], {("age_falls", "visits"): 1}),
    ("visits", 0, {"visit_type": "in\ufffd"}, {("replacement_character", "visits"): 1, ("visit_type_value",
     "visits"): 1}),
    ("visits", None, {**V0, "visit_id": "a3", "order": 3, "admit_time": at(300)}, {("visit_without_codes", "visits"): 1,
     ("unknown_stay", "visits"): 1}),
    ("diagnoses", None, {**ICD, "patient_id": None}, {("null_patient_id", "diagnoses"): 1,
     ("unlisted_patient", "diagnoses"): 1, ("unlinked_code", "diagnoses"): 1}),
    ("diagnoses", None, {**ICD, "visit_id": None}, {("unlinked_code", "diagnoses"): 1}),
    ("diagnoses", None, {**ICD, "visit_id": "b1"}, {("unlinked_code", "diagnoses"): 1}),
    ("diagnoses", None, {**ICD, "code": None}, {("missing_code", "diagnoses"): 1}),
    ("diagnoses", None, {**ICD, "code_system": None}, {("missing_system", "diagnoses"): 1}),
    ("diagnoses", None, {**ICD, "code": " "}, {("blank_code", "diagnoses"): 1}),
    ("diagnoses", None, {**ICD, "code": "401.9\n"}, {("blank_code", "diagnoses"): 1}),
    ("diagnoses", None, {**ICD, "code_system": "ICD9/CM"}, {("system_name", "diagnoses"): 1}),
    ("diagnoses", None, {**ICD, "code": "E11.9"}, {("unreadable_code", "diagnoses"): 1}),
    ("diagnoses", None, {**ICD, "code": "4019"}, {("not_normal_code", "diagnoses"): 1}),
    ("diagnoses", None, {**ICD, "priority": 0}, {("priority_value", "diagnoses"): 1}),
    ("diagnoses", None, {**ICD, "priority": None, "present_on_admission": None},
     {("unknown_priority", "diagnoses"): 1, ("unknown_present_on_admission", "diagnoses"): 1}),
    ("diagnoses", None, {**ICD, "priority": 1}, {("several_principals", "diagnoses"): 3}),
    ("diagnoses", slice(0, 2), [{"code_system": "SOURCE"}] * 2, {("unmapped_codes", "diagnoses"): 2}),
    ("diagnoses", slice(0, 1), [{"code_system": "SOURCE"}], {}),  # under a tenth
    ("diagnoses", None, "again", {("duplicate_code", "diagnoses"): 1, ("several_principals", "diagnoses"): 3}),
    ("diagnoses", None, {**ICD, "code": "x\ufffd", "code_system": "X"}, {("replacement_character", "diagnoses"): 1,
     ("unknown_system", "diagnoses"): 1}),
    ("diagnoses", slice(0, 2), [{"code_system": "icd10cm"}, {"code_system": "ICD-9-CM"}],
     {("misspelt_system", "diagnoses"): 2}),
    ("diagnoses", None, {**ICD, "code": "496.0"}, {("unreadable_code", "diagnoses"): 1}),
    ("measurements", 0, {"value": float("nan")}, {("value_nan", "measurements"): 1}),
    ("measurements", 0, {"value": float("inf")}, {("value_infinite", "measurements"): 1}),
    ("measurements", 0, {"unit": None}, {("value_without_unit", "measurements"): 1}),
    ("measurements", 0, {"unit": ""}, {("blank_text", "measurements"): 1}),
    ("medications", 0, {"ingredient": "x "}, {("blank_text", "medications"): 1}),
]  # fmt: skip
for name in EVENTS:
    ROWS += [
        (name, 0, {"time": None}, {("no_time", name): 1}),
        (name, 0, {"visit_id": None}, {}),
        (name, 0, {"visit_id": "b2"}, {("unlinked_event", name): 1}),
        (name, 0, {"time": at(104)}, {("event_outside_visit", name): 1}),
        (name, 0, {"visit_id": None, "time": datetime(2020, 6, 2)}, {("future_event", name): 1}),
        (name, 0, {"time": datetime(1800, 1, 1)}, {("implausible_event_time", name): 1,
         ("event_before_birth", name): 1, ("event_outside_visit", name): 1}),
        (name, 0, {"code": "4\ufffd"}, {("replacement_character", name): 1}),
        (name, None, "again", {("duplicate_code", name): 1}),
        (name, 0, {"code": None}, {("missing_code", name): 1}),
        (name, 0, {"patient_id": "x"}, {("unlisted_patient", name): 1, ("unlinked_event", name): 1}),
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "row", "values", "expected"), ROWS)
def test_a_planted_fault_is_counted_and_nothing_else(ehr, name, row, values, expected):
    rows = clean()[name]
    if row is None:
        rows.append(dict(rows[0]) if values == "again" else values)
    else:
        place = row if isinstance(row, slice) else slice(row, row + 1)
        for one, change in zip(rows[place], values if isinstance(values, list) else [values], strict=True):
            one.update(change)
    first = [column for column in ("patient_id", "order") if column in SCHEMAS[name]]
    put(ehr, name, frame(name, rows).sort([*first, *(c for c in SCHEMAS[name] if c not in first)]))
    report = check(ehr)
    assert found(report) == expected
    assert report.not_run == ()
    severities = {(rule.id, table): rule.severity for rule in ROW_RULES for table in rule.tables}
    assert report.failed == any(severities[key] == "error" for key in expected)


def test_every_fault_of_the_files_in_one_run(tmp_path):
    made = made_tables(patients=40, seed=1)
    write_tables(made, tmp_path, shards=2)
    zero, one = (f"shard-0000{n}-of-00002.parquet" for n in range(2))
    visits = pl.read_parquet(tmp_path / "visits" / zero)
    wrong = visits.drop("visit_type").with_columns(pl.col("age_days").cast(pl.Int64), extra=1)
    put(tmp_path, "visits", wrong, zero)
    (tmp_path / "patients" / zero).rename(tmp_path / "patients/notes.txt")
    path = tmp_path / "visits" / one
    path.write_bytes(path.read_bytes()[:-40])
    path = tmp_path / "diagnoses" / one
    content = bytearray(path.read_bytes())
    content[50] ^= 1
    path.write_bytes(content)
    (tmp_path / "medications/shard-00000-of-00007.parquet").write_bytes(b"")
    (tmp_path / "procedures").mkdir()
    (tmp_path / "procedures" / zero).write_bytes(b"")
    (tmp_path / ".source.json.9.partial").write_bytes(b"")
    lines = found(report := check(tmp_path))
    assert {key: rows for key, rows in lines.items() if key[0] in {rule.id for rule in FILE_RULES}} == {
        ("missing_file", "patients"): 1,
        ("foreign_file", "patients"): 1,
        ("missing_column", "visits"): 1,
        ("foreign_column", "visits"): 1,
        ("wrong_type", "visits"): 1,
        ("truncated_file", "visits"): 1,
        ("changed_file", "diagnoses"): 1,
        ("other_shards", "medications"): 1,
        ("unlisted_file", "procedures"): 1,
        ("unfinished_file", "files"): 1,
    }
    assert report.failed and ("unlisted_patient", "visits", 2) in report.not_run
    assert "visit_type" in report.render() and json.loads(json.dumps(report.to_dict()))["failed"]
    assert "made-0" not in report.render() + json.dumps(report.to_dict())


def test_rows_in_another_order_or_shard_and_shifted_calendars(tmp_path):
    write_tables(made_tables(patients=40, seed=1), tmp_path, shards=2)
    files = [tmp_path / "patients" / f"shard-0000{n}-of-00002.parquet" for n in range(2)]
    zero, one = map(pl.read_parquet, files)
    put(tmp_path, "patients", pl.concat([one, zero[:1]])[::-1], files[1].name)
    lines = found(check(tmp_path))
    assert lines["patient_in_other_shard", "patients"] == 1
    assert lines["unsorted", "patients"] >= one.height - 1
    write_tables(made_tables(patients=40, seed=1), tmp_path)
    lines = found(validate(tmp_path, today=date(1990, 1, 1)))
    assert lines["shifted_calendar", "patients"] == 40 and ("future_time", "visits") not in lines


def test_source_json_missing_damaged_and_undated(ehr):
    record = json.loads((ehr / "source.json").read_text())
    (ehr / "source.json").write_text(json.dumps({**record, "has_dates": False}))
    assert found(check(ehr)) == {("undated_time", "visits"): 6}
    (ehr / "source.json").write_text("{")
    assert found(check(ehr)) == {("damaged_source", "files"): 1}
    (ehr / "source.json").unlink()
    assert found(check(ehr)) == {("missing_source", "files"): 1}
    with pytest.raises(FileNotFoundError, match="needs a folder of EHR tables"):
        validate(ehr / "nowhere")


def test_tables_that_were_never_written_as_ehr_tables_are_told_so(ehr, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    for name in ("patients", "visits"):
        pl.read_parquet(ehr / name / ONLY).write_parquet(own / f"{name}.parquet")
    (own / "notes.txt").write_text("")
    assert found(check(own)) == {("unwritten_table", "files"): 2}
    # Beside a set that lost its source.json they are what they were: files of no business there.
    (ehr / "source.json").unlink()
    (ehr / "visits.csv").write_text("")
    assert found(check(ehr)) == {("missing_source", "files"): 1, ("foreign_file", "files"): 1}


def test_empty_missing_and_unreadable_tables(ehr):
    (ehr / "procedures" / ONLY).write_bytes(b"no Parquet")
    reseal(ehr)
    put(ehr, "diagnoses", frame("diagnoses", []))
    lines = found(check(ehr))
    assert (lines["unreadable_file", "procedures"], lines["empty_table", "diagnoses"]) == (1, 1)
    (ehr / "visits" / ONLY).unlink()
    reseal(ehr)
    assert found(check(ehr))["missing_table", "visits"] == 1


def test_splits_of_the_source(ehr):
    pl.DataFrame({"patient_id": ["a", "a", "b"], "split": ["train", "test", "dev"]}).write_parquet(
        ehr / "splits.parquet"
    )
    reseal(ehr)
    assert found(check(ehr)) == {("split_value", "splits"): 1, ("duplicate_split", "splits"): 1}


def test_workers_find_the_same(tmp_path):
    write_tables(made_tables(patients=20, seed=1), tmp_path, shards=2)
    assert check(tmp_path, workers=2) == check(tmp_path)


def test_visits_that_two_patients_share(tmp_path, monkeypatch):
    """Counted over all shards; only in formats whose ids are unique."""
    rows = clean()
    for name in set(rows) - {"patients", "follow_up"}:
        rows[name] = [row | {"visit_id": row["visit_id"].replace("b1", "a1")} for row in rows[name]]
    for format, expected in (("omop", {("shared_visit_id", "visits"): 2}), ("meds", {})):
        tables = EhrTables(
            **{name: frame(name, of) for name, of in rows.items()}, source=EhrSource(format, True, "day")
        )
        for shards, at_once in ((1, 5_000_000), (3, 5_000_000), (3, 2)):
            monkeypatch.setattr("medbert_jax.ehr.shared_visits.IDS_AT_ONCE", at_once)
            write_tables(tables, tmp_path / "ehr", shards=shards)
            assert found(check(tmp_path / "ehr")) == expected


def test_names_of_files_and_columns_that_are_not_ours_are_masked(ehr):
    rows = frame("patients", clean()["patients"])
    put(ehr, "patients", rows.with_columns(pl.lit(1).alias("patient 77310002")))
    for name in ("77310002_2009-03-05.txt", "visits/77310002.parquet", "visits/77310002-shard-00000-of-00001.parquet"):
        (ehr / name).write_bytes(b"")
    report = check(ehr)
    said = report.render() + json.dumps(report.to_dict())
    assert found(report)["foreign_file", "visits"] == 2 and found(report)["foreign_file", "files"] == 1
    assert "patient ########" in said and "########_####-##-##.txt" in said
    assert "77310002" not in said and "2009-03-05" not in said


def test_what_is_not_written_is_an_error_of_validation_too():
    """One statement for both: a table with the fault in its first row is refused, and the fault is counted."""
    faulty = {
        "null_patient_id": pl.lit(None, pl.String).alias("patient_id"),
        "null_visit_id": pl.lit(None, pl.String).alias("visit_id"),
        "null_order": pl.lit(None, pl.Int32).alias("order"),
        "missing_code": pl.lit(None, pl.String).alias("code"),
        "missing_system": pl.lit(None, pl.String).alias("code_system"),
        "system_name": pl.lit("ICD 10").alias("code_system"),
        "sex_value": pl.lit("F").alias("sex"),
        "disposition_value": pl.lit("away").alias("discharge_disposition"),
        "undated_time": pl.lit(datetime(2011, 5, 3)).alias("admit_time"),
        "value_nan": pl.lit(float("nan")).alias("value"),
        "no_period": pl.lit(None, pl.Date).alias("end"),
    }
    rules = {rule.id: rule for rule in ROW_RULES}
    assert {one.rule for one in ROW_FAULTS} == set(faulty)
    for one in ROW_FAULTS:
        assert rules[one.rule].severity == "error"
        for table in one.tables:
            frames = {name: frame(name, rows) for name, rows in clean().items()}
            tables = EhrTables(**frames, source=EhrSource("made", one.rule != "undated_time", "day"))
            if one.rule == "undated_time":
                times = [pl.lit(None, pl.Datetime("us")).alias(name) for name in ("admit_time", "discharge_time")]
                tables = replace(tables, visits=tables.visits.with_columns(times))
            first, column = pl.int_range(pl.len()) == 0, faulty[one.rule]
            name = column.meta.output_name()
            wrong = getattr(tables, table).with_columns(pl.when(first).then(column).otherwise(name).alias(name))
            tables = replace(tables, **{table: wrong})
            assert f"{table}: {one.what} (1 rows)" in check_tables(tables)
            counts, _ = count_faults(tables.present(), today=date(2026, 1, 1), dated=tables.source.has_dates)
            assert counts[one.rule, table] == 1


def test_one_visit_under_two_rules_has_cures_that_agree():
    cures = {rule.id: rule.cure for rule in ROW_RULES if "visits" in rule.tables}
    assert cures["discharge_before_admission"].startswith("nothing:")
    assert cures["negative_stay"].startswith("nothing for visits under discharge_before_admission")
