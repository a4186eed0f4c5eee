"""What a masked code can be guessed from without a model: the accuracies that a pretraining has to beat.

Every code that is not UNK is asked for; a patient weighs as many codes as the masking takes from him.
"""

import numpy as np

from medbert_jax.data.sequences import PatientSequences
from medbert_jax.data.vocabulary import UNK


def masked_code_baselines(
    train: PatientSequences, held_out: PatientSequences, masked_per_patient: np.ndarray
) -> dict[str, float]:
    """Expected accuracy on `held_out` (n patients) of three guesses, with `masked_per_patient` (n,) codes masked each.

    most_frequent: the commonest code of `train`. most_frequent_at_place: the commonest code of `train` at the same
    visit number and rank (of several, that of the highest id). copy: the code that the patient's other codes hold most
    often (ties share the credit), else the commonest.
    """
    real = held_out.code_ids != UNK
    patient = np.repeat(np.arange(len(held_out)), held_out.lengths)
    askable = np.bincount(patient, weights=real, minlength=len(held_out))
    weights = real * (np.minimum(masked_per_patient, askable) / np.maximum(askable, 1))[patient]
    commonest = _commonest(train.code_ids[train.code_ids != UNK])
    guesses = {
        "most_frequent": held_out.code_ids == commonest,
        "most_frequent_at_place": _at_place(train, held_out, commonest),
        "copy": np.zeros(len(real)),
    }
    # UNK is no code to copy: it is neither asked for nor guessed.
    guesses["copy"][real] = _copy(patient[real], held_out.code_ids[real], commonest)
    return {name: float((correct * weights).sum() / weights.sum()) for name, correct in guesses.items()}


def _commonest(code_ids: np.ndarray) -> int:
    return int(np.bincount(code_ids).argmax())


def _place(sequences: PatientSequences) -> np.ndarray:
    return np.asarray(sequences.visit_ids, np.int64) << 32 | np.asarray(sequences.serialization_ids)


def _at_place(train: PatientSequences, held_out: PatientSequences, commonest: int) -> np.ndarray:
    pairs, counts = np.unique(
        np.stack([_place(train), train.code_ids])[:, train.code_ids != UNK], axis=1, return_counts=True
    )
    order = np.lexsort((counts, pairs[0]))  # the last pair of every place is its commonest code
    places, codes = pairs[0, order], pairs[1, order]
    last = np.flatnonzero(np.diff(places, append=-1))
    asked = _place(held_out)
    at = np.minimum(np.searchsorted(places[last], asked), len(last) - 1)
    guess = np.where(places[last][at] == asked, codes[last][at], commonest)
    return held_out.code_ids == guess


def _copy(patient: np.ndarray, code_ids: np.ndarray, commonest: int) -> np.ndarray:
    pairs, inverse, counts = np.unique(np.stack([patient, code_ids]), axis=1, return_inverse=True, return_counts=True)
    # Per patient the highest count, the next lower one, and how many codes share each.
    order = np.lexsort((-counts, pairs[0]))
    owner, sorted_counts = pairs[0, order], counts[order]
    first = np.flatnonzero(np.diff(owner, prepend=-1))
    top = np.maximum.reduceat(sorted_counts, first)
    ties_top = np.add.reduceat(sorted_counts == np.repeat(top, np.diff(first, append=len(owner))), first)
    below = np.where(sorted_counts < np.repeat(top, np.diff(first, append=len(owner))), sorted_counts, 0)
    second = np.maximum.reduceat(below, first)
    ties_second = np.add.reduceat(below == np.repeat(second, np.diff(first, append=len(owner))), first)
    index = np.searchsorted(owner[first], patient)
    left = counts[inverse.ravel()] - 1  # how often the asked code still stands among the patient's other codes
    others = np.where((left + 1 == top[index]) & (ties_top[index] == 1), second[index], top[index])
    credit = np.where(left > others, 1.0, np.where(left == others, 1.0 / (1 + ties_second[index]), 0.0))
    alone = (left == 0) & (others == 0)
    return np.where(alone, code_ids == commonest, np.where(left > 0, credit, 0.0))
