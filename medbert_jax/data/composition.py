"""What the rows of a dataset are made of: best fit on the histogram of lengths, and how many rows a step has."""

from dataclasses import dataclass

import numpy as np

Patterns = list[tuple[list[int], int]]
"""(lengths in the row, how many such rows)."""


@dataclass(frozen=True)
class RowsOfALength:
    """The rows of one length."""

    row_length: int
    rows_per_step: int
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


def compose(counts: np.ndarray, *, batch_size: int, short_row: int, long_row: int) -> tuple[int, list[RowsOfALength]]:
    """How many steps, of how many rows of each length, and what is in them.

    The rows of a step are chosen for `batch_size` patients; the steps are as few as then hold everybody. Long rows have
    room for short patients too, so that neither length has rows to spare.
    """
    codes, patients = int((counts * np.arange(len(counts))).sum()), int(counts.sum())
    rough = max(1.0, patients / batch_size)
    needs_long = counts.copy()
    needs_long[: short_row + 1] = 0
    long_rows = 0
    if needs_long.any():
        needed = sum(repeats for _, repeats in best_fit(needs_long, long_row)[0])
        long_rows = max(1, round(needed / rough + 0.25))
    short_rows = round((codes / rough - long_rows * long_row) / short_row)
    if not long_rows:
        short_rows = max(1, short_rows)
    short_rows = max(0, short_rows)
    shapes = {length: rows for length, rows in ((short_row, short_rows), (long_row, long_rows)) if rows}
    steps = max(1, codes // sum(length * rows for length, rows in shapes.items()))
    while True:
        left, packed = counts, []
        for length, rows in reversed(shapes.items()):  # the long ones first
            if left[length + 1 :].any():
                break
            found, left = best_fit(left[: length + 1], length, rows * steps)
            packed.append(found)
        if not left.any():
            break
        # More steps, or one more row in each: what adds fewer slots.
        more, shortest = max(1, steps // 1000), min(shapes)
        if left[shortest + 1 :].any():
            shortest = max(shapes)
        if shortest * steps < more * sum(length * rows for length, rows in shapes.items()):
            shapes[shortest] += 1
        else:
            steps += more
    found = zip(shapes.items(), reversed(packed), strict=True)
    return steps, [RowsOfALength(length, rows, patterns) for (length, rows), patterns in found]


def one_patient_per_row(counts: np.ndarray, *, steps: int, short_row: int, long_row: int) -> list[RowsOfALength]:
    """Every patient in a row of his own, short where he fits."""
    tiers, shortest = [], 0
    for row_length in sorted({short_row, long_row}):
        kinds = np.nonzero(counts[: row_length + 1])[0]
        patterns = [([int(length)], int(counts[length])) for length in kinds if length > shortest]
        shortest = row_length
        if patterns:
            rows = sum(repeats for _, repeats in patterns)
            tiers.append(RowsOfALength(row_length, -(-rows // steps), patterns))
    return tiers
