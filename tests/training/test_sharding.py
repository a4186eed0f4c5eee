"""Pretraining on every mesh of eight devices as on one, by the sources and dispatches of a run; what devices exchange.

Run as a script, in a process with eight devices, this file trains and prints what the tests then look at.
"""

import json
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import AxisType, Mesh
from made_sequences import TINY_MODEL, made_sequences

from medbert_jax.data.row_plan import RowsConfig, plan_rows
from medbert_jax.models.med_bert import init
from medbert_jax.training import pretraining
from medbert_jax.training.corpus import CorpusConfig
from medbert_jax.training.dispatch import make_train_dispatch
from medbert_jax.training.losses import cross_entropy
from medbert_jax.training.masked_code_loss import masked_code_loss
from medbert_jax.training.masking import MaskingConfig
from medbert_jax.training.optimizer import OptimizerConfig, make_optimizer
from medbert_jax.training.patient_source import PatientSource
from medbert_jax.training.pretraining import TasksConfig, init_state, make_train_step, step_shapes
from medbert_jax.training.sharding import (
    MeshConfig,
    make_mesh,
    parameter_shardings,
    replicated,
    state_shardings,
    with_shardings,
)

pytestmark = pytest.mark.timeout(900)  # the fixture compiles ten programs
DEVICES = 8
RUNS = [
    (data, DEVICES // data, placement)
    for data, placements in ((8, 2), (4, 1), (2, 2), (1, 1))
    for placement in ("replicated", "sharded")[:placements]
]
COUNTS = (7, 10, 3)  # steps of the dispatches: twenty in all, over several epochs
MODEL = replace(TINY_MODEL, vocabulary_size=128, hidden_size=24, feed_forward_size=20)
MASKING = MaskingConfig(share=0.25)
OPTIMIZER = make_optimizer(OptimizerConfig(learning_rate=1e-3, warmup_steps=0, schedule="constant"), sum(COUNTS))
ROWS = RowsConfig(batch_size=64, short_row=32)
TWO_TIERS = replace(ROWS, short_row=16)


def without_the_last_device(feed: dict) -> dict:
    """The fault: what the last device adds to the gradient is dropped. A loss is a sum over a constant."""
    for tier in feed["tiers"]:
        tier["patients"][:, -tier["patients"].shape[1] // DEVICES :] = -1
    return feed


def mean_of_means(logits, targets, weights):
    """The fault: the mean over the devices of their own means, though some hold more than others."""
    parts = (x.reshape(DEVICES, -1, *x.shape[2:]) for x in (logits, targets, weights))
    sums, shares = jax.vmap(cross_entropy)(*parts)
    return jnp.mean(sums / jnp.maximum(shares, 1)) * jnp.sum(shares), jnp.sum(shares)


def mean_of_code_means(states, table, bias, targets, weights, *, codes):
    """The same fault in the masked-code loss, whose groups are those of the devices."""
    logits = jnp.where(jnp.arange(len(bias)) < codes, states @ table.T + bias[None, None, :], -1e9)
    return mean_of_means(logits, targets, weights)[0], jnp.sum((jnp.argmax(logits, axis=-1) == targets) & weights)


fresh = partial(init_state, partial(init, MODEL), OPTIMIZER)


@cache
def sequences():
    return made_sequences(240, seed=0)


@cache
def start() -> dict:
    """The state that every training begins from."""
    return jax.device_get(jax.jit(fresh)(jax.random.key(0)))


def jitted(mesh: Mesh, placement: str, rows: RowsConfig = ROWS) -> tuple:
    """A source, the shardings of the state, the dispatch jitted as `run_pretrain` does, and what it is compiled for."""
    plan = plan_rows(sequences().lengths, rows, max_length=32, groups=mesh.shape["data"])
    config = CorpusConfig(placement=placement, steps_per_dispatch=max(COUNTS))
    source = PatientSource(sequences(), plan, mesh, config, seed=0, total=sum(COUNTS))
    step = make_train_step(
        model=MODEL,
        masking=MASKING,
        tasks=TasksConfig(),
        shapes=step_shapes(plan, MASKING),
        optimizer=OPTIMIZER,
        seed=0,
    )
    shapes = jax.eval_shape(fresh, jax.random.key(0))
    shardings = state_shardings(shapes, OPTIMIZER, parameter_shardings(MODEL, mesh), mesh)
    dispatch = jax.jit(
        make_train_dispatch(step, source.rows_of),
        in_shardings=(shardings, *source.shardings),
        out_shardings=(shardings, replicated(mesh)),
        donate_argnums=0,
    )
    given = with_shardings(shapes, shardings), *source.feed(0, 1)
    return source, shardings, dispatch, given


def compiled(mesh: Mesh, placement: str) -> tuple:
    """A source, the shardings of the state, and the compiled dispatch."""
    source, shardings, dispatch, given = jitted(mesh, placement)
    return source, shardings, dispatch.lower(*given).compile()


def trained(source: PatientSource, shardings: dict, program: jax.stages.Compiled) -> dict:
    """Losses of all steps, the parameters, shapes of the code table's parts, and what the program exchanges."""
    state, losses, done = jax.device_put(start(), shardings), [], 0
    for count in COUNTS:
        state, metrics = program(state, *source.feed(done, count))
        losses += np.asarray(metrics["loss"])[:count].tolist()
        done += count
    table = state["params"]["embeddings"]["code_table"]
    return {
        "losses": losses,
        "params": jax.device_get(state["params"]),
        "table": [list(shard.data.shape) for shard in table.addressable_shards],
        "exchanged": exchanged(program.as_text()),
    }


def exchanged(text: str) -> list[tuple[str, list[int]]]:
    """(operation, shape of a result) of everything that a compiled program sends between devices."""
    found = re.findall(
        r"= (.*?) (all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)(?:-start)?\(", text
    )
    return [
        (operation, [int(size) for size in shape.split(",") if size])
        for results, operation in found
        for shape in re.findall(r"\w+\[([\d,]*)\]", results)
    ]


def compared(reference: dict, other: dict) -> dict:
    """Largest relative difference of the losses; per leaf the distance of the two and that from the start."""
    losses = [abs(a - b) / abs(a) for a, b in zip(reference["losses"], other["losses"], strict=True)]
    leaves = {}
    for path, first in jax.tree_util.tree_leaves_with_path(start()["params"]):
        one, two = reference["params"], other["params"]
        for key in path:
            one, two = one[key.key], two[key.key]
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        leaves[name] = float(np.linalg.norm(one - two)), float(np.linalg.norm(one - first))
    return {"losses": max(losses), "leaves": leaves}


def script() -> None:
    """Print what twenty steps came to on every mesh, and with each planted fault, as JSON."""
    alone = Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    reference = trained(*compiled(alone, "replicated"))
    report = {"losses": reference["losses"]}
    for data, model, placement in RUNS:
        program = compiled(make_mesh(MeshConfig(data, model)), placement)
        run = trained(*program)
        kept = {"table": run["table"], "exchanged": run["exchanged"]}
        report[f"{data} x {model} {placement}"] = compared(reference, run) | kept
        if (data, placement) == (DEVICES, "replicated"):
            source, honest = program[0], program[0].host_feed
            source.host_feed = lambda start, count, honest=honest: without_the_last_device(honest(start, count))
            report["a device less"] = compared(reference, trained(*program))
    pretraining.cross_entropy, pretraining.masked_code_loss = mean_of_means, mean_of_code_means
    report["mean of means"] = compared(reference, trained(*compiled(make_mesh(MeshConfig(DEVICES, 1)), "replicated")))
    pretraining.cross_entropy, pretraining.masked_code_loss = cross_entropy, masked_code_loss
    jax.config.update("jax_disable_most_optimizations", False)
    both = make_mesh(MeshConfig(2, 4))
    source, shardings, dispatch, given = jitted(both, "sharded", TWO_TIERS)
    module = export.export(dispatch, platforms=("cpu", "cuda", "tpu"))(*given)
    report["exported"] = [module.platforms, module.nr_devices]
    report["optimized"] = exchanged(dispatch.lower(*given).compile().as_text())
    # The search must find what it looks for.
    whole = jax.jit(
        lambda table_VD, column_C: (table_VD * 2, column_C * 2),
        in_shardings=(shardings["params"]["embeddings"]["code_table"], source.shardings[0].code_ids),
        out_shardings=(replicated(both),) * 2,
    )
    lowered = whole.lower(start()["params"]["embeddings"]["code_table"], source.feed(0, 1)[0].code_ids)
    report["put together"] = exchanged(lowered.compile().as_text())
    print(json.dumps(report))


@pytest.fixture(scope="module")
def report():
    """What the script prints."""
    checkout = Path(__file__).parents[2]
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # half the time to compile
        "PYTHONPATH": os.pathsep.join([str(checkout), str(checkout / "tests")]),
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={DEVICES}",
    }
    done = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def far_apart(found: dict) -> list[str]:
    """The leaves that two trainings have moved to different places: further than rounding takes them."""
    # The key's bias has no gradient at all, softmax takes it out: it moves by rounding alone.
    moving = {name: norms for name, norms in found["leaves"].items() if not name.endswith("key/bias")}
    assert 0 < len(moving) < len(found["leaves"])
    return [name for name, (distance, moved) in moving.items() if distance > 1e-4 * moved]


def whole_arrays(exchanges: list) -> list:
    """All-gathers whose result has as many elements as the code table or a column of the corpus."""
    smallest = min(MODEL.vocabulary_size * MODEL.hidden_size, int(sequences().code_offsets[-1]))
    return [shape for operation, shape in exchanges if operation == "all-gather" and math.prod(shape) >= smallest]


@pytest.mark.parametrize(("data", "model", "placement"), RUNS)
def test_every_mesh_trains_the_same_model(report, data, model, placement):
    found = report[f"{data} x {model} {placement}"]
    assert found["losses"] < 1e-5
    assert far_apart(found) == []
    for name, (_, moved) in found["leaves"].items():
        assert name.endswith("key/bias") == (moved < 1e-5)
    # The code table is cut along the model axis.
    assert found["table"] == [[MODEL.vocabulary_size // model, MODEL.hidden_size]] * DEVICES
    assert len(report["losses"]) == 20 and report["losses"][-1] < 0.9 * report["losses"][0]


@pytest.mark.parametrize("fault", ["a device less", "mean of means"])
def test_a_planted_fault_is_noticed(report, fault):
    found = report[fault]
    assert found["losses"] > 1e-4
    assert set(far_apart(found)) == {name for name in found["leaves"] if not name.endswith("key/bias")}


@pytest.mark.parametrize(
    "program", [*(f"{data} x {model} {placement}" for data, model, placement in RUNS), "optimized"]
)
def test_neither_code_table_nor_corpus_is_put_together(report, program):
    exchanges = report[program] if program == "optimized" else report[program]["exchanged"]
    assert exchanges  # the search reads this program
    assert whole_arrays(exchanges) == []
    if "8 x 1" not in program:  # where the code table is cut, its gradient is too
        table = sorted((MODEL.vocabulary_size, MODEL.hidden_size))
        assert not [operation for operation, shape in exchanges if sorted(shape) == table]


def test_what_is_put_together_is_found(report):
    codes = int(sequences().code_offsets[-1])
    column = codes + -codes % 2  # cut over the two devices of the data axis
    table = [MODEL.vocabulary_size, MODEL.hidden_size]
    assert sorted(whole_arrays(report["put together"])) == sorted([table, [column]])


def test_a_dispatch_over_both_axes_lowers_for_every_platform(report):
    assert report["exported"] == [["cpu", "cuda", "tpu"], DEVICES]


@pytest.mark.parametrize(("data", "model", "got"), [(3, 1, "3 × 1"), (1, 2, "1 × 2")])
def test_a_mesh_of_other_devices_than_there_are_is_refused(data, model, got):
    devices = jax.device_count()
    if data * model == devices:
        pytest.skip(f"there are {devices} devices")
    with pytest.raises(ValueError, match=rf"must equal the number of devices: got {got} and {devices}; set data to 0"):
        make_mesh(MeshConfig(data=data, model=model))


def test_a_mesh_of_fewer_than_no_devices_is_refused():
    rule = r"^mesh\.data must be at least 0: got -1; raise it\nmesh\.model must be at least 1: got -1; raise it$"
    with pytest.raises(ValueError, match=rule):
        MeshConfig(data=-1, model=-1)


if __name__ == "__main__":
    script()
