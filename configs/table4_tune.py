"""Six settings for every row of the tuned Table 4, on 1,000 training patients of one cohort, chosen on validation.

    python run_finetune.py configs/table4_tune.py --dataset DIR --finetune.checkpoint runs/NAME \
        --finetune.vectors runs/vectors.npz --out runs/tuning.json

Duration: not measured; 72 fine-tunings on 1,000 patients and 42 baselines. Interrupted, it goes on where it stopped.
Expected: runs/tuning.json with every setting's validation AUROC and the chosen ones, for configs/table4_tuned.py. The
settings stand in medbert_jax/experiments/settings.py: rate, dropout and width of the networks, C of the regressions,
the leaf of the forest, the rate of boosting. No test patient is read.
"""

from medbert_jax.experiments.tuning import TuningConfig
from medbert_jax.training.command_line import shipped_preset

GRID = shipped_preset("table4_tuned")

CONFIG = TuningConfig(finetune=GRID.finetune, rows=GRID.rows, baselines=(*GRID.baselines, *GRID.standing))
