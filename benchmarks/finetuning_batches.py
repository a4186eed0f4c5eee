"""Validation AUROC after equal epochs: batches of random patients against batches of patients of one length.

    python benchmarks/finetuning_batches.py --dataset data/disease_cohort/NAME/1.0.0 --checkpoint runs/NAME

The earlier fine-tuning had a patient in a row, and so batches of patients of one length bucket; today's batches are of
random patients, packed. A packed batch has the loss and the gradient of the same patients in rows of their own, to
rounding, dropout too (tests/training/test_finetuning.py), so both kinds are packed here and differ in who is in a batch
alone. A seed has one start, of head and dropout, for both; its difference is ours minus theirs, and the interval
Student's over the seeds. Minutes for a cohort of a thousand patients.
"""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import numpy as np
import tyro
from finetuning_variants import OPTIMIZER
from gain_intervals import interval_words
from provenance import how_simulated, machine

from medbert_jax.data.buckets import bucket_batches
from medbert_jax.data.cohort_plan import CohortPlan, _packed, plan_cohort
from medbert_jax.data.rows import fit_to_model
from medbert_jax.metrics.discrimination import auroc_where_ordered
from medbert_jax.models.finetune_heads import HeadConfig
from medbert_jax.training import finetuning
from medbert_jax.training.checkpoint import Checkpoint
from medbert_jax.training.cohort_data import load_cohort
from medbert_jax.training.cohort_scores import CohortScores, cohort_layout
from medbert_jax.training.corpus import CorpusConfig
from medbert_jax.training.pace import Pace, dispatched
from medbert_jax.training.patient_source import PatientSource
from medbert_jax.training.sharding import MeshConfig, make_mesh, replicated
from medbert_jax.training.tuned_parts import everything

CORPUS = CorpusConfig(placement="replicated")


@dataclass(frozen=True, eq=False)
class OneLengthPlan(CohortPlan):
    """Batches of one length bucket, of which the last one may be smaller."""

    def epoch(self, seed: int, epoch: int) -> tuple[np.ndarray, ...]:
        """Per tier (steps, rows, P)."""
        rng = np.random.default_rng((seed, epoch))
        order = np.append(rng.permutation(len(self.lengths)), -1)  # the last entry answers for an empty row
        batches = [order[rows] for _, rows in bucket_batches(self.lengths[order[:-1]], self.batch_size)]
        return _packed(rng.permutation(np.stack(batches)).astype(np.int32), self.lengths, self.tiers)


def one_length_plan(plan: CohortPlan) -> OneLengthPlan:
    """The same patients in batches of one length."""
    steps = sum(1 for _ in bucket_batches(plan.lengths, plan.batch_size))
    return OneLengthPlan(plan.tiers, steps, plan.lengths, plan.groups, plan.batch_size)


def main(
    dataset: str,
    checkpoint: str,
    train_size: int = 0,
    epochs: int = 5,
    seeds: int = 5,
    batch_size: int = 32,
    out: Path = Path(__file__).parent / "results" / "finetuning_batches.json",
) -> None:
    """Train and write the JSON.

    Args:
        dataset: directory of a cohort dataset.
        checkpoint: run directory of the pretraining.
        train_size: training patients; 0 takes all.
        epochs: epochs of each training; the AUROC is taken after each.
        seeds: trainings of each kind, two at least.
        batch_size: patients of a batch.
        out: where the figures go.
    """
    mesh, start, cohort = make_mesh(MeshConfig()), Checkpoint(checkpoint), load_cohort(dataset, train_size=train_size)
    start.check_cohort(cohort)
    model, head = start.model, HeadConfig(kind="bi_gru")
    limits = {name: getattr(model, name) for name in ("vocabulary_size", "max_visits", "max_length")}
    train, validation = (fit_to_model(one, **limits)[0] for one in (cohort.train, cohort.validation))
    optimizer = finetuning.endless_optimizer(OPTIMIZER)
    rows = cohort_layout(train, batch_size, model, mesh, training=True)
    dispatch = finetuning.compiled(model, head, optimizer, rows, mesh)
    random = plan_cohort(train.lengths, rows)
    plans = {"random patients": random, "patients of one length": one_length_plan(random)}
    found = {name: np.zeros((seeds, epochs)) for name in plans}
    fresh = jax.jit(partial(finetuning.init_finetuning, model, head))
    for seed in range(seeds):
        params = finetuning.start_from(fresh(jax.random.key(seed)), start.parameters)
        parts = everything(params, train, validation, weight_decay=False)
        with CohortScores(parts.validation, model=model, head=head, mesh=mesh) as scores:
            for name, plan in plans.items():
                state = jax.device_put(finetuning.fresh_state(parts.params, optimizer, seed), replicated(mesh))
                state = jax.tree.map(lambda leaf: leaf.copy(), state)  # the steps give it away
                every, total = plan.steps_per_epoch, epochs * plan.steps_per_epoch
                given = {"seed": seed, "total": total, "outcome": finetuning.OUTCOME, "rounded": True}
                with PatientSource(parts.train, plan, mesh, CORPUS, **given) as source:
                    for step, after, _ in dispatched(dispatch, state, source, Pace((every,), CORPUS, total=total)):
                        if step % every == 0:
                            auroc = auroc_where_ordered(validation.outcomes["label"], scores.of(after["params"]))
                            found[name][seed, step // every - 1] = auroc
    ours, theirs = found.values()
    record = {
        "machine": machine(),
        "cohort": {
            "name": cohort.name,
            "simulated": how_simulated(cohort.metadata.get("source", {}).get("assumptions", [])),
            "train": len(train),
            "validation": len(validation),
            "mean_codes": float(train.lengths.mean()),
        },
        "batch_size": batch_size,
        "steps_per_epoch": {name: plan.steps_per_epoch for name, plan in plans.items()},
        "validation_auroc": {name: values.tolist() for name, values in found.items()},
        "random minus one length, after each epoch": [interval_words(one) for one in (ours - theirs).T],
        "random minus one length, best of the epochs": interval_words(ours.max(axis=1) - theirs.max(axis=1)),
    }
    out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    tyro.cli(main)
