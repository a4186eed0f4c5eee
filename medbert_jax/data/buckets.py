"""Length buckets: batches of one patient per row, all of similar length, for heads that read whole sequences."""

from collections.abc import Iterator

import numpy as np


def bucket_of(lengths: np.ndarray) -> np.ndarray:
    """Slots of the row that holds a patient: 4, 8, 12, 16, and powers of two above.

    Fine where most patients are, coarse where few are: every bucket is a program that has to be compiled.
    """
    lengths = np.maximum(lengths, 1)
    power = 2 ** np.ceil(np.log2(lengths)).astype(np.int64)
    return np.where(lengths <= 16, -(-lengths // 4) * 4, power)


def bucket_batches(lengths: np.ndarray, batch_size: int) -> Iterator[tuple[int, np.ndarray]]:
    """Every patient once: (slots per row, patients (batch_size,) int64, −1 in rows that stay empty).

    What does not fill a batch moves up into the next bucket, so at most one batch has empty rows. Batches come in the
    order of their lengths.
    """
    tops = bucket_of(lengths)
    waiting = np.zeros(0, np.int64)
    for top in np.unique(tops):
        waiting = np.concatenate([waiting, np.flatnonzero(tops == top)])
        full = len(waiting) // batch_size * batch_size
        for chunk in waiting[:full].reshape(-1, batch_size):
            yield int(top), chunk
        waiting = waiting[full:]
    if len(waiting):
        filled = np.full(batch_size, -1)
        filled[: len(waiting)] = waiting
        yield int(tops.max()), filled
