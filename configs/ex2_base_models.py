"""The paper's second experiment (Ex-2): Med-BERT alone, the same untrained, logistic regression and random forest.

    python run_finetune.py configs/ex2_base_models.py --datasets DIR DIR --finetune.checkpoint runs/NAME

Duration: not measured; 20 fine-tunings of a cohort with all of its training patients, and seconds for the baselines.
Expected: the paper's AUROCs are of cohorts that nobody else has.
The other rows of configs/table4_paper.py than those of Ex-1, configs/ex1_table4.py. Paper: Results, Table 4.
"""

from dataclasses import replace

from medbert_jax.training.command_line import shipped_preset

TABLE4 = shipped_preset("table4_paper")

CONFIG = replace(
    TABLE4,
    finetune=replace(TABLE4.finetune, experiment="Ex-2"),
    rows=tuple((backbone, head) for backbone, head in TABLE4.rows if head == "feed_forward"),
)
