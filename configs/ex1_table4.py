"""The paper's first experiment (Ex-1): three base models, with fresh embeddings, t-W2V and Med-BERT below them.

    python run_finetune.py configs/ex1_table4.py --datasets DIR DIR --finetune.checkpoint runs/NAME \
        --finetune.vectors runs/vectors.npz

Duration: not measured; 90 fine-tunings of a cohort with all of its training patients.
Expected: the paper's AUROCs are of cohorts that nobody else has.
The recurrent rows of configs/table4_paper.py, which has those of Ex-2 too: ten heads on the same patients.
Paper: Results, Table 4.
"""

from dataclasses import replace

from medbert_jax.training.command_line import shipped_preset

TABLE4 = shipped_preset("table4_paper")

CONFIG = replace(
    TABLE4,
    finetune=replace(TABLE4.finetune, experiment="Ex-1"),
    rows=tuple((backbone, head) for backbone, head in TABLE4.rows if head != "feed_forward"),
    baselines=(),
)
