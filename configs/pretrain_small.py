"""For demos and corpora of up to 10,000 codes: a quarter of the codes masked, rate 1e-3, warm-up a tenth of the run.

    python run_pretrain.py configs/pretrain_small.py --dataset data/ehr_pretraining/NAME/1.0.0 --run runs/NAME

Duration: ten minutes on two CPU cores for the 47,073 training patients of diabetes130 and their 20 passes, with
`--rows.short-row 32` for 4 codes a patient (docs/results.md). Elsewhere passes × training patients / rate: 1,067
patients/s with 4 codes each, 411 with 15 and 1,000 different ones (two cores of an AMD EPYC,
benchmarks/results/pretrain_step.json, before the step was
rewritten).
Expected, on the validation patients of diabetes130: masked-code accuracy 0.237, where the commonest code at the same
visit number and rank gives 0.092; prolonged-LOS AUROC 0.770 (docs/pretraining.md).
The layers are the paper's; the budget is not, and this is never called `paper`.
"""

from medbert_jax.data.row_plan import RowsConfig
from medbert_jax.models.config import preset
from medbert_jax.training.config import PretrainConfig
from medbert_jax.training.masking import MaskingConfig
from medbert_jax.training.optimizer import OptimizerConfig

CONFIG = PretrainConfig(
    model=preset("small"),
    rows=RowsConfig(batch_size=256),
    masking=MaskingConfig(share=0.25),
    optimizer=OptimizerConfig(learning_rate=1e-3),
    warmup_share=0.1,
    epochs=20,
    checkpoint_every=1_000,
    evaluate_every=500,
    log_every=50,
)
