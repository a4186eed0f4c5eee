"""What the released code does, where it differs from the paper: positions for ranks, MASK = PAD = 0, static masks.

    medbert prepare EHR NAME --preset released_code
    python run_pretrain.py configs/pretrain_released_code.py --dataset data/ehr_pretraining/NAME/1.0.0 --run runs/NAME

Duration: the released command says 4.5 million steps of 32 patients. Here it is computed: a step takes 0.66 s of
processor time on an AMD EPYC (made patients, 82,603 codes; benchmarks/preset_steps.py), so two of its cores need 17
days or more. Nothing has been measured on a GPU yet. Expected: as pretrain_paper.py, with the flaws.
Patients of more than 512 codes are dropped, prolonged LOS is read off the pooled first code, the same code is masked
in every epoch. Released code: github.com/ZhiGroup/Med-BERT.
"""

from medbert_jax.data.row_plan import RowsConfig
from medbert_jax.models.config import preset
from medbert_jax.training.config import PretrainConfig
from medbert_jax.training.masking import MaskingConfig

CONFIG = PretrainConfig(
    dataset_preset="released_code",
    model=preset("released_code"),
    rows=RowsConfig(batching="patients", batch_size=32),
    masking=MaskingConfig(static=True),
    too_long="drop",
    steps=4_500_000,
    checkpoint_every=50_000,
    evaluate_every=50_000,
    log_every=1_000,
)
