"""Log hazards of every condition, of death, visits and leaving, as a linear function of features of the state.

log hazard (n, T) = base(age, sex) + features (n, K) · weights (K, T). The first C features are the presence of the C
conditions; the others are those that some effect names, of the families order, duration, recency, stage, trait, …
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from medbert_jax.simulation.parameters import Effect, Parameters

YEAR = 365.25
AGES = 110
NEVER = np.float32(-40.0)
"""Log hazard of what cannot happen."""
ABSENT = np.float32(1e9)
"""Onset of what has not begun."""
_EPOCH = np.datetime64("2000-01-01")
"""Day 0 of every time in the simulation, which are days as float32 (exact to minutes)."""


@dataclass(frozen=True)
class Model:
    """What the hazards of one site and world are made of."""

    conditions: tuple[str, ...]
    targets: tuple[str, ...]
    """The conditions, then death, visit, leave."""
    base: np.ndarray
    """(2, AGES + 1, T) float32: female, male."""
    weights: np.ndarray
    """(K, T) float32."""
    specials: tuple[tuple[str, tuple[int, ...]], ...]
    """(family, places) of the features after presence."""
    recurrent: np.ndarray
    """Conditions whose past events are summed, in the columns of `State.recent`."""
    acute: np.ndarray
    """(C,) bool: can strike again."""
    keeps: np.ndarray
    """(C,) bool: acute, but matters for life."""
    stages: dict[int, tuple[float, float, int, int]]
    """condition → pace per year, spread, trait, highest stage."""
    recency_days: float
    years: bool
    """Whether the calendar is among the features."""

    def place(self, name: str) -> int:
        """The column of a condition or target."""
        return self.targets.index(name)


def day_of(date) -> float:
    """Days from 2000-01-01 to a date; infinite for None: never."""
    return np.inf if date is None else float((np.datetime64(date) - _EPOCH).astype(int))


def rate_by_age(rate: dict) -> np.ndarray:
    """Log of a rate at ages 0 … AGES, linear between the given ages and constant outside, (AGES + 1,)."""
    ages = sorted(rate)
    return np.interp(np.arange(AGES + 1) + 0.5, ages, np.log([max(float(rate[age]), 1e-17) for age in ages]))


def build_model(parameters: Parameters) -> Model:
    """The hazards of one site and world."""
    dynamics, world = parameters.dynamics, parameters.world
    names = tuple(parameters.conditions)
    traits = list(dynamics["traits"])
    visits = dynamics["visits"]
    leave = {age: rate * parameters.site["leave"] for age, rate in visits["leave"].items()}
    routine = {age: rate * parameters.site["visits"] for age, rate in visits["rate"].items()}
    others: dict[str, dict[str, Any]] = {
        "death": dynamics["death"],
        "visit": {"rate": routine, "male": visits["male"]},
        "leave": {"rate": leave},
    }
    targets = (*names, *others)
    offsets = dynamics["offsets"].get(world["offsets"], {})
    base = np.empty((2, AGES + 1, len(targets)), np.float32)
    for column, one in enumerate((*parameters.conditions.values(), *others.values())):
        curve = rate_by_age(one["rate"])
        if parameters.world_name == "bag" and targets[column] in dynamics["worlds"]["bag"]["flat"]:
            curve = np.where(
                np.arange(AGES + 1) < world["adult"], NEVER, np.log(one["rate"][max(one["rate"])] * world["flat_share"])
            )
        curve = curve + offsets.get(targets[column], 0.0)
        base[0, :, column] = curve
        base[1, :, column] = curve + np.log(one.get("male", 1.0))
        if sex := one.get("sex"):
            base[int(sex == "female"), :, column] = NEVER
    for name in world.get("random", ()):
        base[:, :, names.index(name)] = NEVER
    recurrent = parameters.recurrent
    stages = {
        names.index(name): (one["pace"], one["spread"], traits.index(one["trait"]), one["stages"])
        for name, one in dynamics["stages"].items()
    }
    specials, rows = [], {}
    weights = np.zeros((len(names), len(targets)), np.float32)
    more: list[np.ndarray] = []
    for effect in parameters.effects:
        column = targets.index(effect.on)
        if effect.family == "presence":
            weights[names.index(effect.of[0]), column] = effect.log
            continue
        key = (effect.family, _places(effect, names, traits, recurrent))
        if key not in rows:
            rows[key] = len(specials)
            specials.append(key)
            more.append(np.zeros(len(targets), np.float32))
        more[rows[key]][column] = effect.log
    spreads = (("care", "visit", visits["spread"]), ("loyalty", "leave", visits["leave_spread"]))
    if not world.get("shuffled"):
        for trait, target, spread in spreads:
            specials.append(("trait", (traits.index(trait),)))
            row = np.zeros(len(targets), np.float32)
            row[targets.index(target)] = spread
            more.append(row)
    return Model(
        conditions=names,
        targets=targets,
        base=base,
        weights=np.concatenate([weights, np.array(more, np.float32).reshape(-1, len(targets))]),
        specials=tuple(specials),
        recurrent=np.array(recurrent),
        acute=np.isin(np.arange(len(names)), recurrent),
        keeps=np.array([bool(one.get("lasting")) for one in parameters.conditions.values()]),
        stages=stages,
        recency_days=dynamics["recency_days"],
        years="years" in world["families"],
    )


def _places(effect: Effect, names: tuple[str, ...], traits: list[str], recurrent: list[int]) -> tuple[int, ...]:
    if effect.family == "recency":
        return (recurrent.index(names.index(effect.of[0])),)
    if effect.family == "trait":
        return (traits.index(effect.of[0]),)
    if effect.family == "trait_if":
        return traits.index(effect.of[0]), names.index(effect.of[1])
    return tuple(names.index(name) for name in effect.of)


def features(model: Model, state, now: np.ndarray) -> np.ndarray:
    """The features (n, K) float32 of a state (`life.State`) at times `now` (n,)."""
    onset, n, c = state.onset, len(now), len(model.conditions)
    out = np.empty((n, len(model.weights)), np.float32)
    present = out[:, :c]
    np.less_equal(onset, now[:, None], out=present, casting="unsafe")
    for column, (family, places) in enumerate(model.specials, start=c):
        first = places[0] if places else 0
        if family == "order":
            a, b = onset[:, first], onset[:, places[1]]
            out[:, column] = np.sign(b - a) * (0.5 * present[:, first] * present[:, places[1]])
        elif family == "duration":
            years = np.maximum(now - onset[:, first], 0.0) * np.float32(1 / YEAR)
            out[:, column] = (np.log2(1.0 + years) - np.float32(np.log2(6.0))) * present[:, first]
        elif family == "recency":
            out[:, column] = 2.0 - 2.0 * np.exp(-0.5 * state.recent[:, first])
        elif family == "stage":
            out[:, column] = stage(model, state, first, now) - 1.0
        elif family == "trait":
            out[:, column] = state.traits[:, first]
        elif family == "trait_if":
            out[:, column] = state.traits[:, first] * present[:, places[1]]
        else:
            out[:, column] = (now - np.float32(8 * YEAR)) * np.float32(0.1 / YEAR)
    return out


def stage(model: Model, state, condition: int, now: np.ndarray) -> np.ndarray:
    """Continuous stage of a condition at `now` (n,) float32: from 1 at onset to its highest; 1 where it is absent."""
    pace, spread, trait, highest = model.stages[condition]
    years = np.maximum(now - state.onset[:, condition], 0.0) * np.float32(1 / YEAR)
    grown = years * (pace * np.exp(spread * state.traits[:, trait]))
    return np.minimum(1.0 + grown, np.float32(highest)).astype(np.float32)


def log_hazards(model: Model, state, now: np.ndarray, given: np.ndarray | None = None) -> np.ndarray:
    """Log hazards per year (n, T) float32 at times `now`; `given`: the features, where they are known already."""
    ages = np.clip((now - state.birth) * np.float32(1 / YEAR), 0, AGES).astype(np.int64)
    out = model.base.reshape(2 * (AGES + 1), -1).take(state.male * (AGES + 1) + ages, axis=0)
    out += (features(model, state, now) if given is None else given) @ model.weights
    return out
