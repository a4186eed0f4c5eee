"""How numbers of the paper's tables are printed: AUROC × 100 with two decimals, as the paper has it."""

import math

from medbert_jax.replication.estimates import Estimate
from medbert_jax.replication.paper import ROWS, Printed, Row
from medbert_jax.replication.study import TestedCohort
from medbert_jax.reporting.reported_models import model_name

MISSING = "–"
MINIMUM_CASES = 10
"""Training cases that a grid asks for (`GridConfig.minimum_cases`): a cell of fewer is left empty."""
UNITS = "AUROC × 100"


def hundredths(value: float, *, signed: bool = False) -> str:
    """An AUROC, or a difference of two, × 100; of NaN a dash."""
    if not math.isfinite(value):
        return MISSING
    form = "+z.2f" if signed else "z.2f"  # z: no minus before a zero
    return f"{100 * value:{form}}".replace("-", "−")


def interval_words(of: Estimate, *, signed: bool = False) -> str:
    """The 95 % interval alone."""
    if not math.isfinite(of.low):
        return MISSING
    low, high = (hundredths(end, signed=signed) for end in (of.low, of.high))
    return f"[{low}, {high}]"


def estimate_words(of: Estimate | None, *, signed: bool = False) -> str:
    """Value and interval."""
    if of is None:
        return MISSING
    return f"{hundredths(of.value, signed=signed)} {interval_words(of, signed=signed)}"


def printed_words(of: Printed | None) -> str:
    """A cell of the paper's Table 4."""
    return MISSING if of is None else f"{of.value:.2f} ({of.deviation:.2f})"


def row_words(row: Row) -> str:
    """What the paper calls a row, or what a report does where it has none."""
    return ROWS.get(row) or model_name(*row)


def p_words(p: float) -> str:
    """A p that the number of draws allows."""
    return MISSING if not math.isfinite(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def size_words(cohort: TestedCohort, experiment: str, size: str) -> str:
    """A training size with the cases among its patients over all rows and replicates: "1,000 (57 to 61 cases)"."""
    of_size = [of for model, of in cohort.trained_on.items() if (model.experiment, model.size) == (experiment, size)]
    least, most = min(of[0] for of in of_size), max(of[1] for of in of_size)
    patients = f"{least:,}" if least == most else f"{least:,}–{most:,}"
    patients += ", all" * (size == "all")
    counted = [cases for of in of_size for cases in of[2:] if cases is not None]
    if not counted:  # of runs that earlier versions filed
        return f"{patients} (about {expected_cases(cohort, most):,.0f} cases)"
    low, high = f"{min(counted):,.0f}", f"{max(counted):,.0f}"
    return f"{patients} ({low if low == high else f'{low} to {high}'} cases)"


def expected_cases(cohort: TestedCohort, size: int) -> float:
    """Cases among so many training patients, at the share of the whole training split."""
    of = cohort.filed
    return size * of.training_cases / of.training_patients if of.training_patients else float("nan")


def empty_words(cohort: TestedCohort, size: str) -> str:
    """What a cell says that has no run: too few training cases, or not run."""
    expected = expected_cases(cohort, int(size)) if size.isdecimal() else float("inf")
    if expected < MINIMUM_CASES:
        return f"empty: about {expected:.0f} training cases, under {MINIMUM_CASES}"
    return "not run"
