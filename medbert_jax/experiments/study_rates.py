"""How long the stages and runs of a study take, before they are made: from rates, those of done ones where there are.

What trains or predicts goes by codes, of which patients of one source have more than those of another. Rates of tables,
datasets and pretrainings are those of the whole machine, which each of them uses; those of runs are of one process,
beside which others work. An estimate is no promise.
"""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt

from medbert_jax.baselines.linear_probe import ProbeConfig
from medbert_jax.checked_fields import check_fields
from medbert_jax.experiments.grid import BaselineConfig, Run
from medbert_jax.training.config import FinetuneConfig

Positive = Annotated[float, Gt(0)]


@dataclass(frozen=True)
class Rates:
    """Patients, or codes, a second, and what else a duration is made of; raises ValueError naming every fault."""

    # What stands here was measured on two cores of an AMD EPYC, in benchmarks/results/: simulate, cohort_speed,
    # pretraining, code_vectors; of a process, finetuning_process and finetuning, halved since two share the cores; and
    # diabetes130, the patients whom the best parameters had seen and those of three validations more.
    simulated: Positive = 5_000.0
    selected: Positive = 70_000.0
    """For each cohort whose members alone are kept."""
    read: Positive = 20_000.0
    """From tables to other tables, or to a dataset."""
    pretrained: Positive = 6_000.0
    """Codes."""
    vectors: Positive = 300_000.0
    """Codes."""
    finetuned: Positive = 3_300.0
    """Codes, in training."""
    predicted: Positive = 8_700.0
    """Codes, in validations and the test."""
    begin_s: Annotated[float, Ge(0)] = 20.0
    """Before the first step of a training: data, programs."""
    baseline_s: Annotated[float, Ge(0)] = 10.0
    """A regression or a forest."""
    passed: tuple[tuple[int, float], ...] = ((300, 7.0), (1000, 5.5), (3000, 3.5), (9000, 1.7))
    """(training patients, passes until early stopping ends a run); between two sizes that of the smaller one, above the
    largest as many patients as there."""
    processes: Annotated[int, Ge(1)] = 2
    """That share the runs of a grid."""

    def __post_init__(self):
        """Check every field; all faults are in one error."""
        check_fields(self, at="rates")

    def patients_passed(self, train_size: int) -> float:
        """How many training patients pass, one counted as often as he does, until a run of this size ends."""
        first, last = self.passed[0], self.passed[-1]
        if train_size >= last[0]:
            return last[0] * last[1]
        below = [passes for size, passes in self.passed if size <= train_size] or [first[1]]
        return train_size * below[-1]

    def run_seconds(self, run: Run, sizes: tuple[int, int, int], codes: float, *, tested: bool = True) -> float:
        """Of a run of a cohort with so many training, validation and test patients, of so many codes each."""
        train, validation, test = sizes
        predicted, finetuned = self.predicted / codes, self.finetuned / codes
        tests = test / predicted if tested else 0.0
        if isinstance(run, BaselineConfig):
            return self.baseline_s
        train = min(run.train_size or train, train)
        if isinstance(run, ProbeConfig):
            return self.baseline_s + (train + validation) / predicted + tests
        assert isinstance(run, FinetuneConfig)  # there is no other run
        passed = self.patients_passed(train)
        if run.backbone == "frozen":  # its states are computed once
            return self.begin_s + (train + validation) / predicted + tests + passed / (10 * finetuned)
        rounds = passed / max(1, min(run.evaluate_every or train, train))
        looked_at = min(run.validation_size or validation, validation)
        return self.begin_s + passed / finetuned + rounds * looked_at / predicted + tests


def row_of(run: Run) -> tuple[str, str, str]:
    """Backbone, head and size of a fine-tuning; "baseline", its name and size of another run."""
    row = (run.backbone, run.head.kind) if isinstance(run, FinetuneConfig) else ("baseline", _baseline(run))
    return *row, str(run.train_size or "all")


def _baseline(run: Run) -> str:
    return run.features if isinstance(run, BaselineConfig) else "probe"
