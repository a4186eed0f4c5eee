"""The shape of literal records, and a boosting that reads nothing else."""

from dataclasses import replace

import numpy as np
import pytest
from made_datasets import Drawn, drawn_sequences

from medbert_jax.baselines.record_shape import SHAPE, ShapeBoosting, shape_of
from medbert_jax.metrics.discrimination import auroc

FEBRUARY = np.datetime64("2015-02-03", "us").astype(np.int64)


def patients(people: list[Drawn], times=None):
    sequences = drawn_sequences(people, "cohort")
    times = np.full(len(people), FEBRUARY - 1) if times is None else times
    return replace(sequences, outcomes=sequences.outcomes | {"prediction_time": times})


def test_the_shape_of_literal_records():
    people = [
        Drawn([(0, 20_000, 1, [16, 17]), (30, 20_030, 1, [16])], index_day=100),
        Drawn([(-1, -1, -1, [18])], index_day=-1),
    ]
    found = shape_of(patients(people, np.array([FEBRUARY - 1, 3 * 86_400_000_000])))
    first = dict(zip(SHAPE, found[0], strict=True))
    assert first == {
        "encounters": 2, "visits": 2, "codes": 3, "history_days": 100, "last_gap_days": 70,
        "calendar_year": 2015, "day_of_year": 34,
    }  # fmt: skip
    other = dict(zip(SHAPE, found[1], strict=True))
    assert np.isnan([other["history_days"], other["last_gap_days"]]).all()
    assert (other["encounters"], other["calendar_year"], other["day_of_year"]) == (1, 1970, 4)


def made(n, seed):
    """Cases have more visits, and codes that are anybody's."""
    random = np.random.default_rng(seed)
    label = random.random(n) < 0.4
    visits = random.poisson(2 + 2 * label) + 1
    people = [
        Drawn([(10 * place, 20_000, 1, [int(random.integers(16, 20))]) for place in range(count)], event=int(case),
              index_day=10 * int(count), id=f"p{number}")
        for number, (count, case) in enumerate(zip(visits, label, strict=True))
    ]  # fmt: skip
    return patients(people)


@pytest.fixture(scope="module")
def fitted():
    train, validation, test = (made(400, seed) for seed in range(3))
    model = ShapeBoosting(60).fit(train, train.outcomes["label"], validation, validation.outcomes["label"])
    return model, validation, test


def test_boosting_finds_what_the_counts_tell_and_reads_no_code(fitted):
    model, validation, test = fitted
    scores = model.predict_proba(test)[:, 1]
    assert 0.7 < auroc(test.outcomes["label"], scores) < 0.95
    assert 1 <= model.trees_ <= 60
    assert model.validation_scores_["auroc"] == pytest.approx(
        auroc(validation.outcomes["label"], model.predict_proba(validation)[:, 1]), abs=1e-12
    )
    others = replace(test, code_ids=np.asarray(test.code_ids)[::-1].copy())
    assert np.array_equal(model.predict_proba(others)[:, 1], scores)
    assert model.predict_proba(test).sum(1) == pytest.approx(np.ones(400))
    assert np.array_equal(model.predict(test), scores > 0.5)


def test_of_a_source_without_days_the_counts_alone_are_read():
    train = made(60, 0)
    unknown = replace(train, outcomes=train.outcomes | {"index_day": np.full(60, -1, np.int32)})
    label = unknown.outcomes["label"]
    model = ShapeBoosting(5).fit(unknown, label, unknown, label)
    assert np.isfinite(model.predict_proba(unknown)).all()


def test_one_class_is_refused():
    train = made(50, 0)
    with pytest.raises(ValueError, match="validation labels must be 0 and 1, with both present"):
        ShapeBoosting().fit(train, train.outcomes["label"], train, np.zeros(50))
