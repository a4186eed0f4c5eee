"""The encoder: post-LayerNorm transformer layers, attention kept within each patient (paper, Methods)."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Float32, Int, UInt32

from medbert_jax.models.config import ModelConfig
from medbert_jax.models.dropout import Seed, Seeds, dropout, further_places
from medbert_jax.models.embeddings import layer_norm
from medbert_jax.models.product import dense, product

BLOCKED = -1e9
"""Added to the score of a pair that may not attend: its probability is exactly 0, yet nothing is infinite."""


class Places(NamedTuple):
    """Where the draws of dropout belong, so that they do not depend on the layout."""

    hidden_TD: UInt32[Array, "T D"]
    attention_BHLL: UInt32[Array, "B H L L"]

    @classmethod
    def of(cls, slot_places_BL: UInt32[Array, "B L"], positions_BL: Int[Array, "B L"], config: ModelConfig) -> "Places":
        """By the slot and the hidden element; by the slot that reads, the head and the position that is read."""
        hidden_TD = further_places(slot_places_BL.reshape(-1, 1), jnp.arange(config.hidden_size)[None])
        heads_1H11 = jnp.arange(config.heads)[None, :, None, None]
        read_B11L = positions_BL[:, None, None, :]
        return cls(hidden_TD, further_places(slot_places_BL[:, None, :, None], heads_1H11, read_B11L))


class Encoder(nnx.Module):
    """The layers under the names layer_0, layer_1, … (string keys survive a checkpoint, list indices do not)."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.config = config
        for index in range(config.layers):
            setattr(self, f"layer_{index}", EncoderLayer(config, rngs=rngs))

    def __call__(
        self,
        hidden_BLD: Float[Array, "B L D"],
        slots_BL: Int[Array, "B L"],
        *,
        seeds: Seeds,
        places: Places | None = None,
        capture: Sequence[str] = (),
    ) -> tuple[Float[Array, "B L D"], dict[str, Float[Array, "N B ..."]]]:
        """Outputs (B, L, D) and what was asked for: layers (N, B, L, D), attention (N, B, H, L, L) before dropout.

        `seeds` are three per layer: attention, attention's output, feed-forward; None for no dropout. With seeds,
        `places` say where each draw belongs.
        """
        bias_B1LL = attention_bias(slots_BL, padding_reads=self.config.los_pooling == "sum_with_padding")
        # Rows and slots are one dimension outside of attention: the weights' gradients are then plain matrix products.
        hidden_TD = hidden_BLD.reshape(-1, hidden_BLD.shape[-1])
        layers, attention = [], []
        for index in range(self.config.layers):
            layer = getattr(self, f"layer_{index}")
            hidden_TD, attention_BHLL = layer(
                hidden_TD, bias_B1LL, seeds=seeds[3 * index : 3 * index + 3], places=places
            )
            layers.append(hidden_TD.reshape(hidden_BLD.shape))
            attention.append(attention_BHLL)
        kept = {"layers": layers, "attention": attention}
        return hidden_TD.reshape(hidden_BLD.shape), {name: jnp.stack(kept[name]) for name in kept if name in capture}


class EncoderLayer(nnx.Module):
    """Self-attention and feed-forward, each followed by dropout, the residual sum and LayerNorm, as in BERT."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        width = config.hidden_size
        self.config = config
        self.query = Dense(config, width, width, rngs=rngs)
        self.key = Dense(config, width, width, rngs=rngs)
        self.value = Dense(config, width, width, rngs=rngs)
        self.output = Dense(config, width, width, rngs=rngs)
        self.attention_layer_norm = layer_norm(config, rngs)
        self.feed_forward_in = Dense(config, width, config.feed_forward_size, rngs=rngs)
        self.feed_forward_out = Dense(config, config.feed_forward_size, width, rngs=rngs)
        self.feed_forward_layer_norm = layer_norm(config, rngs)

    def __call__(
        self,
        hidden_TD: Float[Array, "T D"],
        bias_B1LL: Float32[Array, "B 1 L L"],
        *,
        seeds: Seeds,
        places: Places | None = None,
    ) -> tuple[Float[Array, "T D"], Float32[Array, "B H L L"]]:
        """The layer's output (T, D), T = B × L, and its attention probabilities (B, H, L, L) before dropout."""
        config = self.config
        hidden_places, attention_places = (None, None) if places is None else places
        mixed_TD, attention_BHLL = self._attend(hidden_TD, bias_B1LL, seeds[0], attention_places)
        mixed_TD = dropout(self.output(mixed_TD), config.dropout, seeds[1], hidden_places)
        hidden_TD = self._add_and_norm(self.attention_layer_norm, hidden_TD, mixed_TD)
        # The tanh form of gelu, which is the one of the original's TensorFlow code.
        inner_TF = jax.nn.gelu(self.feed_forward_in(hidden_TD), approximate=True)
        inner_TD = dropout(self.feed_forward_out(inner_TF), config.dropout, seeds[2], hidden_places)
        return self._add_and_norm(self.feed_forward_layer_norm, hidden_TD, inner_TD), attention_BHLL

    def _attend(
        self,
        hidden_TD: Float[Array, "T D"],
        bias_B1LL: Float32[Array, "B 1 L L"],
        seed: Seed,
        places: UInt32[Array, "B H L L"] | None,
    ) -> tuple[Float[Array, "T D"], Float32[Array, "B H L L"]]:
        config = self.config
        rows, length = bias_B1LL.shape[0], bias_B1LL.shape[-1]
        # One product for all three, and heads before slots by hand: on CPU the einsum of the other layout takes up to
        # five times as long.
        query_BHLK, key_BHLK, value_BHLK = (
            self._query_key_value(hidden_TD).reshape(rows, length, 3, config.heads, -1).transpose(2, 0, 3, 1, 4)
        )
        query_BHLK *= jnp.asarray(query_BHLK.shape[-1] ** -0.5, query_BHLK.dtype)
        scores_BHLL = product("BHQK,BHSK->BHQS", query_BHLK, key_BHLK)
        attention_BHLL = jax.nn.softmax(scores_BHLL + bias_B1LL, axis=-1)
        dropped_BHLL = dropout(attention_BHLL, config.attention_dropout, seed, places)
        mixed_BHLK = product("BHQS,BHSK->BHQK", dropped_BHLL, value_BHLK, hidden_TD.dtype).astype(hidden_TD.dtype)
        return mixed_BHLK.transpose(0, 2, 1, 3).reshape(hidden_TD.shape), attention_BHLL

    def _query_key_value(self, hidden_TD: Float[Array, "T D"]) -> Float[Array, "T 3*D"]:
        layers = self.query, self.key, self.value
        kernel = jnp.concatenate([layer.kernel[...] for layer in layers], axis=1)
        bias = jnp.concatenate([layer.bias[...] for layer in layers])
        return dense(hidden_TD, kernel, bias, self.config.compute_dtype)

    def _add_and_norm(
        self, norm: nnx.LayerNorm, residual_TD: Float[Array, "T D"], update_TD: Float[Array, "T D"]
    ) -> Float[Array, "T D"]:
        # The sum is kept in float32 until it is normalised.
        summed_TD = residual_TD.astype(jnp.float32) + update_TD.astype(jnp.float32)
        return norm(summed_TD).astype(self.config.compute_dtype)


def attention_bias(slots_BL: Int[Array, "B L"], *, padding_reads: bool = False) -> Float32[Array, "B 1 L L"]:
    """What is added to the scores, (B, 1, L, L) float32: 0 where a slot may read another, else BLOCKED.

    A slot reads the slots of its own patient, and `patient_slots > 0` alone says what is a patient's: the code id
    plays no part, so a masked slot of `released_code` (id 0) is read as any other. Empty slots read nothing real
    and nobody reads them; with `padding_reads` they read the row's patients, as padding does in the released code.
    """
    query_B1L1, source_B11L = slots_BL[:, None, :, None], slots_BL[:, None, None, :]
    allowed_B1LL = query_B1L1 == source_B11L
    if padding_reads:
        allowed_B1LL |= query_B1L1 == 0
    return jnp.where(allowed_B1LL & (source_B11L > 0), 0.0, BLOCKED).astype(jnp.float32)


class Dense(nnx.Module):
    """A dense layer with bias, computing in compute_dtype on float32 parameters, which start as those of nnx.Linear."""

    def __init__(self, config: ModelConfig, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        self.dtype = jnp.dtype(config.compute_dtype)
        kernel, bias = nnx.initializers.lecun_normal(), nnx.initializers.zeros_init()
        self.kernel = nnx.Param(kernel(rngs.params(), (inputs, outputs), jnp.float32))
        self.bias = nnx.Param(bias(rngs.params(), (outputs,), jnp.float32))

    def __call__(self, x: Float[Array, "*X D"]) -> Float[Array, "*X F"]:
        """Outputs in compute_dtype."""
        return dense(x, self.kernel[...], self.bias[...], self.dtype)
