"""The paper's pretraining: six layers of 192, one masked code per patient, 45 million steps of 32 patients.

    python run_pretrain.py configs/pretrain_paper.py --dataset data/ehr_pretraining/NAME/1.0.0 --run runs/NAME

Duration: the paper took a week on one V100 for 20 million training patients. Here it is computed: a step takes 0.67 s
of processor time on an AMD EPYC (made patients, 82,603 codes; benchmarks/preset_steps.py), so two of its cores need
174 days or more. Nothing has been measured on a GPU yet.
Expected: masked-code accuracy stays low for long with one masked code per patient and a rate of 5e-5; on small corpora
use pretrain_small.py.
Every step has exactly 32 patients, in three rows of 512 slots.
Paper: Methods, "Pre-training Med-BERT"; serialization is the rank within the visit, [MASK] has its own id.
"""

from medbert_jax.data.row_plan import RowsConfig
from medbert_jax.models.config import preset
from medbert_jax.training.config import PretrainConfig

CONFIG = PretrainConfig(
    model=preset("paper"),
    rows=RowsConfig(batching="patients", batch_size=32),
    steps=45_000_000,
    checkpoint_every=50_000,
    evaluate_every=50_000,
    log_every=1_000,
)
