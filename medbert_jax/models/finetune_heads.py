"""Heads put on Med-BERT for a disease cohort: one logit per patient (paper, Fig. 3 and Methods, "Fine-tuning")."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import jax.numpy as jnp
from annotated_types import Ge, Interval
from flax import nnx
from jaxtyping import Array, Float, Float32, Key, UInt32

from medbert_jax.checked_fields import check_fields
from medbert_jax.models.batch import Batch
from medbert_jax.models.config import ModelConfig
from medbert_jax.models.dropout import Seed, dropout, further_places, patient_places, seeds
from medbert_jax.models.heads import Pooler, first_states, masked_sum
from medbert_jax.models.med_bert import Params, bind
from medbert_jax.models.recurrent import GatedRecurrentUnit, last_states
from medbert_jax.models.retain import ReverseTimeAttention

HeadKind = Literal["feed_forward", "first", "gru", "bi_gru", "retain"]
Places = UInt32[Array, "B P"] | None
"""Where the draws of dropout belong: a number for each patient."""


@dataclass(frozen=True)
class HeadConfig:
    """What stands between the backbone's outputs and the logit; raises ValueError naming every fault."""

    kind: HeadKind = "feed_forward"
    """feed_forward: linear on the masked sum of the outputs (the paper's "Med-BERT only (FFL)"); first: linear on the
    pooled first code (the released code's FFL); gru, bi_gru: recurrent over the patient's codes, linear on the final
    state(s); retain: two GRUs over the visits in reverse time that weigh visits and their vectors' elements, linear on
    the weighted sum (Choi et al. 2016)."""
    gru_hidden: Annotated[int, Ge(1)] = 128
    """Width of the recurrent state, per direction, and of each of RETAIN's two."""
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.1
    """Share of elements dropped, in training, of what the final linear layer reads."""

    def __post_init__(self):
        """Check every field; all faults are in one error."""
        check_fields(self, at="head")


def init_head(config: HeadConfig, model_config: ModelConfig, key: Key[Array, ""]) -> Params:
    """Fresh head parameters: nested dictionaries with string keys, float32 leaves."""
    head = _module(config)(config, model_config, rngs=nnx.Rngs(params=key))
    return nnx.to_pure_dict(nnx.split(head)[1])


def apply_head(
    params: Params,
    hidden_BLD: Float[Array, "B L D"],
    batch: Batch,
    *,
    config: HeadConfig,
    model_config: ModelConfig,
    patients: int,
    key: Key[Array, ""] | None = None,
) -> Float32[Array, "B {patients}"]:
    """One logit per patient slot of each row, (B, P) float32; `patients` is P, `key=None` means no dropout.

    A place of the row that no patient takes gets a logit too, which means nothing. What is dropped depends on the key
    and the patient ("patients" (B, P) in the batch) alone.
    """
    head = bind(params, _module(config), config, model_config)
    places = None if key is None else patient_places(batch, patients)
    return head(hidden_BLD, batch, patients=patients, seed=seeds(key, 1)[0], places=places)


def code_contributions(
    params: Params,
    hidden_BLD: Float[Array, "B L D"],
    batch: Batch,
    *,
    config: HeadConfig,
    model_config: ModelConfig,
    patients: int,
) -> Float32[Array, "B L"]:
    """What each code adds to its patient's logit, α · wᵀ(β ⊙ x) for a code of vector x: (B, L) float32.

    0 at an empty slot. With the bias of the last layer, `params["dense"]["bias"]`, they sum to the logit without
    dropout. Of a backbone with an encoder, x is the code's contextual state, so what a code adds is not its own alone.
    Choi et al. 2016, "Interpreting RETAIN". ValueError for another head than retain.
    """
    if config.kind != "retain":
        raise ValueError(
            f"contributions of codes are RETAIN's: got a head of kind {config.kind}; fine-tune with --head.kind retain"
        )
    return bind(params, RetainHead, config, model_config).contributions(hidden_BLD, batch, patients=patients)


def _module(config: HeadConfig) -> Callable[..., nnx.Module]:
    kinds = {"feed_forward": FeedForwardHead, "first": FirstCodeHead, "gru": RecurrentHead, "bi_gru": RecurrentHead}
    return (kinds | {"retain": RetainHead})[config.kind]


class FeedForwardHead(nnx.Module):
    """Linear on the sum of the patient's outputs, the form that the prolonged-LOS task pretrains."""

    def __init__(self, config: HeadConfig, model_config: ModelConfig, *, rngs: nnx.Rngs):
        self.dropout = config.dropout
        self.dense = _to_logit(model_config.hidden_size, model_config, rngs)

    def __call__(
        self,
        hidden_BLD: Float[Array, "B L D"],
        batch: Batch,
        *,
        patients: int,
        seed: Seed,
        places: Places,
    ) -> Float32[Array, "B {patients}"]:
        """Logits (B, P)."""
        patients_BPD = masked_sum(hidden_BLD, batch["patient_slots"], patients)
        return self.dense(_dropped(patients_BPD, self.dropout, seed, places))[..., 0]


class FirstCodeHead(nnx.Module):
    """Released code: BERT's pooler on the patient's first code, then linear."""

    def __init__(self, config: HeadConfig, model_config: ModelConfig, *, rngs: nnx.Rngs):
        self.dropout = config.dropout
        self.pooler = Pooler(model_config, rngs=rngs)
        self.dense = _to_logit(model_config.hidden_size, model_config, rngs)

    def __call__(
        self,
        hidden_BLD: Float[Array, "B L D"],
        batch: Batch,
        *,
        patients: int,
        seed: Seed,
        places: Places,
    ) -> Float32[Array, "B {patients}"]:
        """Logits (B, P)."""
        pooled_BPD = self.pooler(first_states(hidden_BLD, batch["patient_slots"], patients)).astype(jnp.float32)
        return self.dense(_dropped(pooled_BPD, self.dropout, seed, places))[..., 0]


class RecurrentHead(nnx.Module):
    """GRU over the patient's codes, in one or both directions; linear on the state(s) after the last code read."""

    def __init__(self, config: HeadConfig, model_config: ModelConfig, *, rngs: nnx.Rngs):
        self.dropout = config.dropout
        self.forward = GatedRecurrentUnit(model_config.hidden_size, config.gru_hidden, rngs=rngs)
        self.bidirectional = config.kind == "bi_gru"
        if self.bidirectional:
            self.backward = GatedRecurrentUnit(model_config.hidden_size, config.gru_hidden, rngs=rngs)
        self.dense = _to_logit(config.gru_hidden * (1 + self.bidirectional), model_config, rngs)

    def __call__(
        self,
        hidden_BLD: Float[Array, "B L D"],
        batch: Batch,
        *,
        patients: int,
        seed: Seed,
        places: Places,
    ) -> Float32[Array, "B {patients}"]:
        """Logits (B, P)."""
        units = [self.forward, self.backward] if self.bidirectional else [self.forward]
        states_XBPG = last_states(units, hidden_BLD.astype(jnp.float32), batch["patient_slots"], patients)
        state_BPG = jnp.concatenate(list(states_XBPG), axis=-1)
        return self.dense(_dropped(state_BPG, self.dropout, seed, places))[..., 0]


class RetainHead(nnx.Module):
    """RETAIN (Choi et al. 2016): linear on the patient's codes, weighted by visit (α) and by element (β)."""

    def __init__(self, config: HeadConfig, model_config: ModelConfig, *, rngs: nnx.Rngs):
        self.dropout = config.dropout
        self.attention = ReverseTimeAttention(model_config.hidden_size, config.gru_hidden, rngs=rngs)
        self.dense = _to_logit(model_config.hidden_size, model_config, rngs)

    def __call__(
        self,
        hidden_BLD: Float[Array, "B L D"],
        batch: Batch,
        *,
        patients: int,
        seed: Seed,
        places: Places,
    ) -> Float32[Array, "B {patients}"]:
        """Logits (B, P)."""
        context_BPD = masked_sum(self._weighted(hidden_BLD, batch, patients), batch["patient_slots"], patients)
        return self.dense(_dropped(context_BPD, self.dropout, seed, places))[..., 0]

    def contributions(self, hidden_BLD: Float[Array, "B L D"], batch: Batch, *, patients: int) -> Float32[Array, "B L"]:
        """The terms (B, L) of the logits."""
        weighted_BLD = self._weighted(hidden_BLD, batch, patients)
        return jnp.einsum("BLD,D->BL", weighted_BLD, self.dense.kernel[...][:, 0], precision="highest")

    def _weighted(self, hidden_BLD: Float[Array, "B L D"], batch: Batch, patients: int) -> Float32[Array, "B L D"]:
        hidden_BLD = hidden_BLD.astype(jnp.float32)
        weights_BLD = self.attention(hidden_BLD, batch["patient_slots"], batch["visit_ids"], patients)
        # An empty slot's vector means nothing, and 0 times it must be 0.
        return jnp.where(batch["patient_slots"][:, :, None] > 0, weights_BLD * hidden_BLD, 0)


def _dropped(vectors_BPD: Float32[Array, "B P D"], rate: float, seed: Seed, places: Places) -> Float32[Array, "B P D"]:
    """Dropout by the patient and the element, so that it does not depend on the layout."""
    if places is None:
        return vectors_BPD
    elements_11D = jnp.arange(vectors_BPD.shape[-1])[None, None]
    return dropout(vectors_BPD, rate, seed, further_places(places[:, :, None], elements_11D))


def _to_logit(inputs: int, model_config: ModelConfig, rngs: nnx.Rngs) -> nnx.Linear:
    normal = nnx.initializers.truncated_normal(model_config.initializer_range)
    return nnx.Linear(inputs, 1, kernel_init=normal, dtype=jnp.float32, rngs=rngs)
