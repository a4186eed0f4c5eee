"""Validation is given up where nobody will read it."""

import numpy as np
import pytest
from made_sequences import made_sequences

from medbert_jax.data.row_plan import RowsConfig, plan_rows
from medbert_jax.training.corpus import CorpusConfig
from medbert_jax.training.pace import Pace
from medbert_jax.training.patient_source import PatientSource
from medbert_jax.training.sharding import MeshConfig, make_mesh
from medbert_jax.training.validation import validate

SEQUENCES = made_sequences(100, seed=0)


@pytest.fixture
def source():
    """Ten steps, two to a dispatch."""
    plan = plan_rows(SEQUENCES.lengths, RowsConfig(batch_size=10, short_row=32), max_length=32)
    config = CorpusConfig(steps_per_dispatch=2)
    with PatientSource(
        SEQUENCES, plan, make_mesh(MeshConfig(data=1)), config, seed=0, total=plan.steps_per_epoch
    ) as source:
        yield source


def pace(source: PatientSource) -> Pace:
    return Pace((), CorpusConfig(steps_per_dispatch=2), total=source.plan.steps_per_epoch)


def outputs(params: dict, corpus, feed: dict) -> dict:
    """What an evaluation brings back: a logit that is the patient's label, one code masked and guessed per patient."""
    (tier,) = feed["tiers"]
    patients = np.asarray(tier["patients"])
    params["dispatches"] += 1
    ones = (patients >= 0).sum(axis=(1, 2)).astype(np.float32)
    names = (
        "masked_code_sum",
        "masked_code_weight",
        "masked_code_correct",
        "prolonged_los_sum",
        "prolonged_los_weight",
    )
    logits = np.where(patients < 0, np.nan, SEQUENCES.outcomes["prolonged_los"][patients])
    return dict.fromkeys(names, ones) | {"prolonged_los_logits": (logits,)}


def test_every_patient_counts_once(source):
    found = validate(outputs, {"dispatches": 0}, source, pace(source))
    assert found == {
        "masked_code_loss": 1.0,
        "masked_code_accuracy": 1.0,
        "prolonged_los_loss": 1.0,
        "prolonged_los_auroc": 1.0,
    }


def test_it_is_given_up_after_the_dispatch_that_is_under_way(source):
    params = {"dispatches": 0}
    assert validate(outputs, params, source, pace(source), given_up=lambda: params["dispatches"] == 2) is None
    assert params["dispatches"] == 2 < source.plan.steps_per_epoch / source.steps
