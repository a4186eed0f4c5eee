"""For demos and cohorts of hundreds to thousands: batches of 32, rate 2e-4, patience of 5 epochs.

    python run_finetune.py configs/finetune_small.py --dataset data/disease_cohort/NAME/1.0.0 --checkpoint runs/NAME

Duration: 200 s of processor time on an AMD EPYC, so 100 s or more on two of its cores, for the ten epochs after which
it stopped: hf-later of `medbert simulate EHR --patients 4000`, 1,990 training patients with 12 codes each.
Expected: as the rows of the Bi-GRU in the README's tables, which were made with configs/diabetes130.py: the same rate
and batches, but validated every 2,000 patients and stopped after three of these. Not measured by itself.
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
