"""Row plan: which patient takes which place of which row, in which step, for every epoch.

A row is a fixed number of slots that several patients share. The shapes of a step, the number of steps per epoch and
the weights that losses are divided by are constants of the dataset, and the order of the data is a pure function of
(seed, epoch, step): going on from any step needs its number and nothing else.

`batching="rows"`: best fit on the histogram of lengths is done once and gives a composition table that never changes;
an epoch only permutes which patient takes which place of his length, and which row comes in which step.
`batching="patients"`: exactly `batch_size` patients a step, in a fixed few rows, as the paper's batches of 32 are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge

from medbert_jax.checked_fields import check_fields
from medbert_jax.data.composition import RARE, RowsOfALength, compose, one_patient_per_row
from medbert_jax.data.patient_groups import group_patients


@dataclass(frozen=True)
class RowsConfig:
    """How patients are laid out in rows and steps."""

    batching: Literal["rows", "patients"] = "rows"
    """rows: as many full rows as `batch_size` patients take, in expectation, every patient once per epoch; patients:
    exactly batch_size patients a step (an epoch leaves out what is left of the patients, others each time)."""
    batch_size: Annotated[int, Ge(1)] = 256
    """Patients per step, in expectation or exactly."""
    short_row: Annotated[int, Ge(1)] = 64
    """Slots of a short row; batching rows."""
    middle_rows: bool = True
    """Rows of four times, sixteen times, … the slots of a short one too, and the longer ones in those steps alone that
    need them; batching rows. False has two lengths, and rows of both in every step."""
    long_row: Annotated[int, Ge(0)] = 0
    """Slots of a long row, at least the longest patient; 0 takes what he needs, in eighths of max_length (batching
    patients: max_length)."""
    rows_per_step: Annotated[int, Ge(1)] = 3
    """Long rows of a step; batching patients."""
    packed: bool = True
    """Several patients share a row; False gives every patient a row of his own, the reference layout."""

    def __post_init__(self):
        """Check what no dataset can mend; all faults are in one error."""
        check_fields(self, at="rows")


@dataclass(frozen=True)
class Tier:
    """The rows of one length that a step has at most."""

    row_length: int
    rows_per_step: int
    patients_per_row: int
    share_of_steps: float = 1.0
    """That have a row of this length."""

    @property
    def rare(self) -> bool:
        """Whether a step should ask whether it has such a row before it computes one."""
        return self.share_of_steps < RARE

    def dealt(self, groups: int) -> np.ndarray:
        """(groups, rows each): which of the step's rows each device group takes; −1 is an empty row.

        Dealt to and fro, so that every device has the same work. Which rows a step has does not depend on it.
        """
        deal = np.full(-(-self.rows_per_step // groups) * groups, -1)
        deal[: self.rows_per_step] = np.arange(self.rows_per_step)
        deal = deal.reshape(-1, groups)
        deal[1::2] = deal[1::2, ::-1].copy()
        return deal.T


@dataclass(frozen=True, eq=False)
class RowPlan:
    """What is constant over all epochs of one dataset split and one configuration."""

    tiers: tuple[Tier, ...]
    steps_per_epoch: int
    lengths: np.ndarray  # (n,) codes per patient
    groups: int

    @property
    def fill(self) -> float:
        """Share of the slots of a step that hold a code, on average over all epochs."""
        slots = sum(
            tier.row_length * tier.dealt(self.groups).size * (tier.share_of_steps if tier.rare else 1)
            for tier in self.tiers
        )
        return float(self.patients_per_step * self.lengths.mean() / slots)

    @property
    def slots_per_step(self) -> int:
        """Places for codes in a step at most, over all device groups."""
        return sum(tier.row_length * tier.dealt(self.groups).size for tier in self.tiers)

    @property
    def patients_per_step(self) -> float:
        """Patients of a step, on average."""
        raise NotImplementedError

    def epoch(self, seed: int, epoch: int) -> tuple[np.ndarray, ...]:
        """Patients of every tier, step by step: one (steps, rows, P) int32 array per tier, −1 where empty.

        `rows` is the tier's rows_per_step, rounded up to a multiple of the device groups by empty rows.
        """
        raise NotImplementedError

    def most_per_group(self, per_patient: np.ndarray) -> tuple[int, ...]:
        """Upper bound, over all epochs, of Σ per_patient[length] in one device group of one step, for every tier.

        `per_patient` is indexed by length.
        """
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class CompositionPlan(RowPlan):
    """`batching="rows"`: a table of all rows, each place of which waits for a patient of its length."""

    row_places: tuple[np.ndarray, ...]
    """Per tier (rows_per_step × steps, P) int32: places of each row, −1 where there is none; sorted by patients per
    row, descending, so that its stretches of `steps` rows are strata."""
    place_lengths: np.ndarray
    """(n,) int: codes of the patient who takes the place."""

    @property
    def patients_per_step(self) -> float:
        """Patients of a step, on average."""
        return len(self.lengths) / self.steps_per_epoch

    @cached_property
    def _places_by_length(self) -> np.ndarray:
        return _argsort(self.place_lengths).astype(np.int32)

    def epoch(self, seed: int, epoch: int) -> tuple[np.ndarray, ...]:
        """Every patient once; each step takes one row of every stratum."""
        rng = np.random.default_rng((seed, epoch))
        shuffled = rng.permutation(np.arange(len(self.lengths), dtype=np.int32))
        patients = np.full(len(shuffled) + 1, -1, np.int32)  # the last entry answers for place −1
        patients[self._places_by_length] = shuffled[_argsort(self.lengths[shuffled])]
        return tuple(
            self._dealt(tier, places, patients, rng) for tier, places in zip(self.tiers, self.row_places, strict=True)
        )

    def _dealt(self, tier: Tier, places: np.ndarray, patients: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        strata = np.arange(len(places), dtype=np.int32).reshape(tier.rows_per_step, self.steps_per_epoch)
        rows = rng.permuted(strata, axis=1).T
        rows = np.concatenate([rows, np.full((self.steps_per_epoch, 1), len(places), np.int32)], axis=1)
        with_an_empty_one = np.concatenate([places, np.full((1, places.shape[1]), -1, np.int32)])
        return patients[with_an_empty_one[rows[:, tier.dealt(self.groups).ravel()]]]

    def most_per_group(self, per_patient: np.ndarray) -> tuple[int, ...]:
        """The sum of the strata's maxima: each step takes one row of every stratum."""
        weights, bounds = np.append(per_patient[self.place_lengths], 0), []
        for tier, places in zip(self.tiers, self.row_places, strict=True):
            strata = weights[places].sum(axis=1).reshape(tier.rows_per_step, -1).max(axis=1)
            bounds.append(int(np.append(strata, 0)[tier.dealt(self.groups)].sum(axis=1).max()))
        return tuple(bounds)


@dataclass(frozen=True, eq=False)
class PatientsPlan(RowPlan):
    """`batching="patients"`: random groups of exactly batch_size patients, each group the rows of one step."""

    batch_size: int
    packed: bool
    packed_rows: int
    """Rows that a group must fit into, also where each of its patients then has a row of his own."""

    @property
    def patients_per_step(self) -> float:
        """Patients of every step."""
        return float(self.batch_size)

    def epoch(self, seed: int, epoch: int) -> tuple[np.ndarray, ...]:
        """Groups of random patients; a patient who does not fit into his group's rows swaps with one of the next."""
        (tier,) = self.tiers
        rng = np.random.default_rng((seed, epoch))
        shuffled = rng.permutation(np.arange(len(self.lengths), dtype=np.int32))
        rows = group_patients(shuffled, self.lengths, self.batch_size, self.packed_rows, tier.row_length).rows
        if not self.packed:
            rows = rows[rows >= 0].reshape(len(rows), -1, 1)
        rows = np.concatenate([rows, np.full_like(rows[:, :1], -1)], axis=1)
        rows = rows[:, tier.dealt(self.groups).ravel()]
        return (np.pad(rows, ((0, 0), (0, 0), (0, tier.patients_per_row - rows.shape[2])), constant_values=-1),)

    def most_per_group(self, per_patient: np.ndarray) -> tuple[int, ...]:
        """The largest sum that so many patients and so many slots allow, whatever the group (a linear bound)."""
        (tier,) = self.tiers
        rows = tier.dealt(self.groups).shape[1]
        patients = min(self.batch_size, rows * tier.patients_per_row)
        present = np.unique(self.lengths)
        slopes = np.linspace(0, 1, 101)
        above = np.maximum(per_patient[present][None] - slopes[:, None] * present[None], 0).max(axis=1)
        bound = (patients * above + slopes * rows * tier.row_length).min()
        return (int(min(bound + 1e-6, patients * per_patient[present].max())),)


def plan_rows(lengths: np.ndarray, config: RowsConfig, *, max_length: int, groups: int = 1) -> RowPlan:
    """Plan the rows of patients with `lengths` (n,) codes each, every one in 1…max_length.

    `groups` is the number of devices that share a step: rows per step are rounded up to a multiple of it by empty rows,
    so that the patients of a step are the same on any number of devices. Raises ValueError when a configuration or a
    length cannot be laid out.
    """
    lengths = np.asarray(lengths, np.int64)
    check_batch_size(config.batch_size, groups)
    if config.batching == "rows" and config.short_row > max_length:
        raise ValueError(
            f"short_row must be between 1 and max_length: got {config.short_row} and {max_length}; lower it"
        )
    if len(lengths) == 0:
        raise ValueError("a row plan needs patients: got none; check the dataset split and the attrition ledger")
    longest = int(lengths.max())
    if lengths.min() < 1 or longest > max_length:
        raise ValueError(
            f"patients must have 1 to max_length codes: got {lengths.min()} to {longest} and {max_length}; "
            "truncate the sequences first"
        )
    if 0 < config.long_row < longest:
        raise ValueError(
            f"a long row must hold the longest patient: got long_row {config.long_row} and a patient of {longest} "
            "codes; raise it, or set it to 0"
        )
    eighth = -(-max_length // 8)  # so that few shapes compile
    long_row = config.long_row or min(max_length, -(-longest // eighth) * eighth)
    # 16-bit lengths are sorted by radix, ten times as fast as wider ones.
    lengths = lengths.astype(np.uint16 if long_row < 2**16 else np.uint32)
    if config.batching == "patients":
        return _plan_patients(lengths, config, config.long_row or max_length, groups)
    counts = np.bincount(lengths, minlength=long_row + 1)
    row_lengths = _row_lengths(config, long_row)
    if config.packed:
        rare = RARE if config.middle_rows else 0.0
        steps, tiers = compose(counts, batch_size=config.batch_size, row_lengths=row_lengths, rare=rare)
    else:
        steps = max(1, round(len(lengths) / config.batch_size))
        tiers = one_patient_per_row(counts, steps=steps, row_lengths=row_lengths)
    return _tabulate(lengths, steps, tiers, groups)


def check_batch_size(batch_size: int, groups: int) -> None:
    """Raise ValueError when `groups` devices cannot have equal parts of a batch."""
    if batch_size % groups:
        down = batch_size - batch_size % groups
        raise ValueError(
            f"batch_size must be divisible by the number of devices: got {batch_size} and {groups}; "
            f"use {' or '.join(str(x) for x in (down, down + groups) if x)}"
        )


def _row_lengths(config: RowsConfig, long_row: int) -> list[int]:
    """Slots of a row, ascending; none between is so near to the longest that it would save little."""
    if not config.middle_rows:
        return sorted({min(config.short_row, long_row), long_row})
    between = [config.short_row * 4**times for times in range(long_row.bit_length())]
    return [*(length for length in between if length <= long_row * 2 / 3), long_row]


def _tabulate(lengths: np.ndarray, steps: int, found: Sequence[RowsOfALength], groups: int) -> CompositionPlan:
    tiers, tables, place_lengths, place = [], [], [], 0
    for rows in found:
        if not rows.patterns:  # longer rows had room for all
            continue
        width = max(len(pattern) for pattern, _ in rows.patterns)
        table, row = np.full((rows.rows_per_step * steps, width), -1, np.int32), 0
        for pattern, repeats in sorted(rows.patterns, key=lambda one: -len(one[0])):
            places = place + np.arange(repeats * len(pattern), dtype=np.int32).reshape(repeats, -1)
            table[row : row + repeats, : len(pattern)] = places
            place_lengths.append(np.tile(np.array(pattern, lengths.dtype), repeats))
            row, place = row + repeats, place + places.size
        tiers.append(Tier(rows.row_length, rows.rows_per_step, width, min(1.0, row / steps)))
        tables.append(table)
    return CompositionPlan(tuple(tiers), steps, lengths, groups, tuple(tables), np.concatenate(place_lengths))


def _plan_patients(lengths: np.ndarray, config: RowsConfig, long_row: int, groups: int) -> PatientsPlan:
    steps = len(lengths) // config.batch_size
    if not steps:
        raise ValueError(
            f"batching patients needs batch_size patients at least: got {len(lengths)} and {config.batch_size}; "
            "lower batch_size, or use batching rows"
        )
    rows, width = (config.rows_per_step, config.batch_size) if config.packed else (config.batch_size, 1)
    tier = Tier(long_row, rows, width)
    return PatientsPlan((tier,), steps, lengths, groups, config.batch_size, config.packed, config.rows_per_step)


def _argsort(lengths: np.ndarray) -> np.ndarray:
    return np.argsort(lengths, kind="stable")
