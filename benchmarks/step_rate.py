"""One pretraining step, compiled and timed: what `pretrain_step.py` and `gpu.py` have in common."""

import os
import platform
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax

from medbert_jax.data.rows import RowsConfig, plan_rows
from medbert_jax.data.sequences import PatientSequences
from medbert_jax.models.config import ModelConfig
from medbert_jax.models.med_bert import init
from medbert_jax.training.masking import MaskingConfig
from medbert_jax.training.optimizer import OptimizerConfig, make_optimizer
from medbert_jax.training.pretraining import TasksConfig, batches, init_state, make_train_step, step_shapes
from medbert_jax.training.progress import versions


@dataclass
class TimedStep:
    """A compiled step with its data; every call trains once more."""

    compile_s: float
    fill: float
    state: dict
    step: object
    stream: Iterator[dict]

    def run(self, steps: int) -> tuple[float, float]:
        """Train `steps` steps; returns (patients, seconds), host batches and the transfer included."""
        began, patients = time.perf_counter(), 0
        for _ in range(steps):
            batch = next(self.stream)
            patients += sum(int((rows["patients"] >= 0).sum()) for rows in batch["tiers"])
            self.state, metrics = self.step(self.state, batch)
        jax.block_until_ready((self.state, metrics))
        return patients, time.perf_counter() - began


def timed_step(
    sequences: PatientSequences, model: ModelConfig, rows: RowsConfig, masking: MaskingConfig | None = None
) -> TimedStep:
    """Plan, initialise, compile; the first step is not timed."""
    masking = masking or MaskingConfig()
    plan = plan_rows(sequences.lengths, rows, max_length=model.max_length)
    optimizer = make_optimizer(OptimizerConfig(), 1_000_000)
    state = jax.jit(partial(init_state, partial(init, model), optimizer))(jax.random.key(0))
    step = jax.jit(
        make_train_step(
            model=model,
            masking=masking,
            tasks=TasksConfig(),
            shapes=step_shapes(plan, masking),
            optimizer=optimizer,
            seed=0,
        ),
        donate_argnums=0,
    )
    timed = TimedStep(0.0, plan.fill, state, step, batches(sequences, plan, seed=0))
    timed.compile_s = timed.run(1)[1]
    return timed


def rates(timed: dict[str, TimedStep], *, rounds: int, steps: int) -> dict[str, dict]:
    """Patients per second of every entry, `rounds` interleaved rounds of `steps` steps: median and range."""
    measured: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(rounds):
        for name, one in timed.items():
            patients, seconds = one.run(steps)
            measured[name].append(patients / seconds)
    return {
        name: {
            "patients_per_s_median": statistics.median(values),
            "patients_per_s_range": [min(values), max(values)],
            "rounds": rounds,
            "steps_per_round": steps,
            "compile_s": timed[name].compile_s,
            "fill": timed[name].fill,
        }
        for name, values in measured.items()
    }


def machine() -> dict:
    """What the figures were measured on."""

    device = jax.devices()[0]
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
    return {
        "device": device.device_kind,
        "platform": device.platform,
        "cpu": cpu or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "versions": versions(),
    }
