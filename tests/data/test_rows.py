"""The row plan: everybody once per epoch, constant shapes, full rows, equal steps, the same whatever the devices."""

import numpy as np
import pytest
from made_sequences import made_sequences

from medbert_jax.data.rows import RowsConfig, best_fit, fit_to_model, gather_rows, padded_batch, plan_rows

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


def test_rows_are_full_and_steps_hold_equal_numbers_of_patients():
    short = lengths(20_000)
    plan = plan_rows(short[short <= 128], RowsConfig(batch_size=256, short_row=128), max_length=128)
    (tier,) = plan.epoch(0, 0)
    per_step = (tier >= 0).sum(axis=(1, 2))
    packed = best_fit(np.bincount(plan.lengths, minlength=129), 128)
    rows = sum(repeats for _, repeats in packed)
    assert plan.lengths.sum() / (rows * 128) > 0.99
    assert per_step.std() / per_step.mean() < 0.03


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_the_bound_of_a_device_group_holds_and_is_tight(groups):
    plan = plan_rows(lengths(10_000), RowsConfig(batch_size=512, short_row=64), max_length=512, groups=groups)
    per_patient = np.arange(513) // 4 + 1
    for tier, patients in zip(plan.tiers, plan.epoch(3, 1), strict=True):
        masked = np.where(patients >= 0, per_patient[plan.lengths[patients]], 0).sum(axis=-1)
        by_group = masked.reshape(plan.steps_per_epoch, groups, -1).sum(axis=-1)
        bound = tier.most_per_step(per_patient, groups)
        assert by_group.max() <= bound
        if tier.row_length == 64:
            assert bound < 1.2 * by_group.mean()


@pytest.mark.parametrize("groups", [2, 4, 8])
def test_the_same_patients_share_a_step_whatever_the_number_of_devices(groups):
    one = plan_rows(lengths(3000), CONFIG, max_length=512)
    many = plan_rows(lengths(3000), CONFIG, max_length=512, groups=groups)
    assert one.tiers[0].rows_per_step % groups  # empty rows had to be added
    for a, b in zip(patients_of(one, one.epoch(0, 1)), patients_of(many, many.epoch(0, 1)), strict=True):
        assert sorted(a[a >= 0]) == sorted(b[b >= 0])


def test_rows_hold_the_patients_codes_in_order():
    sequences = made_sequences(40, seed=1)
    patients = np.array([[3, 5, -1], [7, -1, -1], [-1, -1, -1]])
    rows = gather_rows(sequences, patients, 64)
    for row, slot, patient in ((0, 1, 3), (0, 2, 5), (1, 1, 7)):
        here = rows["patient_slots"][row] == slot
        begin, end = sequences.code_offsets[patient : patient + 2]
        for name in ("code_ids", "visit_ids", "serialization_ids"):
            assert (rows[name][row][here] == getattr(sequences, name)[begin:end]).all()
        assert (rows["positions"][row][here] == np.arange(end - begin)).all()
    assert (rows["patient_slots"][2] == 0).all()
    assert (rows["patient_slots"][1] > 0).sum() == sequences.lengths[7]


def test_padded_rows_hold_one_patient_each():
    sequences = made_sequences(10, seed=2)
    rows = padded_batch(sequences, np.arange(10), 64)
    assert rows["code_ids"].shape == (10, 64) and rows["patients"].shape == (10, 1)
    assert ((rows["patient_slots"] > 0).sum(axis=1) == sequences.lengths).all()


def test_patients_that_do_not_fit_their_row_raise():
    sequences = made_sequences(10, seed=2)
    with pytest.raises(ValueError, match=r"must fit into it: got .* codes and 4 slots"):
        gather_rows(sequences, np.arange(10)[:, None], 4)


@pytest.mark.parametrize(
    ("change", "groups", "message"),
    [
        ({"batch_size": 30}, 4, "batch_size must be divisible by the number of devices: got 30 and 4; use 28 or 32"),
        ({"short_row": 0}, 1, "short_row must be between 1 and max_length: got 0 and 512"),
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


def test_ids_without_a_row_in_the_tables_are_named_all_at_once():
    sequences = made_sequences(10, seed=2)
    fit_to_model(sequences, vocabulary_size=64, max_visits=1000, max_length=512)
    with pytest.raises(ValueError, match=r"code_ids must be from 0 to 19.*\nvisit_ids must be from 0 to 1"):
        fit_to_model(sequences, vocabulary_size=20, max_visits=2, max_length=512)


@pytest.mark.parametrize(("keep", "patients", "words"), [("recent", 30, "cut to"), ("drop", 16, "left out")])
def test_what_is_cut_or_dropped_is_counted(keep, patients, words):
    sequences = made_sequences(30, seed=4)
    assert (sequences.lengths > 16).sum() == 14
    fitted, note = fit_to_model(sequences, vocabulary_size=64, max_visits=64, max_length=16, keep=keep)
    lost = sequences.lengths.sum() - fitted.lengths.sum()
    assert len(fitted) == patients and fitted.lengths.max() <= 16
    assert note.startswith("14 of 30 patients") and words in note and f"({lost} codes)" in note
