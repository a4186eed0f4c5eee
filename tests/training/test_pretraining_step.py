"""The pretraining step: packed equals padded, learning is real and vanishes under the negative control."""

from collections import Counter
from dataclasses import replace
from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from made_sequences import TINY_MODEL, made_sequences
from reference_batches import batches

from medbert_jax.data.negative_control import exchange_codes
from medbert_jax.data.row_plan import RowsConfig, plan_rows
from medbert_jax.metrics.masked_codes import MaskedCodes, guess_ranks
from medbert_jax.models.med_bert import init
from medbert_jax.training.corpus import CorpusConfig
from medbert_jax.training.dispatch import make_eval_dispatch, make_train_dispatch
from medbert_jax.training.masking import MaskingConfig, masked_per_patient
from medbert_jax.training.not_finite import NotFinite, check_finite
from medbert_jax.training.optimizer import OptimizerConfig, clip_by_global_norm, make_optimizer
from medbert_jax.training.pace import Pace
from medbert_jax.training.patient_source import PatientSource
from medbert_jax.training.pretraining import (
    TasksConfig,
    init_state,
    make_eval_step,
    make_train_step,
    pretraining_losses,
    step_shapes,
)
from medbert_jax.training.sharding import MeshConfig, make_mesh
from medbert_jax.training.validation import validate

MODEL = replace(TINY_MODEL, layers=2)
MASKING = MaskingConfig(share=0.25)


def total_loss(params, batch, *, shapes, dropout_key):
    """Of a step, with its parts."""
    parts = pretraining_losses(
        params,
        batch,
        model=MODEL,
        masking=MASKING,
        shapes=shapes,
        mask_key=jax.random.key(5),
        dropout_key=dropout_key,
    )
    return parts["masked_code_sum"] + parts["prolonged_los_sum"], parts


def losses_and_gradients(params, sequences, *, packed: bool, epoch: int, planted=None, dropout_key=None):
    """Loss sums of one epoch in one step, and the gradient of their total."""
    config = RowsConfig(batch_size=len(sequences), short_row=32, packed=packed)
    plan = plan_rows(sequences.lengths, config, max_length=MODEL.max_length)
    assert plan.steps_per_epoch == 1
    batch = next(batches(sequences, plan, seed=0, start=epoch))
    if planted:
        batch = batch | {"tiers": tuple(planted(rows) for rows in batch["tiers"])}
    batch = jax.tree.map(jnp.asarray, batch)

    loss = partial(total_loss, shapes=step_shapes(plan, MASKING), dropout_key=dropout_key)
    (total, parts), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params, batch)
    return float(total), {name: float(parts[name]) for name in parts if name != "prolonged_los_logits"}, grads


@pytest.mark.parametrize(("epoch", "dropout"), [(0, False), (2, False), (1, True)])
def test_packed_equals_padded_in_losses_and_every_gradient(epoch, dropout):
    """With dropout too: what is dropped belongs to the patient, as the masks do."""
    key = jax.random.key(7) if dropout else None
    sequences, params = made_sequences(60, seed=0), init(MODEL, jax.random.key(0))
    _, packed, packed_grads = losses_and_gradients(params, sequences, packed=True, epoch=epoch, dropout_key=key)
    _, padded, padded_grads = losses_and_gradients(params, sequences, packed=False, epoch=epoch, dropout_key=key)
    assert packed["masked_code_weight"] == padded["masked_code_weight"]
    assert packed["prolonged_los_weight"] == padded["prolonged_los_weight"] == 60
    for name in packed:
        np.testing.assert_allclose(packed[name], padded[name], rtol=1e-5)
    for path, one in jax.tree_util.tree_leaves_with_path(packed_grads):
        two = padded_grads
        for key in path:
            two = two[key.key]
        assert np.linalg.norm(one - two) <= 1e-5 * np.linalg.norm(two) + 1e-7, jax.tree_util.keystr(path)


@pytest.mark.parametrize("dropout", [False, True])
def test_rows_that_few_steps_have_change_nothing_where_they_are_left_out(dropout):
    sequences, params = made_sequences(300, seed=0), init(MODEL, jax.random.key(0))
    few = np.flatnonzero(sequences.lengths > 16)[:5]
    sequences = sequences.take(np.sort(np.append(few, np.flatnonzero(sequences.lengths <= 16))))
    plan = plan_rows(sequences.lengths, RowsConfig(batch_size=20, short_row=16), max_length=MODEL.max_length)
    shapes, key = step_shapes(plan, MASKING), jax.random.key(7) if dropout else None
    assert shapes.rare == (False, True)

    def found(shapes):
        return jax.jit(jax.value_and_grad(partial(total_loss, shapes=shapes, dropout_key=key), has_aux=True))

    asked, always = found(shapes), found(replace(shapes, rare=(False, False)))
    feed, steps_with = batches(sequences, plan, seed=0, start=0), 0
    for _ in range(plan.steps_per_epoch):
        batch = jax.tree.map(jnp.asarray, next(feed))
        steps_with += bool((batch["tiers"][1]["patients"] >= 0).any())
        ((one, parts), grads), ((two, other_parts), other_grads) = asked(params, batch), always(params, batch)
        # What is not computed has logits of 0 where there is no patient.
        parts.pop("prolonged_los_logits"), other_parts.pop("prolonged_los_logits")
        np.testing.assert_allclose(one, two, rtol=1e-6)
        for a, b in zip(jax.tree.leaves((parts, grads)), jax.tree.leaves((other_parts, other_grads)), strict=True):
            assert np.linalg.norm(a - b) <= 1e-5 * np.linalg.norm(b) + 1e-7
    assert 0 < steps_with < plan.steps_per_epoch


def test_without_the_mask_between_patients_the_comparison_fails(monkeypatch):
    def open_to_all(slots_BL, *, padding_reads=False):
        rows, length = slots_BL.shape
        real_B11L = slots_BL[:, None, None, :] > 0
        return jnp.broadcast_to(jnp.where(real_B11L, 0.0, -1e9), (rows, 1, length, length)).astype(jnp.float32)

    monkeypatch.setattr("medbert_jax.models.encoder.attention_bias", open_to_all)
    with pytest.raises(AssertionError):
        test_packed_equals_padded_in_losses_and_every_gradient(0, False)


def test_patients_that_see_each_other_are_noticed():
    # Started louder, so that attention matters from the start.
    sequences, params = made_sequences(60, seed=0), init(replace(MODEL, initializer_range=0.1), jax.random.key(0))

    def merge_patients(rows):  # the first two patients of every row become one
        slots = rows["patient_slots"]
        return rows | {"patient_slots": np.where(slots == 2, 1, slots).astype(np.int32)}

    whole, _, _ = losses_and_gradients(params, sequences, packed=True, epoch=0)
    mixed, _, _ = losses_and_gradients(params, sequences, packed=True, epoch=0, planted=merge_patients)
    assert abs(whole - mixed) > 1e-3 * whole


def train(sequences, held_out, *, steps: int):
    """A short pretraining; metrics on `held_out`. Wider, and started louder, than the other tests' model: it learns."""
    model = replace(MODEL, hidden_size=64, initializer_range=0.1)
    rows = RowsConfig(batch_size=128, short_row=32)
    plan, validation_plan = (plan_rows(part.lengths, rows, max_length=32) for part in (sequences, held_out))
    optimizer = make_optimizer(OptimizerConfig(learning_rate=3e-3, warmup_steps=20), steps)
    state = init_state(partial(init, model), optimizer, jax.random.key(0))
    shared = {"model": model, "masking": MASKING, "seed": 0}
    train_step = make_train_step(tasks=TasksConfig(), shapes=step_shapes(plan, MASKING), optimizer=optimizer, **shared)
    eval_step = make_eval_step(shapes=step_shapes(validation_plan, MASKING), **shared)
    mesh, corpus = make_mesh(MeshConfig(data=1)), CorpusConfig(steps_per_dispatch=25)
    with PatientSource(sequences, plan, mesh, corpus, seed=0, total=steps) as source:
        dispatch = jax.jit(make_train_dispatch(train_step, source.rows_of))
        for start in range(0, steps, source.steps):
            state, _ = dispatch(state, *source.feed(start, source.steps))
    total = validation_plan.steps_per_epoch
    with PatientSource(held_out, validation_plan, mesh, corpus, seed=0, total=total) as source:
        dispatch = jax.jit(make_eval_dispatch(eval_step, source.rows_of))
        return validate(dispatch, state["params"], source, Pace((), corpus, total=total))


def contributions(batch_size: int, *, fair: bool) -> np.ndarray:
    """Norm of the clipped gradient per patient of the step, in the steps of an epoch."""
    sequences = made_sequences(600, seed=0)
    # Mostly short patients, as in life: rows differ much in how many they hold.
    odds = sequences.lengths**-2.0
    sequences = sequences.take(np.random.default_rng(0).choice(600, 600, p=odds / odds.sum()))
    rows = RowsConfig(batch_size=batch_size, short_row=32)
    plan, params = plan_rows(sequences.lengths, rows, max_length=32), init(MODEL, jax.random.key(0))
    shapes, clip = step_shapes(plan, MASKING), clip_by_global_norm(0.01)

    @jax.jit
    def of_step(batch):
        def loss(params):
            parts = pretraining_losses(
                params,
                batch,
                model=MODEL,
                masking=MASKING,
                shapes=shapes,
                mask_key=jax.random.key(0),
                dropout_key=None,
            )
            total = parts["masked_code_sum"] / shapes.expected_masked
            return total + parts["prolonged_los_sum"] / shapes.expected_patients, parts["prolonged_los_weight"]

        (_, patients), grads = jax.value_and_grad(loss, has_aux=True)(params)
        share = patients / shapes.expected_patients if fair else 1.0
        return optax.tree.norm(clip.update(grads, clip.init(params), share=share)[0]) / patients

    steps = min(20, plan.steps_per_epoch)
    return np.array([of_step(batch) for batch, _ in zip(batches(sequences, plan, seed=0), range(steps), strict=False)])


@pytest.mark.parametrize("batch_size", [32, 64])
def test_after_the_clip_every_patient_counts_the_same_however_many_share_his_step(batch_size):
    found, unfair = (contributions(batch_size, fair=fair) for fair in (True, False))
    assert found.max() < 1.001 * found.min()
    assert unfair.max() > 1.05 * unfair.min()


def copied(sequences) -> float:
    """Accuracy of the commonest of a patient's other codes, for each of his codes in turn; equals share the credit."""
    right = total = 0.0
    for begin, end in pairwise(sequences.code_offsets.tolist()):
        counts = Counter(sequences.code_ids[begin:end].tolist())
        weight = masked_per_patient(MASKING, np.array([end - begin]))[0] / (end - begin)
        for code, count in counts.items():
            others = counts - Counter([code])
            best = [one for one, often in others.items() if often == max(others.values())]
            right += count * weight * (code in best) / max(1, len(best))
            total += count * weight
    return right / total


def test_masked_codes_are_learned_and_the_negative_control_removes_the_gain():
    sequences, held_out = made_sequences(2000, seed=1), made_sequences(500, seed=2)
    asked = MaskedCodes(held_out, np.random.default_rng(0).random(len(held_out.code_ids)) < MASKING.share)
    ranks = guess_ranks(sequences, asked, MODEL.vocabulary_size)
    baselines = {name: np.mean(found == 0) for name, found in ranks.items()}
    learned = train(sequences, held_out, steps=200)
    # A patient's kind leaves eight codes to choose from: 1/8 is all there is to know, 1/48 without the patient.
    assert learned["masked_code_accuracy"] > 1.5 * max(baselines["most_frequent"], baselines["most_frequent_at_place"])
    assert learned["masked_code_accuracy"] > copied(held_out)
    assert learned["masked_code_loss"] < np.log(8) + 0.25
    assert learned["prolonged_los_auroc"] > 0.95

    control = train(exchange_codes(sequences, 0), exchange_codes(held_out, 1), steps=200)
    assert control["masked_code_accuracy"] < 1.5 * baselines["most_frequent_at_place"]
    assert control["masked_code_loss"] > np.log(48) - 0.1


def test_exchanging_codes_keeps_what_stands_where():
    sequences = made_sequences(300, seed=3)
    exchanged = exchange_codes(sequences, 0)
    place = sequences.visit_ids * 100 + sequences.serialization_ids
    for one in np.unique(place):
        assert sorted(sequences.code_ids[place == one]) == sorted(exchanged.code_ids[place == one])
    assert (sequences.code_ids != exchanged.code_ids).mean() > 0.9


def test_a_loss_that_is_not_finite_stops_with_its_step():
    metrics = {"loss": np.float32([1, np.nan, 1]), "gradient_norm": np.ones(3, np.float32)}
    check_finite(8, metrics | {"finite": np.array([True, True, True])})
    with pytest.raises(NotFinite, match=r"got nan and 1\.0 at step 7; start a new run with --init-from"):
        check_finite(8, metrics | {"finite": np.array([True, False, False])})


def test_released_code_trains_with_its_own_flaws():
    """MASK = PAD = 0, positions, static masks, pooled first code: finite, and the masked slot is attended."""
    model = replace(MODEL, serialization="position", mask_id=0, los_pooling="first", pooler=True)
    sequences = made_sequences(40, seed=0)
    plan = plan_rows(sequences.lengths, RowsConfig(batch_size=40, short_row=32), max_length=32)
    masking = MaskingConfig(static=True, mask_token=1.0, random_token=0.0)
    batch = jax.tree.map(jnp.asarray, next(batches(sequences, plan, seed=0)))
    params = init(model, jax.random.key(0))

    def loss(params):
        return pretraining_losses(
            params,
            batch,
            model=model,
            masking=masking,
            shapes=step_shapes(plan, masking),
            mask_key=jax.random.key(0),
            dropout_key=None,
        )["prolonged_los_sum"]

    grads = jax.grad(loss)(params)
    # Row 0 of the code table is [MASK] here: the LOS loss of the first code reaches it through attention alone.
    assert np.abs(grads["embeddings"]["code_table"][0]).max() > 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
