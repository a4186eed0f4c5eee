"""Fine-tuning of the whole model, or of a head on states that are kept, with a disease head: steps and programs.

The trained parameters are the backbone's ("embeddings", "encoder") and the head's ("head"); of a frozen backbone the
head's alone. What is given and not trained lies beside them in the state, under "given".
"""

from collections.abc import Callable
from functools import cache
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float32, Int, Key

from medbert_jax.data.cohort_plan import Layout
from medbert_jax.models.batch import Batch
from medbert_jax.models.config import ModelConfig
from medbert_jax.models.finetune_heads import HeadConfig, apply_head, init_head
from medbert_jax.models.loop_bounds import common_bound
from medbert_jax.models.med_bert import apply, init
from medbert_jax.training.corpus import Corpus, gather_patients
from medbert_jax.training.dispatch import make_eval_dispatch, make_train_dispatch
from medbert_jax.training.losses import binary_cross_entropy
from medbert_jax.training.merging import merge_parameters
from medbert_jax.training.optimizer import OptimizerConfig, make_optimizer
from medbert_jax.training.sharding import over_rows, replicated

PRETRAINING_ONLY = ("masked_code_head", "prolonged_los_head", "pooler")
OUTCOME = "label"


class CohortRows(Batch):
    """Some rows of patients."""

    label: Int[Array, "B P"]


def init_finetuning(model: ModelConfig, head: HeadConfig, key: Key[Array, ""]) -> dict:
    """Fresh parameters of backbone and head."""
    backbone_key, head_key = jax.random.split(key)
    params = init(model, backbone_key)
    return {name: params[name] for name in params if name not in PRETRAINING_ONLY} | {
        "head": init_head(head, model, head_key)
    }


def start_from(params: dict, pretrained: dict) -> dict:
    """`params` with the pretrained backbone, and a pretrained pooler where the head has one; the rest stays new.

    Raises ParameterMismatchError with a diff where the backbones differ.
    """
    merged = merge_parameters(params, pretrained, new=("head",), drop=PRETRAINING_ONLY)
    if "pooler" in merged["head"] and "pooler" in pretrained:
        merged["head"]["pooler"] = pretrained["pooler"]
    return merged


def risk_logits(
    params: dict,
    batch: Batch,
    *,
    model: ModelConfig,
    head: HeadConfig,
    patients: int = 1,
    key: Key[Array, ""] | None = None,
) -> Float32[Array, "B {patients}"]:
    """Log odds of the label of every patient of each row; see `apply_head`.

    Where the parameters hold "states" (C, D), a code's id is the row of its state, and there is no other backbone.
    """
    backbone_key, head_key = (None, None) if key is None else jax.random.split(key)
    if "states" in params:
        hidden_BLD = params["states"][batch["code_ids"]]
    else:
        hidden_BLD, _ = apply(params, batch, config=model, key=backbone_key)
    return apply_head(
        params["head"], hidden_BLD, batch, config=head, model_config=model, patients=patients, key=head_key
    )


@cache  # the same object for the same configuration, by which `compiled` knows it again
def endless_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """The optimizer of a training without a known end; ValueError for a schedule that needs one."""
    if config.schedule != "constant":
        raise ValueError(
            "fine-tuning stops early, so its schedule cannot decay to an end: got optimizer.schedule "
            f"{config.schedule}; use constant"
        )
    return make_optimizer(config, total_steps=1)


def fresh_state(params: dict, optimizer: optax.GradientTransformation, seed: int, given: dict | None = None) -> dict:
    """The state before the first step; `seed` is of dropout, and `given` what the steps leave as it is."""
    return {
        "params": params,
        "opt_state": jax.jit(optimizer.init)(params),
        "step": jnp.zeros((), jnp.int32),
        "key": jax.random.key(seed, impl="threefry2x32"),
        "given": given or {},
    }


def make_train_step(
    *, model: ModelConfig, head: HeadConfig, optimizer: optax.GradientTransformation, rows: Layout, mesh: Mesh
) -> Callable[[dict, dict], tuple[dict, dict]]:
    """The pure function (state, step of a feed with its corpus) → (state, metrics) of `make_train_dispatch`.

    Gradients of the chunks are summed; every patient of a step has the same weight in it. A loss that is not finite
    goes its way: validation sees it.
    """

    def train_step(state: dict, batch: dict) -> tuple[dict, dict]:
        params, given = state["params"], state["given"]
        key = jax.random.fold_in(state["key"], state["step"])
        patients = jnp.stack([jnp.sum(tier["patients"] >= 0) for tier in batch["tiers"]]).sum().astype(jnp.float32)

        def chunk(_tier: int, _place: Array, chunk: CohortRows, carry: tuple) -> tuple:
            grads, total = carry
            ids_BL = chunk["code_ids"]
            own, chunk = _with_own_codes(params, chunk)

            def loss(own: dict) -> Float32[Array, ""]:
                size = chunk["patients"].shape[1]
                logits_BP = risk_logits(own | given, chunk, model=model, head=head, patients=size, key=key)
                return binary_cross_entropy(logits_BP, chunk[OUTCOME], chunk["patients"] >= 0)[0] / patients

            value, found = jax.value_and_grad(loss)(own)
            return _added(grads, found, ids_BL), total + value

        nothing = jax.tree.map(jnp.zeros_like, params), jnp.zeros((), jnp.float32)
        grads, loss = over_chunks(batch, rows, mesh, chunk, nothing)
        updates, opt_state = optimizer.update(grads, state["opt_state"], params)
        new = {"params": optax.apply_updates(params, updates), "opt_state": opt_state, "step": state["step"] + 1}
        norm = optax.tree.norm(grads)
        return state | new, {"loss": loss, "patients": patients, "gradient_norm": norm, "finite": jnp.array(True)}

    return train_step


def summarize(metrics: dict) -> tuple[dict[str, float], float]:
    """Means over steps, (K,) arrays each, and the number of patients they trained on."""
    names = ("loss", "gradient_norm")
    return {name: float(np.mean(metrics[name], dtype=np.float64)) for name in names}, float(metrics["patients"].sum())


def make_eval_step(*, model: ModelConfig, head: HeadConfig, rows: Layout, mesh: Mesh) -> Callable[[dict, dict], dict]:
    """The pure function (params, step of a feed with its corpus) → "risks": per tier (B, P), of every patient."""

    def eval_step(params: dict, batch: dict) -> dict:
        def chunk(tier: int, place: Array, chunk: CohortRows, found: tuple) -> tuple:
            logits_BP = risk_logits(params, chunk, model=model, head=head, patients=chunk["patients"].shape[1])
            risks_BP = jax.lax.dynamic_update_slice_in_dim(found[tier], jax.nn.sigmoid(logits_BP), place, axis=0)
            return (*found[:tier], risks_BP, *found[tier + 1 :])

        nothing = tuple(jnp.zeros(tier["patients"].shape, jnp.float32) for tier in batch["tiers"])
        return {"risks": over_chunks(batch, rows, mesh, chunk, nothing)}

    return eval_step


@cache  # one compilation for all runs of an architecture whose corpora are about as large
def compiled(
    model: ModelConfig, head: HeadConfig, optimizer: optax.GradientTransformation, rows: Layout, mesh: Mesh
) -> Callable[[dict, Corpus[jax.Array], dict], tuple[dict, dict]]:
    """The training dispatch, jitted; the state is donated."""
    step = make_train_step(model=model, head=head, optimizer=optimizer, rows=rows, mesh=mesh)
    everywhere = replicated(mesh)
    return jax.jit(make_train_dispatch(step, not_yet_gathered), out_shardings=everywhere, donate_argnums=0)


@cache
def compiled_eval(
    model: ModelConfig, head: HeadConfig, rows: Layout, mesh: Mesh
) -> Callable[[dict, Corpus[jax.Array], dict], dict]:
    """The dispatch of predictions, jitted."""
    step = make_eval_step(model=model, head=head, rows=rows, mesh=mesh)
    return jax.jit(make_eval_dispatch(step, not_yet_gathered), out_shardings=replicated(mesh))


def not_yet_gathered(corpus: Corpus[jax.Array], step: dict) -> dict:
    """Rows are gathered chunk by chunk: most places for rows are empty."""
    return step | {"corpus": corpus}


def over_chunks(
    batch: dict, rows: Layout, mesh: Mesh, of_chunk: Callable[[int, Array, CohortRows, Any], Any], carry: Any
) -> Any:
    """`carry` after `of_chunk` (tier, first row, rows with their outcome, carry → carry) of every chunk in use."""
    for tier, (places, length, size) in enumerate(zip(batch["tiers"], rows.row_lengths, rows.chunk_rows, strict=True)):
        in_use = (places["patients"] >= 0).any(axis=1)
        # The rows in use are the first ones.
        chunks = common_bound(-(-jnp.sum(in_use, dtype=jnp.int32) // size))

        def body(number: Array, carry: Any, tier=tier, places=places, length=length, size=size) -> Any:
            first = number * size
            mine = {name: jax.lax.dynamic_slice_in_dim(value, first, size) for name, value in places.items()}
            chunk = gather_patients(batch["corpus"], mine["places"], length, outcome=OUTCOME)
            chunk = cast(CohortRows, chunk | {"patients": mine["patients"]})
            if mesh.size > 1:
                chunk = jax.lax.with_sharding_constraint(chunk, over_rows(mesh))
            return of_chunk(tier, first, chunk, carry)

        carry = jax.lax.fori_loop(0, chunks, body, carry)
    return carry


def _with_own_codes(params: dict, chunk: CohortRows) -> tuple[dict, CohortRows]:
    """The parameters with a table of the chunk's codes, slot by slot, and the chunk with their places in it.

    So the gradient that comes back is as long as the chunk, and not as the vocabulary.
    """
    if "embeddings" not in params:
        return params, chunk
    ids_BL, embeddings = chunk["code_ids"], params["embeddings"]
    table = embeddings["code_table"][ids_BL.reshape(-1)]
    own = params | {"embeddings": embeddings | {"code_table": table}}
    places_BL = jnp.arange(ids_BL.size, dtype=jnp.int32).reshape(ids_BL.shape)
    return own, chunk | {"code_ids": places_BL}


def _added(grads: dict, found: dict, ids_BL: Int[Array, "B L"]) -> dict:
    """The sum of gradients so far and those of a chunk with its own codes."""
    if "embeddings" not in grads:
        return jax.tree.map(jnp.add, grads, found)
    table = grads["embeddings"]["code_table"].at[ids_BL.reshape(-1)].add(found["embeddings"]["code_table"])
    rest = [
        tree | {"embeddings": {name: leaf for name, leaf in tree["embeddings"].items() if name != "code_table"}}
        for tree in (grads, found)
    ]
    added = jax.tree.map(jnp.add, *rest)
    return added | {"embeddings": added["embeddings"] | {"code_table": table}}
