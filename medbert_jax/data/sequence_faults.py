"""What of patient sequences is not as a model must have it, in words."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from medbert_jax.data.sequences import CODE_COLUMNS, PatientSequences
from medbert_jax.data.vocabulary import FIRST_CODE, UNK

_CHECKED_AT_ONCE = 1 << 18  # codes: fastest, and what is made on the way stays in the cache


def sequence_faults(sequences: PatientSequences, *, vocabulary_size: int) -> dict[str, str]:
    """Return what is not as a model must have it: rule → rule, what came (with the first patient) and what to do.

    A model makes positions of visit_ids and serialization_ids, so wrong ones give other states and no error.
    """
    offsets = np.asarray(sequences.code_offsets)
    for name, values in {"code_offsets": offsets, "visit_offsets": np.asarray(sequences.visit_offsets)}.items():
        patient = 0 if values[0] else next(iter(np.flatnonzero(np.diff(values) < 0)), None)
        if patient is not None:
            got = ", ".join(map(str, values[patient : patient + 2]))
            return {"offsets": f"{name} must start at 0 and never fall: got {got} at patient {patient}; use offsets_of"}
    if strange := [name for name in CODE_COLUMNS if getattr(sequences, name).dtype.kind not in "iu"]:
        return {"integers": f"{' and '.join(strange)} must be whole numbers: got other types; cast them to int32"}
    first: dict[str, int] = {}
    for rule, patient in _broken_rules(sequences, vocabulary_size):
        first[rule] = min(patient, first.get(rule, patient))

    def got(name: str, patient: int) -> str:
        values = getattr(sequences, name)[offsets[patient] : offsets[patient + 1]]
        shown = ", ".join(map(str, values[:12])) + (" …" if len(values) > 12 else "")
        return f"got {shown} for patient {patient}, the first of such"

    ids, lengths = sequences.code_ids, sequences.lengths
    lines = {
        "visit_ids": lambda patient: (
            "visit_ids must be 1, 2, 3 … in order and without gaps within a patient: "
            f"{got('visit_ids', patient)}; number each patient's visits from 1"
        ),
        "serialization_ids": lambda patient: (
            "serialization_ids must be 0, 1, 2 … without gaps within a visit: "
            f"{got('serialization_ids', patient)}; count the codes of each visit from 0"
        ),
        "visits": lambda patient: (
            "the visit columns must have a row for each visit that has codes: "
            f"got {np.diff(sequences.visit_offsets)[patient]} rows and {sequences.visit_ids[offsets[patient + 1] - 1]} "
            f"visits for patient {patient}, the first of such; leave out visits without codes"
        ),
        "code_ids": lambda patient: (
            f"code_ids must be from 0 to {vocabulary_size - 1}: got {ids.min()} to {ids.max()}; take the vocabulary of "
            f"the model and the data alike, for patient {patient} and all after him"
        ),
        "reserved": lambda patient: (
            f"code_ids must be codes, from {FIRST_CODE} on, or {UNK} for one that is unknown: "
            f"{got('code_ids', patient)}; encode codes with the model's vocabulary, and leave hiding and padding to "
            "the model"
        ),
        "codes": lambda patient: (
            f"patients must have codes: got {np.count_nonzero(lengths == 0)} without; leave them out, the first is "
            f"patient {patient}"
        ),
    }
    return {rule: line(first[rule]) for rule, line in lines.items() if rule in first}


def _broken_rules(sequences: PatientSequences, vocabulary_size: int) -> Iterator[tuple[str, int]]:
    """Yield rules that are broken with the first patient of a stretch of them who breaks it, stretch by stretch."""
    offsets, visits = np.asarray(sequences.code_offsets), np.diff(sequences.visit_offsets)
    if len(empty := np.flatnonzero(np.diff(offsets) == 0)):
        yield "codes", int(empty[0])
    stretches = np.searchsorted(offsets, np.arange(0, offsets[-1], _CHECKED_AT_ONCE))
    for begin, end in pairwise(np.unique([*stretches, len(sequences)])):
        codes = slice(offsets[begin], offsets[end])
        ids, visit, rank = (np.asarray(getattr(sequences, name)[codes]) for name in CODE_COLUMNS)
        filled = begin + np.flatnonzero(np.diff(offsets[begin : end + 1]))
        starts = offsets[filled] - offsets[begin]
        opens = np.zeros(len(ids), bool)
        opens[starts] = True
        goes_on = np.zeros(len(ids), bool)
        goes_on[1:] = (visit[1:] == visit[:-1]) & ~opens[1:]
        wrong_visit = visit != 1
        follows = goes_on[1:] | (visit[1:] - visit[:-1] == 1)
        wrong_visit[1:] = np.where(opens[1:], wrong_visit[1:], ~follows)
        wrong_rank = rank != 0
        wrong_rank[1:] = np.where(goes_on[1:], rank[1:] - rank[:-1] != 1, wrong_rank[1:])
        outside = (ids < 0) | (ids >= vocabulary_size)
        wrong = {
            "visit_ids": wrong_visit,
            "serialization_ids": wrong_rank,
            "code_ids": outside,
            "reserved": (ids < FIRST_CODE) & (ids != UNK) & ~outside,
        }
        for rule, where in wrong.items():
            if where.any():
                yield rule, int(filled[np.searchsorted(starts, where.argmax(), side="right") - 1])
        last = visit[offsets[filled + 1] - 1 - offsets[begin]]
        if (other := last != visits[filled]).any() and not wrong_visit.any():
            yield "visits", int(filled[other.argmax()])
