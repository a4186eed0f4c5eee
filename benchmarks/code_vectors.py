"""Training of t-W2V vectors: pairs of codes a second, by how many pairs a code has and how many codes there are.

    python benchmarks/code_vectors.py

Made patients of the length model (mean 15 codes, two a visit, codes drawn at random), a visit every so many days on
average; vectors of 192, five negatives. Three passes, of which the first compiles and is left out; minutes.
"""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import tyro
from length_model import length_model
from provenance import machine

from medbert_jax.data.sequences import PatientSequences
from medbert_jax.disk.whole_files import write_json
from medbert_jax.training.code_vectors import train_code_vectors
from medbert_jax.training.code_vectors_options import CodeVectorsConfig
from medbert_jax.training.progress import say

CASES = ((10_000, 60.0), (10_000, 15.0), (10_000, 5.0), (82_603, 15.0))
"""Codes of the vocabulary, mean days between two visits."""


def with_days(patients: PatientSequences, mean_days: float) -> PatientSequences:
    """The patients with a day for every visit, exponential times between them."""
    visits = np.diff(patients.visit_offsets)
    gaps = np.random.default_rng(1).exponential(mean_days, int(patients.visit_offsets[-1])).round().astype(np.int64)
    gaps[patients.visit_offsets[:-1]] = 0
    days = np.cumsum(gaps)
    return replace(patients, visit_days=(days - np.repeat(days[patients.visit_offsets[:-1]], visits)).astype(np.int32))


def main(patients: int = 20_000, out: Path = Path(__file__).parent / "results" / "code_vectors.json") -> None:
    """Measure and write the JSON.

    Args:
        patients: of each case.
        out: file of the results.
    """
    found = []
    for codes, days in CASES:
        made = with_days(length_model(patients, codes), days)
        load = os.getloadavg()[0]
        trained = train_code_vectors(made, codes, CodeVectorsConfig(epochs=3), say)
        found.append(
            {
                "vocabulary": codes,
                "mean_days_between_visits": days,
                "pairs_of_a_pass": trained.pairs,
                "left_out": trained.left_out,
                "pairs_of_a_code": trained.pairs / len(made.code_ids),
                "pairs_per_second": trained.pairs_per_second,
                "load_before": load,
            }
        )
    write_json(out, {"machine": machine(), "patients": patients, "cases": found})


if __name__ == "__main__":
    tyro.cli(main)
