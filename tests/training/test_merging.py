"""Merging: every leaf from the checkpoint, or an error that shows each difference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding

from medbert_jax.training.merging import ParameterMismatchError, differences, leaf_shapes, merge_parameters


def _target():
    return {
        "embeddings": {"code_table": jnp.zeros((20, 4))},
        "encoder": {"layer_0": {"bias": jnp.zeros(4)}},
        "head": {"bias": jnp.full(3, 7.0)},
    }


def _source():
    return {
        "embeddings": {"code_table": jnp.ones((20, 4))},
        "encoder": {"layer_0": {"bias": jnp.full(4, 2.0)}},
        "masked_code_head": {"bias": jnp.ones(20)},
    }


def test_leaves_come_from_the_source_except_new_ones():
    merged = merge_parameters(_target(), _source(), new=("head",), drop=("masked_code_head", "pooler"))
    assert jax.tree.structure(merged) == jax.tree.structure(_target())
    np.testing.assert_array_equal(merged["embeddings"]["code_table"], 1)
    np.testing.assert_array_equal(merged["encoder"]["layer_0"]["bias"], 2)
    np.testing.assert_array_equal(merged["head"]["bias"], 7)


def test_new_keeps_the_targets_own_values_even_where_the_source_has_them():
    source = _source() | {"head": {"bias": jnp.zeros(9)}}
    merged = merge_parameters(_target(), source, new=("head",), drop=("masked_code_head",))
    np.testing.assert_array_equal(merged["head"]["bias"], 7)


def test_leaves_lie_where_the_targets_lie():
    sharding = SingleDeviceSharding(jax.devices()[0])
    target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), _target())
    source = jax.tree.map(np.asarray, _source())
    merged = merge_parameters(target, source, new=("head",), drop=("masked_code_head",))
    assert isinstance(merged["embeddings"]["code_table"], jax.Array)
    assert merged["embeddings"]["code_table"].sharding == sharding


def test_every_difference_is_in_one_error():
    source = _source()
    source["embeddings"]["code_table"] = jnp.ones((18, 4))
    source["encoder"]["layer_0"]["bias"] = jnp.ones(4, jnp.bfloat16)
    source["encoder"]["layer_1"] = {"bias": jnp.ones(4)}
    with pytest.raises(ParameterMismatchError) as error:
        merge_parameters(_target(), source)
    lines = str(error.value).splitlines()
    assert lines[1:-1] == [
        "  ≠ embeddings/code_table: (20, 4) float32 in the model, (18, 4) float32 in the checkpoint",
        "  ≠ encoder/layer_0/bias: (4,) float32 in the model, (4,) bfloat16 in the checkpoint",
        "  − encoder/layer_1/bias (4,) float32: only in the checkpoint",
        "  + head/bias (3,) float32: only in the model",
        "  − masked_code_head/bias (20,) float32: only in the checkpoint",
    ]
    assert "5 differences" in lines[0]
    assert "`new`" in lines[-1]


def test_a_prefix_is_a_path_and_not_a_piece_of_a_name():
    with pytest.raises(ParameterMismatchError, match="masked_code_head/bias"):
        merge_parameters(_target(), _source(), new=("head",), drop=("masked_code",))


def test_equal_trees_have_no_differences():
    assert differences(leaf_shapes(_target()), leaf_shapes(_target())) == []
