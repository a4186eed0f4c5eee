"""Input of Med-BERT: code + visit + serialization embeddings, LayerNorm, dropout (paper, Methods and Fig. 2)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, UInt32

from medbert_jax.models.batch import Batch
from medbert_jax.models.config import ModelConfig
from medbert_jax.models.dropout import Seed, dropout


class Embeddings(nnx.Module):
    """Three tables, summed and normalised. No age and no time: the model knows only order.

    Modules say what parameters there are, and by `vocabulary_axis` which axis a mesh may cut;
    `med_bert.init` gives all of them their values.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        def table(rows: int) -> jax.Array:
            return jnp.zeros((rows, config.hidden_size), jnp.float32)

        self.config = config
        self.code_table = nnx.Param(table(config.vocabulary_size), vocabulary_axis=0)
        self.visit_table = nnx.Param(table(config.max_visits))
        self.serialization_table = nnx.Param(table(config.max_length))
        self.layer_norm = layer_norm(config, rngs)

    def __call__(
        self,
        batch: Batch,
        *,
        seed: Seed,
        places_BLD: UInt32[Array, "B L D"] | None = None,
        codes_BLD: Float[Array, "B L D"] | None = None,
    ) -> Float[Array, "B L D"]:
        """Vectors (B, L, D) in compute_dtype; `places_BLD` say where each draw of dropout belongs.

        `codes_BLD` are what the code table has for the batch, where it was looked up before. Ids are clipped to the
        tables: the host must have checked them.
        """
        config = self.config
        # Paper: rank of the code within its visit. Released code: absolute position over the flat sequence.
        places_BL = batch["serialization_ids" if config.serialization == "rank" else "positions"]
        if config.los_pooling == "sum_with_padding":
            # Released code: padding has positions too, those of the row, and here its outputs count.
            slots_BL = batch["patient_slots"]
            row_BL = jax.lax.broadcasted_iota(places_BL.dtype, places_BL.shape, 1)
            places_BL = jnp.where(slots_BL > 0, places_BL, row_BL)
        if codes_BLD is None:
            codes_BLD = jnp.take(self.code_table[...], batch["code_ids"], axis=0, mode="clip")
        summed_BLD = (
            codes_BLD
            + jnp.take(self.visit_table[...], batch["visit_ids"], axis=0, mode="clip")
            + jnp.take(self.serialization_table[...], places_BL, axis=0, mode="clip")
        )
        normed_BLD = self.layer_norm(summed_BLD).astype(config.compute_dtype)
        return dropout(normed_BLD, config.dropout, seed, places_BLD)


def layer_norm(config: ModelConfig, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """A LayerNorm over the hidden axis, in float32 whatever the input, with the two-pass variance."""
    return nnx.LayerNorm(
        config.hidden_size,
        epsilon=config.layer_norm_epsilon,
        dtype=jnp.float32,
        use_fast_variance=False,
        rngs=rngs,
    )
