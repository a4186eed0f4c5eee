"""The codes of a cohort: the others are out of the way of its training, which does not touch them.

Without weight decay a code that no patient has gets no gradient and has no moments, so its row stays as it is, bit for
bit, and the norm that gradients are clipped by does not know it: leaving it out is exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from medbert_jax.data.sequences import PatientSequences
from medbert_jax.data.vocabulary import FIRST_CODE
from medbert_jax.training.corpus import rounded_up


@dataclass(frozen=True, eq=False)
class CohortCodes:
    """The ids that some patients have, and the special ones; each has a new number, its place among them."""

    ids: np.ndarray
    """(v,) ascending, those of the vocabulary."""
    rows: int
    """Rows of the table of these codes: v, and some that nothing points to, so that cohorts share programs."""

    @classmethod
    def of(
        cls, cohort: Sequence[PatientSequences], vocabulary_size: int, *, all_of_them: bool = False
    ) -> "CohortCodes":
        """Those of all patients of a cohort; with weight decay, which shrinks every row, all of the vocabulary."""
        if all_of_them:
            return cls(np.arange(vocabulary_size), vocabulary_size)
        found = np.zeros(vocabulary_size, bool)
        found[:FIRST_CODE] = True
        for sequences in cohort:
            found[sequences.code_ids] = True
        ids = np.flatnonzero(found)
        return cls(ids, min(vocabulary_size, rounded_up(len(ids))))

    def numbered(self, sequences: PatientSequences) -> PatientSequences:
        """The patients with the new numbers in place of the ids."""
        return replace(sequences, code_ids=np.searchsorted(self.ids, sequences.code_ids).astype(np.int32))

    def compact(self, params: dict) -> dict:
        """The parameters with the table of these codes alone."""
        padded = np.pad(self.ids, (0, self.rows - len(self.ids)))
        return _with_table(params, lambda table_VD: jnp.asarray(table_VD)[padded])

    def whole(self, params: dict, before: jax.Array | np.ndarray) -> dict:
        """Compact parameters with the whole table again: other codes as they were `before`, (V, D)."""
        return _with_table(params, lambda table_vD: jnp.asarray(before).at[self.ids].set(table_vD[: len(self.ids)]))


def _with_table(params: dict, change) -> dict:
    embeddings = params["embeddings"]
    return params | {"embeddings": embeddings | {"code_table": change(embeddings["code_table"])}}
