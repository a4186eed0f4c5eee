"""One pretraining step, compiled and timed: what `pretrain_step.py` and `gpu.py` have in common."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np

from medbert_jax.data.row_plan import RowsConfig, plan_rows
from medbert_jax.data.sequences import PatientSequences
from medbert_jax.models.config import ModelConfig
from medbert_jax.models.med_bert import init
from medbert_jax.training.corpus import CorpusConfig
from medbert_jax.training.dispatch import make_train_dispatch
from medbert_jax.training.masking import MaskingConfig
from medbert_jax.training.optimizer import OptimizerConfig, make_optimizer
from medbert_jax.training.patient_source import PatientSource
from medbert_jax.training.pretraining import TasksConfig, init_state, make_train_step, step_shapes
from medbert_jax.training.sharding import MeshConfig, make_mesh


@dataclass
class TimedStep:
    """A compiled dispatch with its data; every call trains on."""

    compile_s: float
    fill: float
    state: dict
    dispatch: Callable
    source: PatientSource
    done: int = 0

    def run(self, steps: int) -> tuple[float, float]:
        """Train `steps` steps; returns (patients, seconds), plans, feeds and the transfer included."""
        began, patients, end = time.perf_counter(), [], self.done + steps
        while self.done < end:
            count = min(self.source.steps, end - self.done)
            self.state, metrics = self.dispatch(self.state, *self.source.feed(self.done, count))
            self.done += count
            self.source.prepare(self.done, min(self.source.steps, max(1, end - self.done)))
            patients.append(metrics["prolonged_los_weight"])
        jax.block_until_ready((self.state, metrics))
        return float(sum(np.asarray(one).sum() for one in patients)), time.perf_counter() - began


def timed_step(
    sequences: PatientSequences,
    model: ModelConfig,
    rows: RowsConfig,
    masking: MaskingConfig | None = None,
    corpus: CorpusConfig | None = None,
) -> TimedStep:
    """Plan, upload, initialise, compile; the first dispatch is not timed."""
    masking = masking or MaskingConfig()
    plan = plan_rows(sequences.lengths, rows, max_length=model.max_length)
    optimizer = make_optimizer(OptimizerConfig(), 1_000_000)
    state = jax.jit(partial(init_state, partial(init, model), optimizer))(jax.random.key(0))
    source = PatientSource(
        sequences, plan, make_mesh(MeshConfig()), corpus or CorpusConfig(steps_per_dispatch=20), seed=0, total=10**9
    )
    step = make_train_step(
        model=model,
        masking=masking,
        tasks=TasksConfig(),
        shapes=step_shapes(plan, masking),
        optimizer=optimizer,
        seed=0,
    )
    dispatch = jax.jit(make_train_dispatch(step, source.rows_of), donate_argnums=0)
    timed = TimedStep(0.0, plan.fill, state, dispatch, source)
    timed.compile_s = timed.run(1)[1]
    timed.run(1)  # compiled once more, for a state that lies where the dispatch has put it
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
