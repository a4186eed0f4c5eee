"""Rows made on the host: the codes in order, one patient or several, and the cut of sequences to a model."""

import dataclasses

import numpy as np
import pytest
from made_sequences import made_sequences

from medbert_jax.data.rows import fit_to_model, gather_rows, padded_batch


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


def test_ids_without_a_row_in_the_tables_are_named_all_at_once():
    sequences = made_sequences(10, seed=2)
    fit_to_model(sequences, vocabulary_size=64, max_visits=1000, max_length=512)
    with pytest.raises(ValueError, match=r"code_ids must be from 0 to 19.*\nvisit_ids must be from 0 to 1"):
        fit_to_model(sequences, vocabulary_size=20, max_visits=2, max_length=512)
    empty = {name: np.zeros(0, np.int32) for name in ("code_ids", "visit_ids", "serialization_ids")}
    none = dataclasses.replace(sequences.take([0]), code_offsets=np.array([0, 0]), **empty)
    with pytest.raises(ValueError, match="patients must have codes: got 1 without; leave them out"):
        fit_to_model(none, vocabulary_size=64, max_visits=1000, max_length=512)


@pytest.mark.parametrize(("keep", "patients", "words"), [("recent", 30, "cut to"), ("drop", 16, "left out")])
def test_what_is_cut_or_dropped_is_counted(keep, patients, words):
    sequences = made_sequences(30, seed=4)
    assert (sequences.lengths > 16).sum() == 14
    fitted, note = fit_to_model(sequences, vocabulary_size=64, max_visits=64, max_length=16, keep=keep)
    lost = sequences.lengths.sum() - fitted.lengths.sum()
    assert len(fitted) == patients and fitted.lengths.max() <= 16
    assert note.startswith("14 of 30 patients") and words in note and f"({lost} codes)" in note
