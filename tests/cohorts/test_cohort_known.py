"""Diagnoses have a time: what was told later is no input and no evidence, is counted, and is shown."""

from dataclasses import replace
from datetime import datetime

import polars as pl
import pytest
from drawn_patients import explain, fates, person, tables_of, visit

from medbert_jax.chart_review import charts
from medbert_jax.chart_review.chosen_patients import draw_charts
from medbert_jax.chart_review.page import review_page
from medbert_jax.chart_review.text import explain_patient
from medbert_jax.cohorts.leakage import check_no_leak
from medbert_jax.cohorts.loading import load_spec, parse_spec, stored_spec
from medbert_jax.cohorts.meds_labels import LabelFolder
from medbert_jax.cohorts.select import select_cohort
from medbert_jax.data.serialization import SerializationConfig, order_histories
from medbert_jax.ehr.tables import read_shard, write_tables
from medbert_jax.ingest.ingest import ingest

INDEX = visit("2012-06-01", "ICD10CM/I50.9 ICD10CM/E11.9", discharge="2012-06-05", kind="inpatient")


def input_of(tables, spec) -> dict[str, list[str]]:
    frame, _ = select_cohort(tables, spec)
    sequences, codes, _ = order_histories(tables, SerializationConfig(minimum_codes=1), until=frame)
    bounds = zip(sequences.code_offsets[:-1], sequences.code_offsets[1:], strict=True)
    names = [id.decode() for id in sequences.patient_id.tolist()]
    return {
        name: codes[sequences.code_ids[begin:end]].tolist() for name, (begin, end) in zip(names, bounds, strict=True)
    }


OMOP = {
    "person": "person_id,gender_concept_id,year_of_birth\n1,8507,1950\n2,8507,1950\n",
    "visit_occurrence": "visit_occurrence_id,person_id,visit_concept_id,visit_start_date,visit_end_date\n"
    "11,1,9201,2012-01-01,\n12,1,9201,2012-06-01,2012-06-05\n"
    "21,2,9202,2012-01-01,\n22,2,9201,2012-06-01,2012-06-05\n",
    "concept": "concept_id,concept_name,domain_id,vocabulary_id,concept_class_id,standard_concept,concept_code\n"
    "9003,COPD,Condition,ICD10CM,x,,J44.9\n9004,HF,Condition,ICD10CM,x,,I50.9\n",
    "condition_occurrence": "condition_occurrence_id,person_id,visit_occurrence_id,condition_concept_id,"
    "condition_start_date,condition_source_value,condition_source_concept_id\n"
    "1,1,11,9003,2013-03-03,,9003\n2,1,12,9004,2012-06-01,,9004\n"
    "3,2,21,9003,2012-01-01,,9003\n4,2,22,9004,2012-06-01,,9004\n",
}


def test_a_stay_that_is_open_in_the_source_is_not_over(tmp_path):
    """A stay of January without end whose only code is of the next year, and beside it a contact without one."""
    (tmp_path / "source").mkdir()
    for name, text in OMOP.items():
        (tmp_path / "source" / f"{name}.csv").write_text(text)
    ingest(tmp_path / "source", tmp_path / "ehr", format="omop", shards=1, workers=1, announce=lambda _: None)
    tables = read_shard(tmp_path / "ehr", 0)
    assert tables.visits["discharge_time"].null_count() == 2
    assert input_of(tables, load_spec("hf-later")) == {"2": ["ICD10CM/J44.9"]}
    frame, ledger = select_cohort(tables, load_spec("hf-later"))
    assert {line.rule: line.left.patients for line in ledger.lines if line.left.patients} == {"input_codes": 1}
    # The reader of those tables may know the day, too: then it is this day that counts.
    for day, read in (("2012-05-31", ["1", "2"]), ("2012-06-01", ["2"]), ("2013-03-03", ["2"])):
        known = pl.when(patient_id="1").then(datetime.fromisoformat(day)).otherwise("time").cast(pl.Datetime("us"))
        dated = replace(tables, diagnoses=tables.diagnoses.with_columns(time=known))
        frame, _ = select_cohort(dated, load_spec("hf-later"))
        assert frame["patient_id"].to_list() == read


def test_a_code_of_the_afternoon_is_not_in_the_input_of_the_morning(tmp_path):
    labels = {"subject_id": [1, 2], "prediction_time": [datetime(2012, 1, 10, 7)] * 2, "boolean_value": [True, False]}
    pl.DataFrame(labels).write_parquet(tmp_path / "0.parquet")
    before = visit("2011-05-03", "272.4@2011-05-03T09:00", discharge=None)
    on_day = visit("2012-01-10", "401.9@2012-01-10T06:59 428.0@2012-01-10T15:00", discharge=None)
    # A stay that has begun and ends later: what was written by then is known, what comes with its end is not.
    stay = visit("2012-01-09", "401.9@2012-01-09T12:00 250.00 428.0@2012-01-12", days=5, kind="inpatient")
    tables = tables_of({"1": person(before, on_day), "2": person(before, stay)})
    labels = LabelFolder.find(tmp_path)
    assert input_of(tables, labels) == {name: ["ICD9CM/272.4", "ICD9CM/401.9"] for name in "12"}
    _, ledger = select_cohort(tables, labels)
    assert {line.rule: line.left.codes for line in ledger.lines if line.left.codes} == {"known_later": 3}


def test_rules_before_the_index_do_not_see_what_was_told_later():
    first = visit("2010-01-01", "250.00", discharge=None)
    of = {
        "told_in_time": visit("2011-06-01", "428.0@2011-06-20", discharge=None, kind="inpatient"),
        "told_within_the_year": visit("2011-06-01", "401.9 428.0@2012-03-01", discharge=None, kind="inpatient"),
        "told_after_the_year": visit("2011-06-01", "401.9 428.0@2014-03-01", discharge=None, kind="inpatient"),
        "nobody_knows_when": visit("2011-06-01", "401.9 428.0", discharge=None, kind="inpatient"),
    }
    people = {
        name: person(first, one, visit("2011-08-01", "250.00", discharge=None), drugs=[("2010-01-01", "metformin")])
        for name, one in of.items()
    }
    assert fates(people, load_spec("dhf-landmark")) == {
        "told_in_time": "hf_before_index",
        "told_within_the_year": (1, 3, 3),
        "told_after_the_year": (0, 3, 3),
        "nobody_knows_when": "hf_before_index",
    }


def test_the_landmark_goes_by_when_the_diabetes_was_known_and_no_open_stay_is_one():
    drugs = [("2010-01-01", "metformin")]
    late = visit("2010-01-01", "250.00@2010-07-01", discharge=None)
    later = [visit(day, "250.00", discharge=None) for day in ("2011-02-01", "2011-08-01")]
    open_stay = visit("2011-02-01", "401.9", discharge=None, kind="inpatient")
    people = {
        "known_at_once": person(visit("2010-01-01", "250.00", discharge=None), *later, drugs=drugs),
        "known_later": person(late, *later, drugs=drugs),
        "open": person(visit("2010-01-01", "250.00"), open_stay, later[1], drugs=drugs),
    }
    spec = load_spec("dhf-landmark")
    assert {name: fate[1] for name, fate in fates(people, spec).items()} == {
        "known_at_once": 2, "known_later": 3, "open": 3,
    }  # fmt: skip


def test_the_bill_of_the_index_may_come_later():
    plain = load_spec("readmission-30d").to_dict()
    assert "known" not in plain["input"]  # as datasets made before have it
    plain["input"]["known"] = "billing"
    spec = parse_spec(plain, source="billing")
    stay = visit("2012-06-01", "401.9$ 272.4! 250.00", discharge="2012-06-05", kind="inpatient")
    before = visit("2012-01-01", "530.81$", kind="outpatient")
    tables = tables_of(
        {"a": person(before, stay), "b": person(before, visit("2012-06-01", "401.9$", kind="inpatient"))}
    )
    assert input_of(tables, spec) == {"a": ["ICD9CM/530.81", "ICD9CM/272.4"], "b": ["ICD9CM/530.81"]}
    known = input_of(tables, load_spec("readmission-30d"))
    assert sorted(known["a"]) == ["ICD9CM/250.00", "ICD9CM/272.4", "ICD9CM/401.9", "ICD9CM/530.81"]


def test_rules_wait_for_the_bill_as_the_input_does():
    plain = load_spec("readmission-30d").to_dict()
    plain["code_sets"] = [{"id": "x", "description": "X", "tag": "ours", "prefixes": ["ICD9CM/401"]}]
    when = {"measure": "visits", "with_codes": "x", "window": "through_index", "at_least": 1}
    plain["rules"].append({"id": "x_known", "description": "X", "tag": "ours", "action": "flag", "when": when})
    people = {
        mark: person(visit("2012-01-01", "272.4"), visit("2012-06-01", f"401.9{mark} 272.4!", 3, kind="inpatient"))
        for mark in ("$", "!", "")
    }
    said = {}
    for known in ("discharge", "billing"):
        plain["input"]["known"] = known
        frame = explain(tables_of(people), parse_spec(plain, source=known))
        said[known] = dict(frame.select("patient_id", "x_known").iter_rows())
    assert said == {"discharge": {"$": True, "!": True, "": True}, "billing": {"$": False, "!": True, "": False}}


@pytest.mark.parametrize(
    ("name", "change", "fault"),
    [
        ("dhf", lambda d: d["input"].update(known="billing"), "input.known: until before_index reads nothing of the"),
        ("dhf-landmark", lambda d: d["input"].update(known="never"), "input.known: must be one of discharge, billing"),
        ("dhf-landmark", lambda d: d["input"].update(gap_days=3), "input.gap_days: until through_index ends with the"),
        ("dhf", lambda d: d.pop("looks_after_index"), "must be cases: rules hf_one_encounter, hf_unverified judge cas"),
        ("dhf", lambda d: d.update(looks_after_index="both"), "looks_after_index: must be cases: "),
        ("paca", lambda d: d.pop("looks_after_index"), "must be controls: rules other_cancer judge controls alone by"),
        ("hf-later", lambda d: d.update(looks_after_index="cases"), "no rule judges cases or controls alone by what"),
        ("dhf-matched-incident", lambda d: d.update(looks_after_index="cases"), "no rule judges cases or controls al"),
        (
            "hf-later",
            lambda d: d["rules"][0].update(among="controls", when=d["rules"][0]["when"] | {"window": "after_index"}),
            "must be controls: rules two_encounters judge controls alone by what comes after the index; got none",
        ),
    ],
)
def test_what_a_spec_says_of_time_goes_together(name, change, fault):
    plain = load_spec(name).to_dict()
    change(plain)
    with pytest.raises(ValueError, match="fault") as refused:
        parse_spec(plain, source="mine")
    assert fault in str(refused.value)


def test_a_dataset_made_before_specs_said_it_is_reviewed():
    plain = load_spec("dhf").to_dict()
    plain.pop("looks_after_index")
    assert stored_spec(plain, source="metadata.json") == load_spec("dhf")


def test_looking_after_the_index_is_said_with_the_cohort():
    spec = load_spec("dhf")
    _, ledger = select_cohort(tables_of({"a": person(INDEX)}), spec)
    noted = {line.rule for line in ledger.lines if "judged by what comes after the index" in line.text}
    assert noted == {"hf_one_encounter", "hf_unverified"}
    said = (
        "looks_after_index: cases: cases alone are judged by what comes after the index (hf_one_encounter, hf_unverif"
    )
    assert spec.said_of_looking().startswith(said)
    assert said in review_page([], spec) and "Caution" not in review_page([], load_spec("hf-later"))


def test_what_was_told_later_is_marked_in_the_review(tmp_path, monkeypatch):
    monkeypatch.setattr(charts, "titles", lambda codes: [""] * len(codes))
    people = {
        "a": person(
            visit("2012-01-01", "402.91 401.9@2012-07-01", discharge=None), visit("2012-02-01", "272.4"), INDEX
        ),
        "b": person(
            visit("2012-01-01", "401.9"), visit("2012-02-01", "402.91@2013-01-01"), drugs=[("2012-01-01", "metformin")]
        ),
    }
    write_tables(tables_of(people), tmp_path / "ehr")
    spec = load_spec("hf-later")
    shown = {chart.group: chart for _, chart in draw_charts(tmp_path / "ehr", spec, 5, workers=1)}
    later = [code.code for visit in shown["cases"].visits for code in visit.codes if code.is_known_later]
    assert later == ["ICD9CM/401.9"] and shown["cases"].visits[0].is_read
    assert "ICD9CM/401.9</code>  <small>known later, not read" in review_page([shown["cases"]], spec)
    assert "looks_after_index: cases" in explain_patient(tmp_path / "ehr", "dhf", "a")


def test_a_planted_diagnosis_of_later_is_found(monkeypatch):
    from medbert_jax.cohorts import leakage

    tables = tables_of({"a": person(visit("2012-01-01", "272.4 401.9@2012-07-01", discharge=None), INDEX)})
    spec = load_spec("hf-later")
    frame, _ = select_cohort(tables, spec)
    check_no_leak(tables, frame, spec)
    everything = tables.diagnoses.join(tables.visits.select("visit_id", "order"), on="visit_id").filter(order=1)
    monkeypatch.setattr(leakage, "input_diagnoses", lambda tables, visits: everything)
    with pytest.raises(RuntimeError, match="1 patients with diagnoses of a later time than the prediction"):
        check_no_leak(tables, frame, spec)
