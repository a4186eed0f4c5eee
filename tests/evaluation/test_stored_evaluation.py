"""An evaluation's folder: equal bytes for equal evaluations, and nothing that was changed is read."""

import json

import numpy as np
import polars as pl
import pytest
from evaluation.made_patients import made_patients, made_risks, model

from medbert_jax.evaluation.evaluate import EvaluationSettings, evaluate
from medbert_jax.evaluation.stored_evaluation import CURVE_SCHEMA, FIGURE_SCHEMA, read_evaluation, write_evaluation


@pytest.fixture(scope="module")
def found():
    label, risk = made_risks(200, 0)
    return evaluate(made_patients(label), [model("a", risk), model("b", risk**2)], EvaluationSettings(draws=100))


@pytest.fixture
def folder(found, tmp_path):
    return write_evaluation(found, tmp_path / "deep" / "evaluation")


def test_what_is_written_is_read_and_again_the_same_bytes(found, folder, tmp_path):
    read = read_evaluation(folder)
    assert read.about == found.about
    assert read.figures.equals(found.figures) and read.curves.equals(found.curves)
    assert dict(read.figures.schema) == FIGURE_SCHEMA and dict(read.curves.schema) == CURVE_SCHEMA
    write_evaluation(found, tmp_path / "again")
    for path in sorted(folder.iterdir()):
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()
    (folder / "notes.txt").write_text("kept")
    write_evaluation(found, folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "curves.parquet", "evaluation.json", "figures.parquet", "notes.txt"
    ]  # fmt: skip


def edited(folder, **changes):
    path = folder / "evaluation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: edited(folder, version=2), "must be of version 1 or older"),
        (lambda folder: edited(folder, cohort="other"), "got another content than its own_sha256 says"),
        (lambda folder: edited(folder, draws="many"), "draws must be a whole number and is text"),
        (lambda folder: (folder / "evaluation.json").write_text("{"), "one JSON object: got no JSON"),
        (
            lambda folder: pl.read_parquet(folder / "figures.parquet")[:-1].write_parquet(folder / "figures.parquet"),
            "got others as figures.parquet",
        ),
        (lambda folder: (folder / "curves.parquet").write_bytes(b"x"), "got others as curves.parquet"),
        (lambda folder: (folder / "curves.parquet").unlink(), "got curves.parquet, unreadable"),
    ],
)
def test_what_is_not_as_it_was_written_is_refused(folder, change, said):
    change(folder)
    with pytest.raises(ValueError, match=said):
        read_evaluation(folder)


def test_curves_are_what_their_axes_say(found):
    curves = found.curves.filter(model="a")
    assert set(curves["curve"]) == {
        "roc", "precision_recall", "calibration", "decision", "decision_all", "histogram",
        "sensitivity", "specificity", "ppv", "npv", "flagged",
    }  # fmt: skip
    roc = curves.filter(curve="roc")
    assert roc.select("x", "y").rows()[0] == (1, 1) and roc.select("x", "y").rows()[-1] == (0, 0)
    assert roc["n"][0] == 200 and roc["y"].is_sorted(descending=True)
    # By trapezoids, the AUROC.
    area = np.trapezoid(roc["y"].to_numpy()[::-1], roc["x"].to_numpy()[::-1])
    auroc = found.figures.filter(kind="figure", model="a", metric="auroc")["value"].item()
    assert area == pytest.approx(auroc, abs=1e-9)
    assert curves.filter(curve="histogram")["n"].sum() == 200
    for name in ("sensitivity", "ppv", "flagged"):
        at = found.figures.filter(kind="figure", model="a", metric=name, at=0.2)["value"].item()
        assert curves.filter(curve=name, x=0.2)["y"].item() == pytest.approx(at, abs=1e-12)
    decision = found.figures.filter(kind="figure", model="a", metric="net_benefit", at=0.2).row(0, named=True)
    point = curves.filter(curve="decision", x=0.2).row(0, named=True)
    assert (point["y"], point["low"]) == pytest.approx((decision["value"], decision["low"]))
    calibration = curves.filter(curve="calibration")
    assert calibration["low"].null_count() == 0 and (calibration["low"] < calibration["high"]).all()
