"""Pretraining steps, compiled and timed: what `pretrain_step.py`, `preset_steps.py` and `gpu_sections.py` share."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
from side_by_side import spread

from medbert_jax.data.row_plan import RowsConfig, plan_rows
from medbert_jax.data.sequences import PatientSequences
from medbert_jax.models.config import ModelConfig
from medbert_jax.models.med_bert import init
from medbert_jax.training.corpus import CorpusConfig
from medbert_jax.training.dispatch import make_train_dispatch
from medbert_jax.training.masking import MaskingConfig
from medbert_jax.training.optimizer import OptimizerConfig, make_optimizer
from medbert_jax.training.pace import Pace, dispatched
from medbert_jax.training.patient_source import PatientSource
from medbert_jax.training.pretraining import TasksConfig, init_state, make_train_step, step_shapes
from medbert_jax.training.sharding import MeshConfig, make_mesh, replicated
from medbert_jax.training.vocabulary_padding import StateLayout

ENDLESS = 10**9
"""Steps."""
WARM_UP = 6
"""Dispatches before those of `train_for` that are timed: the first compile, the next ones find the pace."""


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

    def train_for(self, seconds: float) -> dict:
        """Train as `run_pretrain.py` does, a dispatch always under way, for so long at least; the last use of it.

        Seconds are from the end of a dispatch to that of a later one. RuntimeError where a loss was not finite.
        """
        pace = Pace((), self.source.config, total=ENDLESS)
        steps, patients, rates, number, spent, last = 0, 0.0, [], 0, 0.0, 0.0
        for _, _, metrics in dispatched(self.dispatch, self.state, self.source, pace, start=self.done):
            now, number = time.perf_counter(), number + 1
            if not metrics["finite"].all():
                raise RuntimeError(f"losses must be finite: got one that is not in dispatch {number}; nothing is timed")
            if number > WARM_UP:
                trained = float(metrics["prolonged_los_weight"].sum())
                steps, patients, spent = steps + len(metrics["finite"]), patients + trained, spent + now - last
                rates.append(trained / (now - last))
            last = now
            if spent >= seconds:
                break
        return {
            "patients_per_s": patients / spent,
            "patients_per_s_of_dispatches": spread(rates),
            "step_ms": 1e3 * spent / steps,
            "patients_per_step": patients / steps,
            "steps": steps,
            "dispatches": len(rates),
            "seconds": spent,
            "loss_at_the_end": float(metrics["loss"][-1]),
        }


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
    optimizer, mesh = make_optimizer(OptimizerConfig(), 1_000_000), make_mesh(MeshConfig())
    layout = StateLayout(partial(init_state, partial(init, model), optimizer), optimizer, model, mesh)
    source = PatientSource(sequences, plan, mesh, corpus or CorpusConfig(steps_per_dispatch=20), seed=0, total=ENDLESS)
    step = make_train_step(
        model=model,
        masking=masking,
        tasks=TasksConfig(),
        shapes=step_shapes(plan, masking),
        optimizer=optimizer,
        seed=0,
    )
    dispatch = jax.jit(
        make_train_dispatch(step, source.rows_of),
        in_shardings=(layout.shardings, *source.shardings),
        out_shardings=(layout.shardings, replicated(mesh)),
        donate_argnums=0,
    )
    timed = TimedStep(0.0, plan.fill, layout.fresh(jax.random.key(0)), dispatch, source)
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
