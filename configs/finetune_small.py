"""For demos and cohorts of hundreds to thousands: batches of 32, rate 2e-4, patience of 5 epochs.

python run_finetune.py configs/finetune_small.py --dataset data/disease_cohort/NAME/1.0.0 --checkpoint runs/NAME
"""

from dataclasses import replace

from medbert_jax.models.finetune_heads import HeadConfig
from medbert_jax.training.config import FinetuneConfig

CONFIG = FinetuneConfig(
    head=HeadConfig(kind="bi_gru"),
    optimizer=replace(FinetuneConfig().optimizer, learning_rate=2e-4),
    batch_size=32,
    max_epochs=50,
    patience=5,
)
