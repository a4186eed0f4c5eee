"""Fine-tune Med-BERT on one disease cohort and evaluate it, or run a whole grid of such runs with their baselines.

    python run_finetune.py configs/finetune_small.py --dataset data/disease_cohort/NAME/1.0.0 --checkpoint runs/NAME

Every field of the preset is an option (`--help`). Runs whose results are there are skipped, so an interrupted grid
goes on where it stopped; SIGTERM or Ctrl-C ends it with exit code 75. Predictions and results land in `--results`.
Paper: Methods, "Fine-tuning" and "Evaluation".
"""

from medbert_jax.command_end import listen

if __name__ == "__main__":  # before what takes seconds to import
    listen("run_finetune.py", resumes=True)

from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path

import jax
import numpy as np

from medbert_jax.data.row_plan import check_batch_size
from medbert_jax.data.rows import fit_to_model
from medbert_jax.data.sequences import PatientSequences
from medbert_jax.experiments.grid import GridConfig
from medbert_jax.experiments.running import run_all
from medbert_jax.metrics.discrimination import auroc_where_ordered
from medbert_jax.models.config import ModelConfig
from medbert_jax.training.checkpoint import Checkpoint
from medbert_jax.training.checkpointing import committed_steps, save_step
from medbert_jax.training.cohort_data import CohortData, training_subset
from medbert_jax.training.command_line import run_script
from medbert_jax.training.config import FinetuneConfig
from medbert_jax.training.disease_model import Fitted
from medbert_jax.training.finetuning import (
    EarlyStopping,
    compile_steps,
    endless_batches,
    endless_optimizer,
    fresh_state,
    init_finetuning,
    predict_all,
    start_from,
    steps_per_round,
)
from medbert_jax.training.interruption import Interruption
from medbert_jax.training.kept_programs import keep_programs
from medbert_jax.training.progress import announce
from medbert_jax.training.run_directory import RunDirectory
from medbert_jax.training.sharding import make_mesh, over_rows, put_batch, replicated


def main(config: FinetuneConfig | GridConfig) -> Path:
    """Do every run that is not done yet; returns the folder of the results. Interrupted after SIGTERM or Ctrl-C."""
    runs, common = (config.runs(), config.finetune) if isinstance(config, GridConfig) else ([config], config)
    keep_programs()
    with Interruption() as interruption:
        fine_tuning = partial(FineTuning, interruption=interruption)
        run_all(runs, fine_tuning, interruption, cache_dir=common.cache_dir)
    return Path(common.results)


@dataclass(frozen=True)
class FineTuning:
    """One fine-tuning of Med-BERT, behind the contract that baselines have too (`DiseaseModel`)."""

    config: FinetuneConfig
    cohort: CohortData
    """Names what the model was made for; its patients are those given to `fit`."""
    checkpoint: Checkpoint
    interruption: Interruption = field(default_factory=Interruption)

    def fit(self, train: PatientSequences, validation: PatientSequences) -> Fitted:
        """The nine sections of one fine-tuning; `train` is the training subset of this size and replicate."""
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
        seen = training_subset(validation.patient_id, min(config.validation_size, len(validation)), 0)
        (train, _), (validation, _) = cut(train), cut(validation.take(seen))

        # ── 3 Model: without an encoder where there is to be no backbone; the directory for it, where one is wanted ───
        model = replace(model, layers=0) if config.backbone == "none" else model
        with self.open_directory(model) as directory:
            fitted = self.train(model, mesh, train, validation, directory)
        # Whoever predicts gives whole sequences.
        return replace(fitted, predict=lambda sequences: fitted.predict(cut(sequences)[0]))

    def open_directory(self, model: ModelConfig) -> AbstractContextManager[RunDirectory | None]:
        """The run directory of the configuration; None inside where there is none.

        Opened before any training, so that a folder that cannot be written is told at once; closed whatever happens.
        """
        if not self.config.run:
            return nullcontext()
        described = asdict(self.config) | {"model": asdict(model), "dataset_hash": self.cohort.metadata["dataset_hash"]}
        card, vocabulary = {"cohort": self.cohort.name}, self.cohort.vocabulary
        return RunDirectory.create_or_open(
            self.config.run,
            config=described,
            vocabulary=vocabulary,
            kind="finetune",
            may_differ=("cache_dir",),
            card=card,
        )

    def train(
        self,
        model: ModelConfig,
        mesh: jax.sharding.Mesh,
        train: PatientSequences,
        validation: PatientSequences,
        directory: RunDirectory | None,
    ) -> Fitted:
        """Sections 4 to 9, on sequences cut to the model; `directory` gets the checkpoint, where there is one."""
        config = self.config
        # ── 4 Optimizer ───────────────────────────────────────────────────────────────────────────────────────────────
        optimizer = endless_optimizer(config.optimizer)

        # ── 5 Mesh and shardings: the state lies on every device whole, a batch over them by its rows ─────────────────
        everywhere, rows = replicated(mesh), over_rows(mesh)

        # ── 6 State: pretrained parameters merged, the head new ───────────────────────────────────────────────────────
        params = init_finetuning(model, config.head, jax.random.key(config.replicate))
        if config.backbone == "pretrained":
            params = start_from(params, self.checkpoint.parameters)
        state = jax.device_put(fresh_state(params, optimizer), everywhere)

        # ── 7 Compile: once for all runs of this architecture ─────────────────────────────────────────────────────────
        # optax's protocols of functions do not say that functions have a hash
        train_step, predict = compile_steps(model, config.head, optimizer, everywhere, rows)  # ty: ignore[invalid-argument-type]

        # ── 8 Loop: rounds of training patients until validation AUROC has not risen for `patience` of them ───────────
        predict_with = partial(predict_all, predict, batch_size=config.batch_size, mesh=mesh)
        stopping = EarlyStopping(config.patience)
        key, rng = jax.random.key(config.replicate), np.random.default_rng(config.replicate)
        steps_per_epoch, round_steps = steps_per_round(len(train), config.batch_size, config.evaluate_every)
        stream = endless_batches(train, config.batch_size, rng)
        for step in range(round_steps, steps_per_epoch * config.max_epochs + 1, round_steps):
            for _, batch in islice(stream, round_steps):
                state, _ = train_step(state, put_batch(batch, mesh), key)
                self.interruption.end_here(config.results)  # after any step: of half a fine-tuning nothing is kept
            scores = predict_with(state["params"], validation)
            found = auroc_where_ordered(validation.outcomes["label"], scores)
            if stopping.should_stop(step, found, state["params"]):
                break

        # ── 9 Finish: early stopping's best, which evaluation takes to the test split; the checkpoint of it ───────────
        # A run that was killed before its results were filed has saved this very step.
        if directory and stopping.best_step not in committed_steps(directory.path):
            progress = {"step": stopping.best_step, "validation_auroc": stopping.best}
            save_step(directory, stopping.best_step, params=stopping.best_params, opt_state=None, progress=progress)
        return Fitted(
            predict=partial(predict_with, stopping.best_params),
            backbone=config.backbone,
            head=config.head.kind,
            validation={"auroc": stopping.best, "best_step": stopping.best_step},
            stopping_reason="patience" if stopping.waited >= config.patience else "max_epochs",
            epochs=-(-step // steps_per_epoch),  # begun
            checkpoint=self.checkpoint.fingerprint if config.backbone == "pretrained" else "",
        )


if __name__ == "__main__":
    run_script(main, (FinetuneConfig, GridConfig), "run_finetune.py")
