"""Fig. 4 as SVG: a panel for each base with bands over replicates, and the gain by training size."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from medbert_jax.drawn_figures import COLOURS, DASHES, new_figure, svg_of
from medbert_jax.replication.paper import BASE, BASES, MED_BERT, ONLY, REGRESSION, UNTRAINED, VECTORS, Row
from medbert_jax.replication.sizes import PAIRS, Point, curve, gains
from medbert_jax.replication.study import Study, TestedCohort

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH = 5.2  # inches, as of a report's figures: still legible where a page is narrow
_PLAIN, _VECTORS, _OURS, _LR = "without pretraining", "t-W2V", "Med-BERT", "logistic regression"
_STYLES: dict[str, dict[str, Any]] = {
    _OURS: {"color": COLOURS[0], "linestyle": DASHES[0], "linewidth": 2.0, "marker": "o"},
    _PLAIN: {"color": COLOURS[1], "linestyle": DASHES[1], "linewidth": 1.4, "marker": "s"},
    _VECTORS: {"color": COLOURS[2], "linestyle": DASHES[2], "linewidth": 1.4, "marker": "^"},
    _LR: {"color": COLOURS[6], "linestyle": DASHES[3], "linewidth": 1.2, "marker": ""},
}
_PANELS: dict[str, dict[str, Row]] = {
    name: {_OURS: (MED_BERT, head), _PLAIN: (BASE, head), _VECTORS: (VECTORS, head), _LR: REGRESSION}
    for head, name in BASES.items()
} | {"Med-BERT only (FFL)": {_OURS: ONLY, _PLAIN: UNTRAINED, _LR: REGRESSION}}


@dataclass(frozen=True)
class Figure:
    """One figure of a cohort."""

    file: str
    """Name of the SVG."""
    words: str
    """For its caption, and for those who cannot see it."""
    draw: Callable[[], str]
    """Gives the SVG; drawing takes a second."""


def figures(study: Study) -> Iterator[Figure]:
    """Of every cohort with several training sizes."""
    for cohort in study.cohorts:
        if len(cohort.sizes(study.experiment)) > 1:
            yield from _of_cohort(study, cohort)


def _of_cohort(study: Study, cohort: TestedCohort) -> Iterator[Figure]:
    slug = re.sub(r"[^a-z0-9]+", "-", cohort.title.lower()).strip("-")
    panels = {
        base: {name: points for name, row in of.items() if len(points := curve(study, cohort, row)) > 1}
        for base, of in _PANELS.items()
    }
    panels = {base: lines for base, lines in panels.items() if lines.keys() & {_OURS, _PLAIN}}
    if panels:
        words = f"Test AUROC by training patients, {cohort.title}: mean and range over replicates"
        yield Figure(f"fig4-{slug}.svg", words, partial(_curves, panels, words))
    of_base = {base: found for base in PAIRS if (found := gains(study, cohort, base))}
    if of_base:
        words = f"AUROC that Med-BERT adds to each base, {cohort.title}: 95 % intervals, patients and replicates drawn"
        yield Figure(f"gain-{slug}.svg", words, partial(_gains, of_base, words))


def _curves(panels: dict[str, dict[str, list[Point]]], title: str) -> str:
    lines = -(-len(panels) // 2)
    with new_figure(_WIDTH, 0.7 + 2.3 * lines) as figure:
        grid = figure.subplots(lines, 2, sharex=True, sharey=True, squeeze=False)
        figure.set_layout_engine(
            "constrained", wspace=0.08
        )  # the last size of a panel stands beside the first of the next
        shown: dict[str, Any] = {}
        for axes, (base, of) in zip(grid.flat, panels.items(), strict=False):
            for name, points in of.items():
                shown.setdefault(name, _line(axes, name, points))
            axes.set_title(base, fontsize=9)
            _sizes(axes, [point.patients for points in of.values() for point in points])
        for axes in list(grid.flat)[len(panels) :]:
            axes.set_visible(False)
        figure.supxlabel("training patients (logarithmic)", fontsize=9)
        figure.supylabel("test AUROC", fontsize=9)
        order = [name for name in _STYLES if name in shown]
        figure.legend([shown[name] for name in order], order, loc="outside upper center", ncols=2)
        return svg_of(figure, title)


def _line(axes: "Axes", name: str, points: list[Point]):
    """Draw a line with its band; the line, for the legend."""
    style = _STYLES[name]
    sizes = [point.patients for point in points]
    low, high = [point.lowest for point in points], [point.highest for point in points]
    axes.fill_between(sizes, low, high, color=style["color"], alpha=0.15, linewidth=0)
    (line,) = axes.plot(sizes, [point.mean for point in points], markersize=3.5, **style)
    return line


def _gains(of_base: dict, title: str) -> str:
    with new_figure(_WIDTH, 3.6) as figure:
        axes = figure.subplots()
        axes.axhline(0, color="#8a949b", linewidth=0.8)
        for place, (base, found) in enumerate(of_base.items()):
            shift = 1.06 ** (place - (len(of_base) - 1) / 2)  # side by side, so that none hides another
            sizes = [size * shift for _, size, _ in found]
            values = [gain.value for *_, gain in found]
            colour = COLOURS[place]
            axes.plot(sizes, values, DASHES[place], color=colour, marker="osD^"[place], markersize=4, linewidth=0.8,
                      label=base)  # fmt: skip
            axes.vlines(sizes, [gain.low for *_, gain in found], [gain.high for *_, gain in found], color=colour,
                        linewidth=1.4)  # fmt: skip
        _sizes(axes, [size for found in of_base.values() for _, size, _ in found])
        axes.set(xlabel="training patients (logarithmic)", ylabel="AUROC gained")
        figure.legend(loc="outside upper center", ncols=4)
        return svg_of(figure, title)


def _sizes(axes: "Axes", patients: list[int]) -> None:
    ticks = sorted(set(patients))
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{size:,}" for size in ticks])
    axes.minorticks_off()
