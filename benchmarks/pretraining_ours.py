"""A variant of `pretraining.py`: rounds of `run_pretrain.py`'s own loop on made patients.

The script runs as it is typed, with its defaults, but that patients of the length model take the place of a dataset's,
and that it waits where a round ends. Validations and checkpoints are further apart than a benchmark is long.
"""

import os
import queue
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import tyro
from length_model import length_model
from provenance import machine
from side_by_side import serve
from useful_work import product_rate, useful_flops

import run_pretrain
from medbert_jax.data.row_plan import RowsConfig, plan_rows
from medbert_jax.data.vocabulary import FIRST_CODE, Vocabulary
from medbert_jax.models.config import preset
from medbert_jax.training.config import PretrainConfig
from medbert_jax.training.corpus import CorpusConfig
from medbert_jax.training.masking import MaskingConfig
from medbert_jax.training.pace import Pace, dispatched

WARM_UP = 2
"""Rounds before the first that is timed: they compile, and the pace settles."""
NEVER = 10**8


def vocabulary(size: int) -> Vocabulary:
    """So many ids."""
    codes = tuple(f"MADE/{number}" for number in range(size - FIRST_CODE))
    return Vocabulary(codes, np.ones(len(codes), np.int64), ("",) * len(codes))


def main(
    size: int = 82_603,
    batch_size: int = 256,
    steps: int = 10,
    packed: bool = True,
    faithful: bool = False,
    patients: int = 20_000,
    mean_length: float = 15.0,
    steps_per_dispatch: int = 0,
    bfloat16: bool = False,
) -> None:
    """Answer to `side_by_side.interleaved`.

    Args:
        size: of the vocabulary.
        batch_size: patients of a step.
        steps: steps of a round.
        packed: False gives every patient a row of 512 slots.
        faithful: exactly batch_size patients a step, as the presets that follow the paper have it.
        patients: of the corpus.
        mean_length: codes of a patient, on average.
        steps_per_dispatch: at most; 0 leaves the default.
        bfloat16: products in it.
    """
    rows = RowsConfig(batch_size=batch_size, batching="patients" if faithful else "rows", packed=packed)
    rows = rows if packed else replace(rows, short_row=512, long_row=512)
    model = replace(preset("paper", size), compute_dtype="bfloat16" if bfloat16 else "float32")
    corpus = CorpusConfig(steps_per_dispatch=steps_per_dispatch) if steps_per_dispatch else CorpusConfig()
    goes_on, ended = queue.SimpleQueue(), queue.SimpleQueue()

    def load_split(config: PretrainConfig, _, split: str, *, groups: int) -> tuple:
        count = patients if split == "train" else 200
        made = length_model(count, size, mean=mean_length)
        return made, plan_rows(made.lengths, config.rows, max_length=config.model.max_length, groups=groups)

    def in_rounds(*given, **options) -> Iterator[tuple]:
        trained, left = 0.0, WARM_UP
        for step, state, metrics in dispatched(*given, **options):
            trained += float(metrics["prolonged_los_weight"].sum())
            yield step, state, metrics
            if step % steps == 0:
                left -= 1
                if left <= 0:
                    ended.put(trained)
                    goes_on.get()
                trained = 0.0

    def one_round() -> float:
        goes_on.put(None)
        return ended.get()

    def answer() -> None:
        ended.get()  # the rounds that warm it up
        lengths = length_model(patients, size, mean=mean_length).lengths
        useful = float(useful_flops(lengths, model, MaskingConfig()).mean())
        serve(one_round, **machine(), useful_flop_per_patient=useful, product_flop_per_s=product_rate("float32", 2048))
        os._exit(0)  # the training waits for a round that nobody asks for

    run_pretrain.load_split, run_pretrain.dispatched = load_split, in_rounds
    run_pretrain.read_metadata = lambda _: {"kind": "pretraining", "preset": "paper", "dataset_hash": "", "split": {}}
    run_pretrain.read_vocabulary = lambda _: vocabulary(size)
    # A round ends where a dispatch does, with nothing under way.
    run_pretrain.Pace = lambda edges, config, *, total: Pace((*edges, steps), config, total=total)
    threading.Thread(target=answer, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        run_pretrain.main(
            PretrainConfig(
                dataset="made",
                run=str(Path(folder) / "run"),
                steps=NEVER,
                model=model,
                rows=rows,
                corpus=corpus,
                checkpoint_every=NEVER,
                evaluate_every=NEVER,
            )
        )


if __name__ == "__main__":
    tyro.cli(main)
