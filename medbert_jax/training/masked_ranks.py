"""What a pretrained model answers where codes are masked: the rank of each true code, and prolonged stays."""

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int

from medbert_jax.data.buckets import bucket_batches
from medbert_jax.data.rows import padded_batch
from medbert_jax.data.sequences import PatientSequences
from medbert_jax.models.batch import Batch
from medbert_jax.models.config import ModelConfig
from medbert_jax.models.med_bert import apply, masked_code_logits, prolonged_los_logits
from medbert_jax.training.masking import MaskingConfig, masked_per_patient
from medbert_jax.training.pretraining import encode_masked, masks_key

_AT_ONCE = 128
"""Masked codes whose logits over the vocabulary are in memory together."""


class Answers(NamedTuple):
    """Of n patients with N masked codes."""

    is_masked: np.ndarray
    """(codes,) bool."""
    ranks: np.ndarray
    """(N,) int64, from 0, in the order of the sequences; among equal logits the lower id is first."""
    prolonged_los_logits: np.ndarray
    """(n,) float64: log odds of a prolonged stay, of the record with nothing masked."""


def answer_masked_codes(
    params: dict,
    model: ModelConfig,
    sequences: PatientSequences,
    *,
    masking: MaskingConfig,
    seed: int,
    batch_size: int = 64,
) -> Answers:
    """Mask the codes that a validation with this seed masks, every one as [MASK], and ask the model for them.

    `sequences` are cut to the model; compiles once per length bucket.
    """
    masking = replace(masking, mask_token=1.0, random_token=0.0)
    is_masked, ranks = np.zeros(len(sequences.code_ids), bool), np.full(len(sequences.code_ids), -1, np.int64)
    scores = np.zeros(len(sequences))
    for length, patients in bucket_batches(sequences.lengths, batch_size):
        batch = padded_batch(sequences, patients, length)
        most = int(masked_per_patient(masking, np.array([length]))[0]) * batch_size
        most = -(-most // _AT_ONCE) * _AT_ONCE
        flags, slots, found, los = jax.device_get(
            _answered(params, batch, masks_key(seed), model=model, masking=masking, most=most)
        )
        real = patients >= 0
        scores[patients[real]] = los[real]
        row, position = np.nonzero(flags & real[:, None])
        is_masked[sequences.code_offsets[patients[row]] + position] = True
        row, position = np.divmod(slots[found >= 0], length)
        ranks[sequences.code_offsets[patients[row]] + position] = found[found >= 0]
    return Answers(is_masked, ranks[is_masked], scores)


@partial(jax.jit, static_argnames=("model", "masking", "most"))
def _answered(
    params: dict, batch: Batch, key: jax.Array, *, model: ModelConfig, masking: MaskingConfig, most: int
) -> tuple[Bool[Array, "B L"], Int[Array, "M"], Int[Array, "M"], Float32[Array, "B"]]:
    """Which slots are masked, (M,) their numbers in the batch and ranks (−1 behind the last), and log odds (B,)."""
    masked, _, hidden_BLD = encode_masked(
        params, batch, jnp.int32(0), model=model, masking=masking, mask_key=key, dropout_key=None
    )
    slots_M = jnp.nonzero(masked.is_masked.ravel(), size=most, fill_value=-1)[0]
    states_MD, targets_M = hidden_BLD.reshape(-1, hidden_BLD.shape[-1])[slots_M], batch["code_ids"].ravel()[slots_M]

    def ranks(chunk: tuple[jax.Array, jax.Array]) -> jax.Array:
        states_XD, targets_X = chunk
        logits_XV = masked_code_logits(params, states_XD, config=model)
        true_X1 = jnp.take_along_axis(logits_XV, targets_X[:, None], axis=1)
        earlier_XV = jnp.arange(logits_XV.shape[1])[None, :] < targets_X[:, None]
        return jnp.sum((logits_XV > true_X1) | ((logits_XV == true_X1) & earlier_XV), axis=1)

    chunks = states_MD.reshape(-1, _AT_ONCE, states_MD.shape[-1]), targets_M.reshape(-1, _AT_ONCE)
    ranks_M = jnp.where(slots_M >= 0, jax.lax.map(ranks, chunks).ravel(), -1)
    whole_BLD, _ = apply(params, batch, config=model)
    logits_BPC = prolonged_los_logits(params, whole_BLD, batch, config=model, patients=1)
    return masked.is_masked, slots_M, ranks_M, logits_BPC[:, 0, 1] - logits_BPC[:, 0, 0]
