"""What of a model a fine-tuning changes, and what it needs of the patients for that."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from medbert_jax.data.cohort_plan import Layout
from medbert_jax.data.sequences import PatientSequences
from medbert_jax.models.config import ModelConfig
from medbert_jax.models.med_bert import apply
from medbert_jax.training.checkpoint import Checkpoint
from medbert_jax.training.cohort_codes import CohortCodes
from medbert_jax.training.cohort_scores import cohort_source, scoring_layout
from medbert_jax.training.config import FinetuneConfig
from medbert_jax.training.corpus import rounded_up
from medbert_jax.training.dispatch import make_train_dispatch
from medbert_jax.training.finetuning import CohortRows, init_finetuning, not_yet_gathered, over_chunks, start_from
from medbert_jax.training.pace import Pace, dispatched
from medbert_jax.training.sharding import replicated
from medbert_jax.training.stored_vectors import CodeVectors

PRETRAINED = ("pretrained", "frozen")
"""Backbones that begin with a checkpoint's parameters."""


@dataclass(frozen=True, eq=False)
class TunedParts:
    """Parameters and patients as the steps take them, and the way back to a whole model."""

    params: dict
    """What is trained."""
    train: PatientSequences
    validation: PatientSequences
    whole: Callable[[dict], dict]
    """Trained parameters → all parameters of the model."""
    given: dict = field(default_factory=dict)
    """What the training steps read besides."""
    given_in_validation: dict = field(default_factory=dict)


def starting_parameters(config: FinetuneConfig, model: ModelConfig, checkpoint: Checkpoint) -> dict:
    """Those of the backbone that the configuration asks for; the head's are new, drawn by the replicate."""
    params = _drawn(model, config.head, jax.random.key(config.replicate))
    if config.backbone in PRETRAINED:
        return start_from(params, checkpoint.parameters)
    return CodeVectors.read(config.vectors).put_into(params) if config.backbone == "tw2v" else params


_drawn = jax.jit(init_finetuning, static_argnums=(0, 1))  # array by array it would be fifty programs to compile


def began_with(config: FinetuneConfig, checkpoint: Checkpoint) -> str:
    """Fingerprint of the pretrained parameters or of the vectors of codes; empty for neither."""
    if config.backbone == "tw2v":
        return CodeVectors.read(config.vectors).fingerprint
    return checkpoint.fingerprint if config.backbone in PRETRAINED else ""


def tuned_model(config: FinetuneConfig, model: ModelConfig) -> ModelConfig:
    """The architecture: without an encoder where there is to be no backbone."""
    return replace(model, layers=0) if config.backbone in ("none", "tw2v") else model


def everything(
    params: dict, train: PatientSequences, validation: PatientSequences, *, weight_decay: bool
) -> TunedParts:
    """All parameters; of the table of codes those that the cohort has, where the others stay as they are anyway."""
    table = params["embeddings"]["code_table"]
    codes = CohortCodes.of((train, validation), len(table), all_of_them=weight_decay)
    # On the host: the steps give their own parameters away.
    before = jax.device_get(table)
    return TunedParts(
        codes.compact(params),
        codes.numbered(train),
        codes.numbered(validation),
        lambda trained: codes.whole(trained, before),
    )


def head_alone(
    params: dict, train: PatientSequences, validation: PatientSequences, *, model: ModelConfig, mesh: Mesh
) -> TunedParts:
    """The head, on the states of a backbone that stays as it is, computed once, without dropout."""
    backbone = {name: value for name, value in params.items() if name != "head"}

    def states_of(sequences: PatientSequences) -> dict:
        return {"states": kept_states(backbone, sequences, model=model, mesh=mesh)}

    def numbered(sequences: PatientSequences) -> PatientSequences:
        return replace(sequences, code_ids=np.arange(len(sequences.code_ids), dtype=np.int32))

    return TunedParts(
        {"head": params["head"]},
        numbered(train),
        numbered(validation),
        lambda trained: backbone | trained,
        states_of(train),
        states_of(validation),
    )


def kept_states(params: dict, sequences: PatientSequences, *, model: ModelConfig, mesh: Mesh) -> Float[Array, "C D"]:
    """The backbone's state of every code, as many as a corpus of the patients has room for."""
    rows = scoring_layout(sequences, model, mesh)
    state = {
        "states": jnp.zeros((rounded_up(len(sequences.code_ids)), model.hidden_size), model.compute_dtype),
        "given": params,
        "step": jnp.zeros((), jnp.int32),
    }
    # The dispatch gives its state away, and the parameters are the caller's.
    state = jax.device_put(jax.tree.map(jnp.copy, state), replicated(mesh))
    with cohort_source(sequences, rows, mesh) as source:
        pace = Pace((), source.config, total=source.plan.steps_per_epoch)
        *_, (_, state, _) = dispatched(_state_dispatch(model, rows, mesh), state, source, pace)
    return state["states"]


@cache
def _state_dispatch(model: ModelConfig, rows: Layout, mesh: Mesh) -> Callable:
    def step(state: dict, batch: dict) -> tuple[dict, dict]:
        corpus = batch["corpus"]
        numbered = batch | {"corpus": corpus._replace(code_ids=jnp.arange(len(corpus.code_ids), dtype=jnp.int32))}

        def chunk(_tier: int, _place: Array, chunk: CohortRows, states_CD: Array) -> Array:
            numbers_BL = chunk["code_ids"]
            own = chunk | {"code_ids": corpus.code_ids[numbers_BL]}
            hidden_BLD, _ = apply(state["given"], own, config=model)
            places_BL = jnp.where(chunk["patient_slots"] > 0, numbers_BL, len(states_CD))
            return states_CD.at[places_BL].set(hidden_BLD, mode="drop")

        states_CD = over_chunks(numbered, rows, mesh, chunk, state["states"])
        return state | {"states": states_CD, "step": state["step"] + 1}, {"finite": jnp.array(True)}

    return jax.jit(make_train_dispatch(step, not_yet_gathered), out_shardings=replicated(mesh), donate_argnums=0)
