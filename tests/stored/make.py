"""Makes what today's version stores: two datasets, a run, a fine-tuned run, results; all of them tiny.

    cd FOLDER && python …/tests/stored/make.py VERSION

They lie in tests/stored/VERSION and never change: later versions must read them. For a new version make new ones beside
them. Simulated patients; the run stopped at step 4 of 6, as one does that is killed.
"""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import run_finetune
import run_pretrain
from medbert_jax.data.row_plan import RowsConfig
from medbert_jax.models.config import ModelConfig
from medbert_jax.models.finetune_heads import HeadConfig
from medbert_jax.simulation.simulate import simulate
from medbert_jax.training.config import FinetuneConfig, PretrainConfig
from medbert_jax.training.corpus import CorpusConfig
from medbert_jax.training.manifest import step_folder, uncommit_step
from medbert_jax.training.masking import MaskingConfig
from medbert_jax.training.optimizer import OptimizerConfig
from tfds_builders.disease_cohort.disease_cohort_dataset_builder import prepare_cohort
from tfds_builders.ehr_pretraining.ehr_pretraining_dataset_builder import prepare_pretraining
from tfds_builders.options import CohortOptions, PrepareOptions

COHORT = """
name: heart
title: Heart and vessels
description: Is a disease of heart or vessels coded at a visit after the first?
code_sets:
  - {id: heart, description: Heart and vessels, prefixes: [ICD10CM/I10, ICD10CM/I25, ICD9CM/401, ICD9CM/414], tag: ours}
outcome: {codes: heart, description: A code of it, tag: ours}
index: {cases: first_outcome_visit, controls: last_visit, description: Its visit or the last one, tag: ours}
input: {until: before_index, minimum_codes: 1, description: The visits before the index, tag: ours}
rules:
  - id: two_visits
    description: Fewer than two visits
    tag: ours
    when: {measure: visits, window: whole_record, fewer_than: 2}
"""
PRETRAIN = PretrainConfig(
    steps=6,
    model=ModelConfig(hidden_size=16, layers=1, heads=2, feed_forward_size=16, max_visits=64, max_length=64),
    rows=RowsConfig(batch_size=16, short_row=32),
    masking=MaskingConfig(share=0.25),
    optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=2),
    corpus=CorpusConfig(steps_per_dispatch=2, dispatch_seconds=60.0),
    checkpoint_every=4,
    evaluate_every=4,
    log_every=1,
)
FINETUNE = FinetuneConfig(
    head=HeadConfig(gru_hidden=4),
    optimizer=replace(FinetuneConfig().optimizer, learning_rate=1e-3),
    batch_size=32,
    max_epochs=1,
)


def make(folder: Path) -> None:
    """Write everything below a folder that is relative: what is stored names no place of this machine."""
    made, spec = folder / "made", folder / "heart.yaml"
    folder.mkdir()
    spec.write_text(COHORT)
    simulate(folder / "ehr", patients=200, seed=7, shards=1, workers=1)
    options = PrepareOptions(folder / "ehr", "stored", data_dir=made, minimum_patients=3, unknown_code_limit=0.9)
    dataset = prepare_pretraining(options, announce=print)
    options = CohortOptions(
        folder / "ehr",
        str(spec),
        "stored",
        data_dir=made,
        pretraining_dataset=dataset,
        few_cases=True,
        unknown_code_limit=0.9,
    )
    cohort = prepare_cohort(options, announce=print)
    # As one is that was copied without its store; nobody reads the test patients of a pretraining.
    shutil.copytree(dataset, folder / "dataset", ignore=shutil.ignore_patterns("token_store", "*-test.array_record-*"))
    shutil.copytree(cohort, folder / "cohort")
    shutil.rmtree(made)
    run_pretrain.main(replace(PRETRAIN, dataset=str(folder / "dataset"), run=str(folder / "run")))
    shutil.rmtree(folder / "dataset" / "token_store")
    uncommit_step(step_folder(folder / "run", 6))
    places = {"dataset": folder / "cohort", "checkpoint": folder / "run", "run": folder / "finetuned"}
    places["results"] = folder / "results"
    run_finetune.main(replace(FINETUNE, **{name: str(path) for name, path in places.items()}))
    spec.unlink()
    for left in ("ehr", "cohort/token_store/train", "cohort/token_store/validation"):  # small enough for a checkout
        shutil.rmtree(folder / left)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
