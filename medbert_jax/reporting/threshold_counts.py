"""What becomes of 1,000 patients where somebody acts above a threshold: the points of a page's slider."""

from collections.abc import Sequence
from dataclasses import dataclass

from medbert_jax.evaluation.evaluate import EVERYONE
from medbert_jax.evaluation.stored_evaluation import Evaluation

_CURVES = ("flagged", "sensitivity", "specificity", "ppv", "npv")
Point = tuple[float | None, ...]


@dataclass(frozen=True)
class ThresholdCounts:
    """Of one cohort."""

    models: tuple[str, ...]
    points: tuple[tuple[Point, ...], ...]
    """Of each model, by rising risk: risk, then shares: flagged, sensitivity, specificity, PPV and NPV (None: of
    nobody)."""
    start: float
    """Risk that is shown first."""
    note: str
    counted: str = "patients"
    """What is counted: predictions, where a patient may have several."""

    def to_dict(self) -> dict:
        """JSON data."""
        points = [
            [[None if value is None else round(value, 6) for value in of] for of in lines] for lines in self.points
        ]
        return {"models": list(self.models), "points": points, "start": self.start}


def threshold_counts(evaluation: Evaluation, models: Sequence[str]) -> ThresholdCounts | None:
    """Those of the models that have them; None where none does: what the model gives is no risk at which anybody could
    act, since the index is known only once the outcome is, absolute risks are refused, or counts are hidden."""
    design = evaluation.about["design"]
    if design["refused"] or design["estimand"] == "score":
        return None
    curves = evaluation.curves.filter(stratum=EVERYONE)
    found: dict[str, tuple[Point, ...]] = {}
    for model in models:
        of: dict[float, dict[str, float]] = {}
        for curve, x, y in curves.filter(model=model).select("curve", "x", "y").iter_rows():
            if curve in _CURVES:
                of.setdefault(x, {})[curve] = y
        # A threshold above or below all risks says nothing that its neighbour does not.
        lines = [(risk, *map(values.get, _CURVES)) for risk, values in sorted(of.items()) if "flagged" in values]
        if any(0 < line[1] < 1 for line in lines):  # ty: ignore[unsupported-operator]
            found[model] = tuple(lines)
    if not found:
        return None
    asked = evaluation.about["risks"]
    several = {model["name"]: model["replicates"] for model in evaluation.about["models"]}
    first = " Of a model of several replicates, its first." if max(several.values(), default=1) > 1 else ""
    counted = "predictions" if evaluation.is_clustered else "patients"
    return ThresholdCounts(
        tuple(found),
        tuple(found.values()),
        asked[min(1, len(asked) - 1)] if asked else 0.1,
        f"Counts per 1,000 {counted} like those tested; a threshold is chosen for what acting costs and brings, before"
        f" the figures are seen.{first}",
        counted,
    )
