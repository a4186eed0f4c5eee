"""Drugs, laboratory values and procedures of the visits."""

from dataclasses import dataclass

import numpy as np

from medbert_jax.simulation.columns import Columns
from medbert_jax.simulation.hazards import YEAR, Model, day_of
from medbert_jax.simulation.life import Lives
from medbert_jax.simulation.mentions import Standing
from medbert_jax.simulation.parameters import Parameters
from medbert_jax.simulation.visits import Visits


@dataclass(frozen=True)
class Rows(Columns):
    """Rows of an event table: the visit, the place in the list of names, the value (measurements)."""

    visit: np.ndarray
    name: np.ndarray
    value: np.ndarray

    @staticmethod
    def once(parts: list["Rows"]) -> "Rows":
        """All rows of all parts, each name once per visit, by visit."""
        rows = Rows.concatenate(parts)
        return rows.take(np.unique(rows.visit * 10_000 + rows.name, return_index=True)[1])


class Clinic:
    """Parameters of drugs, tests and procedures as arrays."""

    def __init__(self, parameters: Parameters, model: Model):
        dynamics = parameters.dynamics
        self.places = {name: place for place, name in enumerate(model.conditions)}
        self.acute, self.world = model.acute, parameters.world
        self.traits = {name: place for place, name in enumerate(dynamics["traits"])}
        self.drugs = {name: one for name, one in dynamics["drugs"].items() if name not in ("named", "same")}
        self.named, self.same = dynamics["drugs"]["named"], dynamics["drugs"]["same"]
        self.ingredients = sorted({drug for one in self.drugs.values() for drug in one["ingredients"]})
        rxnorm = [dynamics["rxnorm"].get(drug) for drug in self.ingredients]
        self.laboratory, self.tests = dynamics["laboratory"], list(dynamics["laboratory"])
        self.procedures = dynamics["procedures"]
        self.icd10_from = day_of(parameters.site["icd10_from"])
        procedures = {
            ("CPT4" if one["system"] == "CPT4" else system, code)
            for one in self.procedures
            for key, system in (("codes", ""), ("icd9", "ICD9Proc"), ("icd10", "ICD10PCS"))
            for code in one.get(key, {})
        }
        self.procedure_codes = sorted(procedures)
        self.listed = {
            "medications": {
                "code_system": ["RxNorm" if code else "SOURCE" for code in rxnorm],
                "code": [code or drug for code, drug in zip(rxnorm, self.ingredients, strict=True)],
                "ingredient": self.ingredients,
            },
            "measurements": {
                "code_system": ["LOINC"] * len(self.tests),
                "code": [one["code"] for one in self.laboratory.values()],
                "unit": [one["unit"] for one in self.laboratory.values()],
            },
            "procedures": dict(zip(("code_system", "code"), zip(*self.procedure_codes, strict=True), strict=True)),
        }
        """Table → column → its cell for every name that `Rows.name` may be."""

    def at(self, condition: str, visits: Visits, standing: Standing, patients: int) -> tuple[np.ndarray, np.ndarray]:
        """(visit, row of `standing` or −1) of the visits that a condition has a say in."""
        place = self.places[condition]
        if self.acute[place]:
            visit = np.flatnonzero((visits.reason == place) & ~visits.fixed)
            return visit, np.full(len(visit), -1)
        rows = np.flatnonzero(standing.condition == place)
        row, visit = standing.take(rows).at_visits(visits, patients)
        return visit, rows[row]

    def medications(self, visits: Visits, standing: Standing, patients: int, rng: np.random.Generator) -> Rows:
        """Drugs that the records of visits list."""
        parts = []
        # The last place is that of row −1.
        takes, which = (np.append(rng.random(len(standing.patient)), np.nan) for _ in range(2))
        for condition, one in self.drugs.items():
            visit, row = self.at(condition, visits, standing, patients)
            taking = np.where(row >= 0, takes[row], rng.random(len(row))) < one["share"]
            listed = taking & ((row < 0) | (rng.random(len(row)) < self.named))
            visit, row = visit[listed], row[listed]
            u = np.where((row >= 0) & (rng.random(len(row)) < self.same), which[row], rng.random(len(row)))
            names = np.array([self.ingredients.index(drug) for drug in one["ingredients"]])
            shares = np.cumsum(list(one["ingredients"].values()))
            drug = names[np.searchsorted(shares / shares[-1], u)]
            parts.append(Rows(visit, drug, np.zeros(len(visit))))
        if "random" in self.world:
            own = np.flatnonzero(visits.fixed & (visits.reason == self.places["heart_failure"]))
            parts.append(Rows(own, np.full(len(own), self.ingredients.index(self.world["drug"])), np.zeros(len(own))))
        return Rows.once(parts)

    def measurements(self, lives: Lives, visits: Visits, standing: Standing, rng: np.random.Generator) -> Rows:
        """Test results; a visit's result is of the condition that comes last in the list of its test."""
        parts, n = [], len(lives.entry)
        adult = (visits.admit - lives.state.birth[visits.patient] > 18 * YEAR) & ~visits.fixed
        for number, (test, one) in enumerate(self.laboratory.items()):
            found = []
            for condition, of in [*one["if"].items()][::-1]:
                visit, row = self.at(condition, visits, standing, n)
                ordered = rng.random(len(visit)) < of["share"]
                visit, row = visit[ordered], row[ordered]
                mean = np.full(len(visit), float(of["mean"]))
                if "stage" in of:
                    grown = standing.pace[row] * (visits.admit[visit] - standing.onset[row]) / YEAR
                    mean += of["stage"] * np.minimum(grown, 4.0)
                    mean += of["slope"] * lives.state.traits[visits.patient[visit], self.traits[of["trait"]]]
                found.append((visit, mean + of["sd"] * rng.standard_normal(len(visit))))
            visit = np.flatnonzero(adult & (rng.random(len(visits)) < one["all"]))
            found.append((visit, one["mean"] + one["sd"] * rng.standard_normal(len(visit))))
            if test == "BNP" and "random" in self.world:
                own = np.flatnonzero(visits.fixed & (visits.reason == self.places["heart_failure"]))
                low, high = self.world["log_bnp"]
                found.append((own, low + rng.random(len(own)) * (high - low)))
            visit, value = (np.concatenate([part[place] for part in found]) for place in (0, 1))
            value = np.exp(value) if one.get("log") else np.maximum(value, 0.1)
            parts.append(Rows(visit, np.full(len(visit), number), np.round(value, one["decimals"])))
        return Rows.once(parts)

    def procedures_done(self, visits: Visits, standing: Standing, patients: int, rng: np.random.Generator) -> Rows:
        """Procedures of visits."""
        parts = []
        for one in self.procedures:
            visit, _ = self.at(one["at"], visits, standing, patients)
            visit = visit[rng.random(len(visit)) < one["share"]]
            late = visits.admit[visit] >= self.icd10_from
            for key, system, of in (
                ("codes", "CPT4", late | True),
                ("icd9", "ICD9Proc", ~late),
                ("icd10", "ICD10PCS", late),
            ):
                if key in one:
                    rows = visit[of]
                    names = np.array([self.procedure_codes.index((system, code)) for code in one[key]])
                    shares = np.cumsum(list(one[key].values()))
                    pick = names[np.searchsorted(shares / shares[-1], rng.random(len(rows)))]
                    parts.append(Rows(rows, pick, np.zeros(len(rows))))
        return Rows.once(parts)
