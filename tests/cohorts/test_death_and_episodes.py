"""Nothing after a death is judged, stays are judged by episode, and a label shows the event behind it."""

import dataclasses
from collections import Counter
from datetime import date, timedelta
from random import Random

import polars as pl
import pytest
from cohorts.independent.cohort_loops import In, Left, records_of
from cohorts.independent.comparison import ask_package, rows_in
from cohorts.independent.literal_patients import LAST_DAY, tables_of
from cohorts.independent.stays_loops import los_next, readmission_30d

from medbert_jax.chart_review.chosen_patients import chart_of
from medbert_jax.chart_review.page import review_page
from medbert_jax.chart_review.text import chart_text
from medbert_jax.cohorts.loading import SPECS_DIRECTORY, load_spec, parse_spec
from medbert_jax.cohorts.meds_labels import LabelFolder
from medbert_jax.cohorts.select import select_cohort
from medbert_jax.ehr.schema import EhrTables
from medbert_jax.ehr.tables import write_tables

LATE = "kind=inpatient 250.00 428.0 157.0 250.00"
"""What a source may say of somebody who is dead."""


def told(spec: str, text: str) -> tuple | str:
    """(label, index_order, input_until) of one patient, or the line under which he leaves."""
    outcome = ask_package(spec, tables_of({"one": text}))["one"]
    return outcome.rule if isinstance(outcome, Left) else (outcome.label, outcome.index_order, outcome[3])


FIRST = "2012-01-10T08:00/2012-01-14T10:00 kind=inpatient 250.00; "
EPISODES = {
    # transferred half an hour after the discharge, and never seen again
    "a transfer": (FIRST + "2012-01-14T10:30/2012-01-20T09:00 kind=inpatient 428.0", (0, 2, 2)),
    "12 hours": (FIRST + "2012-01-14T22:00/2012-01-20T09:00 kind=inpatient 428.0", (0, 2, 2)),
    "12 hours and a minute": (FIRST + "2012-01-14T22:01/2012-01-20T09:00 kind=inpatient 428.0", (1, 1, 1)),
    "a transfer, then back": (
        FIRST + "2012-01-14T10:30/2012-01-20T09:00 kind=inpatient 428.0; 2012-02-19T12:00 kind=inpatient 1", (1, 2, 2)
    ),
    "a transfer, then back on day 31": (
        FIRST + "2012-01-14T10:30/2012-01-20T09:00 kind=inpatient 428.0; 2012-02-20T12:00 kind=inpatient 1", (0, 2, 2)
    ),
    "a stay within a stay ends with the longer": (
        FIRST + "2012-01-13T00:01/2012-01-14T04:40 kind=inpatient 410.71; 2012-02-13T12:00 kind=inpatient 1", (1, 2, 2)
    ),
    "emergency and ward of one day, by days": (
        "2012-03-05T00:00/2012-03-05T00:00 kind=emergency 496; 2012-03-05T00:00/2012-03-09T00:00 kind=inpatient 1",
        (0, 2, 2),
    ),
    "the next day, by days": (
        "2012-03-05T00:00/2012-03-05T00:00 kind=emergency 496; 2012-03-06T00:00/2012-03-09T00:00 kind=inpatient 1",
        (0, 2, 2),
    ),
    "two days later, by days": (
        "2012-03-05T00:00/2012-03-05T00:00 kind=emergency 496; 2012-03-07T00:00/2012-03-09T00:00 kind=inpatient 1",
        (1, 1, 1),
    ),
    "emergency in the night, ward in the evening": (
        "2012-03-05T01:00/2012-03-05T02:00 kind=emergency 496; 2012-03-05T20:00/2012-03-09T09:00 kind=inpatient 1",
        (0, 2, 2),
    ),
    "ward in the night, emergency in the evening": (
        "2012-03-01T01:00/2012-03-05T02:00 kind=inpatient 496; 2012-03-05T20:00/2012-03-05T21:00 kind=emergency 1",
        (0, 1, 1),
    ),
    "an outpatient visit of the day is no part of it": (
        FIRST + "2012-01-14T11:00/2012-01-14T11:30 kind=outpatient 401.9; "
        "2012-01-14T12:00/2012-01-20T09:00 kind=inpatient 428.0", (0, 3, 3),
    ),
    "back through the emergency room on day 30": (
        FIRST + "2012-02-13T23:00/2012-02-14T01:00 kind=emergency 1; 2012-02-14T01:00 kind=inpatient 1", (1, 1, 1)
    ),
    "an emergency visit alone is no readmission": (
        FIRST + "2012-02-01T23:00/2012-02-02T01:00 kind=emergency 1", (0, 1, 1)
    ),
    "a chain of three": (
        FIRST + "2012-01-14T12:00/2012-01-15T12:00 kind=inpatient 1; "
        "2012-01-15T20:00/2012-01-18T09:00 kind=inpatient 1", (0, 3, 3),
    ),
    "died after the transfer": (
        FIRST + "2012-01-14T10:30/2012-01-20T09:00 kind=inpatient to=expired 428.0", "died_at_index"
    ),
    "the end after the transfer is unknown": (FIRST + "2012-01-14T10:30/? kind=inpatient 428.0", "index_undated"),
}  # fmt: skip


@pytest.mark.parametrize("name", EPISODES)
def test_readmission_counts_episodes(name):
    text, expected = EPISODES[name]
    assert told("readmission-30d", text) == expected
    assert told_by_loops(text) == expected


def told_by_loops(text: str):
    records = records_of({name: frame.to_dicts() for name, frame in tables_of({"one": text}).present().items()})
    outcome = readmission_30d(records["one"], date.fromisoformat(LAST_DAY))
    return outcome.rule if isinstance(outcome, Left) else (outcome.label, outcome.index_order, outcome[3])


DEATHS = {
    # the account is opened a minute after he died in hospital
    "an account after the death": (
        "died 2022-03-05; 2022-03-01T08:00/2022-03-05T10:00 kind=inpatient to=expired 431; "
        "2022-03-05T10:01/2022-03-05T20:00 kind=inpatient V59.9", "died_at_index"
    ),
    "by the clock, and the source says home": (
        "died 2012-03-05T09:00; 2012-03-01T08:00/2012-03-05T10:00 kind=inpatient to=home 431; "
        "2012-03-05T09:30/2012-03-05T20:00 kind=inpatient 1", "died_at_index"
    ),
    "by the day, which is that of the discharge": (
        "died 2012-03-05; 2012-03-01T08:00/2012-03-05T10:00 kind=inpatient to=home 431", "died_at_index"
    ),
    "by the clock, after the discharge": (
        "died 2012-03-05T10:01; 2012-03-01T08:00/2012-03-05T10:00 kind=inpatient to=home 431", (0, 1, 1)
    ),
    "midnight is no clock": (
        "died 2012-03-05T00:00; 2012-03-01T08:00/2012-03-05T10:00 kind=inpatient to=home 431", "died_at_index"
    ),
    "admitted after the death, whatever is said": (
        "died 2012-03-08; 2012-03-01T08:00/2012-03-05T10:00 kind=inpatient 431; "
        "2012-03-09T08:00/2012-03-10T10:00 kind=inpatient 1", (0, 1, 1)
    ),
    "admitted again on the day of the death": (
        "died 2012-03-08; 2012-03-01T08:00/2012-03-05T10:00 kind=inpatient 431; "
        "2012-03-08T08:00/2012-03-08T10:00 kind=inpatient to=expired 1", (1, 1, 1)
    ),
    "dead before everything": (
        "died 2011-03-08; 2012-03-01T08:00/2012-03-05T10:00 kind=inpatient 431", "died_before_first_visit"
    ),
    "dead before everything, by the clock alone": (
        "died 2012-03-01T07:59; 2012-03-01T08:00/2012-03-05T10:00 kind=inpatient 431", "died_before_first_visit"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DEATHS)
def test_who_is_dead_is_not_readmitted(name):
    text, expected = DEATHS[name]
    assert told("readmission-30d", text) == expected
    assert told_by_loops(text) == expected


WELL = "born 1940-06-15; 2010-01-01 kind=inpatient 250.00; 2010-02-01 kind=inpatient 250.00; rx 2010-01-01 insulin; "
WELL += "2011-02-01 kind=inpatient 401.9; "


@pytest.mark.parametrize("spec", sorted(path.stem for path in SPECS_DIRECTORY.glob("*.yaml")))
@pytest.mark.parametrize("died", ["2011-03-01", "2011-02-28T12:00"])
def test_what_comes_after_the_death_changes_nothing(spec, died):
    """But for those who leave by it: in `dhf` controls, and elsewhere those with the outcome's codes after it alone."""
    late = f"2011-03-02T09:00/2011-03-04T10:00 {LATE}; rx 2011-03-02 furosemide; "
    people = {
        "with": f"died {died}; {WELL}{late}",
        "other": f"died {died}; {WELL}2011-03-02T09:00/2011-03-04T10:00 kind=inpatient 401.1; ",
        "without": f"died {died}; {WELL}",
    }
    tables = tables_of(people)
    frame, ledger = select_cohort(tables, load_spec(spec))
    after = next(line.left for line in ledger.lines if line.rule == "after_death")
    assert (after.patients, after.visits, after.codes) == (0, 2, 5)
    rows = {row.pop("patient_id"): row for row in frame.to_dicts()}
    if spec in ("dhf", "hf-later", "paca"):
        assert "with" not in rows and rows["without"]["label"] == 0
    else:
        assert rows.get("with") == rows.get("without")
    if spec == "dhf":
        assert "other" not in rows
    else:
        assert rows.get("other") == rows.get("without")


def test_codes_after_the_death_alone_make_neither_case_nor_control():
    text = "born 1940-06-15; died 2010-06-01; 2010-01-01 401.9; 2010-02-01 401.9; "
    assert told("paca", text + "2010-06-02 401.9") == (0, 2, 1)
    assert told("paca", text + "2010-06-02 157.0") == "outcome_after_death"
    assert told("paca", text + "2010-03-01 157.0; 2010-06-02 157.0") == (1, 3, 2)


def test_an_order_that_is_not_that_of_time_reads_nothing_of_the_dead():
    text = "born 1940-06-15; died 2010-06-01; 2010-01-01 401.9; 2010-06-02 401.9; 2010-03-01 401.9"
    assert told("paca", text) == (0, 3, 1)


def test_a_label_after_the_death_is_none(tmp_path):
    labels = pl.DataFrame(
        [("a", date(2010, 3, 1), True), ("b", date(2010, 6, 2), False)],
        schema=("subject_id", "prediction_time", "boolean_value"), orient="row",
    ).with_columns(pl.col("prediction_time").cast(pl.Datetime("us")))  # fmt: skip
    labels.write_parquet(tmp_path / "labels.parquet")
    text = "died 2010-06-01; 2010-01-01 401.9; 2010-02-01 401.9"
    frame, ledger = select_cohort(tables_of({"a": text, "b": text}), LabelFolder.find(tmp_path))
    assert frame["patient_id"].to_list() == ["a"]
    assert {line.rule: line.left.patients for line in ledger.lines if line.left.patients} == {
        "predicted_after_death": 1
    }


def test_the_length_of_a_stay_is_that_of_its_episode():
    before = "2011-01-01T08:00/2011-01-02T08:00 kind=inpatient 250.00; "
    moved = "2012-01-01T08:00/2012-01-05T08:00 kind=inpatient 1; 2012-01-05T09:00/2012-01-{} kind=inpatient 1"
    assert told("los-next", before + moved.format("08T10:00")) == (0, 2, 1)
    assert told("los-next", before + moved.format("09T10:00")) == (1, 2, 1)
    spec = load_spec("los-next").to_dict()
    del spec["episodes"]
    tables = with_lengths(tables_of({"one": before + moved.format("09T10:00")}))
    frame, _ = select_cohort(tables, parse_spec(spec, source="test"))
    assert frame.select("label", "index_order", "input_until").row(0) == (0, 3, 2)


def with_lengths(tables: EhrTables) -> EhrTables:
    """The tables with length_of_stay as readers write it."""
    stay = (pl.col("discharge_time").dt.date() - pl.col("admit_time").dt.date()).dt.total_days().cast(pl.Int32)
    visits = tables.visits.with_columns(length_of_stay=stay)
    return dataclasses.replace(tables, visits=visits)


def test_the_index_that_joins_stays_is_marked():
    tables = tables_of({"joined": EPISODES["a transfer"][0], "alone": FIRST})
    frame, _ = select_cohort(tables, load_spec("readmission-30d"))
    assert dict(frame.select("patient_id", "flag_joined_stays").iter_rows()) == {"alone": False, "joined": True}


TIMES = ("label", "competing_death", "event_day", "death_day", "censored_day")
STAY = "2012-01-10T08:00/2012-01-14T10:00 kind=inpatient 250.00; "
AGAIN = "2012-02-{}T10:00/2012-02-15T10:00 kind={} 1; "
FIRST_TO_COME = {
    "nothing": (STAY, (0, False, None, None, None)),
    "back on day 30": (STAY + AGAIN.format(13, "inpatient"), (1, False, 30, None, None)),
    "back on day 31": (STAY + AGAIN.format(14, "inpatient"), (0, False, None, None, None)),
    "the day on which the episode began": (
        STAY + "2012-02-13T23:00/2012-02-14T01:00 kind=emergency 1; 2012-02-14T01:00 kind=inpatient 1",
        (1, False, 30, None, None),
    ),
    "dead on day 30": ("died 2012-02-13; " + STAY, (0, True, None, 30, None)),
    "dead on day 31": ("died 2012-02-14; " + STAY, (0, False, None, None, None)),
    "back, and dead of that day": (
        "died 2012-02-13; " + STAY + AGAIN.format(13, "inpatient"), (1, False, 30, None, None)
    ),
    "followed to the end": ("followed 2011-01-01 2012-02-13; " + STAY, (0, False, None, None, None)),
    "followed to the day before it": ("followed 2011-01-01 2012-02-12; " + STAY, (-1, False, None, None, 29)),
    "back on the last day that is followed": (
        "followed 2011-01-01 2012-02-03; " + STAY + AGAIN.format("03", "inpatient"), (1, False, 20, None, None)
    ),
    "back when nobody follows him": (
        "followed 2011-01-01 2012-02-02; " + STAY + AGAIN.format("03", "inpatient"), (-1, False, None, None, 19)
    ),
    "dead on the last day that is followed": (
        "died 2012-02-03; followed 2011-01-01 2012-02-03; " + STAY, (0, True, None, 20, None)
    ),
    "not followed at the discharge": (
        "followed 2011-01-01 2012-01-13; " + STAY + AGAIN.format("03", "inpatient"), (-1, False, None, None, 0)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FIRST_TO_COME)
def test_the_days_to_what_came_first_stand_beside_a_readmission(name):
    text, expected = FIRST_TO_COME[name]
    tables = tables_of({"one": text})
    (row,) = select_cohort(tables, load_spec("readmission-30d"))[0].to_dicts()
    assert tuple(row[column] for column in TIMES) == expected
    records = records_of({name: frame.to_dicts() for name, frame in tables.present().items()})
    outcome = readmission_30d(records["one"], date.fromisoformat(LAST_DAY))
    assert tuple(getattr(outcome, column) for column in TIMES) == expected


@pytest.mark.parametrize(
    ("stated", "text", "expected"),
    [
        (True, STAY, (1, False, None, None, None)),
        (True, STAY + AGAIN.format("03", "inpatient"), (1, False, 20, None, None)),
        (True, "died 2012-02-01; " + STAY, (1, False, None, None, None)),
        (False, STAY + AGAIN.format("03", "inpatient"), (0, False, None, None, None)),
        (False, "died 2012-02-01; " + STAY, (0, True, None, 18, None)),
        (False, "followed 2011-01-01 2012-01-20; " + STAY, (0, False, None, None, None)),
        (True, "followed 2011-01-01 2012-01-20; " + STAY, (1, False, None, None, None)),
    ],
)
def test_what_the_source_states_is_believed_whatever_the_days_say(stated, text, expected):
    tables = tables_of({"one": text})
    tables = dataclasses.replace(tables, visits=tables.visits.with_columns(readmitted_30d=pl.lit(stated)))
    (row,) = select_cohort(tables, load_spec("readmission-30d"))[0].to_dicts()
    assert tuple(row[column] for column in TIMES) == expected


def test_where_the_source_ends_within_the_days_nobody_is_censored_and_all_leave_alike():
    back, followed = STAY + AGAIN.format("03", "inpatient"), "followed 2011-01-01 2012-01-31; " + STAY
    people = {"nothing": STAY, "back": back, "dead": "died 2012-02-01; " + STAY, "leaves": followed}
    tables = tables_of(people, last_day="2012-02-12")
    frame, ledger = select_cohort(tables, load_spec("readmission-30d"))
    assert frame.is_empty()
    assert {line.rule: line.left.patients for line in ledger.lines if line.left.patients} == {"outcome_unknown": 4}
    assert select_cohort(tables_of(people, last_day="2012-02-13"), load_spec("readmission-30d"))[0].height == 4


def messy_stays(how_many: int, seed: int, *, followed: bool = False) -> dict[str, str]:
    """Texts of patients whose stays lie on and beside every boundary of episodes and of death."""
    chance, people = Random(seed), {}
    for number in range(how_many):
        at, lines, midnights = date(2010, 1, 1) + timedelta(days=chance.randrange(3500)), [], chance.random() < 0.4
        for _ in range(chance.choice([0, 1, 2, 2, 3, 3, 4, 5])):
            days = chance.choice([0, 0, 1, 3, 8])
            clocks = ["00:00" if midnights or chance.random() < 0.1 else chance.choice(CLOCKS) for _ in range(2)]
            begin, end = sorted(
                f"{at + timedelta(days=more)}T{clock}" for more, clock in zip((0, days), clocks, strict=True)
            )
            end = "?" if chance.random() < 0.06 else end
            kind = chance.choice(["inpatient", "inpatient", "emergency", "outpatient"])
            to = chance.choice(["home"] * 8 + ["expired", "hospice"])
            lines.append(f"{begin}/{end} kind={kind} to={to}{' 401.9' if chance.random() < 0.8 else ''}")
            at += timedelta(days=days + chance.choice([-2, -1, 0, 0, 0, 1, 1, 2, 10, 29, 30, 31]))
        if chance.random() < 0.4:
            died = at + timedelta(days=chance.choice([-40, -9, -1, 0, 1]))
            lines.append(f"died {died}{chance.choice(['', '', 'T00:00', 'T10:00', 'T22:00'])}")
        if followed and chance.random() < 0.95:
            lines.append(f"followed 2009-06-01 {at + timedelta(days=chance.choice([-60, -30, -9, -1, 0, 1, 29, 90]))}")
        people[f"stays {number}"] = "\n".join(lines)
    return people


CLOCKS = ["00:01", "08:00", "10:00", "12:00", "20:00", "22:00", "23:59"]


@pytest.mark.parametrize(
    ("spec", "followed"), [("readmission-30d", False), ("readmission-30d", True), ("los-next", False)]
)
def test_loops_agree_on_messy_stays(spec, followed):
    tables = with_lengths(tables_of(messy_stays(4_000, seed=3, followed=followed)))
    lengths = dict(tables.visits.select(pl.format("{}/{}", "patient_id", "visit_id"), "length_of_stay").iter_rows())
    records = records_of({name: frame.to_dicts() for name, frame in tables.present().items()})
    outcomes = {}
    for name, patient in records.items():
        if spec == "los-next":
            own = {visit.visit_id: lengths[f"{name}/{visit.visit_id}"] for visit in patient.visits}
            outcomes[name] = los_next(patient, own)
        else:
            outcomes[name] = readmission_30d(patient, date.fromisoformat(LAST_DAY))
    frame, ledger = select_cohort(tables, load_spec(spec))
    assert rows_in(frame, spec, tables) == {name: one for name, one in outcomes.items() if isinstance(one, In)}
    by_rule = Counter(one.rule for one in outcomes.values() if isinstance(one, Left))
    assert by_rule == {line.rule: line.left.patients for line in ledger.lines if line.left.patients}
    labels = Counter(one.label for one in outcomes.values() if isinstance(one, In))
    assert min(labels[0], labels[1], len(by_rule)) >= 5 and labels[-1] >= 20 * followed
    assert sum(frame["flag_joined_stays"]) > 100


SHOWN = {
    "case": ("readmission-30d", EPISODES["a transfer, then back"][0], ["encounter 3  inpatient", "day 36"]),
    "control": ("readmission-30d", FIRST, ["no admission (inpatient) within 30 days of the discharge, until day 34"]),
    "dead": (
        "readmission-30d", "died 2012-01-20; " + FIRST, ["until day 34; died first, on day 10"],
    ),
    "codes": ("paca", "born 1940-01-01; 2010-01-01 401.9; 2010-02-01 157.0", ["day 0  ICD9CM/157.0"]),
    "none": ("paca", "born 1940-01-01; 2010-01-01 401.9; 2010-02-01 1", ["no encounter with a code of the outcome"]),
}  # fmt: skip


@pytest.mark.parametrize("name", SHOWN)
def test_a_label_shows_what_it_rests_on(name, tmp_path):
    cohort, text, words = SHOWN[name]
    spec = load_spec(cohort)
    write_tables(tables_of({"one": text, "later": "2013-01-01 401.9"}), tmp_path / "ehr")  # the source goes on
    chart = chart_of(tmp_path / "ehr", spec, "one")
    said = chart_text(chart, spec).split("rests on: ")[1].split("\nsex unknown")[0]
    page = review_page([chart], spec)
    assert all(word in said for word in words), said
    shown = page.split("Rests on: ")[1].split("<svg")[0]
    assert all(word.split("  ")[0] in shown for word in words), shown


def test_episodes_go_with_an_index_of_everyone():
    spec = load_spec("paca").to_dict()
    spec["episodes"] = {"description": "-", "tag": "ours"}
    with pytest.raises(ValueError, match=r"episodes: goes with index\.everyone"):
        parse_spec(spec, source="test")
    spec = load_spec("readmission-30d").to_dict()
    spec["episodes"]["types"] = []
    with pytest.raises(ValueError, match=r"episodes\.types: empty; name at least one or leave the key out"):
        parse_spec(spec, source="test")
