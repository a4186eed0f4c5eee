"""A small run directory and patients of its codes, for the tests of what is inside a model."""

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
from made_datasets import Drawn, drawn_sequences, write_drawn

from medbert_jax.data.vocabulary import FIRST_CODE, UNK, Vocabulary
from medbert_jax.models.config import ModelConfig
from medbert_jax.models.med_bert import init
from medbert_jax.training.checkpointing import save_step
from medbert_jax.training.run_directory import RunDirectory

CODES = ("ICD10CM/E11.9", "ICD10CM/E11.65", "ICD10CM/I50.9", "ICD10CM/I10", "ICD9CM/250.00", "ICD9CM/428.0")
TITLES = ("diabetes", "hyperglycaemia", "heart failure", "hypertension", "", "heart failure, older")
MODEL = ModelConfig(
    vocabulary_size=FIRST_CODE + len(CODES),
    hidden_size=12,
    layers=2,
    heads=3,
    feed_forward_size=8,
    max_visits=20,
    max_length=12,
)
A, B, C, D, E, F = range(FIRST_CODE, FIRST_CODE + len(CODES))
PATIENTS = [
    Drawn([(0, 9000, 3, [A, C, UNK]), (40, 9040, -1, [A, D]), (41, 9041, 0, [A, C, UNK, E])], id="MRN-one"),
    Drawn([(0, 9000, 1, [B])], id="MRN-two"),
    Drawn([(0, 9000, 1, [B, C]), (-1, -1, -1, [C, B, F])], id="12345"),
    Drawn(
        [(0, 9000, 1, [A, B, C, D, E]), (9, 9009, 1, [A, B, C, D]), (30, 9030, 1, [E, F, A, B, C, D])], id="MRN-long"
    ),
]
"""Of 9, 1, 5 and 15 codes; the model takes 12."""


def made_sequences():
    return drawn_sequences(PATIENTS)


def made_params(seed: int = 0, config: ModelConfig = MODEL) -> dict:
    """Wider than initial values, under which every code would read all alike."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(partial(init, config), jax.random.key(0))
    return jax.tree.map(lambda x: np.asarray(rng.normal(size=x.shape), x.dtype), shapes)


def made_run(path: Path, *, seed: int = 0, kind: str = "pretrain", codes=CODES, **model) -> Path:
    config = replace(MODEL, vocabulary_size=FIRST_CODE + len(codes), **model)
    vocabulary = Vocabulary(tuple(codes), np.ones(len(codes), int), TITLES[: len(codes)])
    with RunDirectory.create_or_open(path, config={"model": asdict(config)}, vocabulary=vocabulary, kind=kind) as run:
        save_step(run, 1, params=made_params(seed, config), opt_state=None, progress={})
    return path


def made_dataset(path: Path, *, titles=TITLES) -> Path:
    return write_drawn(
        path / "drawn" / "1.0.0", {"train": PATIENTS[:1], "validation": PATIENTS}, codes=CODES, titles=titles
    )
