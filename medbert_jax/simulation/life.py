"""Lives: from birth to the first contact with the site, and on until death, leaving or the end of the data.

A step takes the hazards at its start and draws competing exponential waiting times, so a life can be taken up again at
any time, in the middle of a step too: what has not struck by then has forgotten how long it waited.
"""

from dataclasses import dataclass, fields, replace

import numpy as np

from medbert_jax.simulation.columns import Columns
from medbert_jax.simulation.hazards import ABSENT, AGES, YEAR, Model, day_of, log_hazards, rate_by_age
from medbert_jax.simulation.parameters import Parameters

_AGE_STEPS = (0, 1, 3, 6, 10, 14, 18, 21, *range(24, 40, 2), *range(40, AGES + 1))
"""Ages at which a step begins before the first contact: finer where more happens."""


@dataclass
class State:
    """The whole hidden state of n patients at one time; times in days from 2000-01-01, float32."""

    birth: np.ndarray  # (n,)
    male: np.ndarray  # (n,) int64 0 | 1
    traits: np.ndarray  # (n, traits)
    onset: np.ndarray  # (n, C): first event of an acute condition; ABSENT
    recent: np.ndarray  # (n, recurrent): sum over past events of exp(−days / recency_days)

    def take(self, places) -> "State":
        """The state of some patients, copied: `advance` may change it and leave this one as it is."""
        taken = {field.name: getattr(self, field.name)[places] for field in fields(self)}
        if isinstance(places, slice):  # of which numpy makes views
            taken = {name: column.copy() for name, column in taken.items()}
        return replace(self, **taken)


@dataclass(frozen=True)
class Events(Columns):
    """What began, one row each; `patient` is a place in the block."""

    patient: np.ndarray  # int32
    target: np.ndarray  # int32, column of Model.targets; visits without an acute reason too
    day: np.ndarray  # float32


@dataclass(frozen=True)
class Lives:
    """A block of patients, from the first contact on."""

    state: State
    """At the first contact."""
    entry: np.ndarray  # (n,) float32
    end: np.ndarray  # (n,) float32: death, leaving or end of the data
    died: np.ndarray  # (n,) bool: whether the end is death
    events: Events
    """From the first contact to the end."""


def first_contacts(parameters: Parameters, n: int, rng: np.random.Generator) -> tuple[State, np.ndarray, np.ndarray]:
    """n newborns with the day on which each will come to the site, and their races (n,)."""
    one, site = parameters.dynamics["demography"], parameters.site
    first, last = site_days(parameters)
    growth, u = np.log(site["growth"]), rng.random(n)
    entry = first + (last - first) * np.log1p(u * np.expm1(growth)) / growth
    weights = np.exp(rate_by_age(one["entry_age"]))
    ages = np.searchsorted(np.cumsum(weights) / weights.sum(), rng.random(n)) + rng.random(n)
    male = (rng.random(n) < one["male"]).astype(np.int64)
    conditions, traits = parameters.conditions, len(parameters.dynamics["traits"])
    races = np.array(list(one["race"]), dtype=object)
    race = races[np.searchsorted(np.cumsum(list(one["race"].values()))[:-1], rng.random(n))]
    hidden = rng.standard_normal((n, traits), np.float32)
    share, more = parameters.dynamics["visits"]["frequent"]
    hidden[:, parameters.dynamics["traits"].index("care")] += more * (rng.random(n) < share)
    state = State(
        birth=(np.floor(entry - ages * YEAR)).astype(np.float32),
        male=male,
        traits=hidden,
        onset=np.full((n, len(conditions)), ABSENT, np.float32),
        recent=np.zeros((n, len(parameters.recurrent)), np.float32),
    )
    return state, entry.astype(np.float32), race


def site_days(parameters: Parameters) -> tuple[float, float]:
    """First day of the site's data and the day after their last."""
    return day_of(parameters.site["first_day"]), day_of(parameters.site["last_day"]) + 1


def grow_up(model: Model, state: State, entry: np.ndarray, rng: np.random.Generator) -> State:
    """The state at the first contact, of patients sorted by descending age there. Nobody dies before it."""
    # What matters later: all that is not acute, and acute events that leave a trace for life.
    lasting = np.flatnonzero(~model.acute | model.keeps)
    narrow = _narrow(model, lasting)
    ages = (entry - state.birth) / np.float32(YEAR)
    for start, until in zip(_AGE_STEPS, (*_AGE_STEPS[1:], AGES + 1), strict=True):
        n = int(np.searchsorted(-ages, -start, side="left"))  # those older than that at entry
        if n == 0:
            break
        now = state.birth[:n] + np.float32(start * YEAR)
        end = np.minimum(state.birth[:n] + np.float32(until * YEAR), entry[:n])
        part = State(state.birth[:n], state.male[:n], state.traits[:n], state.onset[:n], state.recent[:n])
        advance(narrow, part, now, end, rng, columns=lasting)
    return state


def _narrow(model: Model, columns: np.ndarray) -> Model:
    """The model of some targets alone, without the features that none of them rests on."""
    c, weights = len(model.conditions), model.weights[:, columns]
    used = np.flatnonzero(weights[c:].any(1))
    return replace(
        model,
        base=np.ascontiguousarray(model.base[:, :, columns]),
        weights=np.concatenate([weights[:c], weights[c:][used]]),
        specials=tuple(model.specials[place] for place in used),
    )


def advance(
    model: Model,
    state: State,
    start: np.ndarray,
    end: np.ndarray,
    rng: np.random.Generator,
    *,
    columns: np.ndarray | None = None,
    given: np.ndarray | None = None,
) -> Events:
    """Live one step, from `start` (n,) to `end` (n,) with the hazards at the start; changes `state` in place.

    Args:
        columns: targets that `model` is narrowed to; None: all, of which the routine visits may come several times.
        given: features (n, K) to take instead of those at the start: a step taken up in its middle.

    Returns:
        What began, in no order of time; also after a death in the same step.
    """
    n, conditions = len(start), len(model.conditions)
    rates = log_hazards(model, state, start, given)
    np.exp(rates, out=rates)
    years = (end - start) * np.float32(1 / YEAR)
    waits = rng.standard_exponential(rates.shape, np.float32)
    struck = np.flatnonzero((waits < rates * years[:, None]).ravel())
    row, column = struck // rates.shape[1], struck % rates.shape[1]
    target = column if columns is None else columns[column]
    of_condition = target < conditions
    ill = np.minimum(target, conditions - 1)
    possible = ~of_condition | model.acute[ill] | (state.onset[row, ill] == ABSENT)
    row, target, of_condition, struck = row[possible], target[possible], of_condition[possible], struck[possible]
    wait = waits.ravel()[struck] / rates.ravel()[struck] * np.float32(YEAR)
    day = np.minimum(start[row] + wait, end[row])
    # The state at the end.
    at, what, when = row[of_condition], target[of_condition], day[of_condition]
    state.onset[at, what] = np.minimum(state.onset[at, what], when)
    state.recent *= np.exp((start - end) * np.float32(1 / model.recency_days))[:, None]
    again = model.acute[what]
    late = np.exp((when[again] - end[at[again]]) * np.float32(1 / model.recency_days))
    state.recent[at[again], np.searchsorted(model.recurrent, what[again])] += late
    if columns is None:
        # Routine visits come any number of times in a step.
        visit = model.place("visit")
        keep = target != visit
        who = np.repeat(np.arange(n), rng.poisson(rates[:, visit] * years))
        times = start[who] + rng.random(len(who), np.float32) * (end - start)[who]
        row, day = np.concatenate([row[keep], who]), np.concatenate([day[keep], times])
        target = np.concatenate([target[keep], np.full(len(who), visit)])
    return Events(row.astype(np.int32), target.astype(np.int32), day.astype(np.float32))


def live(
    model: Model,
    state: State,
    entry: np.ndarray,
    last: float,
    step_days: float,
    rng: np.random.Generator,
    *,
    given: np.ndarray | None = None,
    until: np.ndarray | None = None,
) -> Lives:
    """Everything from `entry` (n,), mostly the first contact, on; `state` stays that of `entry`.

    Args:
        last: first day after the data.
        given: features (n, K) of the first step, which lasts until `until` (n,): a life taken up in the middle of one.
    """
    n, death, leave = len(entry), model.place("death"), model.place("leave")
    end, died = np.full(n, last, np.float32), np.zeros(n, bool)
    parts, who, now = [], np.arange(n), entry.copy()
    current = state.take(slice(None))
    while len(who):
        until = np.minimum(now + np.float32(step_days) if until is None else until, np.float32(last))
        events = advance(model, current, now, until, rng, given=given)
        final = np.full(len(who), ABSENT, np.float32)
        fatal = np.zeros(len(who), bool)
        for target in (death, leave):
            rows = events.target == target
            sooner = events.day[rows] < final[events.patient[rows]]
            final[events.patient[rows][sooner]] = events.day[rows][sooner]
            fatal[events.patient[rows][sooner]] = target == death
        kept = (events.target != death) & (events.target != leave) & (events.day < final[events.patient])
        parts.append(Events(who[events.patient], events.target, events.day).take(kept))
        gone = final < ABSENT
        end[who[gone]], died[who[gone]] = final[gone], fatal[gone]
        stays = ~gone & (until < last)
        who, now, given, until = who[stays], until[stays], None, None
        current = current.take(stays)
    events = Events.concatenate(parts) if parts else Events(*(np.zeros(0, t) for t in (np.int32, np.int32, np.float32)))
    return Lives(state, entry, end, died, events)
