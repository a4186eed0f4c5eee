"""Patient sequences made for tests: patients of a few kinds, whose codes keep company with their own kind."""

import numpy as np

from medbert_jax.data.sequences import PatientSequences
from medbert_jax.data.vocabulary import FIRST_CODE
from medbert_jax.models.config import ModelConfig

VOCABULARY_SIZE = 64
KINDS = 6
CODES_PER_KIND = 8  # 48 codes, ids 16 … 63
TINY_MODEL = ModelConfig(
    vocabulary_size=VOCABULARY_SIZE,
    hidden_size=32,
    layers=1,
    heads=2,
    feed_forward_size=32,
    max_visits=64,
    max_length=32,
)


def made_sequences(patients: int, seed: int, *, longest: int = 24) -> PatientSequences:
    """3 … `longest` codes, two per visit; a patient's codes come from his kind; kind 0 has the prolonged stays."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, longest + 1, patients)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    owner = np.repeat(np.arange(patients), lengths)
    position = np.arange(offsets[-1]) - offsets[owner]
    kind = rng.integers(0, KINDS, patients)
    visits = (lengths + 1) // 2
    unknown = np.full(visits.sum(), -1, np.int32)
    return PatientSequences(
        patient_id=np.char.mod("%d", np.arange(patients)).astype("S"),
        code_offsets=offsets,
        code_ids=(FIRST_CODE + kind[owner] * CODES_PER_KIND + rng.integers(0, CODES_PER_KIND, offsets[-1])).astype(
            np.int32
        ),
        visit_ids=(position // 2 + 1).astype(np.int32),
        serialization_ids=(position % 2).astype(np.int32),
        visit_offsets=np.concatenate([[0], np.cumsum(visits)]),
        visit_days=unknown,
        age_days=unknown,
        length_of_stay=unknown,
        sex=np.zeros(patients, np.int32),
        race=np.zeros(patients, np.int32),
        outcomes={"prolonged_los": (kind == 0).astype(np.int32)},
    )
