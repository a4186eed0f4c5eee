"""The figures of a dataset as they may be read: all of them, or those that can be shared."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from medbert_jax.attrition.disclosure import SMALLEST, hidden_shares, refuse_predictions
from medbert_jax.description.descriptives import OF_SYSTEM, Description
from medbert_jax.description.distributions import Distribution, Share
from medbert_jax.description.figure_tables import FEW, HIDDEN, UNKNOWN, Figure, number
from medbert_jax.ehr.icd import ICD10_SYSTEMS

RACES = {
    "White": ("white", "caucasian"),
    "African American": ("african american", "africanamerican", "black", "black or african american"),
    "Asian/Pacific Islander": ("asian", "asian/pacific islander", "asian or pacific islander", "pacific islander",
                               "native hawaiian or other pacific islander"),
}  # fmt: skip
"""The paper's races → names that sources give them, in lower case; other races keep their own name."""
HIDING = (
    "<11: rests on 1 to 10 patients. hidden: would give such a number away, or rests on fewer than 11 patients at one"
    " end. Do not share it beside tables of nearly the same patients."
)


@dataclass(frozen=True)
class ShownColumn:
    """The figures of one dataset as they may be read."""

    about: Description
    share: bool

    def __post_init__(self):
        refuse_predictions(self.share and self.about.people is not None)

    # The flow chart of the same dataset hides what would tell its small counts; both files must be safe together.

    @property
    def patients(self) -> Figure:
        """How many there are."""
        if self.too_small:
            return FEW if self.about.patients < SMALLEST else HIDDEN
        if self.share and self.about.attrition:
            _, remain, _ = self.about.attrition.cells(share=True)["patients"]
            if isinstance(remain[-1], str):
                return HIDDEN
        return number(self.about.patients)

    def event(self, decimals: int = 1, of: int | None = None) -> Figure:
        """The share of the patients who have the event, or of more patients."""
        share, attrition = self.about.tally.shares["event"], self.about.attrition
        shown = self.percent(share, decimals, of)
        if self.share and attrition and shown.value is not None:
            _, _, branches = attrition.cells(share=True)["patients"]
            cases = [cell for (names, _), cell in zip(attrition.groups(), branches, strict=True) if len(names) > 1]
            if any(isinstance(cell, str) for cell in cases):
                return HIDDEN
        return shown

    def left(self, rule: str) -> Figure:
        """Patients who left under a rule, at selection or at serialization."""
        attrition = self.about.attrition
        lines = attrition.steps[0].lines if attrition else ()
        places = [place for place, line in enumerate(lines) if line.rule.rpartition(":")[2] == rule]
        if attrition is None or not places:
            return UNKNOWN
        if self.too_small:
            return HIDDEN
        cells = [attrition.cells(share=self.share)["patients"][0][place] for place in places]
        counts = [cell for cell in cells if not isinstance(cell, str)]
        if len(counts) < len(cells):
            return FEW if cells == [FEW.text] else HIDDEN
        return number(sum(counts))

    @property
    def too_small(self) -> bool:
        """Whether nothing of the dataset can be shown: its total would have to be hidden."""
        tally, patients = self.about.tally, self.about.patients
        event, known = tally.shares["event"].count, tally.shares["event"].total
        events = [event, known - event, patients - known]
        groups = (tally.sex.tolist(), [*race_parts(self.about).values()], events)
        total_hidden = any(hidden_shares(counts, decimals=1)[1] for counts in groups)
        return self.share and (patients < SMALLEST or total_hidden)

    def part(self, counts: Sequence[int], place: int) -> Figure:
        """One of the parts that all patients fall into, in %."""
        if self.too_small:
            return HIDDEN
        if self.share and place in hidden_shares(counts, decimals=1)[0]:
            return FEW if counts[place] < SMALLEST else HIDDEN
        return number(100 * counts[place] / sum(counts), 1, unit="%")

    def system(self, name: str) -> Figure:
        """The share of a code system in the codes whose system is known, in %; unknown where the dataset has none."""
        shares = systems_of(self.about)
        if name not in shares:
            return UNKNOWN
        partner = shares[name].may_be_shared and name in _hidden_systems(shares)
        return HIDDEN if self.share and partner else self.percent(shares[name])

    def percent(self, share: Share, decimals: int = 1, of: int | None = None) -> Figure:
        """A share in %, or the same count as a share of something larger."""
        total = share.total if of is None else of
        if not total:
            return UNKNOWN
        if self.too_small:
            return HIDDEN
        if self.share and not share.may_be_shared:
            return FEW if 0 < share.patients_with < SMALLEST else HIDDEN
        return number(100 * share.count / total, decimals, unit="%")

    def statistic(self, distribution: Distribution, value: float | None, decimals: int) -> Figure:
        """A mean or standard deviation."""
        if value is None:
            return UNKNOWN
        few = self.too_small or (self.share and distribution.patients < SMALLEST)
        return HIDDEN if few else number(value, decimals)

    def percentile(self, distribution: Distribution, percent: int) -> Figure:
        """A percentile; 100: the largest value."""
        value = distribution.percentile(percent)
        if value is None:
            return UNKNOWN
        if self.too_small or (self.share and not distribution.may_be_shared(value)):
            return HIDDEN
        return number(value)


def systems_of(about: Description) -> dict[str, Share]:
    """The code systems that are in use, each with its share of the codes whose system is known."""
    shares = about.tally.shares.items()
    return {key.removeprefix(OF_SYSTEM): share for key, share in shares if key.startswith(OF_SYSTEM) and share.count}


def _hidden_systems(shares: dict[str, Share]) -> set[str]:
    """The systems of few patients; one that is alone among those of ICD-10, of which the sum is shown, or among the
    others, would follow from these: the smallest of them is hidden with it."""
    is_icd10 = {name: re.fullmatch(ICD10_SYSTEMS, name) is not None for name in shares}
    groups = [{name for name, of in is_icd10.items() if of is which} for which in (True, False)]
    hidden = {name for name, share in shares.items() if not share.may_be_shared}
    for group in (*groups, {*shares}):
        if len(hidden & group) == 1:
            hidden |= {*sorted(group - hidden, key=lambda name: (shares[name].count, name))[:1]}
    return hidden


def race_parts(about: Description) -> dict[str | None, int]:
    """Patients by race as the tables call it; None: unknown."""
    counts = about.tally.race.tolist()
    parts = {None: counts[0]}
    for raw, count in zip(about.metadata.get("races", ()), counts[1:], strict=True):
        parts[race_name(raw)] = parts.get(race_name(raw), 0) + count
    return parts


def race_name(raw: str) -> str:
    """What the tables call a race of a source."""
    return next((name for name, spellings in RACES.items() if raw.strip().lower() in spellings), raw)
