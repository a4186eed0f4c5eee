"""Does the masked-code task learn from the patient? Baselines, a pretrained model, and the negative control.

    python benchmarks/masked_codes.py --dataset data/ehr_pretraining/diabetes130/1.0.0 --checkpoint runs/diabetes130

The checkpoint beside guesses without a model, as `medbert health` finds it. Then two short pretrainings on the same
budget: on the data as they are, and on data whose codes were exchanged between patients within the same visit number
and rank. What the second one reaches is not read off the patient.
"""

import json
from functools import partial
from pathlib import Path

import jax
import tyro
from provenance import machine

from medbert_jax.data.negative_control import exchange_codes
from medbert_jax.data.row_plan import RowsConfig, plan_rows
from medbert_jax.data.sequences import PatientSequences
from medbert_jax.data.token_store import open_token_store
from medbert_jax.evaluation.pretraining_health import pretraining_health
from medbert_jax.metrics.masked_codes import MaskedCodes, guess_ranks
from medbert_jax.models.config import ModelConfig
from medbert_jax.models.med_bert import init
from medbert_jax.training.corpus import CorpusConfig
from medbert_jax.training.dispatch import make_eval_dispatch, make_train_dispatch
from medbert_jax.training.masked_ranks import answer_masked_codes
from medbert_jax.training.masking import MaskingConfig
from medbert_jax.training.optimizer import OptimizerConfig, make_optimizer
from medbert_jax.training.pace import Pace
from medbert_jax.training.patient_source import PatientSource
from medbert_jax.training.pretrained import load_pretrained
from medbert_jax.training.pretraining import (
    TasksConfig,
    init_state,
    make_eval_step,
    make_train_step,
    step_shapes,
)
from medbert_jax.training.sharding import MeshConfig, make_mesh
from medbert_jax.training.validation import validate

MASKING = MaskingConfig(share=0.25)
ROWS = RowsConfig(batch_size=256, short_row=32)


def evaluate(params: dict, model: ModelConfig, held_out: PatientSequences) -> dict[str, float]:
    """Validation metrics of parameters."""
    plan = plan_rows(held_out.lengths, ROWS, max_length=model.max_length)
    step = make_eval_step(model=model, masking=MASKING, shapes=step_shapes(plan, MASKING), seed=0)
    with PatientSource(
        held_out, plan, make_mesh(MeshConfig()), CorpusConfig(), seed=0, total=plan.steps_per_epoch
    ) as source:
        pace = Pace((), CorpusConfig(), total=plan.steps_per_epoch)
        return validate(jax.jit(make_eval_dispatch(step, source.rows_of)), params, source, pace)


def pretrain(train: PatientSequences, model: ModelConfig, steps: int) -> dict:
    """Parameters after a short pretraining from scratch."""
    plan = plan_rows(train.lengths, ROWS, max_length=model.max_length)
    optimizer = make_optimizer(OptimizerConfig(learning_rate=1e-3, warmup_steps=steps // 10), steps)
    state = jax.jit(partial(init_state, partial(init, model), optimizer))(jax.random.key(0))
    shapes = step_shapes(plan, MASKING)
    step = make_train_step(
        model=model, masking=MASKING, tasks=TasksConfig(), shapes=shapes, optimizer=optimizer, seed=0
    )
    mesh, corpus = make_mesh(MeshConfig()), CorpusConfig(steps_per_dispatch=4)
    with PatientSource(train, plan, mesh, corpus, seed=0, total=steps) as source:
        dispatch = jax.jit(make_train_dispatch(step, source.rows_of), donate_argnums=0)
        for start in range(0, steps, source.steps):
            state, _ = dispatch(state, *source.feed(start, min(source.steps, steps - start)))
    return state["params"]


def guesses(train: PatientSequences, held_out: PatientSequences, params: dict, model: ModelConfig) -> dict[str, float]:
    """Accuracy of every guess without a model, at the codes that the model is asked for."""
    answers = answer_masked_codes(params, model, held_out, masking=MASKING, seed=0)
    ranks = guess_ranks(train, MaskedCodes(held_out, answers.is_masked), model.vocabulary_size)
    return {name: float((found == 0).mean()) for name, found in ranks.items()}


def main(
    dataset: Path,
    checkpoint: Path,
    steps: int = 276,
    out: Path = Path(__file__).parent / "results" / "masked_codes.json",
) -> None:
    """Measure and write the JSON.

    Args:
        dataset: pretraining dataset directory.
        checkpoint: a run pretrained on it.
        steps: budget of each of the two short pretrainings.
        out: where the figures go.
    """
    pretrained = load_pretrained(checkpoint)
    model = pretrained.config
    train, held_out = (open_token_store(dataset, split).truncate(model.max_length) for split in ("train", "validation"))
    record = {
        "machine": machine(),
        "health": pretraining_health(checkpoint, dataset).to_dict(),
        "checkpoint": {"step": pretrained.step, **evaluate(pretrained.params, model, held_out)},
    }
    learned = pretrain(train, model, steps)
    record["short_pretraining"] = {
        "steps": steps,
        **evaluate(learned, model, held_out),
        "guesses": guesses(train, held_out, learned, model),
    }
    exchanged, exchanged_held_out = exchange_codes(train, 0), exchange_codes(held_out, 1)
    learned = pretrain(exchanged, model, steps)
    record["negative_control"] = {
        "steps": steps,
        **evaluate(learned, model, exchanged_held_out),
        "guesses": guesses(exchanged, exchanged_held_out, learned, model),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    tyro.cli(main)
