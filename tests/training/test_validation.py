"""Validation is given up where nobody will read it."""

import numpy as np
import pytest
from made_sequences import made_sequences

from medbert_jax.data.row_plan import RowsConfig, plan_rows
from medbert_jax.training.corpus import CorpusConfig
from medbert_jax.training.interruption import Interruption
from medbert_jax.training.pace import Pace
from medbert_jax.training.patient_source import PatientSource
from medbert_jax.training.progress import Progress
from medbert_jax.training.sharding import MeshConfig, make_mesh
from medbert_jax.training.validation import Validations, tell_one_class, validate

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

    class AfterTwo(Interruption):
        def asked(self) -> bool:
            self.stopping = params["dispatches"] == 2
            return self.stopping

    assert validate(outputs, params, source, pace(source), interruption=AfterTwo()) is None
    assert params["dispatches"] == 2 < source.plan.steps_per_epoch / source.steps


@pytest.mark.parametrize("stopping", [False, True])
def test_what_is_missing_is_what_is_due_and_not_recorded(tmp_path, stopping):
    path, interruption = tmp_path / "metrics.jsonl", Interruption()
    interruption.stopping = stopping
    path.write_text('{"kind": "validation", "step": 10}\n{"kind": "train", "step": 20}\n')
    made = Validations(lambda params: params, Progress(path, total=25, start=20), 10, interruption)
    assert [step for step in range(26) if made.missing(step)] == [20, 25]
    for step in (20, 20, 21):
        made.make(step, {"loss": 0.5})
    assert [step for step in range(26) if made.missing(step)] == ([20, 25] if stopping else [25])
    again = Validations(lambda params: None, Progress(path, total=25, start=25), 10, interruption)  # as a run resumed
    again.make(25, {"loss": 0.5})
    assert [step for step in range(26) if again.missing(step)] == ([20, 25] if stopping else [25])
    assert path.read_text().count('"validation"') == 2 - stopping


def test_the_sums_do_not_depend_on_how_many_steps_came_back_at_once():
    plan = plan_rows(SEQUENCES.lengths, RowsConfig(batch_size=2, short_row=32), max_length=32)
    rng, total = np.random.default_rng(0), plan.steps_per_epoch
    names = (
        "masked_code_sum",
        "masked_code_weight",
        "masked_code_correct",
        "prolonged_los_sum",
        "prolonged_los_weight",
    )
    made = {name: rng.lognormal(0, 5, total).astype(np.float32) for name in names}
    found = []
    for steps in (1, 3, 50):
        config = CorpusConfig(steps_per_dispatch=steps)

        def of_steps(params, corpus, feed):
            first, (tier,) = int(feed["start"]), feed["tiers"]
            (*shape,) = tier["patients"].shape
            part = {name: np.resize(values[first : first + shape[0]], shape[0]) for name, values in made.items()}
            return part | {"prolonged_los_logits": (np.zeros(shape, np.float32),)}

        mesh = make_mesh(MeshConfig(data=1))
        with PatientSource(SEQUENCES, plan, mesh, config, seed=0, total=total) as source:
            long = Pace((), config, total=total)
            long._wanted = steps  # ty: ignore  # as one that has found its pace
            found.append(validate(of_steps, {}, source, long))
    assert total >= 50
    np.testing.assert_equal(found[1:], found[:1] * 2)  # bit for bit; NaN is NaN
    assert found[0]["masked_code_loss"] == float(made["masked_code_sum"].sum(dtype=np.float64)) / float(
        made["masked_code_weight"].sum(dtype=np.float64)
    )


@pytest.mark.parametrize(("labels", "told"), [([0, 0, 0], "got 0 with one among 3"), ([1, 1], "got 2"), ([0, 1], "")])
def test_validation_patients_of_one_class_are_told_with_what_to_do(capsys, labels, told):
    tell_one_class({"prolonged_los": np.array(labels)})
    said = capsys.readouterr().err
    assert told in said and ("raise --validation-size" in said) == bool(told)
