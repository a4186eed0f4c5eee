"""Attention weights of single patients, and where attention goes: shares of it by what the read code is to the reader.

Dimensions: N layers, H heads, n codes of a patient, B rows, L slots, R relations.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int

from medbert_jax.data.buckets import bucket_batches, bucket_of
from medbert_jax.data.rows import padded_batch
from medbert_jax.data.sequences import PatientSequences
from medbert_jax.data.vocabulary import UNK
from medbert_jax.models.batch import Batch
from medbert_jax.models.config import ModelConfig
from medbert_jax.models.med_bert import apply
from medbert_jax.training.pretrained import Pretrained

RELATIONS = {
    "self": "the code itself",
    "visit": "other codes of the visit",
    "same_code": "the same code in other visits",
    "earlier": "other codes of earlier visits",
    "later": "other codes of later visits",
}
"""What a code that is read is to the one that reads it: every pair has one of them."""

_ROWS = 8  # patients at once: of 512 codes their weights are 300 MB


@dataclass(frozen=True, eq=False)
class AttentionShares:
    """Of the attention that a code gives, the share that goes to each relation: mean over codes, then over patients."""

    patients: int
    shares_NHR: np.ndarray
    """(layers, heads, relations) float64 in the order of `RELATIONS`; those of a head add up to 1."""
    uniform_R: np.ndarray
    """(relations,): what attention would give that reads every code of the patient alike."""

    def to_dict(self) -> dict:
        """As JSON data."""
        layers = [[_named(head) for head in layer] for layer in self.shares_NHR]
        return {"patients": self.patients, "layers": layers, "uniform": _named(self.uniform_R)}


def attention_weights(model: Pretrained, patient: PatientSequences) -> np.ndarray:
    """What every code of one patient reads: (N, H, n, n) float32, the reading code before the read one.

    No dropout; weights of a reading code add up to 1. The patient must not be longer than the model's max_length.
    """
    length = int(patient.lengths[0])
    batch = padded_batch(patient, np.array([0]), int(bucket_of(patient.lengths)[0]))
    weights_NBHLL = _attention(_backbone(model), _without_patients(batch), config=model.config)
    return np.asarray(weights_NBHLL)[:, 0, :, :length, :length]


def attention_shares(model: Pretrained, patients: PatientSequences) -> AttentionShares:
    """Shares of all these patients, each of whom counts alike, however long; batched by length.

    They must not be longer than the model's max_length, and at least one.
    """
    config = model.config
    shares_NHR = np.zeros((config.layers, config.heads, len(RELATIONS)))
    uniform_R = np.zeros(len(RELATIONS))
    for length, numbers in bucket_batches(patients.lengths, min(_ROWS, len(patients))):
        batch = _without_patients(padded_batch(patients, numbers, length))
        found_NBHR, of_all_BR = _shares(_backbone(model), batch, config=config)
        real = numbers >= 0
        shares_NHR += np.asarray(found_NBHR, np.float64)[:, real].sum(axis=1)
        uniform_R += np.asarray(of_all_BR, np.float64)[real].sum(axis=0)
    return AttentionShares(len(patients), shares_NHR / len(patients), uniform_R / len(patients))


def _named(values: np.ndarray) -> dict[str, float]:
    return dict(zip(RELATIONS, map(float, values), strict=True))


def _backbone(model: Pretrained) -> dict:
    return {name: model.params[name] for name in ("embeddings", "encoder")}


def _without_patients(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Who they are decides dropout alone."""
    return {name: column for name, column in batch.items() if name != "patients"}


@partial(jax.jit, static_argnames="config")
def _attention(params: dict, batch: Batch, *, config: ModelConfig) -> Float32[Array, "N B H L L"]:
    return apply(params, batch, config=config, capture=("attention",))[1]["attention"].astype(jnp.float32)


@partial(jax.jit, static_argnames="config")
def _shares(
    params: dict, batch: Batch, *, config: ModelConfig
) -> tuple[Float32[Array, "N B H R"], Float32[Array, "B R"]]:
    """Shares of each row's one patient, and those of uniform attention; rows without a patient mean nothing."""
    weights_NBHLL = apply(params, batch, config=config, capture=("attention",))[1]["attention"]
    real_BL = (batch["patient_slots"] > 0).astype(jnp.float32)
    codes_B = jnp.maximum(real_BL.sum(axis=1), 1.0)
    relation_BLL = _relations(batch["code_ids"], batch["visit_ids"])
    kinds_BLLR = jax.nn.one_hot(relation_BLL, len(RELATIONS)) * real_BL[:, None, :, None]
    reads_BL = real_BL / codes_B[:, None]
    # The products must not round to fewer bits, as those of accelerators do, or shares would not add up to 1.
    exact = partial(jnp.einsum, precision="highest")
    shares_NBHR = exact("nbhqs,bqsr,bq->nbhr", weights_NBHLL.astype(jnp.float32), kinds_BLLR, reads_BL)
    return shares_NBHR, exact("bqsr,bq->br", kinds_BLLR, reads_BL) / codes_B[:, None]


def _relations(codes_BL: Int[Array, "B L"], visits_BL: Int[Array, "B L"]) -> Int[Array, "B L L"]:
    """Place in `RELATIONS` of every pair, the reading code before the read one."""
    reading_BL1, read_B1L = visits_BL[:, :, None], visits_BL[:, None, :]
    # Two codes outside of the vocabulary are hardly the same.
    same_BLL = (codes_BL[:, :, None] == codes_BL[:, None, :]) & (codes_BL[:, :, None] != UNK)
    itself_1LL = jnp.eye(codes_BL.shape[1], dtype=bool)[None]
    elsewhere_BLL = jnp.where(same_BLL, 2, jnp.where(read_B1L < reading_BL1, 3, 4))
    return jnp.where(itself_1LL, 0, jnp.where(reading_BL1 == read_B1L, 1, elsewhere_BLL))
