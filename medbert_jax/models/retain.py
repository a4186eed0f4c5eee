"""RETAIN's two attentions (Choi et al., "RETAIN", NeurIPS 2016): of visits, and of the elements of their vectors.

It walks over visits, as RETAIN is defined, and not over single codes as the recurrent heads do. The vector of a visit
is the sum of its codes' vectors, which is W_emb · x for a multi-hot x. Two GRUs read the visits in reverse time, from
the last one to the first; from the state at visit t the one gives α_t, a softmax over the patient's visits, and the
other β_t, a tanh for each element.

# Released code: two bidirectional vanilla RNNs, not time-reversed. Paper (Med-BERT): "RETAIN, double GRUs with
# attention", so RETAIN's own definition is followed.

Dimensions: X = 2 units, G width of their states; visits have the slots of a row, L of them, in reverse time.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float32, Int, Int32

from medbert_jax.models.recurrent import GatedRecurrentUnit, all_states


class ReverseTimeAttention(nnx.Module):
    """The weights of every code's vector, α of its visit times β of its visit; both GRUs are G wide."""

    def __init__(self, inputs: int, hidden: int, *, rngs: nnx.Rngs):
        self.visit_unit = GatedRecurrentUnit(inputs, hidden, rngs=rngs)
        self.element_unit = GatedRecurrentUnit(inputs, hidden, rngs=rngs)
        self.visit_score = nnx.Linear(hidden, 1, dtype=jnp.float32, rngs=rngs)
        self.element_gate = nnx.Linear(hidden, inputs, dtype=jnp.float32, rngs=rngs)

    def __call__(
        self,
        hidden_BLD: Float32[Array, "B L D"],
        slots_BL: Int[Array, "B L"],
        visit_ids_BL: Int[Array, "B L"],
        patients: int,
    ) -> Float32[Array, "B L D"]:
        """α_t · β_t for the visit t of every slot, (B, L, D); of an empty slot it means nothing."""
        places_BL = reversed_visits(slots_BL, visit_ids_BL)
        rows_B1 = jnp.arange(len(slots_BL))[:, None]
        vectors_BLD = jnp.zeros_like(hidden_BLD).at[rows_B1, places_BL].add(hidden_BLD, mode="drop")
        visit_slots_BL = jnp.zeros_like(slots_BL).at[rows_B1, places_BL].set(slots_BL, mode="drop")
        units = [self.visit_unit, self.element_unit]
        visit_BLG, element_BLG = all_states(units, vectors_BLD, visit_slots_BL, patients)
        alpha_BL = patient_softmax(self.visit_score(visit_BLG)[..., 0], visit_slots_BL, patients)
        weights_BLD = alpha_BL[:, :, None] * jnp.tanh(self.element_gate(element_BLG))
        return weights_BLD.at[rows_B1, places_BL].get(mode="fill", fill_value=0)


def reversed_visits(slots_BL: Int[Array, "B L"], visit_ids_BL: Int[Array, "B L"]) -> Int32[Array, "B L"]:
    """Where in a row of visits the visit of each slot is, the row's first visit at its end; L for an empty slot."""
    length = slots_BL.shape[1]
    before = jnp.pad(jnp.stack([slots_BL, visit_ids_BL]), ((0, 0), (0, 0), (1, 0)))[:, :, :-1]
    opens_BL = (slots_BL > 0) & ((slots_BL != before[0]) | (visit_ids_BL != before[1]))
    return jnp.where(slots_BL > 0, length - jnp.cumsum(opens_BL, axis=1, dtype=jnp.int32), length)


def patient_softmax(
    scores_BL: Float32[Array, "B L"], slots_BL: Int[Array, "B L"], patients: int
) -> Float32[Array, "B L"]:
    """The softmax of scores within each patient of each row; 0 at an empty slot."""
    member_BPL = slots_BL[:, None, :] == jnp.arange(1, patients + 1, dtype=slots_BL.dtype)[None, :, None]
    # A place that no patient takes has a softmax of nothing but −∞, which would be NaN; its gradient too.
    lowest = jnp.finfo(scores_BL.dtype).min
    shares_BPL = jax.nn.softmax(jnp.where(member_BPL, scores_BL[:, None, :], lowest), axis=-1)
    return jnp.sum(jnp.where(member_BPL, shares_BPL, 0), axis=1)
