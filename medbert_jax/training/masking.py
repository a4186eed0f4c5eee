"""Which codes are masked, and by what they are replaced: inside jit, from randomness that belongs to the patient.

Every draw is a function of (seed, epoch, patient, index of the code within the patient). Packed, padded, streamed and
sharded runs therefore have the same targets.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from annotated_types import Interval
from jaxtyping import Array, Bool, Int, Int32, Key, UInt32

from medbert_jax.checked_fields import check_fields
from medbert_jax.data.vocabulary import FIRST_CODE, UNK
from medbert_jax.models.batch import Batch, patients_of_slots


@dataclass(frozen=True)
class MaskingConfig:
    """The masked-code task."""

    share: Annotated[float, Interval(ge=0, le=1)] = 0.0
    """Share of a patient's codes that are masked, at least one; 0 masks exactly one, as the paper does."""
    mask_token: Annotated[float, Interval(ge=0, le=1)] = 0.8
    """Share of the masked codes that become [MASK]; the rest is random or unchanged."""
    random_token: Annotated[float, Interval(ge=0, le=1)] = 0.1
    static: bool = False
    """Draw once, the same codes in every epoch."""  # Released code: masks are drawn when the features are made.

    def __post_init__(self):
        """Check every field; all faults are in one error."""
        check_fields(self, at="masking", also=self._disagreements())

    def _disagreements(self) -> Iterator[str]:
        if self.mask_token + self.random_token > 1 + 1e-9:  # 1e-9: decimals that sum to 1 may not do so in binary
            yield (
                "masking.mask_token and masking.random_token must be at most 1 together: got "
                f"{self.mask_token} and {self.random_token}; lower one of them"
            )


class Masked(NamedTuple):
    """The input after masking and what was there before."""

    code_ids: Int[Array, "B L"]
    """With replacements."""
    is_masked: Bool[Array, "B L"]


def masked_per_patient(config: MaskingConfig, lengths: Int[np.ndarray, "n"]) -> Int32[np.ndarray, "n"]:
    """How many codes of patients with `lengths` codes are masked, int32; computed on the host alone."""
    return np.maximum(1, np.floor(config.share * lengths + 0.5)).astype(np.int32) * (lengths > 0)


def mask_codes(
    batch: Batch,
    *,
    config: MaskingConfig,
    key: Key[Array, ""],
    epoch: Int[Array, ""],
    vocabulary_size: int,
    mask_id: int,
) -> Masked:
    """Mask the codes of a batch of rows.

    `key` is threefry. UNK and empty slots are never masked; random replacements are codes, never special ids. Source:
    paper, Methods "Pre-training Med-BERT"; BERT's 80/10/10.
    """
    slots_BL = batch["patient_slots"]
    real_BL = slots_BL > 0
    patients_BL = patients_of_slots(batch)
    epoch_key = jax.random.fold_in(key, 0 if config.static else epoch)

    def draw(patient: Int[Array, ""], position: Int[Array, ""]) -> UInt32[Array, "3"]:
        return jax.random.bits(jax.random.fold_in(jax.random.fold_in(epoch_key, patient), position), (3,), jnp.uint32)

    # Three words a slot: which codes are masked, what becomes of them, the random replacement.
    order_BL, fate_BL, replacement_BL = jnp.moveaxis(jax.vmap(jax.vmap(draw))(patients_BL, batch["positions"]), -1, 0)

    maskable_BL = real_BL & (batch["code_ids"] != UNK)
    same_BLL = slots_BL[:, :, None] == slots_BL[:, None, :]
    # Ties of the 32-bit draw, one in four billion pairs, go by position, so that the count of masked codes is exact.
    tie_BLL = order_BL[:, None, :] == order_BL[:, :, None]
    before_BLL = batch["positions"][:, None, :] < batch["positions"][:, :, None]
    earlier_BLL = (order_BL[:, None, :] < order_BL[:, :, None]) | (tie_BLL & before_BLL)
    rank_BL = jnp.sum(same_BLL & earlier_BLL & maskable_BL[:, None, :], axis=-1)
    length_BL = jnp.sum(same_BLL, axis=-1) * real_BL
    # A table made on the host: float32 on the device would round some shares the other way than the plan's bounds.
    wanted = jnp.asarray(masked_per_patient(config, np.arange(slots_BL.shape[1] + 1)))
    is_masked_BL = maskable_BL & (rank_BL < wanted[length_BL])

    to_mask, to_random = (
        jnp.uint32(min(round(share * 2**32), 2**32 - 1))
        for share in (config.mask_token, config.mask_token + config.random_token)
    )
    random_BL = FIRST_CODE + (replacement_BL % (vocabulary_size - FIRST_CODE)).astype(jnp.int32)
    replaced_BL = jnp.where(fate_BL < to_mask, mask_id, jnp.where(fate_BL < to_random, random_BL, batch["code_ids"]))
    return Masked(jnp.where(is_masked_BL, replaced_BL, batch["code_ids"]), is_masked_BL)
