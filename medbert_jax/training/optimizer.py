"""AdamW as BERT has it, and the Adam of the fine-tuning, as one optax chain."""

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from annotated_types import Ge, Gt, Interval
from jax.typing import ArrayLike
from jaxtyping import Array, Float32, Int32

from medbert_jax.checked_fields import check_fields


@dataclass(frozen=True)
class OptimizerConfig:
    """Optimizer and learning-rate schedule."""

    learning_rate: Annotated[float, Ge(0)] = 5e-5
    """Peak rate."""
    warmup_steps: Annotated[int, Ge(0)] = 10_000
    """Steps over which the rate rises from 0."""
    schedule: Literal["bert", "huggingface", "constant"] = "bert"
    """Linear decay to 0 over all steps: "bert" decays from step 0 and the warm-up overrides its own steps, so the rate
    falls by a jump at its end; "huggingface" decays from the end of the warm-up; "constant" stays at the peak."""
    weight_decay: Annotated[float, Ge(0)] = 0.01
    """Decoupled; not on LayerNorm, not on biases."""
    clip_norm: Annotated[float, Ge(0)] = 1.0
    """Global gradient norm, of a step of mean patients; 0 switches clipping off. In pretraining it goes with the
    patients of the step, so that each of them counts the same, however many share it."""
    beta_1: Annotated[float, Interval(ge=0, lt=1)] = 0.9
    beta_2: Annotated[float, Interval(ge=0, lt=1)] = 0.999
    epsilon: Annotated[float, Gt(0)] = 1e-6
    bias_correction: bool = False
    """BERT's own optimizer has none; the fine-tuning's Adam has."""

    def __post_init__(self):
        """Check every field; all faults are in one error."""
        check_fields(self, at="optimizer")


class AdamState(NamedTuple):
    """First and second moment of every parameter, and the number of updates made."""

    count: Int32[Array, ""]
    mu: optax.Updates
    nu: optax.Updates


def learning_rate(config: OptimizerConfig, total_steps: int) -> optax.Schedule:
    """Rate of update `step` = 0, 1, 2, …. Source: `create_optimizer` of google-research/bert."""

    def rate(step: ArrayLike) -> Float32[Array, "..."]:
        step = jnp.asarray(step, jnp.float32)
        peak, warmup = config.learning_rate, config.warmup_steps
        if config.schedule == "constant":
            decayed = jnp.asarray(peak, jnp.float32)
        elif config.schedule == "bert":
            decayed = peak * (1 - jnp.minimum(step, total_steps) / total_steps)
        else:
            decayed = peak * jnp.clip((total_steps - step) / max(1, total_steps - warmup), 0, 1)
        return jnp.where(step < warmup, peak * step / max(1, warmup), decayed)

    return rate


def decay_mask(params) -> dict:
    """True where weight decay acts: everything but LayerNorm parameters and biases (of recurrent heads too)."""

    def decays(path, _) -> bool:
        names = [str(getattr(key, "key", key)) for key in path]
        return not (names[-1].endswith("bias") or any("layer_norm" in name for name in names))

    return jax.tree_util.tree_map_with_path(decays, params)


def clip_by_global_norm(most: float) -> optax.GradientTransformationExtraArgs:
    """Gradients scaled down to the global norm `most` × `share`, where theirs is above it.

    `share`: patients of the step over those of a mean step. The losses are sums over the mean step's weight, so that a
    step of half the patients has half the norm, and one limit for all would count each of its patients twice.
    """

    def update(updates, state, params=None, *, share: ArrayLike = 1.0, **_):
        del params
        norm, limit = optax.tree.norm(updates), most * jnp.asarray(share, jnp.float32)
        scale = jnp.where(norm <= limit, 1.0, limit / norm)
        return jax.tree.map(lambda g: g * scale, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def scale_by_bert_adam(config: OptimizerConfig) -> optax.GradientTransformationExtraArgs:
    """m / (√v + ε), without bias correction unless the configuration asks for it.

    Where `sound` is false the moments stay as they are: chosen here, before the parameters read them, they are updated
    in place, whereas a choice between two whole states costs a copy of each.
    """

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return AdamState(jnp.zeros((), jnp.int32), zeros, jax.tree.map(jnp.zeros_like, params))

    def update(updates, state, params=None, *, sound: ArrayLike = True, **_):
        del params
        count = state.count + jnp.asarray(sound, jnp.int32)
        b1, b2 = config.beta_1, config.beta_2
        mu = jax.tree.map(lambda m, g: jnp.where(sound, b1 * m + (1 - b1) * g, m), state.mu, updates)
        nu = jax.tree.map(lambda v, g: jnp.where(sound, b2 * v + (1 - b2) * jnp.square(g), v), state.nu, updates)
        scale_1, scale_2 = (1 - b1**count, 1 - b2**count) if config.bias_correction else (1.0, 1.0)
        updates = jax.tree.map(lambda m, v: (m / scale_1) / (jnp.sqrt(v / scale_2) + config.epsilon), mu, nu)
        return updates, AdamState(count, mu, nu)

    return optax.GradientTransformationExtraArgs(init, update)


def scale_by_rate(rate: optax.Schedule) -> optax.GradientTransformationExtraArgs:
    """Minus the rate of this update; where `sound` is false, the next one has the same rate."""

    def init(params):
        del params
        return optax.ScaleByScheduleState(jnp.zeros((), jnp.int32))

    def update(updates, state, params=None, *, sound: ArrayLike = True, **_):
        del params
        step = -jnp.asarray(rate(state.count))
        count = state.count + jnp.asarray(sound, jnp.int32)
        return jax.tree.map(lambda one: one * step, updates), optax.ScaleByScheduleState(count)

    return optax.GradientTransformationExtraArgs(init, update)


def make_optimizer(config: OptimizerConfig, total_steps: int) -> optax.GradientTransformationExtraArgs:
    """Clip → Adam → decoupled decay → minus the rate. Raises ValueError on a schedule that cannot be.

    Its `update` takes two arguments more, of `clip_by_global_norm` and `scale_by_bert_adam`: `share`, 1 if not given,
    and `sound`, without which no state changes; what becomes of the parameters then is left to the caller.
    """
    if config.schedule != "constant" and config.warmup_steps > total_steps:
        raise ValueError(
            f"warmup_steps must not exceed the total steps: got {config.warmup_steps} and {total_steps}; "
            "lower warmup_steps or train longer"
        )
    parts: list[optax.GradientTransformation] = [clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    parts.append(scale_by_bert_adam(config))
    if config.weight_decay:
        parts.append(optax.add_decayed_weights(config.weight_decay, mask=decay_mask))
    parts.append(scale_by_rate(learning_rate(config, total_steps)))
    return optax.chain(*parts)
