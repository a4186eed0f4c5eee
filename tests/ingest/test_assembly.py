"""Rough tables → EHR tables: every rule with its count, the order of visits, lengths of stay and ages."""

from datetime import date, datetime

import polars as pl
import pytest

from medbert_jax.attrition.ledger import Counts
from medbert_jax.ehr.schema import check_tables
from medbert_jax.ingest.assembly import assemble
from medbert_jax.ingest.ends import Calendar
from medbert_jax.ingest.rough import Left, Rough

PATIENTS = {
    "patient_id": ["a", "b", "c", "c", None],
    "birth_date": [date(1950, 1, 1), None, None, None, None],
    "birth_year": [None, 1960, None, None, None],
    "sex": ["female", "male", "male", "female", None],
    "race": ["x", "y", "z", "z", None],
    "death_date": [None, date(2011, 1, 1), None, None, None],
    "split": ["train", "test", None, None, None],
}


def when(*days: str | None) -> list[datetime | None]:
    return [datetime.fromisoformat(day) if day else None for day in days]


def visits(**rows) -> pl.DataFrame:
    """From visit_id → (patient, admission, discharge)."""
    return pl.DataFrame(
        {
            "visit_id": [None if name.startswith("null") else name for name in rows],
            "patient_id": [row[0] for row in rows.values()],
            "admit_time": pl.Series(when(*(row[1] for row in rows.values())), dtype=pl.Datetime("us")),
            "discharge_time": pl.Series(when(*(row[2] for row in rows.values())), dtype=pl.Datetime("us")),
        }
    )


def diagnoses(*rows) -> pl.DataFrame:
    """From (patient, visit, code[, system])."""
    return pl.DataFrame(
        [(*row[:2], row[3] if len(row) > 3 else "ICD10CM", row[2]) for row in rows],
        schema=dict.fromkeys(("patient_id", "visit_id", "code_system", "code"), pl.String),
        orient="row",
    )


def rough(visits: pl.DataFrame, diagnoses: pl.DataFrame, **more) -> Rough:
    more = {"patients": pl.DataFrame(PATIENTS), "has_dates": True, "age_precision": "day"} | more
    return Rough(visits=visits, diagnoses=diagnoses, **more)


def left(ledger) -> dict[str, tuple[int, int, int]]:
    """Rule → counts, of the rules that took something."""
    counts = {line.rule: (line.left.patients, line.left.visits, line.left.codes) for line in ledger.lines}
    return {rule: count for rule, count in counts.items() if any(count)}


def test_every_rule_takes_what_it_names_and_nothing_else():
    made = assemble(
        "made",
        rough(
            visits(
                early=("a", "1949-12-31", None),  # before the birth
                first=("a", "2000-01-01", "2000-01-03"),
                never=("a", None, "2001-01-01"),
                placeholder=("a", "2001-01-01", "9999-12-31"),
                ancient=("b", "1800-01-01", None),
                year=("b", "1959-12-31", None),  # before the year of birth
                last=("b", "2011-01-01", None),  # on the day of death
                dead=("b", "2011-01-02", None),
                null=("a", "2003-01-01", None),
                stranger=("z", "2003-01-01", None),
                nobody=(None, "2003-01-01", None),
            ),
            diagnoses(
                ("a", "first", " e119 "),
                ("a", "first", "E11.9"),  # the same code
                ("a", "first", None),
                ("a", "first", "  "),
                ("a", "first", "428.0", "ICD9CM"),
                ("a", "first", "E1.1.9"),
                ("a", "first", "I10", None),
                ("a", "first", "I10", "SOURCE"),
                ("a", "early", "I10"),
                ("a", "never", "I10"),
                ("a", "placeholder", "I10"),
                ("b", "ancient", "I10"),
                ("b", "dead", "I10"),
                ("b", "first", "I10"),  # another patient's visit
                ("b", None, "I10"),
                ("b", "last", "I50.9"),
                ("z", "stranger", "I10"),
                ("y", "first", "I10"),
                (None, "first", "I10"),
            ),
        ),
    )
    assert check_tables(made.tables) == []
    assert left(made.ledger) == {
        "null_patient_id": (1, 1, 1),
        "unlisted_patient": (2, 1, 2),
        "duplicate_patient": (1, 0, 0),
        "null_visit_id": (0, 1, 0),
        "no_admission": (0, 1, 1),
        "implausible_time": (0, 1, 1),
        "before_birth": (0, 2, 1),
        "after_death": (0, 1, 1),
        "unlinked_code": (0, 0, 2),
        "missing_code": (0, 0, 2),
        "unnamed_system": (0, 0, 1),
        "unreadable_code": (0, 0, 2),
        "duplicate_code": (0, 0, 1),
    }
    assert made.ledger.came == Counts(7, 11, 19) and made.ledger.kept == Counts(3, 3, 4)
    assert made.tables.diagnoses.sort("code").select("patient_id", "code_system", "code").rows() == [
        ("a", "ICD9CM", "428.0"),
        ("a", "ICD10CM", "E11.9"),
        ("a", "ICD10CM", "I10"),  # of the visit whose end is none
        ("b", "ICD10CM", "I50.9"),
    ]
    # What two rows of one patient say differently is unknown; what they agree on, or one says alone, stays.
    assert made.tables.patients.sort("patient_id").rows()[2] == ("c", None, None, "z", None, None)
    assert made.splits.sort("patient_id").rows() == [("a", "train"), ("b", "test")]


def test_visits_are_in_order_of_admission_discharge_and_id_and_a_repeated_one_counts_once():
    frame = visits(
        v3=("a", "2000-05-01", None),
        v2=("a", "2000-05-01", "2000-05-02"),
        v1=("a", "2000-05-01", "2000-05-02"),
        v0=("a", "2000-04-01", "2000-03-20"),  # ends before it begins: the paper's own rule is applied later
    )
    again = pl.concat([frame, frame[:1]])
    made = assemble("made", rough(again, diagnoses(("a", "v0", "I10"))))
    assert left(made.ledger) == {
        "null_patient_id": (1, 0, 0),
        "duplicate_patient": (1, 0, 0),
        "duplicate_visit": (0, 1, 0),
    }
    table = made.tables.visits.sort("order").select("visit_id", "order", "length_of_stay").rows()
    assert table == [("v0", 1, -12), ("v1", 2, 1), ("v2", 3, 1), ("v3", 4, None)]


def test_stays_and_ages_are_what_is_stated_else_what_follows_from_dates_else_unknown():
    frame = visits(
        stated=("a", "2000-01-01", "2000-01-03"), open=("a", "2000-02-01", None), ward=("b", "1960-03-01", None)
    )
    frame = frame.with_columns(
        length_of_stay=pl.Series([9, None, None], dtype=pl.Int32),
        visit_type=pl.Series([None, "outpatient", "inpatient"], dtype=pl.String),
        age_days=pl.Series([None, None, 5], dtype=pl.Int32),
    )
    known = {
        zero: assemble("made", rough(frame, diagnoses(("a", "open", "I10"))), outpatient_los_zero=zero).tables.visits
        for zero in (False, True)
    }
    rows = known[False].sort("visit_id").select("visit_id", "length_of_stay", "age_days", "age_precision_days").rows()
    # b was born in 1960, so about 1 July: a stay in March of that year is at age 0, ± half a year.
    assert rows == [("open", None, None, None), ("stated", 9, None, None), ("ward", None, 0, 365)]
    assert known[True].sort("visit_id")["length_of_stay"].to_list() == [0, 9, None]


def test_an_event_of_no_visit_stays_without_one_and_leaves_with_a_visit_that_leaves():
    drugs = pl.DataFrame(
        {
            "patient_id": ["a", "a", "a", "q", "a"],
            "visit_id": ["first", "gone", None, "first", "dead"],
            "code_system": ["RxNorm"] * 5,
            "code": ["1", "2", "3", "4", "5"],
        }
    )
    made = assemble(
        "made",
        rough(
            visits(first=("a", "2000-01-01", None), dead=("a", "1800-01-01", None)),
            diagnoses(("a", "first", "I10")),
            medications=drugs,
        ),
    )
    assert made.tables.medications.sort("code").select("visit_id", "code").rows() == [
        ("first", "1"),
        (None, "2"),
        (None, "3"),
    ]
    assert left(made.events) == {"unlisted_patient": (0, 0, 1), "implausible_time": (0, 0, 1)}
    assert "implausible_time" in left(made.ledger) and left(made.ledger)["unlisted_patient"] == (1, 0, 0)


def test_what_the_reader_took_out_itself_is_in_the_ledger():
    taken = (Left("unknown_pattern", "Codes that no pattern knows", codes=7),)
    made = assemble("made", rough(visits(v=("a", "2000-01-01", None)), diagnoses(("a", "v", "I10")), left=taken))
    assert left(made.ledger)["unknown_pattern"] == (0, 0, 7) and made.ledger.came.codes == 8


def test_ids_of_further_tables_are_counted_where_they_are_nobodys():
    others = pl.Series(["a", "y", "y", "z", None, " ", None, "a"])
    made = assemble("made", rough(visits(v=("z", "2000-01-01", None)), diagnoses(), other_ids=others))
    assert left(made.ledger) == {
        "null_patient_id": (1 + 3, 0, 0), "unlisted_patient": (2, 1, 0), "duplicate_patient": (1, 0, 0),
    }  # fmt: skip
    assert made.ledger.came == Counts(5 + 3 + 2, 1, 0) and made.ledger.kept == Counts(3, 0, 0)


def test_numbers_too_large_for_their_column_are_unknown():
    patients = pl.DataFrame({"patient_id": ["a", "b", "c"], "birth_year": [20240105123456, 2_000_000_000, 1950]})
    stays = visits(v=("a", "2000-01-01", None), w=("b", "2000-01-01", None), x=("c", "2000-01-01", None))
    codes = diagnoses(("a", "v", "I10"), ("a", "v", "I11"), ("b", "w", "I10"))
    codes = codes.with_columns(priority=pl.Series([20240105123456, 2, -(2**31) - 1]))
    made = assemble("made", rough(stays, codes, patients=patients))
    assert check_tables(made.tables) == [] and left(made.ledger) == {}
    assert made.tables.diagnoses.sort("patient_id", "code")["priority"].to_list() == [None, 2, None]
    ages = made.tables.visits.sort("visit_id")["age_precision_days"].to_list()
    assert ages == [None, None, 365]


def test_a_source_without_dates_keeps_its_order():
    frame = pl.DataFrame({"visit_id": ["x", "y"], "patient_id": ["a", "a"], "order": pl.Series([2, 1], dtype=pl.Int32)})
    made = assemble("made", rough(frame, diagnoses(("a", "x", "I10")), has_dates=False))
    assert made.tables.visits.sort("order")["visit_id"].to_list() == ["y", "x"]
    assert check_tables(made.tables) == []


def test_a_reader_that_gives_other_columns_is_told():
    with pytest.raises(TypeError, match="columns of the schema: got colour"):
        assemble("made", rough(visits(), diagnoses(), patients=pl.DataFrame({"patient_id": ["a"], "colour": ["red"]})))


NO_ENDS = {
    "nines": ("2013-05-01", "9999-12-31"),
    "century": ("2013-05-01", "2099-12-31"),
    "turn": ("2013-05-01", "2100-01-01"),
    "pandas": ("2013-05-01", "2262-04-11 23:47:16"),
    "zero": ("2013-05-01", "1900-01-01"),
    "unix": ("2013-05-01", "1970-01-01"),
    "server": ("2013-05-01", "1753-01-01"),
}
ENDS = {
    "week": ("2013-05-01", "2013-05-08"),
    "years": ("2009-05-01", "2013-05-08"),
    "slip": ("2013-05-02", "2013-05-01"),
    "shifted": ("2199-12-20", "2199-12-31"),
    "old": ("1969-12-20", "1970-01-01"),
}


@pytest.mark.parametrize("name", NO_ENDS | ENDS)
def test_an_end_that_is_none_leaves_the_stay_open_and_its_codes_where_they_are(name):
    stay = {name: ("a", *(NO_ENDS | ENDS)[name])}
    frame = visits(**stay).with_columns(length_of_stay=pl.lit(31_744, pl.Int32))
    made = assemble("made", rough(frame, diagnoses(("a", name, "I10"))))
    assert left(made.ledger) == {"null_patient_id": (1, 0, 0), "duplicate_patient": (1, 0, 0)}
    ended, days = made.tables.visits.select("discharge_time", "length_of_stay").row(0)
    if name in ENDS:
        assert (ended, days) == (*when(ENDS[name][1]), 31_744) and not made.unreadable
    else:
        assert (ended, days) == (None, None) and made.unreadable == {"discharge_time that is no end": 1}
    assert made.tables.diagnoses.height == 1


def test_what_the_source_cannot_know_yet_is_no_end():
    frame = visits(
        before=("a", "2023-12-01", "2023-12-30"),
        cut=("a", "2023-12-20 08:00", "2023-12-31 23:59"),
        same_day=("a", "2023-12-31 08:00", "2023-12-31 12:00"),
        tomorrow=("a", "2024-02-20", "2024-03-02"),
        far=("a", "2023-12-29", "2026-01-01"),
        shifted=("a", "2151-01-01", "2151-01-09"),
    )
    calendar = Calendar(date(2024, 3, 1), date(2023, 12, 31), date(2023, 12, 31))
    made = assemble("made", rough(frame, diagnoses()), calendar=calendar)
    ends = dict(made.tables.visits.select("visit_id", "discharge_time").rows())
    # A shifted calendar lies after today, and after the last day of a source that isn't shifted.
    assert {name for name, end in ends.items() if end is None} == {"cut", "tomorrow", "far", "shifted"}
    calendar = Calendar(date(2024, 3, 1), date(2151, 2, 1), None)
    made = assemble("made", rough(frame, diagnoses()), calendar=calendar)
    ends = dict(made.tables.visits.select("visit_id", "discharge_time").rows())
    assert {name for name, end in ends.items() if end is None} == {"tomorrow", "far"}


def test_a_patient_dies_on_the_earliest_of_his_days_and_by_the_clock_of_that_day():
    frame = visits(
        stay=("a", "2011-01-01 08:00", "2011-01-05 10:00"),
        account=("a", "2011-01-05 10:01", "2011-01-05 20:00"),
        other=("b", "2011-01-05 12:00", "2011-01-05 13:00"),
        later=("b", "2011-01-05 12:01", None),
        day=("c", "2011-01-05 23:00", None),
        after=("c", "2011-01-06 01:00", None),
    ).with_columns(discharge_disposition=pl.Series(["expired", None, None, None, None, None]))
    deaths = pl.DataFrame(
        {
            "patient_id": ["a", "a", "b", "b", "c", "c", None],
            "death_date": [date(2011, 1, 7), date(2011, 1, 5), None, date(2011, 1, 5), date(2011, 1, 5), None, None],
            "death_time": when(None, None, "2011-01-05 12:00", None, "2011-01-05 00:00", None, "2011-01-05 01:00"),
        }
    )
    people = pl.DataFrame({"patient_id": ["a", "b", "c", "d"], "death_date": [None, date(2011, 1, 9), None, None]})
    made = assemble("made", rough(frame, diagnoses(("a", "account", "Z52.9")), patients=people, deaths=deaths))
    assert sorted(made.tables.visits["visit_id"]) == ["day", "other", "stay"]
    assert left(made.ledger) == {"after_death": (0, 3, 1)}
    days = made.tables.patients.sort("patient_id")["death_date"].to_list()
    assert days == [date(2011, 1, 5)] * 3 + [None]
    assert made.told == {"patients with several days of death, of which the earliest counts": 2}


def test_an_end_before_its_own_stay_is_no_time_of_death():
    frame = visits(stay=("a", "2011-01-05 10:51", "2011-01-05 03:11"), next=("a", "2011-01-05 12:00", None))
    frame = frame.with_columns(discharge_disposition=pl.Series(["expired", None]))
    people = pl.DataFrame({"patient_id": ["a"], "death_date": [date(2011, 1, 5)]})
    made = assemble("made", rough(frame, diagnoses(), patients=people))
    assert made.tables.visits.height == 2


def test_follow_up_is_periods_that_do_not_meet():
    rows = [
        ("a", "2010-01-01", "2010-06-30"),
        ("a", "2010-03-01", "2010-04-30"),  # within
        ("a", "2010-07-01", "2010-12-31"),  # meets
        ("a", "2011-02-01", "2011-03-01"),  # does not
        ("b", "2012-01-01", "9999-12-31"),
        ("b", "2013-01-01", "2099-12-31"),
        ("c", "2024-01-15", "2024-06-01"),  # tomorrow
        ("c", "2014-05-01", None),
        ("c", "2014-05-02", "2014-05-01"),
        ("z", "2014-05-02", "2014-05-03"),
        (None, "2014-05-02", "2014-05-03"),
    ]
    periods = pl.DataFrame(rows, schema=["patient_id", "start", "end"], orient="row")
    periods = periods.with_columns(pl.col("start", "end").str.to_date())
    calendar = Calendar(date(2024, 5, 31), date(2024, 2, 1))
    made = assemble("made", rough(visits(), diagnoses(), follow_up=periods), calendar=calendar)
    assert check_tables(made.tables) == []
    assert made.tables.follow_up.sort("patient_id", "start").rows() == [
        ("a", date(2010, 1, 1), date(2010, 12, 31)),
        ("a", date(2011, 2, 1), date(2011, 3, 1)),
        ("b", date(2012, 1, 1), date(2024, 2, 1)),
        ("c", date(2024, 1, 15), date(2024, 2, 1)),
    ]
    assert made.told == {
        "periods of follow-up whose end is none": 3,
        "periods of follow-up without a first and last day, left out": 2,
        "periods of follow-up joined to the one before": 3,
        "patients whose rows contradict each other in sex, which is unknown now": 1,
    }
    assert {rule: rows for (table, rule), rows in made.lost.items() if table == "follow_up"} == {
        "null_patient_id": 1, "unlisted_patient": 1,
    }  # fmt: skip
    # Nobody knows up to when an open period was watched, where nothing is known of the source.
    assert assemble("made", rough(visits(), diagnoses(), follow_up=periods)).tables.follow_up.height == 3


def test_values_of_a_patient_that_contradict_each_other_are_unknown_and_told_by_column():
    one, two = date(1950, 1, 1), date(1951, 1, 1)
    people = pl.DataFrame(
        {
            "patient_id": ["a", "a", "b", "b", "c", "c", "c", "d"],
            "birth_date": [one, two, one, None, one, one, two, None],
            "birth_year": [None, None, None, None, None, None, None, 1960],
            "race": ["x", "y", "x", "x", None, None, None, None],
            "death_date": [date(2020, 1, 1), date(2020, 1, 2), None, None, None, None, None, None],
        }
    )
    made = assemble("made", rough(visits(first=("a", "2011-01-01", "2011-01-02")), diagnoses(), patients=people))
    assert dict(made.tables.patients.select("patient_id", "birth_date").rows()) == {
        "a": None,
        "b": one,
        "c": None,
        "d": None,
    }
    assert made.told == {
        "patients whose rows contradict each other in birth_date, which is unknown now": 2,
        "patients whose rows contradict each other in race, which is unknown now": 1,
        "patients with several days of death, of which the earliest counts": 1,
    }
