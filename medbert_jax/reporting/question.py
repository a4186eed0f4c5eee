"""What was asked, of whom and how, in words out of the spec."""

from collections.abc import Sequence

from medbert_jax.evaluation.stored_evaluation import Evaluation
from medbert_jax.reporting.reported_cohort import ReportedCohort

_ESTIMANDS = {
    "risk": "a risk{within}: index and horizon exist without knowing the outcome",
    "score": "a score{within}, and no risk: the index is known only once the outcome is",
    "as labelled": "as the labels are made",
}


def question(cohort: ReportedCohort) -> str:
    """The question in one sentence; empty where there is no spec."""
    spec = cohort.spec
    if spec is None:
        title = ((cohort.metadata or {}).get("cohort") or {}).get("title", "")
        return f"Can a record tell: {title}?" if title else ""
    outcome = spec.outcome.description.partition("; ")[0].rstrip(".")
    read = spec.input.description.rstrip(".")
    return f"{spec.title}: can {_lower(read)} tell who will have this outcome: {_lower(outcome)}?"


def split_words(cohort: ReportedCohort) -> str:
    """How the patients were divided."""
    if cohort.metadata is None:
        return ""
    split = cohort.metadata["split"]
    if split.get("ratios"):
        ratios = " : ".join(f"{10 * part:g}" for part in split["ratios"])
        return f"train, validation and test by a hash of the patient ({ratios}); tested once by each run"
    return "train, validation and test as a list of the source says; tested once by each run"


def design_words(evaluation: Evaluation) -> str:
    """Estimand and sampling, in a sentence."""
    design = evaluation.about["design"]
    within = f" within {design['horizon_days']} days" if design["horizon_days"] is not None else ""
    estimand = _ESTIMANDS[design["estimand"]].format(within=within)
    weighted = ", weighted" * evaluation.about["weighted"] + ", clustered by patient" * evaluation.is_clustered
    return f"Estimand: {estimand}. Sampling: {design['sampling']}{weighted}."


def designs(cohorts: Sequence[ReportedCohort]) -> dict[str, str]:
    """Dataset hash → estimand and sampling, of those that were evaluated."""
    return {one.dataset_hash: design_words(one.evaluation) for one in cohorts if one.evaluation is not None}


def tested_words(cohort: ReportedCohort, evaluation: Evaluation | None) -> str:
    """Test patients and cases, and how often the test split was looked at."""
    looks = f"looked at {cohort.looks:,} time{'s' * (cohort.looks != 1)}, once by each run"
    counts = evaluation.about["counts"] if evaluation else {}
    if not counts:
        return f"Test split: counts {'hidden' if evaluation else 'not known here'}; {looks}."
    censored = f", {counts['censored']:,} censored" if counts["censored"] else ""
    rows = f" ({counts['rows']:,} predictions)" if evaluation is not None and evaluation.is_clustered else ""
    return (
        f"Test split: {counts['subjects']:,} patients{rows}: {counts['cases']:,} cases, {counts['controls']:,}"
        f" controls{censored}; {looks}."
    )


def _lower(text: str) -> str:
    """With a small first letter, unless it begins with an abbreviation."""
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]
