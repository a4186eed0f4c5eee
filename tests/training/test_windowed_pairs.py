"""Pairs of codes within some days: of literal patients, against all pairs looked at one by one, and in blocks."""

import jax.numpy as jnp
import numpy as np
import pytest
from made_datasets import Drawn, drawn_sequences

from medbert_jax.training import windowed_pairs
from medbert_jax.training.code_vectors import pair_weights
from medbert_jax.training.windowed_pairs import WindowedPairs, reach_back


def patient(*visits: tuple[int, int]) -> Drawn:
    """Of visits (day, number of codes)."""
    return Drawn([(day, -1, -1, [16 + number for number in range(codes)]) for day, codes in visits])


def test_how_far_back_of_literal_patients():
    patients = [
        patient((0, 2), (30, 1), (31, 2), (61, 1)),  # 30 days are within the window, 31 are not
        patient((0, 1)),
        patient((5, 1), (5, 1)),  # two visits of one day
    ]
    assert reach_back(drawn_sequences(patients), 30).tolist() == [0, 1, 2, 1, 2, 2, 0, 0, 1]
    assert reach_back(drawn_sequences(patients), 0).tolist() == [0, 1, 0, 0, 1, 0, 0, 0, 1]
    assert reach_back(drawn_sequences(patients), 10_000).tolist() == [0, 1, 2, 3, 4, 5, 0, 0, 1]


def test_an_unknown_day_reaches_its_own_visit_and_lies_between_those_around_it():
    unknown = [patient((-1, 2), (-1, 3)), patient((0, 1), (-1, 2), (20, 1), (40, 1))]
    # The day after the unknown one is 20 days after the first: what is between them is within the window.
    assert reach_back(drawn_sequences(unknown), 30).tolist() == [0, 1, 0, 1, 2, 0, 0, 1, 3, 1]


def drawn(seed: int) -> list[Drawn]:
    random = np.random.default_rng(seed)
    return [
        patient(*zip(np.cumsum(random.integers(0, 25, 9)).tolist(), random.integers(1, 5, 9).tolist(), strict=True))
        for _ in range(20)
    ]


@pytest.mark.parametrize("window", [0, 7, 30])
def test_pairs_are_all_within_the_window_looked_at_one_by_one(window):
    sequences = drawn_sequences(drawn(0))
    owner = np.repeat(np.arange(len(sequences)), sequences.lengths)
    days = sequences.visit_days[sequences.visit_offsets[owner] + sequences.visit_ids - 1]
    expected = [sum(owner[j] == owner[i] and days[i] - days[j] <= window for j in range(i)) for i in range(len(owner))]
    assert reach_back(sequences, window).tolist() == expected
    assert WindowedPairs.of(sequences, window).pairs == 2 * sum(expected)


def test_blocks_that_begin_anywhere_hold_each_pair_once_on_average(monkeypatch):
    monkeypatch.setattr(windowed_pairs, "SHORTEST", 8)
    monkeypatch.setattr(windowed_pairs, "COVERED", 0.5)
    pairs = WindowedPairs.of(drawn_sequences(drawn(1)), 30)
    assert pairs.block == 8 and pairs.left_out > 0
    everything = np.zeros((len(pairs.code_ids),) * 2)
    for phase in range(pairs.block):
        starts = np.arange(pairs.blocks) * pairs.block - phase
        weights = np.asarray(pair_weights(jnp.asarray(pairs.cut(starts)[1])))
        for start, weight in zip(starts, weights, strict=True):
            one, other = np.nonzero(weight)
            everything[start + one, start + other] += weight[one, other] / pairs.block
    # Once is a pair within the window and within half a block, in both directions, and nothing else is any.
    places = np.arange(len(everything))
    earlier = places[None, :] < places[:, None]
    expected = earlier & (places[:, None] - places[None, :] <= pairs.back[:, None])
    np.testing.assert_allclose(everything, expected | expected.T, rtol=1e-5)
    assert everything.sum() == pytest.approx(pairs.pairs, rel=1e-5)


def test_a_pass_covers_every_code_once_in_random_order():
    pairs = WindowedPairs.of(drawn_sequences(drawn(2)), 30)
    random = np.random.default_rng(0)
    passes = [pairs.starts(random) for _ in range(6)]
    for starts in passes:
        places = (starts[:, None] + np.arange(pairs.block)).ravel()
        inside = np.sort(places[(places >= 0) & (places < len(pairs.code_ids))])
        assert np.array_equal(inside, np.arange(len(pairs.code_ids)))
    assert len({tuple(starts) for starts in passes}) > 1
    ids, back = pairs.cut(np.array([-3, len(pairs.code_ids)]))
    assert (ids[0, :3] == 0).all() and ids[0, 3] == pairs.code_ids[0] and not ids[1].any() and not back[1].any()


def test_a_block_is_as_long_as_most_pairs_need():
    short = WindowedPairs.of(drawn_sequences([patient((0, 5))] * 9), 30)
    assert (short.block, short.left_out) == (32, 0)
    long = WindowedPairs.of(drawn_sequences([patient(*[(day, 2) for day in range(100)])] * 3), 30)
    assert long.block == 128 and long.back.max() == 61 and long.left_out == 0
    longest = WindowedPairs.of(drawn_sequences([patient((0, 1500))]), 30)
    assert longest.block == 512 and longest.back.max() == 256
    assert longest.left_out + longest.pairs == 1500 * 1499


def test_patients_without_a_pair_are_refused():
    with pytest.raises(
        ValueError, match="need patients with two codes within 30 days: got none among 2 patients; give"
    ):
        WindowedPairs.of(drawn_sequences([patient((0, 1), (31, 1)), patient((4, 1))]), 30)
