"""A loss or gradient that is not finite: the step is found, and the rows whose outputs are not."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from medbert_jax.models.config import ModelConfig
from medbert_jax.training.corpus import Corpus
from medbert_jax.training.dispatch import RowsOf
from medbert_jax.training.masking import MaskingConfig
from medbert_jax.training.patient_source import PatientSource
from medbert_jax.training.pretraining import encode_masked, step_keys


def check_finite(step: int, metrics: dict) -> None:
    """Raise NotFinite where one of the last steps of `step`, those of `metrics` (count,), was not finite."""
    bad = np.flatnonzero(~np.asarray(metrics["finite"]))
    if len(bad):
        which = step - len(metrics["finite"]) + int(bad[0]) + 1
        raise NotFinite(which, *(float(metrics[name][bad[0]]) for name in ("loss", "gradient_norm")))


def check_dispatch(step: int, state: dict, metrics: dict, *, row_check: Callable, source: PatientSource) -> None:
    """`check_finite`, and the rows that were not finite in the error.

    `state`: of the last dispatch that was sent; nothing has changed it since the step that was not finite.
    `row_check`: of `make_row_check`, jitted.
    """
    try:
        check_finite(step, metrics)
    except NotFinite as fault:
        finite = row_check(state, *source.feed(fault.step - 1, 1))
        raise fault.with_rows(finite, source.patients(fault.step - 1)) from None


class NotFinite(FloatingPointError):
    """A step whose loss or gradient is not finite: nothing was learned from it, nor from those after it."""

    def __init__(self, step: int, loss: float, norm: float, where: str = ""):
        self.step, self.loss, self.norm = step, loss, norm
        super().__init__(
            f"loss and gradient norm must be finite: got {loss} and {norm} at step {step}{where}; "
            "start a new run with --init-from this one, and a lower learning rate or a longer warm-up"
        )

    def with_rows(self, finite: Sequence[np.ndarray], patients: Sequence[np.ndarray], shown: int = 5) -> "NotFinite":
        """The same fault with the rows of the step whose outputs are not finite.

        Args:
            finite: per tier (B,) bool, from `make_row_check`.
            patients: per tier (B, P) numbers of the patients of each row, among those that fit the model; −1 for none.
            shown: rows that are named with their patients' numbers, at most.
        """
        rows = [
            f"row {row} of tier {tier} (patients {', '.join(str(one) for one in who[row] if one >= 0)})"
            for tier, (fine, who) in enumerate(zip(finite, patients, strict=True))
            for row in np.flatnonzero(~np.asarray(fine))
        ]
        more = f" and {len(rows) - shown} more rows" if len(rows) > shown else ""
        where = f", in {', '.join(rows[:shown])}{more}" if rows else ", with finite outputs in every row"
        return NotFinite(self.step, self.loss, self.norm, where)


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
