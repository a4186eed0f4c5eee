"""The report as one local HTML page that needs nothing beside itself and can reach nothing."""

import base64
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources

from medbert_jax.chart_review.page import content_policy
from medbert_jax.description.chart_timeline import timeline_style
from medbert_jax.printed_tables import Table
from medbert_jax.reporting.figures import DrawnFigure
from medbert_jax.reporting.threshold_counts import ThresholdCounts


@dataclass(frozen=True)
class CohortSection:
    """What the page says of one dataset of a cohort, as it may be shown."""

    slug: str
    """Of its files, and of its place in the page."""
    title: str
    question: str
    about: tuple[str, ...]
    """Lines under the question."""
    warnings: tuple[str, ...]
    missing: str
    """Why there is no evaluation; empty where there is one."""
    headline_words: str
    headline: Table | None
    figures: tuple[DrawnFigure, ...]
    thresholds: ThresholdCounts | None
    flow: str
    """SVG; empty where there is no ledger."""
    paper_flow: Table | None
    table2: Table | None
    tables: tuple[tuple[str, Table], ...]
    checklists: tuple[tuple[str, Table], ...]
    environment: tuple[tuple[str, str], ...]


def report_page(title: str, sections: Sequence[CohortSection], *, share: bool) -> str:
    """Return the page."""
    folder = resources.files("medbert_jax.reporting")
    style, script = (folder.joinpath(f"page.{kind}").read_text("utf-8") for kind in ("css", "js"))
    style = timeline_style() + style
    data = [one.thresholds.to_dict() | {"slug": one.slug} for one in sections if one.thresholds is not None]
    shared = (
        "Counts of 1 to 10 are hidden, and those that would give them away; between two points of a curve lie at least"
        " 11 cases or none, and 11 controls or none. No patient-level data."
        if share
        else "Small counts are shown. For others' eyes, make it with --share."
    )
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{content_policy(style, script, images=True)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="robots" content="noindex"><meta name="referrer" content="no-referrer">',
            f"<title>{escape(title)}</title><style>{style}</style></head><body>",
            f'<header><h1>{escape(title)}</h1><p class="soft">{shared}</p>{_contents(sections)}</header><main>',
            *(part for section in sections for part in _section(section)),
            f'</main><script type="application/json" id="data">{_json(data)}</script><script>{script}</script>'
            "</body></html>\n",
        ]
    )


def _json(data: object) -> str:
    """JSON that ends no script element, whatever the texts in it."""
    return re.sub(
        "[<>&]", lambda match: f"\\u{ord(match[0]):04x}", json.dumps(data, ensure_ascii=True, allow_nan=False)
    )


def _contents(sections: Sequence[CohortSection]) -> str:
    if len(sections) < 2:
        return ""
    links = "".join(f'<li><a href="#{escape(one.slug)}">{escape(one.title)}</a></li>' for one in sections)
    return f'<nav aria-label="Cohorts"><ul>{links}</ul></nav>'


def _section(one: CohortSection) -> Iterator[str]:
    about = "".join(f"<p class='soft'>{escape(line)}</p>" for line in one.about)
    yield f'<section id="{escape(one.slug)}"><h2>{escape(one.title)}</h2><p class="question">{escape(one.question)}</p>'
    yield about
    if one.warnings:
        items = "".join(f"<li>{escape(line)}</li>" for line in one.warnings)
        yield f'<aside class="warnings" aria-label="Warnings"><h3>Before you read on</h3><ul>{items}</ul></aside>'
    if one.missing:
        yield f'<p class="warning">No evaluation: {escape(one.missing)}.</p>'
    if one.headline is not None:
        yield f'<h3>Headline</h3><p class="headline">{escape(one.headline_words)}</p>'
        yield table_html(one.headline, "headline")
    if one.figures:
        yield "<h3>Figures</h3>"
        yield f'<div class="figures">{"".join(map(_figure, one.figures))}</div>'
    if one.thresholds is not None:
        yield _slider(one)
    if one.flow:
        flow = _data(one.flow)
        yield f'<h3>Who is in</h3><figure class="flow"><img alt="Flow of patients, rule by rule" src="{flow}">'
        yield "<figcaption>Patients that each rule took; neighbouring rules are put together where they are many."
        yield "</figcaption></figure>"
        if one.paper_flow is not None:
            yield table_html(one.paper_flow, "paper")
    if one.table2 is not None:
        yield f"<h3>What the patients look like</h3>{table_html(one.table2, 'table2')}"
    yield "<h3>All figures</h3>"
    for slug, table in one.tables:
        yield _details(table.title, table_html(table, slug))
    yield "<h3>Checklists</h3>"
    for slug, table in one.checklists:
        yield _details(table.title, table_html(table, slug))
    rows = "".join(
        f"<tr><th>{escape(name)}</th><td><code>{escape(of)}</code></td></tr>" for name, of in one.environment
    )
    yield _details("Environment, seeds, hashes", f'<div class="wide"><table class="facts">{rows}</table></div>')
    yield "</section>"


def table_html(table: Table, kind: str) -> str:
    """A table that scrolls where it is wider than the page, with its notes."""
    sides = ["right" if side == ">" else "left" for side in table.alignment]
    head = "".join(
        f'<th class="{side}" scope="col">{escape(text)}</th>' for side, text in zip(sides, table.columns, strict=True)
    )
    rows = "".join(
        "<tr>"
        + "".join(
            f'<td class="{side}{" best" if (number, place) in table.bold else ""}">{escape(cell)}</td>'
            for place, (side, cell) in enumerate(zip(sides, row, strict=True))
        )
        + "</tr>"
        for number, row in enumerate(table.rows)
    )
    notes = "".join(f"<p class='note'>{escape(note.removeprefix('- '))}</p>" for note in table.notes)
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(table.title)}">'
        f'<table class="{escape(kind)}">'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>{notes}"
    )


def _details(title: str, content: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{content}</details>"


def _figure(drawn: DrawnFigure) -> str:
    words = escape(drawn.words)
    return (
        f'<figure class="{drawn.slug}"><h4>{escape(drawn.title)}</h4><img alt="{words}" src="{_data(drawn.svg)}">'
        f"<figcaption>{words}</figcaption></figure>"
    )


def _data(svg: str) -> str:
    """As an image nothing in it can run or be styled by the page."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


_COUNTS = (
    ("flagged", "flagged"),
    ("caught", "of them with the outcome"),
    ("false", "of them without (false alarms)"),
    ("missed", "missed: not flagged, with the outcome"),
    ("spared", "rightly left alone"),
)
_SHARES = (
    ("sensitivity", "sensitivity"),
    ("specificity", "specificity"),
    ("ppv", "positive predictive value"),
    ("npv", "negative predictive value"),
    ("per", "flagged for one with the outcome"),
)


def _slider(one: CohortSection) -> str:
    assert one.thresholds is not None
    names = "".join(f"<option>{escape(name)}</option>" for name in one.thresholds.models)
    rows = [
        "".join(
            f'<tr><th scope="row">{words}</th><td><output data-out="{key}">–</output></td></tr>' for key, words in of
        )
        for of in (_COUNTS, _SHARES)
    ]
    return (
        f'<h3>If somebody acted above a threshold</h3><form class="thresholds" data-cohort="{escape(one.slug)}">'
        f"<label>Model <select>{names}</select></label>"
        '<label class="risk">Act at a predicted risk of <output data-out="risk">–</output> or more'
        '<input type="range" min="0" max="0" value="0" step="1" aria-label="Threshold of predicted risk"></label>'
        f'<div class="bar" role="img" aria-label="Of 1,000 {one.thresholds.counted}"><i data-bar="caught"></i>'
        '<i data-bar="false"></i><i data-bar="missed"></i><i data-bar="spared"></i></div>'
        '<p class="key"><span class="caught">flagged, with the outcome</span><span class="false">false alarm</span>'
        '<span class="missed">missed</span><span class="spared">rightly left alone</span></p>'
        f'<div class="counts"><table><thead><tr><th colspan="2">of 1,000 {one.thresholds.counted}</th></tr></thead>'
        f'<tbody>{rows[0]}</tbody></table><table><thead><tr><th colspan="2">shares</th></tr></thead>'
        f"<tbody>{rows[1]}</tbody></table></div>"
        f'<p class="note">{escape(one.thresholds.note)}</p></form>'
    )
