"""What every kind of outcome that a cohort may predict has, and says of itself."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import polars as pl

from medbert_jax.cohorts.evidence_sets import Tag

if TYPE_CHECKING:
    from medbert_jax.cohorts.counts import Events


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What every kind of outcome has; what one does not say of itself is as it stands here."""

    KNOWN_BY: ClassVar[str]
    REFUSES_INPUT: ClassVar[Mapping[str, str]] = {}
    """`input.until` that does not go with it → why, and what does."""
    by_case = False
    """Whether the index is that of a case or of a control, told by the whole record."""
    is_ahead = False
    """Whether the outcome is looked for in a time at risk after the prediction."""
    asks_follow_up = False
    """Whether the time in which a patient is followed decides whether his label is known."""
    needs_own_follow_up = False
    """Whether it may come and not be seen: something has to say until when a patient is followed."""
    always_known = False
    """Whether every record tells the label, as far as he is followed."""
    code_set = None
    """Id of the set of codes that cases have; None: codes do not make them."""
    needs_days = False
    """Whether the label can be told only where the source has dates."""
    stated_by = None
    """Column of the index visit by which the source itself says the label, where it says it."""
    reads_to_prediction = False
    """Whether no rule looks past the prediction, whatever its window says."""
    given_dates = None
    """patient_id, given_date: days of the prediction that are given, in place of those that are drawn for cases."""
    known_after_days = 0
    """Days after the prediction by which what the label says has happened or can no more."""

    description: str
    tag: Tag

    def refused_inputs(self) -> Mapping[str, str]:
        """`input.until` that does not go with it → why, and what does."""
        return self.REFUSES_INPUT

    def label(self, dated: bool) -> pl.Expr:
        """Per patient, as an aggregation over the rows of his record: the label; null where it cannot be told."""
        raise NotImplementedError

    def event(self) -> pl.Expr:
        """Per row of a patient's record: is it a visit that makes the label 1?"""
        raise NotImplementedError

    def no_event(self) -> str:
        """What a label 0 says, in words."""
        raise NotImplementedError

    def facts(self, dated: bool) -> dict[str, pl.Expr]:
        """Columns of the cohort beside the label: name → per patient, as an aggregation over the rows of his record."""
        return {}

    def unjudged(self) -> dict[str, tuple[str, pl.Expr]]:
        """Lines of the ledger under which cases and controls leave alike, since nothing tells the label of either: id →
        text, and per patient, as an aggregation over the rows of his record, whether he does."""
        return {}

    def evidence(self) -> "Iterator[Events]":
        """The events of other tables than the visits' that it looks at."""
        yield from ()

    def decidable(self, tables: Collection[str]) -> bool:
        """Whether it has something to rest on, where only these tables are there."""
        return all(leaf.decidable(tables) for leaf in self.evidence())
