"""What a run is: the two configurations."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from annotated_types import Ge, Interval

from medbert_jax.checked_fields import check_fields
from medbert_jax.data.row_plan import RowsConfig
from medbert_jax.data.vocabulary import Vocabulary
from medbert_jax.identity import NO_IDENTITY
from medbert_jax.models.config import ModelConfig
from medbert_jax.models.finetune_heads import HeadConfig
from medbert_jax.training.corpus import CorpusConfig
from medbert_jax.training.masking import MaskingConfig
from medbert_jax.training.optimizer import OptimizerConfig
from medbert_jax.training.pretraining import TasksConfig
from medbert_jax.training.processes import ProcessesConfig
from medbert_jax.training.sampling import SamplingConfig
from medbert_jax.training.sharding import MeshConfig

Backbone = Literal["pretrained", "frozen", "untrained", "none", "tw2v"]


@dataclass(frozen=True)
class PretrainConfig:
    """One pretraining run."""

    dataset: str = ""
    """Directory of the pretraining dataset (`medbert prepare` prints it)."""
    run: str = ""
    """Run directory: checkpoints, metrics, model card. An existing one is resumed."""
    dataset_preset: str = "paper"
    """Preset the dataset must have been prepared with."""
    too_long: Literal["recent", "drop"] = "recent"
    """Patients of more codes than model.max_length: keep their most recent visits, or drop them."""
    steps: Annotated[int, Ge(0)] = 0
    """Optimizer steps; 0 takes `epochs`."""
    epochs: Annotated[float, Ge(0)] = 1.0
    """Passes over the training patients, used when `steps` is 0."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """Architecture; its vocabulary_size gives way to the dataset's."""
    rows: RowsConfig = field(default_factory=RowsConfig)
    masking: MaskingConfig = field(default_factory=MaskingConfig)
    tasks: TasksConfig = field(default_factory=TasksConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    warmup_share: Annotated[float, Interval(ge=0, le=1)] = 0.0
    """Warm-up as a share of all steps; above 0 it replaces optimizer.warmup_steps."""
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    processes: ProcessesConfig = field(default_factory=ProcessesConfig)
    init_from: str = ""
    """Checkpoint directory whose parameters a new run starts from."""
    checkpoint_every: Annotated[int, Ge(1)] = 1000
    """Steps between checkpoints."""
    evaluate_every: Annotated[int, Ge(1)] = 500
    """Steps between evaluations on the validation patients."""
    log_every: Annotated[int, Ge(1)] = 20
    """Steps between progress lines."""
    validation_size: Annotated[int, Ge(0)] = 0
    """Validation patients that evaluations look at; 0, or more than there are, takes all."""
    seed: Annotated[int, Interval(ge=0, lt=2**32)] = 0
    patient_labels: str = ""
    """File (patient_id, label) whose labels of 0 and 1 take the place of the prolonged stays; empty: the dataset's."""
    exchange_codes: bool = False
    """Negative control: the codes are exchanged between patients within the same visit number and rank."""
    cache_dir: str = field(default="", metadata=NO_IDENTITY)
    """Folder where the token store of a dataset that cannot be written, and has none, is kept; empty: beside it."""
    tensorboard: bool = field(default=False, metadata=NO_IDENTITY)
    """Also write the metrics as TensorBoard files, into `tensorboard/` of the run directory; needs the extra
    `tensorboard`."""
    dry_run: bool = field(default=False, metadata=NO_IDENTITY)
    """Make a few steps, keep nothing, and print shapes, parameters, memory, and the time that the run would take."""

    def __post_init__(self):
        """Check every field; all faults are in one error."""
        check_fields(self, also=self._disagreements())

    def _disagreements(self) -> Iterator[str]:
        if not self.steps and not self.epochs:
            yield f"epochs must be above 0 where steps is 0: got {self.epochs}; give one of them"

    def for_dataset(self, vocabulary: Vocabulary, steps_per_epoch: int) -> "PretrainConfig":
        """This configuration with everything filled in that the dataset decides."""
        steps = self.steps or max(1, round(self.epochs * steps_per_epoch))
        warmup = round(self.warmup_share * steps) if self.warmup_share else self.optimizer.warmup_steps
        return replace(
            self,
            steps=steps,
            model=replace(self.model, vocabulary_size=vocabulary.size),
            optimizer=replace(self.optimizer, warmup_steps=warmup),
        )


@dataclass(frozen=True)
class FinetuneConfig:
    """One fine-tuning run: one cohort, backbone, head, training size and replicate."""

    dataset: str = ""
    """Directory of the cohort dataset (`medbert cohort` prints it)."""
    checkpoint: str = ""
    """Run directory of the pretraining; also names the architecture of the untrained backbone."""
    run: str = ""
    """Run directory for the fine-tuned checkpoint; empty keeps only predictions and results."""
    results: str = "results"
    """Folder of the results and predictions, one Parquet file per run."""
    experiment: str = "finetune"
    """Name under which the results are filed."""
    backbone: Backbone = "pretrained"
    """frozen: pretrained, and only the head is trained, on states that are computed once; untrained: the same
    architecture, fresh; none: fresh embeddings without an encoder, so that head gru, bi_gru or retain is the paper's
    plain baseline; tw2v: as none, but the table of codes begins with `vectors`."""
    vectors: str = ""
    """File of `medbert code-vectors`, for backbone tw2v."""
    head: HeadConfig = field(default_factory=HeadConfig)
    train_size: Annotated[int, Ge(0)] = 0
    """Training patients; 0 takes all. Subsets of one replicate are nested."""
    replicate: Annotated[int, Interval(ge=0, lt=2**32)] = 0
    """Seeds the subset, the head (and an untrained backbone), the order and dropout."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(
            learning_rate=1e-5,
            schedule="constant",
            warmup_steps=0,
            weight_decay=0.0,
            clip_norm=1.0,
            epsilon=1e-8,
            bias_correction=True,
        )
    )
    batch_size: Annotated[int, Ge(1)] = 100
    """Patients per step."""
    max_epochs: Annotated[int, Ge(1)] = 500
    """Passes over the training subset after which it stops in any case."""
    evaluate_every: Annotated[int, Ge(0)] = 0
    """Training patients between two validations; 0, or more than the subset has, takes a whole epoch."""
    patience: Annotated[int, Ge(1)] = 20
    """Validations without a better AUROC before it stops."""
    validation_size: Annotated[int, Ge(0)] = 0
    """Validation patients that early stopping looks at; 0, or more than there are, takes all."""
    log_every: Annotated[int, Ge(1)] = field(default=100, metadata=NO_IDENTITY)
    """Steps between progress lines; there is one after every validation too."""
    mesh: MeshConfig = field(default_factory=MeshConfig)
    cache_dir: str = field(default="", metadata=NO_IDENTITY)
    """Folder where the token store of a dataset that cannot be written, and has none, is kept; empty: beside it."""

    def __post_init__(self):
        """Check every field; all faults are in one error."""
        check_fields(self)
