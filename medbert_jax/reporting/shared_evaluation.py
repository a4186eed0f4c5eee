"""An evaluation as it may be shared: no count of 1 to 10 stands in it, or follows from what does."""

import itertools
from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from medbert_jax.attrition.disclosure import SMALLEST, hidden_cells, refuse_predictions
from medbert_jax.evaluation.evaluate import EVERYONE
from medbert_jax.evaluation.figures import BOUND, FIGURE, GROUP_DIFFERENCE, MODEL_DIFFERENCE
from medbert_jax.evaluation.stored_evaluation import CURVE_SCHEMA, Evaluation

_OF_GROUPS = ("auroc", "brier", "observed_to_expected")
"""Metrics of groups that tell no count; a sensitivity of 19 in 20 tells that one case was missed."""
_BY_RANK = "sensitivity_at_specificity"
SAID = (
    "For sharing: counts of 1 to 10 are hidden, and those that would give them away; between two neighbouring points of"
    " a curve lie at least 11 cases or none, and at least 11 controls or none"
)


@dataclass(frozen=True)
class Cut:
    """Whom a threshold flags."""

    risk: float
    cases: int
    controls: int


def shareable(evaluation: Evaluation, *, hides_totals: bool = False) -> Evaluation:
    """The evaluation without what would tell a count of 1 to 10.

    Counts of the test split stay, unless one of them is so small or `hides_totals` says that another table hides them:
    then nothing is left that could be multiplied by them, no curve and no threshold. Otherwise every model keeps the
    thresholds between which at least 11 cases or none, and 11 controls or none, lie; ROC, precision and recall,
    decision curve and histogram have only their points. Of groups AUROC, Brier and O/E stay; their counts as
    `hidden_cells`. Raises ValueError where a patient has several predictions.
    """
    counts = evaluation.about["counts"]
    parts = [counts["cases"], counts["controls"], counts["censored"]]
    refuse_predictions(evaluation.is_clustered)
    hidden = hides_totals or any(0 < part < SMALLEST for part in parts)
    kept = {} if hidden else {name: kept_cuts(evaluation, name) for name in _names(evaluation)}
    about = evaluation.about | {"said": [*_without_numbers(evaluation.about["said"], hidden), SAID]}
    if hidden:
        about |= {"counts": {}}
    return replace(
        evaluation,
        about=about,
        figures=_figures(evaluation, kept, hidden),
        curves=pl.DataFrame(
            [
                row
                for name, cuts in kept.items()
                for row in _curves(evaluation, name, cuts, name in _several(evaluation))
            ],
            schema=CURVE_SCHEMA,
            orient="row",
        ),
    )


def kept_cuts(evaluation: Evaluation, model: str) -> list[Cut]:
    """The thresholds of a model that may be shown, from everybody (risk 0) to nobody (risk 1), both included.

    In a weighted sample the sensitivity is a share of weights, and the cases an estimate: nobody can count them either.
    """
    counts = evaluation.about["counts"]
    curves = evaluation.curves.filter(model=model, stratum=EVERYONE)
    shares = curves.filter(curve="sensitivity").select("x", "y", "n")
    caught = ((risk, round(share * counts["cases"]), n) for risk, share, n in shares.iter_rows())
    found = [Cut(risk, cases, n - cases) for risk, cases, n in caught]
    return choose_cuts(found, evaluation.about["risks"], Cut(0.0, counts["cases"], counts["controls"]))


def choose_cuts(found: Sequence[Cut], asked: Sequence[float], everybody: Cut) -> list[Cut]:
    """Of the cuts those that may stand together, everybody and nobody at the ends; `asked` risks are taken first."""
    by_risk = {cut.risk: cut for cut in found}
    kept = [everybody, Cut(1.0, 0, 0)]
    for risk in (*(risk for risk in asked if risk in by_risk), *sorted(set(by_risk) - set(asked))):
        cut, place = by_risk[risk], bisect(kept, risk, key=lambda one: one.risk)
        before, after = kept[place - 1], kept[min(place, len(kept) - 1)]
        steps = [(one.cases - two.cases, one.controls - two.controls) for one, two in ((before, cut), (cut, after))]
        if all(map(_may_show, steps)):
            kept.insert(place, cut)
    return kept


def shown_group_counts(
    levels: Sequence[tuple[int, int]], totals: tuple[int, int]
) -> list[tuple[int | None, int | None]]:
    """Cases and controls of the levels of a group, None what is hidden; both totals are public.

    Levels that are not shown are the rest; where they are few, what a bigger level hides them behind.
    """
    columns = []
    for place, total in enumerate(totals):
        parts = [level[place] for level in levels]
        rest = total - sum(parts)
        marked, _ = hidden_cells([*parts, rest], [0] * (len(parts) + 1))
        columns.append([None if number in marked else part for number, part in enumerate(parts)])
    return list(zip(*columns, strict=True))


def _may_show(step: tuple[int, int]) -> bool:
    """Whether cases and controls between two cuts are none or enough; with nobody, a cut tells where the last is."""
    return any(step) and all(count == 0 or count >= SMALLEST for count in step)


def _several(evaluation: Evaluation) -> set[str]:
    """Models of several replicates, whose figures at thresholds are means: they tell of cuts that nobody looked at."""
    return {model["name"] for model in evaluation.about["models"] if model["replicates"] > 1}


def _names(evaluation: Evaluation) -> list[str]:
    return evaluation.curves["model"].unique(maintain_order=True).to_list()


def _without_numbers(said: Sequence[str], hidden: bool) -> list[str]:
    return [line for line in said if not (hidden and any(letter.isdigit() for letter in line))]


def _figures(evaluation: Evaluation, kept: dict[str, list[Cut]], hidden: bool) -> pl.DataFrame:
    figures = evaluation.figures.filter(pl.col("metric") != _BY_RANK)
    several = _several(evaluation)
    risks = {name: {cut.risk for cut in cuts} for name, cuts in kept.items()}

    def may_stand(model: str, reference: str, kind: str, at: float | None) -> bool:
        """A threshold's figure, where its cut is kept."""
        both = [model, reference] if kind == MODEL_DIFFERENCE else [model]
        return at is None or all(one not in several and at in risks.get(one, ()) for one in both)

    stands = [may_stand(*row) for row in figures.select("model", "reference", "kind", "at").iter_rows()]
    figures = figures.filter(pl.Series(stands, dtype=pl.Boolean))
    of_group = (pl.col("stratum") != EVERYONE) | (pl.col("kind") == GROUP_DIFFERENCE)
    figures = figures.filter(~of_group | (pl.col("metric").is_in(_OF_GROUPS) & pl.col("at").is_null()))
    if hidden:
        nothing = pl.lit(None, pl.Int64)
        figures = figures.filter((pl.col("kind") != BOUND) & ~of_group)
        return figures.with_columns(n=nothing, cases=nothing)
    return _with_group_counts(figures, evaluation)


def _with_group_counts(figures: pl.DataFrame, evaluation: Evaluation) -> pl.DataFrame:
    counts = evaluation.about["counts"]
    levels = evaluation.figures.filter(pl.col("kind") == FIGURE, pl.col("stratum") != EVERYONE)
    levels = levels.select("stratum", "n", "cases").unique("stratum", maintain_order=True)
    shown: dict[str, tuple[int | None, int | None]] = {}
    groups: dict[str, list[tuple[str, int, int]]] = {}
    for stratum, n, cases in levels.iter_rows():
        groups.setdefault(stratum.partition(": ")[0], []).append((stratum, cases, n - cases))
    for of_group in groups.values():
        found = shown_group_counts([one[1:] for one in of_group], (counts["cases"], counts["controls"]))
        for (stratum, *_), (cases, controls) in zip(of_group, found, strict=True):
            shown[stratum] = (None if cases is None or controls is None else cases + controls, cases)
    everyone = {stratum: (n, cases) for stratum, n, cases in figures.select("stratum", "n", "cases").iter_rows()
                if stratum == EVERYONE}  # fmt: skip
    known = shown | everyone
    pairs = [known.get(stratum, (None, None)) for stratum in figures["stratum"]]
    bound = figures["kind"] == BOUND  # of all rows, the censored among them
    columns = [
        pl.Series(name, [own if is_bound else pair[place] for own, pair, is_bound in
                         zip(figures[name], pairs, bound, strict=True)], dtype=pl.Int64)
        for place, name in enumerate(("n", "cases"))
    ]  # fmt: skip
    return figures.with_columns(columns)


def _curves(evaluation: Evaluation, model: str, cuts: list[Cut], several: bool) -> list[tuple]:
    """Points of the model's curves at its kept cuts; the smooth calibration curve between the outermost of them."""
    curves = evaluation.curves.filter(model=model, stratum=EVERYONE)
    at = {(curve, x): (y, low, high, n) for curve, x, y, low, high, n in
          curves.select("curve", "x", "y", "low", "high", "n").iter_rows()}  # fmt: skip
    everybody = cuts[0].cases + cuts[0].controls
    # At risk 0 everybody is flagged, at 1 nobody: what stands there in the tables may be of another cut.
    of_ends = {
        ("sensitivity", 0.0): 1.0, ("specificity", 0.0): 0.0, ("flagged", 0.0): 1.0,
        ("sensitivity", 1.0): 0.0, ("specificity", 1.0): 1.0, ("flagged", 1.0): 0.0,
    }  # fmt: skip

    def value(curve: str, risk: float) -> float | None:
        return of_ends.get((curve, risk), at.get((curve, risk), (None,))[0])

    rows: list[tuple] = []
    for cut in cuts:
        n, inner = cut.cases + cut.controls, 0 < cut.risk < 1
        sensitivity, specificity = value("sensitivity", cut.risk), value("specificity", cut.risk)
        if sensitivity is None or specificity is None:
            continue
        rows.append((model, EVERYONE, "roc", 1 - specificity, sensitivity, None, None, n))
        if inner and (ppv := value("ppv", cut.risk)) is not None:
            rows.append((model, EVERYONE, "precision_recall", sensitivity, ppv, None, None, n))
        for curve in ("sensitivity", "specificity", "ppv", "npv", "flagged") * inner:
            if (found := value(curve, cut.risk)) is not None:
                rows.append((model, EVERYONE, curve, cut.risk, found, None, None, n))
        if inner and not several and ("decision", cut.risk) in at:
            rows.append((model, EVERYONE, "decision", cut.risk, *at["decision", cut.risk][:3], None))
    rows += [(model, EVERYONE, curve, x, y, low, high, None) for (curve, x), (y, low, high, _) in at.items()
             if curve == "decision_all"]  # fmt: skip
    for one, two in itertools.pairwise(cuts):
        shares = [value("flagged", cut.risk) for cut in (one, two)]
        if None not in shares:
            n = one.cases + one.controls - two.cases - two.controls
            rows.append((model, EVERYONE, "histogram", one.risk, shares[0] - shares[1], None, None, n))  # ty: ignore[unsupported-operator]
    below = [cut.risk for cut in cuts if cut.cases + cut.controls < everybody and cut.cases + cut.controls]
    return rows + (_smooth(curves, model, below) if len(below) > 1 else [])


def _smooth(curves: pl.DataFrame, model: str, risks: list[float]) -> list[tuple]:
    """The calibration curve at whole hundredths: its own points are risks of single patients."""
    own = curves.filter(curve="calibration").sort("x")
    if own["y"].null_count() or not len(own):
        return []
    along = np.round(np.arange(min(risks), max(risks) + 0.005, 0.01), 2)
    along = along[(along >= own["x"][0]) & (along <= own["x"][-1])]
    columns = [np.interp(along, own["x"], own[name].fill_null(float("nan"))).tolist() for name in ("y", "low", "high")]
    finite = ([value if np.isfinite(value) else None for value in column] for column in columns)
    return [
        (model, EVERYONE, "calibration", float(risk), *rest, None) for risk, *rest in zip(along, *finite, strict=True)
    ]
