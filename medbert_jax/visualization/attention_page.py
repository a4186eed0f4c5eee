"""The attention of one patient as one local HTML page that needs nothing beside itself and can reach nothing."""

import base64
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources

import numpy as np

from medbert_jax.chart_review.page import content_policy
from medbert_jax.description.chart_timeline import timeline_style
from medbert_jax.visualization.attention_record import ShownRecord
from medbert_jax.visualization.attention_weights import RELATIONS, AttentionShares

_FILES = ("attention.css", "attention_panels.js", "attention.js")
_WARNING = (
    "Record of a single patient: for those who may see the data, on the machines where the data are. This page must not"
    " leave the site."
)
_NO_EXPLANATION = (
    "Attention says which codes a layer mixes into which. It is no explanation of what the model predicts: other"
    " weights may give the same prediction (Jain and Wallace 2019)."
)


@dataclass(frozen=True, eq=False)
class ShownAttention:
    """What a page shows of one model."""

    name: str
    weights_NHnn: np.ndarray
    """(layers, heads, codes, codes) float32, the reading code before the read one."""
    shares: AttentionShares
    """Of the patient."""
    averaged: AttentionShares | None
    """Of many patients; None: not asked for."""

    def to_dict(self) -> dict:
        """The shares, as JSON data."""
        averaged = None if self.averaged is None else self.averaged.to_dict()
        return {"name": self.name, "patient": self.shares.to_dict(), "averaged": averaged}


def attention_page(record: ShownRecord, models: Sequence[ShownAttention], *, id: str = "") -> str:
    """The page; with the patient's `id` only where one is given."""
    folder = resources.files("medbert_jax.visualization")
    style, panels, script = (folder.joinpath(name).read_text("utf-8") for name in _FILES)
    style, script = timeline_style() + style, panels + script
    title = f"Attention: patient {record.number:,} of {record.split}" + (f", id {id}" if id else "")
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{content_policy(style, script)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="robots" content="noindex"><meta name="referrer" content="no-referrer">',
            f"<title>{escape(title)}</title><style>{style}</style></head><body>",
            f'<header><h1>{escape(title)}</h1><p class="warning">{_WARNING}</p>',
            f'<p class="soft">{_about(record)}</p><p class="caveat">{_NO_EXPLANATION}</p>',
            "<noscript><p class='warning'>The picture is drawn by the page's own script, which is switched off.</p>"
            "</noscript></header>",
            _controls(record, models[0]),
            f'<main class="models-{len(models)}">',
            *(part for number, one in enumerate(models) for part in _model(number, one)),
            "</main>",
            f'<script type="application/json" id="data">{_json(_data(record, models))}</script>',
            *(part for number, one in enumerate(models) for part in _weights(number, one)),
            f"<script>{script}</script></body></html>\n",
        ]
    )


def _about(record: ShownRecord) -> str:
    visits, codes = len(record.visits), len(record.codes)
    cut = (
        f" The record has {record.whole:,} codes; a model reads the most recent ones, and no more are shown."
        if record.whole > codes
        else ""
    )
    return (
        f"{codes:,} code{'s' * (codes != 1)} in {visits:,} visit{'s' * (visits != 1)}. Days count from the patient's"
        f" first visit.{cut} On the left the codes that read, on the right the codes that are read; a line's colour is"
        " the head, and the stronger the line the larger the weight (its opacity is the weight's square root). SEP"
        " stands between visits for the eye alone: no model reads it."
    )


def _controls(record: ShownRecord, shown: ShownAttention) -> str:
    layers, heads = shown.weights_NHnn.shape[:2]
    options = "".join(f'<option value="{number}">{number + 1}</option>' for number in range(layers))
    boxes = "".join(
        f'<label class="head"><input type="checkbox" data-head="{number}" checked><i></i>{number + 1}</label>'
        for number in range(heads)
    )
    visits = "".join(
        f'<option value="{number}">{number}: {escape(words)}</option>' for number, words in enumerate(record.visits, 1)
    )
    return (
        f'<form class="controls" id="controls"><label>Layer <select id="layer">{options}</select></label>'
        f'<fieldset><legend>Heads</legend>{boxes}<button type="button" id="all">all</button></fieldset>'
        '<label class="threshold">Weights of <output id="least">–</output> or more'
        '<input type="range" id="threshold" min="0" value="0" step="1" aria-label="Least weight that is drawn"></label>'
        f'<fieldset class="visits"><legend>Visits</legend><select id="first" aria-label="First visit">{visits}</select>'
        f'to <select id="last" aria-label="Last visit">{visits}</select></fieldset></form>'
    )


def _model(number: int, one: ShownAttention) -> Iterator[str]:
    name = escape(one.name)
    yield f'<section class="model" data-model="{number}" aria-label="{name}"><h2>{name}</h2>'
    yield '<div class="view"><ol class="side reading" role="listbox" aria-label="Codes that read"></ol>'
    yield '<div class="between"><canvas class="lines"></canvas></div>'
    yield '<ol class="side read" role="listbox" aria-label="Codes that are read"></ol></div>'
    yield '<p class="said" aria-live="polite"><output class="drawn"></output> <output class="reads"></output></p>'
    yield '<div class="printed"></div>'
    yield "<h3>All layers and heads</h3><p class='note'>Rows are layers, columns heads; a click chooses one.</p>"
    yield '<div class="gallery"></div>'
    yield '<h3>Where attention goes in layer <output class="of-layer"></output></h3>'
    yield '<div class="panels"></div></section>'


def _data(record: ShownRecord, models: Sequence[ShownAttention]) -> dict:
    layers, heads = models[0].weights_NHnn.shape[:2]
    return {
        "codes": [{"code": one.code, "title": one.title, "visit": one.visit} for one in record.codes],
        "visits": list(record.visits),
        "layers": layers,
        "heads": heads,
        "relations": RELATIONS,
        "models": [one.to_dict() for one in models],
    }


def _json(data: object) -> str:
    """JSON that ends no script element, whatever the texts in it."""
    return re.sub("[<>&]", lambda match: f"\\u{ord(match[0]):04x}", json.dumps(data, allow_nan=False))


def _weights(number: int, one: ShownAttention) -> Iterator[str]:
    """A block for each layer: what is not looked at is not decoded."""
    for layer, weights_Hnn in enumerate(one.weights_NHnn):
        text = base64.b64encode(weights_Hnn.astype("<f4").tobytes()).decode()
        yield f'<script type="application/octet-stream" id="weights-{number}-{layer}">{text}</script>'
