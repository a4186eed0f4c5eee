"""Pretraining step on this machine: patients per second, dropout on, host batches included.

    python benchmarks/pretrain_step.py [--dataset data/ehr_pretraining/diabetes130/1.0.0]

Made patients of the length model (mean 15 codes, up to 512) at a vocabulary of 1,000 with one masked code each, and, if
named, a dataset's own training patients with a quarter of the codes masked. Rounds are interleaved; medians count.
"""

import json
from pathlib import Path

import tyro
from length_model import length_model
from provenance import machine
from step_rate import rates, timed_step

from medbert_jax.data.row_plan import RowsConfig
from medbert_jax.data.token_store import open_token_store
from medbert_jax.data.vocabulary import Vocabulary
from medbert_jax.models.config import preset
from medbert_jax.training.masking import MaskingConfig


def main(
    dataset: Path | None = None,
    out: Path = Path(__file__).parent / "results" / "pretrain_step.json",
    rounds: int = 5,
    steps: int = 3,
) -> None:
    """Measure and write the JSON.

    Args:
        dataset: a pretraining dataset to measure too.
        out: where the figures go.
        rounds: rounds of each entry.
        steps: steps of a round.
    """
    made = length_model(20_000, 1_000)
    timed = {
        f"length model (made), V 1,000, batch {batch}, rows {short} and 512": timed_step(
            made, preset("small", 1_000), RowsConfig(batch_size=batch, short_row=short)
        )
        for batch, short in ((256, 128), (1024, 128))
    }
    if dataset:
        size = Vocabulary.read(dataset / "vocabulary.tsv").size
        timed[f"{dataset.parent.name} (real), V {size:,}, batch 256, rows of 32, a quarter masked"] = timed_step(
            open_token_store(dataset, "train").truncate(512),
            preset("small", size),
            RowsConfig(batch_size=256, short_row=32),
            MaskingConfig(share=0.25),
        )
    record = {"machine": machine(), "rates": rates(timed, rounds=rounds, steps=steps)}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    tyro.cli(main)
