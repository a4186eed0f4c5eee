"""Keyed hash of patient ids, and the splits and shards drawn from it.

Splits must not move when patients are added, tables are resharded or a library is upgraded, so the hash is
written out here in 64-bit integer arithmetic and pinned by golden values in the tests.
"""

import hashlib

import numpy as np

SPLITS = ("train", "validation", "test")

_GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def mix64(state: np.ndarray) -> np.ndarray:
    """One round of splitmix64 (Steele, Lea, Flood 2014): a bijection of the 64-bit integers."""
    state = (
        state + _GOLDEN_GAMMA
    )  # an array of its own, in which the rest is done: large ones cost by what is allocated
    state ^= state >> np.uint64(30)
    state *= np.uint64(0xBF58476D1CE4E5B9)
    state ^= state >> np.uint64(27)
    state *= np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    return state


def _utf8(patient_ids) -> np.ndarray:
    """The ids as a fixed-width 'S' array, whatever held them (list, numpy array, polars Series)."""
    if hasattr(patient_ids, "to_numpy"):
        patient_ids = patient_ids.to_numpy()
    elif not isinstance(patient_ids, np.ndarray):
        patient_ids = np.asarray(list(patient_ids), dtype=object)
    kind, advice = patient_ids.dtype.kind, "cast the id column to text first"
    if patient_ids.ndim != 1:
        raise ValueError(f"patient ids must be one column: got {patient_ids.ndim} dimensions; pass a column")
    if kind == "S":
        return patient_ids
    if kind == "U":
        return np.char.encode(patient_ids, "utf-8")
    if kind != "O":
        # 12 and "12" must not silently land in different splits.
        raise ValueError(f"patient ids must be text: got dtype {patient_ids.dtype}; {advice}")
    try:
        joined = "\0".join(patient_ids)
    except TypeError:
        raise ValueError(f"patient ids must be text: got null or other objects; {advice}") from None
    if joined.count("\0") != max(len(patient_ids) - 1, 0):
        raise ValueError("patient ids must not hold NUL: got ids that do; remove it from the id column")
    return np.array(joined.encode().split(b"\0") if len(patient_ids) else [], dtype="S")


def hash_start(key: str) -> np.uint64:
    """What the hashes under a key start from."""
    return np.uint64(int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little"))


def patient_hash(patient_ids, key: str) -> np.ndarray:
    """64-bit keyed hash of every id.

    Args:
        patient_ids: n ids: list of str, numpy 'U', 'S' or object array, or a text Series.
        key: names the use ("shard", a split's key, …); hashes under different keys are independent.

    Returns:
        (n,) uint64. Depends on the UTF-8 bytes of the id alone: not on the width of the array that holds it,
        nor on its neighbours. "7" and "7 " are two ids, as everywhere else; readers refuse ids with blanks
        around them.

    Raises:
        ValueError: null, empty or non-text ids, or ids that hold NUL (fixed-width arrays drop it at the end).
    """
    ids = _utf8(patient_ids)
    lengths = np.char.str_len(ids).astype(np.uint64) if len(ids) else np.zeros(0, np.uint64)
    if (lengths == 0).any():
        raise ValueError("patient ids must not be empty: got empty ids; drop those rows or give them an id")
    words = -(-ids.dtype.itemsize // 8)
    padded = np.ascontiguousarray(ids.astype(f"S{8 * words}")).view("<u8").reshape(len(ids), words)
    if (np.count_nonzero(padded.view(np.uint8), axis=1) != lengths).any():
        raise ValueError("patient ids must not hold NUL: got ids that do; remove it from the id column")
    state = np.full(len(ids), hash_start(key), dtype=np.uint64)
    for word in range(words):
        # Only words that the id reaches are mixed in, so that a wider array gives the same hash.
        reached = lengths > np.uint64(8 * word)
        state = np.where(reached, mix64(state ^ padded[:, word].astype(np.uint64)), state)
    return mix64(state ^ lengths)


def assign_split(patient_ids, *, key: str, ratios: tuple[float, float, float] = (0.7, 0.1, 0.2)) -> np.ndarray:
    """The split of every patient: 0 train, 1 validation, 2 test (the places in `SPLITS`).

    A patient's split depends on his id, the key and the ratios alone. Paper, Methods: 7:1:2 by patient.

    Returns:
        (n,) int8.

    Raises:
        ValueError: ratios that are not three numbers of at least 0 with sum 1.
    """
    if len(ratios) != 3 or min(ratios) < 0 or abs(sum(ratios) - 1) > 1e-9:
        raise ValueError(
            f"split ratios must be three numbers of at least 0 with sum 1: got {tuple(ratios)}; "
            "use for instance (0.7, 0.1, 0.2)"
        )
    # The upper 53 bits: exactly representable, so the comparison is the same on every machine.
    uniform = (patient_hash(patient_ids, key) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    borders = np.array([ratios[0], ratios[0] + ratios[1]])
    if ratios[2] == 0:
        borders[1] = 1.0  # rounding of 0.7 + 0.3 must not leave a sliver to an empty split
    return np.searchsorted(borders, uniform, side="right").astype(np.int8)
