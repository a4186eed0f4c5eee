"""The paper's fine-tuning: Adam at 1e-5 on all weights, batches of 100, early stopping on validation AUROC.

    python run_finetune.py configs/finetune_paper.py --dataset data/disease_cohort/NAME/1.0.0 --checkpoint runs/NAME

Duration: an epoch takes 12 s of processor time on an AMD EPYC, so 6 s or more on two of its cores, for hf-later of
`medbert simulate EHR --patients 4000`, 1,990 training patients with 12 codes each. Computed from that: two minutes for
the fewest epochs that there can be, 21, and 50 for the most.
Expected: the paper's AUROCs are of cohorts that nobody else has; by these settings none has been measured here. For
cohorts of thousands take finetune_small.py.
Patience of 20 epochs and at most 500, as in the released notebooks. Paper: Methods, "Fine-tuning".
"""

from medbert_jax.training.config import FinetuneConfig

CONFIG = FinetuneConfig()
