"""Length buckets: everybody once, in rows long enough, at most one batch with empty rows."""

import numpy as np

from medbert_jax.data.buckets import bucket_batches

LENGTHS = np.random.default_rng(0).integers(1, 120, 333)


def test_everybody_once_in_rows_that_are_long_enough():
    batches = list(bucket_batches(LENGTHS, 32))
    placed = np.concatenate([patients for _, patients in batches])
    assert sorted(placed[placed >= 0]) == list(range(333))
    for length, patients in batches:
        assert LENGTHS[patients[patients >= 0]].max() <= length
    assert sum((patients < 0).any() for _, patients in batches) == 1


def test_short_patients_stay_in_short_rows():
    batches = list(bucket_batches(np.array([3] * 64 + [100] * 32), 32))
    assert [length for length, _ in batches] == [4, 4, 128]
