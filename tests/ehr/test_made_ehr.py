"""The made data must be what the other tests take it for."""

import numpy as np
import polars as pl
import pytest
from made_ehr import GROUPS, OUTCOME, RISK_CODES, made_tables

from medbert_jax.ehr.codes import normalise_icd9, normalise_icd10
from medbert_jax.ehr.schema import check_tables
from medbert_jax.ehr.tables import write_tables


@pytest.fixture(scope="module")
def tables():
    return made_tables(patients=2000, seed=0)


def names(tables):
    order = tables.visits.select("visit_id", "order")
    return tables.diagnoses.join(order, on="visit_id").with_columns(name=pl.col("code_system") + "/" + pl.col("code"))


def test_same_seed_same_people(tmp_path):
    hashes = [
        write_tables(made_tables(50, seed=seed, dates=dates), tmp_path).content_hash
        for seed, dates in ((1, True), (1, True), (2, True), (1, False))
    ]
    assert hashes[0] == hashes[1] and len(set(hashes)) == 3


@pytest.mark.parametrize("dates", [True, False])
def test_is_clean_and_says_what_it_knows(dates):
    tables = made_tables(patients=200, seed=4, dates=dates)
    assert check_tables(tables) == []
    known = tables.visits.select(pl.all().null_count() < pl.len()).row(0, named=True)
    assert known["admit_time"] == known["discharge_time"] == dates
    assert known["age_days"] == known["age_precision_days"] == known["readmitted_30d"] != dates
    assert (tables.patients["birth_date"].null_count() == 0) == dates


def test_codes_are_in_normal_form(tables):
    for system, function in (("ICD9CM", normalise_icd9), ("ICD10CM", normalise_icd10)):
        codes = tables.diagnoses.filter(pl.col("code_system") == system)
        assert codes.height > 100
        assert codes.select((pl.col("code") == function(pl.col("code"))).all()).item()


def test_times_are_possible(tables):
    visits = tables.visits.sort("patient_id", "order").with_columns(
        before=pl.col("discharge_time").shift().over("patient_id"),
        days=(pl.col("discharge_time") - pl.col("admit_time")).dt.total_days(),
    )
    assert (visits["days"] == visits["length_of_stay"]).all()
    assert (visits["admit_time"] > visits["before"]).drop_nulls().all()
    born = visits.join(tables.patients, on="patient_id")
    assert (born["birth_date"] < born["admit_time"].dt.date()).all()
    assert (born["death_date"] >= born["admit_time"].dt.date()).drop_nulls().all()
    assert born["order"].max() == 8 and (born["discharge_disposition"] == "expired").sum() > 10
    flagged = made_tables(patients=2000, seed=0, dates=False).visits.sort("patient_id", "order")
    following = visits.select(pl.col("admit_time").dt.date().shift(-1).over("patient_id")).to_series()
    days = (following - visits["discharge_time"].dt.date()).dt.total_days()
    assert ((days <= 30).fill_null(False) == flagged["readmitted_30d"]).all()


def test_some_patients_have_too_few_codes_and_some_prolonged_stays(tables):
    counts = tables.patients.join(tables.diagnoses.group_by("patient_id").len(), on="patient_id", how="left")["len"]
    assert 5 < counts.null_count() < 60 and 50 < (counts < 3).sum() < 300
    assert 0.1 < (tables.visits["length_of_stay"] > 7).mean() < 0.25
    unique = tables.diagnoses.unique(["visit_id", "code_system", "code"]).height
    assert 0 < tables.diagnoses.height - unique < 0.2 * unique  # some repeats within a visit
    for column in ("present_on_admission", "captured_at_billing", "priority"):
        assert 0.05 < tables.diagnoses[column].null_count() / tables.diagnoses.height < 0.15


def test_a_masked_code_is_predictable_beyond_the_most_frequent_and_copying(tables):
    codes = names(tables).unique(["visit_id", "name"])
    code_list = codes["name"].unique().sort().to_list()
    column = codes["name"].replace_strict({name: i for i, name in enumerate(code_list)}).to_numpy()
    _, visit = np.unique(codes["visit_id"].to_numpy(), return_inverse=True)
    _, patient = np.unique(codes["patient_id"].to_numpy(), return_inverse=True)
    size = len(code_list)
    in_visit, in_record = np.zeros((visit.max() + 1, size)), np.zeros((patient.max() + 1, size))
    np.add.at(in_visit, (visit, column), 1)
    np.add.at(in_record, (patient, column), 1)
    one = np.eye(size)[column]
    others = in_visit[visit] - one  # the visit without the masked code
    share = np.bincount(column, minlength=size) / len(column)
    train = patient % 2 == 0
    joint = np.ones((size, size)) * 0.1 + others[train].T @ one[train]  # neighbour → code
    lift = np.log(joint / joint.sum(1, keepdims=True)) - np.log(share)
    learned = (np.log(share) + others @ lift - 99 * (others > 0))[~train].argmax(1)
    record = (in_record[patient] - one)[~train]
    copied = (record + share - 99 * (others > 0)[~train]).argmax(1)  # unique within the visit
    target = column[~train]
    most_frequent, copy, neighbours = share.max(), (copied == target).mean(), (learned == target).mean()
    assert neighbours > copy + 0.05 > most_frequent + 0.1, (most_frequent, copy, neighbours)


def test_outcome_follows_risk_codes_of_earlier_visits(tables):
    codes = names(tables)
    first = codes.filter(pl.col("name") == OUTCOME).group_by("patient_id").agg(onset=pl.col("order").min())
    people = tables.visits.group_by("patient_id").agg(last=pl.col("order").max())
    people = people.join(first, on="patient_id", how="left").filter(
        pl.col("last") > 1, pl.col("onset").fill_null(9) > 1
    )
    until = people.with_columns(index=pl.coalesce("onset", "last"))
    risk = (
        codes.join(until, on="patient_id")
        .filter(pl.col("order") < pl.col("index"), pl.col("name").is_in(RISK_CODES))
        .group_by("patient_id").len()
    )  # fmt: skip
    people = people.join(risk, on="patient_id", how="left")
    case = people["onset"].is_not_null()
    at_risk = people["len"].is_not_null()
    assert case.sum() > 100
    assert (case & at_risk).sum() / at_risk.sum() > 2 * (case & ~at_risk).sum() / (~at_risk).sum()


def test_risk_codes_are_codes_of_the_groups():
    assert set(RISK_CODES) <= {code for group in GROUPS for pair in group for code in pair}
