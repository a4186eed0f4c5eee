"""Row plan of a cohort: random groups of patients, each packed into as few rows as hold it.

A step is a group of about `batch_size` patients, however long they are, so how many rows it takes differs from step to
step. Rows are taken in chunks of a fixed number: a chunk is what a program is compiled for, and bounds its memory.
"""

from dataclasses import dataclass, replace

import numpy as np

from medbert_jax.data.row_plan import RowPlan, Tier

SHORT_ROWS = (64, 128)
"""Slots of a short row: the first, where nearly all codes are of patients who fit into it."""
MOST_ELSEWHERE = 0.1
"""Share of codes that may be of longer patients, where the shortest rows are taken."""

SAMPLED_STEPS = 64
"""Steps that the size of a chunk is chosen by."""


@dataclass(frozen=True)
class Layout:
    """The rows of the steps of cohorts: one for all that share programs."""

    batch_size: int
    """Patients of a step, at most."""
    row_lengths: tuple[int, ...]
    """Slots of a row of each tier, ascending."""
    chunk_rows: tuple[int, ...]
    """Rows of a chunk of each tier; the device groups divide it."""
    shortest: int
    """Codes that the shortest patient has, at least."""

    @property
    def tiers(self) -> tuple[Tier, ...]:
        """Every tier with the most rows that a step can have."""
        return tuple(
            Tier(length, -(-self.batch_size // rows) * rows, min(self.batch_size, length // self.shortest))
            for length, rows in zip(self.row_lengths, self.chunk_rows, strict=True)
        )


def layout(
    lengths: np.ndarray, *, batch_size: int, max_length: int, chunk_slots: int, chunk_cost: int, groups: int = 1
) -> Layout:
    """Rows for steps of patients with `lengths` (n,) codes each; chunks that waste least.

    Rows of a chunk are a power of two times the device groups, so that many subsets of a cohort share a layout.

    Args:
        lengths: codes of every patient, n ≥ 1.
        batch_size: patients of a step, at most.
        max_length: codes of the longest patient that there can be.
        chunk_slots: the most slots of a chunk (one row per device group has more where it must).
        chunk_cost: what a chunk costs whatever is in it, in slots that take as long.
        groups: devices that share a chunk.
    """
    lengths = np.maximum(np.asarray(lengths).astype(np.int64), 1)
    longer = lengths[lengths > SHORT_ROWS[0]].sum() / lengths.sum()
    short_row = min(SHORT_ROWS[int(longer > MOST_ELSEWHERE)], max_length)
    longest, eighth = int(lengths.max()), -(-max_length // 8)
    long_row = min(max_length, -(-longest // eighth) * eighth)
    # Attention takes as long as the square of a row's length: few patients need the longest rows.
    middle_row = -(-long_row // 2 // eighth) * eighth
    longer_rows = () if longest <= short_row else (middle_row, long_row)
    row_lengths = (short_row, *sorted({row for row in longer_rows if row > short_row}))
    single = Layout(batch_size, row_lengths, (1,) * len(row_lengths), min(4, int(lengths.min())))
    sample = np.random.default_rng(0).permutation(len(lengths))[: SAMPLED_STEPS * batch_size]
    used = [(rows >= 0).any(axis=2).sum(axis=1) for rows in plan_cohort(lengths[sample], single).epoch(0, 0)]
    chunk_rows = []
    for taken, length in zip(used, row_lengths, strict=True):
        most = max(groups, min(chunk_slots // length, batch_size))
        sizes = groups * 2 ** np.arange(int(np.log2(most / groups)) + 1)
        costs = [(-(-taken // size) * (size * length + chunk_cost)).sum() for size in sizes]
        chunk_rows.append(int(sizes[np.argmin(costs)]))
    return replace(single, chunk_rows=tuple(chunk_rows))


@dataclass(frozen=True, eq=False)
class CohortPlan(RowPlan):
    """Every patient once per epoch, in as many groups as that takes; their sizes differ by one at most."""

    batch_size: int

    @property
    def patients_per_step(self) -> float:
        """Patients of a step, on average."""
        return len(self.lengths) / self.steps_per_epoch

    def epoch(self, seed: int, epoch: int) -> tuple[np.ndarray, ...]:
        """Per tier (steps, rows, P): the rows that are taken come first."""
        order = np.random.default_rng((seed, epoch)).permutation(len(self.lengths))
        groups = np.array_split(order, self.steps_per_epoch)
        members = np.full((len(groups), len(groups[0])), -1, np.int32)  # the first ones are the larger ones
        for group, who in enumerate(groups):
            members[group, : len(who)] = who
        return _packed(members, self.lengths, self.tiers)


def plan_cohort(lengths: np.ndarray, rows: Layout, *, groups: int = 1) -> CohortPlan:
    """The plan of patients with `lengths` (n,) codes each, n ≥ 1, laid out in `rows`; one of none has a place."""
    steps = -(-len(lengths) // rows.batch_size)
    return CohortPlan(rows.tiers, steps, np.maximum(lengths, 1), groups, rows.batch_size)


def _packed(members: np.ndarray, lengths: np.ndarray, tiers: tuple[Tier, ...]) -> tuple[np.ndarray, ...]:
    """Best fit, decreasing, of all groups (groups, size) at once; a row that is begun goes before a new one."""
    found = np.where(members >= 0, lengths[members], 0)
    by_length = np.argsort(-found, axis=1, kind="stable")
    members, found = (np.take_along_axis(one, by_length, axis=1) for one in (members, found))
    every = np.arange(len(members))
    capacity = np.concatenate([np.full(tier.rows_per_step, tier.row_length, np.int32) for tier in tiers])
    free = np.tile(capacity, (len(members), 1))
    taken = np.zeros_like(free)
    rows, places = (np.zeros(members.shape, np.int32) for _ in range(2))
    width = np.concatenate([np.full(tier.rows_per_step, tier.patients_per_row, np.int32) for tier in tiers])
    for column in range(members.shape[1]):
        length = found[:, column, None]
        # A new row costs more than any room that is left in one, and a longer one more.
        cost = free - length + np.where(taken == 0, capacity, 0) * np.int32(2**10)
        cost[(free < length) | (taken == width)] = np.iinfo(np.int32).max
        row = cost.argmin(axis=1)
        real = length[:, 0] > 0
        rows[:, column], places[:, column] = row, taken[every, row]
        free[every, row] -= length[:, 0]
        taken[every, row] += real
    out, first = [], 0
    for tier in tiers:
        here = (rows >= first) & (rows < first + tier.rows_per_step) & (members >= 0)
        tier_rows = np.full((len(members), tier.rows_per_step, tier.patients_per_row), -1, np.int32)
        group, column = np.nonzero(here)
        tier_rows[group, rows[here] - first, places[here]] = members[group, column]
        out.append(tier_rows)
        first += tier.rows_per_step
    return tuple(out)
