"""Pretrain Med-BERT on one dataset of patient sequences: masked codes and prolonged length of stay.

    python run_pretrain.py configs/pretrain_small.py --dataset data/ehr_pretraining/NAME/1.0.0 --run runs/NAME

Every field of the preset is an option (`--help`). The same command again resumes the run from its last good
checkpoint; SIGTERM or Ctrl-C saves and ends it with exit code 75. Duration and expected result stand in each preset.
Paper: Methods, "Pre-training Med-BERT".
"""

from medbert_jax.command_end import listen

if __name__ == "__main__":  # before what takes seconds to import
    listen("run_pretrain.py", resumes=True)

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path

import jax
import numpy as np

from medbert_jax.data.token_store import read_metadata, read_vocabulary
from medbert_jax.evaluation.learning_curves import draw_curves
from medbert_jax.models.med_bert import init
from medbert_jax.printed_tables import print_tables
from medbert_jax.training.checkpointing import good_step, latest_good_step, restore_step
from medbert_jax.training.command_line import run_script
from medbert_jax.training.config import PretrainConfig
from medbert_jax.training.dispatch import make_eval_dispatch, make_train_dispatch
from medbert_jax.training.dry_run import dry_run
from medbert_jax.training.interruption import Interrupted, Interruption
from medbert_jax.training.kept_programs import keep_programs
from medbert_jax.training.lineage import check_dataset, check_split, check_vocabulary
from medbert_jax.training.not_finite import check_finite, make_row_check, rows_not_finite
from medbert_jax.training.optimizer import make_optimizer
from medbert_jax.training.pace import Pace, dispatched
from medbert_jax.training.patient_labels import told_labels
from medbert_jax.training.patient_source import PatientSource
from medbert_jax.training.pretraining import init_state, make_eval_step, make_train_step, step_shapes, summarize
from medbert_jax.training.pretraining_data import load_split
from medbert_jax.training.processes import join_processes
from medbert_jax.training.progress import MetricsLog, Progress, announce, say, versions, versions_of
from medbert_jax.training.run_directory import RunDirectory
from medbert_jax.training.sharding import make_mesh, put_global, replicated
from medbert_jax.training.step_writer import StepWriter
from medbert_jax.training.tensorboard import TensorBoard, check_extra
from medbert_jax.training.validation import Validations, tell_one_class, validate
from medbert_jax.training.vocabulary_padding import StateLayout

# What may change when a run is resumed; `steps` is not among it, because the learning rate decays over all of them.
MAY_DIFFER = (
    "mesh",
    "processes",
    "corpus",
    "checkpoint_every",
    "evaluate_every",
    "log_every",
    "validation_size",
    "dataset",
    "patient_labels",
    "run",
    "cache_dir",
    "tensorboard",
    "dry_run",
)


def main(config: PretrainConfig) -> Path:
    """Train up to the configured number of steps; returns the run directory. Interrupted after SIGTERM or Ctrl-C.

    A dry run prints what it found, and returns where the run would be.
    """
    if config.dry_run:
        print_tables(dry_run(config, main))
        return Path(config.run)
    with ExitStack() as stack:
        return pretrain(config, stack.enter_context)


def pretrain(config: PretrainConfig, opened: Callable) -> Path:
    """The nine sections; what is `opened` is closed, whatever ends them."""
    # ── 1 Announce ────────────────────────────────────────────────────────────────────────────────────────────────────
    join_processes(config.processes)
    keep_programs()
    mesh = make_mesh(config.mesh)
    announce("pretraining", config, mesh)
    check_extra(config.tensorboard)

    # ── 2 Data: vocabulary, token store, row plan, corpus; and the run that they make ─────────────────────────────────
    metadata = read_metadata(config.dataset)
    check_dataset(metadata, kind="pretraining", preset=config.dataset_preset)
    vocabulary = read_vocabulary(config.dataset)
    if config.init_from:
        check_vocabulary(config.init_from, vocabulary)
        check_split(config.init_from, metadata["split"])
    data, plan = load_split(config, vocabulary, "train", groups=mesh.shape["data"])
    others, others_plan = load_split(config, vocabulary, "validation", groups=mesh.shape["data"])
    config = config.for_dataset(vocabulary, plan.steps_per_epoch)
    say(f"{len(data):,} training patients, rows filled to {plan.fill:.1%}, {config.steps:,} steps")
    interruption = opened(Interruption())
    described = asdict(config) | {"dataset_hash": metadata["dataset_hash"], "split": metadata["split"]}
    described |= told_labels(config.patient_labels)
    card = {"dataset": config.dataset, "dataset hash": metadata["dataset_hash"], "split": metadata["split"]}
    run = RunDirectory.create_or_open(
        config.run, config=described, vocabulary=vocabulary, may_differ=MAY_DIFFER, card=card
    )
    opened(run)
    source = opened(PatientSource(data, plan, mesh, config.corpus, seed=config.seed, total=config.steps))
    once = others_plan.steps_per_epoch
    held_out = opened(PatientSource(others, others_plan, mesh, config.corpus, seed=0, total=once))
    say(f"corpus {source.placement}")
    tell_one_class(others.outcomes)

    # ── 3 Model: its parameters from a key, and what it is asked in validation ────────────────────────────────────────
    fresh_params = partial(init, config.model)
    task = {"model": config.model, "masking": config.masking, "seed": config.seed}
    eval_step = make_eval_step(shapes=step_shapes(held_out.plan, config.masking), **task)

    # ── 4 Optimizer, and the step that it takes ───────────────────────────────────────────────────────────────────────
    optimizer = make_optimizer(config.optimizer, config.steps)
    fresh_state = partial(init_state, fresh_params, optimizer)
    shapes = step_shapes(source.plan, config.masking)
    train_step = make_train_step(tasks=config.tasks, shapes=shapes, optimizer=optimizer, **task)

    # ── 5 Mesh and shardings: shapes first, so that nothing is ever whole on one device ───────────────────────────────
    layout = StateLayout(fresh_state, optimizer, config.model, mesh)

    # ── 6 State: resume this run? else start from a checkpoint? else from scratch ─────────────────────────────────────
    step, window = latest_good_step(run.path, warn=say) or 0, ()
    run.forget_metrics_after(step)
    if step:
        stored = restore_step(run.path, step, layout.stored["params"], layout.stored["opt_state"])
        window = stored.progress.get("window", ())
        run.note_versions(step, versions_of(stored.progress))
        number = put_global(np.int32(step), replicated(mesh))
        state = layout.from_disk({"params": stored.params, "opt_state": stored.opt_state, "step": number})
        say(f"resumed from step {step:,}")
    else:
        state = layout.fresh(jax.random.key(config.seed))
        if config.init_from:
            stored = restore_step(config.init_from, good_step(config.init_from), layout.stored["params"])
            state = layout.from_disk(layout.to_disk(state) | {"params": stored.params})

    # ── 7 Compile: many steps are one program ─────────────────────────────────────────────────────────────────────────
    everywhere = replicated(mesh)
    train_dispatch = jax.jit(
        make_train_dispatch(train_step, source.rows_of),
        in_shardings=(layout.shardings, *source.shardings),
        out_shardings=(layout.shardings, everywhere),
        donate_argnums=0,
    )
    eval_dispatch = jax.jit(
        make_eval_dispatch(eval_step, held_out.rows_of),
        in_shardings=(layout.shardings["params"], *held_out.shardings),
        out_shardings=everywhere,
    )
    row_check = make_row_check(source.rows_of, model=config.model, masking=config.masking, seed=config.seed)
    row_check = jax.jit(row_check, out_shardings=everywhere)

    # ── 8 Loop: finished dispatches, each fetched after the next one was sent; at edges `state` is that of `step` ─────
    board = opened(TensorBoard(run.path / "tensorboard")) if config.tensorboard else None
    progress = Progress(run.metrics_path, total=config.steps, start=step, board=board)
    edges = (config.evaluate_every, config.checkpoint_every)
    log = MetricsLog(progress, summarize, edges=(*edges, config.log_every), window=window)
    eval_pace = Pace((), config.corpus, total=held_out.plan.steps_per_epoch)
    evaluate = partial(validate, eval_dispatch, source=held_out, pace=eval_pace, interruption=interruption)
    validations = Validations(evaluate, progress, config.evaluate_every, interruption)
    validations.make(step, state["params"])  # one that the run was stopped in
    pace, writer = Pace(edges, config.corpus, total=config.steps), opened(StepWriter(run))
    finished = dispatched(train_dispatch, state, source, pace, start=step, interruption=interruption)
    for step, state, metrics in finished:
        writer.check()
        check_finite(step, metrics, partial(rows_not_finite, state=state, row_check=row_check, source=source))
        log.add(step, metrics)
        validations.make(step, state["params"])
        if progress.due(step, config.checkpoint_every) or interruption.stopping:
            stored, left = layout.to_disk(state), {"step": step, "window": log.window, "versions": versions()}
            writer.begin(step, params=stored["params"], opt_state=stored["opt_state"], progress=left)
    writer.wait()

    # ── 9 Finish: the path printed, or that the run goes on another time ──────────────────────────────────────────────
    if step < config.steps or validations.missing(step):
        raise Interrupted(f"asked to stop: step {step:,} is saved in {run.path}; the same command goes on from there")
    if jax.process_index() == 0:
        draw_curves(run.path)
    say(f"checkpoint in {run.path}")
    return run.path


if __name__ == "__main__":
    run_script(main, PretrainConfig, "run_pretrain.py")
