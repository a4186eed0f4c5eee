"""MEDS predictions: what is written is what is read."""

import datetime

import numpy as np
import polars as pl
import pytest

from medbert_jax.evaluation.predictions import read_predictions, write_predictions


def made(n=4, **changes):
    return {
        "subject_id": np.array([b"%d" % i for i in range(n)], "S4"),
        "prediction_time": np.arange(n) * 86_400_000_000 - 1,
        "labels": np.arange(n) % 2,
        "probabilities": np.linspace(0, 1, n),
        "time_is_ordinal": True,
    } | changes


def test_round_trip_in_the_meds_schema(tmp_path):
    path = tmp_path / "new" / "predictions.parquet"
    write_predictions(path, **made(probabilities=np.array([0.1, 0.5, 0.499, 1.0])))
    predictions = read_predictions(path)
    assert predictions.time_is_ordinal is True
    assert predictions.frame.schema == {
        "subject_id": pl.Int64,
        "prediction_time": pl.Datetime("us"),
        "boolean_value": pl.Boolean,
        "predicted_boolean_value": pl.Boolean,
        "predicted_boolean_probability": pl.Float64,
    }
    assert predictions.frame["subject_id"].to_list() == [0, 1, 2, 3]
    assert predictions.frame["boolean_value"].to_list() == [False, True, False, True]
    assert predictions.frame["predicted_boolean_value"].to_list() == [False, True, False, True]
    assert predictions.frame["predicted_boolean_probability"].to_list() == [0.1, 0.5, 0.499, 1.0]
    # One microsecond before the admission: MEDS times are inclusive.
    assert predictions.frame["prediction_time"][1] == datetime.datetime(1970, 1, 1, 23, 59, 59, 999_999)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "ids, kept",
    [
        (np.array([b"-7", b"9223372036854775807"]), [-7, 9223372036854775807]),
        (np.array([3, 4], np.int32), [3, 4]),
        (["12", "013"], ["12", "013"]),  # a cast would lose the zero
        (["12", "9223372036854775808"], ["12", "9223372036854775808"]),
        (pl.Series("patient_id", ["a", "1"]), ["a", "1"]),
        (np.array(["ä", "1.0"]), ["ä", "1.0"]),
    ],
)
def test_ids_become_integers_only_when_nothing_is_lost(tmp_path, ids, kept):
    write_predictions(tmp_path / "p.parquet", **made(2, subject_id=ids))
    assert read_predictions(tmp_path / "p.parquet").frame["subject_id"].to_list() == kept


@pytest.mark.parametrize(
    "times",
    [
        np.array(["2020-01-01T10:00", "2020-01-02T10:00"], "datetime64[s]"),
        pl.Series([datetime.datetime(2020, 1, 1, 10), datetime.datetime(2020, 1, 2, 10)]),
    ],
)
def test_real_times_and_no_labels(tmp_path, times):
    path = tmp_path / "p.parquet"
    write_predictions(path, **made(2, prediction_time=times, labels=None, time_is_ordinal=False))
    predictions = read_predictions(path)
    assert predictions.time_is_ordinal is False
    assert predictions.frame["boolean_value"].to_list() == [None, None]
    assert predictions.frame["prediction_time"][1] == datetime.datetime(2020, 1, 2, 10)


def test_every_fault_is_listed_without_naming_a_patient(tmp_path):
    changes = {
        "probabilities": [np.nan, 0.2, 1.1],
        "labels": [0, 1, 2, 1],
        "prediction_time": [0, None, 1, 2],
    }
    with pytest.raises(ValueError) as error:
        write_predictions(tmp_path / "p.parquet", **made(subject_id=["anna"] * 4, **changes))
    text = str(error.value)
    for fault in ("3 probabilities, ", "2 probabilities outside", "1 labels other", "1 unknown ids or times"):
        assert fault in text
    assert "anna" not in text and not list(tmp_path.iterdir())


def test_two_predictions_of_one_moment_are_refused(tmp_path):
    with pytest.raises(ValueError, match="2 rows of the same subject and time; pass"):
        write_predictions(tmp_path / "p.parquet", **made(3, subject_id=[1, 2, 2], prediction_time=[5, 6, 6]))


def test_files_of_other_tools_are_checked(tmp_path):
    path = tmp_path / "p.parquet"
    write_predictions(path, **made())
    frame = read_predictions(path).frame
    frame.write_parquet(path)
    assert read_predictions(path).time_is_ordinal is None
    frame.drop("boolean_value").with_columns(pl.col("subject_id").cast(pl.Float64)).write_parquet(path)
    with pytest.raises(ValueError, match="got subject_id Float64, boolean_value missing; cast or add"):
        read_predictions(path)


@pytest.mark.parametrize("keep", [0, 3, 200])
def test_a_truncated_or_missing_file_is_refused(tmp_path, keep):
    path = tmp_path / "p.parquet"
    with pytest.raises(ValueError, match=r"got p\.parquet, unreadable; pass"):
        read_predictions(path)
    write_predictions(path, **made())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"got p\.parquet, unreadable; pass"):
        read_predictions(path)
