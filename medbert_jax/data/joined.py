"""Patient sequences of several shards as one object."""

from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from medbert_jax.data.sequences import PatientSequences


def joined(parts: Sequence[PatientSequences]) -> PatientSequences:
    """All patients, one part after the other. The numbers of race are as they are: those of one list of names."""
    columns = {}
    for name in (field.name for field in fields(PatientSequences) if field.name != "outcomes"):
        columns[name] = _of_all([getattr(part, name) for part in parts], offsets=name.endswith("_offsets"))
    outcomes = {name: np.concatenate([part.outcomes[name] for part in parts]) for name in parts[0].outcomes}
    return PatientSequences(**columns, outcomes=outcomes)


def _of_all(columns: Sequence[np.ndarray], *, offsets: bool) -> np.ndarray:
    if not offsets:
        return np.concatenate(columns)
    before = np.cumsum([0, *(column[-1] for column in columns[:-1])])
    later = [column[1:] + start for column, start in zip(columns, before.tolist(), strict=True)]
    return np.concatenate([columns[0][:1], *later])
