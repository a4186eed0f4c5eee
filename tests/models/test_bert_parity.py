"""Hugging Face BERT's numbers, to 1e-5 in float32: states, logits and gradients of three small configurations."""

import dataclasses
import importlib.util

import jax
import pytest
from golden import make_bert
from golden.comparison import config_of, golden_shares, ours, params_of, shares

from medbert_jax.models import heads
from medbert_jax.models.med_bert import init

TOLERANCE = 1e-5
CASES = {case.name: case for case in make_bert.CASES}


@pytest.mark.parametrize("length", make_bert.LENGTHS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_equals_hugging_face_bert(case, length):
    found = ours(case, length, config_of(case), make_bert.inputs(case, length))
    error = golden_shares(found, case, length)
    name = max(error, key=error.get)
    print(f"largest error {error[name]:.1e} in {name}")
    assert error[name] <= TOLERANCE, name


FAULTS = ("erf_gelu", "epsilon", "visit_ids", "positions_for_ranks", "attention_scale", "untied_decoder")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_seen(fault, monkeypatch):
    case, length = CASES["one_layer"], 7
    config, given = config_of(case), make_bert.inputs(case, length)
    if fault == "erf_gelu":
        gelu = jax.nn.gelu
        monkeypatch.setattr(jax.nn, "gelu", lambda x, approximate: gelu(x, approximate=False))
    elif fault == "epsilon":
        config = dataclasses.replace(config, layer_norm_epsilon=1e-6)
    elif fault == "visit_ids":
        given["visit_ids"] = given["visit_ids"] - 1
    elif fault == "positions_for_ranks":
        config = dataclasses.replace(config, serialization="position")
    elif fault == "attention_scale":
        softmax = jax.nn.softmax
        monkeypatch.setattr(jax.nn, "softmax", lambda x, axis: softmax(x * 1.001, axis=axis))
    elif fault == "untied_decoder":
        monkeypatch.setattr(heads, "product", _product_without_gradient_to_the_table(heads.product))
    found = ours(case, length, config, given, gradients=fault == "untied_decoder")
    assert max(golden_shares(found, case, length).values()) > 3 * TOLERANCE


def _product_without_gradient_to_the_table(product):
    def changed(subscripts, states, table, dtype):
        assert subscripts == "TD,VD->TV"
        return product(subscripts, states, jax.lax.stop_gradient(table), dtype)

    return changed


def test_golden_file_is_small_and_its_tree_is_ours():
    assert make_bert.PATH.stat().st_size < 1_000_000
    for case in CASES.values():
        shapes = jax.eval_shape(lambda key, case=case: init(config_of(case), key), jax.random.key(0))
        ours = jax.tree.map(lambda leaf: leaf.shape, shapes)
        assert ours == jax.tree.map(lambda leaf: leaf.shape, params_of(case))


@pytest.mark.parity
@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("torch", "transformers")),
    reason="torch and transformers (the extra `parity`) are not installed",
)
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_equals_hugging_face_bert_live(case):
    for length in make_bert.LENGTHS:
        expected = make_bert.reference(case, length)
        found = ours(case, length, config_of(case), make_bert.inputs(case, length))
        assert set(found) == set(expected)
        error = shares(found, expected)
        assert max(error.values()) <= TOLERANCE, max(error, key=error.get)
