"""Fine-tune Med-BERT on one disease cohort and evaluate it, or run a whole grid of such runs with their baselines.

    python run_finetune.py configs/finetune_small.py --dataset data/disease_cohort/NAME/1.0.0 --checkpoint runs/NAME

Every field of the preset is an option (`--help`). Runs whose results are there are skipped, so an interrupted grid
goes on where it stopped. Predictions and results land in `--results`. Paper: Methods, "Fine-tuning" and "Evaluation".
"""

import subprocess
import time
from dataclasses import asdict, replace
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import jax
import numpy as np

from medbert_jax.baselines.logistic_regression import CodesLogisticRegression
from medbert_jax.data.row_plan import check_batch_size
from medbert_jax.data.rows import fit_to_model
from medbert_jax.evaluation.results import RunRecord, is_done, result_rows, run_id, write_results
from medbert_jax.evaluation.test_split import evaluate_test
from medbert_jax.experiments.grid import BaselineConfig, GridConfig
from medbert_jax.metrics.discrimination import auroc
from medbert_jax.models.config import ModelConfig
from medbert_jax.training.checkpointing import (
    committed_steps,
    good_step,
    restore_step,
    save_step,
    step_fingerprint,
    stored_parameters,
)
from medbert_jax.training.cohort_data import CohortData, load_cohort, training_subset
from medbert_jax.training.command_line import run_script
from medbert_jax.training.config import FinetuneConfig, check_pretraining_dataset, check_vocabulary
from medbert_jax.training.finetuning import (
    PRETRAINING_ONLY,
    EarlyStopping,
    compile_steps,
    endless_batches,
    init_finetuning,
    predict_all,
    steps_per_round,
)
from medbert_jax.training.merging import merge_parameters
from medbert_jax.training.progress import announce, say, versions
from medbert_jax.training.run_directory import RunDirectory, read_config
from medbert_jax.training.sharding import make_mesh, put_batch


def main(config: FinetuneConfig | GridConfig) -> Path:
    """Do every run that is not done yet; returns the folder of the results."""
    runs = config.runs() if isinstance(config, GridConfig) else [config]
    for number, run in enumerate(runs, start=1):
        data = load_cohort(run.dataset, train_size=run.train_size, replicate=run.replicate)
        identity = identify(run, data)
        name = run_id(identity, run.replicate)
        wants_checkpoint = isinstance(run, FinetuneConfig) and run.run and not committed_steps(run.run)
        if is_done(run.results, name, dataset_hash=data.metadata["dataset_hash"]) and not wants_checkpoint:
            say(f"[{number}/{len(runs)}] done before: {name} in {run.results}")
            continue
        began = time.monotonic()
        predictions = Path(run.results) / "predictions" / f"{name}.parquet"
        outcome = (finetune if isinstance(run, FinetuneConfig) else fit_baseline)(run, data, predictions)
        seconds = time.monotonic() - began
        file_results(run, data, identity, seconds=seconds, **outcome)
        scores = outcome["scores"]
        say(
            f"[{number}/{len(runs)}] {data.name}, {outcome['backbone']}, {outcome['head']}, {len(data.train):,} "
            f"training patients, replicate {run.replicate}: test AUROC {scores['test']['auroc']:.4f} "
            f"[{scores['test']['auroc_low']:.4f}, {scores['test']['auroc_high']:.4f}], {seconds:.0f} s"
        )
    return Path((config.finetune if isinstance(config, GridConfig) else config).results)


def identify(run: FinetuneConfig | BaselineConfig, data: CohortData) -> dict:
    """What decides the numbers of a run: its configuration, with contents in place of paths."""
    identity = {"kind": type(run).__name__} | asdict(run) | {"dataset": data.metadata["dataset_hash"], "results": ""}
    if isinstance(run, FinetuneConfig):
        check_vocabulary(run.checkpoint, data.vocabulary)
        check_pretraining_dataset(run.checkpoint, data.metadata["pretraining_dataset_hash"])
        identity["run"] = ""
        identity["checkpoint"] = read_config(run.checkpoint)["model"]
        if run.backbone == "pretrained":
            identity["checkpoint"] = step_fingerprint(run.checkpoint, good_step(run.checkpoint))
    return identity


def finetune(config: FinetuneConfig, data: CohortData, predictions: Path) -> dict:
    """Fine-tune one model; returns what `file_results` needs. `data` is the cohort with this run's training subset."""
    if not config.run:
        return fit(config, data, predictions, None)
    # Opened before any training, so that a folder that cannot be written is told at once; closed whatever happens.
    model = architecture(config)
    described = asdict(config) | {"model": asdict(model), "dataset_hash": data.metadata["dataset_hash"]}
    with RunDirectory.create_or_open(
        config.run, config=described, vocabulary=data.vocabulary, kind="finetune", card={"cohort": data.name}
    ) as directory:
        return fit(config, data, predictions, directory)


def fit(config: FinetuneConfig, data: CohortData, predictions: Path, directory: RunDirectory | None) -> dict:
    """The nine sections of one fine-tuning; `directory` gets the checkpoint, where there is one."""
    # ── 1 Announce ────────────────────────────────────────────────────────────────────────────────────────────────────
    mesh = make_mesh(config.mesh)
    check_batch_size(config.batch_size, mesh.shape["data"])
    if config.run:
        announce("fine-tuning", config, mesh)

    # ── 2 Data: the architecture is the checkpoint's, the sequences are cut to it ─────────────────────────────────────
    model = architecture(config)
    limits = {
        "vocabulary_size": model.vocabulary_size,
        "max_visits": model.max_visits,
        "max_length": model.max_length,
    }
    chosen = training_subset(data.validation.patient_id, min(config.validation_size, len(data.validation)), 0)
    parts = data.train, data.validation.take(chosen)
    train, validation = (fit_to_model(part, **limits)[0] for part in parts)
    rng = np.random.default_rng(config.replicate)

    # ── 3 Model ───────────────────────────────────────────────────────────────────────────────────────────────────────
    params = init_finetuning(model, config.head, jax.random.key(config.replicate))
    stored_step = good_step(config.checkpoint)

    # ── 4, 5, 7 Optimizer, mesh and shardings, compilation: shared by all runs of this architecture ───────────────────
    start, train_step, predict = compile_steps(model, config.head, config.optimizer, mesh)

    # ── 6 State: pretrained parameters merged, the head new ───────────────────────────────────────────────────────────
    if config.backbone == "pretrained":
        stored = restore_step(config.checkpoint, stored_step, stored_parameters(config.checkpoint, stored_step))
        params = merge_parameters(params, stored.params, new=("head",), drop=PRETRAINING_ONLY)
        if "pooler" in params["head"] and "pooler" in stored.params:  # pretrained too, where the model has one
            params["head"]["pooler"] = stored.params["pooler"]
    state = start(params)

    # ── 8 Loop: rounds of training patients until validation AUROC has not risen for `patience` of them ───────────────
    stopping = EarlyStopping(config.patience)
    key = jax.random.key(config.replicate)
    steps_per_epoch, round_steps = steps_per_round(len(train), config.batch_size, config.evaluate_every)
    stream = endless_batches(train, config.batch_size, rng)
    for step in range(round_steps, steps_per_epoch * config.max_epochs + 1, round_steps):
        for _, batch in islice(stream, round_steps):
            state, _ = train_step(state, put_batch(batch, mesh), key)
        scores = predict_all(predict, state["params"], validation, config.batch_size, mesh)
        if stopping.should_stop(step, auroc(validation.outcomes["label"], scores), state["params"]):
            break

    # ── 9 Finish: the best epoch on the test split; the checkpoint of it ──────────────────────────────────────────────
    def predict_test(sequences):
        fitted, _ = fit_to_model(sequences, **limits)
        return predict_all(predict, stopping.best_params, fitted, config.batch_size, mesh)

    test = evaluate_test(config.dataset, predict_test, predictions)
    # A run that was killed before its results were filed has saved this very step.
    if directory and stopping.best_step not in committed_steps(directory.path):
        progress = {"step": stopping.best_step, "validation_auroc": stopping.best}
        save_step(directory, stopping.best_step, params=stopping.best_params, opt_state=None, progress=progress)
    return {
        "backbone": config.backbone,
        "head": config.head.kind,
        "checkpoint": step_fingerprint(config.checkpoint, stored_step) if config.backbone == "pretrained" else "",
        "epochs": -(-step // steps_per_epoch),  # begun
        "stopping_reason": "patience" if stopping.waited >= config.patience else "max_epochs",
        "scores": {"validation": {"auroc": stopping.best, "best_step": stopping.best_step}, "test": test},
    }


def architecture(config: FinetuneConfig) -> ModelConfig:
    """The checkpoint's; without its encoder where there is to be no backbone."""
    model = ModelConfig(**read_config(config.checkpoint)["model"])
    return replace(model, layers=0) if config.backbone == "none" else model


def fit_baseline(config: BaselineConfig, data: CohortData, predictions: Path) -> dict:
    """L2 logistic regression, C chosen on validation AUROC; returns what `file_results` needs."""
    model = CodesLogisticRegression(data.vocabulary.size, features=config.features)
    train, validation = data.train, data.validation
    model.fit(train, train.outcomes["label"], validation, validation.outcomes["label"])
    test = evaluate_test(config.dataset, lambda sequences: model.predict_proba(sequences)[:, 1], predictions)
    return {
        "backbone": "age_band" if config.features == "age" else "logistic_regression",
        "head": config.features,
        "checkpoint": "",
        "epochs": 0,
        "stopping_reason": "converged",
        "scores": {"validation": {"auroc": max(model.validation_aurocs_), "C": model.chosen_C}, "test": test},
    }


def file_results(
    config: FinetuneConfig | BaselineConfig,
    data: CohortData,
    identity: dict,
    *,
    seconds: float,
    scores: dict[str, dict[str, float]],
    backbone: str,
    head: str,
    **record,
) -> None:
    """One Parquet file per run: the record and the long rows."""
    rows = []
    for split, metrics in scores.items():
        rows += result_rows(
            metrics,
            experiment=config.experiment,
            cohort=data.name,
            backbone=backbone,
            head=head,
            train_size=len(data.train),
            train_size_name=str(config.train_size or "all"),
            replicate=config.replicate,
            split=split,
        )
    facts = RunRecord(
        configuration=identity,
        seed=config.replicate,
        commit=commit(),
        dataset_hash=data.metadata["dataset_hash"],
        vocabulary_hash=data.metadata["vocabulary_hash"],
        split_key=data.metadata["split"]["key"],
        device=jax.devices()[0].device_kind,
        wall_time_s=seconds,
        versions=versions(),
        **record,
    )
    write_results(config.results, facts, rows)


def commit() -> str:
    """The commit of the checkout this runs from, "+" where it has changes; the package's version outside of one."""
    git = ["git", "-C", str(Path(__file__).resolve().parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return f"medbert_jax {version('medbert-jax')}"
    return head + ("+" if changed.stdout else "")


if __name__ == "__main__":
    run_script(main, (FinetuneConfig, GridConfig), "run_finetune.py")
