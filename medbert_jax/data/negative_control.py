"""A negative control: the same codes at the same places, without the patients."""

from dataclasses import replace

import numpy as np

from medbert_jax.data.sequences import PatientSequences


def exchange_codes(sequences: PatientSequences, seed: int) -> PatientSequences:
    """Return sequences whose codes were exchanged between patients within the same visit number and rank.

    The frequency of every code at every (visit, rank) stays, the company that it keeps is gone: what a model still
    predicts here it does not read from the patient.
    """
    place = np.asarray(sequences.visit_ids, np.int64) << 32 | np.asarray(sequences.serialization_ids)
    shuffled = np.lexsort((np.random.default_rng(seed).random(len(place)), place))
    code_ids = np.empty_like(sequences.code_ids)
    code_ids[np.argsort(place, kind="stable")] = sequences.code_ids[shuffled]
    return replace(sequences, code_ids=code_ids)
