"""`pretrain_small` with four times the patients a step, for accelerators, which small steps leave idle.

    python run_pretrain.py configs/pretrain_large_batch.py --dataset data/ehr_pretraining/NAME/1.0.0 --run runs/NAME

Duration: passes × training patients / rate; on an accelerator nothing has been measured yet.
Expected: as `pretrain_small` after as many patients, see docs/pretraining.md.
The rate rises with the square root of the patients a step (Adam's noise falls with it); the warm-up is twice as long.
"""

from dataclasses import replace

from medbert_jax.training.command_line import shipped_preset

SMALL = shipped_preset("pretrain_small")

CONFIG = replace(
    SMALL,
    rows=replace(SMALL.rows, batch_size=4 * SMALL.rows.batch_size),
    optimizer=replace(SMALL.optimizer, learning_rate=2 * SMALL.optimizer.learning_rate),
    warmup_share=2 * SMALL.warmup_share,
    checkpoint_every=250,
    evaluate_every=125,
    log_every=20,
)
