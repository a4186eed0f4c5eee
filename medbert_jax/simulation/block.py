"""One block of patients: their lives, visits, codes, drugs, tests and procedures, from one stream of random numbers."""

from dataclasses import dataclass

import numpy as np

from medbert_jax.simulation.background import Background
from medbert_jax.simulation.chance import strike
from medbert_jax.simulation.clinical import Clinic, Rows
from medbert_jax.simulation.codes import build_code_book
from medbert_jax.simulation.hazards import build_model
from medbert_jax.simulation.life import Lives, State, first_contacts, grow_up, live, site_days
from medbert_jax.simulation.mentions import Coder, Mentions, Standing, standing
from medbert_jax.simulation.parameters import Parameters
from medbert_jax.simulation.visits import VisitMaker, Visits

BLOCK = 4096
"""Patients who share a stream of random numbers; part of what a seed means."""


@dataclass(frozen=True)
class Block:
    """What is true of a block, and what the site saw of it."""

    lives: Lives
    race: np.ndarray
    visits: Visits
    standing: Standing
    mentions: Mentions
    medications: Rows
    measurements: Rows
    procedures: Rows
    struck: np.ndarray
    """Onsets of what struck at random (n, …), NaN where none; null world only."""


class World:
    """One site in one world, ready to be simulated."""

    def __init__(self, parameters: Parameters):
        self.parameters = parameters
        self.model = build_model(parameters)
        self.book = build_code_book(parameters)
        self.background = Background(parameters)
        self.visit_maker = VisitMaker(parameters, self.model, self.background)
        self.coder = Coder(parameters, self.model, self.background, self.book)
        self.clinic = Clinic(parameters, self.model)
        self.last = site_days(parameters)[1]
        self.step_days = parameters.dynamics["visits"]["step_days"]

    def newcomers(self, n: int, rng: np.random.Generator) -> tuple[State, np.ndarray, np.ndarray]:
        """n patients at their first contact, oldest first: their states, its days (n,), their races (n,)."""
        state, entry, race = first_contacts(self.parameters, n, rng)
        oldest_first = np.argsort(state.birth - entry, kind="stable")
        state, entry = state.take(oldest_first), entry[oldest_first]
        return grow_up(self.model, state, entry, rng), entry, race

    def lives(self, n: int, rng: np.random.Generator) -> tuple[Lives, np.ndarray]:
        """The hidden lives of n patients, and their races."""
        state, entry, race = self.newcomers(n, rng)
        return live(self.model, state, entry, self.last, self.step_days, rng), race

    def block(self, n: int, rng: np.random.Generator) -> Block:
        """n patients."""
        lives, race = self.lives(n, rng)
        visits = self.visit_maker(lives, rng)
        struck = np.zeros((n, 0))
        if "random" in self.parameters.world:
            visits, struck = strike(self.parameters, self.model, lives, visits, self.last, rng)
        stands = standing(self.model, lives, self.background, rng)
        return Block(
            lives=lives,
            race=race,
            visits=visits,
            standing=stands,
            mentions=self.coder(lives, visits, stands, rng),
            medications=self.clinic.medications(visits, stands, n, rng),
            measurements=self.clinic.measurements(lives, visits, stands, rng),
            procedures=self.clinic.procedures_done(visits, stands, n, rng),
            struck=struck,
        )
