"""The two pretraining heads, BERT's pooler, and the ways to go from a row's slots to its patients."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Float32, Int

from medbert_jax.models.config import ModelConfig
from medbert_jax.models.embeddings import layer_norm
from medbert_jax.models.encoder import Dense
from medbert_jax.models.product import product


class MaskedCodeHead(nnx.Module):
    """Dense, gelu and LayerNorm, then the code table itself as decoder, with a bias of its own (as BERT's MLM)."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.dense = Dense(config, config.hidden_size, config.hidden_size, rngs=rngs)
        self.layer_norm = layer_norm(config, rngs)
        self.bias = nnx.Param(jnp.zeros((config.vocabulary_size,), jnp.float32), vocabulary_axis=0)

    def __call__(
        self, states_XMD: Float[Array, "*X M D"], code_table_VD: Float32[Array, "V D"]
    ) -> Float32[Array, "*X M V"]:
        """Logits (…, M, V) in float32 of states (…, M, D)."""
        states_TD = self.transformed(states_XMD).reshape(-1, states_XMD.shape[-1])
        logits_TV = product("TD,VD->TV", states_TD, code_table_VD, states_TD.dtype) + self.bias[...][None, :]
        return logits_TV.reshape(*states_XMD.shape[:-1], -1)

    def transformed(self, states_XMD: Float[Array, "*X M D"]) -> Float[Array, "*X M D"]:
        """What the decoder multiplies by the code table, in compute_dtype."""
        inner_XMD = jax.nn.gelu(self.dense(states_XMD), approximate=True)
        return self.layer_norm(inner_XMD).astype(self.dense.dtype)


class Pooler(nnx.Module):
    """BERT's pooler: dense and tanh."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.dense = Dense(config, config.hidden_size, config.hidden_size, rngs=rngs)

    def __call__(self, first_BPD: Float[Array, "B P D"]) -> Float[Array, "B P D"]:
        """Pooled vectors (B, P, D) of the patients' first codes."""
        return jnp.tanh(self.dense(first_BPD))


class ProlongedLosHead(nnx.Module):
    """One dense layer from a patient's vector to the logits of prolonged LOS, in float32."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.dense = nnx.Linear(config.hidden_size, config.los_logits, dtype=jnp.float32, rngs=rngs)

    def __call__(self, patients_BPD: Float[Array, "B P D"]) -> Float32[Array, "B P C"]:
        """Logits (B, P, C), C = 2 in the paper."""
        return self.dense(patients_BPD)


def masked_sum(
    hidden_BLD: Float[Array, "B L D"], slots_BL: Int[Array, "B L"], patients: int
) -> Float32[Array, "B {patients} D"]:
    """Sum of each patient's outputs, (B, P, D) float32; 0 for a place of the row that no patient takes."""
    places_P = jnp.arange(1, patients + 1, dtype=slots_BL.dtype)
    member_BLP = (slots_BL[:, :, None] == places_P[None, None, :]).astype(hidden_BLD.dtype)
    return jnp.einsum(
        "BLP,BLD->BPD",
        member_BLP,
        hidden_BLD,
        precision=jax.lax.Precision.HIGHEST,  # a float32 sum, also where the hardware would multiply in TF32
        preferred_element_type=jnp.float32,
    )


def first_states(
    hidden_BLD: Float[Array, "B L D"], slots_BL: Int[Array, "B L"], patients: int
) -> Float[Array, "B {patients} D"]:
    """Output of each patient's first slot, (B, P, D); 0 for a place of the row that no patient takes."""
    places_P = jnp.arange(1, patients + 1, dtype=slots_BL.dtype)
    member_BPL = slots_BL[:, None, :] == places_P[None, :, None]
    first_BP = jnp.argmax(member_BPL, axis=-1)
    states_BPD = jnp.take_along_axis(hidden_BLD, first_BP[:, :, None], axis=1)
    return jnp.where(member_BPL.any(axis=-1)[:, :, None], states_BPD, jnp.zeros((), hidden_BLD.dtype))
