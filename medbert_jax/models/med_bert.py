"""Med-BERT behind functions on plain dictionaries of arrays.

Dimensions: B rows, L slots per row, P patients per row, M masked codes, D hidden, H heads, V vocabulary, N layers.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Float32, Int, Key

from medbert_jax.models.batch import Batch
from medbert_jax.models.config import ModelConfig
from medbert_jax.models.dropout import seeds, slot_places
from medbert_jax.models.embeddings import Embeddings
from medbert_jax.models.encoder import Encoder, Places
from medbert_jax.models.heads import MaskedCodeHead, Pooler, ProlongedLosHead, first_states, masked_sum

Params = dict[str, Any]
"""Nested dictionaries with string keys; the leaves are arrays."""

Module = TypeVar("Module", bound=nnx.Module)

CONSTANT = {"scale": 1.0, "bias": 0.0}
"""What LayerNorm scales and all biases start from."""

CAPTURES = ("embeddings", "attention", "layers")
"""What `apply` can hand out beside the hidden states."""


def init(config: ModelConfig, key: Key[Array, ""]) -> Params:
    """Fresh float32 parameters: embeddings, encoder, masked_code_head, prolonged_los_head and, if asked for, pooler.

    Tables and kernels are truncated normals, biases 0, LayerNorm 1 and 0. Can be traced, so `jax.eval_shape` and
    `jax.jit(..., out_shardings=...)` give shapes and sharded parameters without a whole copy anywhere.
    """
    params = {name: nnx.to_pure_dict(_structure(module, config)[1]) for name, module in _modules(config).items()}
    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    table_key, rest_key = jax.random.split(key)
    # The code table may be sharded and is drawn as such. For the rest one draw is cut into pieces: compiling a
    # draw for each array takes many times as long.
    apart = {"code_table", *CONSTANT}
    sizes = [0 if path[-1].key in apart else math.prod(leaf.shape) for path, leaf in leaves]
    rest = jax.random.truncated_normal(rest_key, -2.0, 2.0, (sum(sizes),)) * config.initializer_range
    pieces = jnp.split(rest, np.cumsum(sizes)[:-1])
    arrays = []
    for (path, leaf), piece in zip(leaves, pieces, strict=True):
        name = path[-1].key
        if name == "code_table":
            table_VD = jax.random.truncated_normal(table_key, -2.0, 2.0, leaf.shape)
            arrays.append(table_VD * config.initializer_range)
        elif name in CONSTANT:
            arrays.append(jnp.full(leaf.shape, CONSTANT[name], leaf.dtype))
        else:
            arrays.append(piece.reshape(leaf.shape))
    return jax.tree.unflatten(structure, arrays)


def apply(
    params: Params,
    batch: Batch,
    *,
    config: ModelConfig,
    key: Key[Array, ""] | None = None,
    capture: Sequence[str] = (),
    codes_BLD: Float[Array, "B L D"] | None = None,
) -> tuple[Float[Array, "B L D"], dict[str, Float[Array, "..."]]]:
    """Hidden states (B, L, D) in compute_dtype, and what `capture` names.

    `key=None` means no dropout; what is dropped depends on the key, the patient ("patients" (B, P) in the batch) and
    the code's position alone. Captured: `embeddings` (B, L, D), `layers` (N, B, L, D) and `attention`
    (N, B, H, L, L; probabilities before dropout). States of empty slots are finite and mean nothing. `codes_BLD`
    are the `code_vectors` of the batch, where they were looked up before: the code table is then not read. Only the
    embeddings and encoder parameters are. Raises ValueError for a name that can't be captured.
    """
    if unknown := sorted(set(capture) - set(CAPTURES)):
        raise ValueError(f"capture must be among {', '.join(CAPTURES)}: got {', '.join(unknown)}; leave it out")
    dropouts, places, places_BLD = seeds(key, 1 + 3 * config.layers), None, None
    if key is not None:
        places = Places.of(slot_places(batch), batch["positions"], config)
        places_BLD = places.hidden_TD.reshape(*batch["positions"].shape, -1)
    embeddings = bind(params["embeddings"], Embeddings, config)
    embeddings_BLD = embeddings(batch, seed=dropouts[0], places_BLD=places_BLD, codes_BLD=codes_BLD)
    encoder = bind(params["encoder"], Encoder, config)
    hidden_BLD, out = encoder(
        embeddings_BLD, batch["patient_slots"], seeds=dropouts[1:], places=places, capture=capture
    )
    if "embeddings" in capture:
        out["embeddings"] = embeddings_BLD
    return hidden_BLD, out


def code_vectors(
    params: Params, code_ids: Sequence[Int[Array, "_ _"]], *, groups: int
) -> list[Float32[Array, "_ _ D"]]:
    """What the code table has for several arrays of ids, by one look-up: (B, L, D) of each.

    `groups` are the devices that share the rows of every array: no vector goes from one to another.
    """
    parts = [ids.reshape(groups, -1) for ids in code_ids]
    table_VD = params["embeddings"]["code_table"]
    vectors_GTD = jnp.take(table_VD, jnp.concatenate(parts, axis=1), axis=0, mode="clip")
    ends = np.cumsum([part.shape[1] for part in parts])[:-1]
    of_each = jnp.split(vectors_GTD, ends, axis=1)
    return [one.reshape(*ids.shape, -1) for one, ids in zip(of_each, code_ids, strict=True)]


def masked_code_logits(
    params: Params, states_XMD: Float[Array, "*X M D"], *, config: ModelConfig
) -> Float32[Array, "*X M V"]:
    """Logits over the vocabulary, float32, of hidden states that were already gathered at the masked slots."""
    head = bind(params["masked_code_head"], MaskedCodeHead, config)
    return head(states_XMD, params["embeddings"]["code_table"])


def masked_code_states(
    params: Params, states_XMD: Float[Array, "*X M D"], *, config: ModelConfig
) -> Float[Array, "*X M D"]:
    """What the decoder multiplies by the code table, in compute_dtype, of the same states: the head up to there."""
    head = bind(params["masked_code_head"], MaskedCodeHead, config)
    return head.transformed(states_XMD)


def prolonged_los_logits(
    params: Params,
    hidden_BLD: Float[Array, "B L D"],
    batch: Batch,
    *,
    config: ModelConfig,
    patients: int,
) -> Float32[Array, "B {patients} {config.los_logits}"]:
    """Logits of "some visit lasted more than 7 days" per patient of each row, float32; `patients` is P.

    A place of the row that no patient takes gets a logit too, which means nothing. Raises ValueError for the sum
    with padding over rows of several patients: padding belongs to none of them.
    """
    slots_BL = batch["patient_slots"]
    match config.los_pooling:
        case "sum":  # Paper: the outputs of all codes are summed.
            patients_BPD = masked_sum(hidden_BLD, slots_BL, patients)
        case "first":  # Released code: BERT's pooled first token.
            patients_BPD = pooled_first_code(params, hidden_BLD, batch, config=config, patients=patients)
        case _:  # Released code, the other script: the sum over the whole row, a length signal.
            if patients != 1:
                raise ValueError(
                    "los_pooling sum_with_padding needs rows of one patient each: "
                    f"got {patients} patients per row; put one patient in a row or use los_pooling sum"
                )
            patients_BPD = hidden_BLD.sum(axis=1, keepdims=True, dtype="float32")
    return bind(params["prolonged_los_head"], ProlongedLosHead, config)(patients_BPD)


def pooled_first_code(
    params: Params,
    hidden_BLD: Float[Array, "B L D"],
    batch: Batch,
    *,
    config: ModelConfig,
    patients: int,
) -> Float[Array, "B {patients} D"]:
    """BERT's pooled output of each patient's first code; needs `config.pooler`."""
    first_BPD = first_states(hidden_BLD, batch["patient_slots"], patients)
    return bind(params["pooler"], Pooler, config)(first_BPD)


def vocabulary_axes(config: ModelConfig) -> Params:
    """The axis of every parameter that is as long as the vocabulary, −1 where none is, in the structure of `init`.

    Each module says it where it makes the parameter, as `vocabulary_axis`.
    """

    def said(variable: nnx.Variable) -> int:
        return variable.get_metadata().get("vocabulary_axis", -1)

    return {name: nnx.to_pure_dict(_structure(module, config)[1], said) for name, module in _modules(config).items()}


def bind(params: Params, module_class: Callable[..., Module], *configs: Any) -> Module:
    """The module with these parameters; called inside the traced function, so that it costs nothing per step."""
    return nnx.merge(_structure(module_class, *configs)[0], params)


def _modules(config: ModelConfig) -> dict[str, Callable[..., nnx.Module]]:
    """What a model consists of."""
    modules: dict[str, Callable[..., nnx.Module]] = {
        "embeddings": Embeddings,
        "encoder": Encoder,
        "masked_code_head": MaskedCodeHead,
        "prolonged_los_head": ProlongedLosHead,
    }
    return modules | ({"pooler": Pooler} if config.pooler else {})


@functools.lru_cache(maxsize=64)
def _structure(module_class: Callable[..., nnx.Module], *configs: Any) -> tuple[nnx.GraphDef, nnx.State]:
    """What a module is made of, and its parameters with their shapes in place of values."""
    return nnx.split(nnx.eval_shape(lambda: module_class(*configs, rngs=nnx.Rngs(0))))
