"""The README's table: three cohorts, four training sizes, five replicates, each with and without pretraining.

    python run_finetune.py configs/diabetes130.py --datasets DIR DIR DIR --finetune.checkpoint runs/NAME

`benchmarks/diabetes130.py` makes the datasets and the checkpoint and calls this.
Duration: two hours on two CPU cores for the 420 runs (7,087 s, benchmarks/results/diabetes130.json), or one by two
processes (`--part`).
Expected: the README's tables; on hf-later with 300 patients a test AUROC of 0.638 for the pretrained Bi-GRU, and 0.591
for the untrained one. How to read it: docs/results.md.
Rate, batch, patience and the patients between two validations are the same for every backbone, head, size and cohort.
"""

from dataclasses import replace

from medbert_jax.experiments.grid import GridConfig
from medbert_jax.training.config import FinetuneConfig

CONFIG = GridConfig(
    finetune=FinetuneConfig(
        experiment="diabetes130",
        optimizer=replace(FinetuneConfig().optimizer, learning_rate=2e-4),
        batch_size=32,
        max_epochs=200,
        evaluate_every=2_000,
        validation_size=2_000,
        patience=3,
    ),
    train_sizes=(300, 1000, 3000, 0),
    replicates=5,
    heads=("feed_forward", "bi_gru"),
    baselines=("age", "codes", "codes+age"),
)
