"""What follows from a whole source alone: its calendar, its losses, the days that stand for "unknown"."""

import json
import sys
from datetime import date, datetime, timedelta

import polars as pl
import pytest
from sources.made_sources import write_source

from medbert_jax import cli
from medbert_jax.ehr.tables import read_source, read_tables
from medbert_jax.ingest.ends import Calendar
from medbert_jax.ingest.ingest import ingest
from medbert_jax.ingest.losses import find_losses, read_losses
from medbert_jax.ingest.readers.omop_options import OmopOptions
from medbert_jax.ingest.stay_days import calendar_of, stay_days
from medbert_jax.quality.report import validate

TODAY = date(2024, 6, 1)


def write(folder, **tables):
    """OMOP tables of text: header and rows, as in a CSV file."""
    folder.mkdir()
    for name, lines in tables.items():
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def people(count):
    return ["person_id,gender_concept_id,year_of_birth", *(f"{n},8507,1950" for n in range(1, count + 1))]


def stays(*rows):
    head = "visit_occurrence_id,person_id,visit_concept_id,visit_start_date,visit_end_date"
    return [head, *(f"{n},{person},9201,{start},{end}" for n, (person, start, end) in enumerate(rows, 1))]


def conditions(*rows):
    head = "person_id,condition_concept_id,condition_start_date,visit_occurrence_id,condition_source_value"
    return [head, *(f"{person},0,{when},{visit},ICD10CM:{code}" for person, when, visit, code in rows)]


def read(source, out, shards=1, options=None):
    ingest(source, out, format="omop", shards=shards, workers=1, options=options, today=TODAY, announce=lambda _: None)
    return read_tables(out)


CUT = date(2023, 12, 31)
IN_HOUSE = [(n, CUT - timedelta(days=n), CUT) for n in range(1, 13)]
GONE = [(n, CUT - timedelta(days=100 + 9 * n), CUT - timedelta(days=90 + 9 * n)) for n in range(1, 13)]
FEW = [(13, CUT - timedelta(days=400), CUT - timedelta(days=390)), (14, CUT, CUT)]


def ends(tables):
    return dict(tables.visits.select("visit_id", "discharge_time").rows())


@pytest.mark.parametrize("cut", [CUT, CUT + timedelta(days=1)], ids=["the last day", "the day after"])
def test_the_day_of_the_extract_is_no_end(tmp_path, cut):
    """Whatever shard a stay is in: the day follows from all."""
    rows = [(person, start, cut) for person, start, _ in IN_HOUSE] + GONE + FEW
    codes = [(person, start, "", "I10") for person, start, _ in IN_HOUSE]
    source = write(tmp_path / "source", person=people(14), visit_occurrence=stays(*rows),
                   condition_occurrence=conditions(*codes))  # fmt: skip
    whole, parts = read(source, tmp_path / "one"), read(source, tmp_path / "more", shards=4)
    open_ = {name for name, end in ends(whole).items() if end is None}
    assert open_ == {str(n) for n in range(1, 13)}
    assert whole.source.content_hash == parts.source.content_hash and whole.diagnoses.height == 12
    assert json.loads((tmp_path / "more/ledger.json").read_bytes())["unreadable_cells"] == {
        "discharge_time that is no end": 12
    }


def test_a_busy_day_of_discharges_is_none(tmp_path):
    rows = [*IN_HOUSE[:9], *GONE, *FEW]  # nine on the last day are not many
    busy = [(n, CUT - timedelta(days=40), CUT - timedelta(days=30)) for n in range(1, 8)]
    for one in (rows, [*IN_HOUSE, *GONE, *FEW, *busy]):
        source = write(tmp_path / f"source{len(one)}", person=people(14), visit_occurrence=stays(*one),
                       condition_occurrence=conditions((1, CUT, "", "I10")))  # fmt: skip
        assert None not in ends(read(source, tmp_path / f"ehr{len(one)}")).values()


def test_tomorrow_is_no_end_and_yesterday_is_one(tmp_path):
    tomorrow, yesterday = TODAY + timedelta(days=1), TODAY - timedelta(days=1)
    rows = [
        (1, "2024-05-20", tomorrow),
        (2, "2024-05-20", yesterday),
        (3, "2024-05-20", TODAY),
        (4, "2019-01-01", "2024-06-02"),
    ]
    source = write(tmp_path / "source", person=people(4), visit_occurrence=stays(*rows),
                   condition_occurrence=conditions((1, "2024-05-20", 1, "I10")))  # fmt: skip
    assert [end is None for end in ends(read(source, tmp_path / "ehr")).values()] == [True, False, False, True]


def days_of(*rows):
    return stay_days(pl.DataFrame(rows, schema=["p", "a", "b"], orient="row"), "p", "a", "b")


def test_the_last_day_is_that_of_no_placeholder_and_of_no_slip():
    real = days_of(
        ("1", "2020-03-01", "2020-03-04"), ("2", "2021-03-01 10:00:00", "2099-12-31"), ("3", "1753-01-01", None)
    )
    later = days_of(("4", "2099-12-31", "2099-12-31"), ("5", "2033-01-01", None), ("6", "9999-12-31", "soon"))
    assert calendar_of([real, later, real], TODAY) == Calendar(TODAY, date(2021, 3, 1))
    shifted = days_of(*((str(n), f"21{n}-05-01", f"21{n}-05-02") for n in range(10, 20)))
    assert calendar_of([shifted], TODAY) == Calendar(TODAY, date(2119, 5, 1))
    assert calendar_of([], TODAY) == Calendar(TODAY)


UNKNOWN = "1970-01-01"
LOST_DAYS = {
    "person": people(3),
    "visit_occurrence": stays((1, UNKNOWN, UNKNOWN), (1, "2020-01-01", "2020-01-04"), (2, "2020-02-01", UNKNOWN),
                              (3, "2020-03-01", "2020-03-02")),
    "condition_occurrence": conditions((1, UNKNOWN, "1", "I50.9"), (1, "2020-01-01", 2, "I10"),
                                       (2, "2020-02-01", 3, "I10"), (3, UNKNOWN, "", "I10"),
                                       (3, "2020-03-01", 4, "I11.9")),
}  # fmt: skip


def test_a_day_that_stands_for_unknown_is_told_and_read_so_where_the_user_says_so(tmp_path):
    source = write(tmp_path / "source", **LOST_DAYS)
    taken = read(source, tmp_path / "taken")
    assert taken.visits.height == 4
    lines = [line for line in validate(tmp_path / "taken").lines if line.rule == "default_day"]
    assert [(line.rows, line.of, line.severity) for line in lines] == [(1, 3, "warning")]
    assert (
        UNKNOWN in lines[0].what and "33.3%" in lines[0].what and f"--options.unknown-days {UNKNOWN}" in lines[0].cure
    )
    known = read(source, tmp_path / "known", options=OmopOptions(unknown_days=f"{UNKNOWN},1900-01-01"))
    assert sorted(known.visits["visit_id"]) == ["2", "3", "4"] and ends(known)["3"] is None
    ledger = json.loads((tmp_path / "known/ledger.json").read_bytes())
    assert ledger["unreadable_cells"] == {"condition_start_date": 2, "visit_end_date": 2, "visit_start_date": 1}
    assert not [line for line in validate(tmp_path / "known").lines if line.rule == "default_day"]


def test_an_option_that_names_no_days_is_refused():
    for wrong in ("01.01.1970", "1970", "1970-01-01;1900-01-01"):
        with pytest.raises(ValueError, match="unknown_days must be days like 1970-01-01"):
            OmopOptions(unknown_days=wrong)


def command(monkeypatch, capsys, source, out, *more):
    argv = ["medbert", "ingest", str(source), str(out), "--format", "omop", "--workers", "1", *more]
    monkeypatch.setattr(sys, "argv", argv)
    try:
        cli.main()
        code = 0
    except SystemExit as end:
        code = end.code
    said = capsys.readouterr()
    return code, said.out, said.err


def test_what_was_lost_is_said_last_and_by_the_exit_code(tmp_path, monkeypatch, capsys):
    """Links that lead nowhere, and drugs without the table that names them."""
    rows = [(1, f"2021-01-0{n}", 900 + n, "I10") for n in range(1, 6)] + [(2, "2020-02-01", 2, "I10")]
    drugs = ["person_id,drug_concept_id,drug_exposure_start_date", *["1,1503297,2020-01-01"] * 7]
    source = write(tmp_path / "source", person=people(2), drug_exposure=drugs,
                   visit_occurrence=stays((1, "2020-01-01", "2020-01-04"), (2, "2020-02-01", "2020-02-03")),
                   condition_occurrence=conditions(*rows))  # fmt: skip
    code, out, err = command(monkeypatch, capsys, source, tmp_path / "ehr")
    assert code == 3 and err.count("\n") == 1
    assert "7 of 7 rows of medications (100.0%) left, most under missing_code (the table concept" in err
    assert (
        "5 of 6 rows of diagnoses (83.3%) left, most under unlinked_code (--options.unlinked visit_of_the_day)" in err
    )
    assert "--allow-loss" in err and read_losses(tmp_path / "ehr") in err
    # ... in the printed ledgers, of drugs like of diagnoses; the tables are there, that of drugs is none.
    assert [line.split() for line in out.splitlines() if line.startswith("missing_code")] == [["missing_code", "−7"]]
    assert read_tables(tmp_path / "ehr").medications is None and not (tmp_path / "ehr/medications").exists()
    assert not any(name.startswith("medications") for name in read_source(tmp_path / "ehr").known)
    assert validate(tmp_path / "ehr").failed is False
    assert command(monkeypatch, capsys, source, tmp_path / "ehr", "--allow-loss")[0] == 0
    code, _, err = command(monkeypatch, capsys, source, tmp_path / "ehr", "--options.unlinked", "visit_of_the_day")
    assert code == 3 and "diagnoses" not in err and read_tables(tmp_path / "ehr").diagnoses.height == 6


def test_what_leaves_by_design_or_is_little_is_no_loss():
    rows = {"diagnoses": 100, "visits": 40, "medications": 10}
    lost = {("diagnoses", "duplicate_code"): 60, ("diagnoses", "unlinked_code"): 5, ("visits", "after_death"): 30,
            ("medications", "missing_code"): 1}  # fmt: skip
    assert find_losses(rows, lost | {}, {}) == [
        {"table": "medications", "rule": "missing_code", "rows": 1, "of": 10, "remedy": "mend these rows in the source"}
    ]


def test_a_sound_source_ends_quietly(tmp_path, monkeypatch, capsys):
    source, _ = write_source("omop-csv", tmp_path / "source")
    code, _, err = command(monkeypatch, capsys, source, tmp_path / "ehr")
    assert code == 0 and not err and read_losses(tmp_path / "ehr") == ""


def test_the_time_of_a_death_is_its_own_where_it_has_a_clock(tmp_path):
    """As the account that is opened a minute after somebody died in hospital."""
    death = [
        "person_id,death_date,death_datetime",
        "1,2020-01-04,2020-01-04 09:00:00",
        "2,2020-02-03,2020-02-03 00:00:00",
    ]
    head = "visit_occurrence_id,person_id,visit_concept_id,visit_start_date,visit_start_datetime,visit_end_date"
    visits = [head, "1,1,9201,2020-01-01,2020-01-01 08:00:00,2020-01-04",
              "2,1,9201,2020-01-04,2020-01-04 09:01:00,2020-01-04",
              "3,2,9201,2020-02-03,2020-02-03 10:00:00,2020-02-03"]  # fmt: skip
    codes = conditions((1, "2020-01-01", 1, "I61.9"), (1, "2020-01-04", 2, "Z52.9"), (2, "2020-02-03", 3, "I10"))
    source = write(
        tmp_path / "source", person=people(2), visit_occurrence=visits, condition_occurrence=codes, death=death
    )
    tables = read(source, tmp_path / "ehr")
    assert sorted(tables.visits["visit_id"]) == ["1", "3"] and sorted(tables.diagnoses["code"]) == ["I10", "I61.9"]
    assert tables.visits.filter(pl.col("visit_id") == "3")["admit_time"].item() == datetime(2020, 2, 3, 10)
