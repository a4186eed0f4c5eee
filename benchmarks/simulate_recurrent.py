"""Whether order can be seen in simulated records: a plain Bi-GRU, without pretraining, beside regression on codes.

    medbert simulate EHR --patients 16000000 --seed 1 && medbert prepare EHR v1
    medbert cohort EHR dhf-landmark v1 --pretraining-dataset data/ehr_pretraining/v1/1.0.0
    python benchmarks/simulate_recurrent.py data/ehr_pretraining/v1/1.0.0 data/disease_cohort/v1/1.0.0 --work FOLDER \\
        --replicates 2

Both learn from all training patients of the cohort, stop or choose on its validation patients, and are compared on the
same test patients with DeLong's paired test. Regression knows which codes are there; the recurrent network reads fresh
embeddings of the codes in their order, and no dates.
"""

import json
from dataclasses import asdict, replace
from pathlib import Path

import jax
import numpy as np
import polars as pl
import tyro
from provenance import how_simulated, machine

import run_finetune
from configs.diabetes130 import CONFIG as GRID
from medbert_jax.data.token_store import read_metadata
from medbert_jax.data.vocabulary import Vocabulary
from medbert_jax.evaluation.results import read_results
from medbert_jax.metrics.discrimination import auroc, auroc_delong, delong_difference
from medbert_jax.models.config import preset
from medbert_jax.models.finetune_heads import HeadConfig
from medbert_jax.models.med_bert import init
from medbert_jax.training.checkpointing import committed_steps, save_step
from medbert_jax.training.config import PretrainConfig
from medbert_jax.training.run_directory import RunDirectory

_WIDTH, _DROPOUT = 64, 0.3


def main(
    pretraining_dataset: tyro.conf.Positional[Path],
    cohort_dataset: tyro.conf.Positional[Path],
    /,
    work: Path,
    replicates: int = 1,
    out: Path = Path(__file__).parent / "results" / "simulate_recurrent.json",
) -> None:
    """Train both, compare, print, write the JSON; runs that `work` has already are not done again.

    Args:
        pretraining_dataset: whose vocabulary the cohort has.
        cohort_dataset: of simulated patients.
        work: folder for the architecture and the results.
        replicates: seeds of the recurrent network.
        out: where the figures go.
    """
    grid = replace(
        GRID,
        datasets=(str(cohort_dataset),),
        finetune=replace(
            GRID.finetune,
            checkpoint=str(architecture(pretraining_dataset, work / "architecture")),
            results=str(work / "results"),
            experiment="simulate_recurrent",
            optimizer=replace(GRID.finetune.optimizer, learning_rate=1e-3),
            head=HeadConfig(kind="bi_gru", gru_hidden=_WIDTH, dropout=_DROPOUT),
            batch_size=64,
            evaluate_every=10_000,
            validation_size=0,
            patience=5,
        ),
        train_sizes=(0,),
        backbones=("none",),
    )
    run_finetune.main(replace(grid, replicates=1, heads=(), baselines=("codes",)))
    results = run_finetune.main(replace(grid, replicates=replicates, heads=("bi_gru",), baselines=()))
    rows = read_results(results).unique(["run_id"]).filter(pl.col("replicate") < replicates)
    if rows.height != 1 + replicates:
        raise ValueError(
            f"{results} must hold this comparison alone: got {rows.height} runs instead of {1 + replicates}; give"
            " another --work"
        )
    scores, label = {}, None
    for run_id, head, replicate in rows.select("run_id", "head", "replicate").iter_rows():
        test = pl.read_parquet(results / "predictions" / f"{run_id}.parquet").sort("subject_id")
        label = test["boolean_value"].to_numpy().astype(int)
        scores[head, replicate] = test["predicted_boolean_probability"].to_numpy()
    metadata = read_metadata(cohort_dataset)
    record = {
        "machine": machine(),
        "source": how_simulated(metadata["source"]["assumptions"]),
        "dataset_hash": metadata["dataset_hash"],
        "patients": metadata["split"]["counts"],
        "cases": metadata["cases"],
        "regression": _interval(label, scores["codes", 0]),
        "recurrent": [_interval(label, scores["bi_gru", one]) for one in range(replicates)],
        "difference": [
            asdict(delong_difference(label, scores["bi_gru", one], scores["codes", 0])) for one in range(replicates)
        ],
    }
    record["mean_difference"] = float(np.mean([one["difference"] for one in record["difference"]]))
    record["mean_difference_interval"] = mean_interval(label, scores, replicates)
    print(json.dumps(record, indent=1))
    out.write_text(json.dumps(record, indent=1) + "\n")


def mean_interval(label: np.ndarray, scores: dict, replicates: int, draws: int = 1000) -> list[float]:
    """95 % interval of the mean difference over the seeds that there are, by the bootstrap over test patients."""
    rng, found = np.random.default_rng(0), []
    for _ in range(draws):
        of = rng.integers(0, len(label), len(label))
        recurrent = np.mean([auroc(label[of], scores["bi_gru", one][of]) for one in range(replicates)])
        found.append(recurrent - auroc(label[of], scores["codes", 0][of]))
    return np.quantile(found, (0.025, 0.975)).tolist()


def architecture(dataset: Path, run: Path) -> Path:
    """A run directory whose model is the recurrent network's embeddings; nothing in it is trained."""
    vocabulary, metadata = Vocabulary.read(dataset / "vocabulary.tsv"), read_metadata(dataset)
    model = replace(preset("small", vocabulary.size), layers=1, heads=1, hidden_size=_WIDTH, dropout=_DROPOUT)
    config = asdict(replace(PretrainConfig(), model=model))
    config |= {"dataset_hash": metadata["dataset_hash"], "split": metadata["split"]}
    with RunDirectory.create_or_open(run, config=config, vocabulary=vocabulary) as directory:
        if not committed_steps(run):
            params = jax.jit(lambda key: init(model, key))(jax.random.key(0))
            save_step(directory, 1, params=params, opt_state=None, progress={"step": 1})
    return run


def _interval(label: np.ndarray, score: np.ndarray) -> dict:
    return asdict(auroc_delong(label, score))


if __name__ == "__main__":
    tyro.cli(main)
