"""The groups of literal patients."""

import numpy as np
from made_datasets import Drawn, drawn_sequences

from medbert_jax.data.vocabulary import Vocabulary
from medbert_jax.evaluation.strata import in_order, strata_of

VOCABULARY = Vocabulary(("ICD9CM/428.0", "ICD10CM/I50.9", "CPT4/1"), np.ones(3, np.int64), ("",) * 3)


def years(number):
    return round(number * 365.25)


def test_literal_patients():
    people = [
        Drawn([(0, years(44), 1, [16])], sex=1, race=2, index_day=10),  # 44 at the visit and the index
        Drawn([(0, years(44.9), 1, [16]), (400, years(46), 1, [17])], sex=2, race=1, index_day=500),
        Drawn([(0, years(64.5), 1, [17])], sex=0, index_day=300),  # 65 at the index
        Drawn([(0, years(80), -1, [18]), (years(5), years(85), 0, [18])], index_day=years(6)),
        Drawn([(-1, -1, 0, [2])], index_day=-1),  # UNK
    ]
    found = strata_of(drawn_sequences(people, "cohort"), VOCABULARY, ["Asian", "Black"])
    assert {name: levels.tolist() for name, levels in found.items()} == {
        "sex": ["female", "male", "unknown", "unknown", "unknown"],
        "age": ["under 45", "45 to 64", "65 to 79", "80 or more", "unknown"],
        "race": ["Black", "Asian", "unknown", "unknown", "unknown"],
        "codes": ["ICD-9 alone", "ICD-9 and ICD-10", "ICD-10 alone", "neither", "neither"],
        "history": ["under 1 year", "1 to 4 years", "under 1 year", "1 to 4 years", "unknown"],
        "inputs": ["nothing unknown", "nothing unknown", "nothing unknown", "something unknown", "something unknown"],
    }


def test_bands_stand_from_the_lowest_on():
    """By name 1 to 4 years would come before under 1 year."""
    levels = {"unknown", "5 years or more", "under 1 year", "1 to 4 years"}
    assert in_order(levels) == ["under 1 year", "1 to 4 years", "5 years or more", "unknown"]
    assert in_order({"80 or more", "under 45", "45 to 64"}) == ["under 45", "45 to 64", "80 or more"]
    assert in_order({"White", "unknown", "Asian"}) == ["Asian", "White", "unknown"]
