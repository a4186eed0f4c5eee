"""Made patients for benchmarks: only their lengths are like real ones, the codes are drawn at random."""

import numpy as np

from medbert_jax.data.sequences import PatientSequences
from medbert_jax.data.vocabulary import FIRST_CODE


def length_model(patients: int, vocabulary_size: int, *, mean: float = 15.0, seed: int = 0) -> PatientSequences:
    """Lognormal lengths, sigma 1, clipped to 3 … 512 codes; two codes a visit; 15 % with prolonged stays."""
    rng = np.random.default_rng(seed)
    lengths = np.clip(np.round(rng.lognormal(np.log(mean) - 0.5, 1.0, patients)), 3, 512).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    position = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    visits = (lengths + 1) // 2
    visit_columns = dict.fromkeys(("visit_days", "age_days", "length_of_stay"), np.full(visits.sum(), -1, np.int32))
    return PatientSequences(
        patient_id=np.char.mod(b"%d", np.arange(patients)),
        code_offsets=offsets,
        code_ids=rng.integers(FIRST_CODE, vocabulary_size, offsets[-1]).astype(np.int32),
        visit_ids=(position // 2 + 1).astype(np.int32),
        serialization_ids=(position % 2).astype(np.int32),
        visit_offsets=np.concatenate([[0], np.cumsum(visits)]),
        **visit_columns,
        sex=np.zeros(patients, np.int32),
        race=np.zeros(patients, np.int32),
        outcomes={"prolonged_los": (rng.random(patients) < 0.15).astype(np.int32)},
    )
