"""The rows of the paper's Table 4 with the paper's rates and scikit-learn's defaults, ten replicates each.

    medbert code-vectors data/ehr_pretraining/NAME/1.0.0 runs/vectors.npz
    python run_finetune.py configs/table4_paper.py --datasets DIR DIR --finetune.checkpoint runs/NAME \
        --finetune.vectors runs/vectors.npz

Duration: not measured; 110 fine-tunings of a cohort with all of its training patients, each as long as that of
finetune_paper.py, and seconds for the baselines.
Expected: the paper's AUROCs are of cohorts that nobody else has.
Paper: Table 4 and Methods; RETAIN by its own definition (Choi et al. 2016); dimension, negatives and passes of t-W2V
are ours.
"""

from medbert_jax.experiments.grid import GridConfig
from medbert_jax.training.config import FinetuneConfig
from medbert_jax.training.sampling import SamplingConfig

RECURRENT = tuple(
    (backbone, head) for head in ("gru", "bi_gru", "retain") for backbone in ("none", "tw2v", "pretrained")
)

CONFIG = GridConfig(
    # Ex-1 and Ex-2: the replicates are heads, on the same patients.
    finetune=FinetuneConfig(experiment="table 4, paper", sampling=SamplingConfig(resample="head")),
    train_sizes=(0,),
    replicates=10,
    rows=(*RECURRENT, ("untrained", "feed_forward"), ("pretrained", "feed_forward")),
    baselines=("default", "forest"),
    recipe="paper",
)
