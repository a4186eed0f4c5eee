"""A loss or gradient that is not finite: the step is found, and the rows whose outputs are not."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from medbert_jax.models.config import ModelConfig
from medbert_jax.training.corpus import Corpus
from medbert_jax.training.dispatch import RowsOf
from medbert_jax.training.masking import MaskingConfig
from medbert_jax.training.patient_source import PatientSource
from medbert_jax.training.pretraining import encode_masked, step_keys


class NotFinite(FloatingPointError):
    """A step whose loss or gradient is not finite: nothing was learned from it, nor from those after it."""

    def __init__(self, step: int, loss: float, norm: float, where: str):
        self.step = step
        super().__init__(
            f"loss and gradient norm must be finite: got {loss} and {norm} at step {step}{where}; "
            "start a new run with --init-from this one, and a lower learning rate or a longer warm-up"
        )


def check_finite(step: int, metrics: dict, where: Callable[[int], str] = lambda step: "") -> None:
    """Raise NotFinite where one of the last steps of `step`, those of `metrics` (count,), was not finite.

    `where` says what else is known of the step, counted from 1: `rows_not_finite`.
    """
    bad = np.flatnonzero(~np.asarray(metrics["finite"]))
    if len(bad):
        found = step - len(metrics["finite"]) + int(bad[0]) + 1
        raise NotFinite(found, *(float(metrics[name][bad[0]]) for name in ("loss", "gradient_norm")), where(found))


def rows_not_finite(step: int, *, state: dict, row_check: Callable, source: PatientSource, shown: int = 5) -> str:
    """The rows of a step whose outputs are not finite, at most `shown`, with the numbers of their patients.

    `state`: of the last dispatch that was sent; nothing has changed it since that step. `row_check`: of
    `make_row_check`, jitted.
    """
    finite, patients = row_check(state, *source.feed(step - 1, 1)), source.patients(step - 1)
    rows = [
        f"row {row} of tier {tier} (patients {', '.join(str(one) for one in who[row] if one >= 0)})"
        for tier, (fine, who) in enumerate(zip(finite, patients, strict=True))
        for row in np.flatnonzero(~np.asarray(fine))
    ]
    more = f" and {len(rows) - shown} more rows" if len(rows) > shown else ""
    return f", in {', '.join(rows[:shown])}{more}" if rows else ", with finite outputs in every row"


def make_row_check(rows_of: RowsOf, *, model: ModelConfig, masking: MaskingConfig, seed: int) -> Callable:
    """The pure function (state, corpus, feed of one step) → per tier (B,) bool: are the outputs of each row finite?

    Masks and dropout are those of the training step that `state` was to take next.
    """

    def row_check(state: dict, corpus: Corpus[jax.Array], feed: dict) -> tuple:
        batch = rows_of(corpus, jax.tree.map(lambda x: x[0], {"tiers": feed["tiers"], "epoch": feed["epoch"]}))
        mask_key, dropout_key = step_keys(seed, state["step"])
        found = []
        for rows in batch["tiers"]:
            _, _, hidden_BLD = encode_masked(
                state["params"],
                rows,
                batch["epoch"],
                model=model,
                masking=masking,
                mask_key=mask_key,
                dropout_key=dropout_key,
            )
            found.append(jnp.isfinite(hidden_BLD).all(axis=(1, 2)))
        return tuple(found)

    return row_check
