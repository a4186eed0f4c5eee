"""Effect sizes estimated anew from simulated lives: what was put in must come out.

Waiting times are exponential within a step, so lives are piecewise exponential survival data. One pass adds up the
score S and the information I of every target at the true effects; effects + I⁻¹ S is one step of Newton's method from
the truth, asymptotically the maximum-likelihood estimate, with variance I⁻¹.
"""

from dataclasses import dataclass

import numpy as np

from medbert_jax.simulation.block import World
from medbert_jax.simulation.hazards import ABSENT, YEAR, features, log_hazards
from medbert_jax.simulation.life import advance


@dataclass
class Evidence:
    """Sums over patients and steps, by target."""

    score: dict[int, np.ndarray]  # target → (effects,)
    information: dict[int, np.ndarray]  # target → (effects, effects)
    columns: dict[int, np.ndarray]  # target → features that have an effect on it
    events: np.ndarray  # (targets,)

    def add(self, other: "Evidence") -> "Evidence":
        """The evidence of both."""
        for target in self.columns:
            self.score[target] += other.score[target]
            self.information[target] += other.information[target]
        self.events += other.events
        return self

    def estimates(self, world: World) -> list[tuple[str, str, float, float, float]]:
        """(target, feature, true effect, estimate, standard error) of every effect that the evidence tells apart."""
        model, rows = world.model, []
        names = [*model.conditions, *(f"{family} {places}" for family, places in model.specials)]
        for target, columns in self.columns.items():
            information = self.information[target]
            told = np.diag(information) > 4.0  # about the events that a feature of 0 and 1 meets
            if not told.any():
                continue
            inside = information[np.ix_(told, told)]
            covariance = np.linalg.pinv(inside, hermitian=True)
            step = covariance @ self.score[target][told]
            for column, change, variance in zip(columns[told], step, np.diag(covariance), strict=True):
                true = float(model.weights[column, target])
                if 0 < variance < 0.25:
                    rows.append((model.targets[target], names[column], true, true + change, float(np.sqrt(variance))))
        return rows


def gather(world: World, n: int, rng: np.random.Generator, *, steps: int = 40) -> Evidence:
    """The evidence of n lives in their first `steps` steps at the site."""
    model = world.model
    state, now, _ = world.newcomers(n, rng)
    weights, c = model.weights, len(model.conditions)
    columns = {t: np.flatnonzero(weights[:, t]) for t in range(weights.shape[1]) if np.any(weights[:, t])}
    out = Evidence({t: np.zeros(len(k)) for t, k in columns.items()},
                   {t: np.zeros((len(k), len(k))) for t, k in columns.items()}, columns,
                   np.zeros(weights.shape[1]))  # fmt: skip
    death, leave, visit = (model.place(name) for name in ("death", "leave", "visit"))
    for _ in range(steps):
        if not len(now):
            break
        until = np.minimum(now + np.float32(world.step_days), np.float32(world.last))
        given = features(model, state, now)
        rates = np.exp(log_hazards(model, state, now, given).astype(np.float64))
        ready = np.ones((len(now), weights.shape[1]), bool)
        ready[:, :c] = (state.onset == ABSENT) | model.acute
        events = advance(model, state, now, until, rng, given=given)
        # Under observation until the patient is gone.
        end = until.astype(np.float64)
        final = (events.target == death) | (events.target == leave)
        np.minimum.at(end, events.patient[final], events.day[final])
        seen = events.take(events.day <= end[events.patient])
        exposure = np.repeat((end - now)[:, None], weights.shape[1], axis=1) / YEAR
        first = seen.take(seen.target != visit)
        exposure[first.patient, first.target] = (first.day - now[first.patient]) / YEAR
        expected = np.where(ready, rates * exposure, 0.0)
        happened = np.zeros_like(expected)
        np.add.at(happened, (seen.patient, seen.target), 1.0)
        out.events += happened.sum(0)
        wide = given.astype(np.float64)
        for target, of in columns.items():
            mine = wide[:, of]
            out.score[target] += mine.T @ (happened[:, target] - expected[:, target])
            out.information[target] += (mine * expected[:, target, None]).T @ mine
        stays = (end >= until) & (until < world.last)
        state, now = state.take(stays), until[stays]
    return out
