"""What a masked code can be guessed from without a model: the accuracies that a pretraining has to beat.

A guesser orders all codes of the vocabulary for every masked code; the rank of the true one, from 0, is what it is
judged by. All of them see what a model sees: the codes of the patient that are not masked.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.special import ndtri

from medbert_jax.data.sequences import PatientSequences
from medbert_jax.data.vocabulary import FIRST_CODE

SMOOTHING = 10.0
"""Patients (or neighbours) that every conditional share is drawn towards its code's overall share with."""

_CELLS = 1 << 24
"""Scores, codes asked × vocabulary, that are made at once."""


@dataclass(frozen=True, eq=False)
class MaskedCodes:
    """Patients, and which of their codes are asked for."""

    sequences: PatientSequences
    is_masked: np.ndarray
    """(codes,) bool; at least one."""

    @property
    def targets(self) -> np.ndarray:
        """(N,) ids of the masked codes, in the order of the sequences."""
        return np.asarray(self.sequences.code_ids)[self.is_masked]

    @property
    def patients(self) -> np.ndarray:
        """(N,) whose they are."""
        return np.repeat(np.arange(len(self.sequences)), self.sequences.lengths)[self.is_masked]

    def found_elsewhere(self) -> np.ndarray:
        """(N,) bool: whether the patient has the code a second time, where it can be seen."""
        every = np.repeat(np.arange(len(self.sequences)), self.sequences.lengths) << 32 | self.sequences.code_ids
        return np.isin(every[self.is_masked], every[~self.is_masked])


class Accuracy(NamedTuple):
    """A share of masked codes with its 95 % interval, patients as clusters, and how many codes it is of."""

    value: float
    low: float
    high: float
    codes: int


def guess_ranks(train: PatientSequences, asked: MaskedCodes, vocabulary_size: int) -> dict[str, np.ndarray]:
    """Guesser → (N,) ranks of the true codes; equal scores go to the code that is commoner in `train`.

    most_frequent: how often a code is recorded. most_frequent_at_place: at the same visit number and rank. copy: how
    often among the patient's other codes. bigram: given the last code before and the first one after that can be seen.
    naive_bayes: given which codes the patient has elsewhere, each independent of the others.
    """
    ids = np.asarray(train.code_ids)
    counts = np.bincount(ids, minlength=vocabulary_size).astype(np.float64)
    counts[:FIRST_CODE] = 0
    share = (counts + SMOOTHING / vocabulary_size) / (counts.sum() + SMOOTHING)
    commoner = (np.argsort(np.argsort(counts, kind="stable")) + 1) / (2 * vocabulary_size)  # decides ties alone
    nothing = sparse.csr_matrix((len(asked.targets), 0))
    seen = _present(asked.sequences, vocabulary_size, ~asked.is_masked)[asked.patients]
    distinct = seen.copy()
    distinct.data[:] = 1.0
    places, at_place = _at_place(train, asked, vocabulary_size)
    return {
        "most_frequent": _ranks(asked.targets, commoner, nothing, sparse.csr_matrix((0, vocabulary_size))),
        "most_frequent_at_place": _ranks(asked.targets, commoner, places, at_place),
        "copy": _ranks(asked.targets, commoner, seen, sparse.identity(vocabulary_size, format="csr")),
        "bigram": _ranks(asked.targets, *_bigram(train, asked, share, counts)),
        "naive_bayes": _ranks(asked.targets, *_naive_bayes(train, distinct, share)),
    }


def accuracy(ranks: np.ndarray, patients: np.ndarray, top: int) -> Accuracy:
    """The share of ranks (N,) below `top`; `patients` (N,) says whose each is."""
    return _mean((ranks < top).astype(np.float64), patients)


def accuracy_difference(a: np.ndarray, b: np.ndarray, patients: np.ndarray, top: int) -> Accuracy:
    """Accuracy of ranks a minus that of b, of the same masked codes (N,)."""
    return _mean((a < top).astype(np.float64) - (b < top), patients)


def _mean(values: np.ndarray, patients: np.ndarray) -> Accuracy:
    """A mean over codes; its error is that of a ratio of sums over patients, who are independent."""
    if not len(values):
        return Accuracy(float("nan"), float("nan"), float("nan"), 0)
    mean = values.mean()
    _, place = np.unique(patients, return_inverse=True)
    sums = np.bincount(place, weights=values - mean)
    clusters = len(sums)
    error = np.sqrt((sums**2).sum() * clusters / max(1, clusters - 1)) / len(values)
    half = float(ndtri(0.975) * error)
    return Accuracy(float(mean), float(mean - half), float(mean + half), len(values))


def _ranks(
    targets: np.ndarray,
    prior: np.ndarray,
    evidence: sparse.csr_matrix,
    weights: sparse.csr_matrix,
    each: np.ndarray | float = 0.0,
    pieces: np.ndarray | float = 0.0,
) -> np.ndarray:
    """Ranks of the targets (N,) under prior (V,) + evidence (N, F) · weights (F, V) + pieces (N,) · each (V,).

    The special ids are nobody's guess; among equal scores the lower id is first.
    """
    ranks = np.empty(len(targets), np.int64)
    pieces, step = np.broadcast_to(pieces, len(targets)), max(1, _CELLS // len(prior))
    for start in range(0, len(targets), step):
        rows = slice(start, start + step)
        scores = (
            (evidence[rows] @ weights).toarray() + prior + np.outer(pieces[rows], np.broadcast_to(each, len(prior)))
        )
        scores[:, :FIRST_CODE] = -np.inf
        true = scores[np.arange(len(scores)), targets[rows]][:, None]
        earlier = np.arange(len(prior)) < targets[rows, None]
        ranks[rows] = np.count_nonzero((scores > true) | ((scores == true) & earlier), axis=1)
    return ranks


def _present(sequences: PatientSequences, vocabulary_size: int, which: np.ndarray) -> sparse.csr_matrix:
    """How often each patient has each code, (n, V), of the codes that `which` (codes,) names; no special ids."""
    patient = np.repeat(np.arange(len(sequences)), sequences.lengths)
    keep = which & (np.asarray(sequences.code_ids) >= FIRST_CODE)
    return _counted(patient[keep], sequences.code_ids[keep], (len(sequences), vocabulary_size))


def _counted(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> sparse.csr_matrix:
    matrix = sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=shape)
    matrix.sum_duplicates()
    return matrix


def _place(sequences: PatientSequences) -> np.ndarray:
    return np.asarray(sequences.visit_ids, np.int64) << 32 | np.asarray(sequences.serialization_ids)


def _at_place(train: PatientSequences, asked: MaskedCodes, vocabulary_size: int):
    """(N, places) which place each is asked at, and (places, V) what `train` has there."""
    places, of = np.unique(_place(train), return_inverse=True)
    at = _place(asked.sequences)[asked.is_masked]
    found = np.minimum(np.searchsorted(places, at), len(places) - 1)
    known = places[found] == at
    evidence = _counted(np.flatnonzero(known), found[known], (len(at), len(places)))
    return evidence, _counted(of.ravel(), train.code_ids, (len(places), vocabulary_size))


def _neighbours(asked: MaskedCodes) -> tuple[np.ndarray, np.ndarray]:
    """(N,) ids of the last code before and of the first one after that can be seen; 0 where there is none."""
    sequences = asked.sequences
    visible = ~asked.is_masked & (np.asarray(sequences.code_ids) >= FIRST_CODE)
    slots, here = np.arange(len(visible)), np.flatnonzero(asked.is_masked)
    last = np.maximum.accumulate(np.where(visible, slots, -1))[here]
    first = np.minimum.accumulate(np.where(visible, slots, len(slots))[::-1])[::-1][here]
    begin, end = sequences.code_offsets[asked.patients], sequences.code_offsets[asked.patients + 1]
    ids = np.append(sequences.code_ids, 0)
    return np.where(last >= begin, ids[last], 0), np.where(first < end, ids[np.minimum(first, len(slots))], 0)


def _bigram(train: PatientSequences, asked: MaskedCodes, share: np.ndarray, counts: np.ndarray):
    """log P(code | before) + log P(after | code), as the arguments of `_ranks`."""
    size, ids = len(share), np.asarray(train.code_ids)
    owner = np.repeat(np.arange(len(train)), train.lengths)
    pair = (owner[1:] == owner[:-1]) & (ids[1:] >= FIRST_CODE) & (ids[:-1] >= FIRST_CODE)
    follows = _counted(ids[:-1][pair], ids[1:][pair], (size, size))
    forward, backward = follows.copy(), follows.T.tocsr()
    # By the code that is guessed (its column) forwards, by the one that is seen (its row) backwards.
    forward.data = np.log1p(forward.data / (SMOOTHING * share[forward.indices]))
    backward.data = np.log1p(backward.data / (SMOOTHING * np.repeat(share, np.diff(backward.indptr))))
    before, after = _neighbours(asked)
    rows = np.arange(len(before))
    evidence = _counted(
        np.concatenate([rows[before > 0], rows[after > 0]]),
        np.concatenate([before[before > 0], size + after[after > 0]]),
        (len(rows), 2 * size),
    )
    followed = np.asarray(follows.sum(axis=1)).ravel()
    return np.log(share), evidence, sparse.vstack([forward, backward]).tocsr(), -np.log(followed + SMOOTHING), after > 0


def _naive_bayes(train: PatientSequences, seen: sparse.csr_matrix, share: np.ndarray):
    """log P(code) + Σ log P(the patient has another | he has this one), as the arguments of `_ranks`.

    That a patient has the same code again is counted as an event of its own.
    """
    size = len(share)
    times = _present(train, size, np.ones(len(train.code_ids), bool))
    has, again = times.copy(), times.copy()
    has.data = np.minimum(has.data, 1.0)
    again.data = (again.data > 1).astype(np.float64)
    patients = np.asarray(has.sum(axis=0)).ravel()
    together = (has.T @ has).tocsr()
    together.setdiag(np.asarray(again.sum(axis=0)).ravel())
    together.eliminate_zeros()
    usual = (patients + 0.5) / (len(train) + 1)
    together.data = np.log1p(together.data / (SMOOTHING * np.repeat(usual, np.diff(together.indptr))))
    return np.log(share), seen, together, -np.log(patients + SMOOTHING), np.asarray(seen.sum(axis=1)).ravel()
