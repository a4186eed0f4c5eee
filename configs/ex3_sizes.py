"""The paper's third experiment (Ex-3): the rows of Table 4 on training samples of growing size, ten bootstraps each.

    python run_finetune.py configs/ex3_sizes.py --datasets DIR DIR --finetune.checkpoint runs/NAME \
        --finetune.vectors runs/vectors.npz

Duration: not measured; 660 fine-tunings of a cohort, and 120 baselines.
Expected: the shape of the paper's Fig. 4, on whatever data; its AUROCs are of cohorts that nobody else has.
A cohort must have 10,000 training patients; with fewer give `--train-sizes`. The paper shows sizes from 300 to all of
its training patients; which others it had is not printed, and those between are ours. Paper: Results, Fig. 4.
"""

from dataclasses import replace

from medbert_jax.training.command_line import shipped_preset
from medbert_jax.training.sampling import SamplingConfig

TABLE4 = shipped_preset("table4_paper")

CONFIG = replace(
    TABLE4,
    finetune=replace(TABLE4.finetune, experiment="Ex-3", sampling=SamplingConfig(resample="bootstrap")),
    train_sizes=(300, 500, 1000, 5000, 10_000, 0),
)
