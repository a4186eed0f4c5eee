"""The guessers of the masked-code task against loops that ask for one code after the other."""

from collections import Counter, defaultdict
from dataclasses import replace
from itertools import pairwise
from math import log

import numpy as np
import pytest
from made_sequences import made_sequences

from medbert_jax.data.sequences import PatientSequences
from medbert_jax.data.vocabulary import FIRST_CODE, UNK
from medbert_jax.metrics.masked_codes import (
    SMOOTHING,
    MaskedCodes,
    accuracy,
    accuracy_difference,
    guess_ranks,
)

SIZE = FIRST_CODE + 7


def made(patients: int, seed: int) -> PatientSequences:
    """1 … 12 codes out of seven, so that counts tie; a tenth of them UNK."""
    sequences = made_sequences(patients, seed=seed, longest=12)
    rng = np.random.default_rng(seed)
    code_ids = FIRST_CODE + rng.integers(0, 7, len(sequences.code_ids)) * rng.integers(0, 2, len(sequences.code_ids))
    code_ids[rng.random(len(code_ids)) < 0.1] = UNK
    return replace(sequences, code_ids=code_ids.astype(np.int32))


def masked(sequences: PatientSequences, seed: int) -> MaskedCodes:
    flags = (np.random.default_rng(seed).random(len(sequences.code_ids)) < 0.3) & (sequences.code_ids != UNK)
    return MaskedCodes(sequences, flags)


def records(sequences: PatientSequences) -> list[list[int]]:
    return [
        sequences.code_ids[begin:end].tolist()
        for begin, end in zip(sequences.code_offsets[:-1], sequences.code_offsets[1:], strict=True)
    ]


def asked_one_by_one(train: PatientSequences, asked: MaskedCodes) -> dict[str, list[int]]:
    """The ranks by loops over patients, codes and the whole vocabulary."""
    codes = range(FIRST_CODE, SIZE)
    everything = Counter(int(code) for code in train.code_ids if code != UNK)
    total = sum(everything.values())
    share = {c: (everything[c] + SMOOTHING / SIZE) / (total + SMOOTHING) for c in codes}
    at_place, pairs, follows, has, both = defaultdict(Counter), Counter(), Counter(), Counter(), Counter()
    for visit, rank, code in zip(train.visit_ids, train.serialization_ids, train.code_ids, strict=True):
        at_place[visit, rank][int(code)] += 1
    for record in records(train):
        for one, other in pairwise(record):
            if UNK not in (one, other):
                pairs[one, other] += 1
                follows[one] += 1
        for one in set(record) - {UNK}:
            has[one] += 1
            both[one, one] += record.count(one) > 1
            for other in set(record) - {UNK, one}:
                both[one, other] += 1

    found = defaultdict(list)
    offsets = asked.sequences.code_offsets
    for patient in range(len(asked.sequences)):
        slots = range(offsets[patient], offsets[patient + 1])
        seen = {
            s: int(asked.sequences.code_ids[s])
            for s in slots
            if not asked.is_masked[s] and asked.sequences.code_ids[s] != UNK
        }
        for slot in slots:
            if not asked.is_masked[slot]:
                continue
            true = int(asked.sequences.code_ids[slot])
            place = asked.sequences.visit_ids[slot], asked.sequences.serialization_ids[slot]
            before = seen[max(s for s in seen if s < slot)] if min(seen, default=slot) < slot else None
            after = seen[min(s for s in seen if s > slot)] if max(seen, default=slot) > slot else None

            def bigram(c, before=before, after=after):
                score = log(share[c])
                if before is not None:
                    score = log((pairs[before, c] + SMOOTHING * share[c]) / (follows[before] + SMOOTHING))
                if after is not None:
                    score += log((pairs[c, after] + SMOOTHING * share[after]) / (follows[c] + SMOOTHING))
                return score

            def naive(c, seen=seen):
                usual = {d: (has[d] + 0.5) / (len(train) + 1) for d in codes}
                parts = ((both[d, c] + SMOOTHING * usual[d]) / (has[c] + SMOOTHING) for d in set(seen.values()))
                return log(share[c]) + sum(map(log, parts))

            scores = {
                "most_frequent": lambda c: everything[c],
                "most_frequent_at_place": lambda c, place=place: at_place[place][c],
                "copy": lambda c, seen=seen: list(seen.values()).count(c),
                "bigram": bigram,
                "naive_bayes": naive,
            }
            for name, score in scores.items():
                if name in ("bigram", "naive_bayes"):
                    order = sorted(codes, key=lambda c, score=score: (-round(score(c), 9), c))
                else:
                    order = sorted(codes, key=lambda c, score=score: (-score(c), -everything[c], -c))
                found[name].append(order.index(true))
    return found


@pytest.mark.parametrize("seed", range(4))
def test_ranks_are_what_loops_find(seed):
    train, asked = made(40, 2 * seed), masked(made(30, 2 * seed + 1), seed)
    expected = asked_one_by_one(train, asked)
    found = guess_ranks(train, asked, SIZE)
    assert found.keys() == expected.keys()
    for name, ranks in found.items():
        assert ranks.tolist() == expected[name], name
    assert len({tuple(ranks) for ranks in found.values()}) == len(found)  # no guesser is another one


def test_no_guesser_sees_what_is_masked():
    train, asked = made(40, 0), masked(made(30, 1), 0)
    ids = asked.sequences.code_ids.copy()
    place = np.flatnonzero(asked.is_masked)[3]
    ids[place] = FIRST_CODE + (ids[place] - FIRST_CODE + 1) % 7
    other = MaskedCodes(replace(asked.sequences, code_ids=ids), asked.is_masked)
    here, there = guess_ranks(train, asked, SIZE), guess_ranks(train, other, SIZE)
    for name in here:
        assert np.delete(here[name], 3).tolist() == np.delete(there[name], 3).tolist()


def test_found_elsewhere_means_where_it_can_be_seen():
    sequences = made_sequences(1, seed=0, longest=3)
    a, b = FIRST_CODE, FIRST_CODE + 1
    for codes, flags, expected in (([a, a, b], [1, 0, 0], [True]), ([a, a, b], [1, 1, 0], [False, False])):
        one = replace(sequences, code_ids=np.array(codes, np.int32))
        assert MaskedCodes(one, np.array(flags, bool)).found_elsewhere().tolist() == expected


def test_the_interval_takes_patients_as_clusters():
    """With m codes of each patient that are all alike, the error is that of the patients' mean."""
    rng = np.random.default_rng(0)
    right = rng.random(200) < 0.4
    patients, ranks = np.repeat(np.arange(200), 5), np.repeat(np.where(right, 0, 3), 5)
    found = accuracy(ranks, patients, 1)
    assert found.value == pytest.approx(right.mean()) and found.codes == 1000
    error = right.std(ddof=1) / np.sqrt(200)
    assert found.high - found.low == pytest.approx(2 * 1.959964 * error, rel=1e-6)
    assert accuracy(ranks, patients, 10) == (1.0, 1.0, 1.0, 1000)
    same = accuracy_difference(ranks, ranks, patients, 1)
    assert same[:3] == (0.0, 0.0, 0.0)


def test_intervals_cover():
    """400 draws: between 92 and 98 % of intervals hold the share."""
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(400):
        patients = np.repeat(np.arange(150), rng.integers(1, 6, 150))
        chance = rng.beta(2, 3, 150)[patients]
        found = accuracy(np.where(rng.random(len(patients)) < chance, 0, 5), patients, 1)
        held += found.low <= 0.4 <= found.high
    assert 0.92 <= held / 400 <= 0.98
