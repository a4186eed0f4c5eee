"""Masking: how many, which, replaced by what, and that the draw belongs to the patient and not to his row."""

import jax
import numpy as np
import pytest
from made_sequences import VOCABULARY_SIZE, made_sequences

from medbert_jax.data.row_plan import RowsConfig, plan_rows
from medbert_jax.data.rows import gather_rows, padded_batch
from medbert_jax.data.vocabulary import FIRST_CODE, MASK, UNK
from medbert_jax.training.masking import MaskingConfig, mask_codes, masked_per_patient

SEQUENCES = made_sequences(2500, seed=0)


def masked(rows, config, *, epoch=0, vocabulary_size=VOCABULARY_SIZE, seed=0):
    out = jax.jit(mask_codes, static_argnames=("config", "vocabulary_size", "mask_id"))(
        rows, config=config, key=jax.random.key(seed), epoch=epoch, vocabulary_size=vocabulary_size, mask_id=MASK
    )
    return np.asarray(out.code_ids), np.asarray(out.is_masked)


def per_patient(rows, code_ids, is_masked) -> dict[int, list[tuple[int, int]]]:
    """Patient → (position, replacement) of each masked code."""
    found = {}
    for row, slot in zip(*np.nonzero(is_masked), strict=True):
        patient = int(rows["patients"][row, rows["patient_slots"][row, slot] - 1])
        found.setdefault(patient, []).append((int(rows["positions"][row, slot]), int(code_ids[row, slot])))
    return {patient: sorted(pairs) for patient, pairs in found.items()}


def packed_rows(epoch=0):
    plan = plan_rows(SEQUENCES.lengths, RowsConfig(batch_size=2500, short_row=64), max_length=64)
    return gather_rows(SEQUENCES, plan.epoch(0, epoch)[0][0], 64)


def test_the_paper_masks_exactly_one_code_per_patient():
    rows = padded_batch(SEQUENCES, np.arange(2500), 24)
    _, is_masked = masked(rows, MaskingConfig())
    assert (is_masked.sum(axis=1) == 1).all()
    assert (rows["patient_slots"][is_masked] > 0).all()


def test_a_share_masks_that_many_codes_of_every_patient():
    rows = padded_batch(SEQUENCES, np.arange(2500), 24)
    config = MaskingConfig(share=0.25)
    _, is_masked = masked(rows, config)
    assert (is_masked.sum(axis=1) == masked_per_patient(config, SEQUENCES.lengths)).all()
    assert masked_per_patient(config, np.array([0, 1, 3, 5, 6, 24])).tolist() == [0, 1, 1, 1, 2, 6]


def test_packed_and_padded_patients_have_the_same_targets_in_three_epochs():
    for epoch in range(3):
        config = MaskingConfig(share=0.25)
        packed, padded = packed_rows(epoch), padded_batch(SEQUENCES, np.arange(2500), 24)
        one = per_patient(packed, *masked(packed, config, epoch=epoch))
        two = per_patient(padded, *masked(padded, config, epoch=epoch))
        assert one == two and len(one) == 2500
    assert one != per_patient(padded, *masked(padded, config, epoch=0))  # other epochs, other masks


def test_static_masks_are_the_same_in_every_epoch():
    rows = padded_batch(SEQUENCES, np.arange(300), 24)
    config = MaskingConfig(static=True)
    first, later = masked(rows, config, epoch=0), masked(rows, config, epoch=7)
    assert (first[0] == later[0]).all() and (first[1] == later[1]).all()


def test_eighty_ten_ten_within_one_percent_on_a_hundred_thousand_codes():
    rows = padded_batch(SEQUENCES, np.arange(2500), 24)
    counts = np.zeros(3)
    wide = 20_000  # random replacements hardly ever equal the code they replace
    config = MaskingConfig(share=1.0)
    drawn = []
    for epoch in range(4):
        code_ids, is_masked = masked(rows, config, epoch=epoch, vocabulary_size=wide)
        new, old = code_ids[is_masked], rows["code_ids"][is_masked]
        counts += [(new == MASK).sum(), ((new != MASK) & (new != old)).sum(), (new == old).sum()]
        drawn.append(new[(new != MASK) & (new != old)])
    assert counts.sum() > 100_000
    np.testing.assert_allclose(counts / counts.sum(), [0.8, 0.1, 0.1], atol=0.01)
    drawn = np.concatenate(drawn)
    assert drawn.min() >= FIRST_CODE and drawn.max() < wide
    assert abs(drawn.mean() - (FIRST_CODE + wide) / 2) < 300  # uniform over the codes: standard error 57


def test_unknown_codes_and_empty_slots_are_never_masked():
    rows = padded_batch(SEQUENCES, np.arange(500), 32)
    rows["code_ids"] = np.where(rows["positions"] % 2 == 0, UNK, rows["code_ids"]).astype(np.int32)
    for share in (0.0, 1.0):
        _, is_masked = masked(rows, MaskingConfig(share=share))
        assert not (rows["code_ids"][is_masked] == UNK).any() and not (rows["patient_slots"][is_masked] == 0).any()


@pytest.mark.parametrize("seed", [0, 1])
def test_every_place_of_a_patient_is_masked_equally_often(seed):
    rows = padded_batch(SEQUENCES, np.flatnonzero(SEQUENCES.lengths == 8), 8)
    counts = sum(masked(rows, MaskingConfig(), epoch=epoch, seed=seed)[1].sum(axis=0) for epoch in range(30))
    expected = counts.sum() / 8
    assert (np.abs(counts - expected) < 5 * np.sqrt(expected)).all()
