"""Predictions of a fine-tuned model for all patients of a split, in packed rows and large batches."""

from collections.abc import Iterator
from dataclasses import replace

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float64

from medbert_jax.data.cohort_plan import Layout, layout, plan_cohort
from medbert_jax.data.sequences import PatientSequences
from medbert_jax.models.config import ModelConfig
from medbert_jax.models.finetune_heads import HeadConfig
from medbert_jax.training.cohort_codes import CohortCodes
from medbert_jax.training.corpus import Corpus, CorpusConfig
from medbert_jax.training.finetuning import OUTCOME, compiled_eval
from medbert_jax.training.pace import Pace, dispatched
from medbert_jax.training.patient_source import PatientSource
from medbert_jax.training.sharding import replicated

BATCH = 256
"""Patients of a step."""
CORPUS = CorpusConfig(placement="replicated", steps_per_dispatch=8)


class CohortScores:
    """The patients of a split on the devices; `of` gives their risks by any parameters. Holds threads: close it."""

    def __init__(self, sequences: PatientSequences, *, model: ModelConfig, head: HeadConfig, mesh: Mesh):
        """`sequences` fit the model; their outcomes are not looked at."""
        rows = scoring_layout(sequences, model, mesh)
        self._source = cohort_source(sequences, rows, mesh)
        self._dispatch = compiled_eval(model, head, rows, mesh)

    def __enter__(self) -> "CohortScores":
        """Return the scores themselves."""
        return self

    def __exit__(self, *_) -> None:
        """Let the threads go."""
        self._source.close()

    def of(self, params: dict) -> Float64[np.ndarray, "n"]:
        """Probability of the label for every patient, in the order of the sequences."""
        out = np.zeros(len(self._source.sequences))
        for who, risks in self._passes(params):
            out[who[who >= 0]] = risks[who >= 0]
        return out

    def _passes(self, params: dict) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Of every dispatch and tier, who is in its rows, (count, B, P), and what the program found, (count, …)."""
        source = self._source
        done, tiers = 0, source.plan.epoch(source.seed, 0)

        def predicted(params: dict, corpus: Corpus[jax.Array], feed: dict) -> tuple[dict, dict]:
            return params, self._dispatch(params, corpus, feed)

        pace = Pace((), source.config, total=source.plan.steps_per_epoch)
        for step, _, found in dispatched(predicted, params, source, pace):
            for patients, risks in zip(tiers, found["risks"], strict=True):
                yield patients[done:step], risks
            done = step


def predict(
    params: dict, sequences: PatientSequences, *, model: ModelConfig, head: HeadConfig, mesh: Mesh
) -> Float64[np.ndarray, "n"]:
    """Probability of the label for every patient, by all parameters of a model; only the patients' codes are moved."""
    if not len(sequences):
        return np.zeros(0)
    codes = CohortCodes.of((sequences,), len(params["embeddings"]["code_table"]))
    with CohortScores(codes.numbered(sequences), model=model, head=head, mesh=mesh) as scores:
        return scores.of(jax.device_put(codes.compact(params), replicated(mesh)))


def scoring_layout(sequences: PatientSequences, model: ModelConfig, mesh: Mesh) -> Layout:
    """The rows of a pass over all patients without gradients."""
    return cohort_layout(sequences, BATCH, model, mesh, training=False)


def cohort_layout(
    sequences: PatientSequences, batch_size: int, model: ModelConfig, mesh: Mesh, *, training: bool
) -> Layout:
    """The rows of steps of `batch_size` patients, in chunks of a size that suits the devices.

    A CPU takes chunks that stay in its caches; on an accelerator every chunk is so many launches of kernels. Memory is
    bounded by what a chunk has, not by the patients of a step.
    """
    if jax.default_backend() == "cpu":
        slots, cost = (1024, 64) if training else (2048, 128)
    else:
        slots, cost = 2**14, 2**12
    return layout(
        sequences.lengths,
        batch_size=batch_size,
        max_length=model.max_length,
        chunk_slots=slots,
        chunk_cost=cost,
        groups=mesh.shape["data"],
    )


def cohort_source(sequences: PatientSequences, rows: Layout, mesh: Mesh) -> PatientSource:
    """One pass over the patients, with a label or without."""
    if OUTCOME not in sequences.outcomes:
        sequences = replace(sequences, outcomes={OUTCOME: np.zeros(len(sequences), np.int32)})
    plan = plan_cohort(sequences.lengths, rows, groups=mesh.shape["data"])
    total = plan.steps_per_epoch
    return PatientSource(sequences, plan, mesh, CORPUS, seed=0, total=total, outcome=OUTCOME, rounded=True)
