"""The figures of a page, each as SVG and PNG."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from medbert_jax.drawn_figures import COLOURS, DASHES, new_figure, png_of, svg_of
from medbert_jax.evaluation.evaluate import EVERYONE
from medbert_jax.evaluation.figures import FIGURE, MODEL_DIFFERENCE
from medbert_jax.evaluation.stored_evaluation import Evaluation
from medbert_jax.reporting.learning import LearningCurve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = len(COLOURS)
"""Models in one figure."""
_WIDTH = 5.2  # inches


@dataclass(frozen=True)
class DrawnFigure:
    """One figure: what its files are called, what it shows in words, and its two forms."""

    slug: str
    title: str
    words: str
    """For those who cannot see it, and for its caption."""
    svg: str
    png: bytes


def draw(evaluation: Evaluation, models: Sequence[str], learning: LearningCurve | None) -> Iterator[DrawnFigure]:
    """The figures that the evaluation has points for, the first of `models` before all others."""
    curves = evaluation.curves.filter(stratum=EVERYONE)
    shown = [name for name in models if name in set(curves["model"])][:MOST]
    n = _sample_words(evaluation)
    of_curves: dict[str, list[tuple[str, pl.DataFrame]]] = {
        kind: [(name, curves.filter(curve=kind, model=name).drop_nulls("y")) for name in shown]
        for kind in ("roc", "precision_recall", "calibration", "decision", "histogram")
    }
    of_curves = {kind: [(name, of) for name, of in lines if len(of) > 1] for kind, lines in of_curves.items()}
    auroc = dict(_labels(evaluation, "auroc"))
    # Between its two ends a shared curve may have no point.
    if lines := [(name, of) for name, of in of_curves["roc"] if len(of) > 2]:
        words = "True positives among cases against false positives among controls, over all thresholds."
        yield _figure("roc", "ROC curve", words + n, lambda axes: _roc(axes, lines, auroc))
    if lines := of_curves["precision_recall"]:
        words = "Share of cases among the flagged (precision) against share of cases that are flagged (recall)."
        share = _share_of_cases(curves, evaluation)
        yield _figure(
            "precision-recall", "Precision and recall", words + n, lambda axes: _precision(axes, lines, share)
        )
    if lines := of_curves["calibration"]:
        words = (
            f"Observed against predicted risk, smoothed, with the 95 % interval of {lines[0][0]}; below, how its"
            " predicted risks are distributed."
        )
        bars = dict(of_curves["histogram"]).get(lines[0][0])
        yield _figure("calibration", "Calibration", words + n, lambda axes: _calibration(axes, lines), below=bars)
    if lines := of_curves["decision"]:
        words = "Net benefit against the risk at which somebody would act, beside flagging all and flagging nobody."
        every = curves.filter(curve="decision_all", model=shown[0]).sort("x")
        yield _figure("decision", "Decision curve", words + n, lambda axes: _decision(axes, lines, every))
    if rows := _forest_rows(evaluation, models[0]):
        words = f"AUROC of {models[0]} within groups, with 95 % intervals; groups are judged on what was known."
        yield _figure("groups", "AUROC by group", words, lambda axes: _forest(axes, rows, "AUROC"), tall=len(rows))
    if rows := _difference_rows(evaluation, models):
        words = f"AUROC of {models[0]} minus that of the others, paired by patient, with 95 % intervals."
        name = "AUROC difference"
        yield _figure(
            "differences",
            "Paired differences",
            words + n,
            lambda axes: _forest(axes, rows, name, zero=0),
            tall=len(rows),
        )
    if learning is not None:
        words = f"Test {learning.name} by number of training patients: mean over replicates, and their range."
        yield _figure("learning", "Learning curves", words, lambda axes: _learning(axes, learning))


def _figure(
    slug: str, title: str, words: str, draw_on: Callable[[Any], None], *, below: Any = None, tall: int = 0
) -> DrawnFigure:
    height = 0.9 + 0.28 * tall if tall else 4.4
    with new_figure(_WIDTH, height) as figure:
        if below is None:
            axes = figure.subplots()
        else:
            axes, under = figure.subplots(2, 1, height_ratios=(4, 1), sharex=True)
            _histogram(under, below)
        draw_on(axes)
        svg = svg_of(figure, title)
        return DrawnFigure(slug, title, words, svg, png_of(figure))


def _line(place: int) -> dict:
    return {"color": COLOURS[place], "linestyle": DASHES[place], "linewidth": 2.2 if place == 0 else 1.3}


def _roc(axes: "Axes", lines: Sequence[tuple[str, pl.DataFrame]], labels: dict[str, str]) -> None:
    axes.plot([0, 1], [0, 1], color="#8a949b", linewidth=0.8)
    for place, (name, of) in enumerate(lines):
        of = of.sort("x", "y")
        axes.plot(of["x"], of["y"], label=f"{name}: {labels.get(name, '')}", **_line(place))
    axes.set(
        xlabel="1 − specificity (false positives among controls)", ylabel="sensitivity (true positives among cases)"
    )
    _unit(axes)
    axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.14))


def _precision(axes: "Axes", lines: Sequence[tuple[str, pl.DataFrame]], share: float | None) -> None:
    for place, (name, of) in enumerate(lines):
        of = of.sort("x", "y", descending=[False, True])
        axes.plot(of["x"], of["y"], label=name, **_line(place))
    if share is not None:
        axes.axhline(share, color="#8a949b", linewidth=0.8, label=f"share of cases: {share:.3f}")
    axes.set(xlabel="recall (sensitivity)", ylabel="precision (positive predictive value)")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.14))


def _calibration(axes: "Axes", lines: Sequence[tuple[str, pl.DataFrame]]) -> None:
    top = max(0.05, *(of["x"].to_numpy().max() for _, of in lines), *(np.nanmax(of["y"].to_numpy()) for _, of in lines))
    axes.plot([0, 1], [0, 1], color="#8a949b", linewidth=0.8, label="perfect")
    for place, (name, of) in enumerate(lines):
        of = of.sort("x")
        axes.plot(of["x"], of["y"], label=name, **_line(place))
        if place == 0 and of["low"].null_count() < len(of):
            axes.fill_between(of["x"], of["low"], of["high"], color=COLOURS[0], alpha=0.15, linewidth=0)
    axes.set(ylabel="observed rate (smooth)", xlim=(0, top), ylim=(0, top))
    axes.legend(loc="best")


def _histogram(axes: "Axes", of: pl.DataFrame) -> None:
    of = of.sort("x")
    edges = [*of["x"], 1.0]
    widths = [two - one for one, two in itertools.pairwise(edges)]
    heights = [share / width * 0.02 if width else 0 for share, width in zip(of["y"], widths, strict=True)]
    axes.bar(edges[:-1], heights, widths, align="edge", color=COLOURS[0], edgecolor="white", linewidth=0.3)
    axes.set(xlabel="predicted risk", ylabel="share of\npatients per 0.02")


def _decision(axes: "Axes", lines: Sequence[tuple[str, pl.DataFrame]], every: pl.DataFrame) -> None:
    axes.axhline(0, color="#1d2327", linewidth=1, label="flag nobody")
    axes.plot(every["x"], every["y"], color="#8a949b", linewidth=1.2, label="flag all")
    best = max([0.01, *(np.nanmax(of["y"].to_numpy()) for _, of in lines), np.nanmax(every["y"].to_numpy())])
    for place, (name, of) in enumerate(lines):
        of = of.sort("x")
        axes.plot(of["x"], of["y"], label=name, **_line(place))
    axes.set(xlabel="risk at which somebody would act", ylabel="net benefit (true positives per patient)")
    axes.set(xlim=(0, 0.5), ylim=(-0.4 * best, 1.08 * best))
    axes.legend(loc="upper right")


def _forest(axes: "Axes", rows: Sequence[tuple], measure: str, *, zero: float | None = None) -> None:
    places = range(len(rows), 0, -1)
    for place, (_, value, low, high) in zip(places, rows, strict=True):
        if low is not None:
            axes.plot([low, high], [place, place], color=COLOURS[0], linewidth=1.4)
        axes.plot([value], [place], marker="s", color=COLOURS[0], markersize=4.5)
    axes.set(yticks=list(places), yticklabels=[name for name, *_ in rows], xlabel=f"{measure}, 95 % interval")
    axes.set_ylim(0.4, len(rows) + 0.6)
    axes.axvline(rows[0][1] if zero is None else zero, color="#8a949b", linewidth=0.8, linestyle="--")


def _learning(axes: "Axes", learning: LearningCurve) -> None:
    for place, (name, points) in enumerate(learning.lines[:MOST]):
        sizes, means, low, high = zip(*points, strict=True)
        axes.plot(sizes, means, label=name, marker="o", markersize=3.5, **_line(place))
        axes.vlines(sizes, low, high, color=COLOURS[place], linewidth=1)
    axes.set_xscale("log")
    ticks = sorted({size for _, points in learning.lines for size, *_ in points})
    axes.set_xticks(ticks, [f"{size:,}" for size in ticks])
    axes.minorticks_off()
    axes.set(xlabel="training patients (logarithmic)", ylabel=f"test {learning.name}")
    axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.14))


def _unit(axes: "Axes") -> None:
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")


def _sample_words(evaluation: Evaluation) -> str:
    counts = evaluation.about["counts"]
    if not counts:
        return ""
    tested = counts["cases"] + counts["controls"]
    of = f"predictions of {counts['subjects']:,} patients" if evaluation.is_clustered else "patients"
    return f" n = {tested:,} test {of}, {counts['cases']:,} cases."


def _labels(evaluation: Evaluation, metric: str) -> Iterator[tuple[str, str]]:
    rows = evaluation.figures.filter(kind=FIGURE, stratum=EVERYONE, metric=metric)
    for name, value, low, high in rows.select("model", "value", "low", "high").iter_rows():
        if value is not None:
            yield name, f"{value:.3f}" + (f" [{low:.3f}, {high:.3f}]" if low is not None else "")


def _share_of_cases(curves: pl.DataFrame, evaluation: Evaluation) -> float | None:
    """Of a weighted sample, its own; None where counts are hidden."""
    counts = evaluation.about["counts"]
    if not counts or evaluation.about["weighted"]:
        return None
    return counts["cases"] / (counts["cases"] + counts["controls"])


def _forest_rows(evaluation: Evaluation, model: str) -> list[tuple]:
    auroc = evaluation.figures.filter(kind=FIGURE, model=model, metric="auroc").drop_nulls("value")
    rows = []
    for stratum, value, low, high, n, cases in auroc.select(
        "stratum", "value", "low", "high", "n", "cases"
    ).iter_rows():
        counted = "n hidden" if n is None else f"n = {n:,}, {cases:,} cases"
        rows.append((f"{stratum} ({counted})", value, low, high))
    return rows if len(rows) > 1 else []


def _difference_rows(evaluation: Evaluation, models: Sequence[str]) -> list[tuple]:
    """The first of the models minus each other: what is stored is the other way round."""
    rows = evaluation.figures.filter(kind=MODEL_DIFFERENCE, metric="auroc", reference=models[0]).drop_nulls("value")
    found = {
        name: (f"− {name}", -value, None if high is None else -high, None if low is None else -low)
        for name, value, low, high in rows.select("model", "value", "low", "high").iter_rows()
    }
    return [found[name] for name in models if name in found]
