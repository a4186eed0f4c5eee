"""Whom a spec lets in where no label is known: rules ask nothing that comes after the prediction."""

from dataclasses import replace
from datetime import timedelta
from random import Random

import polars as pl
import pytest
from cohorts.independent.literal_patients import tables_of_rows
from cohorts.test_nothing_later_is_read import WITH_PAST, changed, records, with_past

from medbert_jax.cohorts.conditions import AnyOf
from medbert_jax.cohorts.loading import SPECS_DIRECTORY, load_spec
from medbert_jax.cohorts.select import select_cohort, select_with_exits
from medbert_jax.cohorts.spec import Rule
from medbert_jax.cohorts.unlabelled import needs_outcome, unlabelled

__all__ = ("records", "with_past")  # fixtures

BUILT_IN = sorted(path.stem for path in SPECS_DIRECTORY.glob("*.yaml"))
SCORES = ("dhf", "dhf-matched", "dhf-matched-incident", "hf-later", "los-next", "paca", "paca-matched")
RISKS = [name for name in BUILT_IN if name not in SCORES]
KEY = ["patient_id", "prediction_time"]


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_risk_needs_an_index_without_the_outcome(name):
    assert bool(needs_outcome(load_spec(name))) == (name in SCORES)


def tables_for(name, records, with_past):
    return with_past if name in WITH_PAST else records


@pytest.mark.parametrize("name", RISKS)
def test_everybody_of_the_cohort_may_be_predicted_and_those_of_unknown_label_too(name, records, with_past):
    tables, spec = tables_of_rows(tables_for(name, records, with_past)), load_spec(name)
    cohort, _ = select_cohort(tables, spec)
    found, ledger, exits = select_with_exits(tables, unlabelled(spec)[0])
    same = ["index_order", "input_until", "index_day", "over_by"]
    both = cohort.join(found, on=KEY, suffix="_found")
    assert len(both) == len(cohort) >= 10
    assert all(both[one].eq_missing(both[f"{one}_found"]).all() for one in same)
    assert set(found["label"]) == {-1}
    assert ledger.kept.patients == len(found) and len(exits) == tables.patients.height - len(found)
    counts = dict(exits["leaves_under"].value_counts().iter_rows())
    assert counts == {line.rule: line.left.patients for line in ledger.lines if line.left.patients}


def with_nothing_open(rows, frame) -> pl.DataFrame:
    """Those of whom every visit up to the index is over by the end of the day, and none begins on it or the next one.

    The index of others may be another once it is known when a stay that overlaps it ends, or what joins its episode.
    The prediction is moved to the end of the day.
    """
    end = pl.col("prediction_time").dt.truncate("1d") + timedelta(days=1) - timedelta(microseconds=1)
    frame = frame.with_columns(prediction_time=end, over_by=end)
    visits = pl.DataFrame(rows["visits"], infer_schema_length=None).select(
        "patient_id", "order", "discharge_time", "visit_type", begins="admit_time"
    )
    visits = visits.join(frame.select("patient_id", "index_order", end="prediction_time"), on="patient_id")
    open_contact = pl.col("discharge_time").is_null() & (pl.col("visit_type") != "inpatient")
    over = (pl.col("discharge_time") <= pl.col("end")) | open_contact
    later = pl.col("begins") > pl.col("end") + timedelta(days=1)
    fine = pl.when(pl.col("order") <= pl.col("index_order")).then(over).otherwise(later).fill_null(False)
    return frame.join(visits.group_by("patient_id").agg(fine=fine.all()).filter("fine"), on="patient_id", how="semi")


@pytest.mark.parametrize("name", RISKS)
def test_a_record_that_changes_after_the_day_of_the_prediction_changes_nobodys_place(name, records, with_past):
    rows, spec = tables_for(name, records, with_past), unlabelled(load_spec(name))[0]
    frame, _, exits = select_with_exits(tables_of_rows(rows), spec)
    closed, chance = with_nothing_open(rows, frame), Random(1)
    assert len(closed) >= 20
    mine = closed.select("patient_id")
    for _ in range(3):
        other = tables_of_rows(changed(rows, closed, chance))
        again, _, gone = select_with_exits(other, spec)
        places = [one.join(mine, on="patient_id", how="semi").select(*KEY, "input_until") for one in (frame, again)]
        assert places[0].equals(places[1])
        assert gone.sort("patient_id").equals(exits.sort("patient_id"))


def test_a_rule_that_asks_the_whole_record_is_asked_up_to_the_prediction(records, with_past):
    """Cancer at any time: who has it later is predicted all the same, and one who has it before is not."""
    tables, spec = tables_of_rows(records), load_spec("dhf-landmark")
    when = load_spec("paca").rules
    cancer = next(one for one in load_spec("paca").code_sets if "cancer" in one.id)
    assert when
    measure = {"measure": "visits", "with_codes": cancer.id, "window": "whole_record", "at_least": 1}
    leaf = type(spec.rules[0].when)(**measure)
    rule = Rule(id="any_cancer", description="Cancer", tag="ours", when=AnyOf(any_of=(leaf,)))
    spec = replace(spec, code_sets=(*spec.code_sets, cancer), rules=(*spec.rules, rule))
    whole, _ = select_cohort(tables, spec)
    found, _, exits = select_with_exits(tables, unlabelled(spec)[0])
    later = set(found["patient_id"]) - set(whole["patient_id"])
    assert later and "any_cancer" in set(exits["leaves_under"])
    # Of those the code lies after the prediction, or they left for want of a label.
    asked = unlabelled(replace(spec, rules=spec.rules[:-1]))[0]
    assert set(found["patient_id"]) < set(select_with_exits(tables, asked)[0]["patient_id"])


@pytest.mark.parametrize("name", ["dhf", "paca", "hf-later"])
def test_of_a_score_the_label_is_asked_by_no_rule(name, records):
    tables, spec = tables_of_rows(records), load_spec(name)
    asked, left_out = unlabelled(spec)
    assert set(left_out) == {rule.id for rule in spec.rules if rule.among}
    cohort, _ = select_cohort(tables, spec)
    found, _, _ = select_with_exits(tables, asked)
    assert len(cohort.join(found, on=KEY)) == len(cohort) >= 10
    assert len(found) > len(cohort) or not left_out


def test_follow_up_is_not_asked():
    spec = load_spec("acute-mi-1y")
    asked, left_out = unlabelled(spec)
    assert not asked.outcome.asks_follow_up and asked.sample is None
    later = [rule.id for rule in spec.rules if any(leaf.measure == "days_of_follow_up" for leaf in rule.when.leaves())]
    assert list(left_out) == later
    assert {rule.id for rule in asked.rules} == {rule.id for rule in spec.rules} - set(later)
