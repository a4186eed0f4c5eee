"""Example timelines as one HTML page that needs nothing beside itself."""

from collections.abc import Sequence
from html import escape

from medbert_jax.evaluation.timelines import Timeline, TimelineVisit, visit_heading

WIDTH, LEFT, RIGHT, ROW, DOTS = 960, 16, 24, 9, 14  # px; at most so many dots in a column
_MINIMUM_HEIGHT = 4  # rows, so that the word "index" has room

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2327; --soft: #5b6670; --line: #c9d0d6; --page: #fff; --new: #14608a;
  --stay: #d9822b; --index: #a3263c; --chip: #e8f1f6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9eb; --soft: #9aa6af; --line: #3c464d; --page: #14181b;
  --new: #6db8e0; --stay: #e8a35c; --index: #ef7f92; --chip: #1f3440; } }
body { font: 15px/1.45 system-ui, "Segoe UI", Helvetica, Arial, "DejaVu Sans", sans-serif; color: var(--ink);
  background: var(--page); max-width: 960px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; } h3 { font-size: 1rem; margin: 2rem 0 0; }
p { margin: .3rem 0; color: var(--soft); } .warning { color: var(--index); font-weight: 600; }
svg { width: 100%; height: auto; display: block; margin: .5rem 0; } svg text { font-size: 11px; fill: var(--soft); }
.axis { stroke: var(--line); } .stay { fill: var(--stay); } .new { fill: var(--new); }
.again { fill: var(--page); stroke: var(--new); stroke-width: 1.3; } .index { stroke: var(--index);
  stroke-dasharray: 4 3; } svg text.at-index { fill: var(--index); }
summary { cursor: pointer; color: var(--soft); } table { border-collapse: collapse; width: 100%; margin-top: .4rem; }
td { border-top: 1px solid var(--line); padding: .3rem .6rem .3rem 0; vertical-align: top; }
td:first-child { white-space: nowrap; color: var(--soft); width: 9rem; } ul { margin: 0; padding: 0; list-style: none; }
code { background: var(--chip); border-radius: 3px; padding: 0 .3rem; font-size: .85em; } .repeated { opacity: .65; }
"""


def timeline_page(examples: Sequence[tuple[str, Sequence[Timeline]]]) -> str:
    """Return the page of (dataset, its timelines)."""
    sections = []
    for dataset, timelines in examples:
        sections.append(f"<h2>{escape(dataset)}</h2>")
        sections += [_section(timeline) for timeline in timelines]
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Example timelines</title>',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<style>{_STYLE}</style></head><body><h1>Example timelines</h1>",
            '<p class="warning">Records of single patients: for those who may see the data, not for sharing.</p>',
            "<p>Days count from each patient's first visit. One column of dots is one visit, one dot is one code: "
            "filled where no earlier visit has it, hollow where one has. An orange bar is a stay.</p>",
            *sections,
            "</body></html>\n",
        ]
    )


def _section(timeline: Timeline) -> str:
    rows = "\n".join(
        f"<tr><td>{visit_heading(number, visit)}</td><td><ul>{''.join(map(_item, visit.codes))}</ul></td></tr>"
        for number, visit in enumerate(timeline.visits, start=1)
    )
    return (
        f"<h3>{escape(timeline.name)}</h3><p>{escape(timeline.summary)}</p>\n{timeline_svg(timeline)}\n"
        f"<details{' open' if timeline.codes <= 20 else ''}><summary>visits and codes</summary><table>{rows}</table>"
        "</details>"
    )


def _item(code) -> str:
    kind = ' class="repeated"' if code.again else ""
    return f"<li{kind}><code>{escape(code.code)}</code> {escape(code.title)}</li>"


def timeline_svg(timeline: Timeline) -> str:
    """Return the timeline as an SVG element: visits by day, or by number where a day is unknown."""
    by_day = all(visit.day is not None for visit in timeline.visits)
    places = [visit.day if by_day else number for number, visit in enumerate(timeline.visits, start=1)]
    index = timeline.index_day if by_day else None
    first, last = places[0], max([*places, *([] if index is None else [index])])
    if by_day:
        last = max(last, *(place + (visit.stay or 0) for place, visit in zip(places, timeline.visits, strict=True)))
    scale = (WIDTH - LEFT - RIGHT) / max(last - first, 1)
    highest = max(_MINIMUM_HEIGHT, *(min(len(visit.codes), DOTS + 1) for visit in timeline.visits))
    base = ROW * (highest + 2)

    def x(place: float) -> float:
        return LEFT + (place - first) * scale

    marks = [f'<path class="axis" d="M{LEFT} {base}H{WIDTH - RIGHT}"/>']
    for tick in _ticks(first, last):
        marks.append(f'<path class="axis" d="M{x(tick):.1f} {base}v5"/>')
        marks.append(f'<text x="{x(tick):.1f}" y="{base + 17}" text-anchor="middle">{tick:,}</text>')
    unit = "day" if by_day else "visit (no days known)"
    marks.append(f'<text x="{WIDTH - RIGHT}" y="{base + 31}" text-anchor="end">{unit}</text>')
    for number, (place, visit) in enumerate(zip(places, timeline.visits, strict=True), start=1):
        marks += _visit(x(place), base, visit, number, scale if by_day else 0)
    if index is not None:
        anchor = "end" if x(index) > WIDTH / 2 else "start"
        marks.append(f'<path class="index" d="M{x(index):.1f} 4V{base + 5}"/>')
        shift = -5 if anchor == "end" else 5
        text = f'x="{x(index) + shift:.1f}" y="12" text-anchor="{anchor}"'
        marks.append(f'<text class="at-index" {text}>index</text>')
    label = f"{timeline.name}: {timeline.codes} codes in {len(timeline.visits)} visits"
    inside = "\n".join(marks)
    return f'<svg role="img" aria-label="{escape(label)}" viewBox="0 0 {WIDTH} {base + 36}">\n{inside}\n</svg>'


def _visit(x: float, base: int, visit: TimelineVisit, number: int, day_width: float) -> list[str]:
    marks = [f"<g><title>{visit_heading(number, visit)}: {len(visit.codes)} codes</title>"]
    if visit.stay and day_width:
        marks.append(
            f'<rect class="stay" x="{x:.1f}" y="{base - 2}" width="{max(visit.stay * day_width, 2):.1f}" height="4"/>'
        )
    for place, code in enumerate(visit.codes[:DOTS]):
        kind = "again" if code.again else "new"
        marks.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{base - ROW * (place + 1):g}" r="3.2"/>')
    if len(visit.codes) > DOTS:
        y = base - ROW * (DOTS + 1) + 3
        marks.append(f'<text x="{x:.1f}" y="{y}" text-anchor="middle">+{len(visit.codes) - DOTS}</text>')
    return [*marks, "</g>"]


def _ticks(first: int, last: int) -> list[int]:
    """Return at most eight round numbers from first to last."""
    steps = (factor * 10**power for power in range(7) for factor in (1, 2, 5))
    step = next(step for step in steps if (last - first) / step <= 7)
    return [*range(-(-first // step) * step, last + 1, step)]
