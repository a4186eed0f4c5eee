"""Made patients for benchmarks: only their lengths are like real ones, the codes are drawn at random."""

import numpy as np

from medbert_jax.data.sequences import PatientSequences
from medbert_jax.data.vocabulary import FIRST_CODE

AT_ONCE = 1 << 24
"""Codes whose draws, 64 bits each, exist at once: 28.5 million patients have 425 million."""


def length_model(patients: int, vocabulary_size: int, *, seed: int = 0, mean: float = 15.0) -> PatientSequences:
    """Lognormal lengths, sigma 1, clipped to 3 … 512 codes; two codes a visit; 15 % with prolonged stays.

    Under 2³¹ codes in all; seconds for millions of patients.
    """
    rng = np.random.default_rng(seed)
    lengths = np.clip(np.round(rng.lognormal(np.log(mean) - 0.5, 1.0, patients)), 3, 512).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    position = np.arange(offsets[-1], dtype=np.int32)
    position -= np.repeat(offsets[:-1].astype(np.int32), lengths)
    visits = (lengths + 1) // 2
    visit_columns = dict.fromkeys(("visit_days", "age_days", "length_of_stay"), np.full(visits.sum(), -1, np.int32))
    code_ids = np.empty(offsets[-1], np.int32)
    for part in np.split(code_ids, range(AT_ONCE, len(code_ids), AT_ONCE)):
        part[:] = rng.integers(FIRST_CODE, vocabulary_size, len(part))
    return PatientSequences(
        patient_id=np.arange(patients).astype("S"),
        code_offsets=offsets,
        code_ids=code_ids,
        visit_ids=(position >> 1) + 1,
        serialization_ids=position & 1,
        visit_offsets=np.concatenate([[0], np.cumsum(visits)]),
        **visit_columns,
        sex=np.zeros(patients, np.int32),
        race=np.zeros(patients, np.int32),
        outcomes={"prolonged_los": (rng.random(patients) < 0.15).astype(np.int32)},
    )
