"""Hundreds of conditions without interplay: the reasons of many visits, and what patients have besides."""

import numpy as np

from medbert_jax.simulation.hazards import AGES, YEAR
from medbert_jax.simulation.life import State
from medbert_jax.simulation.parameters import Parameters


class Background:
    """Draws of background conditions by age and sex."""

    def __init__(self, parameters: Parameters):
        listed, settings = parameters.background, parameters.dynamics["background"]
        self.size = len(listed)
        self.follow_ups = np.array([float(one.get("follow_ups", 0.0)) for one in listed])
        years = np.arange(AGES + 1) + 0.5
        weights = np.zeros((2, AGES + 1, self.size))
        for place, one in enumerate(listed):
            start, peak, end = one["age"]
            # A triangle over the ages, and a trickle at its ends.
            rise, fall = max(peak - start, 0.5), max(end - peak, 0.5)
            shape = np.clip(np.minimum((years - start) / rise, (end - years) / fall), 0.0, 1.0)
            shape = np.where((years >= start) & (years <= end), np.maximum(shape, settings["trickle"]), 0.0)
            for sex, name in enumerate(("female", "male")):
                if one["sex"] in ("any", name):
                    weights[sex, :, place] = one["yearly_rate"] * shape
        acute = np.array([one["kind"] == "acute" for one in listed])
        self._acute = _cumulative(weights * acute)
        self._chronic = _cumulative(weights * ~acute)
        total = (weights * ~acute).sum(-1)
        # So many by that age, on average, whatever the rates of the list sum to.
        by_age = np.cumsum(total, axis=1)
        self._expected = by_age / by_age[:, settings["at_age"]].mean() * settings["standing"]

    def draw(self, state: State, patient: np.ndarray, day: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A background condition that is acute, by age and sex (n,) int64."""
        age = np.clip((day - state.birth[patient]) / YEAR, 0, AGES).astype(np.int64)
        return _drawn(self._acute, state.male[patient], age, rng)

    def standing(self, state: State, end: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        """Chronic background conditions up to `end` (n,): patients, conditions, onsets (days)."""
        age = np.clip((end - state.birth) / YEAR, 0, AGES).astype(np.int64)
        counts = rng.poisson(self._expected[state.male, age])
        patient = np.repeat(np.arange(len(end)), counts)
        sex = state.male[patient]
        # Onsets by inversion of what is expected by each age.
        flat = (self._expected / self._expected[:, -1:] + np.arange(2)[:, None]).ravel()
        top = self._expected[sex, age[patient]] / self._expected[sex, -1]
        began = np.searchsorted(flat, sex + rng.random(len(patient)) * top) - sex * (AGES + 1)
        began = np.clip(began, 0, age[patient])
        onset = state.birth[patient] + (began + rng.random(len(patient))) * YEAR
        condition = _drawn(self._chronic, sex, began, rng)
        once = np.unique(patient * (self.size + 1) + condition, return_index=True)[1]
        return patient[once], condition[once], np.minimum(onset, end[patient])[once]


def _cumulative(weights: np.ndarray) -> np.ndarray:
    """Row number + cumulative share within the row, flat over (sex, age)."""
    sums = weights.sum(-1, keepdims=True)
    shares = np.where(sums > 0, weights / np.maximum(sums, 1e-300), 1.0 / weights.shape[-1])
    rows = np.minimum(np.cumsum(shares, axis=-1), 1.0).reshape(-1, weights.shape[-1])
    rows[:, -1] = 1.0
    return (rows + np.arange(len(rows))[:, None]).ravel()


def _drawn(cumulative: np.ndarray, sex: np.ndarray, age: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    row = sex * (AGES + 1) + age
    size = len(cumulative) // (2 * (AGES + 1))
    return np.minimum(np.searchsorted(cumulative, row + rng.random(len(row)), side="right") - row * size, size - 1)
