"""A grid of fine-tuning runs and the baselines beside them, as a plain enumeration."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Gt, Interval

from medbert_jax.baselines.linear_probe import ProbeConfig
from medbert_jax.checked_fields import check_fields
from medbert_jax.data.vocabulary import Vocabulary
from medbert_jax.experiments.settings import FIXED, PAPER, Setting, read_tuning, with_setting
from medbert_jax.models.finetune_heads import HeadKind
from medbert_jax.training.config import Backbone, FinetuneConfig
from medbert_jax.training.sampling import SamplingConfig

if TYPE_CHECKING:
    from medbert_jax.baselines.scikit_model import ScikitModel

Features = Literal["codes", "age", "age+sex", "codes+age", "shape", "default", "forest", "boosting"]
Baseline = Literal["codes", "age", "age+sex", "codes+age", "shape", "default", "forest", "boosting", "probe"]
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
    features: Features = "codes"
    """Logistic regression on multi-hot codes, on the ten-year age band, on both, or on age band and sex; default: on
    codes with scikit-learn's C of 1, as the paper's; shape: boosting on how long and how often somebody was seen,
    without codes; forest: random forest on multi-hot codes; boosting: on counts of codes, age, sex and use of care."""
    train_size: Annotated[int, Ge(0)] = 0
    """Training patients; 0 takes all."""
    replicate: Annotated[int, Interval(ge=0, lt=2**32)] = 0
    """Chooses the training subset, and seeds a forest."""
    C: Annotated[float, Ge(0)] = 0.0
    """Of a logistic regression, the inverse strength of its penalty; 0 chooses on validation AUROC."""
    min_samples_leaf: Annotated[int, Ge(1)] = 1
    """Of a forest: patients that a leaf must have."""
    learning_rate: Annotated[float, Gt(0)] = 0.05
    """Of boosting."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    def __post_init__(self):
        """Check every field; all faults are in one error."""
        check_fields(self)

    def model(self, vocabulary: Vocabulary) -> "ScikitModel":
        """The classifier; what is chosen, is chosen on validation AUROC."""
        # Here, because a fine-tuning need not wait for scikit-learn, which takes seconds to import.
        from medbert_jax.baselines.logistic_regression import C_GRID, CodesLogisticRegression
        from medbert_jax.baselines.record_shape import ShapeBoosting
        from medbert_jax.baselines.scikit_model import ScikitModel
        from medbert_jax.baselines.trees import CodesForest, RecordBoosting

        size = vocabulary.size
        match self.features:
            case "shape":
                shape = ShapeBoosting(learning_rate=self.learning_rate)
                return ScikitModel(shape, "record_shape", self.features)
            case "forest":
                forest = CodesForest(size, min_samples_leaf=self.min_samples_leaf, seed=self.replicate)
                return ScikitModel(forest, "random_forest", "codes")
            case "boosting":
                return ScikitModel(RecordBoosting(size, learning_rate=self.learning_rate), "boosting", "record")
            case "default":
                return ScikitModel(CodesLogisticRegression(size, C_grid=(1.0,)), "logistic_regression", "default")
            case features:
                classifier = CodesLogisticRegression(size, features=features, C_grid=(self.C,) if self.C else C_GRID)
                return ScikitModel(classifier, _BACKBONES.get(features, "logistic_regression"), features)


Run = FinetuneConfig | BaselineConfig | ProbeConfig


def with_standing_baselines(run: FinetuneConfig) -> list[Run]:
    """The run, and after it the baselines without which no result stands, on the same patients."""
    return [run, *(baseline_run(name, run) for name in STANDING)]


def baseline_run(name: Baseline, run: FinetuneConfig) -> Run:
    """The baseline of this name on the patients of a fine-tuning, filed beside it."""
    shared = ("dataset", "results", "experiment", "train_size", "replicate", "sampling")
    asked = {each: getattr(run, each) for each in shared}
    if name == "probe":
        return ProbeConfig(checkpoint=run.checkpoint, **asked)
    return BaselineConfig(features=name, **asked)


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
    backbones: tuple[Backbone, ...] = ("untrained", "pretrained")
    heads: tuple[HeadKind, ...] = ("feed_forward", "bi_gru")
    baselines: tuple[Baseline, ...] = ("age", "codes")
    standing: tuple[Baseline, ...] = STANDING
    """Baselines that stand beside every fine-tuning; with heads or backbones () there are none."""
    rows: tuple[tuple[Backbone, HeadKind], ...] = ()
    """Backbone and head of each fine-tuned row, in place of every combination of `backbones` and `heads`."""
    recipe: Literal["shared", "paper", "tuned"] = "shared"
    """shared: `finetune` is for every row; paper: but for the rate of the GRU with static embeddings, 1e-3; tuned: but
    for what a tuning has chosen for each row."""
    tuning: str = ""
    """File that a tuning wrote, for recipe tuned."""
    minimum_cases: Annotated[int, Ge(0)] = 10
    """Training cases that a run must have (with several predictions of a patient each counts): with fewer it is not
    made, and the others are."""
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

    def runs(self) -> list[Run]:
        """The runs of this part, cheapest sizes first, baselines before the models that have to beat them."""
        if not self.datasets:
            raise ValueError("a grid needs cohort datasets: got none; pass --datasets DIR, one or several")
        if self.finetune.run:
            raise ValueError(
                f"a grid keeps predictions and results, no checkpoints: got finetune.run {self.finetune.run}; leave it "
                "empty, and fine-tune the run that is wanted by itself"
            )
        return list(self._all_runs())[self.part :: self.parts]

    def _all_runs(self) -> Iterator[Run]:
        rows = self.rows or tuple((backbone, kind) for kind in self.heads for backbone in self.backbones)
        baselines = dict.fromkeys((*self.baselines, *(self.standing if rows else ())))
        settings = self._settings()
        for train_size in self.train_sizes:
            for dataset in self.datasets:
                for replicate in range(self.first_replicate, self.first_replicate + self.replicates):
                    common = replace(self.finetune, dataset=dataset, train_size=train_size, replicate=replicate)
                    runs = [(name, baseline_run(name, common)) for name in baselines]
                    for name, run in (*runs, *row_runs(rows, common)):
                        yield with_setting(run, settings(name))

    def _settings(self) -> Callable[[str], Setting]:
        """What is set for a row by itself; ValueError where the recipe has nothing for it."""
        if self.recipe != "tuned":
            return lambda row: PAPER.get(row, {}) if self.recipe == "paper" else {}
        chosen = read_tuning(self.tuning)["chosen"]

        def of(row: str) -> Setting:
            if row in FIXED:
                return {}
            if row not in chosen:
                raise ValueError(
                    f"recipe tuned needs a setting for every row: got none for {row} in {self.tuning}, which has "
                    f"{'; '.join(sorted(chosen)) or 'none'}; tune that row too, into the same file"
                )
            return chosen[row]

        return of


def row_runs(rows: Iterable[tuple[Backbone, HeadKind]], common: FinetuneConfig) -> Iterator[tuple[str, FinetuneConfig]]:
    """The fine-tunings of some rows, each with the name of its row."""
    for backbone, kind in rows:
        yield f"{backbone}, {kind}", replace(common, backbone=backbone, head=replace(common.head, kind=kind))
