"""A grid of fine-tuning runs and the baselines beside them, as a plain enumeration."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from annotated_types import Ge, Interval

from medbert_jax.baselines.logistic_regression import CodesLogisticRegression
from medbert_jax.baselines.record_shape import ShapeBoosting
from medbert_jax.baselines.scikit_model import ScikitModel
from medbert_jax.checked_fields import check_fields
from medbert_jax.data.vocabulary import Vocabulary
from medbert_jax.models.finetune_heads import HeadKind
from medbert_jax.training.config import FinetuneConfig

Baseline = Literal["codes", "age", "age+sex", "codes+age", "shape"]
STANDING: tuple[Baseline, ...] = ("age+sex", "shape")
"""Who does not beat these has found who is old and who is often seen."""
_BACKBONES = {"age": "age_band", "age+sex": "age_sex"}


@dataclass(frozen=True)
class BaselineConfig:
    """One baseline on one training subset of one cohort."""

    dataset: str = ""
    """Directory of the cohort dataset."""
    results: str = "results"
    """Folder of the results and predictions."""
    experiment: str = "finetune"
    """Name under which the results are filed."""
    features: Baseline = "codes"
    """Logistic regression on multi-hot codes, on the ten-year age band, on both, or on age band and sex; shape:
    boosting on how long and how often somebody was seen, without codes."""
    train_size: Annotated[int, Ge(0)] = 0
    """Training patients; 0 takes all."""
    replicate: Annotated[int, Interval(ge=0, lt=2**32)] = 0
    """Chooses the training subset."""

    def __post_init__(self):
        """Check every field; all faults are in one error."""
        check_fields(self)

    def model(self, vocabulary: Vocabulary) -> ScikitModel:
        """L2 logistic regression or boosting; what is chosen, is chosen on validation AUROC."""
        if self.features == "shape":
            return ScikitModel(ShapeBoosting(), "record_shape", self.features)
        classifier = CodesLogisticRegression(vocabulary.size, features=self.features)
        return ScikitModel(classifier, _BACKBONES.get(self.features, "logistic_regression"), self.features)


def with_standing_baselines(run: FinetuneConfig) -> list[FinetuneConfig | BaselineConfig]:
    """The run, and after it the baselines without which no result stands, on the same patients."""
    asked = (run.dataset, run.results, run.experiment)
    return [run, *(BaselineConfig(*asked, features, run.train_size, run.replicate) for features in STANDING)]


@dataclass(frozen=True)
class GridConfig:
    """Every combination of cohort, training size, replicate, backbone and head, with the baselines beside them."""

    datasets: tuple[str, ...] = ()
    """Directories of the cohort datasets."""
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    """What all fine-tuning runs share."""
    train_sizes: tuple[Annotated[int, Ge(0)], ...] = (300, 1000, 3000, 0)
    """Training patients; 0 takes all."""
    replicates: Annotated[int, Ge(1)] = 5
    first_replicate: Annotated[int, Interval(ge=0, lt=2**32)] = 0
    """Number of the first replicate: another one gives a fresh run with other subsets and seeds."""
    backbones: tuple[Literal["pretrained", "frozen", "untrained", "none"], ...] = ("untrained", "pretrained")
    heads: tuple[HeadKind, ...] = ("feed_forward", "bi_gru")
    baselines: tuple[Baseline, ...] = ("age", "codes")
    standing: tuple[Baseline, ...] = STANDING
    """Baselines that stand beside every fine-tuning; with heads or backbones () there are none."""
    replicates_together: Literal["auto", "true", "false"] = "auto"
    """Whether the replicates of a cell, alike but for their number, train in one program; each is filed as if it had
    trained alone. auto: where there is one device and it is no CPU, on which nothing is gained."""
    part: Annotated[int, Ge(0)] = 0
    """Which part of the runs to do, from 0; several processes or machines can share a grid."""
    parts: Annotated[int, Ge(1)] = 1
    """Into how many parts the runs are divided."""

    def __post_init__(self):
        """Check every field; all faults are in one error."""
        check_fields(self, also=self._disagreements())

    def _disagreements(self) -> Iterator[str]:
        if self.part >= self.parts:
            yield f"part must be one of 0 … {self.parts - 1}: got {self.part}; count the parts from 0"

    def runs(self) -> list[FinetuneConfig | BaselineConfig]:
        """The runs of this part, cheapest sizes first, baselines before the models that have to beat them."""
        if not self.datasets:
            raise ValueError("a grid needs cohort datasets: got none; pass --datasets DIR, one or several")
        if self.finetune.run:
            raise ValueError(
                f"a grid keeps predictions and results, no checkpoints: got finetune.run {self.finetune.run}; leave it "
                "empty, and fine-tune the run that is wanted by itself"
            )
        return list(self._all_runs())[self.part :: self.parts]

    def _all_runs(self) -> Iterator[FinetuneConfig | BaselineConfig]:
        common = self.finetune
        standing = self.standing if self.heads and self.backbones else ()
        for train_size in self.train_sizes:
            for dataset in self.datasets:
                for replicate in range(self.first_replicate, self.first_replicate + self.replicates):
                    for features in dict.fromkeys((*self.baselines, *standing)):
                        yield BaselineConfig(
                            dataset, common.results, common.experiment, features, train_size, replicate
                        )
                    for kind in self.heads:
                        for backbone in self.backbones:
                            yield replace(
                                common,
                                dataset=dataset,
                                backbone=backbone,
                                head=replace(common.head, kind=kind),
                                train_size=train_size,
                                replicate=replicate,
                            )
