"""The order of codes within a visit, and each code once per visit: a shard's diagnoses in two sorts."""

import numpy as np
import polars as pl

from medbert_jax.ehr.hashing import patient_hash

_RANDOM_BITS = 16


def code_numbers(diagnoses: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return the codes of a shard ("ICD10CM/E11.9"), sorted, and each diagnosis' place among them (int64)."""
    text = diagnoses.select(pl.concat_str("code_system", "code", separator="/")).to_series()
    codes = text.unique().sort()
    numbers = text.cast(pl.Enum(codes)).to_physical().to_numpy().astype(np.int64)
    return codes.to_numpy().astype(np.str_), numbers


def priority_rank(diagnoses: pl.DataFrame) -> np.ndarray:
    """Return the rank (int64, equal where nothing tells two apart) of each diagnosis under the paper's order.

    Paper, Methods, in that sequence: present on admission first (unknown counts as present), those captured
    only at billing last (unknown counts as not), then by priority (unknown last).
    """
    known = diagnoses["priority"].drop_nulls().unique().sort().to_numpy()
    place = np.searchsorted(known, diagnoses["priority"].fill_null(0).to_numpy())
    place = np.where(diagnoses["priority"].is_null().to_numpy(), len(known), place)
    absent = ~diagnoses["present_on_admission"].fill_null(True).to_numpy()
    billed = diagnoses["captured_at_billing"].fill_null(False).to_numpy()
    return (absent * 2 + billed * 1) * (len(known) + 1) + place


def random_rank(
    patient_ids: tuple[pl.Series, np.ndarray], number: np.ndarray, codes: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Return a random rank (int64) drawn from the patient, the number of the visit and the code alone.

    So the order is the same in any shard, run and version of the libraries. All arguments are per diagnosis
    but `patient_ids` and `codes`, which are pairs (texts, each diagnosis' place among them).
    """
    (ids, patient), (names, code) = patient_ids, codes
    if not len(code):
        return np.zeros(0, np.int64)
    mixed = patient_hash(ids, "code order")[patient] ^ patient_hash(names, "code order")[code]
    mixed += number.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
    return (mixed >> np.uint64(64 - _RANDOM_BITS)).astype(np.int64)


def in_order(visit: np.ndarray, code: np.ndarray, rank: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return visit and code sorted by (visit, rank, code), each code once per visit, at its best rank.

    All are non-negative int64. Packed into one integer, three keys are sorted at the speed of one. Raises
    ValueError when they do not fit in it.
    """
    if not len(visit):
        return visit, code
    visit_bits, code_bits, rank_bits = (int(values.max()).bit_length() for values in (visit, code, rank))
    if visit_bits + code_bits + rank_bits > 63:
        raise ValueError(
            "the visits, codes and ranks of a shard must fit in 63 bits to be sorted: got"
            f" {visit_bits} + {code_bits} + {rank_bits}; write the EHR tables with more shards"
        )
    packed = np.sort((visit << (code_bits + rank_bits)) | (code << rank_bits) | rank)
    packed = packed[starts(packed >> rank_bits)]
    visit, code = packed >> (code_bits + rank_bits), (packed >> rank_bits) & ((1 << code_bits) - 1)
    rank = packed & ((1 << rank_bits) - 1)
    packed = np.sort((visit << (code_bits + rank_bits)) | (rank << code_bits) | code)
    return packed >> (code_bits + rank_bits), packed & ((1 << code_bits) - 1)


def starts(ordered: np.ndarray) -> np.ndarray:
    """Return a mask: where a value differs from the one before it."""
    return np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(ordered)]


def distinct(values: np.ndarray) -> np.ndarray:
    """Return the different values, ascending."""
    values = np.sort(values)
    return values[starts(values)]
