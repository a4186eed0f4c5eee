"""Plans of cohorts: random groups of an even size, everybody once an epoch, in rows that hold them."""

import numpy as np
import pytest

from medbert_jax.data.cohort_plan import layout, plan_cohort

LENGTHS = np.clip(np.round(np.random.default_rng(0).lognormal(np.log(43) - 0.5, 1.0, 333)), 3, 512).astype(np.int64)
CHUNKS = {"max_length": 512, "chunk_slots": 1024, "chunk_cost": 128}


@pytest.mark.parametrize("batch_size", [1, 32, 100, 1000])
def test_everybody_once_in_rows_that_hold_them(batch_size):
    rows = layout(LENGTHS, batch_size=batch_size, **CHUNKS)
    plan = plan_cohort(LENGTHS, rows)
    epochs = [plan.epoch(7, number) for number in (0, 1, 0)]
    for tiers in epochs:
        placed = np.concatenate([tier[tier >= 0] for tier in tiers])
        assert sorted(placed) == list(range(333))
        sizes = sum((tier >= 0).sum(axis=(1, 2)) for tier in tiers)
        assert len(sizes) == -(-333 // batch_size) and np.ptp(sizes) <= 1 and sizes.max() <= batch_size
        for tier, shape, chunk in zip(tiers, plan.tiers, rows.chunk_rows, strict=True):
            codes = np.where(tier >= 0, LENGTHS[tier], 0).sum(axis=2)
            assert tier.shape[1:] == (shape.rows_per_step, shape.patients_per_row)
            assert codes.max() <= shape.row_length and shape.rows_per_step % chunk == 0
            # What is in use comes first: of rows, and of places in a row.
            for taken in ((tier >= 0).any(axis=2), (tier >= 0)):
                assert (np.diff(taken.astype(int), axis=-1) <= 0).all()
    for one, other, again in zip(*epochs, strict=True):
        assert (one == again).all() and (batch_size == 1000 or (one != other).any())


def test_a_step_is_of_random_patients_not_of_those_of_one_length():
    plan = plan_cohort(LENGTHS, layout(LENGTHS, batch_size=32, **CHUNKS))
    steps = zip(*plan.epoch(0, 0), strict=True)
    means = [np.mean([LENGTHS[patient] for tier in tiers for patient in tier[tier >= 0]]) for tiers in steps]
    of_one_length = np.sort(LENGTHS)[:320].reshape(10, 32).mean(axis=1)
    assert np.std(means) < LENGTHS.std() / np.sqrt(30) * 2 < np.std(of_one_length)


def test_rows_are_filled_and_long_patients_do_not_cost_everybody():
    many = np.tile(LENGTHS, 10)
    rows = layout(many, batch_size=32, **CHUNKS)
    assert rows.row_lengths == (128, 256, 512)
    used = [-(-(tier >= 0).any(axis=2).sum(axis=1) // size) for tier, size in _tiers(many, rows)]
    slots = sum((chunks * size * length).sum() for chunks, size, length in zip(used, *_sizes(rows), strict=True))
    assert many.sum() / slots > 0.8


def _tiers(lengths, rows):
    return zip(plan_cohort(lengths, rows).epoch(0, 0), rows.chunk_rows, strict=True)


def _sizes(rows):
    return rows.chunk_rows, rows.row_lengths


def test_shapes_are_few():
    """Subsets of a cohort share programs; short patients have short rows, and one length of them."""
    rng = np.random.default_rng(1)
    many = rng.permutation(np.tile(LENGTHS, 10))
    assert len({layout(many[:size], batch_size=32, **CHUNKS) for size in (500, 1000, 2000, 3330)}) <= 2
    assert layout(np.full(50, 12), batch_size=32, **CHUNKS).row_lengths == (64,)


def test_a_patient_without_codes_has_a_place():
    lengths = np.array([0, 5, 0, 9])
    (tier,) = plan_cohort(lengths, layout(lengths, batch_size=2, **CHUNKS)).epoch(0, 0)
    assert sorted(tier[tier >= 0]) == [0, 1, 2, 3]


def test_a_chunk_has_as_many_rows_for_every_device():
    rows = layout(LENGTHS, batch_size=32, groups=4, **CHUNKS)
    assert all(size % 4 == 0 for size in rows.chunk_rows)
    assert all(tier.rows_per_step % 4 == 0 for tier in rows.tiers)
