"""What a cohort gives away by its shape: visits, gaps and calendar alone; the leak planted; labels permuted.

    medbert simulate ehr-null --patients 2400000 --world null --seed 1
    python benchmarks/cohort_truth.py ehr-null --cohorts dhf paca --out cohort_truth_null.json
    python benchmarks/cohort_truth.py ehr-null --cohorts dhf-matched dhf-landmark paca-matched --folds 5 \
        --out cohort_truth_null.json
    medbert simulate ehr-rich --patients 1000000
    python benchmarks/cohort_truth.py ehr-rich --cohorts dhf --permutations 20 --leak --out cohort_truth_rich.json

For each cohort, on its test patients: gradient boosting on the shape of the record (visits, codes, days of history,
days since the first diabetes code, calendar year, day of the year, days since the last visit), and logistic regression
on which codes are there. In a null world, where heart failure strikes at random, neither may find anything, unless the
cohort itself puts it there. With --leak the index encounter is left in the input: a pipeline that cannot find *that*
finds nothing. With --permutations the labels are permuted over the whole cohort, before it is split.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import tyro
from provenance import how_simulated, machine
from scipy import sparse
from sklearn.ensemble import HistGradientBoostingClassifier

from medbert_jax.baselines.logistic_regression import CodesLogisticRegression
from medbert_jax.cohorts.loading import load_spec
from medbert_jax.cohorts.select import UNKNOWN, select_cohort
from medbert_jax.ehr.codes import prefix_expression
from medbert_jax.ehr.hashing import SPLITS, assign_split, patient_hash
from medbert_jax.ehr.tables import read_shard, read_source
from medbert_jax.metrics.discrimination import auroc, auroc_delong

SHAPE = ("visits", "codes", "history_days", "days_since_diabetes", "calendar_year", "day_of_year", "last_gap_days")
_DIABETES = ["ICD9CM/250", "ICD10CM/E11"]
_FEWEST = 10  # patients with a code: rarer ones are no column
_KEY = "cohort_truth"


@dataclass(frozen=True)
class Cohort:
    """One row per patient."""

    shape: np.ndarray  # (n, 7) float64, NaN unknown
    codes: sparse.csr_matrix  # (n, codes) of 0 and 1
    label: np.ndarray  # (n,) 0 and 1
    part: np.ndarray  # (n,) 0 training, 1 validation, 2 test; or of so many folds
    censored: int  # patients left out because their label is unknown


@dataclass(frozen=True)
class Split:
    """Who is trained on, who chooses, who is tested, (n,) bool each."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def parts_of(patients: pl.Series, folds: int) -> np.ndarray:
    """(n,) split of every patient where there is one fold, else his fold."""
    if folds == 1:
        return assign_split(patients, key=_KEY)
    return (patient_hash(patients.to_numpy(), _KEY) % np.uint64(folds)).astype(np.int64)


def splits_of(cohort: Cohort, folds: int) -> list[Split]:
    """The split; or, of each fold in turn, the one in which it is tested and the next one chooses."""
    of = [cohort.part == number for number in range(max(folds, len(SPLITS)))]
    if folds == 1:
        return [Split(*of[: len(SPLITS)])]
    pairs = [(of[number], of[(number + 1) % folds]) for number in range(folds)]
    return [Split(~(test | validation), validation, test) for test, validation in pairs]


def read_cohort(ehr: Path, name: str, folds: int, *, with_index: bool = False) -> Cohort:
    """Shape, codes and label of a cohort's patients, from the visits that may be read; `with_index` adds the next.

    Patients whose label is unknown (censored) are left out, and counted. Sets of a matched cohort are drawn within a
    split, or a fold.
    """
    frames, owners, texts, patients, censored = [], [], [], 0, 0
    for shard in range(read_source(ehr).shards):
        tables = read_shard(ehr, shard)
        frame, _ = select_cohort(tables, load_spec(name), parts_of(tables.patients["patient_id"], folds))
        censored += frame.filter(label=UNKNOWN).height
        frame = frame.filter(pl.col("label") != UNKNOWN)
        last = pl.col("index_order") if with_index else pl.col("input_until")
        read = tables.visits.join(frame, on="patient_id").filter(pl.col("order") <= last)
        found = tables.diagnoses.join(
            read.select("patient_id", "visit_id", "admit_time"), on=["patient_id", "visit_id"]
        )
        found = found.with_columns(code=pl.concat_str("code_system", "code", separator="/"))
        ended = pl.coalesce("discharge_time", "admit_time").max()
        diabetes = found.filter(prefix_expression(pl.col("code"), _DIABETES)).group_by("patient_id")
        frame = (
            frame.join(read.group_by("patient_id").agg(visits=pl.len(), first=pl.col("admit_time").min(), ended=ended),
                       on="patient_id", how="left", maintain_order="left")
            .join(found.group_by("patient_id").agg(codes=pl.len()), on="patient_id", how="left", maintain_order="left")
            .join(diabetes.agg(diabetes=pl.col("admit_time").min()), on="patient_id", how="left", maintain_order="left")
        )  # fmt: skip
        time = pl.col("prediction_time")
        days = {"history_days": "first", "days_since_diabetes": "diabetes", "last_gap_days": "ended"}
        frame = frame.with_row_index("row").with_columns(
            *((time - pl.col(of)).dt.total_days().alias(column) for column, of in days.items()),
            # The day of the index, whose prediction time is 1 µs before.
            (time + pl.duration(microseconds=1)).dt.year().alias("calendar_year"),
            (time + pl.duration(microseconds=1)).dt.ordinal_day().alias("day_of_year"),
        )
        pairs = found.join(frame.select("patient_id", "row"), on="patient_id").select("row", "code").unique()
        owners.append(pairs["row"].to_numpy().astype(np.int64) + patients)
        texts.append(pairs["code"])
        frames.append(frame.select("patient_id", "label", pl.col(SHAPE).cast(pl.Float64)))
        patients += frame.height
    frame, owner, text = pl.concat(frames), np.concatenate(owners), pl.concat(texts)
    columns = text.to_frame("code").with_columns(owner=owner).group_by("code").agg(pl.col("owner").n_unique())
    columns = columns.filter(pl.col("owner") >= _FEWEST).sort("code").with_row_index("column")
    place = text.to_frame("code").join(columns, on="code", how="left", maintain_order="left")["column"]
    known = place.is_not_null().to_numpy()
    where = (owner[known], place.drop_nulls().to_numpy())
    codes = sparse.csr_matrix((np.ones(known.sum()), where), shape=(patients, columns.height))
    part = parts_of(frame["patient_id"], folds)
    return Cohort(frame.select(SHAPE).to_numpy(), codes, frame["label"].to_numpy(), part, censored)


def by_shape(cohort: Cohort, label: np.ndarray, split: Split) -> np.ndarray:
    """Scores of all patients by the shape of their records alone."""
    model = HistGradientBoostingClassifier(max_leaf_nodes=8, learning_rate=0.05, early_stopping=True, random_state=0)
    return model.fit(cohort.shape[split.train], label[split.train]).predict_proba(cohort.shape)[:, 1]


def by_codes(cohort: Cohort, label: np.ndarray, split: Split) -> np.ndarray:
    """Scores of all patients by which codes they have."""
    model = CodesLogisticRegression(C_grid=(1e-3, 1e-2, 1e-1, 1.0), tol=1e-4)
    train, held_out = split.train, split.validation
    model.fit(cohort.codes[train], label[train], cohort.codes[held_out], label[held_out])
    return model.decision_function(cohort.codes)


def interval(cohort: Cohort, scores_by: Callable, splits: Sequence[Split]) -> dict:
    """AUROC on the test patients with DeLong's standard error; of several folds the mean, each tested for itself.

    Test patients of the folds are different ones, while their models share training patients; the standard error of
    the mean takes the folds for independent.
    """
    found = [auroc_delong(cohort.label[of.test], scores_by(cohort, cohort.label, of)[of.test]) for of in splits]
    whole = {
        "auroc": float(np.mean([one.auroc for one in found])),
        "standard_error": float(np.linalg.norm([one.standard_error for one in found]) / len(found)),
    }
    return whole | ({"folds": [one.auroc for one in found]} if len(found) > 1 else {})


def permuted(cohort: Cohort, times: int, split: Split) -> dict:
    """Test AUROCs of logistic regression after permuting the labels over the whole cohort, before the split."""
    found = []
    for number in range(times):
        label = np.random.default_rng(number).permutation(cohort.label)
        found.append(auroc(label[split.test], by_codes(cohort, label, split)[split.test]))
    return {"times": times, "mean": float(np.mean(found)), "sd": float(np.std(found, ddof=1)), "aurocs": found}


def main(
    ehr: tyro.conf.Positional[Path],
    /,
    cohorts: tuple[str, ...] = ("dhf", "dhf-matched", "dhf-landmark", "paca", "paca-matched"),
    leak: bool = False,
    permutations: int = 0,
    folds: int = 1,
    out: Path | None = None,
) -> None:
    """Measure and write the JSON.

    Args:
        ehr: folder of EHR tables.
        cohorts: built-in cohorts or YAML files.
        leak: also with the index encounter left in.
        permutations: so many times with permuted labels.
        folds: 1 tests the test split; more let every patient be tested once.
        out: where the figures go besides the terminal; cohorts that are not measured stay as they are there, if they
            are of the same tables.
    """
    source = read_source(ehr)
    said = how_simulated(source.assumptions)
    patients = sum(read_shard(ehr, shard).patients.height for shard in range(source.shards))
    record = {"source": said or source.format, "patients": patients, "content_hash": source.content_hash}
    if out is not None and out.exists():
        before = json.loads(out.read_bytes())
        record = before if before["content_hash"] == source.content_hash else record
    record["machine"] = machine()
    for name in cohorts:
        cohort = read_cohort(ehr, name, folds)
        splits = splits_of(cohort, folds)
        first = {part: int(getattr(splits[0], part).sum()) for part in SPLITS}
        record[name] = {
            "patients": first if folds == 1 else {"all": len(cohort.label)},
            "censored": cohort.censored,
            "cases": int(cohort.label.sum()),
            "test_cases": int(sum(cohort.label[split.test].sum() for split in splits)),
            "shape": interval(cohort, by_shape, splits),
            "codes": interval(cohort, by_codes, splits),
        }
        if leak:
            leaking = read_cohort(ehr, name, folds, with_index=True)
            record[name]["codes_with_the_index_encounter"] = interval(leaking, by_codes, splits_of(leaking, folds))
        if permutations:
            record[name]["permuted"] = permuted(cohort, permutations, splits[0])
        print(json.dumps({name: record[name]}, indent=1), flush=True)
        if out is not None:  # after each, so that what was measured is not lost
            out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
