"""The interpreter of cohort specs on literal patients: every boundary, the leaks, and ledgers that add up."""

import dataclasses
from datetime import date, datetime, timedelta

import polars as pl
import pytest
from made_ehr import made_tables

from medbert_jax.cohorts.leakage import check_no_leak
from medbert_jax.cohorts.loading import load_spec, parse_spec
from medbert_jax.cohorts.select import count_flagged, select_cohort
from medbert_jax.ehr.known import input_diagnoses, input_visits
from medbert_jax.ehr.schema import SCHEMAS, EhrSource, EhrTables, check_tables


def visit(codes="", stay=3, to="home", again=None, admit=None, discharge=None, kind="inpatient"):
    """One encounter: codes apart by blanks (ICD-9-CM, or "ICD10CM/…"); admit and discharge in ISO form."""
    return {
        "codes": [code if "/" in code else f"ICD9CM/{code}" for code in codes.split()],
        "length_of_stay": stay,
        "discharge_disposition": to,
        "readmitted_30d": again,
        "admit_time": datetime.fromisoformat(admit) if admit else None,
        "discharge_time": datetime.fromisoformat(discharge) if discharge else None,
        "visit_type": kind,
    }


def tables_of(people: dict[str, list[dict]], dates=False) -> EhrTables:
    """EHR tables of hand-drawn patients, each a list of visits in order."""
    drawn = [
        {"patient_id": name, "visit_id": f"{name}{order}", "order": order, **drawn}
        for name, visits in people.items()
        for order, drawn in enumerate(visits, 1)
    ]
    coded = [
        {"patient_id": v["patient_id"], "visit_id": v["visit_id"], "code_system": s, "code": c}
        for v in drawn
        for s, c in (code.split("/") for code in v["codes"])
    ]
    rows = {"patients": [{"patient_id": name} for name in people], "visits": drawn, "diagnoses": coded}
    frames = {
        name: pl.DataFrame(
            {column: [row.get(column) for row in rows[name]] for column in SCHEMAS[name]},
            schema=SCHEMAS[name],
        )
        for name in rows
    }
    return EhrTables(**frames, source=EhrSource("drawn", has_dates=dates, age_precision="none"))


def fates(people, spec, dates=False) -> dict:
    """For every patient alone: (label, index_order, input_until), or the rule under which he left."""
    found = {}
    for name, visits in people.items():
        tables = tables_of({name: visits}, dates)
        frame, ledger = select_cohort(tables, spec)
        if frame.height:
            found[name] = frame.select("label", "index_order", "input_until").row(0)
            assert not any(line.left.patients for line in ledger.lines)
        else:
            (found[name],) = (line.rule for line in ledger.lines if line.left.patients)
        assert (ledger.kept.patients, ledger.came.patients) == (frame.height, 1)
    # Together they fare as alone, and the shards' ledgers add up to the ledger of all.
    tables = tables_of(people, dates)
    assert [fault for fault in check_tables(tables) if "empty" not in fault] == []
    frame, ledger = select_cohort(tables, spec)
    assert {row[0]: row[1:4] for row in frame.iter_rows()} == {
        name: fate for name, fate in found.items() if isinstance(fate, tuple)
    }
    merged = None
    for name, visits in people.items():
        alone = select_cohort(tables_of({name: visits}, dates), spec)[1]
        merged = alone if merged is None else merged.merge(alone)
    assert merged == ledger
    return found


def with_rule(spec, rule, action="leave"):
    """The spec with one more rule, last."""
    data = spec.to_dict()
    data["rules"].append({"description": "-", "tag": "ours", "action": action, **rule})
    return parse_spec(data, source="test")


HF = {
    "case_at_second": ([visit("401.9"), visit("428.0")], (1, 2, 1)),
    "case_at_second_of_three": ([visit("401.9"), visit("428"), visit("428.21")], (1, 2, 1)),
    "case_at_third": ([visit("401.9"), visit(""), visit("250.00 428.9")], (1, 3, 2)),
    "case_icd10": ([visit("ICD10CM/I10"), visit("ICD10CM/I50.9")], (1, 2, 1)),
    "control_index_is_last": ([visit("250.00"), visit("250.00"), visit("401.9")], (0, 3, 2)),
    "neighbours_are_not_428": (
        [visit("042 427.9"), visit("429 427 V42.8 ICD10CM/I51.9 ICD10CM/I49.9 842.8")],
        (0, 2, 1),
    ),
    "heart_failure_first": ([visit("428.0 401.9"), visit("428.0")], "heart_failure_at_first_encounter"),
    "heart_failure_first_alone": ([visit("428"), visit("401.9")], "heart_failure_at_first_encounter"),
    "two_codes_are_one_encounter": ([visit("401.9 250.00")], "two_encounters"),
    "first_rule_counts": ([visit("428.0 428.1")], "two_encounters"),
    "nothing_to_read": ([visit(""), visit("428.0")], "input_codes"),
    "no_visit": ([], "no_visits"),
}


def test_hf_later_on_literal_patients():
    people = {name: visits for name, (visits, _) in HF.items()}
    assert fates(people, load_spec("hf-later")) == {name: fate for name, (_, fate) in HF.items()}


def test_hf_later_flags_related_disease_before_the_index_alone_or_lets_it_leave():
    people = {
        "before": [visit("404"), visit("428")],
        "at_index": [visit("401.9"), visit("402 428")],
        "never": [visit("403.9 405.9 397.9 399"), visit("401.9")],
    }
    spec = load_spec("hf-later")
    frame, _ = select_cohort(tables_of(people), spec)
    flagged = dict(frame.select("patient_id", "flag_related_heart_disease").iter_rows())
    assert flagged == {"before": True, "at_index": False, "never": False}
    assert count_flagged(frame) == {"related_heart_disease": 1}
    assert count_flagged(frame.clear()) == {"related_heart_disease": 0}
    rules = [*spec.rules[:2], dataclasses.replace(spec.rules[2], action="leave")]
    strict = dataclasses.replace(spec, rules=tuple(rules))
    assert fates(people, strict)["before"] == "related_heart_disease"
    assert count_flagged(select_cohort(tables_of(people), strict)[0]) == {}


def test_los_next_boundary_and_deaths():
    people = {
        "seven": [visit("250.00", stay=14), visit("250.00", stay=7)],
        "eight": [visit("250.00", stay=1), visit("250.00", stay=8)],
        "last_counts": [visit("250.00"), visit("250.00", stay=9), visit("250.00", stay=2)],
        "unknown": [visit("250.00"), visit("250.00", stay=None)],
        "once": [visit("250.00", stay=9)],
        "died": [visit("250.00"), visit("250.00", stay=9, to="expired")],
        "no_codes": [visit(""), visit("250.00")],
    }
    spec = load_spec("los-next")
    assert fates(people, spec) == {
        "seven": (0, 2, 1),
        "eight": (1, 2, 1),
        "last_counts": (0, 3, 2),
        "unknown": "outcome_unknown",
        "once": "two_encounters",
        "died": (1, 2, 1),
        "no_codes": "input_codes",
    }
    flags = dict(select_cohort(tables_of(people), spec)[0].select("patient_id", "flag_died_at_index").iter_rows())
    assert flags == {"seven": False, "eight": False, "last_counts": False, "died": True}


def test_readmission_takes_the_first_eligible_encounter_as_the_source_states_it():
    people = {
        "yes": [visit("250.00", again=True), visit("250.00", again=False)],
        "no": [visit("250.00", again=False)],
        "died": [visit("250.00", to="expired", again=False)],
        "hospice": [visit("250.00", to="hospice", again=True)],
        "hospice_then_died": [
            visit("250.00", to="hospice", again=True),
            visit("001", to="expired", again=False),
        ],
        "hospice_then_home": [
            visit("250.00", to="hospice", again=True),
            visit("414", again=False),
            visit("414"),
        ],
        "unknown_disposition": [visit("250.00", to=None, again=True)],
        "unknown_outcome": [visit("250.00", again=None), visit("250.00", again=True)],
        "outpatient": [visit("250.00", kind="outpatient", again=False)],
        "no_codes": [visit("", again=False)],
    }
    assert fates(people, load_spec("readmission-30d")) == {
        "yes": (1, 1, 1),
        "no": (0, 1, 1),
        "died": "died_at_index",
        "hospice": "hospice_at_index",
        "hospice_then_died": "hospice_at_index",
        "hospice_then_home": (0, 2, 2),
        "unknown_disposition": (1, 1, 1),
        "unknown_outcome": "outcome_unknown",
        "outpatient": "outpatient_at_index",
        "no_codes": "input_codes",
    }


def stay(first, last, codes="250.00", **more):
    return visit(codes, admit=first, discharge=last, **more)


def test_readmission_from_dates_counts_day_30_and_not_day_31():
    """Discharge 31 January 2012: 1 March is day 30 of a leap year."""
    first = stay("2012-01-28T08:00", "2012-01-31T23:00")
    people = {
        "transferred": [first, stay("2012-01-31T23:30", "2012-02-02")],
        "day_1": [first, stay("2012-02-01T11:30", "2012-02-02")],
        "day_29": [first, stay("2012-02-29T23:59", "2012-03-09")],
        "day_30": [first, stay("2012-03-01T23:59", "2012-03-09")],
        "day_31": [first, stay("2012-03-02T00:00", "2012-03-09")],
        "never": [first],
        "outpatient_only": [first, stay("2012-02-10", "2012-02-10", kind="outpatient")],
        "outpatient_between": [
            first,
            stay("2012-02-10", "2012-02-10", kind="outpatient"),
            stay("2012-02-20", "2012-02-21"),
        ],
        "stated_is_believed": [{**first, "readmitted_30d": False}, stay("2012-02-02", "2012-02-03")],
        "discharge_unknown": [stay("2012-01-28", None), stay("2012-02-02", "2012-02-03")],
        "index_turned_round": [stay("2012-01-28", "2012-01-27"), stay("2012-02-02", "2012-02-03")],
        "next_unknown": [first, stay(None, None)],
        "open_while_discharged": [stay("2012-01-01", "2012-06-01", to="hospice"), first],
    }
    assert fates(people, load_spec("readmission-30d"), dates=True) == {
        "transferred": (0, 2, 2),  # one episode
        "day_1": (1, 1, 1),
        "day_29": (1, 1, 1),
        "day_30": (1, 1, 1),
        "day_31": (0, 1, 1),
        "never": (0, 1, 1),
        "outpatient_only": (0, 1, 1),
        "outpatient_between": (1, 1, 1),
        "stated_is_believed": (0, 1, 1),
        "discharge_unknown": "index_undated",
        "index_turned_round": "visit_open",
        "next_unknown": "outcome_unknown",
        "open_while_discharged": "hospice_at_index",  # one episode, which the longer stay ends
    }


WASHOUT = {"id": "washout", "when": {"measure": "days_to_index", "fewer_than": 30}}


def test_washout_29_days_are_too_early_and_30_are_enough():
    start = stay("2012-01-31T20:00", "2012-01-31T21:00")
    people = {
        "day_29": [start, stay("2012-02-29T23:00", "2012-03-05", "428.0")],
        "day_30": [start, stay("2012-03-01T01:00", "2012-03-05", "428.0")],
        "control_29": [start, stay("2012-02-29", "2012-03-05")],
        "control_30": [start, stay("2012-03-01", "2012-03-05")],
        "start_unknown": [stay(None, None, kind="outpatient"), stay("2012-03-01", "2012-03-05")],
        "index_unknown": [start, stay(None, None)],
    }
    spec = load_spec("hf-later")
    assert fates(people, with_rule(spec, WASHOUT), dates=True) == {
        "day_29": "washout",
        "day_30": (1, 2, 1),
        "control_29": "washout",
        "control_30": (0, 2, 1),
        "start_unknown": "washout",
        "index_unknown": "washout",
    }
    assert fates(people, spec, dates=True)["index_unknown"] == "index_undated"
    frame, _ = select_cohort(tables_of(people, dates=True), spec)
    assert dict(frame.select("patient_id", "index_day").iter_rows()) == {
        "day_29": 29, "day_30": 30, "control_29": 29, "control_30": 30, "start_unknown": -1,
    }  # fmt: skip


def test_days_since_the_first_code_of_a_set():
    first, index = stay("2012-01-01", "2012-01-01"), stay("2012-03-01", "2012-03-02")
    people = {
        "from_the_code": [first, stay("2012-02-20", "2012-02-20", "402.91"), index],
        "long_enough": [stay("2012-01-01", "2012-01-01", "402.91"), index],
        "never_coded": [first, index],
    }
    since = {"id": "since", "when": {**WASHOUT["when"], "with_codes": "related_heart_disease"}}
    found = fates(people, with_rule(load_spec("hf-later"), since), dates=True)
    assert found == {"from_the_code": "since", "long_enough": (0, 2, 1), "never_coded": "since"}


def test_rules_that_need_days_are_refused_by_name_without_dates():
    spec = with_rule(with_rule(load_spec("hf-later"), WASHOUT), {**WASHOUT, "id": "history"}, "flag")
    tables = tables_of({"a": [visit("250.00"), visit("250.00")]})
    with pytest.raises(ValueError, match="rule 'washout', rule 'history' need days: the source has no dates"):
        select_cohort(tables, spec)
    spec = load_spec("readmission-30d")
    spec = dataclasses.replace(spec, outcome=dataclasses.replace(spec.outcome, readmitted_within_days=14))
    with pytest.raises(ValueError, match=r"'readmitted_within_days: 14' needs days: the source has no dates .*; leave"):
        select_cohort(tables, spec)


def test_counts_are_by_encounter():
    people = {
        "two_codes_in_one": [visit("402.91 404.91"), visit("250.00")],
        "two_encounters_of_one_code": [visit("402.91"), visit("402.91"), visit("250.00")],
    }
    when = {"window": "whole_record", "with_codes": "related_heart_disease", "at_least": 2}
    found = fates(people, with_rule(load_spec("hf-later"), {"id": "often", "when": when}))
    assert found == {"two_codes_in_one": (0, 2, 1), "two_encounters_of_one_code": "often"}


@pytest.mark.parametrize(
    ("window", "counted"),
    [
        ("whole_record", 4),
        ("first_visit", 1),
        ("before_index", 2),
        ("index_visit", 1),
        ("through_index", 3),
        ("after_index", 1),
    ],
)
def test_windows_of_a_case_whose_index_is_the_third_of_four(window, counted):
    people = {"a": [visit("250.00"), visit("250.00"), visit("428.0"), visit("250.00")]}
    for number, leaves in ((counted, True), (counted + 1, False)):
        rule = {"id": "many", "when": {"window": window, "at_least": number}}
        assert (fates(people, with_rule(load_spec("hf-later"), rule))["a"] == "many") is leaves
        rule = {"id": "few", "when": {"window": window, "fewer_than": number}}
        assert (fates(people, with_rule(load_spec("hf-later"), rule))["a"] == "few") is not leaves


def test_prediction_time_and_frame_schema():
    people = {"a": [stay("2012-01-01T10:00", "2012-01-03T11:00"), stay("2012-02-01T09:30", "2012-02-05T12:00")]}
    expected = {
        "hf-later": datetime(2012, 2, 1, 9, 29, 59, 999999),
        "los-next": datetime(2012, 2, 1, 9, 29, 59, 999999),
        "readmission-30d": datetime(2012, 1, 3, 11, 0),
    }
    ordinal = {"hf-later": 3, "los-next": 3, "readmission-30d": 2}  # 1970-01-01 + index_order days
    for name, time in expected.items():
        frame, _ = select_cohort(tables_of(people, dates=True), load_spec(name))
        assert frame["prediction_time"].to_list() == [time]
        assert dict(list(frame.schema.items())[:6]) == {
            "patient_id": pl.String, "label": pl.Int32, "index_order": pl.Int32, "input_until": pl.Int32,
            "index_day": pl.Int32, "prediction_time": pl.Datetime("us"),
        }  # fmt: skip
        undated = {
            "a": [{**v, "admit_time": None, "discharge_time": None, "readmitted_30d": True} for v in people["a"]]
        }
        frame, _ = select_cohort(tables_of(undated), load_spec(name))
        assert frame["prediction_time"].to_list() == [datetime(1970, 1, ordinal[name])]
        assert frame["index_day"].to_list() == [-1]


def test_everything_in_the_input_was_over_when_the_index_began():
    index = stay("2012-02-01", "2012-02-05", "428.0")
    people = {
        "transfer_is_read": [stay("2012-01-01", "2012-01-02"), stay("2012-01-20", "2012-02-01"), index],
        "same_admission_is_not": [stay("2012-01-01", "2012-01-02"), stay("2012-02-01", "2012-02-01"), index],
        "still_open_is_not": [stay("2012-01-01", "2012-01-02"), stay("2012-01-20", "2012-02-02"), index],
        "nothing_left": [stay("2012-01-20", "2012-02-02"), index],
        "contact_without_discharge_is_read": [stay("2012-01-20", None, kind="outpatient"), index],
        "open_stay_is_not": [stay("2012-01-20", None), index],
        "what_was_over_beside_it_is": [
            stay("2012-01-01", "2012-02-05"),
            stay("2012-01-20", None),
            stay("2012-01-21", "2012-01-22"),
            index,
        ],
    }
    assert fates(people, load_spec("hf-later"), dates=True) == {
        "transfer_is_read": (1, 3, 2),
        "same_admission_is_not": (1, 3, 1),
        "still_open_is_not": (1, 3, 2),
        "nothing_left": "input_codes",
        "contact_without_discharge_is_read": (1, 2, 1),
        "open_stay_is_not": "input_codes",
        "what_was_over_beside_it_is": (1, 4, 3),
    }
    tables = tables_of(people, dates=True)
    frame, ledger = select_cohort(tables, load_spec("hf-later"))
    read = input_diagnoses(tables, input_visits(tables, frame)).group_by("patient_id").agg(pl.col("order").sort())
    assert dict(read.iter_rows()) == {
        "transfer_is_read": [1, 2],
        "same_admission_is_not": [1],
        "still_open_is_not": [1],
        "contact_without_discharge_is_read": [1],
        "what_was_over_beside_it_is": [3],
    }
    assert {line.rule: line.left.codes for line in ledger.lines}["known_later"] == 3


def test_planted_leaks_are_caught():
    people = {"a": [visit("401.9"), visit("428.0"), visit("250.00")], "b": [visit("401.9"), visit("250.00")]}
    tables, spec = tables_of(people), load_spec("hf-later")
    frame, _ = select_cohort(tables, spec)
    check_no_leak(tables, frame, spec)
    leaky = frame.with_columns(pl.col("index_order").alias("input_until"))
    with pytest.raises(RuntimeError, match=r"got 2 patients with visits that are not before .*, 1 patients with"):
        check_no_leak(tables, leaky, spec)
    # The index put too late: the window is kept, and the outcome's code is in it all the same.
    late = frame.with_columns(index_order=pl.lit(3, pl.Int32), input_until=pl.lit(2, pl.Int32))
    with pytest.raises(RuntimeError, match="got 1 patients with visits with the outcome's codes in the input, of 2"):
        check_no_leak(tables, late, spec)
    # A spec made by hand, past the reading that refuses it: the interpreter stops by itself.
    through = dataclasses.replace(spec, input=dataclasses.replace(spec.input, until="through_index"))
    with pytest.raises(RuntimeError, match="must end before the outcome can be seen"):
        select_cohort(tables, through)


def test_planted_leak_of_time_is_caught():
    people = {"a": [stay("2012-01-01", "2012-01-02"), stay("2012-02-01", "2012-02-09")]}
    tables = tables_of(people, dates=True)
    for name in ("los-next", "readmission-30d"):
        spec = load_spec(name)
        frame, _ = select_cohort(tables, spec)
        early = frame.with_columns(pl.col("prediction_time") - timedelta(days=40))
        with pytest.raises(RuntimeError, match="1 patients with visits that were not over at the prediction time"):
            check_no_leak(tables, early, spec)


@pytest.mark.parametrize("dates", [True, False])
@pytest.mark.parametrize("name", ["hf-later", "los-next", "readmission-30d"])
def test_made_health_system(name, dates):
    tables, spec = made_tables(300, dates=dates), load_spec(name)
    frame, ledger = select_cohort(tables, spec)
    assert frame.height > 50
    assert 0 < frame["label"].sum() < frame.height
    assert ledger.kept.patients == frame.height
    assert (frame["index_day"] >= 0).all() if dates else (frame["index_day"] == -1).all()
    # The order of the rows in the tables changes nothing.
    shuffled = {
        table: getattr(tables, table).sample(fraction=1, shuffle=True, seed=1)
        for table in ("patients", "visits", "diagnoses")
    }
    again, ledger_again = select_cohort(dataclasses.replace(tables, **shuffled), spec)
    assert again.equals(frame)
    assert ledger_again == ledger


@pytest.mark.parametrize("name", ["hf-later", "los-next", "readmission-30d"])
def test_a_shard_without_patients_gives_no_rows_and_merges(name):
    tables, spec = made_tables(40), load_spec(name)
    nobody = {table: getattr(tables, table).clear() for table in ("patients", "visits", "diagnoses")}
    empty, nothing = select_cohort(dataclasses.replace(tables, **nobody), spec)
    frame, ledger = select_cohort(tables, spec)
    assert empty.schema == frame.schema
    assert empty.is_empty()
    assert ledger.merge(nothing) == ledger


def test_who_was_not_followed_for_30_days_has_no_readmission_label():
    first = stay("2012-01-28", "2012-01-31")
    people = {"alone": [first], "came_back": [first, stay("2012-02-05", "2012-02-06")]}
    people["stated"] = [{**first, "readmitted_30d": False}]
    for last_day, alone in (("2012-02-29", "outcome_unknown"), ("2012-03-01", (0, 1, 1))):
        tables = tables_of(people, dates=True)
        tables = dataclasses.replace(tables, source=dataclasses.replace(tables.source, last_day=last_day))
        frame, ledger = select_cohort(tables, load_spec("readmission-30d"))
        rows = {
            row[0]: row[1:] for row in frame.select("patient_id", "label", "index_order", "input_until").iter_rows()
        }
        assert rows.get("alone", "outcome_unknown") == alone
        assert rows.get("came_back") == (None if alone == "outcome_unknown" else (1, 1, 1))
        assert rows["stated"] == (0, 1, 1)
        left = next(line.left.patients for line in ledger.lines if line.rule == "outcome_unknown")
        assert left == 3 - len(rows)


def test_readmission_from_dates_agrees_with_a_plain_loop():
    tables = made_tables(300, seed=3)
    unstated = tables.visits.with_columns(pl.lit(None, pl.Boolean).alias("readmitted_30d"))
    tables = dataclasses.replace(tables, visits=unstated)
    frame, _ = select_cohort(tables, load_spec("readmission-30d"))
    expected = {}
    for (patient,), visits in unstated.sort("order").group_by(["patient_id"], maintain_order=True):
        rows = list(visits.iter_rows(named=True))
        stays = [row for row in rows if row["visit_type"] == "inpatient"]
        eligible = [row for row in stays if row["discharge_disposition"] not in ("expired", "hospice")]
        if eligible:
            index = eligible[0]
            left: date = index["discharge_time"].date()
            days = [(row["admit_time"].date() - left).days for row in stays if row["order"] > index["order"]]
            expected[patient] = (int(any(0 <= day <= 30 for day in days)), index["order"])
    got = {row[0]: row[1:] for row in frame.select("patient_id", "label", "index_order").iter_rows()}
    assert got == {patient: expected[patient] for patient in got}
    assert len(got) > 100
    assert len(expected) - len(got) < 10  # those without a code to read
