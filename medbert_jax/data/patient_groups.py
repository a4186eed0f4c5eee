"""Groups of exactly so many patients, each packed into the same few rows."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Groups:
    """All groups of an epoch."""

    rows: np.ndarray
    """(groups, rows, P) int32 patients, −1 where a place of a row is free."""
    swaps: int
    """Patients who changed places with one of the next group, because their own did not fit into its rows."""


def group_patients(order: np.ndarray, lengths: np.ndarray, size: int, rows: int, row_length: int) -> Groups:
    """Take `size` patients at a time from `order`, and pack each group into `rows` rows of `row_length` slots.

    Best fit, decreasing, for all groups at once. Of a group that does not fit, the longest patient changes places with
    the shortest of the next group (of the first, from the last), until it does. What is left of `order` after the last
    whole group belongs to none.

    Args:
        order: (n,) int32 patient numbers.
        lengths: codes of every patient, indexed by his number; none longer than a row.
        size: patients of a group.
        rows: rows of a group.
        row_length: slots of a row.

    Raises:
        ValueError: the patients are too long for so few rows, whatever their order.
    """
    groups = len(order) // size
    members = order[: groups * size].reshape(groups, size).copy()
    swaps, doubtful = 0, np.arange(groups)
    placed = np.empty((groups, size), np.int16)
    most = 4 * groups + 64
    while len(doubtful):
        by_length = np.argsort(-lengths[members[doubtful]].astype(np.int64), axis=1, kind="stable")
        members[doubtful] = np.take_along_axis(members[doubtful], by_length, axis=1)
        placed[doubtful], fits = _best_fit(lengths[members[doubtful]], rows, row_length)
        crowded = doubtful[~fits]
        touched = set()
        for group in crowded.tolist():
            other = (group + 1) % groups
            members[group, 0], members[other, -1] = members[other, -1], members[group, 0]
            touched |= {group, other}
            swaps += 1
        if swaps > most or (len(crowded) and groups == 1):
            raise ValueError(
                f"{size} patients must fit into {rows} rows of {row_length} slots: got patients of "
                f"{lengths.mean():.0f} codes on average; raise rows_per_step, lower batch_size, or use batching rows"
            )
        doubtful = np.array(sorted(touched), np.int64)
    # Place within the row: how many members before this one are in the same row.
    taken, place, every = np.zeros((groups, rows), np.int32), np.empty_like(placed, np.int32), np.arange(groups)
    for column in range(size):
        place[:, column] = taken[every, placed[:, column]]
        taken[every, placed[:, column]] += 1
    out = np.full((groups, rows, max(1, int(taken.max(initial=0)))), -1, np.int32)
    out[every[:, None], placed, place] = members
    return Groups(out, swaps)


def _best_fit(lengths: np.ndarray, rows: int, row_length: int) -> tuple[np.ndarray, np.ndarray]:
    """(row of each patient (groups, size) int16, whether the group fits) of patients sorted by length, descending."""
    free = np.full((len(lengths), rows), row_length, np.int32)
    out, fits, every = np.zeros(lengths.shape, np.int16), np.ones(len(lengths), bool), np.arange(len(lengths))
    for column in range(lengths.shape[1]):
        length = lengths[:, column].astype(np.int32)
        room = free - length[:, None]
        row = np.where(room >= 0, room, np.int32(2**30)).argmin(axis=1)
        fits &= room[every, row] >= 0
        free[every, row] -= length
        out[:, column] = row
    return out, fits
