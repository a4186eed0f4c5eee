"""Which conditions a visit's record names, in which code, with which flags."""

from dataclasses import dataclass

import numpy as np

from medbert_jax.simulation.background import Background
from medbert_jax.simulation.codes import RULE_OUT, STAGES, UNSPECIFIC, CodeBook
from medbert_jax.simulation.columns import Columns, ranges
from medbert_jax.simulation.hazards import ABSENT, AGES, YEAR, Model, day_of
from medbert_jax.simulation.life import Lives
from medbert_jax.simulation.parameters import Parameters
from medbert_jax.simulation.visits import INPATIENT, Visits


@dataclass(frozen=True)
class Standing(Columns):
    """Conditions that patients have, one row each; also for drugs and tests."""

    patient: np.ndarray
    condition: np.ndarray
    onset: np.ndarray
    pace: np.ndarray
    """Stages per year; 0 without stages."""

    def at_visits(self, visits: Visits, patients: int) -> tuple[np.ndarray, np.ndarray]:
        """(row, visit) of every visit at or after the onset."""
        starts = np.searchsorted(visits.patient, np.arange(patients + 1))
        row, visit = ranges(starts[self.patient], np.diff(starts)[self.patient])
        begun = (self.onset[row] <= visits.admit[visit]) & ~visits.fixed[visit]
        return row[begun], visit[begun]


@dataclass(frozen=True)
class Mentions:
    """Diagnosis rows: the visit, the place of the code in the code book, its rank in the visit from 0."""

    visit: np.ndarray
    code: np.ndarray
    priority: np.ndarray


def standing(model: Model, lives: Lives, background: Background, rng: np.random.Generator) -> Standing:
    """The conditions that stand, of the model and of the background."""
    c = len(model.conditions)
    chronic = ~model.acute
    row, column = np.nonzero((lives.state.onset < ABSENT) & chronic)
    begun = lives.events.take(np.append(chronic, np.zeros(3, bool))[lives.events.target])
    extra, what, onset = background.standing(lives.state, lives.end, rng)
    patient = np.concatenate([row, begun.patient, extra])
    condition = np.concatenate([column, begun.target, what + c])
    pace = np.zeros(len(patient), np.float32)
    for number, (speed, spread, trait, _) in model.stages.items():
        of = condition == number
        pace[of] = speed * np.exp(spread * lives.state.traits[patient[of], trait])
    onset = np.concatenate([lives.state.onset[row, column], begun.day, onset])
    return Standing(patient, condition, onset, pace)


class Coder:
    """Parameters of coding as arrays."""

    def __init__(self, parameters: Parameters, model: Model, background: Background, book: CodeBook):
        self.background = background
        self.site, self.book, self.world = parameters.site, book, parameters.world
        self.settings = parameters.dynamics["visits"]
        self.names = len(model.conditions)
        extra = len(book.names) - self.names
        coded = [one.get("coded", 0.0) for one in parameters.conditions.values()]
        hidden = [one["kind"] == "hidden" for one in parameters.conditions.values()]
        self.coded = np.concatenate([coded, np.full(extra, parameters.dynamics["background"]["coded"])])
        self.hidden = np.concatenate([hidden, np.zeros(extra, bool)])
        self.coded[self.hidden] = 0.0
        least = [one.get("at_least", 0.0) for one in parameters.conditions.values()]
        self.least = np.concatenate([least, np.zeros(extra)])
        self.stages = model.stages
        places = {name: place for place, name in enumerate(model.conditions)}
        struck = parameters.world.get("random", ())
        self.suspicions = [
            (places[one["at"]], places[one["of"]], one["share"] * self.site["suspected"])
            for one in parameters.dynamics["suspicions"]
            if one["of"] not in struck
        ]
        self.icd10_from = day_of(None if parameters.world.get("one_code") else self.site["icd10_from"])

    def __call__(
        self,
        lives: Lives,
        visits: Visits,
        standing: Standing,
        rng: np.random.Generator,
        *,
        first_contact: bool = True,
    ) -> Mentions:
        """The diagnoses of all visits; with `first_contact` the history is taken at each patient's first one."""
        n = len(lives.entry)
        # A standing condition is named again as readily as this patient's visits name it: memory.
        a, b = self.settings["memory"]
        ready = rng.beta(a, b, len(standing.patient)) * self.coded[standing.condition] * self.site["coded"]
        ready = np.maximum(ready, self.least[standing.condition])
        row, visit = standing.at_visits(visits, n)
        more = np.where(visits.first & first_contact, self.settings["first_contact"], 1.0)
        more = more * np.where(visits.kind == INPATIENT, self.settings["inpatient"], 1.0)
        named = rng.random(len(row)) < np.minimum(ready[row] * more[visit], self.settings["at_most"])
        row, visit = row[named], visit[named]
        # The reason comes first.
        why = np.flatnonzero(visits.reason >= 0)
        reason = visits.reason[why]
        stage = standing.pace[row] * (visits.admit[visit] - standing.onset[row]) / YEAR
        suspected_at, suspected = self._suspicions(visits, rng)
        besides = rng.poisson(self.settings["besides"] * ~visits.fixed)
        besides = np.repeat(np.arange(len(visits)), besides)
        also = self.names + self.background.draw(lives.state, visits.patient[besides], visits.admit[besides], rng)
        habits = rng.random(len(standing.patient))
        where = np.concatenate([why, visit, besides, suspected_at])
        condition = np.concatenate([reason, standing.condition[row], also, suspected])
        habit = np.where(rng.random(len(row)) < self.settings["habit"], habits[row], rng.random(len(row)))
        u = np.concatenate([rng.random(len(why)), habit, rng.random(len(besides) + len(suspected))])
        variant = np.concatenate([np.zeros(len(why)), stage, np.zeros(len(besides) + len(suspected))])
        variant = np.clip(variant, 0, STAGES - 1).astype(np.int64)
        hurried = rng.random(len(where)) < self.site["unspecific"]
        variant[hurried] = UNSPECIFIC
        variant[len(variant) - len(suspected) :] = np.where(
            rng.random(len(suspected)) < self.settings["suspected_as"], RULE_OUT, 0
        )
        system = (visits.admit[where] >= self.icd10_from).astype(np.int64)
        wrong = rng.random(len(where)) < self.site["wrong"] * ~visits.fixed[where]
        condition = np.where(
            wrong & (self.world.get("random") is None), rng.integers(0, len(self.book.names), len(where)), condition
        )
        has = (self.book.groups[condition, system, variant] >= 0) & ~self.hidden[condition]
        where, u = where[has], u[has]
        code = self.book.draw(condition[has], system[has], variant[has], u)
        order = np.where(np.arange(len(has)) < len(why), 0.0, 1.0 + rng.random(len(has)))[has]
        if self.world.get("shuffled"):
            code = self._shuffled(lives, visits, where, code, rng)
        # Each code once per visit.
        by_code = np.lexsort((order, code, where))
        same = (np.diff(where[by_code]) == 0) & (np.diff(code[by_code]) == 0)
        keep = np.sort(by_code[np.concatenate([[True], ~same])]) if len(by_code) else by_code
        where, code, order = where[keep], code[keep], order[keep]
        sort = np.lexsort((order, where))
        where, code = where[sort], code[sort]
        begin = np.concatenate([[True], np.diff(where) != 0]) if len(where) else np.zeros(0, bool)
        starts = np.flatnonzero(begin)
        rank = np.arange(len(where)) - np.repeat(starts, np.diff(np.append(starts, len(where))))
        return Mentions(where, code, rank.astype(np.int32))

    def _suspicions(self, visits: Visits, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        at, of = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for here, other, share in self.suspicions:
            rows = np.flatnonzero((visits.reason == here) & ~visits.follow_up)
            rows = rows[rng.random(len(rows)) < share]
            at.append(rows)
            of.append(np.full(len(rows), other))
        return np.concatenate(at), np.concatenate(of)

    def _shuffled(self, lives: Lives, visits: Visits, where, code, rng: np.random.Generator) -> np.ndarray:
        """Codes dealt anew among all visits of one age, sex and code system: independent given these."""
        patient = visits.patient[where]
        age = np.clip((visits.admit[where] - lives.state.birth[patient]) / YEAR, 0, AGES)
        stratum = (age // 10).astype(np.int64) * 4 + lives.state.male[patient] * 2 + self.book.system[code]
        order = np.lexsort((rng.random(len(code)), stratum))
        out = np.empty_like(code)
        out[np.argsort(stratum, kind="stable")] = code[order]
        return out
