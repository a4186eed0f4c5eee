"""Where a cohort has no index without labels, somebody says when: days of a matched cohort, times of MEDS labels."""

from dataclasses import replace
from datetime import date, datetime
from random import Random

import polars as pl
import pytest
from cohorts.independent.literal_patients import tables_of_rows
from cohorts.test_nothing_later_is_read import changed, records
from cohorts.test_unlabelled import with_nothing_open

from medbert_jax.cohorts.loading import load_spec
from medbert_jax.cohorts.meds_labels import GivenTimes, LabelFolder, read_times
from medbert_jax.cohorts.select import select_cohort, select_with_exits
from medbert_jax.cohorts.unlabelled import unlabelled
from medbert_jax.prediction.predictor import load_predictor
from medbert_jax.prediction.score import at_day, days_of, score

__all__ = ("records",)

SAME = ["input_until", "index_order", "index_day", "over_by"]


@pytest.mark.parametrize("name", ["dhf-matched", "dhf-matched-incident", "paca-matched"])
def test_on_the_days_that_were_drawn_everybody_of_a_matched_cohort_is_predicted(name, records):
    tables, spec = tables_of_rows(records), load_spec(name)
    cohort, _ = select_cohort(tables, spec)
    dates = days_of(cohort.select("patient_id", "prediction_time"))
    found, ledger, exits = select_with_exits(tables, unlabelled(spec, dates)[0])
    both = cohort.join(found, on=["patient_id", "prediction_time"], suffix="_found")
    assert len(both) == len(cohort) >= 6
    assert all(both[one].eq_missing(both[f"{one}_found"]).all() for one in SAME)
    assert len(found) == len(cohort) and set(found["label"]) == {-1}
    assert set(exits["leaves_under"]) >= {"index_undated"} and ledger.kept.patients == len(found)
    assert not {"not_a_case", "not_drawn", "unmatched"} & {line.rule for line in ledger.lines}


def test_a_matched_cohort_needs_days_and_no_other_takes_them():
    with pytest.raises(ValueError, match="got none for the spec 'dhf-matched'; give --at DAY, or --times FILE"):
        unlabelled(load_spec("dhf-matched"))
    with pytest.raises(ValueError, match="got days for the spec 'dhf'; leave --at and --times out"):
        unlabelled(load_spec("dhf"), pl.DataFrame())


def test_what_comes_on_the_day_or_later_changes_nothing(records):
    tables, spec = tables_of_rows(records), load_spec("dhf-matched")
    dates = tables.patients.select("patient_id", given_date=pl.lit(date(2012, 1, 1)))
    asked, _ = unlabelled(spec, dates)
    frame, _, exits = select_with_exits(tables, asked)
    closed = with_nothing_open(records, frame.with_columns(index_order="input_until"))
    closed = closed.with_columns(index_order=pl.col("input_until") + 1)
    assert len(closed) > 20
    again, _, gone = select_with_exits(tables_of_rows(changed(records, closed, Random(3))), asked)
    assert again.select("patient_id", *SAME).equals(frame.select("patient_id", *SAME))
    assert gone.sort("patient_id").equals(exits.sort("patient_id"))


@pytest.fixture
def labels(tmp_path):
    times = [datetime(2012, 3, day, 12) for day in (1, 2, 3, 4)]
    frame = pl.DataFrame({"subject_id": ["a", "a", "b", "c"], "prediction_time": times})
    frame.with_columns(boolean_value=pl.Series([True, False, True, False])).write_parquet(tmp_path / "labels.parquet")
    frame.write_parquet(tmp_path / "times.parquet")
    return tmp_path


def test_times_are_read_with_labels_beside_them_or_without(labels):
    one, other = (read_times(labels / f"{name}.parquet") for name in ("labels", "times"))
    assert one.equals(other) and one.columns == ["patient_id", "prediction_time"] and len(one) == 4
    assert len(read_times(labels)) == 8
    given = GivenTimes.of(one, "made")
    assert given.all_times and given.rows()["boolean_value"].is_null().all()
    assert not GivenTimes.of(one[1:], "made").all_times
    with pytest.raises(ValueError, match="one for each subject and time"):
        GivenTimes.of(pl.concat([one, other]), "made")
    pl.DataFrame({"subject_id": ["a"]}).write_parquet(labels / "none.parquet")
    with pytest.raises(ValueError, match=r"prediction_time missing in none\.parquet"):
        read_times(labels / "none.parquet")


def test_a_model_of_meds_labels_predicts_at_given_times(trained, tmp_path):
    """Its input is the one that a label of that time has, and the times of a patient are as many predictions."""
    predictor = load_predictor(trained.runs["risk"])
    cohort = {"name": "made-labels", "title": "Made labels", "labels_sha256": ""}
    of_labels = replace(predictor, about=predictor.about | {"cohort": cohort})
    with pytest.raises(ValueError, match="is told when to predict: got no times; give --times FILE"):
        score(of_labels, trained.ehr)
    visits = trained.tables.visits.filter(pl.col("order") <= 2)
    times = visits.select("patient_id", prediction_time="discharge_time").unique()
    found = score(of_labels, trained.ehr, times=times)
    labelled = times.rename({"patient_id": "subject_id"}).with_columns(boolean_value=pl.lit(True))
    (tmp_path / "labels").mkdir()
    labelled.write_parquet(tmp_path / "labels" / "all.parquet")
    expected, _ = select_cohort(trained.tables, LabelFolder.find(tmp_path / "labels", "all"))
    keys = expected.select(subject_id="patient_id", prediction_time="prediction_time").sort(pl.all())
    assert found.rows.select(keys.columns).sort(pl.all()).equals(keys)
    assert of_labels.is_risk and len(found.rows) > found.rows["subject_id"].n_unique()
    day = at_day(trained.ehr, date(2012, 1, 1))
    assert set(day["prediction_time"]) == {datetime(2011, 12, 31, 23, 59, 59, 999999)}
    at = score(of_labels, trained.ehr, times=day)
    assert 0 < len(at.rows) < trained.tables.patients.height
    assert len(at.rows) + len(at.exits) == trained.tables.patients.height
