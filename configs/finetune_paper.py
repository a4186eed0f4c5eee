"""The paper's fine-tuning: Adam at 1e-5 on all weights, batches of 100, early stopping on validation AUROC.

    python run_finetune.py configs/finetune_paper.py --dataset data/disease_cohort/NAME/1.0.0 --checkpoint runs/NAME

Patience of 20 epochs and at most 500, as in the released notebooks. Paper: Methods, "Fine-tuning".
"""

from medbert_jax.training.config import FinetuneConfig

CONFIG = FinetuneConfig()
