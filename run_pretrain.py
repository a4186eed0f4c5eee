"""Pretrain Med-BERT on one dataset of patient sequences: masked codes and prolonged length of stay.

    python run_pretrain.py configs/pretrain_small.py --dataset data/ehr_pretraining/NAME/1.0.0 --run runs/NAME

Every field of the preset is an option (`--help`). The same command again resumes the run from its last good
checkpoint. Duration and expected result stand in each preset. Paper: Methods, "Pre-training Med-BERT".
"""

from dataclasses import asdict
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp

from medbert_jax.data.rows import fit_to_model, plan_rows
from medbert_jax.data.token_store import open_token_store, read_metadata
from medbert_jax.data.vocabulary import Vocabulary
from medbert_jax.models.med_bert import init
from medbert_jax.training.checkpointing import good_step, latest_good_step, restore_step, save_step
from medbert_jax.training.config import PretrainConfig, check_dataset, check_split, check_vocabulary, run_script
from medbert_jax.training.optimizer import make_optimizer
from medbert_jax.training.pretraining import (
    batches,
    init_state,
    make_eval_step,
    make_train_step,
    step_shapes,
    summarize,
)
from medbert_jax.training.progress import Progress, announce, say
from medbert_jax.training.run_directory import RunDirectory
from medbert_jax.training.sharding import (
    make_mesh,
    over_rows,
    parameter_shardings,
    put_batch,
    replicated,
    state_shardings,
    with_shardings,
)
from medbert_jax.training.validation import validate

# What may change when a run is resumed; `steps` is not among it, because the learning rate decays over all of them.
MAY_DIFFER = ("mesh", "checkpoint_every", "evaluate_every", "log_every", "dataset", "run")


def main(config: PretrainConfig) -> Path:
    """Train up to the configured number of steps; returns the run directory."""
    # ── 1 Announce ────────────────────────────────────────────────────────────────────────────────────────────────────
    mesh = make_mesh(config.mesh)
    announce("pretraining", config, mesh)

    # ── 2 Data: vocabulary, token store, row plan ─────────────────────────────────────────────────────────────────────
    metadata = read_metadata(config.dataset)
    check_dataset(metadata, kind="pretraining", preset=config.dataset_preset)
    vocabulary = Vocabulary.read(Path(config.dataset) / "vocabulary.tsv")
    if config.init_from:
        check_vocabulary(config.init_from, vocabulary)
        check_split(config.init_from, metadata["split"])
    data, plans = {}, {}
    for split in ("train", "validation"):
        model = config.model
        data[split], note = fit_to_model(
            open_token_store(config.dataset, split),
            vocabulary_size=vocabulary.size,
            max_visits=model.max_visits,
            max_length=model.max_length,
            keep=config.too_long,
        )
        say(f"{split}: {note}")
        plans[split] = plan_rows(
            data[split].lengths, config.rows, max_length=model.max_length, groups=mesh.shape["data"]
        )
    config = config.for_dataset(vocabulary, plans["train"].steps_per_epoch)
    say(f"{len(data['train']):,} training patients, rows filled to {plans['train'].fill:.1%}, {config.steps:,} steps")

    # ── 3 Model, and the directory that will hold it ──────────────────────────────────────────────────────────────────
    with RunDirectory.create_or_open(
        config.run,
        config=asdict(config) | {"dataset_hash": metadata["dataset_hash"], "split": metadata["split"]},
        vocabulary=vocabulary,
        may_differ=MAY_DIFFER,
        card={
            "dataset": config.dataset,
            "dataset hash": metadata["dataset_hash"],
            "split": metadata["split"],
        },
    ) as run:
        return train(run, config, data, plans, mesh)


def train(run: RunDirectory, config: PretrainConfig, data: dict, plans: dict, mesh: jax.sharding.Mesh) -> Path:
    """Sections 3 to 9 with the run folder open; it is closed whatever ends them."""
    shapes = {split: step_shapes(plan, config.masking) for split, plan in plans.items()}
    losses = {"model": config.model, "masking": config.masking, "seed": config.seed}

    # ── 4 Optimizer ───────────────────────────────────────────────────────────────────────────────────────────────────
    optimizer = make_optimizer(config.optimizer, config.steps)
    fresh_state = partial(init_state, partial(init, config.model), optimizer)
    train_step = make_train_step(tasks=config.tasks, shapes=shapes["train"], optimizer=optimizer, **losses)
    eval_step = make_eval_step(shapes=shapes["validation"], **losses)

    # ── 5 Mesh and shardings: shapes first, so that nothing is ever whole on one device ───────────────────────────────
    state_shapes = jax.eval_shape(fresh_state, jax.random.key(config.seed))
    shardings = state_shardings(state_shapes, optimizer, parameter_shardings(config.model, mesh), mesh)
    target = with_shardings(state_shapes, shardings)
    batch_shardings = {"tiers": over_rows(mesh), "epoch": replicated(mesh)}

    # ── 6 State: resume this run? else start from a checkpoint? else from scratch ─────────────────────────────────────
    start = latest_good_step(run.path, warn=say) or 0
    run.forget_metrics_after(start)
    if start:
        restored = restore_step(run.path, start, target["params"], target["opt_state"])
        step = jax.device_put(jnp.int32(start), replicated(mesh))
        state = {"params": restored.params, "opt_state": restored.opt_state, "step": step}
        say(f"resumed from step {start:,}")
    else:
        state = jax.jit(fresh_state, out_shardings=shardings)(jax.random.key(config.seed))
        if config.init_from:
            source = restore_step(config.init_from, good_step(config.init_from), target["params"])
            state["params"] = source.params

    # ── 7 Compile ─────────────────────────────────────────────────────────────────────────────────────────────────────
    train_step = jax.jit(
        train_step,
        in_shardings=(shardings, batch_shardings),
        out_shardings=(shardings, replicated(mesh)),
        donate_argnums=0,
    )
    eval_step = jax.jit(eval_step, in_shardings=(shardings["params"], batch_shardings), out_shardings=replicated(mesh))
    evaluate = partial(validate, eval_step, sequences=data["validation"], plan=plans["validation"], mesh=mesh)
    stream = batches(data["train"], plans["train"], seed=config.seed, start=start)

    # ── 8 Loop: metrics of earlier steps are fetched after the next one was sent ──────────────────────────────────────
    progress, sent = Progress(run.metrics_path, total=config.steps, start=start), []
    for step, batch in zip(range(start + 1, config.steps + 1), stream, strict=False):
        state, metrics = train_step(state, put_batch(batch, mesh))
        sent.append((step, metrics))
        evaluate_now, save_now = step % config.evaluate_every == 0, step % config.checkpoint_every == 0
        if evaluate_now or save_now or step == config.steps:
            done, sent = sent, []
        elif len(sent) > config.log_every:
            done, sent = sent[:-1], sent[-1:]
        else:
            continue
        summary, patients = summarize(done)
        progress.record(done[-1][0], summary, kind="train", patients=patients)
        if evaluate_now and step < config.steps:
            progress.record(step, evaluate(state["params"]), kind="validation")
        if save_now and step < config.steps:
            save_step(run, step, params=state["params"], opt_state=state["opt_state"], progress={"step": step})

    # ── 9 Finish: final evaluation, checkpoint, the path printed ──────────────────────────────────────────────────────
    if start < config.steps:
        progress.record(config.steps, evaluate(state["params"]), kind="validation")
        save_step(
            run,
            config.steps,
            params=state["params"],
            opt_state=state["opt_state"],
            progress={"step": config.steps},
        )
    say(f"checkpoint in {run.path}")
    return run.path


if __name__ == "__main__":
    run_script(main, PretrainConfig, __file__)
