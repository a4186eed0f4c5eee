"""The timeline of a chart: lanes of SVG whose places are percentages, so that words keep their size on a phone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources

from medbert_jax.description.chart import AGAIN, Annotation, Chart, Entry, Visit, day_words

_LANE, _EDGE = 24, 3.0  # px, the least height; percent that stays free on either side
_ROW, _DOTS = 9, 14  # px; at most so many dots in a column
_SHAPES = {
    "inpatient": "M-5-5H5V5H-5Z",
    "emergency": "M0-6L6 5H-6Z",
    "outpatient": "M-4.5 0A4.5 4.5 0 1 1 4.5 0A4.5 4.5 0 1 1-4.5 0Z",
}
_OTHER_SHAPE = "M0-6L6 0L0 6L-6 0Z"
_EVIDENCE = "M-4 0A4 4 0 1 1 4 0A4 4 0 1 1-4 0Z"
_NAMED = 12  # days in the words that a lane has for a screen reader
_KINDS = {True: "read", False: "after", None: ""}


@dataclass(frozen=True)
class Lane:
    """What stands on a line of its own below the visits: its words, smaller ones, and the entries."""

    words: str
    small: str
    entries: tuple[Entry, ...]


def timeline(chart: Chart, lanes: Sequence[Lane] = (), *, by_code: bool = False) -> str:
    """The chart as HTML: what its annotations say, its visits, the lanes, and the axis.

    A visit is one mark, filled where it may be read; `by_code`: a column of dots instead, one for each of its codes,
    filled where no earlier visit has it.
    """
    if not chart.visits:
        return '<p class="soft">No encounter in the record.</p>'
    scale = _Scale(chart, lanes)
    rows = [("", scale.captions()), ("" if by_code else "Encounters", (_codes if by_code else _visits)(chart, scale))]
    rows += [(f"{escape(lane.words)}<small>{escape(lane.small)}</small>", _lane(lane, scale)) for lane in lanes]
    rows.append(("", scale.axis()))
    inside = "".join(f'<div class="label">{label}</div><div class="lane">{svg}</div>' for label, svg in rows)
    return f'<div class="timeline{" by-code" * by_code}">{inside}</div>'


def timeline_style() -> str:
    """The style sheet that the timeline needs: its colours, for light and dark, and those of the page around it."""
    return resources.files("medbert_jax.description").joinpath("chart_timeline.css").read_text("utf-8")


class _Scale:
    """Day (or, where a visit has none, number of the visit) → percent of the width."""

    def __init__(self, chart: Chart, lanes: Sequence[Lane]):
        self.chart = chart
        placed = [(one, self.place(one)) for one in chart.annotations]
        self.annotations = [(one, at) for one, at in placed if at is not None]
        ends = [*map(self.at, chart.visits), *(at for _, at in self.annotations)]
        if chart.by_day:
            ends += [self.at(visit) + max(visit.stay or 0, 0) for visit in chart.visits]
            ends += [entry.day for lane in lanes for entry in lane.entries if entry.day is not None]
        self.first, self.last = min(ends), max(ends)

    def at(self, visit: Visit) -> float:
        return visit.order if visit.day is None or not self.chart.by_day else visit.day

    def place(self, one: Entry | Annotation) -> float | None:
        return one.day if self.chart.by_day else one.visit

    def words(self, one: Annotation, at: float) -> str:
        """As "index, day 0" or "input ends, after encounter 4"."""
        if self.chart.by_day:
            return f"{one.text}, {day_words(one.day)}"
        return f"{one.text}, {'after ' * (at % 1 > 0)}encounter {math.floor(at)}"

    def x(self, place: float) -> float:
        return _EDGE + (100 - 2 * _EDGE) * (place - self.first) / max(self.last - self.first, 1)

    def lines(self) -> str:
        """What stands behind every lane: what comes after the input in grey, its end, and the index."""
        marks, kinds = [], ("cut", "risk", "death", "index")
        for one, at in sorted(self.annotations, key=lambda placed: kinds.index(placed[0].kind)):
            x = self.x(at)
            if one.kind == "cut":
                marks.append(f'<rect class="beyond" x="{x:.2f}%" width="{max(100 - x, 0):.2f}%" height="100%"/>')
            if one.kind != "death":
                marks.append(f'<line class="{one.kind}" x1="{x:.2f}%" x2="{x:.2f}%" y2="100%"/>')
        return "".join(marks)

    def captions(self) -> str:
        said = [(one.kind, self.words(one, at), self.x(at)) for one, at in self.annotations if one.kind != "death"]
        texts = []
        for number, (kind, words, x) in enumerate(said):
            side, shift = ("right", 5) if x < 50 else ("left", -5)
            at = f'x="{x:.2f}%" dx="{shift}" y="{12 + 14 * number}"'
            texts.append(f'<text class="at-{kind} {side}" {at}>{escape(words)}</text>')
        label = "; ".join(words for _, words, _ in said) or "no index"
        return _svg(self.lines() + "".join(texts), label, height=14 * len(said) + 4)

    def axis(self) -> str:
        marks = [f'<line class="axis" x1="{_EDGE}%" x2="{100 - _EDGE}%" y1="1" y2="1"/>']
        for number, tick in enumerate(_ticks(self.first, self.last)):
            x, kind = f"{self.x(tick):.2f}%", ' class="minor"' if number % 2 else ""
            words = f"{tick:,}".replace("-", "−")
            marks.append(
                f'<g{kind}><line class="axis" x1="{x}" x2="{x}" y2="5"/><text x="{x}" y="17">{words}</text></g>'
            )
        unit = "days from the index" if self.chart.from_index else "days from the first encounter"
        unit = unit if self.chart.by_day else "encounters; not all days are known"
        marks.append(f'<text class="unit" x="{100 - _EDGE}%" y="31">{unit}</text>')
        return _svg("".join(marks), unit, height=34)

    def stay(self, visit: Visit, y: float, height: int) -> str:
        """The bar of a visit's days, where it has some and the axis is days."""
        stay = visit.stay or 0
        if not self.chart.by_day or stay <= 0:
            return ""
        x = self.x(self.at(visit))
        width = self.x(self.at(visit) + stay) - x
        return f'<rect class="stay" x="{x:.2f}%" y="{y}" width="{width:.2f}%" height="{height}"/>'


def _visits(chart: Chart, scale: _Scale) -> str:
    marks = []
    for visit in chart.visits:
        words = f"{day_words(visit.day)}: {visit.words}{', index' * visit.is_index}"
        shape = _mark(scale.x(scale.at(visit)), _SHAPES.get(visit.type or "", _OTHER_SHAPE))
        inside = f"<title>{escape(words)}</title>{scale.stay(visit, _LANE / 2 - 2.5, 5)}{shape}"
        marks.append(f'<g class="{_KINDS[visit.is_read]}">{inside}</g>')
    for one, at in scale.annotations:
        if one.kind == "death":
            place = f'x="{scale.x(at):.2f}%" y="17"'
            marks.append(f'<text class="death" {place}><title>{escape(scale.words(one, at))}</title>†</text>')
    named = "; ".join(f"{day_words(visit.day)} {visit.words}" for visit in chart.visits[:_NAMED])
    return _svg(scale.lines() + "".join(marks), f"{len(chart.visits)} encounters: {named}")


def _codes(chart: Chart, scale: _Scale) -> str:
    base = _ROW * (max(min(len(visit.codes), _DOTS + 1) for visit in chart.visits) + 1)
    marks = []
    for visit in chart.visits:
        x = f"{scale.x(scale.at(visit)):.2f}%"
        inside = [f"<title>{escape(visit.heading)}: {len(visit.codes)} codes</title>", scale.stay(visit, base - 2, 4)]
        for number, code in enumerate(visit.codes[:_DOTS], start=1):
            kind = "again" if AGAIN in code.marks else "new"
            inside.append(f'<circle class="{kind}" cx="{x}" cy="{base - _ROW * number}" r="3.2"/>')
        if len(visit.codes) > _DOTS:
            inside.append(f'<text x="{x}" y="{base - _ROW * (_DOTS + 1) + 3}">+{len(visit.codes) - _DOTS}</text>')
        marks.append(f"<g>{''.join(inside)}</g>")
    label = f"{chart.name}: {sum(len(visit.codes) for visit in chart.visits)} codes in {len(chart.visits)} visits"
    return _svg(scale.lines() + "".join(marks), label, height=base + 2)


def _lane(lane: Lane, scale: _Scale) -> str:
    after: dict[float, bool] = {}
    for entry in lane.entries:
        place = scale.place(entry)
        if place is not None:
            after[place] = after.get(place, True) and entry.is_after
    unit = "day" if scale.chart.by_day else "encounter"
    marks = [
        f'<g class="{"after" if after[place] else "read"} evidence"><title>{unit} {place}</title>'
        f"{_mark(scale.x(place), _EVIDENCE)}</g>"
        for place in sorted(after)
    ]
    named = f"{lane.words}: {unit} {', '.join(str(place) for place in sorted(after)[:_NAMED])}"
    return _svg(scale.lines() + "".join(marks), named)


def _mark(x: float, shape: str) -> str:
    return f'<svg x="{x:.2f}%" y="{_LANE / 2:g}" overflow="visible"><path d="{shape}"/></svg>'


def _svg(inside: str, label: str, *, height: int | None = None) -> str:
    """As high as its row, or of that height."""
    size = f'height="{height}"' if height else 'height="100%" class="whole"'
    return f'<svg width="100%" {size} role="img" aria-label="{escape(label)}">{inside}</svg>'


def _ticks(first: float, last: float) -> list[int]:
    """At most eight round numbers from first to last."""
    steps = (factor * 10**power for power in range(7) for factor in (1, 2, 5))
    step = next(step for step in steps if (last - first) / step <= 7)
    return list(range(math.ceil(first / step) * step, math.floor(last) + 1, step))
