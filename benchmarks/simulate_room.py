"""How much the hidden truth holds beyond a bag of codes: oracle, references and regression on `dhf-landmark`.

    python benchmarks/simulate_room.py --work FOLDER --patients 1000000

The oracle is the probability of the label given the hidden state at the landmark, by living on from it 200 times. It
is computed for test patients alone. Ablation: the log hazard at the landmark without one family of effects; its loss of
AUROC against that of the whole, as a share of the distance between the oracle and regression. A tenth of the patients
that a site has are in the cohort at most, so that this needs many.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import tyro
from scipy import sparse
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from medbert_jax.cohorts.select import select_cohort
from medbert_jax.cohorts.spec import load_spec
from medbert_jax.ehr.hashing import assign_split
from medbert_jax.ehr.tables import read_shard, read_source
from medbert_jax.metrics.discrimination import auroc, auroc_delong
from medbert_jax.simulation.block import World
from medbert_jax.simulation.hazards import features, log_hazards
from medbert_jax.simulation.oracle import log_hazard_at, probability_within_year, state_at
from medbert_jax.simulation.parameters import load_parameters
from medbert_jax.simulation.simulate import simulate
from medbert_jax.simulation.truth import check_truth, read_past

_EPOCH = np.datetime64("2000-01-01", "us")
_TARGET = "heart_failure"


@dataclass(frozen=True)
class Rows:
    """One row per patient of the cohort."""

    label: np.ndarray
    split: np.ndarray
    codes: sparse.csr_matrix
    observed: np.ndarray  # hand-made: order, duration, recency, counts; from codes and dates alone
    features: np.ndarray  # of the hidden state
    log_hazard: np.ndarray
    permuted: np.ndarray  # the log hazard where each patient's events have changed their days among each other
    oracle: np.ndarray  # (n, 2) from two halves of the futures; NaN where not tried, or where no future was possible
    tried: np.ndarray  # whether the oracle was


def main(
    work: Path,
    patients: int = 600_000,
    seed: int = 0,
    workers: int = 2,
    replicates: int = 200,
    oracle_patients: int = 6_000,
    everyone: bool = False,
    out: Path = Path(__file__).parent / "results" / "simulate_room.json",
) -> None:
    """Simulate (unless `work` has it), select, score, print, write the JSON.

    Args:
        work: folder for tables and truth; those that are there are taken, if they are of these parameters, patients
            and seed.
        patients: simulated.
        seed: of simulation and oracle.
        workers: processes of the simulation.
        replicates: futures per patient, twice.
        oracle_patients: patients at most for whom the oracle is computed.
        everyone: compute the oracle for patients of all splits: for its calibration. AUROC then is of the test split.
        out: where the figures go.
    """
    world = World(load_parameters())
    if not (work / "ehr" / "source.json").exists():
        simulate(work / "ehr", patients=patients, seed=seed, workers=workers, truth=work / "truth")
    check_truth(world, work / "truth", read_source(work / "ehr"), seed=seed, patients=patients)
    rows = collect(world, work, replicates, oracle_patients, everyone, np.random.default_rng(seed))
    train, test = rows.split == 0, rows.split == 2
    known = np.isfinite(rows.oracle).all(1)
    some = test & known
    print(f"{int((rows.tried & ~known).sum())} of {int(rows.tried.sum())} patients have no future: left out")
    scores = {"LR on codes": regression(rows)}
    settings = {"max_iter": 300, "learning_rate": 0.05, "max_leaf_nodes": 15, "random_state": 0}
    for name, columns in (
        ("boosting on codes and dates", rows.observed),
        ("boosting on hidden state and codes and dates", np.hstack([rows.features, rows.observed])),
    ):
        model = HistGradientBoostingClassifier(**settings, early_stopping=True)
        scores[name] = model.fit(columns[train], rows.label[train]).predict_proba(columns)[:, 1]
    scores["log hazard"], scores["oracle"] = rows.log_hazard, rows.oracle.mean(1)
    record = {
        "parameters": world.parameters.hash,
        "patients": patients,
        "cohort": {
            name: int((rows.split == place).sum()) for place, name in enumerate(("train", "validation", "test"))
        },
        "cases": int(rows.label.sum()),
        "oracle_tried": int(rows.tried.sum()),
        "oracle_without_future": int((rows.tried & ~known).sum()),
        "oracle_known": int(known.sum()),
        "cases_expected": float(rows.oracle[known].mean(1).sum()),
        "cases_seen": int(rows.label[known].sum()),
        "oracle_patients": int(some.sum()),
        "oracle_mean": float(rows.oracle[some].mean()),
        "label_mean": float(rows.label[some].mean()),
        "auroc": {},
    }
    for name, score in scores.items():
        one = auroc_delong(rows.label[some], score[some])
        record["auroc"][name] = {"auroc": one.auroc, "standard_error": one.standard_error}
        print(f"{name:46} {one.auroc:.4f} ± {one.standard_error:.4f}")
    # What the truth expects of a score, free of the labels' own chance.
    # The oracle's own chance must not count for it: one half of the futures judges the other.
    truth = rows.oracle.mean(1)
    record["expected_auroc"] = {name: expected_auroc(truth[some], score[some]) for name, score in scores.items()}
    halves = [expected_auroc(rows.oracle[some, one], rows.oracle[some, 1 - one]) for one in (0, 1)]
    record["expected_auroc"]["oracle"] = float(np.mean(halves))
    best = max(record["expected_auroc"][name] for name in ("oracle", "log hazard"))
    distance = best - record["expected_auroc"]["LR on codes"]
    record["distance"] = distance  # of the higher of oracle and log hazard from regression
    record["families"] = ablation(world, rows, some, distance)
    record["order_permuted"] = expected_auroc(truth[some], rows.permuted[some])
    print(
        json.dumps({key: record[key] for key in ("expected_auroc", "order_permuted", "distance", "families")}, indent=1)
    )
    out.write_text(json.dumps(record, indent=1) + "\n")


def regression(rows: Rows) -> np.ndarray:
    """Log odds (n,) of logistic regression on which codes are there, its penalty chosen on the validation split."""
    train, valid = rows.split == 0, rows.split == 1
    common = np.asarray(rows.codes[train].sum(0)).ravel() >= 5
    codes, best = rows.codes[:, common], (0.0, None)
    for penalty in (0.001, 0.003, 0.01, 0.03, 0.1, 0.3):
        model = LogisticRegression(C=penalty, max_iter=500).fit(codes[train], rows.label[train])
        score = model.decision_function(codes)
        best = max(best, (auroc(rows.label[valid], score[valid]), penalty), key=lambda one: one[0])
        if best[1] == penalty:
            chosen = score
    return chosen


def expected_auroc(probability: np.ndarray, score: np.ndarray) -> float:
    """AUROC of a score where each patient is a case with his own probability (n,), ties aside."""
    order = np.argsort(score, kind="stable")
    case, control = probability[order], 1 - probability[order]
    return float((case * (np.cumsum(control) - 0.5 * control)).sum() / (case.sum() * control.sum()))


def ablation(world: World, rows: Rows, some: np.ndarray, distance: float) -> dict[str, dict[str, float]]:
    """By family: what the log hazard loses without it, in AUROC expected under the oracle."""
    weights = world.model.weights[:, world.model.place(_TARGET)]
    columns: dict[str, list[int]] = {"presence": list(range(len(world.model.conditions)))}
    for place, (family, _) in enumerate(world.model.specials, start=len(world.model.conditions)):
        columns.setdefault(family, []).append(place)
    truth = rows.oracle.mean(1)[some]
    whole = expected_auroc(truth, rows.log_hazard[some])
    parts = {family: rows.features[:, places] @ weights[places] for family, places in columns.items()}
    parts["age and sex"] = rows.log_hazard - rows.features @ weights
    parts["all of order in time"] = sum(parts[family] for family in ("order", "duration", "recency"))
    found = {}
    for family, part in parts.items():
        loss = whole - expected_auroc(truth, (rows.log_hazard - part)[some])
        found[family] = {"spread": float(part[some].std()), "loss": loss, "share_of_distance": loss / distance}
    return found


def collect(world: World, work: Path, replicates: int, most: int, everyone: bool, rng: np.random.Generator) -> Rows:
    """The cohort, shard by shard."""
    source, spec = read_source(work / "ehr"), load_spec("dhf-landmark")
    parts, left = [], most
    texts = [f"{('ICD9CM', 'ICD10CM')[s]}/{c}" for c, s in zip(world.book.codes, world.book.system, strict=True)]
    place = {text: number for number, text in enumerate(texts)}
    means = condition_of(world)
    for shard in range(source.shards):
        tables = read_shard(work / "ehr", shard)
        frame, _ = select_cohort(tables, spec)
        ids = frame["patient_id"].to_list()
        t0 = (frame["prediction_time"].to_numpy() - _EPOCH) / np.timedelta64(1, "D")
        past = read_past(world, work / "truth", source, shard, ids)
        state = state_at(world, past, t0.astype(np.float32))
        hidden = features(world.model, state, t0.astype(np.float32))
        target = world.model.place(_TARGET)
        hazard = log_hazards(world.model, state, t0.astype(np.float32), hidden)[:, target]
        permuted = log_hazard_at(world, past.in_random_order(t0, rng), t0, _TARGET)
        split = assign_split(ids, key="room")
        oracle = np.full((len(ids), 2), np.nan)
        chosen = np.flatnonzero(everyone | (split == 2))[:left]
        left -= len(chosen)
        if len(chosen):
            mine = past.take(chosen)
            for half in (0, 1):
                oracle[chosen, half] = probability_within_year(world, mine, t0[chosen], rng, replicates=replicates)
        tried = np.isin(np.arange(len(ids)), chosen)
        read = tables.visits.join(frame.with_row_index("row"), on="patient_id")
        read = read.filter(pl.col("order") <= pl.col("input_until"))
        read = read.select("row", "patient_id", "visit_id", "admit_time", "length_of_stay", "prediction_time")
        found = tables.diagnoses.join(read, on=["patient_id", "visit_id"])
        code = (found["code_system"] + "/" + found["code"]).replace_strict(place, return_dtype=pl.Int64).to_numpy()
        row = found["row"].to_numpy().astype(np.int64)
        codes = sparse.csr_matrix((np.ones(len(row), np.float32), (row, code)), (len(ids), len(texts)))
        codes.data[:] = 1.0
        since = (found["prediction_time"] - found["admit_time"]).dt.total_days().to_numpy().astype(np.float32)
        seen = by_hand(row, means[code], since, read, len(ids), len(world.model.conditions))
        parts.append(Rows(frame["label"].to_numpy(), split, codes, seen, hidden, hazard, permuted, oracle, tried))
    names = Rows.__dataclass_fields__
    joined = {name: [getattr(part, name) for part in parts] for name in names}
    return Rows(
        **{name: sparse.vstack(v).tocsr() if name == "codes" else np.concatenate(v) for name, v in joined.items()}
    )


def condition_of(world: World) -> np.ndarray:
    """The condition that a code stands for most (codes,), −1 for those of the background."""
    best, out = np.zeros(len(world.book.codes)), np.full(len(world.book.codes), -1)
    places = {
        (s, c): n for n, (s, c) in enumerate(zip(world.book.system.tolist(), world.book.codes.tolist(), strict=True))
    }
    for condition, name in enumerate(world.model.conditions):
        for system, key in enumerate(("ICD9CM", "ICD10CM")):
            for code, weight in (world.parameters.coding.get(name, {}).get(key) or {}).items():
                at = places.get((system, str(code)))
                if at is not None and weight > best[at]:
                    best[at], out[at] = weight, condition
    return out


def by_hand(row, condition, since, visits: pl.DataFrame, n: int, conditions: int) -> np.ndarray:
    """Per condition: days since the first and last mention, mentions, mentions discounted by days; visit intensity."""
    known = condition >= 0
    row, condition, since = row[known], condition[known], since[known]
    first, last = np.full((n, conditions), -1, np.float32), np.full((n, conditions), 1e6, np.float32)
    np.maximum.at(first, (row, condition), since)
    np.minimum.at(last, (row, condition), since)
    count, recent = np.zeros((n, conditions), np.float32), np.zeros((n, conditions), np.float32)
    np.add.at(count, (row, condition), 1)
    np.add.at(recent, (row, condition), np.exp(-since / 200))
    owner = visits["row"].to_numpy().astype(np.int64)
    days = (visits["prediction_time"] - visits["admit_time"]).dt.total_days().to_numpy()
    stay = visits["length_of_stay"].fill_null(0).to_numpy()
    often = [np.bincount(owner, days < within, n) for within in (30, 90, 180, 365, 1e9)]
    often.append(np.bincount(owner, stay * (days < 365), n))
    out = np.hstack([first, last, count, recent, np.stack(often, 1)]).astype(np.float32)
    return out


if __name__ == "__main__":
    tyro.cli(main)
