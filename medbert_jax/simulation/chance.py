"""The null world: conditions that strike at random, make their own encounters, and touch nothing else."""

import numpy as np

from medbert_jax.simulation.hazards import YEAR, Model, day_of
from medbert_jax.simulation.life import Lives
from medbert_jax.simulation.parameters import Parameters
from medbert_jax.simulation.visits import OUTPATIENT, Visits


def strike(
    parameters: Parameters, model: Model, lives: Lives, visits: Visits, last: float, rng: np.random.Generator
) -> tuple[Visits, np.ndarray]:
    """Add the encounters of what strikes from the data's first day to their last, at the site or not, until death.

    Returns:
        The visits, and the onsets (n, conditions that strike), NaN where none.
    """
    n = len(lives.entry)
    begin = np.maximum(day_of(parameters.site["first_day"]), np.ceil(lives.state.birth))
    end = np.where(lives.died, lives.end, last)
    onsets, parts = [], [visits]
    for name, rate in parameters.world["random"].items():
        onset = begin + rng.standard_exponential(n) / rate * YEAR
        struck = np.flatnonzero(onset < end)
        onsets.append(np.where(onset < end, onset, np.nan))
        days, (low, high) = parameters.world["days"], parameters.world["between"]
        patient = np.repeat(struck, len(days))
        hour = np.tile(days, len(struck)) + low + (high - low) * rng.random(len(patient))
        admit = np.floor(onset[patient]) + np.round(hour * 1440) / 1440
        keep = admit < end[patient]
        patient, admit = patient[keep], admit[keep]
        m = len(patient)
        parts.append(
            Visits(patient, admit, admit + parameters.world["visit_days"], np.full(m, OUTPATIENT, np.int8),
                   np.full(m, model.place(name)), np.zeros(m, bool), np.zeros(m, bool), np.ones(m, bool))
        )  # fmt: skip
    visits = Visits.concatenate(parts)
    return visits.take(np.lexsort((visits.admit, visits.patient))), np.stack(onsets, axis=1)
