"""A cohort of patients whose label nobody knows yet: who may be predicted, told by what was known at the prediction.

The rules of the spec act as they do in the cohort, but for those that ask for the label or for what comes after the
prediction. Where the index exists without knowing the outcome, no rule looks past it, whatever its window says: a
record that changes later changes nobody's place.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import polars as pl

from medbert_jax.cohorts.comparisons import Together
from medbert_jax.cohorts.conditions import Condition
from medbert_jax.cohorts.counts import Events
from medbert_jax.cohorts.outcomes import Outcome
from medbert_jax.cohorts.predicted import Predicted
from medbert_jax.cohorts.spans import DaysOfFollowUp
from medbert_jax.cohorts.spec import CohortSpec


@dataclass(frozen=True, kw_only=True)
class Unlabelled(Predicted):
    """In place of an outcome: no label is looked for, and nobody leaves for want of one."""

    KNOWN_BY: ClassVar[str] = "of"
    always_known = True

    of: Outcome
    """What would be predicted: an index by case goes by its codes."""
    reads_to_prediction: bool
    given_dates: pl.DataFrame | None = field(default=None, compare=False)
    code_set = property(lambda self: self.of.code_set)

    def refused_inputs(self) -> Mapping[str, str]:
        """Those of the outcome."""
        return self.of.refused_inputs()

    def label(self, dated: bool) -> pl.Expr:
        """Unknown of everybody."""
        return pl.lit(None, pl.Boolean).first()

    def event(self) -> pl.Expr:
        """No visit makes a label."""
        return pl.lit(False)

    def no_event(self) -> str:
        """What is said where there is no label."""
        return "no label is looked for"

    def unjudged(self) -> dict[str, tuple[str, pl.Expr]]:
        """Who has nothing at the prediction that the outcome would be a change of: that is known then."""
        return {id: line for id, line in self.of.unjudged().items() if id == "no_baseline"}

    def evidence(self) -> Iterator[Events]:
        """The events of other tables that tell who has no such thing."""
        if "no_baseline" in self.of.unjudged():
            yield from self.of.evidence()


def needs_outcome(spec: CohortSpec) -> str:
    """Why nobody can say when to predict who does not know the outcome, in words; empty where the index is without it.

    A risk needs an index and a horizon that exist without knowing the outcome; all else is a score.
    """
    if spec.matching is not None:
        return "a case is predicted before the day of his event, and a control before a date that is drawn for his case"
    if spec.index.by_case:
        return (
            "a case is predicted before the first encounter with the outcome, and a control before his last encounter"
        )
    if spec.index.is_last_visit:
        return "everybody is predicted at the last encounter, and which one is the last is known only afterwards"
    return ""


def needs_dates(spec: CohortSpec) -> bool:
    """Whether the index is a date that is drawn, so that one has to be given for whoever has no label."""
    return spec.matching is not None


def unlabelled(spec: CohortSpec, dates: pl.DataFrame | None = None) -> tuple[CohortSpec, tuple[str, ...]]:
    """The spec for patients without labels, and the ids of the rules that it does not ask, or asks in part.

    Nobody is drawn, matched or put on a side of a day. Where the index is a date that is drawn, `dates` (patient_id,
    given_date) stand in for it, and nothing is read of that day and later ones; ValueError without them.
    """
    if needs_dates(spec) != (dates is not None):
        raise ValueError(
            f"a day of the prediction is given where the cohort draws one, as a matched one does: got"
            f" {'none' if dates is None else 'days'} for the spec {spec.name!r};"
            f" {'give --at DAY, or --times FILE' if dates is None else 'leave --at and --times out'}"
        )
    rules, left_out = [], []
    for rule in spec.rules:
        when = None if rule.among is not None else _without_later(rule.when)
        if when != rule.when:
            left_out.append(rule.id)
        if when is not None:
            rules.append(replace(rule, when=when))
    outcome = Unlabelled(
        description=spec.outcome.description,
        tag=spec.outcome.tag,
        of=spec.outcome,
        reads_to_prediction=not needs_outcome(spec),
        given_dates=dates,
    )
    nothing = dict.fromkeys(("sample", "split", "looks_after_index"))
    return replace(spec, outcome=outcome, rules=tuple(rules), **nothing), tuple(left_out)


def _without_later(when: Condition) -> Condition | None:
    """The condition without the parts that ask for what comes after the prediction alone; None: nothing is left."""
    if isinstance(when, Together):
        parts = tuple(part for one in when.parts() if (part := _without_later(one)) is not None)
        return dataclasses.replace(when, **{when.KNOWN_BY: parts}) if parts else None
    return None if isinstance(when, DaysOfFollowUp) or when.window == "after_index" else when
