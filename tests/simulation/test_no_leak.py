"""No cohort tells its outcome: a planted leak is found, and where there is nothing to find nothing is found.

Tens of thousands of simulated patients, and so tens of cases: the bands are wide. benchmarks/cohort_truth.py has the
narrow ones. A leak in a record is the record of later visits, so every test that finds nothing has a twin that reads
these and must find it.
"""

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl
import pytest
from drawn_patients import person, tables_of, visit
from scipy import sparse
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.model_selection import StratifiedKFold, train_test_split

from medbert_jax.baselines.logistic_regression import CodesLogisticRegression
from medbert_jax.cohorts.loading import load_spec
from medbert_jax.cohorts.meds_labels import LabelFolder
from medbert_jax.cohorts.select import select_cohort
from medbert_jax.data.serialization import SerializationConfig, order_histories
from medbert_jax.ehr.codes import prefix_expression
from medbert_jax.ehr.tables import read_shard, read_source
from medbert_jax.metrics.discrimination import AurocInterval, auroc, auroc_delong
from medbert_jax.simulation.simulate import simulate

CUT = pl.col("order") <= pl.col("input_until")
WITH_INDEX = CUT | (pl.col("order") <= pl.col("index_order"))
WITH_OUTCOME = CUT | (
    (pl.col("label") == 1) & (pl.col("admit_time") <= pl.col("prediction_time") + pl.duration(days=365))
)


@dataclass(frozen=True)
class Records:
    """One row per patient of a cohort."""

    shape: np.ndarray  # visits, codes, days since the first, since diabetes, since the last; calendar year
    codes: sparse.csr_matrix  # which codes and which categories are there
    label: np.ndarray


@pytest.fixture(scope="module")
def rich(tmp_path_factory):
    return simulated(tmp_path_factory, "rich", 40_000)


@pytest.fixture(scope="module")
def null(tmp_path_factory):
    return simulated(tmp_path_factory, "null", 60_000)


@pytest.fixture(scope="module")
def dhf(rich):
    return read(rich, "dhf")


def simulated(tmp_path_factory, world: str, patients: int):
    folder = tmp_path_factory.mktemp(world)
    simulate(folder, patients=patients, world=world, seed=1, workers=1, announce=lambda line: None)
    return folder


def read(ehr, name: str, readable: pl.Expr = CUT) -> Records:
    """What the visits of a cohort's patients hold, of those that `readable` says may be read."""
    frames, codes = [], []
    for shard in range(read_source(ehr).shards):
        tables = read_shard(ehr, shard)
        frame, _ = select_cohort(tables, load_spec(name))
        frame = frame.filter(pl.col("label") >= 0)  # nobody knows of the censored
        visits = tables.visits.join(frame, on="patient_id").filter(readable)
        found = tables.diagnoses.join(
            visits.select("visit_id", "patient_id", "admit_time"), on=["patient_id", "visit_id"]
        )
        found = found.with_columns(code=pl.concat_str("code_system", "code", separator="/"))
        diabetes = found.filter(prefix_expression(pl.col("code"), ["ICD9CM/250", "ICD10CM/E11"]))
        ended = pl.coalesce("discharge_time", "admit_time").max().alias("ended")
        for counts in (
            visits.group_by("patient_id").agg(
                pl.len().alias("visits"), pl.col("admit_time").min().alias("began"), ended
            ),
            found.group_by("patient_id").agg(pl.len().alias("codes")),
            diabetes.group_by("patient_id").agg(pl.col("admit_time").min().alias("diabetes")),
        ):
            frame = frame.join(counts, on="patient_id", how="left", maintain_order="left")
        time = pl.col("prediction_time")
        days = ((time - pl.col(since)).dt.total_days().alias(since) for since in ("began", "diabetes", "ended"))
        frames.append(frame.select("patient_id", "label", "visits", "codes", *days, year=time.dt.year()))
        # Many codes of heart failure are rare: without their categories what is in plain sight is not recognised.
        category = pl.col("code").str.split(".").list.first()
        codes += [found.select("patient_id", "code"), found.select("patient_id", category)]
    frame = pl.concat(frames).with_row_index("row")
    pairs = pl.concat(codes).unique().join(frame.select("patient_id", "row"), on="patient_id")
    columns = pairs.group_by("code").len().filter(pl.col("len") >= 3).sort("code").with_row_index("column")
    pairs = pairs.join(columns, on="code").sort("row", "column")
    where = (pairs["row"].to_numpy(), pairs["column"].to_numpy())
    matrix = sparse.csr_matrix((np.ones(pairs.height), where), shape=(frame.height, columns.height))
    return Records(
        frame.drop("row", "patient_id", "label").cast(pl.Float64).fill_null(-1).to_numpy(),
        matrix,
        frame["label"].to_numpy(),
    )


def regression() -> CodesLogisticRegression:
    return CodesLogisticRegression(C_grid=(0.3,), tol=1e-4)


def boosting() -> GradientBoostingClassifier:
    return GradientBoostingClassifier(n_estimators=50, max_depth=3, min_samples_leaf=5, random_state=0)


def cross_validated(model, features, label: np.ndarray) -> float:
    """AUROC, the mean of five folds: every case is a test case once."""
    folds = StratifiedKFold(5, shuffle=True, random_state=0).split(label, label)
    return float(np.mean([
        auroc(label[test], model().fit(features[train], label[train]).decision_function(features[test]))
        for train, test in folds
    ]))  # fmt: skip


def held_out(model, features, label: np.ndarray, seed: int = 0) -> AurocInterval:
    """AUROC on one half of the patients of a model of the other half.

    Not of folds: in these each patient serves both sides, and what is found by chance adds up over them.
    """
    train, test = train_test_split(np.arange(len(label)), test_size=0.5, stratify=label, random_state=seed)
    fitted = model().fit(features[train], label[train])
    return auroc_delong(label[test], fitted.decision_function(features[test]))


def tells_nothing(found: AurocInterval) -> bool:
    return abs(found.auroc - 0.5) <= 3 * found.standard_error


def test_the_index_encounter_would_tell_and_is_cut(rich, dhf):
    leaking = read(rich, "dhf", WITH_INDEX)
    assert dhf.label.sum() == leaking.label.sum() > 80
    told = cross_validated(regression, leaking.codes, leaking.label)
    fair = cross_validated(regression, dhf.codes, dhf.label)
    assert told >= 0.97
    assert 0.6 < fair < told - 0.1


@pytest.mark.slow  # what is deterministic about it: test_nothing_later_is_read.py of the cohorts
@pytest.mark.parametrize(("name", "leak"), [("dhf-matched", WITH_INDEX), ("dhf-landmark", WITH_OUTCOME)])
def test_where_heart_failure_strikes_at_random_nothing_is_found(null, name, leak):
    """Some tens of cases: a large leak is seen, a small one only by benchmarks/cohort_truth.py on millions."""
    fair, leaking = read(null, name), read(null, name, leak)
    assert fair.label.sum() == leaking.label.sum() > 15
    for model, what in ((boosting, "shape"), (regression, "codes")):
        nothing, all_of_it = (held_out(model, getattr(one, what), one.label) for one in (fair, leaking))
        assert tells_nothing(nothing), what
        assert not tells_nothing(all_of_it) and all_of_it.auroc > 0.8, what


def test_labels_permuted_before_the_split_teach_nothing(dhf):
    labels = [np.random.default_rng(number).permutation(dhf.label) for number in range(5)]
    found = [held_out(regression, dhf.codes, label, seed) for seed, label in enumerate(labels)]
    error = np.sqrt(sum(one.standard_error**2 for one in found)) / len(found)
    assert abs(np.mean([one.auroc for one in found]) - 0.5) <= 3 * error
    assert not tells_nothing(held_out(regression, dhf.codes, dhf.label))


HF, OTHER = "ICD9CM/428.0", "ICD9CM/786.05"
"""The outcome, and a code that is read wherever the outcome could be."""
START = (visit("2010-01-01", "250.00"), visit("2010-02-01", "250.00"))
INDEX = ("2011-01-01T00:00", "2011-01-01T12:00")
"""Of dhf-landmark: the prediction is made at its end, noon."""
BY_THEN = [("2010-12-31T22:00", "2010-12-31T23:59"), INDEX]
FROM_THEN_ON = [("2011-01-01T12:00", "2011-01-01T12:00"), ("2011-01-01T12:01", "2011-01-01T12:30"),
                ("2011-01-02T00:00", "2011-01-02T00:01")]  # fmt: skip


def seen(tables, spec) -> tuple[pl.DataFrame, dict[str, set[str]]]:
    """The cohort, and the codes of its patients' sequences."""
    frame, _ = select_cohort(tables, spec)
    sequences, codes, _ = order_histories(tables, SerializationConfig(minimum_codes=1), until=frame)
    bounds = zip(sequences.code_offsets[:-1], sequences.code_offsets[1:], strict=True)
    return frame, {
        patient.decode(): set(codes[sequences.code_ids[start:end]].tolist())
        for patient, (start, end) in zip(sequences.patient_id, bounds, strict=True)
    }


@pytest.mark.parametrize("at", [*BY_THEN, *FROM_THEN_ON])
def test_landmark_sees_a_code_up_to_the_prediction_and_the_outcome_never(at):
    def with_code(code):
        visits = {INDEX: "401.9"} | {at: f"{'401.9 ' if at == INDEX else ''}{code}"}
        drawn = (visit(begin, codes, discharge=end) for (begin, end), codes in sorted(visits.items()))
        return person(*START, *drawn, drugs=[("2010-03-01", "metformin")])

    tables = tables_of({"a case": with_code(HF), "another": with_code(OTHER)})
    frame, codes = seen(tables, load_spec("dhf-landmark"))
    assert (OTHER in codes["another"]) is (at in BY_THEN)
    # Heart failure by the day of the prediction: out. From the next day on: a case, whose code is not read.
    assert dict(frame.select("patient_id", "label").iter_rows()) == (
        {"a case": 1, "another": 0} if at == FROM_THEN_ON[-1] else {"another": 0}
    )
    assert not any(HF in theirs for theirs in codes.values())


@pytest.mark.parametrize(
    ("begin", "end", "is_seen"),
    [
        ("2010-03-01T08:00", "2010-03-01T11:59", True),
        ("2010-03-01T08:00", "2010-03-01T12:00", True),
        ("2010-03-01T12:00", "2010-03-01T12:00", True),
        ("2010-03-01T08:00", "2010-03-01T12:01", False),
        ("2010-03-01T12:00", "2010-03-01T12:01", False),
        ("2010-03-01T12:01", "2010-03-01T12:02", False),
    ],
)
def test_given_labels_see_what_was_over_at_their_time(tmp_path, begin, end, is_seen):
    (tmp_path / "labels").mkdir()
    labels = {"subject_id": [1], "prediction_time": [datetime(2010, 3, 1, 12)], "boolean_value": [True]}
    labels = pl.DataFrame(labels).with_columns(pl.col("prediction_time").cast(pl.Datetime("us")))
    labels.write_parquet(tmp_path / "labels" / "0.parquet")
    tables = tables_of({"1": person(*START, visit(begin, HF, discharge=end))})
    _, codes = seen(tables, LabelFolder.find(tmp_path / "labels"))
    assert (HF in codes["1"]) is is_seen
