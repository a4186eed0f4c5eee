"""What the user may type after `medbert code-vectors`, and how vectors are trained; below a field stands its help."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Gt, Interval
from tyro.conf import OmitArgPrefixes, Positional

from medbert_jax.checked_fields import check_fields


@dataclass(frozen=True)
class CodeVectorsConfig:
    """How vectors are trained; raises ValueError naming every fault."""

    size: Annotated[int, Ge(1)] = 192
    """elements of a vector; the fine-tuned model's hidden_size."""
    window_days: Annotated[int, Ge(0)] = 30
    """codes of one patient at most so many days apart are a pair; 0: of one day, or one visit."""
    negatives: Annotated[int, Ge(1)] = 5
    """codes drawn against each pair."""
    epochs: Annotated[int, Ge(1)] = 10
    """passes over all pairs."""
    learning_rate: Annotated[float, Gt(0)] = 0.05
    """of Adagrad, with one scale for each vector."""
    seed: Annotated[int, Interval(ge=0, lt=2**32)] = 0
    """of everything random."""

    def __post_init__(self):
        """Check every field; all faults are in one error."""
        check_fields(self)


@dataclass(frozen=True)
class CodeVectorsOptions:
    """Vectors of codes (t-W2V) from the training patients of a pretraining dataset, for `--backbone tw2v`."""

    dataset: Positional[Path]
    """directory of the pretraining dataset."""
    out: Positional[Path]
    """file of the vectors, NAME.npz."""
    training: OmitArgPrefixes[CodeVectorsConfig] = field(default_factory=CodeVectorsConfig)
    cache_dir: Path | None = None
    """folder where the token store of a dataset that cannot be written, and has none, is kept."""

    def __post_init__(self):
        """Check every field; all faults are in one error."""
        check_fields(self)
