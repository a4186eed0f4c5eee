"""Table 4 with rates, dropout, width and C chosen for each row by the same budget, and rows beside the paper's.

    python run_finetune.py configs/table4_tuned.py --datasets DIR DIR --finetune.checkpoint runs/NAME \
        --finetune.vectors runs/vectors.npz --tuning runs/tuning.json

Duration: not measured; 480 fine-tunings of a cohort: twelve rows, four training sizes, ten replicates.
Expected: not measured. runs/tuning.json is what configs/table4_tune.py has written, of one cohort; it is used for all.
Batches of 32, validated every 2,000 patients, patience of 3 of these, at most 200 epochs: as configs/diabetes130.py.
"""

from dataclasses import replace

from medbert_jax.experiments.grid import GridConfig
from medbert_jax.training.command_line import shipped_preset
from medbert_jax.training.sampling import SamplingConfig

PAPER, DIABETES130 = shipped_preset("table4_paper"), shipped_preset("diabetes130")

CONFIG = GridConfig(
    finetune=replace(DIABETES130.finetune, experiment="table 4, tuned", sampling=SamplingConfig(stratified=True)),
    train_sizes=(300, 1000, 3000, 0),
    replicates=10,
    rows=(*PAPER.rows, ("frozen", "bi_gru")),
    baselines=("codes", "codes+age", "forest", "boosting", "probe"),
    recipe="tuned",
)
