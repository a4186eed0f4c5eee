"""Row plan: which patient takes which place of which row, in which step, for every epoch.

A row is a fixed number of slots that several patients share. Best fit on the histogram of lengths is done once and
gives a composition table that never changes; an epoch only permutes which patient takes which place of his length.
So the shapes, the number of rows and the steps per epoch are constants of the dataset, and the order of the data is a
pure function of (seed, epoch, step).
"""

from dataclasses import dataclass

import numpy as np

from medbert_jax.data.sequences import PatientSequences


@dataclass(frozen=True)
class RowsConfig:
    """How patients are laid out in rows and steps."""

    batch_size: int = 256
    """Patients per step, in expectation (every patient is seen exactly once per epoch)."""
    short_row: int = 128
    """Slots of a short row; longer patients go to rows that hold the longest of them, at most max_length."""
    packed: bool = True
    """Several patients share a row; False gives every patient a row of his own, the reference layout."""


@dataclass(frozen=True)
class Tier:
    """All rows of one length: `n` places for `n` patients in `R` = rows_per_step × steps rows, empty ones included."""

    row_length: int
    rows_per_step: int
    patients_per_row: int
    row_places: np.ndarray  # (R, P) int64: places of each row, −1 where there is none; sorted by patients, descending
    place_lengths: np.ndarray  # (n,) int64: codes of the patient who takes the place

    def most_per_step(self, per_patient: np.ndarray, groups: int) -> int:
        """Upper bound, over all epochs, of Σ per_patient[length] in one device group of one step.

        `per_patient` is indexed by length. Each step takes one row of every stratum, so the sum of the strata's maxima
        bounds it.
        """
        weights = np.append(per_patient[self.place_lengths], 0)  # the last entry answers for place −1
        strata = weights[self.row_places].sum(axis=1).reshape(self.rows_per_step, -1).max(axis=1)
        return int(np.append(strata, 0)[self.dealt(groups)].sum(axis=1).max())

    def dealt(self, groups: int) -> np.ndarray:
        """(groups, rows each): which strata, ordered by patients per row, each device group takes; −1 is an empty row.

        Dealt to and fro, so that every device has the same work. Which rows a step has does not depend on it.
        """
        deal = np.full(-(-self.rows_per_step // groups) * groups, -1)
        deal[: self.rows_per_step] = np.arange(self.rows_per_step)
        deal = deal.reshape(-1, groups)
        deal[1::2] = deal[1::2, ::-1].copy()
        return deal.T


@dataclass(frozen=True)
class RowPlan:
    """The composition of every row, for one dataset split and one configuration."""

    tiers: tuple[Tier, ...]
    steps_per_epoch: int
    lengths: np.ndarray  # (n,) codes per patient
    groups: int

    @property
    def fill(self) -> float:
        """Share of all slots of an epoch that hold a code."""
        slots = sum(t.row_length * t.dealt(self.groups).size for t in self.tiers) * self.steps_per_epoch
        return float(self.lengths.sum() / slots)

    def epoch(self, seed: int, epoch: int) -> tuple[np.ndarray, ...]:
        """Patients of every tier, step by step: one (steps, rows, P) int64 array per tier, −1 where empty.

        `rows` is rows_per_step, rounded up to a multiple of the device groups by empty rows.
        """
        rng = np.random.default_rng((seed, epoch))
        shuffled = rng.permutation(len(self.lengths))
        by_length = shuffled[np.argsort(self.lengths[shuffled], kind="stable")]
        plans, taken = [], 0
        for tier in self.tiers:  # tiers ascend in length, so each takes the next stretch of `by_length`
            patients = np.full(len(tier.place_lengths) + 1, -1)
            order = np.argsort(tier.place_lengths, kind="stable")
            patients[order] = by_length[taken : taken + len(order)]
            taken += len(order)
            strata = tier.row_places.reshape(tier.rows_per_step, self.steps_per_epoch, -1)
            steps = rng.permuted(np.arange(strata.shape[0] * strata.shape[1]).reshape(strata.shape[:2]), axis=1)
            empty = np.full((self.steps_per_epoch, 1, tier.row_places.shape[1]), -1)
            rows = np.concatenate([tier.row_places[steps.T], empty], axis=1)  # an index of −1 takes the empty row
            plans.append(patients[rows[:, tier.dealt(self.groups).ravel()]])
        return tuple(plans)


def plan_rows(lengths: np.ndarray, config: RowsConfig, *, max_length: int, groups: int = 1) -> RowPlan:
    """Plan the rows of patients with `lengths` (n,) codes each, every one in 1…max_length.

    `groups` is the number of devices that share a step: rows per step are rounded up to a multiple of it by empty rows,
    so that the patients of a step are the same on any number of devices. Raises ValueError when a configuration or a
    length cannot be laid out.
    """
    lengths = np.asarray(lengths, np.int64)
    check_batch_size(config.batch_size, groups)
    if not 1 <= config.short_row <= max_length:
        raise ValueError(
            f"short_row must be between 1 and max_length: got {config.short_row} and {max_length}; lower it"
        )
    if len(lengths) == 0:
        raise ValueError("a row plan needs patients: got none; check the dataset split and the attrition ledger")
    if lengths.min() < 1 or lengths.max() > max_length:
        raise ValueError(
            f"patients must have 1 to max_length codes: got {lengths.min()} to {lengths.max()} and {max_length}; "
            "truncate the sequences first"
        )
    steps = max(1, round(len(lengths) / config.batch_size))
    tiers, shortest = [], 0
    # The long rows are as long as the longest patient needs, in eighths of max_length, so that few shapes compile.
    eighth = -(-max_length // 8)
    long_row = min(max_length, -(-int(lengths.max()) // eighth) * eighth)
    for row_length in sorted({min(config.short_row, long_row), long_row}):
        counts = np.bincount(lengths[(lengths > shortest) & (lengths <= row_length)], minlength=row_length + 1)
        shortest = row_length
        if counts.sum():
            tiers.append(_tier(counts, row_length, steps, packed=config.packed))
    return RowPlan(tuple(tiers), steps, lengths, groups)


def check_batch_size(batch_size: int, groups: int) -> None:
    """Raise ValueError when `groups` devices cannot have equal parts of a batch."""
    if batch_size % groups:
        down = batch_size - batch_size % groups
        raise ValueError(
            f"batch_size must be divisible by the number of devices: got {batch_size} and {groups}; "
            f"use {' or '.join(str(x) for x in (down, down + groups) if x)}"
        )


def _tier(counts: np.ndarray, row_length: int, steps: int, *, packed: bool) -> Tier:
    if packed:
        patterns = best_fit(counts, row_length)
    else:
        patterns = [([length], int(counts[length])) for length in np.nonzero(counts)[0]]
    patterns.sort(key=lambda pattern: -len(pattern[0]))
    patients_per_row = len(patterns[0][0])
    rows = sum(repeats for _, repeats in patterns)
    rows_per_step = -(-rows // steps)
    row_places = np.full((rows_per_step * steps, patients_per_row), -1)
    place_lengths, row, place = [], 0, 0
    for pattern, repeats in patterns:
        places = place + np.arange(repeats * len(pattern)).reshape(repeats, -1)
        row_places[row : row + repeats, : len(pattern)] = places
        place_lengths.append(np.tile(pattern, repeats))
        row, place = row + repeats, place + places.size
    return Tier(row_length, rows_per_step, patients_per_row, row_places, np.concatenate(place_lengths))


def best_fit(counts: np.ndarray, row_length: int) -> list[tuple[list[int], int]]:
    """Pack `counts[length]` patients of every length into rows: a list of (lengths in the row, how many such rows).

    Best fit, decreasing, on the histogram: a row takes the longest patient left that still fits, again and again, and
    is then repeated as often as the counts allow. A million patients take milliseconds.
    """
    left = counts.astype(np.int64).copy()
    patterns = []
    while left.any():
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
        left -= used * repeats
        patterns.append((pattern, repeats))
    return patterns


def gather_rows(sequences: PatientSequences, patients: np.ndarray, row_length: int) -> dict[str, np.ndarray]:
    """Rows of `row_length` slots that hold the given patients one after the other.

    `patients` is (B, P), −1 where there is none. Returns int32 arrays: code_ids, visit_ids, serialization_ids,
    patient_slots and positions (B, L) and patients (B, P). patient_slots is 1…P, and 0 in an empty slot.
    """
    rows, width = patients.shape
    real = patients >= 0
    first = sequences.code_offsets[np.where(real, patients, 0)]
    lengths = np.where(real, sequences.code_offsets[np.where(real, patients, 0) + 1] - first, 0)
    ends = np.cumsum(lengths, axis=1)
    if ends[:, -1].max(initial=0) > row_length:
        raise ValueError(
            f"the patients of a row must fit into it: got {ends[:, -1].max()} codes and {row_length} slots; plan the "
            "rows with the lengths of these sequences"
        )
    repeats = lengths.ravel()
    within = np.arange(repeats.sum()) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    starts = (ends - lengths + np.arange(rows)[:, None] * row_length).ravel()
    slot = np.repeat(starts, repeats) + within
    source = np.repeat(first.ravel(), repeats) + within

    def filled(values) -> np.ndarray:
        out = np.zeros(rows * row_length, np.int32)
        out[slot] = values
        return out.reshape(rows, row_length)

    return {
        "code_ids": filled(sequences.code_ids[source]),
        "visit_ids": filled(sequences.visit_ids[source]),
        "serialization_ids": filled(sequences.serialization_ids[source]),
        "patient_slots": filled(np.repeat(np.tile(np.arange(1, width + 1), rows), repeats)),
        "positions": filled(within),
        "patients": patients.astype(np.int32),
    }


def padded_batch(sequences: PatientSequences, indices: np.ndarray, length: int) -> dict[str, np.ndarray]:
    """One patient per row: `gather_rows` with P = 1. `indices` (B,), −1 for an empty row."""
    return gather_rows(sequences, np.asarray(indices)[:, None], length)


def fit_to_model(
    sequences: PatientSequences, *, vocabulary_size: int, max_visits: int, max_length: int, keep: str = "recent"
) -> tuple[PatientSequences, str]:
    """The sequences cut to `max_length` codes, and a sentence that counts what was cut or dropped.

    Raises ValueError, every fault listed, when an id has no row in the model's tables: on the accelerator an id out of
    range is silently clamped or becomes NaN, so it is looked for here, once.
    """
    fitted = sequences.truncate(max_length, keep=keep)
    limits = {
        "code_ids": (fitted.code_ids, vocabulary_size, "take the vocabulary that the dataset was made with"),
        "visit_ids": (fitted.visit_ids, max_visits, "raise model.max_visits"),
        "serialization_ids": (fitted.serialization_ids, max_length, "raise model.max_length"),
    }
    faults = [
        f"{name} must be from 0 to {limit - 1}: got {ids.min()} to {ids.max()}; {cure}"
        for name, (ids, limit, cure) in limits.items()
        if len(ids) and (ids.min() < 0 or ids.max() >= limit)
    ]
    if faults:
        raise ValueError("\n".join(faults))
    longer = int((sequences.lengths > max_length).sum())
    lost = int(sequences.lengths.sum() - fitted.lengths.sum())
    done = "left out" if keep == "drop" else "cut to their most recent visits"
    return (
        fitted,
        f"{longer:,} of {len(sequences):,} patients have over {max_length} codes and were {done} ({lost:,} codes)",
    )
