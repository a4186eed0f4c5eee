"""The null world: conditions that strike at random, make their own encounters, and touch nothing else."""

import numpy as np

from medbert_jax.simulation.hazards import YEAR, Model
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
    n, first = len(lives.entry), _first_day(parameters)
    begin = np.maximum(first, np.ceil(lives.state.birth))
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
    names = Visits.__dataclass_fields__
    visits = Visits(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
    return visits.where(np.lexsort((visits.admit, visits.patient))), np.stack(onsets, axis=1)


def _first_day(parameters: Parameters) -> float:
    return float((np.datetime64(parameters.site["first_day"]) - np.datetime64("2000-01-01")).astype(int))
