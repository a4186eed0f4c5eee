"""A run folder as a pretraining leaves it, with parameters that nobody trained: made in no time."""

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
from made_sequences import TINY_MODEL

from medbert_jax.data.vocabulary import FIRST_CODE, Vocabulary
from medbert_jax.models.config import ModelConfig
from medbert_jax.models.med_bert import init
from medbert_jax.training.checkpointing import save_step
from medbert_jax.training.run_directory import RunDirectory


def made_vocabulary(size: int = TINY_MODEL.vocabulary_size, patients=None) -> Vocabulary:
    """ICD10CM/A00 and so on: none of them is above another."""
    codes = tuple(f"ICD10CM/{chr(65 + i // 100)}{i % 100:02}" for i in range(size - FIRST_CODE))
    counts = np.arange(len(codes), 0, -1) if patients is None else patients
    return Vocabulary(codes, counts, tuple(f"title {i}" for i in range(len(codes))))


def made_checkpoint(
    path: Path, model: ModelConfig = TINY_MODEL, vocabulary: Vocabulary | None = None, seed: int = 0
) -> Path:
    """Return `path`; parameters are drawn by numpy, which need not compile."""
    vocabulary = vocabulary or made_vocabulary(model.vocabulary_size)
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(partial(init, replace(model)), jax.random.key(0))

    def drawn(keys, leaf):
        name = keys[-1].key
        spread = 0.1 if name in ("scale", "bias") else leaf.shape[0] ** -0.5 if name == "kernel" else 0.1
        return (rng.normal(size=leaf.shape) * spread + (name == "scale")).astype(np.float32)

    params = jax.tree_util.tree_map_with_path(drawn, shapes)
    with RunDirectory.create_or_open(path, config={"model": asdict(model)}, vocabulary=vocabulary) as run:
        save_step(run, 7, params=params, opt_state=None, progress={})
    return path
