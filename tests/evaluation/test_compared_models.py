"""Predictions files beside the patients they are of: aligned, named, and refused where they are others'."""

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest

from medbert_jax.evaluation.compared_models import read_models
from medbert_jax.evaluation.evaluated_patients import read_evaluated
from medbert_jax.evaluation.predictions import write_predictions

START = datetime(2010, 1, 1)


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    """Forty labels of twenty subjects, in a folder of MEDS labels."""
    folder = tmp_path_factory.mktemp("labels") / "made-task"
    folder.mkdir()
    rows = [(number // 2, START + timedelta(days=number), number % 3 == 0) for number in range(40)]
    names = ("subject_id", "prediction_time", "boolean_value")
    frame = pl.DataFrame(rows, schema=names, orient="row").with_columns(
        pl.col("prediction_time").cast(pl.Datetime("us"))
    )
    frame.write_parquet(folder / "0.parquet")
    return folder, frame


def write(path, frame, **changes):
    columns = {
        "subject_id": frame["subject_id"].to_numpy(),
        "prediction_time": frame["prediction_time"],
        "labels": frame["boolean_value"].to_numpy().astype(int),
        "probabilities": np.arange(len(frame)) / 100,
    } | changes
    write_predictions(path, time_is_ordinal=False, **columns)
    return path


def test_rows_are_put_in_the_order_of_the_patients(labels, tmp_path):
    folder, frame = labels
    patients = read_evaluated(folder)
    assert (patients.name, patients.design.estimand, patients.is_clustered) == ("made-task", "as labelled", True)
    straight = write(tmp_path / "straight.parquet", frame)
    backwards = write(tmp_path / "backwards.parquet", frame[::-1], probabilities=np.arange(40)[::-1] / 100)
    one, other = read_models([straight, backwards], patients)
    assert np.array_equal(one.replicates[0], other.replicates[0])
    of_patient = dict(zip(zip(patients.subject, patients.time, strict=True), one.replicates[0], strict=True))
    third = frame.row(3)
    assert of_patient[str(third[0]), int(frame["prediction_time"].to_physical()[3])] == 0.03
    assert (one.name, other.name, one.files[0][0]) == ("straight", "backwards", "straight.parquet")
    (both,) = read_models([straight, backwards], patients, names=("a", "a"))
    assert len(both.replicates) == 2
    with pytest.raises(ValueError, match="names must be one for each predictions file: got 1 for 2; give all"):
        read_models([straight, backwards], patients, names=("a",))


def test_predictions_of_others_are_refused(labels, tmp_path):
    folder, frame = labels
    patients = read_evaluated(folder)
    few = write(tmp_path / "few.parquet", frame[:-3])
    with pytest.raises(
        ValueError, match=r"prediction times: got 3 of 40 predictions missing in few\.parquet; pass the"
    ):
        read_models([few], patients)
    turned = write(tmp_path / "turned.parquet", frame, labels=1 - frame["boolean_value"].to_numpy().astype(int))
    with pytest.raises(ValueError, match=r"40 with another label than the cohort's in turned\.parquet"):
        read_models([turned], patients)
    later = write(tmp_path / "later.parquet", frame.with_columns(pl.col("prediction_time") + pl.duration(days=500)))
    with pytest.raises(ValueError, match="40 of 40 predictions missing"):
        read_models([later], patients)
    pl.concat([pl.read_parquet(few)] * 2).write_parquet(tmp_path / "twice.parquet")
    with pytest.raises(ValueError, match="74 rows of the same subject and time, 3 of 40 predictions missing"):
        read_models([tmp_path / "twice.parquet"], patients)
    # Other subjects are nobody's fault, and unknown labels are taken from the cohort.
    more = pl.concat([frame, frame.with_columns(pl.col("subject_id") + 1000)])
    (found,) = read_models([write(tmp_path / "more.parquet", more, labels=None)], patients)
    assert len(found.replicates[0]) == 40


def test_labels_of_one_subject_and_time_are_one(labels, tmp_path):
    _, frame = labels
    pl.concat([frame, frame[:2]]).write_parquet(tmp_path / "0.parquet")
    with pytest.raises(ValueError, match="one for each subject and time: got 4 rows of the same"):
        read_evaluated(tmp_path)
