"""Simulated patients of known risk, as an evaluation takes them."""

import numpy as np
from scipy.special import expit

from medbert_jax.evaluation.compared_models import ComparedModel
from medbert_jax.evaluation.design import Design
from medbert_jax.evaluation.evaluated_patients import EvaluatedPatients

EVERYBODY = Design("everybody", "risk", 365)


def made_risks(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n,) and the true risks that they were drawn from, a fifth cases."""
    random = np.random.default_rng(seed)
    risk = expit(random.normal(-1.7, 1.2, n))
    return (random.random(n) < risk).astype(np.int8), risk


def made_patients(label, design=EVERYBODY, **columns) -> EvaluatedPatients:
    n = len(label)
    columns = {"subject": np.char.mod("p%05d", np.arange(n)), "time": np.arange(n), "weight": np.ones(n)} | columns
    return EvaluatedPatients("made", "0" * 64, design, label=np.asarray(label, np.int8), **columns)


def model(name, *replicates) -> ComparedModel:
    return ComparedModel(name, tuple(np.asarray(one, np.float64) for one in replicates))
