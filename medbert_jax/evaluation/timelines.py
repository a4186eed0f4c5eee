"""Example timelines, as in the paper's Fig. 2: individual-level data, to be looked at and never to be shared.

By day from the patient's first visit only: no date, no id.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medbert_jax.data.sequences import PatientSequences
from medbert_jax.data.token_store import open_token_store
from medbert_jax.data.vocabulary import Vocabulary
from medbert_jax.ehr.schema import SEXES
from medbert_jax.evaluation.descriptives import DAYS_PER_YEAR, Description

PERCENTILES = (5, 25, 50, 75, 95)
OLDEST_SHOWN = 89  # older people are few enough to be known by their age


@dataclass(frozen=True)
class TimelineCode:
    """A code of a visit; `again` says that an earlier visit has it too."""

    code: str
    title: str
    again: bool


@dataclass(frozen=True)
class TimelineVisit:
    """A visit with its codes in serialized order; None is unknown."""

    day: int | None
    stay: int | None
    codes: tuple[TimelineCode, ...]


@dataclass(frozen=True)
class Timeline:
    """One patient, called "patient 1"."""

    name: str
    percentile: int
    """Of the number of codes, among the patients that were chosen from."""
    person: str
    """Sex and age at the first visit, as far as they are known."""
    outcome: str
    index_day: int | None
    """Day of a cohort's index; None where there is none, or no dates."""
    visits: tuple[TimelineVisit, ...]

    @property
    def codes(self) -> int:
        """How many codes the patient has."""
        return sum(len(visit.codes) for visit in self.visits)

    @property
    def summary(self) -> str:
        """As "9 codes (percentile 50) in 4 visits; female, 61 years; label 1"."""
        visits = f"{len(self.visits)} visit{'s' if len(self.visits) > 1 else ''}"
        codes = f"{self.codes} code{'s' if self.codes > 1 else ''} (percentile {self.percentile})"
        return f"{self.person}; {self.outcome}; {codes} in {visits}"


def choose_patients(lengths: np.ndarray, percentiles: Sequence[int], seed: int) -> dict[int, int]:
    """Return percentile → number of a patient whose length stands there; who, among equals, is drawn by the seed.

    Percentiles that fall on one patient, in a small dataset, give the first of them only.
    """
    order = np.lexsort([np.random.default_rng(seed).random(len(lengths)), lengths])
    places = {max(-(-percent * len(order) // 100), 1) - 1: percent for percent in reversed(percentiles)}
    return {percent: int(order[place]) for place, percent in sorted(places.items())}


def example_timelines(directory, about: Description, *, seed: int = 0) -> list[Timeline]:
    """Return five timelines of a dataset's training patients (nobody looks at those of the test split)."""
    counts = about.metadata["split"]["counts"]
    split = next(split for split in ("train", *counts) if counts.get(split))
    patients = open_token_store(directory, split)
    chosen = choose_patients(patients.lengths, PERCENTILES, seed)
    vocabulary = Vocabulary.read(f"{directory}/vocabulary.tsv")
    few = patients.take(np.array([*chosen.values()]))
    return [_timeline(few, place, percent, about, vocabulary) for place, percent in enumerate(chosen)]


def timeline_text(timeline: Timeline, *, longest: int = 12) -> str:
    """The timeline in lines of text, the first and last visits of those who have more than `longest`."""
    span = [visit.day for visit in timeline.visits if visit.day is not None]
    days = f" over {span[-1] - span[0]:,} days" if len(span) > 1 else ""
    lines = [f"{timeline.name}: {timeline.summary}{days}"]
    visits = list(enumerate(timeline.visits, start=1))
    skipped = visits[longest // 2 : len(visits) - longest // 2] if len(visits) > longest else []
    for number, visit in visits:
        if skipped and number == skipped[0][0]:
            lines.append(f"  … {len(skipped)} more visits …")
        if skipped and skipped[0][0] <= number <= skipped[-1][0]:
            continue
        lines.append(f"  {visit_heading(number, visit)}")
        lines += [f"    {'=' if code.again else '+'} {code.code}  {code.title}".rstrip() for code in visit.codes]
    if timeline.index_day is not None:
        lines.append(f"  day {timeline.index_day}: index")
    return "\n".join(lines)


def visit_heading(number: int, visit: TimelineVisit) -> str:
    """As "day 412, 3 days", or "visit 2" where the day is unknown."""
    when = f"visit {number}" if visit.day is None else f"day {visit.day:,}"
    return when if not visit.stay else f"{when}, {visit.stay} day{'s' if visit.stay > 1 else ''}"


def _timeline(
    patients: PatientSequences, place: int, percent: int, about: Description, vocabulary: Vocabulary
) -> Timeline:
    patient = patients.take([place])
    visits, seen = [], set()
    for number in range(len(patient.visit_days)):
        ids = patient.code_ids[patient.visit_ids == number + 1].tolist()
        titles = [vocabulary.title(code) for code in ids]
        names = [vocabulary.code(code) for code in ids]
        codes = [
            TimelineCode(name, "" if title == name else title, name in seen)
            for name, title in zip(names, titles, strict=True)
        ]
        seen.update(names)
        day, stay = (int(column[number]) for column in (patient.visit_days, patient.length_of_stay))
        visits.append(TimelineVisit(None if day < 0 else day, None if stay < 0 else stay, tuple(codes)))
    sex, age = int(patient.sex[0]), int(patient.age_days[0])
    years = int(age / DAYS_PER_YEAR)
    shown = "age unknown" if age < 0 else f"{years} years" if years <= OLDEST_SHOWN else f"over {OLDEST_SHOWN} years"
    outcomes = {name: int(values[0]) for name, values in patient.outcomes.items()}
    index_day = outcomes.get("index_day", -1)
    if about.is_cohort:
        outcome = f"label {outcomes['label']}"
    else:
        outcome = "a prolonged stay" if outcomes["prolonged_los"] else "no prolonged stay"
    return Timeline(
        name=f"patient {place + 1}",
        percentile=percent,
        person=f"{SEXES[sex - 1] if sex else 'sex unknown'}, {shown}",
        outcome=outcome,
        index_day=None if index_day < 0 else index_day,
        visits=tuple(visits),
    )
