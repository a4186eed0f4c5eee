"""An evaluation as it is printed: figures, thresholds, differences, groups; what the design allows under the first."""

from collections.abc import Iterator

import polars as pl

from medbert_jax.evaluation.figures import BOUND, EVERYONE, FIGURE, GROUP_DIFFERENCE, MODEL_DIFFERENCE
from medbert_jax.evaluation.stored_evaluation import Evaluation
from medbert_jax.printed_tables import Table

NAMES = {
    "auroc": "AUROC",
    "concordance_within_sets": "concordance within sets",
    "average_precision": "AUPRC",
    "brier": "Brier",
    "scaled_brier": "scaled Brier",
    "observed_to_expected": "observed / expected",
    "calibration_in_the_large": "calibration in the large",
    "calibration_slope": "calibration slope",
    "ici": "ICI",
    "e50": "E50",
    "e90": "E90",
    "quantile_calibration_error": "ECE, tenths of patients",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "flagged": "flagged",
    "net_benefit": "net benefit",
    "net_benefit_over_all": "net benefit over flagging all",
    "sensitivity_at_specificity": "sensitivity at specificity",
}
"""Metric → what it is called; in this order."""
MISSING = "–"


def evaluation_tables(evaluation: Evaluation) -> list[Table]:
    """The tables that have rows."""
    figures = evaluation.figures.with_columns(
        text=pl.struct(pl.all()).map_elements(_cell, return_dtype=pl.String), order=_order()
    )
    models = figures.filter(kind=FIGURE)["model"].unique(maintain_order=True).to_list()
    everyone = figures.filter(pl.col("kind") == FIGURE, pl.col("stratum") == EVERYONE)
    at_none = everyone.filter(pl.col("at").is_null())
    tables = [
        _table(f"{evaluation.about['cohort']}: evaluation", at_none, models, _notes(evaluation)),
        _table("At thresholds", everyone.filter(pl.col("at").is_not_null()), models, ()),
        _table("Best and worst case of the censored", figures.filter(kind=BOUND), models, ()),
        _differences(figures.filter(kind=MODEL_DIFFERENCE), evaluation.about["reference"]),
        *_groups(figures, models),
    ]
    return [table for table in tables if table.rows]


def _order() -> pl.Expr:
    return pl.col("metric").replace_strict(list(NAMES), range(len(NAMES)), default=len(NAMES), return_dtype=pl.Int64)


def _cell(row: dict) -> str:
    signed = row["kind"] in (MODEL_DIFFERENCE, GROUP_DIFFERENCE)
    value, low, high = (_number(row[name], signed) for name in ("value", "low", "high"))
    if row["kind"] == BOUND:
        return f"{low} to {high}"
    return value if low == MISSING else f"{value} [{low}, {high}]"


def _number(value: float | None, signed: bool) -> str:
    if value is None:
        return MISSING
    decimals = 4 if 0 < abs(value) < 0.1 else 3
    text = f"{value:+z.{decimals}f}" if signed else f"{value:z.{decimals}f}"
    return text.replace("-", "−")


def _row_name(metric: str, at: float | None) -> str:
    name = NAMES.get(metric, metric)
    if at is None:
        return name
    return f"{name} {at:g}" if metric == "sensitivity_at_specificity" else f"at risk {at:g}: {name}"


def _table(title: str, rows: pl.DataFrame, models: list[str], notes: tuple[str, ...]) -> Table:
    """Rows metrics, columns models."""
    cells: dict[tuple, dict[str, str]] = {}
    for metric, at, model, text in (
        rows.sort("at", "order", nulls_last=True).select("metric", "at", "model", "text").rows()
    ):
        cells.setdefault((metric, at), {})[model] = text
    return Table(
        title=title,
        columns=("", *models),
        rows=tuple((_row_name(*key), *(of.get(model, MISSING) for model in models)) for key, of in cells.items()),
        alignment="<" + ">" * len(models),
        notes=notes,
    )


def _differences(rows: pl.DataFrame, reference: str) -> Table:
    columns = ("model", "metric", "at", "text", "p", "p_holm", "how")
    return Table(
        title=f"Differences to {reference}, paired by patient",
        columns=("model", "", "difference", "p", "p (Holm)", "test"),
        rows=tuple(
            (model, _row_name(metric, at), text, _p(p), _p(holm), how)
            for model, metric, at, text, p, holm, how in rows.select(columns).iter_rows()
        ),
        alignment="<<>>><",
        notes=("Holm: within the tests of one metric. 95 % intervals are of each difference alone.",),
    )


def _count(count: int | None) -> str:
    return "hidden" if count is None else f"{count:,}"


def _p(p: float | None) -> str:
    return MISSING if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def _groups(figures: pl.DataFrame, models: list[str]) -> Iterator[Table]:
    """AUROC by group, and its difference to the largest level."""
    auroc = pl.col("metric") == "auroc"
    inside = figures.filter(auroc, pl.col("kind") == FIGURE, pl.col("stratum") != EVERYONE)
    gaps = figures.filter(auroc, pl.col("kind") == GROUP_DIFFERENCE)
    for title, rows in (("AUROC by group", inside), ("AUROC, less that of the largest level", gaps)):
        cells: dict[tuple, dict[str, str]] = {}
        for stratum, n, cases, model, text in rows.select("stratum", "n", "cases", "model", "text").iter_rows():
            cells.setdefault((stratum, *map(_count, (n, cases))), {})[model] = text
        yield Table(
            title=title,
            columns=("group", "patients", "cases", *models),
            rows=tuple((*key, *(of.get(model, MISSING) for model in models)) for key, of in cells.items()),
            alignment="<>>" + ">" * len(models),
        )


def _notes(evaluation: Evaluation) -> tuple[str, ...]:
    about, counts = evaluation.about, evaluation.about["counts"]
    design = about["design"]
    horizon = f" within {design['horizon_days']} days" if design["horizon_days"] is not None else ""
    estimand = {
        "risk": f"Estimand: a risk{horizon}; index and horizon exist without knowing the outcome",
        "score": f"Estimand: a score{horizon}, and no risk: the index is known only once the outcome is",
        "as labelled": "Estimand: as the labels are made",
    }[design["estimand"]]
    tested = "Counts hidden"
    if counts:
        rows, subjects = counts["rows"], counts["subjects"]
        several = f" of {subjects:,} subjects" * (subjects < rows)
        tested = f"{rows:,} rows{several}: {counts['cases']:,} cases, {counts['controls']:,} controls,"
        tested += f" {counts['censored']:,} censored"
    return (
        f"{tested}. Sampling: {design['sampling']}{', weighted' * about['weighted']}"
        f"{', clustered by patient' * evaluation.is_clustered}. {estimand}.",
        f"{100 * about['confidence']:g} % intervals: {_ways(evaluation)}; {about['draws']:,} draws of"
        f" {about['resampled']}, the same for all models.",
        *(f"{line[0].upper()}{line[1:]}." for line in about["said"]),
    )


def _ways(evaluation: Evaluation) -> str:
    auroc = evaluation.figures.filter(kind=FIGURE, metric="auroc", stratum=EVERYONE)["how"].unique(maintain_order=True)
    return f"AUROC by {', '.join(auroc)}, all else by percentiles of the bootstrap"
