"""The pretraining step: masked codes and prolonged length of stay, from rows to updated state.

A batch is {"tiers": one dict of row arrays per row length, "epoch": scalar}; row arrays as in `data.rows.gather_rows`
plus "prolonged_los" (B, P).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import optax
from annotated_types import Ge

from medbert_jax.checked_fields import check_fields
from medbert_jax.data.row_plan import RowPlan
from medbert_jax.models.batch import Batch
from medbert_jax.models.config import ModelConfig
from medbert_jax.models.med_bert import apply, code_vectors, masked_code_states, prolonged_los_logits
from medbert_jax.training.losses import cross_entropy
from medbert_jax.training.masked_code_loss import masked_code_loss
from medbert_jax.training.masking import Masked, MaskingConfig, mask_codes, masked_per_patient


@dataclass(frozen=True)
class TasksConfig:
    """Weights of the two pretraining losses."""

    masked_codes: Annotated[float, Ge(0)] = 1.0
    prolonged_los: Annotated[float, Ge(0)] = 1.0

    def __post_init__(self):
        """Check every field; all faults are in one error."""
        check_fields(self, at="tasks")


@dataclass(frozen=True)
class StepShapes:
    """What a step's program must know about the row plan: static numbers, no data."""

    groups: int
    """Devices along the data axis; masked states are gathered within each."""
    masked: tuple[int, ...]
    """Upper bound of masked codes per group, for every tier."""
    patients: tuple[int, ...]
    """Places for patients in a row, for every tier."""
    rare: tuple[bool, ...]
    """Of every tier, whether many steps have no row of it: it is asked for, and left out."""
    expected_masked: float
    """Mean number of masked codes in a step: the masked-code loss is divided by it."""
    expected_patients: float
    """Mean number of patients in a step: the prolonged-LOS loss is divided by it."""


def step_shapes(plan: RowPlan, masking: MaskingConfig) -> StepShapes:
    """Static shapes of the steps of a plan."""
    per_patient = masked_per_patient(masking, np.arange(int(plan.lengths.max()) + 1))
    return StepShapes(
        plan.groups,
        plan.most_per_group(per_patient),
        tuple(tier.patients_per_row for tier in plan.tiers),
        tuple(tier.rare for tier in plan.tiers),
        float(per_patient[plan.lengths].mean() * plan.patients_per_step),
        plan.patients_per_step,
    )


_DROPOUT = np.uint32(2**32 - 1)
"""Sets the keys of dropout apart from those of masks, which fold in an epoch: no epoch has this number."""


def masks_key(seed: int) -> jax.Array:
    """The key of all masks of a run: threefry, whose bits no backend and no setting of jax changes."""
    return jax.random.key(seed, impl="threefry2x32")


def step_keys(seed: int, step: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Keys of masks and dropout in the training step that follows `step` steps, threefry both.

    Dropout takes two words for each of its layers from it, and hashes them: `models.dropout`.
    """
    masks = masks_key(seed)
    return masks, jax.random.fold_in(jax.random.fold_in(masks, _DROPOUT), step)


def encode_masked(
    params: dict,
    rows: Batch,
    epoch: jax.Array,
    *,
    model: ModelConfig,
    masking: MaskingConfig,
    mask_key: jax.Array,
    dropout_key: jax.Array | None,
) -> tuple[Masked, Batch, jax.Array]:
    """What is masked of the rows of a tier, the rows with these codes masked, and the encoder's outputs (B, L, D)."""
    masked = _masked(rows, epoch, model=model, masking=masking, key=mask_key)
    inputs = rows | {"code_ids": masked.code_ids}
    hidden_BLD, _ = apply(params, inputs, config=model, key=dropout_key)
    return masked, inputs, hidden_BLD


def _masked(rows: Batch, epoch: jax.Array, *, model: ModelConfig, masking: MaskingConfig, key: jax.Array) -> Masked:
    size, mask_id = model.vocabulary_size, model.mask_id
    return mask_codes(rows, config=masking, key=key, epoch=epoch, vocabulary_size=size, mask_id=mask_id)


def pretraining_losses(
    params: dict,
    batch: dict,
    *,
    model: ModelConfig,
    masking: MaskingConfig,
    shapes: StepShapes,
    mask_key: jax.Array,
    dropout_key: jax.Array | None,
) -> dict:
    """Sums and weights of both losses, correct predictions, and the prolonged-LOS logit difference of every tier.

    The states of masked slots are gathered before the decoder, within each device's rows.
    """
    epoch = batch["epoch"]
    masked_tiers = [_masked(rows, epoch, model=model, masking=masking, key=mask_key) for rows in batch["tiers"]]
    # At once, because the gradient of every look-up is as large as the table. Nothing else below reads the table.
    looked_up = code_vectors(params, [masked.code_ids for masked in masked_tiers], groups=shapes.groups)
    table_VD = params["embeddings"]["code_table"]
    encoding = params | {"embeddings": params["embeddings"] | {"code_table": jax.lax.stop_gradient(table_VD)}}
    states, targets, weights = [], [], []
    los_sum = los_weight = 0.0
    los_logits = []
    tiers = zip(batch["tiers"], masked_tiers, looked_up, shapes.masked, shapes.patients, shapes.rare, strict=True)
    for rows, masked, codes_BLD, most_masked, patients, rare in tiers:
        # Group = the rows of one device, so that this gather never crosses devices.
        flags_GN = masked.is_masked.reshape(shapes.groups, -1)
        none = flags_GN.shape[1]
        slots_GM = jax.vmap(lambda flags, m=most_masked, n=none: jnp.nonzero(flags, size=m, fill_value=n)[0])(flags_GN)
        found_GM = slots_GM < none
        slots_GM = jnp.where(found_GM, slots_GM, 0)

        def encoded(params, codes_BLD, rows=rows, masked=masked, slots_GM=slots_GM, patients=patients):
            inputs = rows | {"code_ids": masked.code_ids}
            hidden_BLD, _ = apply(params, inputs, config=model, key=dropout_key, codes_BLD=codes_BLD)
            hidden_GND = hidden_BLD.reshape(shapes.groups, -1, hidden_BLD.shape[-1])
            states_GMD = jnp.take_along_axis(hidden_GND, slots_GM[..., None], axis=1)
            return states_GMD, prolonged_los_logits(params, hidden_BLD, inputs, config=model, patients=patients)

        run = _where_any(rows["patients"] >= 0, encoded) if rare else encoded
        states_GMD, logits_BPC = run(encoding, codes_BLD)
        states.append(states_GMD)
        targets.append(jnp.take_along_axis(rows["code_ids"].reshape(shapes.groups, -1), slots_GM, axis=1))
        weights.append(found_GM)
        loss, weight = cross_entropy(logits_BPC, rows["prolonged_los"], rows["patients"] >= 0)
        los_sum, los_weight = los_sum + loss, los_weight + weight
        los_logits.append(logits_BPC[..., 1] - logits_BPC[..., 0])

    targets_GM, weights_GM = jnp.concatenate(targets, axis=1), jnp.concatenate(weights, axis=1)
    code_sum, correct = masked_code_loss(
        masked_code_states(params, jnp.concatenate(states, axis=1), config=model),
        table_VD,
        params["masked_code_head"]["bias"],
        targets_GM,
        weights_GM,
        codes=model.vocabulary_size,  # the table may have more rows, `vocabulary_padding`
    )
    return {
        "masked_code_sum": code_sum,
        "masked_code_weight": jnp.sum(weights_GM),
        "masked_code_correct": correct,
        "prolonged_los_sum": los_sum,
        "prolonged_los_weight": los_weight,
        "prolonged_los_logits": tuple(los_logits),
    }


def _where_any(flags: jax.Array, run: Callable) -> Callable:
    """`run` where a flag is set; elsewhere zeros of its shapes, at no cost.

    The gradient computes again what it needs: kept, it would be cleared in every step that does not run.
    """
    run = jax.checkpoint(run)

    def zeros(*given: object) -> object:
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(run, *given))

    return lambda *given: jax.lax.cond(jnp.any(flags), run, zeros, *given)


def make_train_step(
    *,
    model: ModelConfig,
    masking: MaskingConfig,
    tasks: TasksConfig,
    shapes: StepShapes,
    optimizer: optax.GradientTransformationExtraArgs,
    seed: int,
) -> Callable[[dict, dict], tuple[dict, dict]]:
    """The pure function (state, batch) → (state, metrics), to be jitted with the shardings of both.

    A loss or gradient that is not finite leaves the state as it was; "finite" among the metrics tells.
    """

    def train_step(state: dict, batch: dict) -> tuple[dict, dict]:
        mask_key, dropout_key = step_keys(seed, state["step"])

        def loss(params):
            parts = pretraining_losses(
                params,
                batch,
                model=model,
                masking=masking,
                shapes=shapes,
                mask_key=mask_key,
                dropout_key=dropout_key,
            )
            total = (
                tasks.masked_codes * parts["masked_code_sum"] / shapes.expected_masked
                + tasks.prolonged_los * parts["prolonged_los_sum"] / shapes.expected_patients
            )
            del parts["prolonged_los_logits"]
            return total, parts

        (total, metrics), grads = jax.value_and_grad(loss, has_aux=True)(state["params"])
        norm = optax.tree.norm(grads)
        finite = jnp.isfinite(total) & jnp.isfinite(norm)
        share = metrics["prolonged_los_weight"] / shapes.expected_patients
        updates, opt_state = optimizer.update(grads, state["opt_state"], state["params"], share=share, sound=finite)
        params = jax.tree.map(lambda p, u: jnp.where(finite, p + u, p), state["params"], updates)
        new = {"params": params, "opt_state": opt_state, "step": state["step"] + finite.astype(jnp.int32)}
        return new, metrics | {"loss": total, "gradient_norm": norm, "finite": finite}

    return train_step


def make_eval_step(
    *, model: ModelConfig, masking: MaskingConfig, shapes: StepShapes, seed: int
) -> Callable[[dict, dict], dict]:
    """The pure function (params, batch) → sums, weights and logits, without dropout.

    Every masked code becomes [MASK]: the tenth that training leaves unchanged would be read off the input, and an
    accuracy of a tenth would mean nothing.
    """
    masking = replace(masking, mask_token=1.0, random_token=0.0)

    def eval_step(params: dict, batch: dict) -> dict:
        return pretraining_losses(
            params,
            batch,
            model=model,
            masking=masking,
            shapes=shapes,
            mask_key=masks_key(seed),
            dropout_key=None,
        )

    return eval_step


def init_state(init: Callable[[jax.Array], dict], optimizer: optax.GradientTransformation, key: jax.Array) -> dict:
    """A fresh training state; call it under jit with out_shardings, so that nothing is ever whole on one device."""
    params = init(key)
    return {"params": params, "opt_state": optimizer.init(params), "step": jnp.zeros((), jnp.int32)}


def summarize(metrics: dict) -> tuple[dict[str, float], float]:
    """Means over steps, (K,) arrays each, and the number of patients they trained on."""
    total = {name: float(np.sum(values, dtype=np.float64)) for name, values in metrics.items()}
    steps = len(metrics["loss"])
    return {
        "loss": total["loss"] / steps,
        "masked_code_loss": total["masked_code_sum"] / max(1, total["masked_code_weight"]),
        "masked_code_accuracy": total["masked_code_correct"] / max(1, total["masked_code_weight"]),
        "prolonged_los_loss": total["prolonged_los_sum"] / max(1, total["prolonged_los_weight"]),
        "gradient_norm": total["gradient_norm"] / steps,
    }, total["prolonged_los_weight"]
