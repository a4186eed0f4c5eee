"""A forest that is scikit-learn's, and a boosting that reads counts, age, sex and use of care."""

from dataclasses import replace

import numpy as np
import pytest
from made_datasets import Drawn, drawn_sequences
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier

from medbert_jax.baselines.logistic_regression import multi_hot
from medbert_jax.baselines.record_shape import SHAPE
from medbert_jax.baselines.trees import CodesForest, RecordBoosting, code_counts
from medbert_jax.metrics.discrimination import auroc

VOCABULARY = 24
MONDAY = np.datetime64("2015-02-02", "us").astype(np.int64)


def patients(people: list[Drawn]):
    sequences = drawn_sequences(people, "cohort")
    times = np.full(len(people), MONDAY - 1)
    return replace(sequences, outcomes=sequences.outcomes | {"prediction_time": times})


def made(n: int, seed: int, tells: str):
    """What tells cases from the others: whether a code is there, how often it comes, age, sex, or days in hospital."""
    random, people = np.random.default_rng(seed), []
    for number in range(n):
        case = random.random() < 0.4
        often = 1 + 3 * case if tells == "counts" else 2
        codes = [[20 if case and tells == "code" else 21], *[[22] for _ in range(often)], *[[23]] * (4 - often)]
        age = 10_000 + 9_000 * (case and tells == "age") + int(random.integers(0, 2_000))
        stay = 1 + 4 * (case and tells == "stays")
        random.shuffle(codes)
        people.append(
            Drawn([(10 * place, age, stay, one) for place, one in enumerate(codes)], event=int(case), index_day=90,
                  sex=2 if case and tells == "sex" else 1, id=f"p{number}")
        )  # fmt: skip
    return patients(people)


def fitted(model, tells: str):
    train, validation, test = (made(200, seed, tells) for seed in range(3))
    model.fit(train, train.outcomes["label"], validation, validation.outcomes["label"])
    return model, auroc(test.outcomes["label"], model.predict_proba(test)[:, 1])


def test_a_forest_is_scikit_learns_and_finds_codes_and_no_counts():
    model, found = fitted(CodesForest(VOCABULARY, seed=3), "code")
    assert found > 0.99
    train, test = (made(200, seed, "code") for seed in (0, 2))
    theirs = RandomForestClassifier(random_state=3).fit(multi_hot(train, VOCABULARY), train.outcomes["label"])
    assert np.array_equal(model.predict_proba(test), theirs.predict_proba(multi_hot(test, VOCABULARY)))
    assert np.array_equal(model.predict(test), theirs.predict(multi_hot(test, VOCABULARY)))
    assert model.validation_scores_["auroc"] > 0.99
    assert clone(CodesForest(9, min_samples_leaf=4)).get_params() == {
        "vocabulary_size": 9, "min_samples_leaf": 4, "seed": 0,
    }  # fmt: skip


@pytest.mark.parametrize("tells", ["code", "counts", "age", "sex", "stays"])
def test_boosting_reads_codes_counts_age_sex_and_stays(tells):
    model, found = fitted(RecordBoosting(VOCABULARY, 20, learning_rate=0.3), tells)
    assert found > 0.95
    assert 1 <= model.trees_ <= 20 and model.validation_scores_["auroc"] > 0.95


def test_boosting_finds_nothing_where_nothing_tells():
    """The negative control of the test above."""
    _, found = fitted(RecordBoosting(VOCABULARY, 20, learning_rate=0.3), "nothing")
    assert 0.35 < found < 0.65


def test_columns_of_a_literal_record():
    people = [
        Drawn([(0, 20_000, 3, [16, 17]), (30, 20_030, -1, [16])], index_day=100, sex=2),
        Drawn([(-1, -1, -1, [18])]),
    ]
    sequences = patients(people)
    model = RecordBoosting(VOCABULARY, counted_codes=2)
    model._learn_columns(sequences)
    assert model._codes.tolist() == [16, 17]  # of three that one patient has the first two
    columns = model._columns(sequences)[:, len(SHAPE) :]
    assert columns[0].tolist() == [20_030, 2, 3, 2, 1]
    assert np.isnan(columns[1, :3]).all() and columns[1, 3:].tolist() == [0, 0]


def test_counts_of_codes():
    sequences = patients([Drawn([(0, 1, 1, [16, 18]), (1, 1, 1, [18, 20])]), Drawn([(0, 1, 1, [17])])])
    assert code_counts(sequences, np.array([16, 18, 19])).tolist() == [[1, 2, 0], [0, 0, 0]]


@pytest.mark.parametrize("model", [CodesForest(VOCABULARY), RecordBoosting(VOCABULARY)])
def test_one_class_is_refused(model):
    train = made(50, 0, "code")
    with pytest.raises(ValueError, match="validation labels must be 0 and 1, with both present"):
        model.fit(train, train.outcomes["label"], train, np.zeros(50))
