"""Mean AUROCs of rows and their differences, with what the replicates and what the test patients leave open."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from medbert_jax.metrics.bootstrap import bootstrap_p, percentile_interval, replicate_weights
from medbert_jax.replication.study import JudgedRun, Model, Study, TestedCohort


@dataclass(frozen=True)
class Estimate:
    """A mean over replicates, or a sum of some with signs."""

    value: float
    low: float
    high: float
    """95 % interval: test patients and replicates drawn together; NaN without draws."""
    p: float
    """Two-sided, that it is 0."""
    deviation: float
    """Sample standard deviation over replicates; NaN of one."""
    sampling_error: float
    """Standard error that the draw of test patients alone gives the mean of these very replicates."""
    replicates: int
    drawn: np.ndarray = field(default_factory=lambda: np.zeros(0), repr=False, compare=False)
    """(draws,) of it."""

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval leaves 0 out."""
        return bool(self.low > 0 or self.high < 0)


def mean_auroc(study: Study, cohort: TestedCohort, model: Model) -> Estimate | None:
    """The mean AUROC of a row; None where no run of it has predictions."""
    return combination(study, cohort, [(1, model)])


def difference(study: Study, cohort: TestedCohort, one: Model, other: Model) -> Estimate | None:
    """one − other, paired by test patient and by replicate; None where they have no replicate in common."""
    return combination(study, cohort, [(1, one), (-1, other)])


def combination(study: Study, cohort: TestedCohort, terms: Sequence[tuple[int, Model]]) -> Estimate | None:
    """Σ sign · mean AUROC of rows of a cohort, within the replicates that all of them have; see `sum_of`."""
    return sum_of(study, [(sign, cohort.cells.get(model, ())) for sign, model in terms])


def sum_of(study: Study, terms: Sequence[tuple[int, Sequence[JudgedRun]]]) -> Estimate | None:
    """Σ sign · mean AUROC of runs on the same test patients, within the replicates that all of them have.

    One run alone (an oracle, a regression on all patients) stands beside every replicate of the others. None where runs
    are missing, or no replicate is in all.
    """
    if not all(of for _, of in terms):
        return None
    several = [{run.replicate for run in of} for _, of in terms if len(of) > 1]
    common = sorted(set.intersection(*several)) if several else [0]
    if not common:
        return None
    aligned = [(sign, _aligned(of, common)) for sign, of in terms]
    values = np.sum([sign * np.array([run.auroc for run in of]) for sign, of in aligned], 0)
    stacked = np.sum([sign * np.stack([run.draws for run in of]) for sign, of in aligned], 0)
    return _estimate(values, stacked, study)


def mean_of(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of estimates on test patients who have nobody in common, each with its own draws; one or more."""
    values, drawn = np.array([of.value for of in estimates]), np.mean([of.drawn for of in estimates], 0)
    deviation = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
    error = float(np.sqrt(np.sum([of.sampling_error**2 for of in estimates])) / len(estimates))
    return _with_interval(float(values.mean()), drawn, deviation, error, len(estimates))


def _estimate(values: np.ndarray, stacked: np.ndarray, study: Study) -> Estimate:
    """Of values (replicates,), and of every draw (replicates, draws)."""
    deviation = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
    # The same replicates in a draw for all rows, and the same patients: pairs stay pairs.
    picked = replicate_weights(len(values), study.draws, study.seed)
    error = float(np.nanstd(stacked.mean(0), ddof=1)) if study.draws else float("nan")
    return _with_interval(float(values.mean()), (picked.T * stacked).sum(0), deviation, error, len(values))


def _with_interval(value: float, drawn: np.ndarray, deviation: float, error: float, number: int) -> Estimate:
    interval = percentile_interval(value, drawn)
    p = bootstrap_p(drawn)
    return Estimate(interval.value, interval.low, interval.high, p, deviation, error, number, drawn)


def _aligned(runs: Sequence[JudgedRun], common: Sequence[int]) -> list[JudgedRun]:
    if len(runs) == 1:
        return [runs[0]] * len(common)
    of = {run.replicate: run for run in runs}
    return [of[replicate] for replicate in common]
