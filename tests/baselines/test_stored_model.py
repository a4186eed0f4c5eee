"""A baseline that is kept as arrays predicts the very same, and a file that is none is refused."""

import io

import numpy as np
import pytest
from made_datasets import Drawn, drawn_sequences
from sklearn.linear_model import LogisticRegression

from medbert_jax.baselines.logistic_regression import CodesLogisticRegression
from medbert_jax.baselines.record_shape import ShapeBoosting
from medbert_jax.baselines.stored_model import arrays_of, read_classifier, write_classifier
from medbert_jax.baselines.trees import CodesForest, RecordBoosting

SIZE = 40
KINDS = {
    **{name: CodesLogisticRegression(SIZE, features=name) for name in ("codes", "age", "age+sex", "codes+age")},
    "shape": ShapeBoosting(max_trees=20),
    "forest": CodesForest(SIZE, seed=3),
    "boosting": RecordBoosting(SIZE, max_trees=20, counted_codes=9),
}


def patients(n: int, seed: int):
    """Cases have code 16 more often, and more visits; days and ages are unknown of some."""
    random = np.random.default_rng(seed)
    people = []
    for _ in range(n):
        event = int(random.random() < 0.4)
        visits = [
            (
                int(day) if random.random() < 0.9 else -1,
                int(random.integers(8000, 30_000)) if random.random() < 0.9 else -1,
                int(random.integers(-1, 9)),
                [16] * (random.random() < 0.2 + 0.5 * event) + random.integers(17, SIZE, 3).tolist(),
            )
            for day in np.cumsum(random.integers(0, 200, 1 + random.integers(3) + event))
        ]
        people.append(Drawn(visits, sex=int(random.integers(3)), event=event, index_day=int(random.integers(-1, 900))))
    return drawn_sequences(people, "cohort")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_again_predicts_the_same_bit_for_bit(kind, tmp_path):
    train, validation, others = patients(300, 0), patients(150, 1), patients(1100, 2)
    fitted = KINDS[kind].fit(train, train.outcomes["label"], validation, validation.outcomes["label"])
    for name in ("one", "two"):
        write_classifier(tmp_path / name, arrays_of(fitted))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    found, expected = read_classifier(tmp_path / "one").predict_proba(others), fitted.predict_proba(others)
    assert (found[:, 1] == expected[:, 1]).all() and np.ptp(found[:, 1]) > 0
    assert found[:, 0] == pytest.approx(expected[:, 0], abs=1e-12)
    assert read_classifier(tmp_path / "one").predict_proba(others.take([]))[:, 1].shape == (0,)


def test_another_model_has_no_stored_form():
    assert arrays_of(LogisticRegression()) == {}


def test_a_file_that_is_none_is_refused(tmp_path):
    path = tmp_path / "model.npz"
    for content in (b"", b"PK\x03\x04", _npz(version=np.array(1)), _npz(version=np.array(1), kind=np.array([{}]))):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a kept baseline must be an \.npz as it was written"):
            read_classifier(path)
    path.write_bytes(_npz(version=np.array(1), kind=np.array("oracle")))
    with pytest.raises(ValueError, match="must be one of logistic_regression, record, shape, forest: got 'oracle'"):
        read_classifier(path)
    path.write_bytes(_npz(version=np.array(9), kind=np.array("shape")))
    with pytest.raises(ValueError, match="version 1 or older"):
        read_classifier(path)


def _npz(**arrays) -> bytes:
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()
