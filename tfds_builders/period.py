"""Who of a split is predicted at a time that is not his: of cohorts that are split by time, too."""

import numpy as np

from medbert_jax.cohorts.spec import CohortSpec
from medbert_jax.ehr.hashing import SPLITS


def outside_period(
    spec: CohortSpec, split: np.ndarray, prediction_time: np.ndarray
) -> dict[str, tuple[str, np.ndarray]]:
    """Return who is in a split whose time is not his: line of the ledger → its text, and (n,) bool.

    Args:
        spec: a cohort with a temporal split.
        split: (n,) places in SPLITS.
        prediction_time: (n,) int64, µs since 1970.
    """
    assert spec.split is not None  # such a cohort is asked for
    is_test, test_from = split == SPLITS.index("test"), np.datetime64(spec.split.test_from, "D")
    # Prediction times are inclusive: 1 µs before the index, where that is not read itself.
    just_before = 1 if spec.input.until == "before_index" else 0
    day = (prediction_time + just_before).astype("datetime64[us]").astype("datetime64[D]")
    known = day + label_known_after(spec)
    return {
        "predicted_late": (
            f"Training and validation patients whose label was not known before {test_from}",
            ~is_test & (known >= test_from),
        ),
        "predicted_early": (f"Test patients whose prediction is before {test_from}", is_test & (day < test_from)),
    }


def label_known_after(spec: CohortSpec) -> int:
    """Return how many days after the prediction what the label says has happened or can no more.

    Of an outcome anywhere in the record this is the index, though who is a control, and how a case is verified, rests
    on the record after it.
    """
    # A gap of one day ends the input with the day before the index, as none does.
    return spec.outcome.known_after_days + max((spec.input.gap_days or 0) - 1, 0)
