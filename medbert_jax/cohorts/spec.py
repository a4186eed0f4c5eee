"""The cohort specification: what a clinician writes in YAML, read strictly and checked as a whole."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from medbert_jax.cohorts.checks import faults_between_keys
from medbert_jax.cohorts.parsing import build, read_yaml

# Where a rule comes from: printed in the paper, printed elsewhere by its authors, or a gap that we filled.
Tag = Literal["paper", "group", "ours"]
Window = Literal["whole_record", "first_visit", "before_index", "index_visit", "through_index", "after_index"]
Disposition = Literal["home", "facility", "expired", "hospice", "other"]

SPECS_DIRECTORY = Path(__file__).parent / "specs"


@dataclass(frozen=True)
class CodeSet:
    """Codes that mean one thing, by prefix: ICD9CM/428 is 428, 428.0 and 428.21, never another category."""

    id: str
    description: str
    prefixes: tuple[str, ...]
    tag: Tag


@dataclass(frozen=True)
class Condition:
    """A count over a patient's record, compared with one number.

    `measure: visits` counts the visits within `window` that have a code of the set `with_codes`, one of the
    dispositions `with_disposition` and one of the types `with_type`, as far as these are given; two codes in
    one visit are one visit, and what the source does not know is not counted.
    `measure: days_to_index` is the calendar days from the first such visit of the whole record to the index
    visit's admission; where there is no such visit, or a date is unknown, `fewer_than` holds: what must be
    long enough was not shown to be.
    """

    measure: Literal["visits", "days_to_index"] = "visits"
    with_codes: str | None = None
    with_disposition: tuple[Disposition, ...] | None = None
    with_type: tuple[str, ...] | None = None
    window: Window | None = None
    # exactly one of the two
    at_least: int | None = None
    fewer_than: int | None = None

    @property
    def needs_days(self) -> bool:
        """Whether the condition can be told only where the source has dates."""
        return self.measure == "days_to_index"


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


@dataclass(frozen=True)
class Outcome:
    """What is predicted: exactly one of the three kinds."""

    description: str
    tag: Tag
    # a visit with a code of this set; cases have one, controls have none in the whole record
    codes: str | None = None
    # the index visit's length of stay is more than so many days
    stay_over_days: int | None = None
    # admitted again, to a visit of one of these types (any, where not given), 0 to so many days
    # after the index visit's discharge, both ends included; where the source itself says it, it is believed
    readmitted_within_days: int | None = None
    readmission_types: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Index:
    """The index visit: by case and control for an outcome of codes, the same for everyone otherwise."""

    description: str
    tag: Tag
    cases: Literal["first_outcome_visit"] | None = None
    controls: Literal["last_visit"] | None = None
    everyone: Literal["first_visit", "last_visit"] | None = None


@dataclass(frozen=True)
class InputWindow:
    """What the model may read."""

    description: str
    tag: Tag
    # before_index: prediction at the index visit's admission; through_index: at its discharge
    until: Literal["before_index", "through_index"]
    # distinct diagnosis codes that the input must hold
    minimum_codes: int = 1


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
    rules: tuple[Rule, ...] = ()

    def code_set(self, id: str) -> CodeSet:
        """The code set of that id."""
        return next(code_set for code_set in self.code_sets if code_set.id == id)

    def to_dict(self) -> dict[str, Any]:
        """Plain data in the structure of the YAML, for JSON and hashes; `parse_spec` gives the spec back."""
        return _plain(dataclasses.asdict(self))


def load_spec(name_or_path: str | Path) -> CohortSpec:
    """A built-in cohort by name, or the cohort of a YAML file; ValueError lists every fault with its key."""
    built_in = {path.stem: path for path in sorted(SPECS_DIRECTORY.glob("*.yaml"))}
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


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
