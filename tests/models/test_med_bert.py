"""Patients in one row don't know of each other; what is real is said by patient_slots alone."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medbert_jax.models import encoder
from medbert_jax.models.config import ModelConfig
from medbert_jax.models.encoder import Encoder
from medbert_jax.models.med_bert import (
    apply,
    bind,
    init,
    masked_code_logits,
    pooled_first_code,
    prolonged_los_logits,
)

PAPER = ModelConfig(
    vocabulary_size=40,
    hidden_size=64,
    layers=2,
    heads=2,
    feed_forward_size=32,
    max_visits=12,
    max_length=64,
    initializer_range=0.1,
)
RELEASED = dataclasses.replace(PAPER, layers=1, serialization="position", mask_id=0, los_pooling="first", pooler=True)
LENGTHS = (5, 3, 8)
ROW = 64
WEIGHTS = np.random.default_rng(5).normal(size=(len(LENGTHS), 40)).astype(np.float32)


def jit(function):
    """Compiled at the cheapest level, results in numpy: nearly all the time of a test goes into compiling."""
    compiled = jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})
    return lambda *arguments: jax.tree.map(np.asarray, compiled(*arguments))


@functools.cache
def params_of(config):
    return jit(lambda key: init(config, key))(jax.random.key(0))


def patients():
    """Three patients; the codes of one are never those of another."""
    rng = np.random.default_rng(0)
    made = []
    for number, length in enumerate(LENGTHS):
        visits = np.sort(rng.integers(1, 5, length))
        made.append(
            {
                "code_ids": rng.integers(3 + 10 * number, 13 + 10 * number, length),
                "visit_ids": visits,
                "serialization_ids": np.arange(length) - np.searchsorted(visits, visits),
                "positions": np.arange(length),
                "patient_slots": np.ones(length, int),
            }
        )
    return made


def rows(groups):
    """One row of ROW slots per group of patients; the places of a row are 1, 2, …"""
    batch = {}
    for name in patients()[0]:
        batch[name] = np.zeros((len(groups), ROW), np.int32)
        for row, group in zip(batch[name], groups, strict=True):
            start = 0
            for place, patient in enumerate(group, start=1):
                values = patient[name] * (place if name == "patient_slots" else 1)
                row[start : start + len(values)] = values
                start += len(values)
    return jax.tree.map(jnp.asarray, batch)


def losses(config, batch, places):
    """Per patient: its LOS logit and the weighted masked-code logits of its second code. `places`: (row, place)."""
    row, place = np.asarray(places).T
    slots = np.asarray(batch["patient_slots"])
    first = np.array([np.flatnonzero(slots[r] == p + 1)[0] for r, p in zip(row, place, strict=True)])

    def run(params):
        hidden, _ = apply(params, batch, config=config)
        count = int(place.max()) + 1
        los = prolonged_los_logits(params, hidden, batch, config=config, patients=count)[row, place, 0]
        codes = masked_code_logits(params, hidden[row, first + 1], config=config)
        return jnp.tanh(los) + (codes * WEIGHTS).sum(axis=-1)

    return run


def packed_and_alone(config, *, gradients=True):
    """Each patient's loss, and the gradients of their sum: the three in one row, and one per row."""
    three = patients()
    layouts = [
        (rows([three]), [(0, 0), (0, 1), (0, 2)]),
        (rows([[p] for p in three]), [(0, 0), (1, 0), (2, 0)]),
    ]
    found = []
    for batch, places in layouts:
        run = losses(config, batch, places)
        if gradients:

            def total(params, run=run):
                values = run(params)
                return values.sum(), values

            gradient, values = jit(jax.grad(total, has_aux=True))(params_of(config))
            leaves = jax.tree_util.tree_leaves_with_path(gradient)
            found.append({"values": values} | {jax.tree_util.keystr(path): leaf for path, leaf in leaves})
        else:
            found.append({"values": jit(run)(params_of(config))})
    return found


def largest_share(found, expected):
    """Largest difference as a share of its array's largest entry; a key's bias has its kernel's scale.

    (Its gradient is 0 by its mathematics: it moves no softmax.)
    """
    scale = {name: abs(expected[name.replace("['key']['bias']", "['key']['kernel']")]).max() for name in expected}
    return max(float(abs(found[name] - expected[name]).max() / scale[name]) for name in expected)


@pytest.mark.parametrize("config", [PAPER, RELEASED], ids=["paper", "released_code"])
def test_packed_equals_each_patient_alone(config):
    packed, alone = packed_and_alone(config)
    assert largest_share(packed, alone) < 1e-5


def test_packed_differs_without_the_mask_between_patients(monkeypatch):
    def all_real(slots, padding_reads):
        real_B11L = slots[:, None, None, :] > 0
        return jnp.broadcast_to(jnp.where(real_B11L, 0.0, encoder.BLOCKED), (len(slots), 1, ROW, ROW))

    monkeypatch.setattr(encoder, "attention_bias", all_real)
    packed, alone = packed_and_alone(PAPER, gradients=False)
    assert largest_share(packed, alone) > 1e-2


def test_no_gradient_reaches_another_patient():
    """The gradient of one patient's outputs for another's embeddings, and for empty slots, is exactly 0."""
    slots = rows([patients()])["patient_slots"]
    layers = bind(params_of(PAPER)["encoder"], Encoder, PAPER)
    embeddings, weights = np.random.default_rng(2).normal(size=(2, 1, ROW, PAPER.hidden_size)).astype(np.float32)

    def loss(embeddings, place):
        out, _ = layers(embeddings, slots, seeds=[None] * 6)
        return (jnp.where((slots == place)[:, :, None], out, 0.0) * weights).sum()

    gradients = jit(jax.vmap(jax.grad(loss), in_axes=(None, 0)))(embeddings, jnp.arange(1, 4))[:, 0]
    for place in (1, 2, 3):
        own = np.asarray(slots[0] == place)
        assert (gradients[place - 1][~own] == 0).all()
        assert (gradients[place - 1][own] != 0).all()


def test_masked_slot_of_released_code_is_attended():
    """Its id is that of padding, yet it reads and is read; only an empty slot is not."""
    batch = jax.tree.map(np.array, rows([patients()[:1]]))
    batch["code_ids"][0, 2] = RELEASED.mask_id
    params = params_of(RELEASED)
    run = jit(lambda params, batch: apply(params, batch, config=RELEASED, capture=("attention",)))
    hidden, out = run(params, batch)
    attention = out["attention"][:, 0, :, :5]
    assert (attention[..., :5] > 1e-3).all() and (attention[..., 5:] == 0).all()
    np.testing.assert_allclose(attention.sum(axis=-1), 1, rtol=1e-6)
    gone = {name: value.copy() for name, value in batch.items()}
    gone["patient_slots"][0, 2] = 0
    assert abs(run(params, gone)[0] - hidden)[0, [0, 1, 3, 4]].max() > 1e-3
    # What stands in an empty slot changes nothing.
    other = {name: value.copy() for name, value in batch.items()}
    for name in ("code_ids", "visit_ids", "serialization_ids", "positions"):
        other[name][0, 5:] = 7
    np.testing.assert_array_equal(run(params, other)[0][0, :5], hidden[0, :5])


def test_serialization_takes_rank_or_position():
    batch, params = rows([patients()]), params_of(PAPER)
    for name, other in (("rank", "positions"), ("position", "serialization_ids")):
        config = dataclasses.replace(PAPER, serialization=name)
        run = jit(lambda batch, config=config: apply(params, batch, config=config)[0])
        changed = {key: value for key, value in batch.items() if key != other}
        np.testing.assert_array_equal(run(batch), run(changed))


def test_los_pooling_sums_the_patients_own_codes():
    batch, params = rows([patients()]), params_of(RELEASED)
    head = params["prolonged_los_head"]["dense"]
    hidden = jnp.asarray(np.random.default_rng(3).normal(size=(1, ROW, PAPER.hidden_size)).astype(np.float32))
    slots = np.asarray(batch["patient_slots"][0])
    logits = jit(lambda: prolonged_los_logits(params, hidden, batch, config=PAPER, patients=4))()
    pooled = jit(lambda: pooled_first_code(params, hidden, batch, config=RELEASED, patients=4))()
    first = jit(lambda: prolonged_los_logits(params, hidden, batch, config=RELEASED, patients=4))()
    assert logits.shape == first.shape == (1, 4, 2)
    for place in (1, 2, 3):
        own = np.asarray(hidden)[0, slots == place]
        expected = own.sum(axis=0) @ head["kernel"]
        np.testing.assert_allclose(logits[0, place - 1], expected, rtol=1e-4, atol=1e-5)
        dense = params["pooler"]["dense"]
        np.testing.assert_allclose(pooled[0, place - 1], np.tanh(own[0] @ dense["kernel"]), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(first[0, place - 1], pooled[0, place - 1] @ head["kernel"], rtol=1e-4, atol=1e-5)
    assert (logits[0, 3] == head["bias"]).all()


def test_sum_with_padding_is_the_whole_row():
    """Released code: padding reads the patient, has the row's positions, and its outputs are summed."""
    config = dataclasses.replace(RELEASED, los_pooling="sum_with_padding")
    batch, params = rows([patients()[:1]]), params_of(config)
    run = jit(lambda batch: apply(params, batch, config=config, capture=("attention",)))
    hidden, out = run(batch)
    assert (out["attention"][..., :5] > 0).all() and (out["attention"][..., 5:] == 0).all()
    counted = batch | {"positions": np.arange(ROW, dtype=np.int32)[None]}
    np.testing.assert_array_equal(run(counted)[0], hidden)
    head, hidden = params["prolonged_los_head"]["dense"], jnp.asarray(hidden)
    logits = jit(lambda: prolonged_los_logits(params, hidden, batch, config=config, patients=1))()
    np.testing.assert_allclose(logits[0, 0], hidden[0].sum(axis=0) @ head["kernel"], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"needs rows of one patient each: got 2 patients per row; put one"):
        prolonged_los_logits(params, hidden, batch, config=config, patients=2)


def test_dropout_only_with_a_key():
    batch, params = rows([patients()]), params_of(PAPER)
    run = jit(lambda key: apply(params, batch, config=PAPER, key=key)[0])
    still = jit(lambda: apply(params, batch, config=PAPER)[0])
    np.testing.assert_array_equal(still(), still())
    once, again, other = (run(jax.random.key(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(once, again)
    assert abs(once - other).max() > 0.1 and abs(once - still()).max() > 0.1


def test_each_dropout_acts(monkeypatch):
    """Hidden dropout once after the embeddings and twice per layer, attention dropout once, all seeds different."""
    shapes, seeds = [], []

    def record(x, rate, seed, places):
        shapes.append((x.shape, rate))
        seeds.append(seed)
        return x

    monkeypatch.setattr("medbert_jax.models.embeddings.dropout", record)
    monkeypatch.setattr("medbert_jax.models.encoder.dropout", record)
    config = dataclasses.replace(PAPER, dropout=0.2, attention_dropout=0.3)
    params = params_of(config)

    def seeds_of(key):
        apply(params, rows([patients()]), config=config, key=key)
        return jnp.stack(seeds)

    found = jit(seeds_of)(jax.random.key(1))
    # Inside of the layers rows and slots are one dimension.
    embedded, hidden, attention = ((1, ROW, 64), 0.2), ((ROW, 64), 0.2), ((1, 2, ROW, ROW), 0.3)
    assert shapes == [embedded] + [attention, hidden, hidden] * config.layers
    assert len(np.unique(found, axis=0)) == len(shapes)


@pytest.mark.parametrize("compute_dtype", ["float32", "bfloat16"])
def test_rows_without_patients_give_finite_values_and_gradients(compute_dtype):
    """In float32 and bfloat16; the rows with patients are as without the empty row beside them."""
    config = dataclasses.replace(RELEASED, compute_dtype=compute_dtype)
    params, batch = params_of(config), rows([patients(), []])

    def loss(params):
        hidden, _ = apply(params, batch, config=config, key=jax.random.key(1))
        codes = masked_code_logits(params, hidden[:, :3], config=config)
        los = prolonged_los_logits(params, hidden, batch, config=config, patients=4)
        return jnp.square(codes).sum() + jnp.square(los).sum(), (hidden, codes, los)

    gradients, (hidden, codes, los) = jit(jax.grad(loss, has_aux=True))(params)
    assert hidden.dtype == compute_dtype and codes.dtype == los.dtype == jnp.float32
    assert all(np.isfinite(leaf.astype(np.float32)).all() for leaf in jax.tree.leaves((gradients, hidden, codes, los)))
    assert jax.tree.all(jax.tree.map(lambda leaf: leaf.dtype == jnp.float32, gradients))


def test_bfloat16_is_near_float32():
    batch, params = rows([patients()]), params_of(PAPER)
    half = dataclasses.replace(PAPER, compute_dtype="bfloat16")
    found, expected = (jit(lambda c=c: apply(params, batch, config=c)[0])() for c in (half, PAPER))
    real = np.asarray(batch["patient_slots"]) > 0
    assert abs(found.astype(np.float32) - expected)[real].max() < 0.1


def test_captures():
    batch, params = rows([patients(), patients()]), params_of(PAPER)
    hidden, out = jit(lambda: apply(params, batch, config=PAPER, capture=("embeddings", "attention", "layers")))()
    assert {name: value.shape for name, value in out.items()} == {
        "embeddings": (2, ROW, 64),
        "attention": (2, 2, 2, ROW, ROW),
        "layers": (2, 2, ROW, 64),
    }
    np.testing.assert_array_equal(out["layers"][-1], hidden)
    assert jax.eval_shape(lambda: apply(params, batch, config=PAPER))[1] == {}
    with pytest.raises(ValueError, match=r"must be among embeddings, attention, layers: got heads; leave it out"):
        apply(params, batch, config=PAPER, capture=("heads", "layers"))


def test_apply_reads_only_the_backbone():
    params = params_of(PAPER)
    backbone = {name: params[name] for name in ("embeddings", "encoder")}
    run = jit(lambda params: apply(params, rows([patients()]), config=PAPER)[0])
    np.testing.assert_array_equal(run(backbone), run(params))
