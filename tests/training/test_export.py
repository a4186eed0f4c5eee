"""The whole dispatches of a run lower for every platform: what runs on a CPU is a program for GPU and TPU too."""

import re
from dataclasses import replace
from functools import cache, partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from made_sequences import TINY_MODEL, made_sequences

from medbert_jax.data.row_plan import RowsConfig, plan_rows
from medbert_jax.models.config import ModelConfig
from medbert_jax.models.med_bert import init
from medbert_jax.training.corpus import CorpusConfig
from medbert_jax.training.dispatch import make_eval_dispatch, make_train_dispatch
from medbert_jax.training.masking import MaskingConfig
from medbert_jax.training.optimizer import OptimizerConfig, make_optimizer
from medbert_jax.training.patient_source import PatientSource
from medbert_jax.training.pretraining import TasksConfig, init_state, make_eval_step, make_train_step, step_shapes
from medbert_jax.training.sharding import (
    MeshConfig,
    make_mesh,
    parameter_shardings,
    replicated,
    state_shardings,
    with_shardings,
)

PLATFORMS = ("cpu", "cuda", "tpu")
STEPS = 5
MASKING = MaskingConfig(share=0.25)
MESH = make_mesh(MeshConfig(data=1))
OPTIMIZER = make_optimizer(OptimizerConfig(learning_rate=1e-3, warmup_steps=0), 40)
VOCABULARY = 96  # of no other size in the program
TABLE = f"tensor<{VOCABULARY}x{TINY_MODEL.hidden_size}xf32>"


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """Half the time to compile; the programs are small."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@cache
def sequences():
    return made_sequences(120, seed=0)


def model(dtype: str) -> ModelConfig:
    return replace(TINY_MODEL, vocabulary_size=VOCABULARY, compute_dtype=dtype)


def fresh(dtype: str):
    """The function that makes a state from a key."""
    return partial(init_state, partial(init, model(dtype)), OPTIMIZER)


@cache
def prepared(kind: str, dtype: str, placement: str):
    """The source, the dispatch jitted as `run_pretrain` does, and the shapes of its first argument."""
    plan = plan_rows(sequences().lengths, RowsConfig(batch_size=32, short_row=16), max_length=32)
    config = CorpusConfig(placement=placement, steps_per_dispatch=STEPS)
    source = PatientSource(sequences(), plan, MESH, config, seed=0, total=STEPS)
    losses = {"model": model(dtype), "masking": MASKING, "shapes": step_shapes(plan, MASKING), "seed": 0}
    shapes = jax.eval_shape(fresh(dtype), jax.random.key(0))
    shardings = state_shardings(shapes, OPTIMIZER, parameter_shardings(model(dtype), MESH), MESH)
    first = with_shardings(shapes, shardings)
    if kind == "eval":
        dispatch, first = make_eval_dispatch(make_eval_step(**losses), source.rows_of), first["params"]
        shardings, outputs = shardings["params"], replicated(MESH)
    else:
        step = make_train_step(tasks=TasksConfig(), optimizer=OPTIMIZER, **losses)
        dispatch, outputs = make_train_dispatch(step, source.rows_of), (shardings, replicated(MESH))
    jitted = jax.jit(
        dispatch,
        in_shardings=(shardings, *source.shardings),
        out_shardings=outputs,
        donate_argnums=0 if kind == "train" else (),
    )
    return source, jitted, first


@cache
def exported(kind: str, dtype: str, placement: str) -> export.Exported:
    """One module for all platforms; raises where one of them lacks an operation."""
    source, dispatch, first = prepared(kind, dtype, placement)
    return export.export(dispatch, platforms=PLATFORMS)(first, *source.feed(0, STEPS))


def loops_over_tables(module: str) -> list[int]:
    """For each loop of a module, how many arrays of the code table's shape it carries; those with none left out."""
    carried = [line.count(TABLE) for line in module.splitlines() if re.search(r"\bstablehlo\.while\b", line)]
    return [tables for tables in carried if tables]


def every_two() -> list:
    """Any two values of kind, dtype and placement together; with the third, where .ci/slow asks."""
    found = []
    for of in product(("train", "eval"), ("float32", "bfloat16"), ("replicated", "streamed")):
        odd = sum(value in ("eval", "bfloat16", "streamed") for value in of) % 2
        found.append(pytest.param(*of, marks=[pytest.mark.slow] if odd else []))
    return found


@pytest.mark.parametrize(("kind", "dtype", "placement"), every_two())
def test_a_dispatch_lowers_for_every_platform(kind, dtype, placement):
    found = exported(kind, dtype, placement)
    assert found.platforms == PLATFORMS
    module = found.mlir_module()  # read back from the bytes that an export keeps
    # The steps are one loop, which carries the code table, and in training both of its moments.
    assert loops_over_tables(module) == [3 if kind == "train" else 1]
    assert ("bf16" in module) == (dtype == "bfloat16")


def test_one_step_is_no_loop_over_steps():
    step = jax.jit(lambda params: jax.tree.map(lambda x: 2 * x, params))  # the search can find nothing
    _, _, params = prepared("eval", "float32", "replicated")
    assert loops_over_tables(export.export(step, platforms=PLATFORMS)(params).mlir_module()) == []


def test_what_a_platform_lacks_is_noticed():
    def on_one(x):
        return jax.lax.platform_dependent(x, cpu=jnp.sin)

    with pytest.raises(NotImplementedError, match="not found for platforms"):
        export.export(jax.jit(on_one), platforms=PLATFORMS)(1.0)


@pytest.mark.parametrize(
    ("kind", "dtype", "placement"),
    [
        ("train", "float32", "replicated"),
        ("eval", "bfloat16", "replicated"),
        pytest.param("eval", "bfloat16", "streamed", marks=pytest.mark.slow),
    ],
)
def test_the_exported_program_gives_the_same_numbers(kind, dtype, placement):
    source, dispatch, _ = prepared(kind, dtype, placement)
    state = jax.jit(fresh(dtype))(jax.random.key(0))

    def after(program, count: int) -> list[np.ndarray]:
        given = jax.tree.map(jnp.copy, state if kind == "train" else state["params"])
        return jax.tree.leaves(jax.device_get(program(given, *source.feed(0, count))))

    def largest_difference(one: list, two: list) -> float:
        """Relative above 1, absolute below."""
        pairs = [(np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in zip(one, two, strict=True)]
        return max(float(np.max(np.abs(a - b) / np.maximum(np.abs(a), 1))) for a, b in pairs)

    here = after(dispatch, STEPS)
    # Not bit for bit in training: one module for all platforms is compiled to another order of sums.
    assert largest_difference(here, after(jax.jit(exported(kind, dtype, placement).call), STEPS)) < 1e-6
    if kind == "train":
        assert largest_difference(here, after(dispatch, STEPS - 1)) > 1e-3  # the comparison can fail
