"""One variant of `finetuning.py`: a process that trains, or predicts, whenever it is asked to.

    python benchmarks/finetuning_variants.py NAME --patients N --codes MEAN --kind train|predict

What it runs is the program of `run_finetune.py`. With `package`, a folder, medbert_jax is that of another checkout, of
before rows were packed.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

BEGAN = time.perf_counter()
OLD = "--package" in sys.argv
if OLD:
    sys.path.insert(0, sys.argv[sys.argv.index("--package") + 1])

import jax  # noqa: E402
import numpy as np  # noqa: E402
import tyro  # noqa: E402
from length_model import length_model  # noqa: E402
from side_by_side import serve  # noqa: E402

from medbert_jax.models.config import ModelConfig  # noqa: E402
from medbert_jax.models.finetune_heads import HeadConfig  # noqa: E402
from medbert_jax.training import finetuning  # noqa: E402
from medbert_jax.training.config import FinetuneConfig  # noqa: E402
from medbert_jax.training.sharding import MeshConfig, make_mesh, replicated  # noqa: E402

OPTIMIZER = replace(FinetuneConfig().optimizer, learning_rate=2e-4)


@dataclass(frozen=True)
class Options:
    """What is run, and on what."""

    kind: Literal["train", "predict"] = "train"
    patients: int = 1000
    codes: float = 43.0
    """Codes of a patient on average: lognormal, sigma 1, clipped to 3 … 512."""
    vocabulary: int = 10_000
    layers: int = 6
    batch_size: int = 32
    head: Literal["feed_forward", "first", "gru", "bi_gru"] = "bi_gru"
    backbone: Literal["pretrained", "frozen"] = "pretrained"
    """Its parameters are drawn: they cost as much as trained ones."""
    package: Path | None = None


def main(options: Options) -> None:
    """Get ready, and serve rounds: an epoch, or a pass of predictions."""
    cohort = length_model(options.patients, options.vocabulary, mean=options.codes)
    cohort = replace(cohort, outcomes={"label": cohort.outcomes["prolonged_los"]})
    model, head = ModelConfig(vocabulary_size=options.vocabulary, layers=options.layers), HeadConfig(kind=options.head)
    params = jax.jit(lambda key: finetuning.init_finetuning(model, head, key))(jax.random.key(0))
    optimizer = finetuning.endless_optimizer(OPTIMIZER)
    first, one_round = (_before if OLD else _today)(options, cohort, model, head, params, optimizer)
    ready = time.perf_counter()
    first()
    serve(
        one_round,
        seconds_to_program=ready - BEGAN,
        seconds_to_first_step=time.perf_counter() - BEGAN,
        mean_codes=float(cohort.lengths.mean()),
    )


def _today(options: Options, cohort, model, head, params, optimizer) -> tuple[Callable, Callable]:
    from medbert_jax.data.cohort_plan import plan_cohort
    from medbert_jax.training.cohort_scores import CohortScores, cohort_layout
    from medbert_jax.training.corpus import CorpusConfig
    from medbert_jax.training.pace import Pace, dispatched
    from medbert_jax.training.patient_source import PatientSource
    from medbert_jax.training.tuned_parts import everything, head_alone

    mesh = make_mesh(MeshConfig())
    if options.backbone == "frozen":
        parts = head_alone(params, cohort, cohort, model=model, mesh=mesh)
    else:
        parts = everything(params, cohort, cohort, weight_decay=False)
    if options.kind == "predict":
        scores = CohortScores(parts.validation, model=model, head=head, mesh=mesh)

        def predictions() -> float:
            return float(len(scores.of(parts.params | parts.given_in_validation)))

        return predictions, predictions
    rows = cohort_layout(cohort, options.batch_size, model, mesh, training=True)
    plan = plan_cohort(cohort.lengths, rows)
    corpus = CorpusConfig(placement="replicated")
    source = PatientSource(
        parts.train, plan, mesh, corpus, seed=0, total=10**9, outcome=finetuning.OUTCOME, rounded=True
    )
    dispatch = finetuning.compiled(model, head, optimizer, rows, mesh)
    now = {"state": jax.device_put(finetuning.fresh_state(parts.params, optimizer, 0, parts.given), replicated(mesh))}
    now["step"] = 0

    def steps(count: int) -> float:
        pace, patients = Pace((), corpus, total=now["step"] + count), 0.0
        for step, state, metrics in dispatched(dispatch, now["state"], source, pace, start=now["step"]):
            patients += float(metrics["patients"].sum())
            now["state"], now["step"] = state, step
        jax.block_until_ready(now["state"])
        return patients

    return lambda: steps(1), lambda: steps(plan.steps_per_epoch)


def _before(options: Options, cohort, model, head, params, optimizer) -> tuple[Callable, Callable]:
    from medbert_jax.training.sharding import over_rows, put_batch

    mesh = make_mesh(MeshConfig())
    everywhere, rows = replicated(mesh), over_rows(mesh)
    train, predict = finetuning.compile_steps(model, head, optimizer, everywhere, rows)
    now = {"state": jax.device_put(finetuning.fresh_state(params, optimizer), everywhere)}
    key, rng = jax.random.key(0), np.random.default_rng(0)

    def epoch() -> float:
        for _, batch in finetuning.batches(cohort, options.batch_size, rng):
            now["state"], _ = train(now["state"], put_batch(batch, mesh), key)
        jax.block_until_ready(now["state"])
        return float(len(cohort))

    def predictions() -> float:
        return float(len(finetuning.predict_all(predict, now["state"]["params"], cohort, options.batch_size, mesh)))

    one_round = epoch if options.kind == "train" else predictions
    return one_round, one_round  # every length of row is a program: a whole round compiles them


if __name__ == "__main__":
    main(tyro.cli(Options))
