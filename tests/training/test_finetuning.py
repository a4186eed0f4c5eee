"""Fine-tuning: early stopping, rounds, predictions in order, training subsets, what is taken from the checkpoint."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from made_sequences import TINY_MODEL, made_sequences

from medbert_jax.models.finetune_heads import HeadConfig, apply_head
from medbert_jax.models.med_bert import apply, init
from medbert_jax.training.cohort_data import training_subset
from medbert_jax.training.config import FinetuneConfig
from medbert_jax.training.finetuning import (
    EarlyStopping,
    batches,
    compile_steps,
    endless_batches,
    endless_optimizer,
    init_finetuning,
    predict_all,
    risk_logits,
    start_from,
    steps_per_round,
)
from medbert_jax.training.sharding import MeshConfig, make_mesh, over_rows, replicated

MODEL = TINY_MODEL
GOLDEN = [97, 212, 232, 243, 341]


def labelled(patients: int, seed: int):
    """Made sequences with a cohort's label."""
    sequences = made_sequences(patients, seed=seed)
    label = np.random.default_rng(seed).integers(0, 2, patients).astype(np.int32)
    return replace(sequences, outcomes={"label": label})


initialize = jax.jit(partial(init_finetuning, MODEL, HeadConfig(kind="bi_gru", gru_hidden=8)))


def drawn(initialize) -> dict:
    """Parameters like those of `initialize`, drawn by numpy, which need not compile."""
    rng, shapes = np.random.default_rng(0), jax.eval_shape(initialize, jax.random.key(0))
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), shapes)


def stopped_at(values: list[float], patience: int) -> tuple[EarlyStopping, int]:
    """The state, and at which validation it was time to stop (0: never)."""
    stopping = EarlyStopping(patience)
    for step, value in enumerate(values, start=1):
        if stopping.should_stop(step, value, {"w": jnp.full(2, float(step))}):
            return stopping, step
    return stopping, 0


@pytest.mark.parametrize(
    ("values", "patience", "stop", "best"),
    [
        ([0.5, 0.6, 0.55, 0.58, 0.59], 3, 5, 2),
        ([0.5, 0.6, 0.6, 0.6], 2, 4, 2),  # as good is not better
        ([0.5, 0.4, 0.6, 0.5, 0.7, 0.6], 2, 0, 5),  # a better one starts the count again
        ([0.5, 0.4], 1, 2, 1),
    ],
)
def test_it_stops_when_patience_is_over_and_keeps_the_best(values, patience, stop, best):
    stopping, stopped = stopped_at(values, patience)
    assert stopped == stop
    assert (stopping.best_step, stopping.best) == (best, values[best - 1])
    assert stopping.best_params["w"].tolist() == [best, best]


def test_validations_that_order_nobody_are_below_every_other_and_leave_the_first():
    nan = float("nan")
    assert stopped_at([nan, 0.5, nan, 0.4], 2)[0].best_step == 2
    stopping, stopped = stopped_at([nan, nan, nan], 2)
    assert stopped == 3 and stopping.best_step == 1 and np.isnan(stopping.best)
    assert stopping.best_params["w"].tolist() == [1, 1]


def test_the_best_parameters_outlive_the_donated_state():
    stopping, state = EarlyStopping(5), {"w": jnp.ones(4)}
    stopping.should_stop(1, 0.5, state)
    state["w"].delete()  # what donation does
    assert stopping.best_params["w"].tolist() == [1, 1, 1, 1]


def test_rounds_are_counted_in_patients():
    assert steps_per_round(300, 32, 0) == (10, 10)
    assert steps_per_round(320, 32, 0) == (10, 10)
    assert steps_per_round(3000, 32, 2000) == (94, 63)
    assert steps_per_round(300, 32, 2000) == (10, 10)  # an epoch at most
    assert steps_per_round(5, 32, 0) == (1, 1)


def test_an_epoch_of_the_stream_has_every_patient_once_and_the_next_another_order():
    sequences = labelled(50, seed=0)
    per_epoch, _ = steps_per_round(50, 16, 0)
    stream = endless_batches(sequences, 16, np.random.default_rng(0))
    epochs = [np.concatenate([next(stream)[0] for _ in range(per_epoch)]) for _ in range(2)]
    assert all(sorted(epoch[epoch >= 0]) == list(range(50)) for epoch in epochs)
    assert (epochs[0] != epochs[1]).any()


def test_labels_and_weights_belong_to_their_patients():
    sequences = labelled(50, seed=0)
    for patients, batch in batches(sequences, 16, np.random.default_rng(1)):
        real = patients >= 0
        assert batch["weights"][:, 0].tolist() == real.tolist()
        assert (batch["labels"][real, 0] == sequences.outcomes["label"][patients[real]]).all()
        assert (batch["labels"][~real] == 0).all()
        codes = [sequences.lengths[patient] if patient >= 0 else 0 for patient in patients]
        assert ((batch["patient_slots"] > 0).sum(axis=1) == codes).all()


def test_predictions_come_in_the_order_of_the_patients():
    sequences, mesh = labelled(50, seed=0), make_mesh(MeshConfig())

    def sum_of_codes(params, batch):  # names the patient; empty rows are far off
        return jnp.where(batch["weights"] > 0, batch["code_ids"].sum(axis=1, keepdims=True), -1)

    expected = np.add.reduceat(sequences.code_ids, sequences.code_offsets[:-1])
    for batch_size in (16, 64):  # several batches of several lengths; one with empty rows
        assert (predict_all(sum_of_codes, {}, sequences, batch_size, mesh) == expected).all()
    other = sequences.take(np.roll(np.arange(50), 1))
    assert not (predict_all(sum_of_codes, {}, other, 16, mesh) == expected).all()


def test_subsets_are_nested_stable_and_differ_between_replicates():
    ids = np.char.mod("%d", np.arange(400)).astype("S")
    small, large = (training_subset(ids, size, 3) for size in (50, 200))
    assert len(small) == 50 and len(large) == 200 and set(small) <= set(large)
    assert (np.diff(large) > 0).all()
    # The same patients whatever their order, and with other patients out of the way.
    shuffled = np.random.default_rng(0).permutation(400)
    assert set(ids[shuffled][training_subset(ids[shuffled], 50, 3)]) == set(ids[small])
    rest = np.setdiff1d(np.arange(400), large[:20])
    assert set(ids[small]) - set(ids[large[:20]]) <= set(ids[rest][training_subset(ids[rest], 50, 3)])
    assert set(training_subset(ids, 50, 4)) != set(small)
    assert (training_subset(ids, 0, 3) == np.arange(400)).all()
    assert training_subset(ids, 5, 0).tolist() == GOLDEN  # results on file mean these patients


def test_more_patients_than_there_are_is_refused():
    ids = np.char.mod("%d", np.arange(40)).astype("S")
    rule = r"train_size must not exceed the cohort's training patients: got 41 and 40; use 0 for all of them"
    with pytest.raises(ValueError, match=rule):
        training_subset(ids, 41, 0)


def test_the_backbone_is_the_checkpoints_and_the_head_is_new():
    pretrained = drawn(partial(init, MODEL))
    fresh = initialize(jax.random.key(2))
    assert set(fresh) == {"embeddings", "encoder", "head"}
    merged = start_from(fresh, pretrained)
    assert jax.tree.structure(merged) == jax.tree.structure(fresh)
    for part, source, other in (("embeddings", pretrained, fresh), ("encoder", pretrained, fresh)):
        jax.tree.map(np.testing.assert_array_equal, merged[part], source[part])
        with pytest.raises(AssertionError):
            jax.tree.map(np.testing.assert_array_equal, merged[part], other[part])
    jax.tree.map(np.testing.assert_array_equal, merged["head"], fresh["head"])


def test_a_pooler_is_the_checkpoints_where_it_has_one():
    head, model = HeadConfig(kind="first"), replace(MODEL, pooler=True)
    fresh = drawn(partial(init_finetuning, model, head))
    assert "pooler" in fresh["head"]
    for has_pooler in (True, False):
        pretrained = drawn(partial(init, replace(MODEL, pooler=has_pooler)))
        merged = start_from(fresh, pretrained)
        source = pretrained if has_pooler else fresh["head"]
        jax.tree.map(np.testing.assert_array_equal, merged["head"]["pooler"], source["pooler"])
        jax.tree.map(np.testing.assert_array_equal, merged["head"]["dense"], fresh["head"]["dense"])


def test_programs_are_shared_by_runs_of_one_architecture():
    def programs(optimizer, kind="feed_forward"):
        mesh = make_mesh(MeshConfig())
        steps = endless_optimizer(optimizer), replicated(mesh), over_rows(mesh)
        return compile_steps(MODEL, HeadConfig(kind=kind), *steps)

    one, same = FinetuneConfig().optimizer, FinetuneConfig().optimizer
    assert one is not same and programs(one) is programs(same)
    assert programs(replace(one, learning_rate=1.0)) is not programs(one)
    assert programs(one, "gru") is not programs(one)


def test_a_replicate_has_its_own_head_and_untrained_backbone():
    one, two = (initialize(jax.random.key(replicate)) for replicate in (0, 1))
    for part in ("embeddings", "encoder", "head"):
        with pytest.raises(AssertionError):
            jax.tree.map(np.testing.assert_array_equal, one[part], two[part])


def test_numbers_that_cannot_be_are_refused_together():
    with pytest.raises(ValueError) as error:
        FinetuneConfig(batch_size=0, max_epochs=0, patience=0)
    assert [line.split(":")[0] for line in str(error.value).splitlines()] == [
        f"{name} must be at least 1" for name in ("batch_size", "max_epochs", "patience")
    ]


def test_a_schedule_that_ends_is_refused():
    optimizer = replace(FinetuneConfig().optimizer, schedule="bert")
    with pytest.raises(ValueError, match=r"cannot decay to an end: got optimizer\.schedule bert; use constant"):
        endless_optimizer(optimizer)


def test_without_a_backbone_the_head_reads_the_embeddings():
    """Backbone none: no encoder parameter is left, and the logits are the head's on the embeddings of a whole model."""
    model, head = replace(MODEL, layers=0), HeadConfig(kind="bi_gru", gru_hidden=8)
    params = init_finetuning(model, head, jax.random.key(0))
    assert not params["encoder"]
    batch = jax.tree.map(jnp.asarray, next(batches(labelled(5, seed=1), batch_size=5))[1])
    logits = risk_logits(params, batch, model=model, head=head)
    whole = init(MODEL, jax.random.key(1)) | {"embeddings": params["embeddings"]}
    embedded = apply(whole, batch, config=MODEL, capture=("embeddings",))[1]["embeddings"]
    expected = apply_head(params["head"], embedded, batch, config=head, model_config=model, patients=1)
    np.testing.assert_array_equal(logits, expected)
