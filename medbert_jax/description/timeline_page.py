"""Example timelines as one HTML page that needs nothing beside itself."""

from collections.abc import Sequence
from html import escape

from medbert_jax.description.chart import AGAIN, Chart, Entry
from medbert_jax.description.chart_timeline import timeline, timeline_style
from medbert_jax.description.timelines import summary

_OPEN = 20  # codes that are seen without opening the table
_STYLE = """
body { max-width: 992px; margin: 2rem auto; padding: 0 1rem; }
h2 { font-size: 1.2rem; margin-top: 2.5rem; } h3 { font-size: 1rem; margin: 2rem 0 0; }
p:not(.warning) { color: var(--soft); } table { margin-top: .4rem; } td { padding: .3rem .6rem .3rem 0; }
td:first-child { white-space: nowrap; color: var(--soft); width: 9rem; } .repeated { opacity: .65; }
"""


def timeline_page(examples: Sequence[tuple[str, Sequence[Chart]]]) -> str:
    """Return the page of (dataset, its charts)."""
    sections = []
    for dataset, charts in examples:
        sections.append(f"<h2>{escape(dataset)}</h2>")
        sections += map(_section, charts)
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Example timelines</title>',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<style>{timeline_style()}{_STYLE}</style></head><body><h1>Example timelines</h1>",
            '<p class="warning">Records of single patients: for those who may see the data, not for sharing.</p>',
            "<p>Days count from each patient's first visit. One column of dots is one visit, one dot is one code: "
            "filled where no earlier visit has it, hollow where one has. An orange bar is a stay.</p>",
            *sections,
            "</body></html>\n",
        ]
    )


def _section(chart: Chart) -> str:
    rows = "\n".join(
        f"<tr><td>{escape(visit.heading)}</td><td><ul>{''.join(map(_item, visit.codes))}</ul></td></tr>"
        for visit in chart.visits
    )
    few = sum(len(visit.codes) for visit in chart.visits) <= _OPEN
    return (
        f"<h3>{escape(chart.name)}</h3><p>{escape(summary(chart))}</p>\n{timeline(chart, by_code=True)}\n"
        f"<details{' open' * few}><summary>visits and codes</summary><table>{rows}</table></details>"
    )


def _item(code: Entry) -> str:
    kind = ' class="repeated"' if AGAIN in code.marks else ""
    return f"<li{kind}><code>{escape(code.code or '')}</code> {escape(code.title)}</li>"
