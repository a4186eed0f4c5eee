"""From lives to visits: what brings patients to the site, when, for how long, and which of it is recorded."""

from dataclasses import dataclass

import numpy as np

from medbert_jax.simulation.background import Background
from medbert_jax.simulation.columns import Columns, ranges
from medbert_jax.simulation.hazards import Model
from medbert_jax.simulation.life import Lives
from medbert_jax.simulation.parameters import Parameters

TYPES = ("inpatient", "outpatient", "emergency", "other")
INPATIENT, OUTPATIENT, EMERGENCY, OTHER = range(4)
NO_REASON = -1
MINUTE = 1 / 1440


@dataclass(frozen=True)
class Visits(Columns):
    """Visits of a block, sorted by patient and time."""

    patient: np.ndarray  # int64
    admit: np.ndarray  # float64, days
    discharge: np.ndarray  # float64
    kind: np.ndarray  # int8, place in TYPES
    reason: np.ndarray  # int64, condition (background after the model's); NO_REASON
    follow_up: np.ndarray  # bool: of an earlier event
    last: np.ndarray  # bool: ended with death
    fixed: np.ndarray  # bool: of the null world's own, with the codes of their reason alone

    def __len__(self) -> int:
        return len(self.patient)

    @property
    def first(self) -> np.ndarray:
        """Which are their patient's first (m,) bool."""
        return np.diff(self.patient, prepend=-1) != 0


class VisitMaker:
    """The parameters of visits as arrays, made once per site and world."""

    def __init__(self, parameters: Parameters, model: Model, background: Background):
        self.model, self.background = model, background
        self.settings, self.world = parameters.dynamics["visits"], parameters.world
        listed, besides = [*parameters.conditions.values()], parameters.dynamics["background"]
        n = len(listed)
        self.hidden = np.array([one["kind"] == "hidden" for one in listed])
        self.seen = np.concatenate([[one.get("seen", 0.0) for one in listed], np.ones(background.size)])
        at = np.array([one.get("at", self.settings["at"]) for one in listed], float)
        at = np.concatenate([at, np.tile(besides["at"], (background.size, 1))])
        self.at = np.cumsum(at / at.sum(1, keepdims=True), axis=1)
        self.stay = np.concatenate(
            [
                [one.get("stay", self.settings["median_stay"]) for one in listed],
                np.full(background.size, besides["stay"]),
            ]
        )
        self.follow = np.concatenate([[one.get("follow", 0.0) for one in listed], background.follow_ups])
        wait = self.settings["first_visit_days"]
        wait = [0.0 if one["kind"] == "acute" else wait for one in listed]
        self.wait = np.concatenate([wait, np.zeros(background.size)])
        self.conditions = n

    def __call__(self, lives: Lives, rng: np.random.Generator, *, first_contact: bool = True) -> Visits:
        """The visits that are recorded; with `first_contact` one at `Lives.entry` of everybody."""
        settings, visit = self.settings, self.model.place("visit")
        events, state, n = lives.events, lives.state, len(lives.entry)
        routine = events.target == visit
        # Routine visits, the first contact among them; a good part has a reason of the background.
        who = np.arange(n * first_contact)
        patient = np.concatenate([who, events.patient[routine]]).astype(np.int64)
        day = np.concatenate([lives.entry[who], events.day[routine]]).astype(np.float64)
        reason = np.where(
            rng.random(len(day)) < settings["background"],
            self.background.draw(state, patient, day, rng) + self.conditions,
            NO_REASON,
        )
        types = np.cumsum([settings["types"][name] for name in TYPES])
        kind = np.minimum(np.searchsorted(types, rng.random(len(day))), OTHER)
        # Visits for what has just struck.
        ill = np.flatnonzero(~routine & (events.target < self.conditions))
        ill = ill[rng.random(len(ill)) < self.seen[events.target[ill]]]
        what = events.target[ill].astype(np.int64)
        kinds = (rng.random(len(ill))[:, None] > self.at[what]).sum(1)
        when = events.day[ill] + rng.standard_exponential(len(ill)) * self.wait[what] * (kinds == 2)
        patient = np.concatenate([patient, events.patient[ill]])
        day = np.concatenate([day, when])
        reason = np.concatenate([reason, what])
        kind = np.concatenate([kind, np.array([INPATIENT, EMERGENCY, OUTPATIENT])[np.minimum(kinds, 2)]])
        # Deaths in hospital.
        dying = np.flatnonzero(lives.died & (rng.random(n) < settings["dies_in_hospital"]))
        before = rng.standard_exponential(len(dying)) * settings["last_days"]
        patient = np.concatenate([patient, dying])
        day = np.concatenate([day, np.maximum(lives.end[dying] - before, lives.entry[dying])])
        reason = np.concatenate([reason, np.full(len(dying), NO_REASON)])
        kind = np.concatenate([kind, np.full(len(dying), INPATIENT)])
        last = np.zeros(len(day), bool)
        last[len(day) - len(dying) :] = True
        # Lengths of stay.
        known = np.maximum(reason, 0)
        spread = settings["stay_frailty"] * state.traits[patient, 0]
        stay = (
            self.stay[known]
            * settings["stay"]
            * np.exp(settings["stay_spread"] * rng.standard_normal(len(day)) + spread)
        )
        stay = np.where(kind == INPATIENT, stay, rng.random(len(day)) * settings["outpatient_days"])
        # Follow-ups.
        counts = rng.poisson(np.where(reason >= 0, self.follow[known], 0.0))
        of, place = ranges(np.zeros(len(day), np.int64), counts)
        later = day[of] + stay[of] + settings["follow_up_days"] * (place + 2 * rng.random(len(of)))
        m = len(of)
        day = np.concatenate([day, later])
        visits = Visits(
            patient=np.concatenate([patient, patient[of]]),
            admit=day,
            discharge=day + np.concatenate([stay, rng.random(m) * settings["short_days"]]),
            kind=np.concatenate([kind, np.full(m, OUTPATIENT)]).astype(np.int8),
            reason=np.concatenate([reason, reason[of]]),
            follow_up=np.arange(len(day)) >= len(day) - m,
            last=np.concatenate([last, np.zeros(m, bool)]),
            fixed=np.zeros(len(day), bool),
        )
        return self._recorded(visits, lives, rng)

    def _recorded(self, visits: Visits, lives: Lives, rng: np.random.Generator) -> Visits:
        """Within the patient's time at the site, not missed, in order, none inside an earlier stay in hospital."""
        end = lives.end[visits.patient].astype(np.float64)
        # Office hours are coarse: minutes count from here on.
        admit = np.round(visits.admit / MINUTE) * MINUTE
        died = lives.died[visits.patient]
        keep = (admit < end - 1e-3) & (rng.random(len(visits)) >= self.settings["missed"])
        discharge = np.where(died, np.minimum(visits.discharge, end), visits.discharge)
        discharge = np.maximum(np.round(discharge / MINUTE) * MINUTE, admit)
        last = visits.last | (died & (discharge >= end - MINUTE) & (visits.kind == INPATIENT))
        discharge = np.where(visits.last, end, discharge)
        visits = Visits(visits.patient, admit, discharge, visits.kind, visits.reason, visits.follow_up, last,
                        visits.fixed).take(keep)  # fmt: skip
        visits = visits.take(np.lexsort((visits.admit, visits.patient)))
        offset = visits.patient * 1e6  # so that no patient's stay reaches into the next patient's
        until = np.where(visits.kind == INPATIENT, np.floor(visits.discharge) + offset, -np.inf)
        before = np.concatenate([[-np.inf], np.maximum.accumulate(until)[:-1]])
        return visits.take(np.floor(visits.admit) + offset > before)
