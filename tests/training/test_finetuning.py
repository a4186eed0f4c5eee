"""Fine-tuning: early stopping, rounds, steps, predictions, training subsets, what is taken from the checkpoint."""

import itertools
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from made_sequences import TINY_MODEL, made_sequences

from medbert_jax.data.cohort_plan import layout, plan_cohort
from medbert_jax.data.rows import padded_batch
from medbert_jax.models.finetune_heads import HeadConfig, apply_head
from medbert_jax.models.med_bert import apply, init
from medbert_jax.training.cohort_codes import CohortCodes
from medbert_jax.training.cohort_scores import predict
from medbert_jax.training.config import FinetuneConfig
from medbert_jax.training.corpus import CorpusConfig
from medbert_jax.training.early_stopping import EarlyStopping, steps_per_round
from medbert_jax.training.finetuning import (
    OUTCOME,
    compiled,
    endless_optimizer,
    fresh_state,
    init_finetuning,
    risk_logits,
    start_from,
)
from medbert_jax.training.patient_source import PatientSource
from medbert_jax.training.sampling import training_subset
from medbert_jax.training.sharding import MeshConfig, make_mesh
from medbert_jax.training.tuned_parts import kept_states

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


def cohort_rows(sequences, batch_size: int = 16):
    """A layout with short and long rows and several chunks a step."""
    tight = {"chunk_slots": 32, "chunk_cost": 1, "max_length": MODEL.max_length}
    return replace(layout(sequences.lengths, batch_size=batch_size, **tight), row_lengths=(16, 32), chunk_rows=(2, 1))


def source_of(sequences, rows) -> PatientSource:
    plan = plan_cohort(sequences.lengths, rows)
    corpus = CorpusConfig(placement="replicated", steps_per_dispatch=2)
    return PatientSource(
        sequences, plan, make_mesh(MeshConfig()), corpus, seed=0, total=100, outcome=OUTCOME, rounded=True
    )


def padded(sequences, patients) -> dict:
    """One patient per row, with labels: the reference layout."""
    batch = jax.tree.map(jnp.asarray, padded_batch(sequences, patients, MODEL.max_length))
    return batch | {"label": jnp.asarray(sequences.outcomes["label"][patients][:, None])}


HEAD = HeadConfig(kind="bi_gru", gru_hidden=8)


@pytest.fixture(scope="module")
def start() -> dict:
    return jax.device_get(initialize(jax.random.key(0)))


@pytest.fixture(scope="module")
def one_step(start):
    """By the plainest optimizer, whose change is the gradient: (sequences, patients of the step, what it leaves)."""
    sequences = labelled(40, seed=0)
    rows, optimizer = cohort_rows(sequences), optax.sgd(1.0)
    dispatch = compiled(MODEL, HEAD, optimizer, rows, make_mesh(MeshConfig()))
    with source_of(sequences, rows) as source:
        patients = np.concatenate([tier[tier >= 0] for tier in source.patients(0)])
        state, metrics = dispatch(fresh_state(jax.tree.map(jnp.asarray, start), optimizer, 3), *source.feed(0, 1))
        in_use = [int((tier >= 0).any(axis=1).sum()) for tier in source.patients(0)]
    assert in_use[0] > 2 and in_use[1] > 1  # several chunks of both
    return sequences, patients, jax.device_get((state["params"], metrics))


def reference_loss(params: dict, batch: dict, seed: int):
    key = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), 0)
    logits = risk_logits(params, batch, model=MODEL, head=HEAD, key=key)
    return optax.sigmoid_binary_cross_entropy(logits, batch["label"].astype(jnp.float32)).mean()


def test_a_step_is_that_of_the_same_patients_one_per_row(start, one_step):
    """Loss and gradient, dropout on; packed, in chunks, with a table of the chunk's codes."""
    sequences, patients, (after, metrics) = one_step
    assert len(patients) == 14  # 40 in 3 steps
    loss, grads = jax.jit(jax.value_and_grad(reference_loss))(start, padded(sequences, patients), 3)
    np.testing.assert_allclose(metrics["loss"][0], loss, rtol=1e-5)
    found = jax.tree.map(np.subtract, start, after)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found, jax.device_get(grads))
    other = jax.jit(reference_loss)(start, padded(sequences, patients), 4)
    assert abs(other - loss) > 1e-4  # what another dropout would be


def test_predictions_come_in_the_order_of_the_patients_and_are_those_of_padded_rows(start):
    sequences, mesh = labelled(50, seed=1), make_mesh(MeshConfig())
    batch = padded(sequences, np.arange(50))
    expected = jax.nn.sigmoid(jax.jit(partial(risk_logits, model=MODEL, head=HEAD))(start, batch))[:, 0]
    got = predict(start, sequences, model=MODEL, head=HEAD, mesh=mesh)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    other = predict(start, sequences.take(np.roll(np.arange(50), 1)), model=MODEL, head=HEAD, mesh=mesh)
    np.testing.assert_allclose(np.roll(got, 1), other, rtol=1e-5)
    assert len(np.unique(got)) > 45


def test_the_table_of_the_cohorts_codes_gives_the_same_bits_and_leaves_the_others(start):
    sequences = labelled(40, seed=0)
    few = replace(sequences, code_ids=16 + sequences.code_ids % 24)
    codes = CohortCodes.of((few,), MODEL.vocabulary_size)
    compact = codes.compact(start)
    assert len(codes.ids) == 40 and codes.numbered(few).code_ids.max() == 39
    assert (codes.ids[codes.numbered(few).code_ids] == few.code_ids).all()
    logits = jax.jit(partial(risk_logits, model=MODEL, head=HEAD))
    own, all_of_them = (
        logits(params, padded(patients, np.arange(8)))
        for params, patients in ((compact, codes.numbered(few)), (start, few))
    )
    np.testing.assert_array_equal(own, all_of_them)
    changed = jax.tree.map(lambda leaf: leaf + 1, compact)
    whole = codes.whole(changed, start["embeddings"]["code_table"])["embeddings"]["code_table"]
    np.testing.assert_array_equal(whole[40:], start["embeddings"]["code_table"][40:])
    np.testing.assert_array_equal(whole[:40], start["embeddings"]["code_table"][:40] + 1)
    decayed = CohortCodes.of((few,), MODEL.vocabulary_size, all_of_them=True)
    np.testing.assert_array_equal(decayed.compact(start)["embeddings"]["code_table"], start["embeddings"]["code_table"])


def test_states_that_are_kept_are_the_backbones(start):
    sequences = labelled(20, seed=2)
    states = kept_states(
        {name: start[name] for name in ("embeddings", "encoder")}, sequences, model=MODEL, mesh=make_mesh(MeshConfig())
    )
    hidden, _ = jax.jit(partial(apply, config=MODEL))(start, padded(sequences, np.arange(20)))
    for patient, (first, end) in enumerate(itertools.pairwise(sequences.code_offsets)):
        np.testing.assert_allclose(states[first:end], hidden[patient, : end - first], rtol=1e-4, atol=1e-5)


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
    rows = cohort_rows(labelled(40, seed=0))

    def programs(optimizer, kind="feed_forward"):
        return compiled(MODEL, HeadConfig(kind=kind), endless_optimizer(optimizer), rows, make_mesh(MeshConfig()))

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
    batch = padded(labelled(5, seed=1), np.arange(5))
    logits = risk_logits(params, batch, model=model, head=head)
    whole = init(MODEL, jax.random.key(1)) | {"embeddings": params["embeddings"]}
    embedded = apply(whole, batch, config=MODEL, capture=("embeddings",))[1]["embeddings"]
    expected = apply_head(params["head"], embedded, batch, config=head, model_config=model, patients=1)
    np.testing.assert_array_equal(logits, expected)
