"""Med-BERT and Hugging Face's BertForMaskedLM: which parameter is which, and how the one configuration says the other.

Visits are BERT's token types, ranks its position ids, which are given and not counted. What BERT lacks, the head of
prolonged stays and a pooler, goes into a file of its own, under our names.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from medbert_jax.models.config import ModelConfig

ACTIVATION = "gelu_pytorch_tanh"
OTHER_PARTS = ("prolonged_los_head", "pooler")
_TABLES = {"code_table": "word", "visit_table": "token_type", "serialization_table": "position"}
_SIZES = {
    "vocabulary_size": "vocab_size",
    "hidden_size": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "feed_forward_size": "intermediate_size",
    "max_visits": "type_vocab_size",
    "max_length": "max_position_embeddings",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "layer_norm_epsilon": "layer_norm_eps",
    "initializer_range": "initializer_range",
}
"""Field of a ModelConfig → that of a BertConfig."""
_LAYER = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "output": "attention.output.dense",
    "attention_layer_norm": "attention.output.LayerNorm",
    "feed_forward_in": "intermediate.dense",
    "feed_forward_out": "output.dense",
    "feed_forward_layer_norm": "output.LayerNorm",
}
_LEAF = {"kernel": "weight", "scale": "weight", "bias": "bias"}


def bert_config(model: ModelConfig) -> dict[str, Any]:
    """The fields of a BertConfig."""
    fields = {theirs: getattr(model, ours) for ours, theirs in _SIZES.items()}
    fixed = {"model_type": "bert", "architectures": ["BertForMaskedLM"], "dtype": "float32", "hidden_act": ACTIVATION,
             "pad_token_id": 0, "tie_word_embeddings": True, "is_decoder": False}  # fmt: skip
    return fields | fixed


def model_config(bert: Mapping[str, Any], more: Mapping[str, Any]) -> ModelConfig:
    """The architecture of a BertConfig; `more` has the fields of a ModelConfig that BERT has none for.

    Raises ValueError for another activation or an untied decoder, which Med-BERT has not, and for sizes out of range.
    """
    asked = {"model_type": "bert", "hidden_act": ACTIVATION, "tie_word_embeddings": True, "is_decoder": False}
    other = {name: bert[name] for name, value in asked.items() if bert.get(name, value) != value}
    missing = [name for name in (*_SIZES.values(), "hidden_act") if name not in bert]
    if other or missing:
        got = [f"{name} {value!r}" for name, value in other.items()] + [f"no {name}" for name in missing]
        raise ValueError(
            "a Med-BERT is a BERT with the tanh form of gelu whose decoder is the table of codes: got"
            f" {', '.join(got)}; take a folder that `medbert export` wrote"
        )
    # What may be said twice is read where transformers writes it.
    return ModelConfig(**{**more, **{ours: bert[theirs] for ours, theirs in _SIZES.items()}})


def bert_name(path: str) -> str | None:
    """Name in BertForMaskedLM of a parameter of ours ("encoder/layer_0/query/kernel"); None: BERT has no such."""
    part, *rest = path.split("/")
    if part == "embeddings":
        table = _TABLES.get(rest[0])
        return f"bert.embeddings.{f'{table}_embeddings.weight' if table else f'LayerNorm.{_LEAF[rest[-1]]}'}"
    if part == "encoder":
        number = rest[0].removeprefix("layer_")
        return f"bert.encoder.layer.{number}.{_LAYER[rest[1]]}.{_LEAF[rest[-1]]}"
    if part == "masked_code_head":
        within = {"dense": "transform.dense.", "layer_norm": "transform.LayerNorm."}.get(rest[0], "")
        return f"cls.predictions.{within}{_LEAF[rest[-1]]}"
    return None


def turned(path: str, values: np.ndarray) -> np.ndarray:
    """A parameter as the other side has it: a kernel of ours is (inputs, outputs), a weight of theirs the reverse."""
    return np.ascontiguousarray(values.T if path.endswith("/kernel") else values)
