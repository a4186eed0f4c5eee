"""What the paper prints, and which rows are its own: Rasmy et al. 2021, npj Digital Medicine 4:86."""

from dataclasses import dataclass

DHF, PACA, TRUVEN = "DHF-Cerner", "PaCa-Cerner", "PaCa-Truven"
BASES = {"gru": "GRU", "bi_gru": "Bi-GRU", "retain": "RETAIN"}
"""Head → what the paper calls the base model."""
BASE, VECTORS, MED_BERT = "none", "tw2v", "pretrained"
"""Backbones under a base model."""

Row = tuple[str, str]
"""Backbone and head."""


@dataclass(frozen=True)
class Printed:
    """A cell of Table 4: AUROC × 100, and its standard deviation over runs."""

    value: float
    deviation: float


ONLY, UNTRAINED = (MED_BERT, "feed_forward"), ("untrained", "feed_forward")
REGRESSION, FOREST = ("logistic_regression", "default"), ("random_forest", "codes")

ROWS: dict[Row, str] = {
    (backbone, head): f"{name}{added}"
    for head, name in BASES.items()
    for backbone, added in ((BASE, ""), (VECTORS, " + t-W2V"), (MED_BERT, " + Med-BERT"))
} | {ONLY: "Med-BERT only (FFL)", UNTRAINED: "untrained Med-BERT only", REGRESSION: "LR", FOREST: "RF"}
"""The rows of Table 4 in its order → what the paper calls them."""

_CELLS: dict[Row, tuple[float, ...]] = {
    ("none", "gru"): (83.93, 0.13, 78.26, 0.84, 78.17, 0.21),
    ("tw2v", "gru"): (83.95, 0.24, 80.08, 1.0, 77.54, 0.27),
    ("pretrained", "gru"): (85.14, 0.06, 82.13, 0.24, 80.37, 0.12),
    ("none", "bi_gru"): (82.82, 0.17, 76.09, 0.61, 76.79, 0.29),
    ("tw2v", "bi_gru"): (84.23, 0.06, 79.35, 0.27, 77.44, 0.22),
    ("pretrained", "bi_gru"): (85.39, 0.05, 82.23, 0.29, 80.57, 0.21),
    ("none", "retain"): (83.28, 0.16, 79.68, 0.32, 78.02, 0.19),
    ("tw2v", "retain"): (84.98, 0.02, 81.8, 0.17, 79.46, 0.18),
    ("pretrained", "retain"): (85.33, 0.09, 81.3, 0.55, 79.98, 0.17),
    ONLY: (85.18, 0.12, 81.67, 0.31, 79.98, 0.26),
    UNTRAINED: (82.76, 0.13, 75.16, 0.77, 75.9, 0.18),
    REGRESSION: (81.01, 0.0, 79.94, 0.0, 77.28, 0.0),
    FOREST: (81.88, 0.08, 79.48, 0.31, 77.0, 0.12),
}

TABLE4: dict[str, dict[Row, Printed]] = {
    column: {row: Printed(*cells[2 * place : 2 * place + 2]) for row, cells in _CELLS.items()}
    for place, column in enumerate((DHF, PACA, TRUVEN))
}
"""Table 4: column → row → cell."""

_COLUMNS = {
    ("dhf", "cerner"): DHF,
    ("dhf-matched", "cerner"): DHF,
    ("dhf-matched-incident", "cerner"): DHF,
    ("dhf-landmark", "cerner"): DHF,
    ("paca", "cerner"): PACA,
    ("paca-matched", "cerner"): PACA,
    ("paca", "truven"): TRUVEN,
    ("paca-matched", "truven"): TRUVEN,
}

CONFIRMATORY = (("dhf-matched", "cerner"), ("paca-matched", "cerner"), ("paca-matched", "truven"))
"""Cohort and site of the confirmatory family: each base + Med-BERT minus the base, nine tests that Holm adjusts."""


def paper_column(cohort: str, site: str) -> str:
    """The column of Table 4 that a cohort at a site stands beside; empty where there is none."""
    return _COLUMNS.get((cohort, site), "")


def printed_difference(column: str, one: Row, other: Row) -> float | None:
    """one − other in a column of Table 4, AUROC × 100; None where the column is none of the paper's."""
    cells = TABLE4.get(column)
    return None if cells is None else round(cells[one].value - cells[other].value, 2)
