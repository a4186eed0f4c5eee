"""Pairs of codes of one patient within some days, as how far back in his record each code's partners lie.

Codes are in time order, so the partners before a code are the codes right before it: one number says which, and with
those of the codes after it all pairs are known. Nothing is as large as the pairs, of which there are many.
"""

from dataclasses import dataclass

import numpy as np

from medbert_jax.data.sequences import PatientSequences

SHORTEST, LONGEST = 32, 512
"""Codes of a block; a product of a shorter one leaves a core idle."""
COVERED = 0.99
"""Share of the pairs that a block must be long enough for."""


def reach_back(sequences: PatientSequences, window_days: int) -> np.ndarray:
    """How many codes before each one are its patient's and of at most `window_days` earlier, (codes,) int64.

    Codes of one visit are each other's partners, whatever is known of the day. A visit whose day is unknown reaches
    back to its own codes alone; one that lies between two visits within the window lies within it too.
    """
    visits = np.diff(sequences.visit_offsets)
    days = np.asarray(sequences.visit_days, np.int64)
    known = np.flatnonzero(days >= 0)
    # Patients are as far apart as no window reaches; a day that falls back counts as the latest one before it.
    apart = int(days.max(initial=0)) + window_days + 1
    dates = np.maximum.accumulate(np.repeat(np.arange(len(visits)), visits)[known] * apart + days[known])
    first_visit = np.arange(len(days))
    first_visit[known] = known[np.searchsorted(dates, dates - window_days)]
    # Codes of a visit lie side by side, and every visit has some.
    starts = np.flatnonzero(np.asarray(sequences.serialization_ids) == 0)
    sizes = np.diff(np.append(starts, len(sequences.code_ids)))
    return np.arange(len(sequences.code_ids)) - np.repeat(starts[first_visit], sizes)


@dataclass(frozen=True, eq=False)
class WindowedPairs:
    """The codes of all patients, one after the other, and what is paired with what."""

    code_ids: np.ndarray
    """(codes,) int32."""
    back: np.ndarray
    """(codes,) int16: of `reach_back`, as far as half a block."""
    block: int
    """Codes of a block. Codes more than half of it apart are no pair."""
    pairs: int
    """Pairs within half a block; each counts once as (one, other) and once as (other, one)."""
    left_out: int
    """Pairs within the window, but further apart."""

    @classmethod
    def of(cls, sequences: PatientSequences, window_days: int) -> "WindowedPairs":
        """Those of the patients; the block is as short as `COVERED` allows. ValueError where there are none."""
        back = reach_back(sequences, window_days)
        whole, block = int(back.sum()), SHORTEST
        while block < LONGEST and np.minimum(back, block // 2).sum() < COVERED * whole:
            block *= 2
        if not whole:
            raise ValueError(
                f"code vectors need patients with two codes within {window_days} days: got none among "
                f"{len(sequences):,} patients; give a larger window or other patients"
            )
        near = np.minimum(back, block // 2).astype(np.int16)
        pairs = 2 * int(near.sum(dtype=np.int64))
        return cls(np.asarray(sequences.code_ids, np.int32), near, block, pairs, 2 * whole - pairs)

    @property
    def blocks(self) -> int:
        """Blocks of a pass."""
        return -(-len(self.code_ids) // self.block) + 1

    def starts(self, random: np.random.Generator) -> np.ndarray:
        """Where the blocks of a pass begin, (blocks,) int64, in random order; they begin anywhere from −block + 1 on.

        They cover every code once. Two codes that are d apart are in one block with probability 1 − d / block, which
        the loss makes up for.
        """
        return random.permutation(self.blocks) * self.block - random.integers(self.block)

    def cut(self, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(code ids, how far back) of the blocks at `starts` (…), both (…, block); beyond the ends 0 and 0."""
        places = starts[..., None] + np.arange(self.block)
        inside = (places >= 0) & (places < len(self.code_ids))
        places = np.where(inside, places, 0)
        return np.where(inside, self.code_ids[places], 0), np.where(inside, self.back[places], 0)
