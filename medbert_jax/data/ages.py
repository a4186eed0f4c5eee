"""How old a patient is when he is predicted."""

import numpy as np

from medbert_jax.data.sequences import PatientSequences


def age_at_index(patients: PatientSequences) -> np.ndarray:
    """Age in days (n,) at the index, or without one at the last visit; −1 unknown. Everybody has a visit.

    A cohort's index lies after its last visit: what its days differ by is added. Without dates the age at the last
    visit before the index stands for it.
    """
    last = patients.visit_offsets[1:] - 1
    age, day = patients.age_days[last], patients.visit_days[last]
    if "index_day" not in patients.outcomes:
        return np.asarray(age)
    index = patients.outcomes["index_day"]
    later = np.where((day >= 0) & (index >= 0), index - day, 0)
    return np.where(age < 0, -1, age + later)
