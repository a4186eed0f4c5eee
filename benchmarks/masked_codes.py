"""Does the masked-code task learn from the patient? Baselines, a pretrained model, and the negative control.

    python benchmarks/masked_codes.py --dataset data/ehr_pretraining/diabetes130/1.0.0 --checkpoint runs/diabetes130

On the validation patients, every masked code shown as [MASK]: the commonest code, the commonest at the same visit
number and rank, the commonest among the patient's other codes, and the checkpoint. Then two short pretrainings on
the same budget: on the data as they are, and on data whose codes were exchanged between patients within the same visit
number and rank. What the second one reaches is not read off the patient.
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
from medbert_jax.metrics.masked_codes import masked_code_baselines
from medbert_jax.models.config import ModelConfig
from medbert_jax.models.med_bert import init
from medbert_jax.training.corpus import CorpusConfig
from medbert_jax.training.dispatch import make_eval_dispatch, make_train_dispatch
from medbert_jax.training.masking import MaskingConfig, masked_per_patient
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
    asked = masked_per_patient(MASKING, held_out.lengths)
    record = {
        "machine": machine(),
        "validation_patients": len(held_out),
        "baseline_accuracy": masked_code_baselines(train, held_out, asked),
        "checkpoint": {"step": pretrained.step, **evaluate(pretrained.params, model, held_out)},
        "short_pretraining": {"steps": steps, **evaluate(pretrain(train, model, steps), model, held_out)},
    }
    exchanged, exchanged_held_out = exchange_codes(train, 0), exchange_codes(held_out, 1)
    record["negative_control"] = {
        "steps": steps,
        **evaluate(pretrain(exchanged, model, steps), model, exchanged_held_out),
        "baseline_accuracy": masked_code_baselines(exchanged, exchanged_held_out, asked),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    tyro.cli(main)
