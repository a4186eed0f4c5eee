"""What a Med-BERT is made of: sizes, and each point where the paper and its released code disagree."""

from dataclasses import dataclass, fields
from typing import Literal

PAPER_VOCABULARY_SIZE = 82_603
"""ICD-9 and ICD-10 codes of the paper's pretraining set, special ids included (paper, Methods)."""


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and choices of one Med-BERT. The defaults are the paper's; raises ValueError naming every fault."""

    vocabulary_size: int = PAPER_VOCABULARY_SIZE
    """Rows of the code table, special ids included."""
    hidden_size: int = 192
    """Width of every code's vector."""
    layers: int = 6
    """Transformer layers; 0 leaves the embeddings alone, the input of a recurrent baseline."""
    heads: int = 6
    """Attention heads per layer; must divide hidden_size."""
    feed_forward_size: int = 64
    """Inner width of the feed-forward blocks (in Med-BERT smaller than hidden_size)."""
    max_visits: int = 1_000
    """Rows of the visit table; visit ids count from 1, so they must stay below it."""
    max_length: int = 512
    """Rows of the serialization table, and the longest patient in codes."""
    dropout: float = 0.1
    """Share of hidden elements dropped in training."""
    attention_dropout: float = 0.1
    """Share of attention probabilities dropped in training."""
    layer_norm_epsilon: float = 1e-12
    """Added to the variance in every LayerNorm."""
    initializer_range: float = 0.02
    """Standard deviation of the normal, cut at two of it, that tables and kernels start from."""
    serialization: Literal["rank", "position"] = "rank"
    """Paper: rank of the code within its visit. Released code: position in the patient's flat sequence."""
    mask_id: int = 1
    """Id that stands for a masked code. Paper: its own. Released code: 0, the same as padding."""
    los_pooling: Literal["sum", "first", "sum_with_padding"] = "sum"
    """What the prolonged-LOS head reads. Paper: sum over the patient's codes. Released code: BERT's pooled first
    code, or the sum over the whole row, padding included."""
    los_logits: int = 2
    """Logits of the prolonged-LOS head."""
    pooler: bool = False
    """Whether BERT's pooler (dense + tanh on the first code) exists; los_pooling first needs it."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the matrix products. Parameters, LayerNorm, softmax and sums are float32 in any case."""

    def __post_init__(self):
        """Check every field; all faults are in one error."""
        positive = ("vocabulary_size", "hidden_size", "heads", "feed_forward_size", "max_visits")
        faults = [
            f"{name} must be at least 1: got {getattr(self, name)}; give a positive whole number"
            for name in (*positive, "max_length", "los_logits")
            if getattr(self, name) < 1
        ]
        if self.layers < 0:
            faults.append(f"layers must be at least 0: got {self.layers}; the paper has 6, 0 is no encoder")
        faults += [
            f"{field.name} must be one of {', '.join(field.type.__args__)}: got {getattr(self, field.name)!r}; "
            "choose one of them"
            for field in fields(self)
            if hasattr(field.type, "__args__") and getattr(self, field.name) not in field.type.__args__
        ]
        faults += [
            f"{name} must be in [0, 1): got {getattr(self, name)}; use 0 for none, 0.1 as the paper"
            for name in ("dropout", "attention_dropout")
            if not 0 <= getattr(self, name) < 1
        ]
        if self.heads > 0 and self.hidden_size % self.heads:
            faults.append(
                f"hidden_size must be divisible by heads: got {self.hidden_size} and {self.heads}; "
                f"use hidden_size {max(1, round(self.hidden_size / self.heads)) * self.heads}"
            )
        if not 0 <= self.mask_id < max(self.vocabulary_size, 1):
            faults.append(
                f"mask_id must be a row of the code table: got {self.mask_id} of {self.vocabulary_size} rows; "
                "use 1 (its own id) or 0 (the released code)"
            )
        if self.los_pooling == "first" and not self.pooler:
            faults.append("los_pooling first needs BERT's pooler: got pooler False; set pooler to True")
        if faults:
            raise ValueError("\n".join(faults))


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
