"""What a pretraining will cost, before it is begun: shapes, parameters, memory, time from a rate that is measured."""

import resource
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import numpy as np

from medbert_jax.data.row_plan import RowPlan
from medbert_jax.data.token_store import read_vocabulary
from medbert_jax.disk.scratch_folder import scratch_beside
from medbert_jax.models.config import ModelConfig
from medbert_jax.models.med_bert import init
from medbert_jax.printed_tables import Table
from medbert_jax.training.config import PretrainConfig
from medbert_jax.training.pretraining_data import load_split
from medbert_jax.training.progress import metrics_row
from medbert_jax.training.sharding import make_mesh

STEPS = 60
"""That are made, and forgotten; the first half warms up."""


def dry_run(config: PretrainConfig, pretrain: Callable[[PretrainConfig], Path]) -> list[Table]:
    """Make the first steps of a run in a folder that is removed, by `pretrain` itself, and say what all of them take.

    The rate is that of whole dispatches after the compilation, validation and checkpoints left out. Nothing is written
    to the run directory, which need not be given.
    """
    vocabulary = read_vocabulary(config.dataset)
    _, plan = load_split(config, vocabulary, "train", groups=make_mesh(config.mesh).shape["data"])
    whole = config.for_dataset(vocabulary, plan.steps_per_epoch)
    beside = Path(config.run) if config.run else Path.cwd() / "run"
    with scratch_beside(beside) as scratch:
        # The learning rate is that of a run of so few steps, which costs the same; validation is asked of one patient.
        optimizer = replace(config.optimizer, warmup_steps=0)
        short = replace(
            config, steps=STEPS, warmup_share=0.0, optimizer=optimizer, dry_run=False, run=str(scratch / "run")
        )
        short = replace(short, log_every=STEPS // 2, checkpoint_every=STEPS, evaluate_every=STEPS, validation_size=1)
        run = pretrain(short)
        rows = [row for row in map(metrics_row, (run / "metrics.jsonl").read_bytes().split(b"\n")) if row]
        size = sum(path.stat().st_size for path in (run / "steps").rglob("*") if path.is_file())
    rate = [row["patients_per_second"] for row in rows if row["kind"] == "train"][-1]
    return [_shapes(plan), _parameters(whole.model), _costs(whole, plan, rate, size)]


def _shapes(plan: RowPlan) -> Table:
    rows = tuple(
        (f"{tier.rows_per_step:,}", f"{tier.row_length:,}", f"{tier.patients_per_row:,}", f"{tier.share_of_steps:.0%}")
        for tier in plan.tiers
    )
    note = f"{plan.patients_per_step:,.1f} patients a step, {plan.fill:.1%} of the slots filled in an epoch."
    return Table("Rows of a step", ("rows", "slots", "patients at most", "of the steps"), rows, ">>>>", (note,))


def _parameters(model: ModelConfig) -> Table:
    shapes = jax.eval_shape(partial(init, model), jax.random.key(0))
    count = {name: sum(leaf.size for leaf in jax.tree.leaves(part)) for name, part in shapes.items()}
    rows = tuple(
        (name.replace("_", " "), f"{number:,}") for name, number in (*count.items(), ("all", sum(count.values())))
    )
    return Table("Parameters", ("", "parameters"), rows, "<>", (f"{model.vocabulary_size:,} codes, float32.",))


def _costs(config: PretrainConfig, plan: RowPlan, rate: float, size: int) -> Table:
    seconds = config.steps * plan.patients_per_step / rate
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    rows = [
        ("steps", f"{config.steps:,} ({config.steps / plan.steps_per_epoch:,.2f} epochs)"),
        ("rate", f"{rate:,.0f} patients/s"),
        ("training", _duration(seconds)),
        ("memory of this process at its highest", f"{peak / 1e9:.1f} GB"),
        ("one checkpoint", f"{size / 1e6:,.0f} MB"),
    ]
    devices = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in jax.local_devices()]
    if known := [peak for peak in devices if peak]:
        rows.append(("memory of a device at its highest", f"{np.max(known) / 1e9:.1f} GB"))
    kind = jax.devices()[0]
    note = (
        f"Measured in {STEPS // 2} steps on {jax.device_count()} × {kind.device_kind} ({kind.platform}), after"
        f" {STEPS // 2} that compiled; without validation and checkpoints."
    )
    return Table("Costs", ("", ""), tuple(rows), "<>", (note,))


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
