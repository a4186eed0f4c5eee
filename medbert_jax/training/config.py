"""What a run is: the two configurations."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from medbert_jax.data.row_plan import RowsConfig
from medbert_jax.data.vocabulary import Vocabulary
from medbert_jax.models.config import ModelConfig
from medbert_jax.models.finetune_heads import HeadConfig
from medbert_jax.training.corpus import CorpusConfig
from medbert_jax.training.masking import MaskingConfig
from medbert_jax.training.optimizer import OptimizerConfig
from medbert_jax.training.pretraining import TasksConfig
from medbert_jax.training.processes import ProcessesConfig
from medbert_jax.training.run_directory import read_config
from medbert_jax.training.sharding import MeshConfig


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
    steps: int = 0
    """Optimizer steps; 0 takes `epochs`."""
    epochs: float = 1.0
    """Passes over the training patients, used when `steps` is 0."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """Architecture; its vocabulary_size gives way to the dataset's."""
    rows: RowsConfig = field(default_factory=RowsConfig)
    masking: MaskingConfig = field(default_factory=MaskingConfig)
    tasks: TasksConfig = field(default_factory=TasksConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    warmup_share: float = 0.0
    """Warm-up as a share of all steps; above 0 it replaces optimizer.warmup_steps."""
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    processes: ProcessesConfig = field(default_factory=ProcessesConfig)
    init_from: str = ""
    """Checkpoint directory whose parameters a new run starts from."""
    checkpoint_every: int = 1000
    """Steps between checkpoints."""
    evaluate_every: int = 500
    """Steps between evaluations on the validation patients."""
    log_every: int = 20
    """Steps between progress lines."""
    validation_size: int = 0
    """Validation patients that evaluations look at; 0, or more than there are, takes all."""
    seed: int = 0

    def __post_init__(self):
        """Check what would otherwise fail late; all faults are in one error."""
        faults = [
            f"{name} must be at least {least}: got {getattr(self, name)}; give a whole number"
            for name, least in (("checkpoint_every", 1), ("evaluate_every", 1), ("log_every", 1), ("steps", 0),
                                ("validation_size", 0))
            if getattr(self, name) < least
        ]  # fmt: skip
        if not self.steps and not self.epochs > 0:
            faults.append(f"epochs must be above 0 where steps is 0: got {self.epochs}; give one of them")
        if faults:
            raise ValueError("\n".join(faults))

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
    backbone: Literal["pretrained", "untrained", "none"] = "pretrained"
    """untrained: the same architecture, fresh; none: fresh embeddings without an encoder, so that head gru or bi_gru is
    the paper's plain recurrent baseline."""
    head: HeadConfig = field(default_factory=HeadConfig)
    train_size: int = 0
    """Training patients; 0 takes all. Subsets of one replicate are nested."""
    replicate: int = 0
    """Seeds the subset, the head (and an untrained backbone), the order and dropout."""
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
    batch_size: int = 100
    """Patients per step."""
    max_epochs: int = 500
    """Passes over the training subset after which it stops in any case."""
    evaluate_every: int = 0
    """Training patients between two validations; 0, or more than the subset has, takes a whole epoch."""
    patience: int = 20
    """Validations without a better AUROC before it stops."""
    validation_size: int = 0
    """Validation patients that early stopping looks at; 0, or more than there are, takes all."""
    mesh: MeshConfig = field(default_factory=MeshConfig)

    def __post_init__(self):
        """Check what would otherwise fail late; all faults are in one error."""
        faults = [
            f"{name} must be at least 1: got {getattr(self, name)}; give a positive whole number"
            for name in ("batch_size", "max_epochs", "patience")
            if getattr(self, name) < 1
        ]
        if faults:
            raise ValueError("\n".join(faults))


def check_dataset(metadata: dict, *, kind: str, preset: str | None = None) -> None:
    """Raise ValueError when a dataset's metadata are of another kind or preset than the run needs."""
    faults = []
    if metadata["kind"] != kind:
        faults.append(f"the dataset must be of kind {kind}: got {metadata['kind']}; pass another directory")
    if preset is not None and metadata["preset"] != preset:
        faults.append(
            f"the dataset must be prepared with the run's preset:\n  − {preset} (dataset_preset)\n"
            f"  + {metadata['preset']} (dataset)\n"
            f"prepare it with --preset {preset}, or set dataset_preset to {metadata['preset']}"
        )
    if faults:
        raise ValueError("\n".join(faults))


def check_pretraining_dataset(checkpoint: str | Path, dataset_hash: str) -> None:
    """Raise ValueError when a checkpoint was pretrained on another dataset than the one a cohort was split after.

    The same dataset means the same vocabulary, serialization and split: no test patient was seen in pretraining.
    """
    trained_on = read_config(checkpoint).get("dataset_hash", "unknown")
    if trained_on != dataset_hash:
        raise ValueError(
            "a cohort must have the split and vocabulary of the checkpoint's pretraining dataset: got dataset "
            f"{dataset_hash[:12]} for the cohort and {trained_on[:12]} for {checkpoint}; make the cohort with "
            "--pretraining-dataset of that checkpoint"
        )


def check_split(checkpoint: str | Path, split: dict) -> None:
    """Raise ValueError when a checkpoint's patients were split otherwise: it may have seen test patients."""
    # How many patients fall into each part may differ: the key and the ratios say who.
    theirs, split = (
        {name: value for name, value in one.items() if name != "counts"}
        for one in (read_config(checkpoint).get("split", {}), split)
    )
    if theirs != split:
        raise ValueError(
            "a pretraining that starts from a checkpoint must keep its split, or test patients were seen: got\n"
            f"  − {theirs} ({checkpoint})\n  + {split} (dataset)\nprepare the dataset with the checkpoint's split"
        )


def check_vocabulary(checkpoint: str | Path, vocabulary: Vocabulary) -> None:
    """Raise ValueError when a checkpoint was trained with another vocabulary than the dataset's."""
    read_config(checkpoint)  # raises where there is no run
    theirs = Vocabulary.read(Path(checkpoint) / "vocabulary.tsv")
    if theirs.hash != vocabulary.hash:
        raise ValueError(
            "the dataset must be serialized with the checkpoint's vocabulary: got "
            f"{vocabulary.size} ids (hash {vocabulary.hash[:12]}) in the dataset and {theirs.size} ids (hash "
            f"{theirs.hash[:12]}) in {checkpoint}; make the dataset from the same pretraining dataset as the checkpoint"
        )
