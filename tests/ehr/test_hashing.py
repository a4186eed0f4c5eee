import hashlib

import numpy as np
import polars as pl
import pytest

from medbert_jax.ehr.hashing import SPLITS, assign_split, patient_hash

IDS = ["1", "12", "patient-7", "12345678", "123456789", "Ærø-å", "a much longer patient id, of four words"]
GOLDEN = [
    "0xd37659044c75c4f8",
    "0x7c33bb51e5e75e02",
    "0x295503ed0795faf",
    "0x5ce14e035ac67c74",
    "0x1f47879821d584e8",
    "0x2b808cc92005367e",
    "0xf721446853df50f9",
]


def _hash_one(patient_id: str, key: str) -> int:
    """The same hash again, from its definition, in Python's own integers."""
    mask = 2**64 - 1

    def mix(state):
        state = (state + 0x9E3779B97F4A7C15) & mask
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
        return state ^ (state >> 31)

    content = patient_id.encode()
    state = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")
    for at in range(0, len(content), 8):
        state = mix(state ^ int.from_bytes(content[at : at + 8].ljust(8, b"\0"), "little"))
    return mix(state ^ len(content))


def test_golden_values():
    # They may never change: every split that anybody has drawn depends on them.
    assert [hex(value) for value in patient_hash(IDS, "split").tolist()] == GOLDEN


def test_equals_its_definition_and_a_planted_fault_is_seen():
    rng = np.random.default_rng(0)
    ids = ["".join(map(chr, rng.integers(33, 500, rng.integers(1, 30)))) for _ in range(500)]
    expected = np.array([_hash_one(each, "k") for each in ids], dtype=np.uint64)
    np.testing.assert_array_equal(patient_hash(ids, "k"), expected)
    ids[17] += "x"
    assert (patient_hash(ids, "k") != expected).nonzero()[0].tolist() == [17]


def test_does_not_depend_on_what_holds_the_ids():
    expected = patient_hash(IDS, "split")
    encoded = [each.encode() for each in IDS]
    holders = [
        np.array(IDS),
        np.array(IDS, dtype="U200"),
        np.array(IDS, dtype=object),
        np.array(encoded),
        np.array(encoded, dtype="S173"),
        np.array(encoded, dtype="S80")[::-1][::-1],
        pl.Series(IDS),
        tuple(IDS),
    ]
    for holder in holders:
        np.testing.assert_array_equal(patient_hash(holder, "split"), expected)
    for place, each in enumerate(IDS):
        assert patient_hash([each], "split")[0] == expected[place]


def test_blanks_and_lengths_make_other_ids():
    ids = ["7", "7 ", " 7", "7  ", "77", "07", "1234567", "12345678", "12345678 "]
    assert len(set(patient_hash(ids, "k").tolist())) == len(ids)
    assert set(patient_hash(ids, "k").tolist()).isdisjoint(patient_hash(ids, "l").tolist())


def test_no_patients_is_fine():
    assert patient_hash([], "k").shape == (0,) and assign_split([], key="k").dtype == np.int8


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([12, 13], "must be text"),
        (np.array([12, 13]), "must be text: got dtype int64; cast"),
        (["a", None], "must be text: got null"),
        (["a", ""], "must not be empty"),
        (np.array(["a", ""]), "must not be empty"),
        (["a\0", "b"], "must not hold NUL"),
        (np.array(["a\0b"]), "must not hold NUL"),
        (np.array([["a"]]), "one column"),
    ],
)
def test_refuses_what_is_no_id(ids, message):
    with pytest.raises(ValueError, match=message):
        patient_hash(ids, "k")


@pytest.mark.parametrize("ids", [[str(i) for i in range(100_000)], [f"site-A/{i:09d}" for i in range(100_000)]])
def test_uniform_over_many_cuts_of_the_bits(ids):
    hashes = patient_hash(ids, "split")
    assert len(np.unique(hashes)) == len(ids)
    for shift in (0, 8, 30, 56):
        counts = np.bincount(((hashes >> np.uint64(shift)) & np.uint64(255)).astype(int), minlength=256)
        chi2 = ((counts - len(ids) / 256) ** 2 / (len(ids) / 256)).sum()
        assert abs(chi2 - 255) < 5 * np.sqrt(2 * 255)
    both = np.bincount(3 * assign_split(ids, key="a") + assign_split(ids, key="b"), minlength=9)
    expected = len(ids) * np.outer([0.7, 0.1, 0.2], [0.7, 0.1, 0.2]).ravel()
    assert (abs(both - expected) < 5 * np.sqrt(expected)).all()  # right ratios, and keys independent


def test_split_stays_when_patients_are_added():
    ids = np.array([f"p{i}" for i in range(3000)])
    few = assign_split(ids[1000:2000], key="split")
    np.testing.assert_array_equal(few, assign_split(ids, key="split")[1000:2000])
    assert (few != assign_split(ids[1000:2000], key="another")).any()
    assert few.dtype == np.int8 and SPLITS[0] == "train" and set(few.tolist()) == {0, 1, 2}


def test_empty_splits_stay_empty():
    ids = [str(i) for i in range(20_000)]
    assert set(assign_split(ids, key="k", ratios=(0.7, 0.3, 0.0)).tolist()) == {0, 1}
    assert set(assign_split(ids, key="k", ratios=(0.0, 0.0, 1.0)).tolist()) == {2}
    assert set(assign_split(ids, key="k", ratios=(1.0, 0.0, 0.0)).tolist()) == {0}


@pytest.mark.parametrize("ratios", [(0.7, 0.1), (0.7, 0.1, 0.1), (1.2, -0.2, 0.0)])
def test_refuses_wrong_ratios(ratios):
    with pytest.raises(ValueError, match="three numbers of at least 0 with sum 1: got"):
        assign_split(["a"], key="k", ratios=ratios)
