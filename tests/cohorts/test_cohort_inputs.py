"""What a source lacks, and samples: said or refused, drawn by hash and weighed."""

import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from drawn_patients import explain, fates, person, tables_of, visit
from scipy.special import expit

from medbert_jax.cohorts.evidence_sets import CodeRange, CodeSet
from medbert_jax.cohorts.loading import load_spec, parse_spec
from medbert_jax.cohorts.missing_inputs import missing_inputs
from medbert_jax.cohorts.precision import auroc_half_width, normal_log_odds, validation_size
from medbert_jax.cohorts.record import diagnoses_of
from medbert_jax.cohorts.sampling import sample_controls
from medbert_jax.cohorts.select import count_flagged, select_cohort
from medbert_jax.cohorts.spec import Sample
from medbert_jax.ehr.hashing import patient_hash
from medbert_jax.metrics.discrimination import auroc

TYPE_2 = (visit("2010-01-01", "250.00"), visit("2010-02-01", "250.00"))
VERIFIED = (("2010-01-01", "metformin"), ("2010-01-01", "furosemide"))
CONTROL = person(*TYPE_2, drugs=VERIFIED)
CASE = person(*TYPE_2, visit("2010-06-01", "428.0"), visit("2010-07-01", "428.0"), drugs=VERIFIED)


def test_what_a_rule_rests_on_is_said():
    spec, tables = load_spec("dhf"), tables_of({"a": CASE}, without=["measurements"])
    assert missing_inputs(spec, tables.source, tables.present()) == [
        "no measurements table: rule diabetes_unverified rests on drugs alone",
        "no measurements table: rule hf_unverified rests on drugs and procedures alone",
    ]
    frame, _ = select_cohort(tables, spec)
    assert frame["label"].to_list() == [1]
    everything = tables_of({"a": CASE})
    assert missing_inputs(spec, everything.source, everything.present()) == []


def test_rules_with_nothing_to_rest_on_are_refused():
    tables = tables_of({"a": CASE}, without=["measurements", "medications"])
    with pytest.raises(
        ValueError, match="no measurements table and no medications table: rule diabetes_unverified has nothing to rest"
    ):
        select_cohort(tables, load_spec("dhf"))
    select_cohort(tables, load_spec("paca"))


def test_specs_that_need_days_are_refused_without_dates():
    undated = person(*({**one, "admit_time": None, "discharge_time": None} for one in TYPE_2))
    tables = tables_of({"a": undated}, dates=False, last_day=None)
    for name, part in (
        ("dhf", "rule 'incorrect_times', rule 'hf_too_early', rule 'died_before_index' need days"),
        ("dhf-landmark", "rule 'short_follow_up', outcome 'to_day: 365', index 'first_visit_after' need days"),
        ("dhf-matched", "rule 'died_before_index', rule 'hf_by_index', matching need days"),
        ("paca", "rule 'incorrect_times' needs days"),
    ):
        with pytest.raises(ValueError, match=part):
            select_cohort(tables, load_spec(name))


def test_drugs_of_a_source_without_dates_count_in_the_whole_record_alone():
    data = load_spec("hf-later").to_dict()
    data["drug_sets"] = [{"id": "drug", "description": "A drug", "tag": "ours", "ingredients": ["metformin"]}]
    when = {"measure": "medications", "with_drugs": "drug", "window": "whole_record", "fewer_than": 1}
    data["rules"].append({"id": "no_drug", "description": "No drug", "tag": "ours", "when": when})
    visits = [{**one, "admit_time": None, "discharge_time": None} for one in TYPE_2]
    people = {"a": person(*visits, drugs=[(1, "metformin")]), "b": person(*visits)}
    assert fates(people, parse_spec(data, source="a"), dates=False) == {"a": (0, 2, 1), "b": "no_drug"}
    when["window"] = "before_index"
    with pytest.raises(ValueError, match="rule 'no_drug' needs days"):
        fates(people, parse_spec(data, source="a"), dates=False)


def test_controls_are_sampled_in_hash_order_and_weighed():
    spec = replace(load_spec("dhf"), sample=Sample("Two controls for each case", "ours", 2, "a draw"))
    controls = [f"control{number}" for number in range(9)]
    people = dict.fromkeys(controls, CONTROL) | {"case1": CASE, "case2": CASE}
    frame, ledger = select_cohort(tables_of(people), spec)
    drawn = sorted(controls, key=lambda id: int(patient_hash([id], "a draw")[0]))[:4]
    assert set(frame["patient_id"]) == {*drawn, "case1", "case2"}
    assert dict(frame.select("patient_id", "weight").iter_rows()) == dict.fromkeys(drawn, 9 / 4) | {
        "case1": 1.0, "case2": 1.0
    }  # fmt: skip
    assert {line.rule: line.left.patients for line in ledger.lines if line.left.patients} == {"not_sampled": 5}
    said = explain(tables_of(people), spec)
    assert said.filter(leaves_under="not_sampled").height == 5
    # Fewer than are wanted: all, each for himself; and nobody where there is no case.
    few, _ = select_cohort(tables_of({"case1": CASE, "control0": CONTROL}), spec)
    assert few["weight"].to_list() == [1.0, 1.0]
    nobody, ledger = select_cohort(tables_of({"control0": CONTROL}), spec)
    assert nobody.is_empty() and {line.rule: line.left.patients for line in ledger.lines}["not_sampled"] == 1


def test_the_censored_are_no_controls_to_draw():
    """Of four controls two are drawn; the two whose label is unknown stay, each for himself."""
    patients = pl.DataFrame({"patient_id": [*"abcdefg"], "label": [True, *[False] * 4, None, None]})
    patients = patients.with_columns(leaves_under=pl.lit(None, pl.String), weight=pl.lit(1.0))
    found = sample_controls(patients, Sample("Two controls for each case", "ours", 2, "a draw"))
    stays = found.filter(pl.col("leaves_under").is_null())
    assert {*"afg"} < set(stays["patient_id"]) and stays.height == 5
    assert dict(stays.group_by("label").agg(pl.col("weight").unique()).iter_rows()) == {
        True: [1.0], False: [2.0], None: [1.0]
    }  # fmt: skip


def test_explain_judges_every_rule_for_everybody():
    people = {"case": CASE, "control": CONTROL, "nothing": person(visit("2010-01-01", "401.9 250.1"))}
    people["other"] = person(visit("2010-01-01", "401.9"), born="2000-01-01")
    said = explain(tables_of(people), load_spec("dhf"))
    rows = {row["patient_id"]: row for row in said.iter_rows(named=True)}
    assert [id for id, held in rows["nothing"].items() if held is True] == [
        "one_diabetes_encounter", "no_type_2", "diabetes_unverified"
    ]  # fmt: skip
    assert [id for id, held in rows["other"].items() if held is True] == [
        "no_diabetes", "one_diabetes_encounter", "no_type_2", "diabetes_unverified", "age_unknown"
    ]  # fmt: skip
    assert rows["case"]["leaves_under"] is None and rows["case"]["label"] is True
    assert rows["other"]["leaves_under"] == "no_diabetes"


def test_half_width_of_the_interval_is_that_of_hanley_and_mcneil():
    """Against simulated scores of its model: exponential, means 4 and 1, so that the AUROC is 4/5."""
    assert math.isinf(auroc_half_width(0, 10)) and math.isinf(auroc_half_width(10, 0))
    rng = np.random.default_rng(0)
    cases, controls = rng.exponential(4, (2000, 50)), rng.exponential(1, (2000, 500))
    below = np.sort(controls, axis=1)
    aurocs = [np.searchsorted(low, high).mean() / 500 for low, high in zip(below, cases, strict=True)]
    assert np.mean(aurocs) == pytest.approx(0.8, abs=0.005)
    assert auroc_half_width(50, 500) == pytest.approx(1.96 * np.std(aurocs), rel=0.05)


def test_ranges_of_codes_take_whole_categories():
    found = CodeSet("a", "-", "ours", ranges=(CodeRange("ICD9CM", "140", "209"),), without=("ICD9CM/173",))
    codes = ["140", "140.0", "209.30", "173", "173.0", "139.8", "210", "V15.0", "E140"]
    tables = tables_of({"a": person(*(visit("2010-01-01", code) for code in codes))})
    kept = tables.visits.join(diagnoses_of(tables.diagnoses, [found]), on="visit_id").sort("order")["order"]
    assert [codes[order - 1] for order in kept] == ["140", "140.0", "209.30"]


def test_flags_are_counted_by_their_columns():
    frame, _ = select_cohort(tables_of({"case": CASE}), load_spec("dhf"))
    assert count_flagged(frame) == {"age_uncertain": 0}


NEW = ("dhf", "dhf-landmark", "dhf-matched", "paca")
YEAR_LATER = visit("2011-03-01", "401.9")
EVERYBODY = {f"p{number}": person(*TYPE_2, YEAR_LATER, drugs=VERIFIED) for number in range(20)} | {
    f"q{number}": person(*TYPE_2, visit("2010-06-01", "428.0 157.9"), visit("2010-07-01", "428.0"), drugs=VERIFIED)
    for number in range(20)
}


@pytest.mark.parametrize("name", NEW)
def test_a_shard_without_patients_gives_no_rows_and_merges(name):
    tables, spec = tables_of(EVERYBODY), load_spec(name)
    empty, nothing = select_cohort(tables_of({}), spec)
    frame, ledger = select_cohort(tables, spec)
    assert frame.height > 0
    assert empty.is_empty() and empty.schema == frame.schema
    assert ledger.merge(nothing) == ledger


@pytest.mark.parametrize("name", NEW)
def test_the_order_of_rows_and_of_others_changes_nothing(name):
    tables, spec = tables_of(EVERYBODY), load_spec(name)
    shuffled = {table: rows.sample(fraction=1, shuffle=True, seed=1) for table, rows in tables.present().items()}
    one, two = select_cohort(tables, spec), select_cohort(replace(tables, **shuffled), spec)
    assert one[0].equals(two[0]) and one[1] == two[1]


def test_sample_sizes_are_those_of_riley_and_colleagues():
    """pmvalsampsize 0.2.1, an example of its help: 905 (error in steps of 0.0001), 4,544 (by simulation) and 4,252."""
    found = validation_size(0.018, 0.8, odds=(-5, 2.5), widths=(1, 0.2, 0.1, 0.2))
    assert found.observed_to_expected == pytest.approx(905, abs=1) and found.auroc == 4252
    assert found.slope == pytest.approx(4544, rel=0.01) and found.needed == found.slope
    assert found.net_benefit is None


def test_the_log_odds_that_are_assumed_give_prevalence_and_auroc():
    mean, deviation = normal_log_odds(0.1, 0.75)
    random = np.random.default_rng(0)
    risk = expit(random.normal(mean, deviation, 200_000))
    label = random.random(len(risk)) < risk
    assert label.mean() == pytest.approx(0.1, abs=0.003) and auroc(label, risk) == pytest.approx(0.75, abs=0.006)
    # The variance of a standardized net benefit, against that of 4,000 patients drawn 800 times.
    size = validation_size(0.1, 0.75, risk=0.15, widths=(0.2, 0.2, 0.1, 2 * 1.959964 * 0.05))
    drawn = random.integers(0, len(risk), (800, 4_000))
    true, false = (label & (risk >= 0.15))[drawn].mean(1), (~label & (risk >= 0.15))[drawn].mean(1)
    standardized = (true - false * 0.15 / 0.85) / label[drawn].mean(1)
    assert size.net_benefit == pytest.approx(standardized.var() * 4_000 / 0.05**2, rel=0.12)


@pytest.mark.parametrize(
    "asked", [{"prevalence": 0.0}, {"prevalence": 0.1, "auroc": 0.5}, {"prevalence": 0.1, "risk": 1.0}]
)
def test_what_is_no_model_has_no_sample_size(asked):
    with pytest.raises(ValueError, match="must lie between 0 and 1"):
        validation_size(**asked)
