"""The baselines of the masked-code task against a loop that asks for one code after the other."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from made_sequences import made_sequences

from medbert_jax.data.sequences import PatientSequences, concatenate
from medbert_jax.data.vocabulary import FIRST_CODE, UNK
from medbert_jax.metrics.masked_codes import masked_code_baselines


def made(patients: int, seed: int) -> PatientSequences:
    """1 … 12 codes out of five, so that counts tie; a tenth of them UNK, and one patient of UNK alone."""
    sequences = made_sequences(patients, seed=seed, longest=12)
    few = np.arange(patients - 4, patients)  # nothing to copy from
    sequences = concatenate([sequences.take(np.arange(patients - 4)), sequences.take(few).truncate(1)])
    rng = np.random.default_rng(seed)
    code_ids = FIRST_CODE + rng.integers(0, 5, len(sequences.code_ids))
    code_ids[rng.random(len(code_ids)) < 0.1] = UNK
    code_ids[: sequences.code_offsets[1]] = UNK
    return replace(sequences, code_ids=code_ids.astype(np.int32))


def commonest(codes, choose) -> int:
    """The most frequent code; `choose`, min or max, decides among equals."""
    counts = Counter(int(code) for code in codes)
    return choose(code for code, count in counts.items() if count == max(counts.values()))


def asked_one_by_one(train: PatientSequences, held_out: PatientSequences, masked: np.ndarray) -> dict[str, float]:
    """The three accuracies by loops over patients and codes."""
    overall = commonest(train.code_ids[train.code_ids != UNK], min)
    at_place: dict[tuple, list] = {}
    for *place, code in zip(train.visit_ids, train.serialization_ids, train.code_ids, strict=True):
        if code != UNK:
            at_place.setdefault(tuple(place), []).append(code)
    right, total = Counter(), 0.0
    for patient in range(len(held_out)):
        slots = range(*held_out.code_offsets[patient : patient + 2])
        codes = [int(held_out.code_ids[slot]) for slot in slots if held_out.code_ids[slot] != UNK]
        for slot in slots:
            code = int(held_out.code_ids[slot])
            if code == UNK:
                continue
            weight = min(masked[patient], len(codes)) / len(codes)
            total += weight
            right["most_frequent"] += weight * (code == overall)
            here = at_place.get((held_out.visit_ids[slot], held_out.serialization_ids[slot]))
            right["most_frequent_at_place"] += weight * (code == (commonest(here, max) if here else overall))
            others = Counter(codes) - Counter([code])
            best = [c for c, count in others.items() if count == max(others.values())]
            right["copy"] += weight * ((code in best) / len(best) if best else code == overall)
    return {name: value / total for name, value in right.items()}


@pytest.mark.parametrize("seed", range(6))
def test_they_are_what_a_loop_finds(seed):
    train, held_out = made(30, 2 * seed), made(25, 2 * seed + 1)
    masked = np.maximum(1, held_out.lengths // 3)
    expected = asked_one_by_one(train, held_out, masked)
    assert masked_code_baselines(train, held_out, masked) == pytest.approx(expected, rel=1e-12)
    # The comparison can fail: one code counts.
    code_ids = held_out.code_ids.copy()
    slot = np.flatnonzero(code_ids != UNK)[0]
    code_ids[slot] = FIRST_CODE + (code_ids[slot] - FIRST_CODE + 1) % 5
    other = masked_code_baselines(train, replace(held_out, code_ids=code_ids), masked)
    assert other != pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("codes", "accuracy"),
    [
        ("aab", 1 / 3),  # an a is hidden: a and b are left, half a credit, twice; b is hidden: a twice
        ("aaab", 3 / 4),
        ("aabb", 0),
        ("abc", 0),
        ("aa?", 1),  # an unknown code is neither asked for nor copied
        ("a??", 1),  # nothing to copy: the commonest code of the training patients, an a
        ("b??", 0),
    ],
)
def test_equals_share_the_credit_of_a_copy(codes, accuracy):
    sequences = made_sequences(20, seed=0, longest=4)
    one = sequences.take(np.flatnonzero(sequences.lengths == len(codes))[:1])
    ids = np.array([UNK if letter == "?" else FIRST_CODE + ord(letter) - ord("a") for letter in codes], np.int32)
    train = replace(one, code_ids=np.full(len(codes), FIRST_CODE, np.int32))
    found = masked_code_baselines(train, replace(one, code_ids=ids), np.array([1]))
    assert found["copy"] == pytest.approx(accuracy, abs=1e-12)
