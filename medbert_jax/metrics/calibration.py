"""How far probabilities are from outcomes: Brier score, log loss, expected calibration error.

Unlike the ranking metrics these are defined where one class alone is present.
"""

import numpy as np
from scipy.special import xlog1py, xlogy

from medbert_jax.metrics.discrimination import check_labels_and_scores


def brier(labels, probabilities) -> float:
    """Mean squared difference between outcome (0 or 1) and probability; 0 is perfect, lower is better."""
    labels, probabilities = _check(labels, probabilities)
    return float(np.mean((labels - probabilities) ** 2))


def log_loss(labels, probabilities) -> float:
    """Mean negative log-likelihood in nats.

    Probabilities are kept one machine epsilon of their own dtype away from 0 and 1, as scikit-learn does,
    so that a certain and wrong prediction is dear and not infinite.
    """
    epsilon = np.finfo(np.result_type(np.asarray(probabilities), np.float16)).eps
    labels, probabilities = _check(labels, probabilities)
    probabilities = np.clip(probabilities, epsilon, 1 - epsilon)
    return float(-np.mean(xlogy(labels, probabilities) + xlog1py(1.0 - labels, -probabilities)))


def expected_calibration_error(labels, probabilities, *, bins: int = 10, strategy: str = "uniform") -> float:
    """Mean over patients of |observed rate − mean probability| of the patient's bin (Naeini et al. 2015).

    strategy "uniform": bins of equal width on [0, 1], closed on the left, the last closed on both sides.
    strategy "quantile": edges at the quantiles of the probabilities; equal probabilities share a bin.
    """
    if bins < 1 or strategy not in ("uniform", "quantile"):
        raise ValueError(
            "calibration bins must be at least 1, their strategy uniform or quantile: "
            f"got bins={bins}, strategy={strategy!r}; use bins=10, strategy='uniform'"
        )
    labels, probabilities = _check(labels, probabilities)
    fractions = np.linspace(0, 1, bins + 1)[1:-1]
    inner_edges = fractions if strategy == "uniform" else np.quantile(probabilities, fractions)
    bin_of = np.searchsorted(inner_edges, probabilities, side="right")
    # Per bin: patients × |rate − mean probability| = |Σ label − Σ probability|; an empty bin adds 0.
    gaps = np.bincount(bin_of, weights=labels - probabilities, minlength=bins)
    return float(np.abs(gaps).sum() / labels.size)


def _check(labels, probabilities) -> tuple[np.ndarray, np.ndarray]:
    labels, probabilities = check_labels_and_scores(labels, probabilities, name="probabilities")
    if not labels.size:
        raise ValueError("a calibration metric needs patients: got 0; check the split that was evaluated")
    outside = np.count_nonzero((probabilities < 0) | (probabilities > 1))
    if outside:
        raise ValueError(
            f"probabilities must lie in [0, 1]: got {outside} of {labels.size} outside; "
            "turn logits into probabilities with a sigmoid first"
        )
    return labels.astype(np.float64), probabilities.astype(np.float64)
