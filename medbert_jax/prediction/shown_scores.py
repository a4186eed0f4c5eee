"""Scores as they are printed: what the numbers are, how they are spread, what a threshold would flag."""

import numpy as np

from medbert_jax.prediction.predictor import Predictor
from medbert_jax.prediction.score import Scores
from medbert_jax.prediction.stored_scores import reason
from medbert_jax.printed_tables import Table

_FEW = 5
"""Predictions that are shown one by one."""


def score_tables(scores: Scores, predictor: Predictor) -> list[Table]:
    """The tables that have rows."""
    rows = scores.rows
    if rows.is_empty():
        return []
    name = "recalibrated_probability" if predictor.is_risk else "probability"
    tables = [_each(scores, predictor)] if len(rows) <= _FEW else [_spread(scores, predictor, rows[name].to_numpy())]
    if predictor.is_risk and len(rows) > _FEW:
        tables.append(_at_thresholds(predictor, rows[name].to_numpy()))
    return tables


def notes(scores: Scores, predictor: Predictor) -> tuple[str, ...]:
    """What has to be known beside the numbers."""
    about, codes = predictor.about, int(scores.rows["codes"].sum())
    days = about["design"]["horizon_days"]
    train, by = about["train"], about["validation"]["recalibration"]
    unknown = int(scores.rows["unknown_codes"].sum())
    said = [
        f"{unknown:,} of {codes:,} codes are unknown to the vocabulary ({unknown / max(codes, 1):.1%})",
        f"trained on {train['predictions']:,} predictions, {train['cases']:,} of them cases",
        *scores.said,
    ]
    if predictor.is_risk:
        within = f" within {days} days" if days is not None else ""
        why = f": {by['why']}" if by["why"] else ""
        return (f"risks{within}, recalibrated on {about['validation']['predictions']:,} validation predictions"
                f" ({by['kind']}{why})", *said)  # fmt: skip
    return f"scores and no risks, without thresholds: {reason(predictor)}", *said


def _each(scores: Scores, predictor: Predictor) -> Table:
    """A row for each prediction."""
    rows = []
    for row in scores.rows.iter_rows(named=True):
        cells = [row["subject_id"], f"{row['prediction_time']:%Y-%m-%d}", f"{row['probability']:.4f}"]
        if predictor.is_risk:
            cells += [f"{row['recalibrated_probability']:.4f}", str(row["percentile"])]
        rows.append((*cells, str(row["codes"]), str(row["unknown_codes"])))
    of_risk = ("risk", "percentile") if predictor.is_risk else ()
    columns = ("patient", "predicted", "probability" if predictor.is_risk else "score", *of_risk, "codes", "unknown")
    return Table(predictor.question, columns, tuple(rows), "<<" + ">" * (len(columns) - 2), notes(scores, predictor))


def _spread(scores: Scores, predictor: Predictor, values: np.ndarray) -> Table:
    shares = (0, 0.25, 0.5, 0.75, 0.9, 0.99, 1)
    cells = tuple(f"{value:.4f}" for value in np.quantile(values, shares))
    columns = ("", "predictions", "least", "25 %", "50 %", "75 %", "90 %", "99 %", "largest")
    what = "risk" if predictor.is_risk else "score"
    row = (what, f"{len(values):,}", *cells)
    return Table(predictor.question, columns, (row,), "<" + ">" * (len(columns) - 1), notes(scores, predictor))


def _at_thresholds(predictor: Predictor, risks: np.ndarray) -> Table:
    """What flagging at a risk does among the validation patients, and whom it would flag here."""
    names = ("flagged", "sensitivity", "specificity", "ppv", "npv")
    rows = []
    for one in predictor.about["validation"]["thresholds"]:
        told = (f"{one[name]:.3f}" if one[name] is not None else "–" for name in names)
        rows.append((f"{one['risk']:.4f}", f"{np.mean(risks >= one['risk']):.3f}", *told))
    columns = ("risk", "flagged here", "flagged", "sensitivity", "specificity", "PPV", "NPV")
    note = f"but for the second column of {predictor.about['validation']['predictions']:,} validation predictions"
    return Table("At thresholds", columns, tuple(rows), ">" * len(columns), (note,))
