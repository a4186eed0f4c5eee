"""The FLOPs that the accelerators' benchmark calls useful are those that the program of one patient multiplies."""

from dataclasses import replace
from functools import partial

import jax
import pytest
from lowered_products import flops_by_type
from made_sequences import TINY_MODEL, made_sequences
from reference_batches import batches

from benchmarks.useful_work import useful_flops
from medbert_jax.data.row_plan import RowsConfig, plan_rows
from medbert_jax.models.med_bert import init
from medbert_jax.training.masking import MaskingConfig, masked_per_patient
from medbert_jax.training.pretraining import pretraining_losses, step_shapes


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_useful_flops_are_those_of_a_row_without_padding(share):
    model, masking = replace(TINY_MODEL, layers=2, hidden_size=96, vocabulary_size=2_000), MaskingConfig(share=share)
    patients = made_sequences(20, seed=0)
    patient = patients.take([int(patients.lengths.argmax())])
    length = int(patient.lengths[0])
    plan = plan_rows(patient.lengths, RowsConfig(batch_size=1, short_row=length, long_row=length), max_length=32)
    shapes = step_shapes(plan, masking)

    def loss(params: dict, batch: dict) -> jax.Array:
        key = jax.random.key(0)
        parts = pretraining_losses(
            params, batch, model=model, masking=masking, shapes=shapes, mask_key=key, dropout_key=None
        )
        return parts["masked_code_sum"] + parts["prolonged_los_sum"]

    params, batch = jax.eval_shape(partial(init, model), jax.random.key(0)), next(batches(patient, plan, seed=0))
    lowered = sum(flops_by_type(jax.jit(jax.grad(loss)).lower(params, batch).as_text()).values())
    (useful,) = useful_flops(patient.lengths, model, masking)
    # Sums made as products with ones: a patient's outputs, forward and backward, and the decoder bias's gradient.
    masked = int(masked_per_patient(masking, patient.lengths)[0])
    sums = 2 * 2 * length * model.hidden_size + 2 * masked * model.vocabulary_size
    assert length > 20 and sums < 0.01 * useful
    assert useful == lowered - sums
