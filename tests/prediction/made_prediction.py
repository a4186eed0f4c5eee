"""A made health system, tiny models of a risk and of a score that were fine-tuned there, with all that they keep."""

from dataclasses import dataclass, replace
from pathlib import Path

from made_ehr import OUTCOME, made_tables
from prepared_datasets import prepare_cohort, prepare_pretraining

import run_finetune
import run_pretrain
from medbert_jax.data.row_plan import RowsConfig
from medbert_jax.ehr.schema import EhrTables
from medbert_jax.ehr.tables import write_tables
from medbert_jax.models.config import ModelConfig
from medbert_jax.models.finetune_heads import HeadConfig
from medbert_jax.training.config import FinetuneConfig, PretrainConfig
from medbert_jax.training.masking import MaskingConfig
from medbert_jax.training.optimizer import OptimizerConfig

_COMMON = f"""
title: Heart failure in the made health system
description: Is heart failure coded at a visit after the first?
code_sets:
  - {{id: failure, description: Heart failure, prefixes: ["{OUTCOME.split(".")[0]}"], tag: ours}}
"""
RISK = f"""
name: made-risk
{_COMMON}
outcome: {{codes: failure, from_day: 1, to_day: 365, description: Heart failure within a year, tag: ours}}
index: {{everyone: first_visit, description: The first visit, tag: ours}}
input: {{until: through_index, minimum_codes: 1, description: The first visit, tag: ours}}
rules:
  - id: failure_before
    description: Heart failure by then
    tag: ours
    when: {{measure: visits, with_codes: failure, window: through_index, at_least: 1}}
  - id: followed_too_short
    description: Less than a year of follow-up
    tag: ours
    when: {{measure: days_of_follow_up, fewer_than: 365}}
"""
SCORE = f"""
name: made-score
{_COMMON}
looks_after_index: cases
outcome: {{codes: failure, description: A heart-failure code, tag: ours}}
index: {{cases: first_outcome_visit, controls: last_visit, description: Its visit or the last one, tag: ours}}
input: {{until: before_index, minimum_codes: 1, description: The visits before the index, tag: ours}}
rules:
  - id: two_visits
    description: Fewer than two visits
    tag: ours
    when: {{measure: visits, window: whole_record, fewer_than: 2}}
  - id: never_seen_again
    description: A case who is seen no more
    tag: ours
    among: cases
    when: {{measure: visits, window: after_index, fewer_than: 1}}
"""
PRETRAIN = PretrainConfig(
    steps=3,
    model=ModelConfig(hidden_size=32, layers=2, heads=2, feed_forward_size=32, max_visits=64, max_length=32),
    rows=RowsConfig(batch_size=64, short_row=32),
    masking=MaskingConfig(share=0.25),
    optimizer=OptimizerConfig(learning_rate=1e-3, schedule="constant", warmup_steps=2),
    checkpoint_every=3,
    evaluate_every=3,
)
FINETUNE = FinetuneConfig(
    head=HeadConfig(gru_hidden=8),
    optimizer=replace(FinetuneConfig().optimizer, learning_rate=1e-3),
    batch_size=256,
    max_epochs=2,
)
PATIENTS = 1500


@dataclass(frozen=True)
class Trained:
    """Where everything lies."""

    tables: EhrTables
    ehr: Path
    pretraining: Path
    cohorts: dict[str, Path]
    runs: dict[str, Path]
    """risk and score: run directories, with the standing baselines in them."""
    results: Path


def trained_in(folder: Path) -> Trained:
    """Everything, from tables to kept models."""
    tables, ehr = made_tables(PATIENTS, seed=5), folder / "ehr"
    write_tables(tables, ehr, shards=2)
    common = {"data_dir": folder / "data", "announce": lambda text: None}
    dataset = prepare_pretraining(ehr, "made", **common)
    pretraining = run_pretrain.main(replace(PRETRAIN, dataset=str(dataset), run=str(folder / "pretrained")))
    cohorts, runs = {}, {}
    for name, text in (("risk", RISK), ("score", SCORE)):
        spec = folder / f"{name}.yaml"
        spec.write_text(text)
        cohorts[name] = prepare_cohort(ehr, str(spec), name, pretraining_dataset=dataset, few_cases=True, **common)
        runs[name] = folder / name
        config = replace(FINETUNE, dataset=str(cohorts[name]), checkpoint=str(pretraining), run=str(runs[name]))
        run_finetune.main(replace(config, results=str(folder / "results")))
    return Trained(tables, ehr, pretraining, cohorts, runs, folder / "results")
