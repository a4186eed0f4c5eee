"""Recording errors, planted at stated rates, so that tests can compare what is reported with what was planted.

What the schema itself refuses cannot be planted: a patient or a visit that is there twice, rows of a patient or visit
that is not, an order that is not 1, 2, 3 …, ids, codes or systems that are null, and values that are NaN.
A patient has at most one error of visits, so that the counts of different rules do not mix.
"""

from dataclasses import dataclass

import numpy as np

from medbert_jax.simulation.block import Block
from medbert_jax.simulation.columns import ranges
from medbert_jax.simulation.life import site_days
from medbert_jax.simulation.parameters import Parameters

OF_VISITS = ("discharge_before_admission", "order_against_time", "no_admission", "same_times", "no_discharge")


@dataclass
class Planted:
    """The visits as they are recorded, m of them, and what is wrong with them."""

    patient: np.ndarray  # (m,) place in the block
    of: np.ndarray  # (m,) place in Block.visits
    place: np.ndarray  # (visits,) place among the m of each visit of the block
    order: np.ndarray  # (m,) int32
    admit: np.ndarray
    discharge: np.ndarray
    known_admit: np.ndarray
    known_discharge: np.ndarray
    copies: np.ndarray  # (m,) bool: copied from a visit, its codes too
    patients: dict[str, np.ndarray]  # kind → (n,) bool
    death: np.ndarray  # (n,) day of death as recorded, where it is false; NaN
    dead: np.ndarray  # (n,) bool: the death must be recorded, for an error to be one
    expired: np.ndarray  # (n,) bool: died in hospital
    duplicates: np.ndarray  # rows of diagnoses to repeat
    counts: dict[str, dict[int, int]]

    def count(self, kind: str, patients: np.ndarray) -> None:
        """Note one wrong row for each of these patients."""
        who, n = np.unique(patients, return_counts=True)
        mine = self.counts.setdefault(kind, {})
        for one, more in zip(who.tolist(), n.tolist(), strict=True):
            mine[one] = mine.get(one, 0) + more

    def diagnosis_rows(self, visit: np.ndarray, patient: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(row of the block's diagnoses, recorded visit) of every recorded row. Notes what is dropped and repeated."""
        lost = self.patients["no_diagnoses"][patient[visit]]
        self.count("no_diagnoses", patient[visit[lost]])
        kept = np.flatnonzero(~lost)
        again = self.duplicates[~lost[self.duplicates]]
        self.count("duplicate_code", patient[visit[again]])
        row, at = np.concatenate([kept, again]), np.concatenate([self.place[visit[kept]], self.place[visit[again]]])
        extra = np.flatnonzero(self.copies)
        first = np.searchsorted(visit, np.arange(len(self.place) + 1))
        to, copied = ranges(first[self.of[extra]], np.diff(first)[self.of[extra]])
        fine = ~lost[copied]
        return np.concatenate([row, copied[fine]]), np.concatenate([at, extra[to[fine]]])


def plant(parameters: Parameters, block: Block, rng: np.random.Generator) -> Planted:
    """Decide on the errors of a block."""
    lives, visits, rates = block.lives, block.visits, parameters.dynamics["errors"]
    most = rates["days"]
    n, v = len(lives.entry), len(visits)
    patients = {kind: rng.random(n) < share for kind, share in rates["patients"].items()}
    seen = np.bincount(visits.patient, minlength=n) > 0
    first = visits.first
    ends = np.append(first[1:], True)
    # One error of visits per patient, in the order of the list.
    free = ~patients["death_before_first_visit"] & seen
    chosen = {}
    for kind in OF_VISITS:
        rows = np.flatnonzero((rng.random(v) < rates["visits"][kind]) & free[visits.patient] & ~visits.fixed)
        if kind == "order_against_time":
            rows = rows[~first[rows]]
            rows = rows[visits.admit[rows] > visits.admit[rows - 1]]
        rows = rows[np.unique(visits.patient[rows], return_index=True)[1]]
        free[visits.patient[rows]] = False
        chosen[kind] = rows
    last_day = site_days(parameters)[1]
    late = lives.end + 5 + rng.random(n) * most["visit_after_death"]
    ghosts = lives.died & free & (rng.random(n) < rates["visits"]["visit_after_death"]) & (late < last_day - 1)
    ghost = np.flatnonzero(ends & ghosts[visits.patient])
    twice = chosen["same_times"]
    of = np.concatenate([np.arange(v), twice, ghost])
    admit, discharge = visits.admit[of], visits.discharge[of]
    moved = len(of) - len(ghost)
    admit[moved:] = np.floor(late[visits.patient[ghost]]) + 0.5
    discharge[moved:] = admit[moved:] + 0.05
    copies = np.arange(len(of)) >= v
    by_time = np.lexsort((copies, admit, visits.patient[of]))
    of, admit, discharge, copies = of[by_time], admit[by_time], discharge[by_time], copies[by_time]
    place = np.empty(v, np.int64)
    place[of[~copies]] = np.flatnonzero(~copies)
    patient = visits.patient[of]
    starts = np.searchsorted(patient, np.arange(n))
    order = (np.arange(len(of)) - starts[patient] + 1).astype(np.int32)
    swapped = place[chosen["order_against_time"]]
    order[swapped], order[swapped - 1] = order[swapped - 1], order[swapped]
    back = place[chosen["discharge_before_admission"]]
    discharge[back] = (
        np.floor(admit[back]) - 1 - np.floor(rng.random(len(back)) * most["discharge_before_admission"]) + 0.5
    )
    known_admit, known_discharge = np.ones(len(of), bool), np.ones(len(of), bool)
    known_admit[place[chosen["no_admission"]]] = False
    known_discharge[place[chosen["no_discharge"]]] = False
    false = patients["death_before_first_visit"] & seen
    death = np.full(n, np.nan)
    begin = np.full(n, np.inf)
    np.minimum.at(begin, visits.patient, visits.admit)
    death[false] = np.floor(
        np.maximum(
            begin[false] - 1 - np.floor(rng.random(false.sum()) * most["death_before_first_visit"]),
            lives.state.birth[false],
        )
    )
    false &= death < np.floor(begin)
    death[~false] = np.nan
    expired = np.zeros(n, bool)
    expired[visits.patient[visits.last]] = True
    duplicates = np.flatnonzero(rng.random(len(block.mentions.visit)) < rates["diagnoses"]["duplicate_code"])
    planted = Planted(patient, of, place, order, admit, discharge, known_admit, known_discharge, copies, patients,
                      death, ghosts, expired, duplicates, {})  # fmt: skip
    for kind, rows in chosen.items():
        planted.count(kind, visits.patient[rows])
    planted.count("visit_after_death", visits.patient[ghost])
    planted.count("death_before_first_visit", np.flatnonzero(false))
    for kind in ("unknown_birth", "unknown_sex"):
        planted.count(kind, np.flatnonzero(patients[kind]))
    for name in ("medications", "measurements"):
        rows = visits.patient[getattr(block, name).visit]
        planted.count(f"no_{name}", rows[patients[f"no_{name}"][rows]])
    return planted
