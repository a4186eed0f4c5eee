"""Heads put on Med-BERT for a disease cohort: one logit per patient (paper, Fig. 3 and Methods, "Fine-tuning")."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
from annotated_types import Ge, Interval
from flax import nnx
from jaxtyping import Array, Bool, Float, Float32, Int, Key

from medbert_jax.checked_fields import check_fields
from medbert_jax.models.batch import Batch
from medbert_jax.models.config import ModelConfig
from medbert_jax.models.dropout import Seed, dropout, seeds
from medbert_jax.models.heads import Pooler, first_states, masked_sum
from medbert_jax.models.med_bert import Params, bind

HeadKind = Literal["feed_forward", "first", "gru", "bi_gru"]


@dataclass(frozen=True)
class HeadConfig:
    """What stands between the backbone's outputs and the logit; raises ValueError naming every fault."""

    kind: HeadKind = "feed_forward"
    """feed_forward: linear on the masked sum of the outputs (the paper's "Med-BERT only (FFL)"); first: linear on the
    pooled first code (the released code's FFL); gru, bi_gru: recurrent over the patient's codes, linear on the final
    state(s)."""
    gru_hidden: Annotated[int, Ge(1)] = 128
    """Width of the recurrent state, per direction."""
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

    The recurrent heads read rows of one patient each (P = 1), real slots first; raises ValueError for more. A
    place of the row that no patient takes gets a logit too, which means nothing.
    """
    if config.kind in ("gru", "bi_gru") and patients != 1:
        raise ValueError(
            f"head {config.kind} needs rows of one patient each: got {patients} patients per row; "
            "put one patient in a row or use head feed_forward"
        )
    head = bind(params, _module(config), config, model_config)
    return head(hidden_BLD, batch["patient_slots"], patients=patients, seed=seeds(key, 1)[0])


def _module(config: HeadConfig) -> Callable[..., nnx.Module]:
    kinds = {"feed_forward": FeedForwardHead, "first": FirstCodeHead, "gru": RecurrentHead, "bi_gru": RecurrentHead}
    return kinds[config.kind]


class FeedForwardHead(nnx.Module):
    """Linear on the sum of the patient's outputs, the form that the prolonged-LOS task pretrains."""

    def __init__(self, config: HeadConfig, model_config: ModelConfig, *, rngs: nnx.Rngs):
        self.dropout = config.dropout
        self.dense = _to_logit(model_config.hidden_size, model_config, rngs)

    def __call__(
        self, hidden_BLD: Float[Array, "B L D"], slots_BL: Int[Array, "B L"], *, patients: int, seed: Seed
    ) -> Float32[Array, "B {patients}"]:
        """Logits (B, P)."""
        patients_BPD = masked_sum(hidden_BLD, slots_BL, patients)
        return self.dense(dropout(patients_BPD, self.dropout, seed))[..., 0]


class FirstCodeHead(nnx.Module):
    """Released code: BERT's pooler on the patient's first code, then linear."""

    def __init__(self, config: HeadConfig, model_config: ModelConfig, *, rngs: nnx.Rngs):
        self.dropout = config.dropout
        self.pooler = Pooler(model_config, rngs=rngs)
        self.dense = _to_logit(model_config.hidden_size, model_config, rngs)

    def __call__(
        self, hidden_BLD: Float[Array, "B L D"], slots_BL: Int[Array, "B L"], *, patients: int, seed: Seed
    ) -> Float32[Array, "B {patients}"]:
        """Logits (B, P)."""
        pooled_BPD = self.pooler(first_states(hidden_BLD, slots_BL, patients)).astype(jnp.float32)
        return self.dense(dropout(pooled_BPD, self.dropout, seed))[..., 0]


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
        self, hidden_BLD: Float[Array, "B L D"], slots_BL: Int[Array, "B L"], *, patients: int, seed: Seed
    ) -> Float32[Array, "B {patients}"]:
        """Logits (B, 1)."""
        hidden_BLD = hidden_BLD.astype(jnp.float32)
        state_BG = self.forward(hidden_BLD, slots_BL > 0)
        if self.bidirectional:
            backward_BG = self.backward(hidden_BLD, slots_BL > 0, reverse=True)
            state_BG = jnp.concatenate([state_BG, backward_BG], axis=-1)
        return self.dense(dropout(state_BG, self.dropout, seed))


class GatedRecurrentUnit(nnx.Module):
    """GRU as PyTorch writes it (gates r, z, n; two biases), started as PyTorch's, uniform in ±1/sqrt(G)."""

    def __init__(self, inputs: int, hidden: int, *, rngs: nnx.Rngs):
        def uniform(*shape: int) -> nnx.Param:
            bound = hidden**-0.5
            return nnx.Param(jax.random.uniform(rngs.params(), shape, jnp.float32, -bound, bound))

        self.input_kernel = uniform(inputs, 3 * hidden)
        self.input_bias = uniform(3 * hidden)
        self.hidden_kernel = uniform(hidden, 3 * hidden)
        self.hidden_bias = uniform(3 * hidden)

    def __call__(
        self, inputs_BLD: Float32[Array, "B L D"], real_BL: Bool[Array, "B L"], *, reverse: bool = False
    ) -> Float32[Array, "B G"]:
        """State (B, G) after the last real slot, or with `reverse` after the first, having begun at the last.

        An empty slot leaves the state as it is, bit for bit, so neither direction passes through the padding.
        """
        hidden_kernel, hidden_bias = self.hidden_kernel[...], self.hidden_bias[...][None, :]
        # One product for all steps: only the state's own product has to wait for its turn in the scan.
        inputs_LBG3 = jnp.einsum("BLD,DG->LBG", inputs_BLD, self.input_kernel[...])
        inputs_LBG3 += self.input_bias[...][None, None, :]

        def step(state_BG, this):
            inputs_BG3, real_B1 = this
            reset, update, new = jnp.split(inputs_BG3, 3, axis=-1)
            state_reset, state_update, state_new = jnp.split(state_BG @ hidden_kernel + hidden_bias, 3, axis=-1)
            update = jax.nn.sigmoid(update + state_update)
            new = jnp.tanh(new + jax.nn.sigmoid(reset + state_reset) * state_new)
            return jnp.where(real_B1, new + update * (state_BG - new), state_BG), None

        start_BG = jnp.zeros((inputs_BLD.shape[0], hidden_kernel.shape[0]), jnp.float32)
        return jax.lax.scan(step, start_BG, (inputs_LBG3, real_BL.T[:, :, None]), reverse=reverse)[0]


def _to_logit(inputs: int, model_config: ModelConfig, rngs: nnx.Rngs) -> nnx.Linear:
    normal = nnx.initializers.truncated_normal(model_config.initializer_range)
    return nnx.Linear(inputs, 1, kernel_init=normal, dtype=jnp.float32, rngs=rngs)
