"""`pretrain_small` with four times the patients a step, for accelerators, which small steps leave idle.

    python run_pretrain.py configs/pretrain_large_batch.py --dataset data/ehr_pretraining/NAME/1.0.0 --run runs/NAME

Duration: passes × training patients / rate; on an accelerator nothing has been measured yet.
Expected: after as many patients a little less than `pretrain_small`, which has made four times the steps
(docs/pretraining.md). The rate is that of `pretrain_small` and the warm-up twice as long: at twice the rate, which the
square root of the patients a step would have, nothing was learned.
"""

from dataclasses import replace

from medbert_jax.training.command_line import shipped_preset

SMALL = shipped_preset("pretrain_small")

CONFIG = replace(
    SMALL,
    rows=replace(SMALL.rows, batch_size=4 * SMALL.rows.batch_size),
    warmup_share=2 * SMALL.warmup_share,
    checkpoint_every=250,
    evaluate_every=125,
    log_every=20,
)
