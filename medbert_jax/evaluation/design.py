"""What a cohort's design lets be said of a model's predictions, and with which weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from medbert_jax.cohorts.loading import stored_spec
from medbert_jax.cohorts.spec import CohortSpec

Sampling = Literal["everybody", "sampled controls", "matched sets"]
Estimand = Literal["risk", "score", "as labelled"]

MATCHED = (
    "absolute risks (Brier, calibration, predictive values, net benefit) are refused: controls were matched to cases,"
    " so the share of cases is the design's"
)
UNWEIGHTED = (
    "absolute risks (Brier, calibration, predictive values, net benefit) are refused: controls were sampled and the"
    " cohort does not hold the weights of those who were drawn; prepare it again"
)


@dataclass(frozen=True)
class Design:
    """How the patients of a cohort came to be in it, and what a number of it is an estimate of."""

    sampling: Sampling
    estimand: Estimand
    """risk: index and horizon exist without knowing the outcome. score: they do not, as where a case's index is his
    event. as labelled: MEDS labels, whose times are whoever's who made them."""
    horizon_days: int | None
    """Of an outcome ahead."""
    refused: str = ""
    """Why absolute risks are refused; empty where they are not."""

    @property
    def absolute(self) -> bool:
        """Whether absolute risks may be judged."""
        return not self.refused


def design_of(cohort: Mapping, *, has_weights: bool) -> Design:
    """The design of a cohort dataset, from `metadata["cohort"]`; `has_weights`: it holds those of the sampling."""
    if "outcome" not in cohort or "index" not in cohort:  # MEDS labels
        return Design("everybody", "as labelled", None)
    spec = stored_spec(dict(cohort), source="metadata.json")
    ahead = spec.outcome.is_ahead
    horizon = spec.outcome.known_after_days if ahead else None
    if spec.matching is not None:
        return Design("matched sets", "score", horizon, MATCHED)
    if spec.sample is not None:
        return Design("sampled controls", _estimand(spec), horizon, "" if has_weights else UNWEIGHTED)
    return Design("everybody", _estimand(spec), horizon)


def _estimand(spec: CohortSpec) -> Estimand:
    return "score" if spec.outcome.by_case or spec.index.is_last_visit else "risk"
