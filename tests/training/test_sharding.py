"""The same pretraining on 1, 8 × 1, 4 × 2 and 2 × 4 devices, and sizes that no mesh can have."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from medbert_jax.models.config import ModelConfig
from medbert_jax.training.sharding import MeshConfig, make_mesh, parameter_shardings

SCRIPT = """
import json
import re
from functools import partial

import jax
import numpy as np
from jax.sharding import AxisType, Mesh
from made_sequences import VOCABULARY_SIZE, made_sequences
from reference_batches import batches

from medbert_jax.data.row_plan import RowsConfig, plan_rows
from medbert_jax.models.config import ModelConfig
from medbert_jax.models.med_bert import init
from medbert_jax.training.masking import MaskingConfig
from medbert_jax.training.optimizer import OptimizerConfig, make_optimizer
from medbert_jax.training.pretraining import TasksConfig, init_state, make_train_step, step_shapes
from medbert_jax.training.sharding import (
    MeshConfig, make_mesh, over_rows, parameter_shardings, put_batch, replicated, state_shardings,
)

STEPS = 5
MODEL = ModelConfig(
    vocabulary_size=VOCABULARY_SIZE, hidden_size=32, layers=1, heads=2, feed_forward_size=32, max_visits=32,
    max_length=32,
)
MASKING = MaskingConfig(share=0.25)
SEQUENCES = made_sequences(160, seed=0)
PLAN = plan_rows(SEQUENCES.lengths, RowsConfig(batch_size=64, short_row=32), max_length=32, groups=8)
OPTIMIZER = make_optimizer(OptimizerConfig(learning_rate=1e-3, warmup_steps=0, schedule="constant"), STEPS)


def without_a_device(batch):
    # The fault: what the last of eight devices holds is not there.
    tiers = []
    for rows in batch["tiers"]:
        slots = rows["patient_slots"].copy()
        slots[-len(slots) // 8:] = 0
        tiers.append(rows | {"patient_slots": slots})
    return batch | {"tiers": tuple(tiers)}


def whole_tables(compiled):
    # How often the program puts a code table together on a device.
    return len(re.findall(rf"\\[{VOCABULARY_SIZE},{MODEL.hidden_size}\\][^=]* all-gather", compiled.as_text()))


def trained(mesh, planted=()):
    # Losses of every step and the parameters, first with the batches as they are, then with each planted fault.
    fresh = partial(init_state, partial(init, MODEL), OPTIMIZER)
    shapes = jax.eval_shape(fresh, jax.random.key(0))
    shardings = state_shardings(shapes, OPTIMIZER, parameter_shardings(MODEL, mesh), mesh)
    step = make_train_step(
        model=MODEL, masking=MASKING, tasks=TasksConfig(), shapes=step_shapes(PLAN, MASKING), optimizer=OPTIMIZER,
        seed=0,
    )
    start = jax.device_get(fresh(jax.random.key(0)))
    stream = batches(SEQUENCES, PLAN, seed=0)
    host = [next(stream) for _ in range(STEPS)]
    where = {"tiers": over_rows(mesh), "epoch": replicated(mesh)}
    step = jax.jit(step, in_shardings=(shardings, where), out_shardings=(shardings, replicated(mesh)))
    compiled = step.lower(shapes, put_batch(host[0], mesh)).compile()
    out = []
    for fault in (None, *planted):
        losses, state = [], jax.device_put(start, shardings)
        for batch in host:
            state, metrics = compiled(state, put_batch(fault(batch) if fault else batch, mesh))
            losses.append(float(metrics["loss"]))
        out.append((losses, jax.device_get(state["params"])))
    table = state["params"]["embeddings"]["code_table"]
    return start["params"], out, whole_tables(compiled), [shard.data.shape for shard in table.addressable_shards]


def compare(start, reference, other):
    # (largest relative difference of the losses, per leaf: distance of the two, distance from the start, size)
    losses = [abs(a - b) / abs(a) for a, b in zip(reference[0], other[0], strict=True)]
    leaves = {}
    for path, first in jax.tree_util.tree_leaves_with_path(start):
        one, two = reference[1], other[1]
        for key in path:
            one, two = one[key.key], two[key.key]
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        leaves[name] = [float(np.linalg.norm(one - two)), float(np.linalg.norm(one - first)), one.size]
    return {"losses": max(losses), "leaves": leaves}


alone = Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
start, (reference,), *_ = trained(alone)
report = {"rows": [tier.rows_per_step for tier in PLAN.tiers], "losses": reference[0]}
for data, model in ((8, 1), (4, 2), (2, 4)):
    planted = (without_a_device,) if model == 1 else ()
    _, runs, gathered, table = trained(make_mesh(MeshConfig(data=data, model=model)), planted)
    report[f"{data} x {model}"] = compare(start, reference, runs[0]) | {"table": table, "gathered": gathered}
    if planted:
        report["planted"] = compare(start, reference, runs[1])
table = jax.ShapeDtypeStruct((VOCABULARY_SIZE, MODEL.hidden_size), "float32")
mesh = make_mesh(MeshConfig(data=4, model=2))
cut = parameter_shardings(MODEL, mesh)["embeddings"]["code_table"]
whole = jax.jit(lambda table: table + 1, in_shardings=cut, out_shardings=replicated(mesh))
report["planted gathered"] = whole_tables(whole.lower(table).compile())
print(json.dumps(report))
"""


@pytest.fixture(scope="module")
def report():
    """What five steps came to on every mesh, in a process with eight devices."""
    checkout = Path(__file__).parents[2]
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # half the time to compile
        "PYTHONPATH": os.pathsep.join([str(checkout), str(checkout / "tests")]),
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
    }
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def far_apart(compared: dict) -> list[str]:
    """The leaves that two trainings have moved to different places: further than rounding takes them."""
    return [
        name
        for name, (distance, moved, size) in compared["leaves"].items()
        # The key's bias has no gradient at all, softmax takes it out: it moves by rounding alone.
        if distance > 1e-4 * moved + 1e-9 * size**0.5
    ]


@pytest.mark.parametrize(("mesh", "table"), [("8 x 1", [64, 32]), ("4 x 2", [32, 32]), ("2 x 4", [16, 32])])
def test_every_mesh_trains_the_same_model(report, mesh, table):
    assert report[mesh]["losses"] < 1e-5
    assert far_apart(report[mesh]) == []
    assert report[mesh]["table"] == [table] * 8  # the code table is cut along the model axis
    assert report["losses"][-1] < 0.95 * report["losses"][0]


def test_the_code_table_is_nowhere_put_together(report):
    assert [report[mesh]["gathered"] for mesh in ("4 x 2", "2 x 4")] == [0, 0]
    assert report["planted gathered"] == 1


def test_a_device_whose_patients_are_lost_is_noticed(report):
    assert report["planted"]["losses"] > 1e-2
    leaves = report["planted"]["leaves"]
    assert set(far_apart(report["planted"])) == {name for name in leaves if not name.endswith("key/bias")}


def test_a_vocabulary_that_the_model_axis_does_not_divide_is_refused():
    mesh = jax.sharding.AbstractMesh((4, 2), ("data", "model"))
    model = ModelConfig(vocabulary_size=65, hidden_size=32, layers=1, heads=2, feed_forward_size=32)
    rule = r"vocabulary_size must be divisible by mesh\.model: got 65 and 2; set mesh\.model to a divisor, or to 1"
    with pytest.raises(ValueError, match=rule):
        parameter_shardings(model, mesh)


@pytest.mark.parametrize(("data", "model", "got"), [(3, 1, "3 × 1"), (1, 2, "1 × 2"), (-1, -1, "-1 × -1")])
def test_a_mesh_of_other_devices_than_there_are_is_refused(data, model, got):
    devices = jax.device_count()
    if data * model == devices and data > 0:
        pytest.skip(f"there are {devices} devices")
    with pytest.raises(ValueError, match=rf"must equal the number of devices: got {got} and {devices}; set data to 0"):
        make_mesh(MeshConfig(data=data, model=model))
