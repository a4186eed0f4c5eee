"""The cohort specification: what a clinician writes in YAML, as data."""

import dataclasses
import datetime
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from medbert_jax.cohorts.conditions import Condition, Measure
from medbert_jax.cohorts.counts import CodesOfVisits
from medbert_jax.cohorts.episodes import Episodes
from medbert_jax.cohorts.evidence_sets import CodeSet, DrugSet, Id, LaboratorySet, Tag
from medbert_jax.cohorts.follow_up import FollowUp
from medbert_jax.cohorts.index_visits import Index
from medbert_jax.cohorts.outcomes import Outcome
from medbert_jax.cohorts.parsing import Must, NotNegative, Positive, names_in
from medbert_jax.cohorts.spans import DaysOfLookback, EnrolledAtIndex


@dataclass(frozen=True)
class Rule:
    """One line of the attrition ledger, or one flag."""

    id: Id
    description: str
    tag: Tag
    when: Condition
    # leave: the patient leaves. flag: the patient stays, marked in the column flag_<id>.
    # skip_visit: such a visit cannot be the index; the patient leaves where no other visit is left.
    action: Literal["leave", "flag", "skip_visit"] = "leave"
    # whom the rule judges: cases have a code of the outcome, controls have none; not given: everyone
    among: Literal["cases", "controls"] | None = None

    @property
    def looks_after_index(self) -> bool:
        """Whether it judges cases or controls alone by what may come after the index: they are not treated alike."""
        return self.among is not None and any(leaf.looks_after_index for leaf in self.when.leaves())


@dataclass(frozen=True, kw_only=True)
class Matching:
    """Controls drawn for each case at the same time since the first visit with the codes `since_codes`, or since the
    first at `since_age` years or more."""

    EXACTLY_ONE_OF: ClassVar[tuple[str, ...]] = ("since_codes", "since_age")

    description: str
    tag: Tag
    since_codes: CodesOfVisits | None = None
    since_age: Positive | None = None
    # share of patients who, by a hash of their id, may be controls; the others may be cases, and nobody is both
    control_pool: Annotated[float, Must(lambda share: 0 < share < 1, "must lie between 0 and 1; got {}")]
    controls_per_case: Positive
    # the control's index date is at most so far from the same time since the first visit with the codes
    within_days: NotNegative
    same_calendar_year: bool
    # the index date is at least so many days after the first visit with the codes
    minimum_days: NotNegative
    # names the draw: another key is another draw
    key: str


@dataclass(frozen=True)
class Sample:
    """Controls drawn at random, in the order of a hash of their id; nobody leaves of the cases."""

    description: str
    tag: Tag
    controls_per_case: Positive
    key: str


@dataclass(frozen=True, kw_only=True)
class InputWindow:
    """What the model may read; what one kind does not say of itself is as it stands here."""

    KNOWN_BY: ClassVar[str] = "until"
    gap_days = None
    waits_for_bill = False
    """Whether the codes of the index visit's bill are not known yet at its discharge."""

    description: str
    tag: Tag
    # distinct diagnosis codes that the input must hold
    minimum_codes: Positive = 1


@dataclass(frozen=True, kw_only=True)
class BeforeIndex(InputWindow):
    """The prediction is made at the index visit's admission."""

    REFUSES: ClassVar[Mapping[str, str]] = {"known": "reads nothing of the index visit"}

    until: Literal["before_index"]
    # the input ends so many days before the day of the index
    gap_days: NotNegative | None = None


@dataclass(frozen=True, kw_only=True)
class ThroughIndex(InputWindow):
    """The prediction is made at the index visit's discharge."""

    REFUSES: ClassVar[Mapping[str, str]] = {"gap_days": "ends with the index visit itself"}

    until: Literal["through_index"]
    # discharge: the codes of the index visit are known when it ends; billing: those of the bill are not, nor those of
    # which it is unknown whether they are
    known: Literal["discharge", "billing"] = "discharge"
    waits_for_bill = property(lambda self: self.known == "billing")


Input = BeforeIndex | ThroughIndex


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

    name: Annotated[
        str,
        Must(
            lambda text: re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", text) is not None,
            "must be lower-case words joined by '-'; got {!r}",
        ),
    ]
    title: str
    description: str
    outcome: Outcome
    index: Index
    input: Input
    code_sets: tuple[CodeSet, ...] = ()
    drug_sets: tuple[DrugSet, ...] | None = None
    laboratory_sets: tuple[LaboratorySet, ...] | None = None
    episodes: Episodes | None = None
    follow_up: FollowUp | None = None
    matching: Matching | None = None
    sample: Sample | None = None
    split: TemporalSplit | None = None
    # whom alone a rule judges by what comes after the index; a spec without such rules does not have it
    looks_after_index: Literal["cases", "controls", "both"] | None = None
    # none: [] says so
    rules: tuple[Rule, ...] = field(kw_only=True)

    def entry(self, group: str, id: str) -> Any:
        """The entry of code_sets, drug_sets or laboratory_sets that has that id."""
        return next(entry for entry in getattr(self, group) if entry.id == id)

    def code_set(self, id: str) -> CodeSet:
        """The code set of that id."""
        return self.entry("code_sets", id)

    def diagnosis_sets(self) -> tuple[CodeSet, ...]:
        """The code sets that are looked for among diagnoses."""
        used = {id for _, names, id in names_in(self) if names.table == "diagnoses"}
        return tuple(code_set for code_set in self.code_sets if code_set.id in used)

    def leaves(self) -> Iterator[Measure]:
        """Every condition of the rules that measures something."""
        return (leaf for rule in self.rules for leaf in rule.when.leaves())

    def looking_after_index(self) -> Literal["cases", "controls", "both"] | None:
        """Whom alone rules judge by what may come after the index."""
        whom = {rule.among for rule in self.rules if rule.looks_after_index}
        return "both" if len(whom) > 1 else next(iter(whom), None)

    def said_of_looking(self) -> str:
        """A sentence about the rules that look after the index and do not treat cases and controls alike; or empty."""
        if self.looks_after_index is None:
            return ""
        ids = ", ".join(rule.id for rule in self.rules if rule.looks_after_index)
        whom = "cases and controls, each by rules of their own," if self.looks_after_index == "both" else (
            f"{self.looks_after_index} alone")  # fmt: skip
        return f"looks_after_index: {self.looks_after_index}: {whom} are judged by what comes after the index ({ids})"

    @property
    def looks_at_follow_up(self) -> bool:
        """Whether somebody's own follow-up decides anything: an outcome in a time at risk, or a rule."""
        return self.outcome.asks_follow_up or any(
            isinstance(leaf, DaysOfLookback | EnrolledAtIndex) for leaf in self.leaves()
        )

    @property
    def judges_age(self) -> bool:
        """Whether a rule compares an age."""
        return any(leaf.judges_age for leaf in self.leaves())

    def to_dict(self) -> dict[str, Any]:
        """Plain data in the structure of the YAML, for JSON and hashes; `parse_spec` gives the spec back."""
        return _plain(dataclasses.asdict(self))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        plain = {key: _plain(item) for key, item in value.items() if item is not None}
        if plain.get("until") == "through_index" and plain["known"] == "discharge":
            del plain["known"]  # what is meant where nothing is said
        # It means nothing there. Datasets have always said it, and what a dataset says is what its hash is of.
        idle = {"measure": "visits"} if plain.keys() & {"any_of", "none_of"} else {}
        return plain | idle
    if isinstance(value, datetime.date):
        return value.isoformat()
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
