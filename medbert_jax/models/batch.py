"""What a model reads: rows of slots that hold patients one after the other.

Dimensions: B rows, L slots per row, P patients per row.
"""

from typing import NotRequired, TypedDict

import jax.numpy as jnp
from jaxtyping import Array, Int


class Batch(TypedDict):
    """The arrays of some rows. A function reads those that it names; what else a batch holds is not the model's."""

    code_ids: Int[Array, "B L"]
    visit_ids: Int[Array, "B L"]
    serialization_ids: Int[Array, "B L"]
    """Rank of the code within its visit, from 0."""
    positions: Int[Array, "B L"]
    """Place of the code in its patient's sequence, from 0."""
    patient_slots: Int[Array, "B L"]
    """0 = empty slot, 1 … P = which patient of the row."""
    patients: NotRequired[Int[Array, "B P"]]
    """Who they are: a number that masks and dropout are drawn from; −1 for a place that no patient takes."""


def patients_of_slots(batch: Batch) -> Int[Array, "B L"]:
    """Whose every slot is, by his number in "patients"; an empty slot says the row's first."""
    return jnp.take_along_axis(batch["patients"], jnp.maximum(batch["patient_slots"] - 1, 0), axis=1)
