"""What the rows of a dataset are made of: best fit on the histogram of lengths, and how many rows a step has."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

Patterns = list[tuple[list[int], int]]
"""(lengths in the row, how many such rows)."""


RARE = 0.75
"""Rows of a length per step, below which not every step has one."""


@dataclass(frozen=True)
class RowsOfALength:
    """The rows of one length."""

    row_length: int
    rows_per_step: int
    """Of those steps that have any."""
    patterns: Patterns


def best_fit(counts: np.ndarray, row_length: int, rows: int | None = None) -> tuple[Patterns, np.ndarray]:
    """Pack `counts[length]` patients of every length into rows: the rows, and the counts of who is left.

    Best fit, decreasing, on the histogram: a row takes the longest patient left that still fits, again and again, and
    is then repeated as often as the counts allow. A million patients take milliseconds.

    Args:
        counts: (longest + 1,) patients by length; none may be longer than a row.
        row_length: slots of a row.
        rows: rows to fill; None takes as many as all patients need.
    """
    left = counts.astype(np.int64).copy()
    patterns: Patterns = []
    while left.any() and rows != 0:
        pattern, free, used = [], row_length, np.zeros_like(left)
        while free:
            fitting = np.nonzero(left[1 : free + 1] > used[1 : free + 1])[0]
            if not len(fitting):
                break
            length = int(fitting[-1]) + 1
            # As many of this length as fit, at once: a row of forty short patients is one turn of this loop.
            times = int(min(free // length, left[length] - used[length]))
            pattern += [length] * times
            used[length] += times
            free -= length * times
        kinds = np.nonzero(used)[0]
        repeats = int((left[kinds] // used[kinds]).min())
        if rows is not None:
            repeats = min(repeats, rows)
            rows -= repeats
        left -= used * repeats
        patterns.append((pattern, repeats))
    return patterns, left


def compose(
    counts: np.ndarray, *, batch_size: int, row_lengths: Sequence[int], rare: float
) -> tuple[int, list[RowsOfALength]]:
    """How many steps, of how many rows of each length, and what is in them.

    A patient has a row of the shortest length that holds him, or shares a longer one that somebody else needs, so that
    no length has rows to spare. Where under `rare` rows of a length are needed per step, some steps have one and the
    others none; of other lengths every step has as many. The rows of a step are chosen for `batch_size` patients; the
    steps are as few as then hold everybody.

    Args:
        counts: (longest + 1,) patients by length.
        batch_size: patients per step, in expectation.
        row_lengths: slots of a row, ascending; the last holds everybody.
        rare: `RARE`, or 0 for rows of every length in every step.
    """
    codes, patients = int((counts * np.arange(len(counts))).sum()), int(counts.sum())
    rough = max(1.0, patients / batch_size)
    in_every_step: dict[int, int] = {}
    """Rows of a length that each step has."""
    in_all: dict[int, int] = {}
    """Rows of a length that all steps have together."""
    for shorter, length in pairwise(row_lengths):
        needs_it = counts[: length + 1].copy()
        needs_it[: shorter + 1] = 0
        if needed := sum(repeats for _, repeats in best_fit(needs_it, length)[0]):
            if needed < rare * rough:
                in_all[length] = needed
            else:
                in_every_step[length] = max(1, round(needed / rough + 0.25))
    rare_slots, slots = _slots(in_all), _slots(in_every_step)
    shortest = row_lengths[0]
    short_rows = max(0 if in_every_step else 1, round(((codes - rare_slots) / rough - slots) / shortest))
    if short_rows:
        in_every_step[shortest] = short_rows
    steps = max(1, *in_all.values(), (codes - rare_slots) // _slots(in_every_step))
    while True:
        left, packed = counts, {}
        for length in sorted(in_every_step.keys() | in_all.keys(), reverse=True):
            if left[length + 1 :].any():
                break
            rows = in_all.get(length) or in_every_step[length] * steps
            packed[length], left = best_fit(left[: length + 1], length, rows)
        if not left.any():
            break
        # More steps, or one more row in each of those that hold the longest who is left: what adds fewer slots.
        longest, more = int(np.nonzero(left)[0][-1]), max(1, steps // 1000)
        grown = min(length for length in packed if length >= longest)
        if grown in in_all:
            in_all[grown] += 1
            steps = max(steps, in_all[grown])
        elif grown * steps < more * _slots(in_every_step):
            in_every_step[grown] += 1
        else:
            steps += more
    return steps, [RowsOfALength(length, in_every_step.get(length, 1), packed[length]) for length in sorted(packed)]


def _slots(rows: Mapping[int, int]) -> int:
    return sum(length * number for length, number in rows.items())


def one_patient_per_row(counts: np.ndarray, *, steps: int, row_lengths: Sequence[int]) -> list[RowsOfALength]:
    """Every patient in a row of his own, the shortest that holds him."""
    tiers, shorter = [], 0
    for row_length in row_lengths:
        kinds = np.nonzero(counts[: row_length + 1])[0]
        patterns = [([int(length)], int(counts[length])) for length in kinds if length > shorter]
        shorter = row_length
        if patterns:
            rows = sum(repeats for _, repeats in patterns)
            tiers.append(RowsOfALength(row_length, -(-rows // steps), patterns))
    return tiers
