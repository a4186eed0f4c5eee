"""The groups of patients that a model is judged in, from what was known of them at the prediction."""

import re
from collections.abc import Iterable

import numpy as np

from medbert_jax.data.ages import age_at_index
from medbert_jax.data.sequences import PatientSequences, sums_within
from medbert_jax.data.vocabulary import FIRST_CODE, UNK, Vocabulary
from medbert_jax.ehr.icd import ICD10_SYSTEMS

_DAYS_PER_YEAR = 365.25
UNKNOWN = "unknown"
AGES = ((45, "under 45"), (65, "45 to 64"), (80, "65 to 79"), (np.inf, "80 or more"))
HISTORIES = ((1, "under 1 year"), (5, "1 to 4 years"), (np.inf, "5 years or more"))
"""Upper bound in years, exclusive, and name."""


def strata_of(patients: PatientSequences, vocabulary: Vocabulary, races: list[str]) -> dict[str, np.ndarray]:
    """Group → level of every patient (n,) as text: sex, age, race, codes (ICD version), history, inputs."""
    first, last = patients.visit_offsets[:-1], patients.visit_offsets[1:] - 1
    days = np.asarray(patients.visit_days)
    history = np.where((days[first] >= 0) & (days[last] >= 0), days[last] - days[first], -1)
    return {
        "sex": np.array([UNKNOWN, "female", "male"])[patients.sex],
        "age": _banded(age_at_index(patients), AGES),
        "race": np.array([UNKNOWN, *races])[patients.race],
        "codes": _icd_versions(patients, vocabulary),
        "history": _banded(history, HISTORIES),
        "inputs": _missing(patients),
    }


def in_order(levels: Iterable[str]) -> list[str]:
    """Levels of a group as they are read: bands from the lowest on, others by name, what is unknown last."""
    place = {name: number for number, (_, name) in enumerate((*AGES, *HISTORIES))}
    return sorted(levels, key=lambda level: (level == UNKNOWN, place.get(level, len(place)), level))


def _banded(days: np.ndarray, bands) -> np.ndarray:
    names = np.array([*(name for _, name in bands), UNKNOWN])
    place = np.searchsorted([bound for bound, _ in bands], days / _DAYS_PER_YEAR, side="right")
    return names[np.where(days < 0, len(bands), place)]


def _icd_versions(patients: PatientSequences, vocabulary: Vocabulary) -> np.ndarray:
    newer = np.zeros(vocabulary.size, bool)
    newer[FIRST_CODE:] = [bool(re.match(f"{ICD10_SYSTEMS}/", code)) for code in vocabulary.codes]
    older = np.zeros(vocabulary.size, bool)
    older[FIRST_CODE:] = [code.startswith("ICD9CM/") for code in vocabulary.codes]
    has_newer, has_older = (sums_within(of[patients.code_ids], patients.code_offsets) > 0 for of in (newer, older))
    names = np.array(["neither", "ICD-9 alone", "ICD-10 alone", "ICD-9 and ICD-10"])
    return names[has_older.astype(int) + 2 * has_newer]


def _missing(patients: PatientSequences) -> np.ndarray:
    """Whether a visit's day, age or length of stay is unknown, or a code outside of the vocabulary."""
    columns = (patients.visit_days, patients.age_days, patients.length_of_stay)
    unknown = sum(sums_within(np.asarray(column) < 0, patients.visit_offsets) for column in columns)
    unknown = unknown + sums_within(np.asarray(patients.code_ids) == UNK, patients.code_offsets)
    return np.where(unknown > 0, "something unknown", "nothing unknown")
