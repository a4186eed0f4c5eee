"""The row plan: everybody once per epoch, constant shapes, full rows, equal steps, the same whatever the devices."""

from dataclasses import replace

import numpy as np
import pytest

from medbert_jax.data.patient_groups import group_patients
from medbert_jax.data.row_plan import RowsConfig, plan_rows

CONFIG = RowsConfig(batch_size=64, short_row=64)


def lengths(patients: int, seed: int = 0) -> np.ndarray:
    """The length model of the benchmarks: lognormal, mean 15, 3 … 512."""
    drawn = np.random.default_rng(seed).lognormal(np.log(15) - 0.5, 1.0, patients)
    return np.clip(np.round(drawn), 3, 512).astype(np.int64)


def patients_of(plan, epoch):
    return [np.concatenate([tier[step].ravel() for tier in epoch]) for step in range(plan.steps_per_epoch)]


def test_every_patient_takes_one_place_of_his_length_in_every_epoch():
    plan = plan_rows(lengths(1500), CONFIG, max_length=512)
    for number in range(3):
        epoch = plan.epoch(0, number)
        placed = np.concatenate(patients_of(plan, epoch))
        assert sorted(placed[placed >= 0]) == list(range(1500))
        for tier, patients in zip(plan.tiers, epoch, strict=True):
            assert patients.shape == (plan.steps_per_epoch, tier.rows_per_step, tier.patients_per_row)
            used = np.where(patients >= 0, plan.lengths[patients], 0).sum(axis=-1)
            assert used.max() <= tier.row_length


def test_epochs_differ_and_a_seed_repeats_them():
    plan = plan_rows(lengths(500), CONFIG, max_length=512)
    assert all((a == b).all() for a, b in zip(plan.epoch(1, 2), plan.epoch(1, 2), strict=True))
    assert any((a != b).any() for a, b in zip(plan.epoch(1, 2), plan.epoch(1, 3), strict=True))


@pytest.mark.parametrize(
    ("batch_size", "rows", "row_lengths", "rare"),
    [
        (256, {"short_row": 64}, [64, 256, 512], [512]),
        (1024, {"short_row": 64}, [64, 256, 512], [512]),
        (4096, {"short_row": 32}, [32, 128, 512], []),
        (256, {"short_row": 128, "middle_rows": False}, [128, 512], []),
        (512, {"short_row": 64, "middle_rows": False}, [64, 512], []),
    ],
)
def test_rows_are_full_and_steps_hold_equal_numbers_of_patients(batch_size, rows, row_lengths, rare):
    plan = plan_rows(lengths(200_000), RowsConfig(batch_size=batch_size, **rows), max_length=512)
    assert [tier.row_length for tier in plan.tiers] == row_lengths
    assert [tier.row_length for tier in plan.tiers if tier.rare] == rare
    epoch, slots = plan.epoch(0, 0), 0
    for tier, patients in zip(plan.tiers, epoch, strict=True):
        in_use = (patients >= 0).any(axis=-1)
        assert in_use.any(axis=1).mean() == pytest.approx(tier.share_of_steps)
        slots += tier.row_length * (in_use.sum() if tier.rare else in_use.size)
    assert plan.fill == pytest.approx(plan.lengths.sum() / slots)
    assert plan.fill > 0.99
    per_step = sum((patients >= 0).sum(axis=(1, 2)) for patients in epoch)
    assert abs(per_step.mean() / batch_size - 1) < 0.03
    assert per_step.std() / per_step.mean() < 0.03


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_the_bound_of_a_device_group_holds_and_is_tight(groups):
    plan = plan_rows(lengths(10_000), RowsConfig(batch_size=512, short_row=64), max_length=512, groups=groups)
    per_patient = np.arange(513) // 4 + 1
    bounds = plan.most_per_group(per_patient)
    for tier, patients, bound in zip(plan.tiers, plan.epoch(3, 1), bounds, strict=True):
        masked = np.where(patients >= 0, per_patient[plan.lengths[patients]], 0).sum(axis=-1)
        by_group = masked.reshape(plan.steps_per_epoch, groups, -1).sum(axis=-1)
        assert by_group.max() <= bound
        if tier.row_length == 64:
            assert bound < 1.2 * by_group.mean()


@pytest.mark.parametrize("groups", [2, 4, 8])
def test_the_same_patients_share_a_step_whatever_the_number_of_devices(groups):
    one = plan_rows(lengths(3000), CONFIG, max_length=512)
    many = plan_rows(lengths(3000), CONFIG, max_length=512, groups=groups)
    assert any(tier.rows_per_step % groups for tier in one.tiers)  # empty rows had to be added
    for a, b in zip(patients_of(one, one.epoch(0, 1)), patients_of(many, many.epoch(0, 1)), strict=True):
        assert sorted(a[a >= 0]) == sorted(b[b >= 0])


@pytest.mark.parametrize(
    ("change", "groups", "message"),
    [
        ({"batch_size": 30}, 4, "batch_size must be divisible by the number of devices: got 30 and 4; use 28 or 32"),
        ({"short_row": 600}, 1, "short_row must be between 1 and max_length: got 600 and 512"),
        ({"long_row": 64}, 1, "a long row must hold the longest patient: got long_row 64 and a patient of "),
        ({"batching": "patients", "batch_size": 200}, 1, "needs batch_size patients at least: got 100 and 200"),
    ],
)
def test_wrong_configurations_are_refused(change, groups, message):
    config = RowsConfig(**{"batch_size": 64, "short_row": 64} | change)
    with pytest.raises(ValueError, match=message):
        plan_rows(lengths(100), config, max_length=512, groups=groups)


def test_lengths_out_of_range_and_no_patients_are_refused():
    with pytest.raises(ValueError, match=r"must have 1 to max_length codes: got 3 to 600 and 512; truncate"):
        plan_rows(np.array([3, 600]), CONFIG, max_length=512)
    with pytest.raises(ValueError, match="needs patients: got none"):
        plan_rows(np.array([], np.int64), CONFIG, max_length=512)


def test_faults_of_the_configuration_itself_are_in_one_error():
    with pytest.raises(ValueError, match=r"^rows\.batching must be .*\nrows\.batch_size .* 1: got 0.*\nrows\.long_row"):
        RowsConfig(batch_size=0, long_row=-1, batching="visits")


def test_a_given_long_row_is_kept():
    for patients, middle_rows, row_lengths in ((20, False, [48]), (20, True, [32]), (40, True, [48])):
        config = RowsConfig(batch_size=10, short_row=8, long_row=48, middle_rows=middle_rows)
        plan = plan_rows(np.full(100, patients), config, max_length=512)
        assert [tier.row_length for tier in plan.tiers] == row_lengths


@pytest.mark.parametrize("seed", range(20))
def test_everybody_has_a_row_whatever_the_lengths(seed):
    rng = np.random.default_rng(seed)
    longest = int(rng.integers(1, 513))
    drawn = np.minimum(rng.geometric(1 / rng.uniform(1, longest + 1), int(rng.integers(1, 400))), longest)
    config = RowsConfig(batch_size=int(rng.integers(1, 300)), short_row=int(2 ** rng.integers(0, 8)))
    plan = plan_rows(drawn, config, max_length=512)
    epoch = plan.epoch(0, 0)
    placed = np.concatenate(patients_of(plan, epoch))
    assert sorted(placed[placed >= 0]) == list(range(len(drawn)))
    for tier, patients in zip(plan.tiers, epoch, strict=True):
        assert np.where(patients >= 0, plan.lengths[patients], 0).sum(axis=-1).max() <= tier.row_length
        assert (patients >= 0).any(), "a length of row for nobody"


PATIENTS = RowsConfig(batching="patients", batch_size=32)


@pytest.mark.parametrize("packed", [True, False])
def test_batching_patients_gives_every_step_as_many(packed):
    plan = plan_rows(lengths(3_210), replace(PATIENTS, packed=packed), max_length=512)
    assert plan.steps_per_epoch == 100 and plan.patients_per_step == 32
    (tier,) = plan.tiers
    assert (tier.row_length, tier.rows_per_step) == (512, 3 if packed else 32)
    seen = []
    for number in range(2):
        (patients,) = plan.epoch(0, number)
        assert patients.shape == (100, tier.rows_per_step, tier.patients_per_row)
        assert ((patients >= 0).sum(axis=(1, 2)) == 32).all()
        used = np.where(patients >= 0, plan.lengths[patients].astype(int), 0).sum(axis=-1)
        assert used.max() <= 512
        seen.append(np.sort(patients[patients >= 0]))
        assert len(np.unique(seen[-1])) == 3_200
    assert (seen[0] != seen[1]).any()  # others are left out each time


def test_batching_patients_packed_and_padded_have_the_same_steps():
    packed, padded = (plan_rows(lengths(640), replace(PATIENTS, packed=one), max_length=512) for one in (True, False))
    for one, two in zip(packed.epoch(3, 1)[0], padded.epoch(3, 1)[0], strict=True):
        assert (np.sort(one[one >= 0]) == np.sort(two[two >= 0])).all()


@pytest.mark.parametrize("groups", [2, 4, 8])
def test_batching_patients_is_the_same_whatever_the_number_of_devices(groups):
    one, many = (plan_rows(lengths(640), PATIENTS, max_length=512, groups=number) for number in (1, groups))
    (a,), (b,) = one.epoch(3, 1), many.epoch(3, 1)
    assert b.shape[1] % groups == 0
    for step, other in zip(a, b, strict=True):
        assert (np.sort(step[step >= 0]) == np.sort(other[other >= 0])).all()


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("share", [0.0, 0.25])
def test_the_bound_of_batching_patients_holds(groups, share):
    plan = plan_rows(lengths(6_400), PATIENTS, max_length=512, groups=groups)
    per_patient = np.maximum(1, np.floor(share * np.arange(513) + 0.5)).astype(np.int64)
    (patients,), (bound,) = plan.epoch(0, 0), plan.most_per_group(per_patient)
    masked = np.where(patients >= 0, per_patient[plan.lengths[patients]], 0)
    assert masked.reshape(plan.steps_per_epoch, groups, -1).sum(axis=-1).max() <= bound
    if not share:
        assert bound == 32


def test_a_group_that_does_not_fit_swaps_a_patient_with_the_next():
    # Four patients of 300 in the first group need four rows of 512, and there are three.
    sizes = np.concatenate([np.full(4, 300), np.full(28, 5), np.full(32, 5)])
    groups = group_patients(np.arange(64, dtype=np.int32), sizes, 32, 3, 512)
    assert groups.swaps == 1
    assert ((groups.rows >= 0).sum(axis=(1, 2)) == 32).all()
    assert sorted(groups.rows[groups.rows >= 0]) == list(range(64))
    assert (np.where(groups.rows >= 0, sizes[groups.rows], 0).sum(axis=-1) <= 512).all()
    assert sorted(sizes[groups.rows[1]][groups.rows[1] >= 0])[-1] == 300


def test_groups_that_never_fit_are_refused():
    with pytest.raises(ValueError, match=r"4 patients must fit into 1 rows of 16 slots: got patients of 10 codes"):
        group_patients(np.arange(40, dtype=np.int32), np.full(40, 10), 4, 1, 16)


def test_groups_of_hundreds_of_rows_lose_nobody():
    groups = group_patients(np.arange(1_200, dtype=np.int32), np.full(1_200, 40), 600, 300, 80)
    assert groups.rows.shape == (2, 300, 2)
    assert sorted(groups.rows.ravel()) == list(range(1_200))


@pytest.mark.parametrize("packed", [True, False])
def test_batching_single_patients(packed):
    config = RowsConfig(batching="patients", batch_size=1, packed=packed)
    (patients,) = plan_rows(lengths(40), config, max_length=512).epoch(0, 0)
    assert patients.shape == (40, 3 if packed else 1, 1)
    assert sorted(patients[patients >= 0]) == list(range(40))
