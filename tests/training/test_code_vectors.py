"""t-W2V: the loss written out pair by pair, neighbours that were planted, and gensim's beside ours."""

import importlib.util
import warnings
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from made_datasets import Drawn, drawn_sequences

from medbert_jax.training.code_vectors import POWER, block_loss, train_code_vectors
from medbert_jax.training.code_vectors_options import CodeVectorsConfig

FIRST, GROUPS, OF_A_GROUP, VOCABULARY = 16, 8, 5, 60
CONFIG = CodeVectorsConfig(size=24, epochs=12, learning_rate=0.1)


def planted(seed: int = 0, patients: int = 600) -> list[list[tuple[int, list[int]]]]:
    """Patients with two stretches of some visits; a stretch has codes of one group, and the next begins a year later.

    So codes of a group are neighbours across visits, and codes of two groups are in one patient but never within 30
    days.
    """
    random, found = np.random.default_rng(seed), []
    for _ in range(patients):
        visits, day = [], 0
        for group in random.choice(GROUPS, 2, replace=False):
            codes = FIRST + group * OF_A_GROUP + random.permutation(OF_A_GROUP)[:4]
            visits += [(day, codes[:1].tolist()), (day + 10, codes[1:3].tolist()), (day + 25, codes[3:].tolist())]
            day += 365
        found.append(visits)
    return found


def sequences_of(patients):
    return drawn_sequences([Drawn([(day, -1, -1, codes) for day, codes in visits]) for visits in patients])


def neighbours(vectors: np.ndarray) -> dict[int, set[int]]:
    """Code → the nearest by cosine, as many as its group has others."""
    codes = np.arange(FIRST, FIRST + GROUPS * OF_A_GROUP)
    unit = vectors[codes] / np.linalg.norm(vectors[codes], axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -2)
    nearest = np.argsort(-cosine, axis=1)[:, : OF_A_GROUP - 1]
    return {int(code): set(codes[row].tolist()) for code, row in zip(codes, nearest, strict=True)}


def own_group(code: int) -> set[int]:
    first = code - (code - FIRST) % OF_A_GROUP
    return set(range(first, first + OF_A_GROUP)) - {code}


PLANTED = {code: own_group(code) for code in range(FIRST, FIRST + GROUPS * OF_A_GROUP)}


@pytest.fixture(scope="module")
def trained():
    return train_code_vectors(sequences_of(planted()), VOCABULARY, CONFIG)


def test_planted_neighbours_are_found_and_ids_that_nobody_has_have_no_vector(trained):
    assert neighbours(trained.vectors) == PLANTED
    assert trained.vectors.shape == (VOCABULARY, CONFIG.size) and trained.vectors.dtype == np.float32
    nobody = trained.counts == 0
    assert nobody.sum() == VOCABULARY - GROUPS * OF_A_GROUP and not trained.vectors[nobody].any()
    assert trained.counts.sum() == 600 * 8
    assert (trained.pairs, trained.left_out) == (600 * 2 * 4 * 3, 0)
    assert len(trained.losses) == CONFIG.epochs and trained.losses[-1] < 0.8 * trained.losses[0]


def test_codes_a_year_apart_are_neighbours_for_a_window_of_years_alone():
    """Each patient's second group is always the same other one: what is within the window decides."""
    patients = planted()
    for visits in patients:
        group = (visits[0][1][0] - FIRST) // OF_A_GROUP
        first = FIRST + (group ^ 1) * OF_A_GROUP
        visits[3:] = [(day, [first + number]) for number, (day, _) in enumerate(visits[3:])]
    sequences, years = sequences_of(patients), replace(CONFIG, window_days=3650)
    of_a_month, of_years = (train_code_vectors(sequences, VOCABULARY, one).vectors for one in (CONFIG, years))
    assert neighbours(of_a_month) == PLANTED
    assert neighbours(of_years) != PLANTED


def test_one_seed_gives_one_set_of_vectors(trained):
    short = CodeVectorsConfig(size=8, epochs=2)
    one, again, other = (
        train_code_vectors(sequences_of(planted()), VOCABULARY, config).vectors
        for config in (short, short, CodeVectorsConfig(size=8, epochs=2, seed=1))
    )
    assert np.array_equal(one, again) and not np.array_equal(one, other)


def test_the_loss_is_that_of_the_pairs_one_by_one():
    random = np.random.default_rng(0)
    codes, contexts = random.normal(size=(2, 2, 4, 3)).astype(np.float32)
    drawn = random.normal(size=(5, 3)).astype(np.float32)
    weights = random.integers(0, 3, (2, 4, 4)).astype(np.float32)
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    expected = 0.0
    for row, one, other in zip(*np.nonzero(weights), strict=True):
        code = codes[row, one].astype(np.float64)
        pair = -np.log(sigmoid(code @ contexts[row, other]))
        pair -= 7 * np.mean([np.log(sigmoid(-code @ negative)) for negative in drawn])
        expected += weights[row, one, other] * pair
    found = block_loss(*map(jnp.asarray, (codes, contexts, drawn, weights)), 7)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_negatives_come_by_their_count_to_the_power_of_three_quarters(monkeypatch):
    assert POWER == 0.75  # Mikolov et al. 2013
    seen = []
    monkeypatch.setattr(
        "medbert_jax.training.code_vectors._dispatch",
        lambda state, ids, back, cumulative, **_: seen.append(np.asarray(cumulative)) or (state, (1.0, 1.0)),
    )
    patients = [[(0, [16, 17])]] * 80 + [[(0, [18, 18])]] * 8
    train_code_vectors(sequences_of(patients), 20, CodeVectorsConfig(size=4, epochs=1))
    counts = np.array([80, 80, 16]) ** 0.75
    np.testing.assert_allclose(np.diff(seen[0])[15:18], counts / counts.sum(), rtol=1e-5)


@pytest.mark.parity
@pytest.mark.skipif(not importlib.util.find_spec("gensim"), reason="gensim (the extra `parity`) is not installed")
@pytest.mark.filterwarnings("default")
def test_gensim_finds_the_same_neighbours(trained):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from gensim.models import Word2Vec

    # gensim knows no days: each stretch is a sentence, all of whose words are within the window.
    stretches = [part for visits in planted() for part in (visits[:3], visits[3:])]
    sentences = [[str(code) for _, codes in part for code in codes] for part in stretches]
    model = Word2Vec(
        sentences, vector_size=CONFIG.size, sg=1, negative=CONFIG.negatives, ns_exponent=POWER, window=9,
        shrink_windows=False, min_count=1, sample=0, epochs=60, seed=1, workers=1,
    )  # fmt: skip
    theirs = np.zeros((VOCABULARY, CONFIG.size), np.float32)
    for code in PLANTED:
        theirs[code] = model.wv[str(code)]
    assert neighbours(theirs) == neighbours(trained.vectors) == PLANTED


def test_every_fault_is_in_one_error():
    with pytest.raises(ValueError) as error:
        CodeVectorsConfig(size=0, negatives=0, learning_rate=0)
    assert [line.split()[0] for line in str(error.value).splitlines()] == ["size", "negatives", "learning_rate"]
