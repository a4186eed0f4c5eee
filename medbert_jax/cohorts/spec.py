"""The cohort specification: what a clinician writes in YAML, read strictly and checked as a whole."""

import dataclasses
import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from medbert_jax.cohorts.checks import faults_between_keys
from medbert_jax.cohorts.conditions import Condition
from medbert_jax.cohorts.evidence_sets import CodeSet, DrugSet, LaboratorySet, Tag
from medbert_jax.cohorts.parsing import build, read_yaml

SPECS_DIRECTORY = Path(__file__).parent / "specs"


@dataclass(frozen=True)
class Rule:
    """One line of the attrition ledger, or one flag."""

    id: str
    description: str
    tag: Tag
    when: Condition
    # leave: the patient leaves. flag: the patient stays, marked in the column flag_<id>.
    # skip_visit: such a visit cannot be the index; the patient leaves where no other visit is left.
    action: Literal["leave", "flag", "skip_visit"] = "leave"
    # whom the rule judges: cases have a code of the outcome, controls have none; not given: everyone
    among: Literal["cases", "controls"] | None = None


@dataclass(frozen=True)
class Outcome:
    """What is predicted: exactly one of the three kinds."""

    description: str
    tag: Tag
    # a visit with a code of this set; cases have one, controls have none in the whole record
    codes: str | None = None
    # with codes: only a visit admitted so many days after the day of the prediction time counts, both included
    from_day: int | None = None
    to_day: int | None = None
    # competes: who dies in that time before such a visit has no outcome, and is marked in competing_death
    death: Literal["competes"] | None = None
    # the index visit's length of stay is more than so many days
    stay_over_days: int | None = None
    # admitted again, to a visit of one of these types (any, where not given), 0 to so many days
    # after the index visit's discharge, both ends included; where the source itself says it, it is believed
    readmitted_within_days: int | None = None
    readmission_types: tuple[str, ...] | None = None

    @property
    def is_ahead(self) -> bool:
        """Whether the outcome is looked for in a time at risk after the prediction."""
        return self.to_day is not None


@dataclass(frozen=True)
class Index:
    """The index visit: by case and control for an outcome of codes anywhere, the same for everyone otherwise."""

    description: str
    tag: Tag
    cases: Literal["first_outcome_visit"] | None = None
    # matched_date: a date, drawn for the case whose control it is
    controls: Literal["last_visit", "matched_date"] | None = None
    # first_visit_after: the first visit that ends so many days or more after the first one with these codes
    everyone: Literal["first_visit", "last_visit", "first_visit_after"] | None = None
    after_days: int | None = None
    after_codes: str | None = None


@dataclass(frozen=True)
class Matching:
    """Controls drawn for each case at the same time since the first visit with the codes `since_codes`."""

    description: str
    tag: Tag
    since_codes: str
    # share of patients who, by a hash of their id, may be controls; the others may be cases, and nobody is both
    control_pool: float
    controls_per_case: int
    # the control's index date is at most so far from the same time since the first visit with the codes
    within_days: int
    same_calendar_year: bool
    # the index date is at least so many days after the first visit with the codes
    minimum_days: int
    # names the draw: another key is another draw
    key: str


@dataclass(frozen=True)
class Sample:
    """Controls drawn at random, in the order of a hash of their id; nobody leaves of the cases."""

    description: str
    tag: Tag
    controls_per_case: int
    key: str


@dataclass(frozen=True)
class InputWindow:
    """What the model may read."""

    description: str
    tag: Tag
    # before_index: prediction at the index visit's admission; through_index: at its discharge
    until: Literal["before_index", "through_index"]
    # distinct diagnosis codes that the input must hold
    minimum_codes: int = 1
    # with before_index: the input ends so many days before the day of the index
    gap_days: int | None = None


@dataclass(frozen=True)
class TemporalSplit:
    """A split by time within that by patient, which stays: who is on the wrong side of the day leaves."""

    description: str
    tag: Tag
    # test patients are predicted on this day or later; of the others what the label says had happened before it
    test_from: datetime.date


@dataclass(frozen=True)
class CohortSpec:
    """Who is in, what is predicted, when, and from what. Rules act in the order in which they are written."""

    name: str
    title: str
    description: str
    outcome: Outcome
    index: Index
    input: InputWindow
    code_sets: tuple[CodeSet, ...] = ()
    drug_sets: tuple[DrugSet, ...] | None = None
    laboratory_sets: tuple[LaboratorySet, ...] | None = None
    matching: Matching | None = None
    sample: Sample | None = None
    split: TemporalSplit | None = None
    rules: tuple[Rule, ...] = ()

    def code_set(self, id: str) -> CodeSet:
        """The code set of that id."""
        return next(code_set for code_set in self.code_sets if code_set.id == id)

    def diagnosis_sets(self) -> tuple[CodeSet, ...]:
        """The code sets that are looked for among diagnoses."""
        used = {self.outcome.codes, self.index.after_codes, self.matching and self.matching.since_codes}
        for leaf in self.leaves():
            used |= {leaf.since_codes, None if leaf.measure == "procedures" else leaf.with_codes}
        return tuple(code_set for code_set in self.code_sets if code_set.id in used)

    def leaves(self) -> Iterator[Condition]:
        """Every condition of the rules that measures something."""
        return (leaf for rule in self.rules for leaf in rule.when.leaves())

    @property
    def judges_age(self) -> bool:
        """Whether a rule compares an age."""
        return any(rule.when.judges_age for rule in self.rules)

    def to_dict(self) -> dict[str, Any]:
        """Plain data in the structure of the YAML, for JSON and hashes; `parse_spec` gives the spec back."""
        return _plain(dataclasses.asdict(self))


def load_spec(name_or_path: str | Path) -> CohortSpec:
    """A built-in cohort by name, or the cohort of a YAML file; ValueError lists every fault with its key."""
    built_in = {path.stem: path for path in sorted(SPECS_DIRECTORY.glob("*.yaml"), key=lambda path: path.stem)}
    path = built_in.get(str(name_or_path), Path(name_or_path))
    if not path.is_file():
        raise ValueError(
            f"a cohort is a built-in name or a YAML file: got {str(name_or_path)!r}; "
            f"use {', '.join(built_in)}, or the path of a .yaml file that exists"
        )
    data, faults = read_yaml(path)
    return parse_spec(data, source=str(path), faults=faults)


def parse_spec(data: Any, *, source: str, faults: list[str] | None = None) -> CohortSpec:
    """The spec that plain data (a YAML file's content) describe; one ValueError lists every fault of it."""
    faults = list(faults or ())
    if data is not None or not faults:
        spec = build(CohortSpec, data, "", faults)
        if spec is not None:
            faults += faults_between_keys(spec)
    if faults:
        raise ValueError(
            f"a cohort spec must follow its format: {source} has {len(faults)} "
            f"fault{'s' if len(faults) > 1 else ''};\n  " + "\n  ".join(faults) + "\ncorrect these keys"
        )
    return spec


def changed_spec(
    spec: CohortSpec, *, gap_days: int | None = None, test_from: datetime.date | None = None
) -> CohortSpec:
    """The spec with these settings in place of its own, checked anew; None leaves its own."""
    plain = spec.to_dict()
    if gap_days is not None:
        plain["input"]["gap_days"] = gap_days
    if test_from is not None:
        plain["split"] = {"description": "Tested on later predictions", "tag": "ours", "test_from": test_from}
    return parse_spec(plain, source=spec.name)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, datetime.date):
        return value.isoformat()
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
