"""Fine-tuning of the whole model with a disease head: batches, step, prediction, early stopping.

The parameters are the backbone's ("embeddings", "encoder") and the head's ("head"); batches hold one patient per row.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Float32, Float64, Int, Key, Shaped

from medbert_jax.data.buckets import bucket_batches
from medbert_jax.data.rows import padded_batch
from medbert_jax.data.sequences import PatientSequences
from medbert_jax.metrics.discrimination import better
from medbert_jax.models.batch import Batch
from medbert_jax.models.config import ModelConfig
from medbert_jax.models.finetune_heads import HeadConfig, apply_head, init_head
from medbert_jax.models.med_bert import apply, init
from medbert_jax.training.losses import binary_cross_entropy
from medbert_jax.training.merging import merge_parameters
from medbert_jax.training.optimizer import OptimizerConfig, make_optimizer
from medbert_jax.training.sharding import put_batch

PRETRAINING_ONLY = ("masked_code_head", "prolonged_los_head", "pooler")


class CohortBatch(Batch):
    """Rows of one patient each."""

    labels: Float32[Array, "B 1"]
    weights: Float32[Array, "B 1"]
    """0 for an empty row, else 1."""


def batches(
    sequences: PatientSequences, batch_size: int, rng: np.random.Generator | None = None
) -> Iterator[tuple[Int[np.ndarray, "B"], dict[str, Shaped[np.ndarray, "B _"]]]]:
    """One epoch: patients with −1 for empty rows, and a `CohortBatch` as numpy arrays."""
    for length, patients in bucket_batches(sequences.lengths, batch_size, rng):
        rows = padded_batch(sequences, patients, length)
        real = rows["patients"] >= 0
        labels = np.where(real, sequences.outcomes["label"][rows["patients"]], 0)
        yield patients, rows | {"labels": labels.astype(np.float32), "weights": real.astype(np.float32)}


def init_finetuning(model: ModelConfig, head: HeadConfig, key: Key[Array, ""]) -> dict:
    """Fresh parameters of backbone and head."""
    backbone_key, head_key = jax.random.split(key)
    params = init(model, backbone_key)
    return {name: params[name] for name in params if name not in PRETRAINING_ONLY} | {
        "head": init_head(head, model, head_key)
    }


def start_from(params: dict, pretrained: dict) -> dict:
    """`params` with the pretrained backbone, and a pretrained pooler where the head has one; the rest stays new.

    Raises ParameterMismatchError with a diff where the backbones differ.
    """
    merged = merge_parameters(params, pretrained, new=("head",), drop=PRETRAINING_ONLY)
    if "pooler" in merged["head"] and "pooler" in pretrained:
        merged["head"]["pooler"] = pretrained["pooler"]
    return merged


def risk_logits(
    params: dict, batch: Batch, *, model: ModelConfig, head: HeadConfig, key: Key[Array, ""] | None = None
) -> Float32[Array, "B 1"]:
    """Log odds of the label."""
    backbone_key, head_key = (None, None) if key is None else jax.random.split(key)
    hidden_BLD, _ = apply(params, batch, config=model, key=backbone_key)
    return apply_head(params["head"], hidden_BLD, batch, config=head, model_config=model, patients=1, key=head_key)


@cache  # the same object for the same configuration, by which `compile_steps` knows it again
def endless_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """The optimizer of a training without a known end; ValueError for a schedule that needs one."""
    if config.schedule != "constant":
        raise ValueError(
            "fine-tuning stops early, so its schedule cannot decay to an end: got optimizer.schedule "
            f"{config.schedule}; use constant"
        )
    return make_optimizer(config, total_steps=1)


def fresh_state(params: dict, optimizer: optax.GradientTransformation) -> dict:
    """The state before the first step."""
    return {"params": params, "opt_state": optimizer.init(params), "step": jnp.zeros((), jnp.int32)}


@cache  # one compilation per shape for a whole grid of runs
def compile_steps(
    model: ModelConfig,
    head: HeadConfig,
    optimizer: optax.GradientTransformation,
    everywhere: NamedSharding,
    rows: NamedSharding,
) -> tuple[Callable, Callable]:
    """Jitted (state, batch, key → state, loss) and (params, batch → probabilities (B, 1)); the state is donated."""

    def train_step(state: dict, batch: CohortBatch, key: Key[Array, ""]) -> tuple[dict, Float32[Array, ""]]:
        def loss(params: dict) -> Float32[Array, ""]:
            logits = risk_logits(params, batch, model=model, head=head, key=jax.random.fold_in(key, state["step"]))
            total, weight = binary_cross_entropy(logits, batch["labels"], batch["weights"])
            return total / jnp.maximum(weight, 1)

        value, grads = jax.value_and_grad(loss)(state["params"])
        updates, opt_state = optimizer.update(grads, state["opt_state"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        return {"params": params, "opt_state": opt_state, "step": state["step"] + 1}, value

    def predict(params: dict, batch: Batch) -> Float32[Array, "B 1"]:
        return jax.nn.sigmoid(risk_logits(params, batch, model=model, head=head))

    return (
        jax.jit(
            train_step,
            in_shardings=(everywhere, rows, everywhere),
            out_shardings=(everywhere, everywhere),
            donate_argnums=0,
        ),
        jax.jit(predict, in_shardings=(everywhere, rows), out_shardings=everywhere),
    )


def predict_all(
    predict: Callable[[dict, Batch], Float32[Array, "B 1"]],
    params: dict,
    sequences: PatientSequences,
    batch_size: int,
    mesh: Mesh,
) -> Float64[np.ndarray, "n"]:
    """Probability of the label for every patient, in the order of `sequences`."""
    out = np.zeros(len(sequences))
    pending = [
        (patients, predict(params, cast(CohortBatch, put_batch(batch, mesh))))
        for patients, batch in batches(sequences, batch_size)
    ]
    for patients, probabilities in pending:
        out[patients[patients >= 0]] = np.asarray(probabilities, np.float64)[patients >= 0, 0]
    return out


def endless_batches(
    sequences: PatientSequences, batch_size: int, rng: np.random.Generator
) -> Iterator[tuple[Int[np.ndarray, "B"], dict[str, Shaped[np.ndarray, "B _"]]]]:
    """Epoch after epoch of `batches`, each in an order of its own."""
    while True:
        yield from batches(sequences, batch_size, rng)


def steps_per_round(patients: int, batch_size: int, evaluate_every: int) -> tuple[int, int]:
    """Steps of an epoch, and steps between two validations; `evaluate_every` in patients, 0 for a whole epoch."""
    per_epoch = -(-patients // batch_size)
    return per_epoch, min(per_epoch, -(-evaluate_every // batch_size)) if evaluate_every else per_epoch


@dataclass
class EarlyStopping:
    """Keeps the parameters of the best validation; stops after `patience` validations that were not better.

    NaN, of a validation whose scores order nobody, is below every number; where there is nothing else, the first one is
    kept.
    """

    patience: int
    best: float = -np.inf
    best_step: int = 0
    best_params: dict = field(default_factory=dict)
    waited: int = 0

    def should_stop(self, step: int, value: float, params: dict) -> bool:
        """Record a validation (higher is better); True when it is time to stop."""
        if better(value, self.best):
            # Copied: the state's buffers are donated to the next step.
            self.best, self.best_step, self.best_params = value, step, jax.tree.map(jnp.copy, params)
            self.waited = 0
        else:
            self.waited += 1
        return self.waited >= self.patience
