"""The weights that are shown are those of the model, packed and alone; shares are what plain loops count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from visualization.made_model import MODEL, made_params, made_run, made_sequences

from medbert_jax.data.rows import gather_rows
from medbert_jax.data.vocabulary import UNK
from medbert_jax.models.med_bert import apply
from medbert_jax.training.pretrained import load_pretrained
from medbert_jax.visualization import attention_weights as module
from medbert_jax.visualization.attention_record import fitted
from medbert_jax.visualization.attention_weights import RELATIONS, attention_shares, attention_weights


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_pretrained(made_run(tmp_path_factory.mktemp("runs") / "made"))


@pytest.fixture(scope="module")
def patients(model):
    return fitted(made_sequences(), model)


def captured(batch: dict) -> np.ndarray:
    batch = {name: jnp.asarray(column) for name, column in batch.items() if name != "patients"}
    return np.asarray(_captured(made_params(), batch))


@jax.jit
def _captured(params: dict, batch: dict) -> jax.Array:
    return apply(params, batch, config=MODEL, capture=("attention",))[1]["attention"]


def test_weights_are_those_of_the_model_alone_and_in_packed_rows(model, patients):
    rng = np.random.default_rng(0)
    rows = [[0, 1], [2, -1], [3, -1]]
    packed = captured(gather_rows(patients, np.array(rows), 12))
    alone = captured(gather_rows(patients, np.arange(4)[:, None], 12))
    starts = {0: (0, 0), 1: (0, 9), 2: (1, 0), 3: (2, 0)}
    for patient, length in enumerate(patients.lengths):
        shown = attention_weights(model, patients.take([patient]))
        assert shown.shape == (2, 3, length, length) and shown.dtype == np.float32
        np.testing.assert_allclose(shown.sum(axis=-1), 1, atol=1e-5)
        row, start = starts[patient]
        entries = rng.integers(0, shown.shape, (50, 4)).T
        layer, head, reading, read = entries
        for theirs, of, at in ((alone, patient, 0), (packed, row, start)):
            expected = theirs[layer, of, head, at + reading, at + read]
            np.testing.assert_allclose(shown[tuple(entries)], expected, rtol=0, atol=1e-6)
    longest = attention_weights(model, patients.take([3]))
    assert np.abs(longest - np.swapaxes(longest, 2, 3)).max() > 0.1  # reading and read are told apart
    assert np.abs(longest[0] - longest[1]).max() > 0.1


def counted(weights_nn: np.ndarray, codes, visits) -> list[float]:
    """Plain loops."""
    sums = dict.fromkeys(RELATIONS, 0.0)
    for reading in range(len(codes)):
        for read in range(len(codes)):
            if reading == read:
                relation = "self"
            elif visits[reading] == visits[read]:
                relation = "visit"
            elif codes[reading] == codes[read] and codes[reading] != UNK:
                relation = "same_code"
            else:
                relation = "earlier" if visits[read] < visits[reading] else "later"
            sums[relation] += float(weights_nn[reading, read]) / len(codes)
    return list(sums.values())


def test_shares_are_what_plain_loops_count(model, patients):
    every, uniforms = [], []
    for number in range(len(patients)):
        patient = patients.take([number])
        weights = attention_weights(model, patient)
        codes, visits = patient.code_ids.tolist(), patient.visit_ids.tolist()
        expected = np.array([[counted(head, codes, visits) for head in layer] for layer in weights])
        uniform = counted(np.full((len(codes), len(codes)), 1 / len(codes)), codes, visits)
        found = attention_shares(model, patient)
        np.testing.assert_allclose(found.shares_NHR, expected, atol=1e-6)
        np.testing.assert_allclose(found.uniform_R, uniform, atol=1e-6)
        np.testing.assert_allclose(found.shares_NHR.sum(axis=-1), 1, atol=1e-5)
        every.append(expected)
        uniforms.append(uniform)
    assert np.abs(every[0] - uniforms[0]).max() > 0.05  # the model's are others than the uniform ones
    assert (np.array(uniforms[0]) > 0).all()  # and the first patient has all of the relations
    several = attention_shares(model, patients)
    assert several.patients == 4
    np.testing.assert_allclose(several.shares_NHR, np.mean(every, axis=0), atol=1e-6)
    np.testing.assert_allclose(several.uniform_R, np.mean(uniforms, axis=0), atol=1e-6)


def test_many_patients_are_batched_and_counted_once(model, patients, monkeypatch):
    """More than a batch: rows that stay empty count for nothing."""
    calls, of_a_batch = [], module._shares
    monkeypatch.setattr(module, "_shares", lambda *args, **named: calls.append(1) or of_a_batch(*args, **named))
    numbers = [0, 1, 2, 3, 0, 0, 1, 2, 3, 3, 2]
    several = attention_shares(model, patients.take(numbers))
    assert len(calls) == 2
    single = [attention_shares(model, patients.take([number])).shares_NHR for number in numbers]
    np.testing.assert_allclose(several.shares_NHR, np.mean(single, axis=0), atol=1e-6)
