"""The built-in cohort dhf-matched on literal patients: parts, dates, who is at risk, the draw and its weights."""

from dataclasses import replace
from datetime import date, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from drawn_patients import explain, fates, person, tables_of, visit
from prepared_datasets import prepare_cohort, prepare_pretraining

from medbert_jax.chart_review.chosen_patients import draw_charts
from medbert_jax.cohorts.leakage import check_no_leak
from medbert_jax.cohorts.loading import load_spec
from medbert_jax.cohorts.matching import in_control_pool
from medbert_jax.cohorts.select import select_cohort
from medbert_jax.data.metadata import read_metadata
from medbert_jax.data.serialization import SerializationConfig
from medbert_jax.ehr.hashing import patient_hash
from medbert_jax.ehr.known import input_diagnoses, input_visits
from medbert_jax.ehr.split_rule import find_split
from medbert_jax.ehr.tables import write_tables


@pytest.fixture(scope="module")
def matched():
    return load_spec("dhf-matched")


@pytest.fixture(scope="module")
def paired(matched):
    """With one control for each case: who may be one shows without a second."""
    return replace(matched, matching=replace(matched.matching, controls_per_case=1))


def names(matching, *, controls, count):
    """Ids of patients who may be controls, or cases, in the order of the draw."""
    ids = pl.Series([f"p{number}" for number in range(40 * count)])
    ids = ids.filter(pl.Series(in_control_pool(ids, matching) == controls))[:count].to_list()
    return sorted(ids, key=lambda id: int(patient_hash([id], "dhf-matched/draw")[0]))


def diabetic(first, *more, again=7, drugs=None, **what):
    """Type 2 diabetes on an ISO day and a week later, with metformin on that day."""
    start = date.fromisoformat(first)
    second = (start + timedelta(days=again)).isoformat()
    drugs = [(first, "metformin"), (first, "furosemide")] if drugs is None else drugs
    return person(visit(first, "250.00"), visit(second, "250.00"), *more, drugs=drugs, **what)


# 200 days after the first type 2 code: 20 July 2010.
CASE = diabetic("2010-01-01", visit("2010-07-20", "428.0"), visit("2010-09-01", "428.0"))


def test_the_pool_is_drawn_before_anything_is_looked_at(matched):
    ids = pl.Series([f"p{number}" for number in range(20_000)])
    pool = in_control_pool(ids, matched.matching)
    hashes = patient_hash(ids, "dhf-matched/role")
    assert (pool == [int(value) / 2**64 < 0.3 for value in hashes]).all()
    assert abs(pool.mean() - 0.3) < 0.01
    (case,), (control,) = (names(matched.matching, controls=pool, count=1) for pool in (False, True))
    people = {case: diabetic("2010-01-01"), control: CASE}
    assert fates(people, matched) == {case: "not_a_case", control: "not_drawn"}


def alone(matched, control, case=CASE, **settings):
    """The date of a control beside one case, or None where he is not drawn."""
    (case_id,), (control_id,) = (names(matched.matching, controls=pool, count=1) for pool in (False, True))
    frame, _ = select_cohort(tables_of({case_id: case, control_id: control}, **settings), matched)
    assert frame.height in (0, 2)  # a case without a control leaves
    times = frame.filter(pl.col("label") == 0)["prediction_time"]
    return (times[0] + timedelta(microseconds=1)).isoformat()[:10] if len(times) else None


def test_the_control_is_asked_for_the_same_time_in_the_same_year(paired):
    """The case's date is 20 July 2010, day 200."""
    assert alone(paired, diabetic("2010-03-01")) == "2010-09-17"
    assert alone(paired, diabetic("2010-06-14")) == "2010-12-31"
    assert alone(paired, diabetic("2010-06-15")) is None
    assert alone(paired, diabetic("2009-06-15")) == "2010-01-01"
    assert alone(paired, diabetic("2009-06-14")) is None
    assert alone(paired, diabetic("2010-03-01"), last_day="2010-09-17") == "2010-09-17"
    assert alone(paired, diabetic("2010-03-01"), last_day="2010-09-16") is None


def test_a_spec_may_let_the_time_differ_and_the_date_is_then_the_nearest_to_the_cases(paired):
    """The case's date is 20 July 2010, day 200."""
    paired = replace(paired, matching=replace(paired.matching, within_days=90))
    assert alone(paired, diabetic("2010-03-01")) == "2010-07-20"  # day 141
    assert alone(paired, diabetic("2010-04-01")) == "2010-07-20"  # day 110: 90 too early, and no more
    assert alone(paired, diabetic("2010-04-02")) == "2010-07-21"
    assert alone(paired, diabetic("2010-09-12")) == "2010-12-31"  # day 110
    assert alone(paired, diabetic("2010-09-13")) is None  # 2011 is another year
    assert alone(paired, diabetic("2009-10-03")) == "2010-07-20"  # day 290
    assert alone(paired, diabetic("2009-10-02")) == "2010-07-19"
    assert alone(paired, diabetic("2009-03-17")) == "2010-01-01"  # day 290
    assert alone(paired, diabetic("2009-03-16")) is None
    assert alone(paired, diabetic("2010-04-21"), last_day="2010-09-01") == "2010-08-09"  # day 110
    assert alone(paired, diabetic("2010-05-21"), last_day="2010-09-08") == "2010-09-08"
    assert alone(paired, diabetic("2010-05-22"), last_day="2010-09-08") is None


EARLY_CASE = diabetic("2010-01-01", visit("2010-01-31", "428.0"), visit("2010-09-01", "428.0"))


def test_both_are_at_risk_for_30_days(paired):
    assert alone(paired, diabetic("2010-03-01"), EARLY_CASE) == "2010-03-31"
    day_29 = diabetic("2010-01-01", visit("2010-01-30", "428.0"), visit("2010-09-01", "428.0"))
    assert alone(paired, diabetic("2010-03-01"), day_29) is None
    # The year leaves him 29 days.
    assert alone(paired, diabetic("2010-12-01"), EARLY_CASE) == "2010-12-31"
    assert alone(paired, diabetic("2010-12-02"), EARLY_CASE) is None


def test_what_is_asked_of_a_control_at_his_date(paired):
    """His date is 17 September 2010."""
    first, on, after = "2010-03-01", "2010-09-17", "2010-09-18"
    drawn = {
        "heart_failure_the_day_after": diabetic(first, visit(after, "428.0")),
        "type_1_on_the_date": diabetic(first, visit(on, "250.01")),
        "turned_later": diabetic(first, visit(after, "401.9", discharge="2010-09-17T08:00")),
        "dead_on_the_date": diabetic(first, died=on),
        "second_diabetes_the_day_before": diabetic(first, again=199),
        "drug_the_day_before": diabetic(first, drugs=[("2010-09-16", "metformin")]),
        "eighteen": diabetic(first, born="1992-03-01"),
    }
    for name, one in drawn.items():
        assert alone(paired, one) == on, name
    not_drawn = {
        "heart_failure_on_the_date": diabetic(first, visit(on, "428.0")),
        "heart_failure_before": diabetic(first, visit("2010-05-01", "428.0")),
        "type_1_before": diabetic(first, visit("2010-09-16", "250.01")),
        "turned_before": diabetic(first, visit("2010-09-10", "401.9", discharge="2010-09-09")),
        "dead_the_day_before": diabetic(first, died="2010-09-16"),
        "second_diabetes_on_the_date": diabetic(first, again=200),
        "drug_on_the_date": diabetic(first, drugs=[(on, "metformin")]),
        "under_18": diabetic(first, born="1992-03-02"),
        "age_unknown": diabetic(first, born=None),
        "nothing_is_over": person(
            visit(first, "250.00", days=200), visit("2010-03-10", "250.00", days=250), drugs=[(first, "metformin")]
        ),
    }
    for name, one in not_drawn.items():
        assert alone(paired, one) is None, name


def test_what_is_asked_of_a_case(paired):
    (case,), (control,) = (names(paired.matching, controls=pool, count=1) for pool in (False, True))
    late, again = visit("2010-07-20", "428.0"), visit("2010-09-01", "428.0")
    expected = {
        "case": (CASE, (1, 3, 2)),
        "once": (diabetic("2010-01-01", late), "hf_one_encounter"),
        "unverified": (diabetic("2010-01-01", late, again, drugs=[("2010-01-01", "metformin")]), "hf_unverified"),
        "verified_later": (
            diabetic("2010-01-01", late, again, drugs=[("2010-01-01", "metformin"), ("2011-01-01", "furosemide")]),
            (1, 3, 2),
        ),
        "diabetes_verified_later": (
            diabetic("2010-01-01", late, again, drugs=[("2010-07-20", "metformin"), ("2010-01-01", "furosemide")]),
            "diabetes_unverified",
        ),
        "type_1_later": (diabetic("2010-01-01", late, visit("2010-09-01", "428.0 250.01")), (1, 3, 2)),
        "type_1_before": (diabetic("2010-01-01", visit("2010-05-01", "250.01"), late, again), "type_1_diabetes"),
        "dead_before": (diabetic("2010-01-01", late, again, died="2010-07-19"), "not_a_case"),
        "no_control": (diabetic("2000-01-01", late, again), "unmatched"),
    }
    for name, (one, fate) in expected.items():
        people = {case: one, control: diabetic("2010-03-01")}
        assert fates(people, paired)[case] == fate, name


def test_two_controls_for_each_case_in_the_order_of_the_draw_and_their_weights(matched):
    cases, controls = (names(matched.matching, controls=pool, count=n) for pool, n in ((False, 3), (True, 5)))
    people = dict.fromkeys(cases, CASE) | dict.fromkeys(controls, diabetic("2010-03-01"))
    tables = tables_of(people)
    frame, ledger = select_cohort(tables, matched)
    weights = dict(frame.select("patient_id", "weight").iter_rows())
    # Five to choose from, then three, then one, whom the third case does not take: his set would be smaller.
    assert [weights.pop(one) for one in controls[:4]] == [5 / 2, 5 / 2, 3 / 2, 3 / 2]
    assert weights == pytest.approx(dict.fromkeys(cases[:2], 1 / 0.7))
    drawn = dict.fromkeys(cases[:2], 1) | dict.fromkeys(controls[:4], 0)
    assert dict(frame.select("patient_id", "label").iter_rows()) == drawn
    # Each set has its case and those whom he took.
    sets = dict(frame.select("patient_id", "set_id").iter_rows())
    of_control = [sets[cases[0]]] * 2 + [sets[cases[1]]] * 2
    assert [sets[one] for one in controls[:4]] == of_control and len(set(of_control)) == 2
    four = tables_of({name: one for name, one in people.items() if name not in controls[2:]})
    frame, ledger = select_cohort(four, matched)
    assert set(frame["patient_id"]) == {cases[0], *controls[:2]}  # the later cases find nobody left
    assert {line.rule: line.left.patients for line in ledger.lines if line.left.patients} == {"unmatched": 2}
    # Another key is another draw.
    other = replace(matched, matching=replace(matched.matching, key="another"))
    assert select_cohort(tables, other)[0]["patient_id"].to_list() != frame["patient_id"].to_list()


def test_a_set_is_drawn_within_its_cases_split(matched):
    cases, controls = (names(matched.matching, controls=pool, count=n) for pool, n in ((False, 3), (True, 5)))
    tables = tables_of(dict.fromkeys(cases, CASE) | dict.fromkeys(controls, diabetic("2010-03-01")))
    # The second case has the last two controls for himself, the third case nobody.
    splits = {cases[1]: 2, controls[3]: 2, controls[4]: 2, cases[2]: 1}
    of_patients = np.array([splits.get(one, 0) for one in tables.patients["patient_id"]])
    frame, ledger = select_cohort(tables, matched, of_patients)
    assert frame["patient_id"].is_sorted()
    sets = dict(frame.select("patient_id", "set_id").iter_rows())
    first, second = ({one for one, of in sets.items() if of == sets[case]} for case in cases[:2])
    assert first == {cases[0], *controls[:2]} and second == {cases[1], *controls[3:]} and len(sets) == 6
    weights = dict(frame.select("patient_id", "weight").iter_rows())
    assert [weights.get(one) for one in controls] == [3 / 2, 3 / 2, None, 1.0, 1.0]  # of those of the split
    assert {line.rule: line.left.patients for line in ledger.lines if line.left.patients} == {
        "not_drawn": 1,
        "unmatched": 1,
    }
    assert select_cohort(tables, matched, np.zeros(len(of_patients)))[0].equals(select_cohort(tables, matched)[0])


def test_the_sets_of_a_dataset_are_of_one_split_and_its_review_draws_them_so(matched, tmp_path):
    cases, controls = (names(matched.matching, controls=pool, count=n) for pool, n in ((False, 60), (True, 100)))
    people = dict.fromkeys(cases, CASE) | dict.fromkeys(controls, diabetic("2010-02-01"))
    write_tables(tables_of(people), tmp_path / "ehr", shards=1)
    settings = {"data_dir": tmp_path, "announce": lambda line: None, "workers": 1}
    pretraining = prepare_pretraining(
        tmp_path / "ehr", "all", serialization=SerializationConfig(minimum_codes=1), **settings
    )
    asked = {"pretraining_dataset": pretraining, "few_cases": True, **settings}
    made = prepare_cohort(tmp_path / "ehr", "dhf-matched", "matched", **asked)
    rows = pl.read_parquet(made / "cohort.parquet")
    assert rows["split"].n_unique() == 3 and rows["set_id"].n_unique() > 40
    assert (rows.group_by("set_id").agg(pl.col("split").n_unique())["split"] == 1).all()
    metadata = read_metadata(made)
    split = find_split(tmp_path / "ehr", metadata["split"]["key"], metadata["split"]["ratios"])
    drawn = {
        apart: draw_charts(tmp_path / "ehr", matched, 200, split=split if apart else None, workers=1)
        for apart in (True, False)
    }
    stay = {how: {id for id, chart in of if chart.group in ("cases", "controls")} for how, of in drawn.items()}
    assert stay[True] == set(rows["patient_id"]) != stay[False]


def test_the_input_ends_with_the_day_before_the_date(paired):
    (case,), (control,) = (names(paired.matching, controls=pool, count=1) for pool in (False, True))
    visits = (
        visit("2010-09-10", "401.9"),
        visit("2010-09-16", "401.9", days=1),
        visit("2010-09-16T20:00", "401.9"),
        visit("2010-10-01", "401.9"),
    )
    people = {case: CASE, control: diabetic("2010-03-01", *visits)}
    tables = tables_of(people)
    frame, _ = select_cohort(tables, paired)
    row = frame.filter(pl.col("patient_id") == control).row(0, named=True)
    assert (row["input_until"], row["index_order"]) == (5, 6)
    read = input_diagnoses(tables, input_visits(tables, frame)).filter(patient_id=control)
    assert sorted(read["order"]) == [1, 2, 3, 5]  # the fourth ends on the date
    assert row["prediction_time"] == datetime(2010, 9, 16, 23, 59, 59, 999999)
    assert row["index_day"] == 200
    check_no_leak(tables, frame, paired)
    with pytest.raises(RuntimeError, match="2 patients with visits that had not begun"):
        late = frame.with_columns(pl.col("input_until") + 1, pl.col("index_order") + 1)
        check_no_leak(tables, late, paired)
    said = explain(tables, paired)
    assert said["leaves_under"].to_list() == [None, None]


def test_shards_are_drawn_apart_and_their_ledgers_add_up(matched):
    cases, controls = (names(matched.matching, controls=pool, count=n) for pool, n in ((False, 4), (True, 9)))
    people = dict.fromkeys(cases, CASE) | dict.fromkeys(controls, diabetic("2010-03-01"))
    halves = [tables_of({name: people[name] for name in list(people)[half::2]}) for half in (0, 1)]
    (one, first), (two, second) = (select_cohort(half, matched) for half in halves)
    assert first.merge(second).kept.patients == one.height + two.height == 12


def test_a_source_without_a_last_day_is_refused(matched):
    with pytest.raises(ValueError, match="no last day of the source"):
        select_cohort(tables_of({"a": CASE}, last_day=None), matched)
