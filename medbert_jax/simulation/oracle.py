"""What can be known from the hidden state: the probability of the label by living on from it, many times.

The oracle sees traits, onsets and past events; it does not see what the site will record. It is the probability that
heart failure is coded within a year from t0. For other cohorts the log hazard at the cut is a reference score, and no
upper bound.
"""

from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from medbert_jax.ehr.codes import prefix_expression
from medbert_jax.simulation.block import World
from medbert_jax.simulation.columns import ranges
from medbert_jax.simulation.hazards import ABSENT, features
from medbert_jax.simulation.life import Events, Lives, State, live
from medbert_jax.simulation.mentions import Standing

HEART_FAILURE = (
    "ICD9CM/428", "ICD9CM/398.91", "ICD9CM/402.01", "ICD9CM/402.11", "ICD9CM/402.91", "ICD9CM/404.01", "ICD9CM/404.03",
    "ICD9CM/404.11", "ICD9CM/404.13", "ICD9CM/404.91", "ICD9CM/404.93", "ICD10CM/I50", "ICD10CM/I09.81",
    "ICD10CM/I11.0", "ICD10CM/I13.0", "ICD10CM/I13.2", "ICD10CM/I97.13",
)  # fmt: skip
"""Prefixes of the cohorts' code set, which lies in a folder below this one: a test holds the two together."""
_BEFORE = 366.0
"""Days before t0 whose events may still bring visits."""


@dataclass(frozen=True)
class Past:
    """Hidden lives, as the truth folder or a block has them: what is needed to take up a life at any time."""

    state: State
    """At the first contact, n patients."""
    entry: np.ndarray  # (n,)
    events: Events
    """From the first contact on; sorted in any way."""

    @staticmethod
    def of(lives: Lives) -> "Past":
        """The past of lives that are in memory."""
        return Past(lives.state, lives.entry, lives.events)

    def take(self, patients: np.ndarray) -> "Past":
        """Some patients, each as often as named."""
        row, event = _rows_of(self.events.patient, patients, len(self.entry))
        events = Events(row.astype(np.int32), self.events.target[event], self.events.day[event])
        return Past(self.state.take(patients), self.entry[patients], events)


def state_at(world: World, past: Past, day: np.ndarray) -> State:
    """The hidden state of all patients at `day` (n,), no earlier than their first contact."""
    model, state = world.model, past.state
    decay = np.exp((past.entry - day) / model.recency_days).astype(np.float32)
    onset, recent = state.onset.copy(), state.recent * decay[:, None]
    happened = (past.events.target < len(model.conditions)) & (past.events.day <= day[past.events.patient])
    events = past.events.take(happened)
    np.minimum.at(onset, (events.patient, events.target), events.day)
    events = events.take(model.acute[events.target])
    add = np.exp((events.day - day[events.patient]) / model.recency_days)
    np.add.at(recent, (events.patient, np.searchsorted(model.recurrent, events.target)), add)
    return replace(state, onset=onset, recent=recent)


def probability_within_year(
    world: World, past: Past, t0: np.ndarray, rng: np.random.Generator, *, replicates: int = 200, rows: int = 16_384
) -> np.ndarray:
    """Probability (n,) that heart failure is coded at a visit admitted 1 … 365 days after the date of t0.

    Given the hidden state at t0 and that no heart failure was coded until then. The rest of the step of time that t0
    falls in goes on under its own hazards, as in the life that was simulated. NaN where none of the patient's futures
    agrees with this condition: nothing is known then, so callers count these patients and leave them out.

    Args:
        t0: days from 2000-01-01 (n,), within the patient's time at the site.
        replicates: futures per patient.
        rows: patients × replicates at a time.
    """
    n, out = len(t0), np.zeros(len(t0))
    each = max(1, rows // replicates)
    for begin in range(0, n, each):
        who = np.repeat(np.arange(begin, min(begin + each, n)), replicates)
        coded, earlier = _futures(world, past.take(who), t0[who].astype(np.float64), rng)
        shape = (-1, replicates)
        possible = ~earlier.reshape(shape)
        hits, of = (coded.reshape(shape) & possible).sum(1), possible.sum(1)
        out[begin : begin + each] = np.where(of > 0, hits / np.maximum(of, 1), np.nan)
    return out


def _futures(world: World, past: Past, t0: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One future per row: whether heart failure is coded within the year, and whether it was before t0."""
    model, step, n = world.model, world.step_days, len(t0)
    place = model.place("heart_failure")
    steps = np.floor((t0 - past.entry) / step)
    begun = (past.entry + steps * step).astype(np.float32)
    at_begin = features(model, state_at(world, past, begun), begun)
    now = t0.astype(np.float32)
    state = state_at(world, past, now)
    last = np.float32(min(world.last, float(t0.max()) + 368))
    lived = live(model, state, now, float(last), step, rng, given=at_begin, until=begun + np.float32(step))
    recent = past.events.take(
        (past.events.day <= now[past.events.patient])
        & (past.events.day > now[past.events.patient] - _BEFORE)
        & (past.events.target < len(model.conditions))
    )
    lives = Lives(state, now, lived.end, lived.died, Events.concatenate([recent, lived.events]))
    visits = world.visit_maker(lives, rng, first_contact=False)
    has = np.flatnonzero(state.onset[:, place] < ABSENT)
    gets = lived.events.take(lived.events.target == place)
    patient = np.concatenate([has, gets.patient])
    stands = Standing(
        patient=patient,
        condition=np.full(len(patient), place),
        onset=np.concatenate([state.onset[has, place], gets.day]),
        pace=np.zeros(len(patient), np.float32),
    )
    mentions = world.coder(lives, visits, stands, rng, first_contact=False)
    named = mentions.visit[heart_failure_codes(world)[mentions.code]]
    day, of = np.floor(visits.admit[named]), visits.patient[named]
    coded, earlier = np.zeros(n, bool), np.zeros(n, bool)
    after = day > np.floor(t0)[of]
    coded[of[after & (day <= np.floor(t0)[of] + 365)]] = True
    earlier[of[~after]] = True
    return coded, earlier & (state.onset[:, place] < ABSENT)


def heart_failure_codes(world: World) -> np.ndarray:
    """Which codes of the code book stand for heart failure (N,) bool."""
    system = pl.Series(np.where(world.book.system, "ICD10CM", "ICD9CM"))
    names = pl.DataFrame({"system": system, "code": world.book.codes.tolist()})
    return names.select(prefix_expression(pl.concat_str("system", "code", separator="/"), HEART_FAILURE))[
        "system"
    ].to_numpy()


def _rows_of(owner: np.ndarray, patients: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(row of `patients`, place in `owner`) of everything that these own."""
    order = np.argsort(owner, kind="stable")
    starts = np.searchsorted(owner[order], np.arange(n + 1))
    row, place = ranges(starts[patients], np.diff(starts)[patients])
    return row, order[place]
