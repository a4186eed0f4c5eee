"""What a Med-BERT is made of: sizes, and each point where the paper and its released code disagree."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval

from medbert_jax.checked_fields import check_fields

PAPER_VOCABULARY_SIZE = 82_603
"""ICD-9 and ICD-10 codes of the paper's pretraining set, special ids included (paper, Methods)."""


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and choices of one Med-BERT. The defaults are the paper's; raises ValueError naming every fault."""

    vocabulary_size: Annotated[int, Ge(1)] = PAPER_VOCABULARY_SIZE
    """Rows of the code table, special ids included."""
    hidden_size: Annotated[int, Ge(1)] = 192
    """Width of every code's vector."""
    layers: Annotated[int, Ge(0)] = 6
    """Transformer layers; 0 leaves the embeddings alone, the input of a recurrent baseline."""
    heads: Annotated[int, Ge(1)] = 6
    """Attention heads per layer; must divide hidden_size."""
    feed_forward_size: Annotated[int, Ge(1)] = 64
    """Inner width of the feed-forward blocks (in Med-BERT smaller than hidden_size)."""
    max_visits: Annotated[int, Ge(1)] = 1_000
    """Rows of the visit table; visit ids count from 1, so they must stay below it."""
    max_length: Annotated[int, Ge(1)] = 512
    """Rows of the serialization table, and the longest patient in codes."""
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.1
    """Share of hidden elements dropped in training."""
    attention_dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.1
    """Share of attention probabilities dropped in training."""
    layer_norm_epsilon: Annotated[float, Gt(0)] = 1e-12
    """Added to the variance in every LayerNorm."""
    initializer_range: Annotated[float, Gt(0)] = 0.02
    """Standard deviation of the normal, cut at two of it, that tables and kernels start from."""
    serialization: Literal["rank", "position"] = "rank"
    """Paper: rank of the code within its visit. Released code: position in the patient's flat sequence."""
    mask_id: Annotated[int, Ge(0)] = 1
    """Id that stands for a masked code. Paper: its own. Released code: 0, the same as padding."""
    los_pooling: Literal["sum", "first", "sum_with_padding"] = "sum"
    """What the prolonged-LOS head reads. Paper: sum over the patient's codes. Released code: BERT's pooled first
    code, or the sum over the whole row, padding included."""
    los_logits: Annotated[int, Ge(1)] = 2
    """Logits of the prolonged-LOS head."""
    pooler: bool = False
    """Whether BERT's pooler (dense + tanh on the first code) exists; los_pooling first needs it."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of what the matrix products multiply, forward and backward, and of what layers hand on. Parameters, sums,
    LayerNorm and softmax are float32 in any case."""

    def __post_init__(self):
        """Check every field; all faults are in one error."""
        check_fields(self, at="model", also=self._disagreements())

    def _disagreements(self) -> Iterator[str]:
        if self.heads and self.hidden_size % self.heads:
            yield (
                f"model.hidden_size must be divisible by model.heads: got {self.hidden_size} and {self.heads}; "
                f"use hidden_size {max(1, round(self.hidden_size / self.heads)) * self.heads}"
            )
        if self.mask_id >= self.vocabulary_size:
            yield (
                f"model.mask_id must be a row of the code table: got {self.mask_id} of {self.vocabulary_size} rows; "
                "use 1 (its own id) or 0 (the released code)"
            )
        if self.los_pooling == "first" and not self.pooler:
            yield "model.los_pooling first needs BERT's pooler: got pooler False; set pooler to True"


def preset(name: str, vocabulary_size: int | None = None) -> ModelConfig:
    """The model named `paper`, `released_code` or `small`; all three have the paper's width.

    `small` differs from `paper` in its training, not in its layers; it is meant for up to 10,000 codes, and that
    is the size it takes where none is given. The other two take the paper's 82,603. Raises ValueError for another
    name.
    """
    match name:
        case "paper":
            return ModelConfig(vocabulary_size=vocabulary_size or PAPER_VOCABULARY_SIZE)
        case "small":
            return ModelConfig(vocabulary_size=vocabulary_size or 10_000)
        case "released_code":
            return ModelConfig(
                vocabulary_size=vocabulary_size or PAPER_VOCABULARY_SIZE,
                serialization="position",  # Released code: absolute position over the flat sequence.
                mask_id=0,  # Released code: [MASK] shares its id with padding.
                los_pooling="first",  # Released code: the pretraining script pools the first token.
                pooler=True,
            )
    raise ValueError(
        f"a model preset must be one of paper, released_code, small: got {name!r}; choose one of the three"
    )
