"""The fine-tuning of several replicates at once: the sections of `run_finetune.py` with everything stacked."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import jax
import numpy as np
from jax.sharding import Mesh

from medbert_jax.data.rows import fit_to_model
from medbert_jax.data.sequences import PatientSequences, concatenate
from medbert_jax.models.config import ModelConfig
from medbert_jax.training.checkpoint import Checkpoint
from medbert_jax.training.cohort_scores import cohort_layout, predict
from medbert_jax.training.config import FinetuneConfig
from medbert_jax.training.corpus import CorpusConfig
from medbert_jax.training.disease_model import Fitted
from medbert_jax.training.early_stopping import EarlyStopping, steps_per_round
from medbert_jax.training.finetuning import (
    OUTCOME,
    endless_optimizer,
    fresh_state,
    summarize,
)
from medbert_jax.training.interruption import Interrupted, Interruption
from medbert_jax.training.pace import Pace, dispatched
from medbert_jax.training.progress import MetricsLog, Progress
from medbert_jax.training.replicates import (
    ReplicateRounds,
    ReplicateScores,
    ReplicateSource,
    ReplicateStopping,
    compiled_together,
    stacked,
)
from medbert_jax.training.run_directory import RunDirectory
from medbert_jax.training.sampling import training_subset
from medbert_jax.training.sharding import make_mesh, replicated
from medbert_jax.training.tuned_parts import (
    TunedParts,
    began_with,
    everything,
    head_alone,
    starting_parameters,
    tuned_model,
)
from medbert_jax.training.unfinished import Unfinished

CORPUS = CorpusConfig(placement="replicated")


def trains_together(asked: Literal["auto", "true", "false"]) -> bool:
    """Whether replicates train in one program; ValueError where they are asked to and the devices are several."""
    if asked == "true" and jax.device_count() > 1:
        raise ValueError(
            f"replicates train together on one device: got replicates_together true and {jax.device_count()} devices; "
            "leave it at auto, or give the devices parts of the grid (part, parts)"
        )
    return asked == "true" or (asked == "auto" and jax.device_count() == 1 and jax.default_backend() != "cpu")


def tune_together(
    configs: Sequence[FinetuneConfig],
    subsets: Sequence[PatientSequences],
    validation: PatientSequences,
    *,
    checkpoint: Checkpoint,
    open_unfinished: Callable[[ModelConfig], RunDirectory],
    interruption: Interruption,
    opened: Callable,
) -> list[Fitted]:
    """What each of the `configs`, alike but for the replicate, makes of its training subset, all of one size.

    `open_unfinished` gives the folder where all of them are kept while they are under way; what is `opened` is closed
    by the caller. Interrupted after SIGTERM or Ctrl-C.
    """
    config, mesh = configs[0], make_mesh(configs[0].mesh)
    everywhere = replicated(mesh)
    model = checkpoint.model
    limits = {name: getattr(model, name) for name in ("vocabulary_size", "max_visits", "max_length")}
    cut = partial(fit_to_model, **limits)
    seen = training_subset(validation.patient_id, min(config.validation_size, validation.patients), 0)
    subsets, (validation, _) = [cut(subset)[0] for subset in subsets], cut(validation.take(seen))
    whole = concatenate(subsets)
    model = tuned_model(config, model)
    unfinished = Unfinished(opened(open_unfinished(model)))
    optimizer = endless_optimizer(config.optimizer)
    # One layout for all, so that their steps have one shape; who is in a step does not depend on it.
    rows = cohort_layout(whole, config.batch_size, model, mesh, training=True)
    parts = _parts(configs, model, checkpoint, whole, validation, mesh)
    seeds = [one.replicate for one in configs]
    states = [fresh_state(part.params, optimizer, seed, part.given) for part, seed in zip(parts, seeds, strict=True)]
    stopping = ReplicateStopping(tuple(EarlyStopping(config.patience) for _ in configs))
    step, state, window = unfinished.restore(jax.device_put(stacked(states), everywhere), stopping, everywhere)

    # optax's protocols of functions do not say that functions have a hash
    dispatch = compiled_together(model, config.head, optimizer, rows, mesh)  # ty: ignore[invalid-argument-type]
    per_epoch, round_steps = steps_per_round(len(subsets[0]), config.batch_size, config.evaluate_every)
    total = per_epoch * config.max_epochs // round_steps * round_steps
    own = [parts[0].train.take(who) for who in np.split(np.arange(len(whole)), len(subsets))]
    source = opened(ReplicateSource(own, parts[0].train, seeds, rows, mesh, CORPUS, total=total))
    scores = opened(ReplicateScores(parts[0].validation, len(configs), model=model, head=config.head, mesh=mesh))

    progress = Progress(unfinished.directory.metrics_path, total=total, start=step)
    log = MetricsLog(progress, summarize, edges=(round_steps, config.log_every), window=window)
    labels, given = validation.outcomes[OUTCOME], parts[0].given_in_validation
    rounds = ReplicateRounds(scores, labels, given, stopping, progress, round_steps, interruption)
    rounds.make(step, state["params"])  # one that they were stopped in
    pace = Pace((round_steps,), CORPUS, total=step if stopping.over else total)
    finished = dispatched(dispatch, state, source, pace, start=step, interruption=interruption)
    for step, state, metrics in finished:
        log.add(step, metrics)
        rounds.make(step, state["params"])
        if interruption.stopping or (step % round_steps == 0 and unfinished.due()):
            unfinished.keep(step, state, stopping, log.window)
        if stopping.over:
            break
    if not stopping.over and (step < total or rounds.missing(step)):
        raise Interrupted(
            f"asked to stop: step {step:,} of these {len(configs)} replicates is saved in {unfinished.directory.path}, "
            f"and what is done before is in {config.results}; the same command goes on from there"
        )
    fitted = []
    for number, (part, one) in enumerate(zip(parts, stopping.each, strict=True)):
        best = part.whole(jax.tree.map(lambda leaf, number=number: leaf[number], stopping.best_params))
        fitted.append(
            Fitted(
                predict=partial(_predict, best, cut, model=model, head=config.head, mesh=mesh),
                backbone=config.backbone,
                head=config.head.kind,
                validation={"auroc": one.best, "best_step": one.best_step},
                stopping_reason="patience" if one.over else "max_epochs",
                epochs=-(-one.last_step // per_epoch),
                checkpoint=began_with(config, checkpoint),
            )
        )
    return fitted


def _parts(
    configs: Sequence[FinetuneConfig],
    model: ModelConfig,
    checkpoint: Checkpoint,
    whole: PatientSequences,
    validation: PatientSequences,
    mesh: Mesh,
) -> list[TunedParts]:
    """Of every replicate, with the patients of all: one table of codes, and one of the states of a frozen backbone."""
    config, starts = configs[0], []
    for one in configs:
        starts.append(starting_parameters(one, model, checkpoint))
    if config.backbone == "frozen":
        first = head_alone(starts[0], whole, validation, model=model, mesh=mesh)
        return [replace(first, params={"head": start["head"]}) for start in starts]
    weight_decay = config.optimizer.weight_decay > 0
    return [everything(start, whole, validation, weight_decay=weight_decay) for start in starts]


def _predict(best, cut, sequences, **options):
    return predict(best, cut(sequences)[0], **options)  # whoever predicts gives whole sequences
