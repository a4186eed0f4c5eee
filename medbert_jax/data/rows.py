"""Rows of slots that hold patients one after the other, made on the host, and the cut of sequences to a model."""

import numpy as np

from medbert_jax.data.sequence_faults import sequence_faults
from medbert_jax.data.sequences import Keep, PatientSequences


def gather_rows(sequences: PatientSequences, patients: np.ndarray, row_length: int) -> dict[str, np.ndarray]:
    """Rows of `row_length` slots that hold the given patients one after the other.

    `patients` is (B, P), −1 where there is none. Returns int32 arrays: code_ids, visit_ids, serialization_ids,
    patient_slots and positions (B, L) and patients (B, P). patient_slots is 1…P, and 0 in an empty slot.
    """
    rows, width = patients.shape
    real = patients >= 0
    first = sequences.code_offsets[np.where(real, patients, 0)]
    lengths = np.where(real, sequences.code_offsets[np.where(real, patients, 0) + 1] - first, 0)
    ends = np.cumsum(lengths, axis=1)
    if ends[:, -1].max(initial=0) > row_length:
        raise ValueError(
            f"the patients of a row must fit into it: got {ends[:, -1].max()} codes and {row_length} slots; plan the "
            "rows with the lengths of these sequences"
        )
    repeats = lengths.ravel()
    within = np.arange(repeats.sum()) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    starts = (ends - lengths + np.arange(rows)[:, None] * row_length).ravel()
    slot = np.repeat(starts, repeats) + within
    source = np.repeat(first.ravel(), repeats) + within

    def filled(values) -> np.ndarray:
        out = np.zeros(rows * row_length, np.int32)
        out[slot] = values
        return out.reshape(rows, row_length)

    return {
        "code_ids": filled(sequences.code_ids[source]),
        "visit_ids": filled(sequences.visit_ids[source]),
        "serialization_ids": filled(sequences.serialization_ids[source]),
        "patient_slots": filled(np.repeat(np.tile(np.arange(1, width + 1), rows), repeats)),
        "positions": filled(within),
        "patients": patients.astype(np.int32),
    }


def padded_batch(sequences: PatientSequences, indices: np.ndarray, length: int) -> dict[str, np.ndarray]:
    """One patient per row: `gather_rows` with P = 1. `indices` (B,), −1 for an empty row."""
    return gather_rows(sequences, np.asarray(indices)[:, None], length)


def fit_to_model(
    sequences: PatientSequences, *, vocabulary_size: int, max_visits: int, max_length: int, keep: Keep = "recent"
) -> tuple[PatientSequences, str]:
    """The sequences cut to `max_length` codes, and a sentence that counts what was cut or dropped.

    Raises ValueError, every fault listed, for what `sequence_faults` finds and when an id has no row in the model's
    tables: on the accelerator an id out of range is silently clamped or becomes NaN, so it is looked for here, once.
    """
    found = sequence_faults(sequences, vocabulary_size=vocabulary_size)
    # Only what is in order can be cut, or compared with the model's limits.
    if found.keys() - {"code_ids", "reserved", "codes"}:
        raise ValueError("\n".join(found.values()))
    fitted = sequences.truncate(max_length, keep=keep)
    limits = {
        "visit_ids": (fitted.visit_ids, max_visits, "raise model.max_visits"),
        "serialization_ids": (fitted.serialization_ids, max_length, "raise model.max_length"),
    }
    faults = [*found.values()] + [
        f"{name} must be from 0 to {limit - 1}: got {ids.min()} to {ids.max()}; {cure}"
        for name, (ids, limit, cure) in limits.items()
        if len(ids) and (ids.min() < 0 or ids.max() >= limit)
    ]
    if faults:
        raise ValueError("\n".join(faults))
    longer = int((sequences.lengths > max_length).sum())
    lost = int(sequences.lengths.sum() - fitted.lengths.sum())
    done = "left out" if keep == "drop" else "cut to their most recent visits"
    return (
        fitted,
        f"{longer:,} of {len(sequences):,} patients have over {max_length} codes and were {done} ({lost:,} codes)",
    )
