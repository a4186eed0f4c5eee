"""What acting at a risk would do: whom it flags, rightly or not, and the net benefit (Vickers, Elkin 2006).

Who has the threshold's risk or a higher one is flagged. Everything takes weights (…, n), see `weighted_ranks`, and
gives (…,); NaN where nobody is there to be counted.
"""

import numpy as np


def at_risk(labels, probabilities, weights, threshold: float) -> dict[str, np.ndarray]:
    """sensitivity, specificity, ppv, npv, flagged (share), net_benefit, net_benefit_all at one threshold in (0, 1).

    labels (n,) of 0/1, probabilities (n,), weights (…, n). net_benefit is per patient, in cases found: true positives
    less false positives times the odds of the threshold; net_benefit_all is that of flagging everybody, and that of
    nobody is 0.
    """
    if not 0 < threshold < 1:
        raise ValueError(f"a threshold of risk must lie between 0 and 1: got {threshold}; use 0.1, or another")
    labels, flagged = np.asarray(labels, np.float64), np.asarray(probabilities) >= threshold
    parts = np.stack([labels * flagged, labels, (1 - labels) * flagged, 1 - labels], axis=1)
    true, cases, false, controls = np.moveaxis(np.asarray(weights, np.float64) @ parts, -1, 0)
    everybody, odds = cases + controls, threshold / (1 - threshold)
    return {
        "sensitivity": _share(true, cases),
        "specificity": _share(controls - false, controls),
        "ppv": _share(true, true + false),
        "npv": _share(controls - false, everybody - true - false),
        "flagged": _share(true + false, everybody),
        "net_benefit": _share(true - odds * false, everybody),
        "net_benefit_all": _share(cases - odds * controls, everybody),
    }


def decision_curve(labels, probabilities, weights, thresholds) -> tuple[np.ndarray, np.ndarray]:
    """net_benefit and net_benefit_all of `at_risk` at many thresholds (t,) at once: two of (…, t)."""
    labels, weights = np.asarray(labels, np.float64), np.asarray(weights, np.float64)
    flagged = np.asarray(probabilities)[:, None] >= np.asarray(thresholds)
    odds = np.asarray(thresholds) / (1 - np.asarray(thresholds))
    # Of one patient who is flagged: 1 where he is a case, less the odds where he is none.
    worth = labels[:, None] - odds * (1 - labels)[:, None]
    everybody = weights.sum(-1)[..., None]
    return _share(weights @ (worth * flagged), everybody), _share(weights @ worth, everybody)


def _share(part, whole) -> np.ndarray:
    part, whole = np.broadcast_arrays(part, whole)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
