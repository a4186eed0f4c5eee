"""The timeline of a chart: lanes of SVG whose places are percentages, so that words keep their size on a phone."""

import math
from collections.abc import Iterable
from html import escape

from medbert_jax.cohorts.charts import Chart, Entry, Visit
from medbert_jax.cohorts.counts import Events, Visits
from medbert_jax.cohorts.spec import CohortSpec
from medbert_jax.visualization.rule_words import day, visit_words, what

_LANE, _EDGE = 24, 3.0  # px, the least height; percent that stays free on either side
_SHAPES = {
    "inpatient": "M-5-5H5V5H-5Z",
    "emergency": "M0-6L6 5H-6Z",
    "outpatient": "M-4.5 0A4.5 4.5 0 1 1 4.5 0A4.5 4.5 0 1 1-4.5 0Z",
}
_OTHER_SHAPE = "M0-6L6 0L0 6L-6 0Z"
_EVIDENCE = "M-4 0A4 4 0 1 1 4 0A4 4 0 1 1-4 0Z"
_NAMED = 12  # days in the words that a lane has for a screen reader


def timeline(chart: Chart, spec: CohortSpec) -> str:
    """The lanes as HTML: visits, one lane for everything that rules looked for and found, and the days."""
    if not chart.visits:
        return '<p class="soft">No encounter in the record.</p>'
    scale = _Scale(chart, spec)
    rows = [("", scale.captions()), ("Encounters", _visits(chart, scale))]
    for words, rules, evidence in _lanes(chart, spec):
        said = f"{escape(words)}<small>{escape(', '.join(rules))}</small>"
        rows.append((said, _lane(words, evidence, scale)))
    rows.append(("", scale.axis()))
    lanes = "".join(f'<div class="label">{label}</div><div class="lane">{svg}</div>' for label, svg in rows)
    return f'<div class="timeline">{lanes}</div>'


class _Scale:
    """Day (or, where a visit has none, number of the visit) → percent of the width."""

    def __init__(self, chart: Chart, spec: CohortSpec):
        self.by_day = all(visit.day is not None for visit in chart.visits)
        self.chart, places = chart, [self.visit(visit) for visit in chart.visits]
        self.index = next((self.visit(visit) for visit in chart.visits if visit.is_index), None)
        self.cut = chart.cut
        if not self.by_day:
            self.cut = None if chart.read_until is None else chart.read_until + 0.5
        elif chart.from_index:
            self.index = 0
        ahead = self.by_day and spec.outcome.is_ahead and self.cut is not None
        self.risk_ends = self.cut + spec.outcome.to_day if ahead else None
        death = chart.death if self.by_day else None
        ends = [place for place in (self.index, self.cut, self.risk_ends, death) if place is not None]
        if self.by_day:
            ends += [place + max(visit.stay or 0, 0) for place, visit in zip(places, chart.visits, strict=True)]
            ends += [
                one.day for said in chart.rules for part in said.parts for one in part.evidence if one.day is not None
            ]
        self.first, self.last = min([*places, *ends]), max([*places, *ends])

    def visit(self, visit: Visit) -> int:
        return visit.day if self.by_day else visit.order

    def entry(self, entry: Entry) -> int | None:
        return entry.day if self.by_day else entry.visit

    def x(self, place: float) -> float:
        return _EDGE + (100 - 2 * _EDGE) * (place - self.first) / max(self.last - self.first, 1)

    def lines(self) -> str:
        """What stands behind every lane: what comes after the input in grey, its end, and the index."""
        marks = ""
        if self.cut is not None:
            x = self.x(self.cut)
            marks += f'<rect class="beyond" x="{x:.2f}%" width="{max(100 - x, 0):.2f}%" height="100%"/>'
            marks += f'<line class="cut" x1="{x:.2f}%" x2="{x:.2f}%" y2="100%"/>'
        for kind, place in (("risk", self.risk_ends), ("index", self.index)):
            if place is not None:
                marks += f'<line class="{kind}" x1="{self.x(place):.2f}%" x2="{self.x(place):.2f}%" y2="100%"/>'
        return marks

    def captions(self) -> str:
        unit = "day" if self.by_day else "encounter"
        words = []
        if self.index is not None:
            words.append((self.index, "at-index", f"index, {unit} {self.index}"))
        if self.cut is not None:
            at = f"{day(self.chart.cut)}" if self.by_day else f"after encounter {self.chart.read_until}"
            words.append((self.cut, "at-cut", f"input ends, {at}"))
        if self.risk_ends is not None:
            words.append((self.risk_ends, "at-risk", f"time at risk ends, {day(self.risk_ends)}"))
        texts = []
        for number, (place, kind, text) in enumerate(words):
            right = self.x(place) < 50
            kind, shift = f"{kind} {'right' if right else 'left'}", 5 if right else -5
            texts.append(
                f'<text class="{kind}" x="{self.x(place):.2f}%" dx="{shift}" y="{12 + 14 * number}">{text}</text>'
            )
        label = "; ".join(text for *_, text in words) or "no index"
        return _svg(self.lines() + "".join(texts), label, height=14 * len(words) + 4)

    def axis(self) -> str:
        marks = [f'<line class="axis" x1="{_EDGE}%" x2="{100 - _EDGE}%" y1="1" y2="1"/>']
        for number, tick in enumerate(_ticks(self.first, self.last)):
            x, kind = f"{self.x(tick):.2f}%", ' class="minor"' if number % 2 else ""
            words = f"{tick:,}".replace("-", "−")
            marks.append(
                f'<g{kind}><line class="axis" x1="{x}" x2="{x}" y2="5"/><text x="{x}" y="17">{words}</text></g>'
            )
        unit = "days from the index" if self.chart.from_index else "days from the first encounter"
        unit = unit if self.by_day else "encounters; not all days are known"
        marks.append(f'<text class="unit" x="{100 - _EDGE}%" y="31">{unit}</text>')
        return _svg("".join(marks), unit, height=34)


def _visits(chart: Chart, scale: _Scale) -> str:
    marks, middle = [], _LANE / 2
    for visit in chart.visits:
        x, kind = (
            scale.x(scale.visit(visit)),
            "read" if visit.is_read else "after" if chart.read_until is not None else "",
        )
        stay = max(visit.stay or 0, 0) if scale.by_day else 0
        words = f"{day(visit.day)}: {visit_words(chart, visit.order)}{', index' * visit.is_index}"
        bar = ""
        if stay:
            width = scale.x(scale.visit(visit) + stay) - x
            bar = f'<rect class="stay" x="{x:.2f}%" y="{middle - 2.5}" width="{width:.2f}%" height="5"/>'
        shape = _SHAPES.get(visit.type or "", _OTHER_SHAPE)
        marks.append(f'<g class="{kind}"><title>{escape(words)}</title>{bar}{_mark(x, shape)}</g>')
    if chart.death is not None and scale.by_day:
        x = f"{scale.x(chart.death):.2f}%"
        marks.append(f'<text class="death" x="{x}" y="17"><title>death, {day(chart.death)}</title>†</text>')
    named = "; ".join(f"{day(visit.day)} {visit_words(chart, visit.order)}" for visit in chart.visits[:_NAMED])
    return _svg(scale.lines() + "".join(marks), f"{len(chart.visits)} encounters: {named}")


def _lane(words: str, evidence: tuple[Entry, ...], scale: _Scale) -> str:
    after: dict[float, bool] = {}
    for one in evidence:
        place = scale.entry(one)
        if place is not None:
            after[place] = after.get(place, True) and scale.chart.comes_after(one)
    unit = "day" if scale.by_day else "encounter"
    marks = [
        f'<g class="{"after" if after[place] else "read"} evidence"><title>{unit} {place}</title>'
        f"{_mark(scale.x(place), _EVIDENCE)}</g>"
        for place in sorted(after)
    ]
    named = f"{words}: {unit} {', '.join(str(place) for place in sorted(after)[:_NAMED])}"
    return _svg(scale.lines() + "".join(marks), named)


def _lanes(chart: Chart, spec: CohortSpec) -> Iterable[tuple[str, list[str], tuple[Entry, ...]]]:
    """What was looked for, the rules that did, and what they found: one lane where they found the same."""
    lanes: dict[tuple, tuple[str, list[str], tuple[Entry, ...]]] = {}
    for said in chart.rules:
        for part in said.parts:
            of = part.condition
            shown = isinstance(of, Visits | Events)
            bare = isinstance(of, Visits) and not (of.with_codes or of.with_wrong_times or of.with_disposition)
            if not shown or bare or not part.evidence:
                continue
            looked_for = of.looked_for[1] if isinstance(of, Events) else of.with_codes
            key = (looked_for or said.rule.id, part.evidence)
            words = what(part, spec).removeprefix("Days with: ").removeprefix("Encounters: ")
            rules = lanes.setdefault(key, (words, [], part.evidence))[1]
            rules += [said.rule.id] if said.rule.id not in rules else []
    return lanes.values()


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
