"""Patients of a cohort whose label is known."""

import numpy as np

from medbert_jax.data.sequences import PatientSequences


def labelled(patients: PatientSequences) -> PatientSequences:
    """Those whose label is 0 or 1; censored patients have −1, and are neither trained on nor tested."""
    known = np.asarray(patients.outcomes["label"]) >= 0
    return patients if known.all() else patients.take(np.flatnonzero(known))
