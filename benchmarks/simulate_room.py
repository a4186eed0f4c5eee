"""How much the hidden truth holds beyond a bag of codes: oracle, references and regression on `dhf-landmark`.

    python benchmarks/simulate_room.py --work FOLDER --patients 1000000

The oracle is the probability of the label given the hidden state at the landmark, by living on from it 200 times. It
is computed for test patients alone. Ablation: the log hazard at the landmark without one family of effects; its loss of
AUROC against that of the whole, as a share of the distance between the oracle and regression, with intervals by the
bootstrap over patients. What order is worth: records whose visits have changed their days among each other, and hidden
events that have, scored by what was learned in the true order, and by boosting that was trained anew on them. A tenth
of the patients that a site has are in the cohort at most, so that this needs many.
"""

import json
from pathlib import Path

import numpy as np
import tyro
from landmark_rows import TARGET, Rows, collect
from provenance import machine, simulated_by
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from medbert_jax.ehr.tables import read_source
from medbert_jax.metrics.discrimination import auroc, auroc_delong
from medbert_jax.simulation.block import World
from medbert_jax.simulation.parameters import load_parameters
from medbert_jax.simulation.simulate import simulate
from medbert_jax.simulation.truth import check_truth

SEEN, HIDDEN = "boosting on codes and dates", "boosting on hidden state and codes and dates"


def main(
    work: Path,
    patients: int = 600_000,
    seed: int = 0,
    workers: int = 2,
    replicates: int = 200,
    oracle_patients: int = 12_000,
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
    test = rows.split == 2
    known = np.isfinite(rows.oracle).all(1)
    some = test & known
    print(f"{int((rows.tried & ~known).sum())} of {int(rows.tried.sum())} patients have no future: left out")
    seen, hidden = (rows.observed,), (rows.log_hazard[:, None], rows.person, rows.features, rows.observed)
    models = {SEEN: boosting(rows, *seen), HIDDEN: boosting(rows, *hidden)}
    scores = {"LR on codes": regression(rows)}
    scores |= {name: chance(models[name], *columns) for name, columns in ((SEEN, seen), (HIDDEN, hidden))}
    scores |= {"log hazard": rows.log_hazard, "oracle": rows.oracle.mean(1)}
    mixed = {
        SEEN: (rows.permuted_observed,),
        HIDDEN: (rows.permuted_log_hazard[:, None], rows.person, rows.permuted_features, rows.permuted_observed),
    }
    permuted = {f"{name}, trained anew": chance(boosting(rows, *given), *given) for name, given in mixed.items()}
    permuted |= {name: chance(models[name], *given) for name, given in mixed.items()}
    permuted["log hazard"] = rows.permuted_log_hazard
    record = {
        **simulated_by(world.parameters),
        "machine": machine(),
        "patients": patients,
        "seed": seed,
        "replicates": replicates,
        "content_hash": read_source(work / "ehr").content_hash,
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
    record["distance"] = record["expected_auroc"]["oracle"] - record["expected_auroc"]["LR on codes"]
    record["families"] = ablation(world, rows, some, scores["LR on codes"])
    record["order_permuted"] = {name: expected_auroc(truth[some], score[some]) for name, score in permuted.items()}
    print(
        json.dumps({key: record[key] for key in ("expected_auroc", "order_permuted", "distance", "families")}, indent=1)
    )
    out.write_text(json.dumps(record, indent=1) + "\n")


def boosting(rows: Rows, *columns: np.ndarray) -> HistGradientBoostingClassifier:
    """Gradient-boosted trees on the columns, learned from the training patients."""
    given, train = np.hstack(columns), rows.split == 0
    settings = {"max_iter": 300, "learning_rate": 0.05, "max_leaf_nodes": 15, "random_state": 0}
    model = HistGradientBoostingClassifier(**settings, early_stopping=True)
    return model.fit(given[train], rows.label[train])


def chance(model: HistGradientBoostingClassifier, *columns: np.ndarray) -> np.ndarray:
    """The model's probability (n,)."""
    return model.predict_proba(np.hstack(columns))[:, 1]


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


def ablation(world: World, rows: Rows, some: np.ndarray, regression: np.ndarray, draws: int = 500) -> dict:
    """By family: what the log hazard loses without it, in AUROC expected under the oracle, with 95 % intervals.

    Losses are shares of the distance of the oracle, one half of its futures judged by the other, from `regression`.
    """
    weights = world.model.weights[:, world.model.place(TARGET)]
    columns: dict[str, list[int]] = {"presence": list(range(len(world.model.conditions)))}
    for place, (family, _) in enumerate(world.model.specials, start=len(world.model.conditions)):
        columns.setdefault(family, []).append(place)
    parts = {family: rows.features[:, places] @ weights[places] for family, places in columns.items()}
    parts["age and sex"] = rows.log_hazard - rows.features @ weights
    parts["all of order in time"] = sum(parts[family] for family in ("order", "duration", "recency"))
    without = {family: rows.log_hazard - part for family, part in parts.items() if part[some].std() > 0}

    def losses(of: np.ndarray) -> tuple[dict[str, float], float]:
        truth = rows.oracle[of].mean(1)
        oracle = np.mean([expected_auroc(rows.oracle[of, one], rows.oracle[of, 1 - one]) for one in (0, 1)])
        whole = expected_auroc(truth, rows.log_hazard[of])
        distance = oracle - expected_auroc(truth, regression[of])
        return {family: whole - expected_auroc(truth, score[of]) for family, score in without.items()}, distance

    rng, patients = np.random.default_rng(0), np.flatnonzero(some)
    drawn = [losses(rng.choice(patients, len(patients))) for _ in range(draws)]
    loss, distance = losses(patients)
    return {
        family: {
            "spread": float(parts[family][some].std()),
            "loss": loss[family],
            "share_of_distance": loss[family] / distance,
            "share_interval": np.quantile([one[family] / far for one, far in drawn], (0.025, 0.975)).tolist(),
        }
        for family in without
    }


if __name__ == "__main__":
    tyro.cli(main)
