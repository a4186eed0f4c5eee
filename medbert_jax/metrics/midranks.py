"""Ranks with ties."""

import numpy as np


def midranks(scores) -> np.ndarray:
    """The rank of each score, (n,) float64 from 1; equal ones have the mean of theirs, a multiple of one half."""
    # Here, because it takes a second to import, for which no training need wait.
    from scipy.stats import rankdata

    return rankdata(scores)
