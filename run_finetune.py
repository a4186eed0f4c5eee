"""Fine-tune Med-BERT on one disease cohort and evaluate it, or run a whole grid of such runs with their baselines,
or tune the rows of a grid.

    python run_finetune.py configs/finetune_small.py --dataset data/disease_cohort/NAME/1.0.0 --checkpoint runs/NAME

Every field of the preset is an option (`--help`). Runs whose results are there are skipped, so an interrupted grid
goes on where it stopped; SIGTERM or Ctrl-C ends it with exit code 75. Predictions and results land in `--results`.
Paper: Methods, "Fine-tuning" and "Evaluation".
"""

from medbert_jax.command_end import listen

if __name__ == "__main__":  # before what takes seconds to import
    listen("run_finetune.py", resumes=True)

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import jax

from medbert_jax.data.cohort_plan import plan_cohort
from medbert_jax.data.row_plan import check_batch_size
from medbert_jax.data.rows import fit_to_model
from medbert_jax.data.sequences import PatientSequences
from medbert_jax.experiments.grid import GridConfig, with_standing_baselines
from medbert_jax.experiments.running import run_all
from medbert_jax.experiments.tuning import TuningConfig, tune
from medbert_jax.models.config import ModelConfig
from medbert_jax.training.checkpoint import Checkpoint
from medbert_jax.training.checkpointing import committed_steps, save_step
from medbert_jax.training.cohort_data import CohortData
from medbert_jax.training.cohort_scores import CohortScores, cohort_layout, predict
from medbert_jax.training.command_line import run_script
from medbert_jax.training.config import FinetuneConfig
from medbert_jax.training.corpus import CorpusConfig
from medbert_jax.training.disease_model import Fitted
from medbert_jax.training.early_stopping import EarlyStopping, steps_per_round
from medbert_jax.training.finetuning import (
    OUTCOME,
    compiled,
    endless_optimizer,
    fresh_state,
    summarize,
)
from medbert_jax.training.interruption import Interrupted, Interruption
from medbert_jax.training.kept_programs import keep_programs
from medbert_jax.training.pace import Pace, dispatched
from medbert_jax.training.patient_source import PatientSource
from medbert_jax.training.progress import MetricsLog, Progress, announce
from medbert_jax.training.rounds import Rounds
from medbert_jax.training.run_directory import RunDirectory
from medbert_jax.training.sampling import training_subset
from medbert_jax.training.sharding import make_mesh, replicated
from medbert_jax.training.tuned_parts import began_with, everything, head_alone, starting_parameters, tuned_model
from medbert_jax.training.tuned_together import trains_together, tune_together
from medbert_jax.training.unfinished import Unfinished

CORPUS = CorpusConfig(placement="replicated")
# What may change when a run is gone on with: what decides no number. The unfinished one is under an id that knows the
# contents behind the paths.
MAY_DIFFER, PATHS = ("cache_dir", "log_every"), ("dataset", "checkpoint", "vectors", "run", "results")


def main(config: FinetuneConfig | GridConfig | TuningConfig) -> Path:
    """Do every run that is not done yet; returns the folder of the results, or the file of a tuning.

    Interrupted after SIGTERM or Ctrl-C.
    """
    if isinstance(config, TuningConfig):
        keep_programs()
        with Interruption() as interruption:
            return tune(config, partial(FineTuning, interruption=interruption), interruption)
    is_grid = isinstance(config, GridConfig)
    runs, common = (config.runs(), config.finetune) if is_grid else (with_standing_baselines(config), config)
    keep_programs()
    with Interruption() as interruption:
        fine_tuning = partial(FineTuning, interruption=interruption)
        minimum = config.minimum_cases if is_grid else 0
        joins = is_grid and trains_together(config.replicates_together)
        together = partial(fit_together, interruption=interruption) if joins else None
        run_all(runs, fine_tuning, interruption, together=together, minimum_cases=minimum, cache_dir=common.cache_dir)
    return Path(common.results)


def fit_together(
    configs: Sequence[FinetuneConfig],
    cohorts: Sequence[CohortData],
    checkpoint: Checkpoint,
    unfinished: Path,
    *,
    interruption: Interruption,
) -> list[Fitted]:
    """What `FineTuning` makes of each of these replicates, trained in one program (`training.tuned_together`)."""
    first = FineTuning(configs[0], cohorts[0], checkpoint, unfinished, interruption)
    told = {"replicates": [config.replicate for config in configs]}
    with ExitStack() as stack:
        return tune_together(
            configs,
            [cohort.train for cohort in cohorts],
            cohorts[0].validation,
            checkpoint=checkpoint,
            open_unfinished=lambda model: first.directory(unfinished, model, (*MAY_DIFFER, *PATHS), told),
            interruption=interruption,
            opened=stack.enter_context,
        )


@dataclass(frozen=True)
class FineTuning:
    """One fine-tuning of Med-BERT, behind the contract that baselines have too (`DiseaseModel`)."""

    config: FinetuneConfig
    cohort: CohortData
    """Names what the model was made for; its patients are those given to `fit`."""
    checkpoint: Checkpoint
    unfinished: Path
    """Folder where it is kept while it is under way."""
    interruption: Interruption = field(default_factory=Interruption)

    def fit(self, train: PatientSequences, validation: PatientSequences) -> Fitted:
        """Learn from the training subset of this size and replicate. Interrupted after SIGTERM or Ctrl-C."""
        with ExitStack() as stack:
            return self.tune(train, validation, stack.enter_context)

    def tune(self, train: PatientSequences, validation: PatientSequences, opened: Callable) -> Fitted:
        """The nine sections of one fine-tuning; what is `opened` is closed, whatever ends them."""
        config = self.config
        # ── 1 Announce ────────────────────────────────────────────────────────────────────────────────────────────────
        mesh = make_mesh(config.mesh)
        check_batch_size(config.batch_size, mesh.shape["data"])
        if config.run:
            announce("fine-tuning", config, mesh)

        # ── 2 Data: cut to the checkpoint's architecture; early stopping may look at a part of the validation patients
        model = self.checkpoint.model
        limits = {name: getattr(model, name) for name in ("vocabulary_size", "max_visits", "max_length")}
        cut = partial(fit_to_model, **limits)
        seen = training_subset(validation.patient_id, min(config.validation_size, validation.patients), 0)
        (train, _), (validation, _) = cut(train), cut(validation.take(seen))

        # ── 3 Model: without an encoder where there is to be no backbone; the directory for it, where one is wanted ───
        model = tuned_model(config, model)
        directory = opened(self.directory(config.run, model, MAY_DIFFER)) if config.run else None
        unfinished = Unfinished(opened(self.directory(self.unfinished, model, (*MAY_DIFFER, *PATHS))))

        # ── 4 Optimizer ───────────────────────────────────────────────────────────────────────────────────────────────
        optimizer = endless_optimizer(config.optimizer)

        # ── 5 Mesh and shardings: the state lies on every device whole, the rows of a chunk over them ─────────────────
        everywhere = replicated(mesh)
        rows = cohort_layout(train, config.batch_size, model, mesh, training=True)
        plan = plan_cohort(train.lengths, rows, groups=mesh.shape["data"])

        # ── 6 State: resume this fine-tuning? else pretrained parameters merged, the head new ─────────────────────────
        params = starting_parameters(config, model, self.checkpoint)
        if config.backbone == "frozen":
            parts = head_alone(params, train, validation, model=model, mesh=mesh)
        else:
            parts = everything(params, train, validation, weight_decay=config.optimizer.weight_decay > 0)
        stopping = EarlyStopping(config.patience)
        state = jax.device_put(fresh_state(parts.params, optimizer, config.replicate, parts.given), everywhere)
        step, state, window = unfinished.restore(state, stopping, everywhere)

        # ── 7 Compile: once for all runs of this architecture ─────────────────────────────────────────────────────────
        # optax's protocols of functions do not say that functions have a hash
        dispatch = compiled(model, config.head, optimizer, rows, mesh)  # ty: ignore[invalid-argument-type]
        per_epoch, round_steps = steps_per_round(len(train), config.batch_size, config.evaluate_every)
        total = per_epoch * config.max_epochs // round_steps * round_steps
        order = {"seed": config.replicate, "total": total}
        source = opened(PatientSource(parts.train, plan, mesh, CORPUS, **order, outcome=OUTCOME, rounded=True))
        scores = opened(CohortScores(parts.validation, model=model, head=config.head, mesh=mesh))

        # ── 8 Loop: rounds of training patients until validation AUROC has not risen for `patience` of them ───────────
        progress = Progress(unfinished.directory.metrics_path, total=total, start=step)
        log = MetricsLog(progress, summarize, edges=(round_steps, config.log_every), window=window)
        labels, given = validation.outcomes[OUTCOME], parts.given_in_validation
        rounds = Rounds(scores, labels, given, stopping, progress, round_steps, self.interruption)
        rounds.make(step, state["params"])  # one that it was stopped in
        pace = Pace((round_steps,), CORPUS, total=step if stopping.over else total)
        finished = dispatched(dispatch, state, source, pace, start=step, interruption=self.interruption)
        for step, state, metrics in finished:
            log.add(step, metrics)
            rounds.make(step, state["params"])
            if self.interruption.stopping or (step % round_steps == 0 and unfinished.due()):
                unfinished.keep(step, state, stopping, log.window)
            if stopping.over:
                break
        if not stopping.over and (step < total or rounds.missing(step)):
            raise Interrupted(
                f"asked to stop: step {step:,} of this fine-tuning is saved in {self.unfinished}, and what is done "
                f"before is in {config.results}; the same command goes on from there"
            )

        # ── 9 Finish: early stopping's best, which evaluation takes to the test split; the checkpoint of it ───────────
        # A run that was killed before its results were filed has saved this very step.
        best = parts.whole(stopping.best_params)
        if directory and stopping.best_step not in committed_steps(directory.path):
            progress = {"step": stopping.best_step, "validation_auroc": stopping.best}
            save_step(directory, stopping.best_step, params=best, opt_state=None, progress=progress)
        return Fitted(
            # Whoever predicts gives whole sequences.
            predict=lambda sequences: predict(best, cut(sequences)[0], model=model, head=config.head, mesh=mesh),
            backbone=config.backbone,
            head=config.head.kind,
            validation={"auroc": stopping.best, "best_step": stopping.best_step},
            stopping_reason="patience" if stopping.over else "max_epochs",
            epochs=-(-step // per_epoch),  # begun
            checkpoint=began_with(config, self.checkpoint),
        )

    def directory(
        self, path: str | Path, model: ModelConfig, may_differ: tuple[str, ...], told: Mapping | None = None
    ) -> RunDirectory:
        """A run directory of this configuration, opened before any training, so that what is wrong is told at once."""
        described = asdict(self.config) | {"model": asdict(model), "dataset_hash": self.cohort.metadata["dataset_hash"]}
        described |= told or {}
        return RunDirectory.create_or_open(
            path,
            config=described,
            vocabulary=self.cohort.vocabulary,
            kind="finetune",
            may_differ=may_differ,
            card={"cohort": self.cohort.name},
        )


if __name__ == "__main__":
    run_script(main, (FinetuneConfig, GridConfig, TuningConfig), "run_finetune.py")
