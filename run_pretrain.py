"""Pretrain Med-BERT on one dataset of patient sequences: masked codes and prolonged length of stay.

    python run_pretrain.py configs/pretrain_small.py --dataset data/ehr_pretraining/NAME/1.0.0 --run runs/NAME

Every field of the preset is an option (`--help`). The same command again resumes the run from its last good
checkpoint; SIGTERM saves and ends it with exit code 75. Duration and expected result stand in each preset. Paper:
Methods, "Pre-training Med-BERT".
"""

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import jax
import numpy as np

from medbert_jax.data.row_plan import RowPlan, RowsConfig, plan_rows
from medbert_jax.data.rows import fit_to_model
from medbert_jax.data.sequences import PatientSequences
from medbert_jax.data.token_store import open_token_store, read_metadata
from medbert_jax.data.vocabulary import Vocabulary
from medbert_jax.models.med_bert import init
from medbert_jax.training.checkpointing import good_step, latest_good_step, restore_step, save_step
from medbert_jax.training.cohort_data import training_subset
from medbert_jax.training.command_line import run_script
from medbert_jax.training.config import PretrainConfig
from medbert_jax.training.dispatch import make_eval_dispatch, make_train_dispatch
from medbert_jax.training.interruption import Interrupted, Interruption
from medbert_jax.training.lineage import check_dataset, check_split, check_vocabulary
from medbert_jax.training.not_finite import NotFinite, make_row_check
from medbert_jax.training.optimizer import make_optimizer
from medbert_jax.training.pace import MetricsLog, Pace
from medbert_jax.training.patient_source import PatientSource
from medbert_jax.training.pretraining import init_state, make_eval_step, make_train_step, step_shapes, summarize
from medbert_jax.training.processes import join_processes
from medbert_jax.training.progress import Progress, announce, say
from medbert_jax.training.run_directory import RunDirectory
from medbert_jax.training.sharding import make_mesh, put_global, replicated
from medbert_jax.training.validation import validate
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
    "run",
)


def main(config: PretrainConfig) -> Path:
    """Train up to the configured number of steps; returns the run directory. Raises Interrupted after SIGTERM."""
    # ── 1 Announce ────────────────────────────────────────────────────────────────────────────────────────────────────
    join_processes(config.processes)
    mesh = make_mesh(config.mesh)
    announce("pretraining", config, mesh)

    # ── 2 Data: vocabulary, token store, row plan ─────────────────────────────────────────────────────────────────────
    metadata = read_metadata(config.dataset)
    check_dataset(metadata, kind="pretraining", preset=config.dataset_preset)
    vocabulary = Vocabulary.read(Path(config.dataset) / "vocabulary.tsv")
    if config.init_from:
        check_vocabulary(config.init_from, vocabulary)
        check_split(config.init_from, metadata["split"])
    split_data = partial(load_split, config, vocabulary, mesh)
    data, plan = split_data("train", config.rows)
    # Every validation patient counts once, whatever the batching of the training.
    short = min(config.rows.short_row, config.model.max_length)
    held_out_rows = replace(config.rows, batching="rows", short_row=short, long_row=0)
    held_out, held_out_plan = split_data("validation", held_out_rows)
    config = config.for_dataset(vocabulary, plan.steps_per_epoch)
    say(f"{len(data):,} training patients, rows filled to {plan.fill:.1%}, {config.steps:,} steps")

    # ── 3 Model, and the directory that will hold it ──────────────────────────────────────────────────────────────────
    stored = asdict(config) | {"dataset_hash": metadata["dataset_hash"], "split": metadata["split"]}
    card = {"dataset": config.dataset, "dataset hash": metadata["dataset_hash"], "split": metadata["split"]}
    with (
        Interruption() as interruption,
        RunDirectory.create_or_open(
            config.run, config=stored, vocabulary=vocabulary, may_differ=MAY_DIFFER, card=card
        ) as run,
        PatientSource(data, plan, mesh, config.corpus, seed=config.seed, total=config.steps) as source,
        PatientSource(
            held_out, held_out_plan, mesh, config.corpus, seed=0, total=held_out_plan.steps_per_epoch
        ) as held_out_source,
    ):
        say(f"corpus {source.placement}")
        return train(run, config, source, held_out_source, mesh, interruption)


def load_split(
    config: PretrainConfig, vocabulary: Vocabulary, mesh: jax.sharding.Mesh, split: str, rows: RowsConfig
) -> tuple[PatientSequences, RowPlan]:
    """The patients of a split, cut to the model, and their rows."""
    sequences, length = open_token_store(config.dataset, split), config.model.max_length
    if split == "validation" and 0 < config.validation_size < len(sequences):
        sequences = sequences.take(training_subset(sequences.patient_id, config.validation_size, 0))
    limits = {"vocabulary_size": vocabulary.size, "max_visits": config.model.max_visits, "max_length": length}
    sequences, note = fit_to_model(sequences, **limits, keep=config.too_long)
    say(f"{split}: {note}")
    return sequences, plan_rows(sequences.lengths, rows, max_length=length, groups=mesh.shape["data"])


def train(
    run: RunDirectory,
    config: PretrainConfig,
    source: PatientSource,
    held_out: PatientSource,
    mesh: jax.sharding.Mesh,
    interruption: Interruption,
) -> Path:
    """Sections 4 to 9 with the run folder open; it is closed whatever ends them."""
    losses = {"model": config.model, "masking": config.masking, "seed": config.seed}

    # ── 4 Optimizer ───────────────────────────────────────────────────────────────────────────────────────────────────
    optimizer = make_optimizer(config.optimizer, config.steps)
    fresh_state = partial(init_state, partial(init, config.model), optimizer)
    shapes, held_out_shapes = (step_shapes(one.plan, config.masking) for one in (source, held_out))
    train_step = make_train_step(tasks=config.tasks, shapes=shapes, optimizer=optimizer, **losses)
    eval_step = make_eval_step(shapes=held_out_shapes, **losses)

    # ── 5 Mesh and shardings: shapes first, so that nothing is ever whole on one device ───────────────────────────────
    layout = StateLayout(jax.eval_shape(fresh_state, jax.random.key(config.seed)), optimizer, config.model, mesh)
    shardings = layout.shardings

    # ── 6 State: resume this run? else start from a checkpoint? else from scratch ─────────────────────────────────────
    start, left = latest_good_step(run.path, warn=say) or 0, {}
    run.forget_metrics_after(start)
    if start:
        stored = restore_step(run.path, start, layout.stored["params"], layout.stored["opt_state"])
        left = stored.progress
        step = put_global(np.int32(start), replicated(mesh))
        state = layout.from_disk({"params": stored.params, "opt_state": stored.opt_state, "step": step})
        say(f"resumed from step {start:,}")
    else:
        state = layout.fresh(fresh_state, jax.random.key(config.seed))
        if config.init_from:
            stored = restore_step(config.init_from, good_step(config.init_from), layout.stored["params"])
            state = layout.from_disk(layout.to_disk(state) | {"params": stored.params})

    # ── 7 Compile: many steps are one program ─────────────────────────────────────────────────────────────────────────
    train_dispatch = jax.jit(
        make_train_dispatch(train_step, source.rows_of),
        in_shardings=(shardings, *source.shardings),
        out_shardings=(shardings, replicated(mesh)),
        donate_argnums=0,
    )
    eval_dispatch = jax.jit(
        make_eval_dispatch(eval_step, held_out.rows_of),
        in_shardings=(shardings["params"], *held_out.shardings),
        out_shardings=replicated(mesh),
    )
    eval_pace = Pace((), config.corpus, total=held_out.plan.steps_per_epoch)
    evaluate = partial(validate, eval_dispatch, source=held_out, pace=eval_pace, given_up=interruption.asked)
    row_check = jax.jit(make_row_check(source.rows_of, **losses), out_shardings=replicated(mesh))

    # ── 8 Loop: metrics of earlier dispatches are fetched after the next one was sent ─────────────────────────────────
    progress = Progress(run.metrics_path, total=config.steps, start=start)
    edges = (config.evaluate_every, config.checkpoint_every)
    pace = Pace(edges, config.corpus, total=config.steps)
    log = MetricsLog(
        progress,
        summarize,
        edges=(*edges, config.log_every),
        total=config.steps,
        pace=pace,
        window=left.get("window", ()),
    )
    step, due = start, left.get("validation_due", False) and not progress.recorded(start, kind="validation")
    stop = due and not progress.record_if(step, evaluate(state["params"]), kind="validation")
    try:
        while step < config.steps and not stop:
            count = pace.count(step)
            state, metrics = train_dispatch(state, source.corpus, source.feed(step, count))
            log.sent(step, count, metrics)
            step += count
            if step < config.steps:
                source.prepare(step, pace.count(step))
            stop = interruption.asked()
            due, save_now = (step % every == 0 or step == config.steps for every in edges)
            if due or save_now or stop:
                log.fetch_all()
            if due and not stop:
                due = not progress.record_if(step, evaluate(state["params"]), kind="validation")
                stop = due  # a validation is given up where the run is to stop
            if save_now or stop:
                save(run, step, layout.to_disk(state), {"window": log.window, "validation_due": due})
    except NotFinite as fault:
        finite = row_check(state, source.corpus, source.feed(fault.step - 1, 1))
        raise fault.with_rows(finite, source.patients(fault.step - 1)) from None

    # ── 9 Finish: the path printed, or that the run goes on another time ──────────────────────────────────────────────
    if stop and (step < config.steps or due):
        raise Interrupted(f"asked to stop: step {step:,} is saved in {run.path}; the same command goes on from there")
    say(f"checkpoint in {run.path}")
    return run.path


def save(run: RunDirectory, step: int, state: dict, left: dict) -> None:
    """A step of the run, and what going on from it needs besides: what is `left` of the metrics and the validation."""
    save_step(run, step, params=state["params"], opt_state=state["opt_state"], progress={"step": step, **left})


if __name__ == "__main__":
    run_script(main, PretrainConfig, "run_pretrain.py")
