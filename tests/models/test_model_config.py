import dataclasses
import functools
import itertools

import jax
import numpy as np
import pytest

from medbert_jax.models.config import ModelConfig, preset
from medbert_jax.models.med_bert import init, vocabulary_axes


@functools.cache
def shapes(config):
    return jax.eval_shape(lambda key: init(config, key), jax.random.key(0))


def count(config):
    return sum(leaf.size for leaf in jax.tree.leaves(shapes(config)))


def test_parameter_counts_of_the_paper():
    with_pooler = dataclasses.replace(preset("paper"), pooler=True)
    assert with_pooler.vocabulary_size == 82_603
    assert count(with_pooler) == 17_350_893
    assert count(preset("paper")) == 17_313_837
    assert count(preset("released_code")) == 17_350_893


def test_presets_name_each_disagreement():
    paper, released, small = preset("paper"), preset("released_code"), preset("small", 321)
    changed = {
        field.name for field in dataclasses.fields(paper) if getattr(paper, field.name) != getattr(released, field.name)
    }
    assert changed == {"serialization", "mask_id", "los_pooling", "pooler"}
    assert (released.serialization, released.mask_id, released.los_pooling) == ("position", 0, "first")
    assert dataclasses.replace(small, vocabulary_size=82_603) == paper
    assert small.vocabulary_size == 321


def test_unknown_preset():
    with pytest.raises(ValueError, match=r"must be one of paper, released_code, small: got 'large'; choose"):
        preset("large")


def test_every_fault_is_in_one_error():
    with pytest.raises(ValueError) as error:
        ModelConfig(hidden_size=100, heads=6, layers=-1, dropout=1.0, serialization="age", los_pooling="first")
    lines = str(error.value).splitlines()
    assert [line.split(" must")[0].split(" needs")[0] for line in lines] == [
        "model.layers",
        "model.dropout",
        "model.serialization",
        "model.hidden_size",
        "model.los_pooling first",
    ]
    assert all(": got " in line and "; " in line for line in lines)
    assert "use hidden_size 102" in lines[3]


@pytest.mark.parametrize(
    ("mask_id", "rule"), [(-1, "at least 0: got -1"), (10, "a row of the code table: got 10 of 10 rows")]
)
def test_mask_id_is_a_row_of_the_table(mask_id, rule):
    with pytest.raises(ValueError, match=rf"^model\.mask_id must be {rule}; "):
        ModelConfig(vocabulary_size=10, mask_id=mask_id)


@pytest.mark.parametrize("name", ["paper", "released_code"])
def test_the_axis_that_grows_with_the_vocabulary_is_said_at_every_parameter_that_has_one(name):
    here, longer = shapes(preset(name, 50)), shapes(preset(name, 51))

    def grows(one, two) -> int:
        return next((axis for axis, size in enumerate(one.shape) if two.shape[axis] > size), -1)

    axes = vocabulary_axes(preset(name, 50))
    assert axes == jax.tree.map(grows, here, longer)
    assert sorted(jax.tree.leaves(axes)) == [-1] * (len(jax.tree.leaves(here)) - 2) + [0, 0]


def test_only_string_keys_and_plain_dictionaries():
    def walk(node):
        if isinstance(node, dict):
            assert type(node) is dict and all(type(key) is str for key in node)
            for child in node.values():
                walk(child)
        else:
            assert node.dtype == "float32"

    for name in ("paper", "released_code"):
        walk(shapes(preset(name)))


def test_initial_values():
    config = ModelConfig(vocabulary_size=2_000, layers=1)
    params = jax.tree.map(np.asarray, jax.jit(lambda key: init(config, key))(jax.random.key(0)))
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = path[-1].key
        if name == "bias":
            assert (leaf == 0).all()
        elif name == "scale":
            assert (leaf == 1).all()
        else:
            # TensorFlow's truncated_normal(0.02): cut at 0.04, where a normal of 0.02 keeps 0.8796 of its deviation.
            assert abs(leaf).max() <= 0.04 and abs(leaf.mean()) < 0.02 * 5 / leaf.size**0.5
            assert abs(leaf.std() / (0.02 * 0.8796) - 1) < 4 / leaf.size**0.5
    tables = [params["embeddings"][name][:512] for name in ("code_table", "visit_table", "serialization_table")]
    assert not any((a == b).any() for a, b in itertools.pairwise(tables))
