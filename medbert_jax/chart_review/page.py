"""The chart review of a cohort as one local HTML page that needs nothing beside itself and can reach nothing."""

import base64
import csv
import hashlib
import io
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from pathlib import Path

from medbert_jax.chart_review.charts import ReviewedChart, RuleSaid
from medbert_jax.chart_review.chosen_patients import draw_charts
from medbert_jax.chart_review.rule_words import asked, entry_words, joined, later, what, when
from medbert_jax.cohorts.counts import Events, Visits
from medbert_jax.cohorts.loading import stored_spec
from medbert_jax.cohorts.spec import CohortSpec
from medbert_jax.data.token_store import read_metadata
from medbert_jax.description.chart import Entry, day_words
from medbert_jax.description.chart_timeline import Lane, timeline, timeline_style
from medbert_jax.disk.seals import check_files
from medbert_jax.disk.whole_files import write_whole
from medbert_jax.ehr.split_rule import Split, find_split
from medbert_jax.ehr.tables import read_source

PAGE, KEY = "review.html", "review_key.csv"
_SHOWN = 3
"""Pieces of evidence of one condition that are seen without opening the rest."""
_WARNING = (
    "Records of single patients. This page, and the file review_key.csv beside it, which says who they are, are for"
    " those who may see the data, on the machines where the data are. They must not leave the site."
)


def write_review(
    ehr_directory: Path, dataset: Path, each: int, *, seed: int = 0, workers: int = 0
) -> tuple[Path, Path]:
    """Write review.html and review_key.csv (name, patient_id) beside a cohort dataset; return their paths.

    Shows `each` random cases, controls, and patients of every line under which somebody left.

    Raises:
        ValueError: the dataset was made of other EHR tables, or of labels instead of a spec, or its members are those
            of another one.
    """
    metadata, dataset = read_metadata(dataset), Path(dataset)
    made_of, given = metadata["source"]["content_hash"], read_source(ehr_directory).content_hash
    if made_of != given:
        raise ValueError(
            f"a cohort is reviewed on the EHR tables that it was made of: got {given[:12]} in {ehr_directory} and"
            f" {made_of[:12]} in the dataset; give those tables, or make the dataset again"
        )
    if "rules" not in (metadata["cohort"] or {}):
        raise ValueError(
            f"a chart review shows what a cohort's rules rest on: got {dataset}, which has labels and no rules;"
            " review the cohort where its labels were made"
        )
    members = dataset / "cohort.parquet"
    check_files(dataset / "metadata.json", metadata, [members.name], "make the cohort again")
    spec = stored_spec(metadata["cohort"], source=str(dataset))
    split, said = None, metadata["split"] if spec.matching is not None else None
    if said is not None:
        split = find_split(Path(ehr_directory), said["key"], said.get("ratios"))
    return _write(ehr_directory, spec, dataset, each, members if members.exists() else None, split, seed, workers)


def write_refused_review(
    ehr_directory: Path,
    spec: CohortSpec,
    folder: Path,
    each: int,
    *,
    split: Split | None = None,
    seed: int = 0,
    workers: int = 0,
) -> tuple[Path, Path]:
    """Write review.html and review_key.csv of a cohort that became no dataset into a folder; return their paths.

    As `write_review`; `split` is the one that it would have had, and cases and controls are all whom the rules leave.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return _write(ehr_directory, spec, folder, each, None, split, seed, workers)


def _write(
    ehr_directory: Path,
    spec: CohortSpec,
    folder: Path,
    each: int,
    members: Path | None,
    split: Split | None,
    seed: int,
    workers: int,
) -> tuple[Path, Path]:
    drawn = draw_charts(Path(ehr_directory), spec, each, members=members, split=split, seed=seed, workers=workers)
    page, key = folder / PAGE, folder / KEY
    write_whole(page, review_page([chart for _, chart in drawn], spec))
    rows = io.StringIO()
    csv.writer(rows).writerows([("name", "patient_id"), *((chart.name, patient) for patient, chart in drawn)])
    write_whole(key, rows.getvalue())
    return page, key


def review_page(charts: Sequence[ReviewedChart], spec: CohortSpec) -> str:
    """Return the page."""
    folder = resources.files("medbert_jax.chart_review")
    style, script = (folder.joinpath(f"page.{kind}").read_text("utf-8") for kind in ("css", "js"))
    style = timeline_style() + style
    policy = content_policy(style, script)
    groups = dict.fromkeys((chart.group, chart.group_text) for chart in charts)
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="robots" content="noindex"><meta name="referrer" content="no-referrer">',
            f"<title>Chart review: {escape(spec.title)}</title><style>{style}</style></head><body>",
            f'<header><h1>Chart review: {escape(spec.title)}</h1><p class="warning">{_WARNING}</p>',
            f'<p class="soft">{escape(spec.description)}</p>',
            f'<p class="soft">{_about(spec)}</p>',
            '<p class="soft">Days count from the index, or from the first encounter where there is no index. What'
            " comes after the input is grey. A filled mark may be read by a model, a hollow one may not.</p>",
            f"{_legend()}</header>",
            _filters(groups, spec),
            "<main>",
            *(_article(chart, spec) for chart in charts),
            f"</main><script>{script}</script></body></html>\n",
        ]
    )


def _about(spec: CohortSpec) -> str:
    said = (("Outcome", spec.outcome), ("Index", spec.index), ("Input", spec.input), ("Matching", spec.matching))
    about = [f"<b>{name}</b> {escape(of.description)}" for name, of in said if of is not None]
    about += [f"<b>Caution</b> {escape(spec.said_of_looking())}"] if spec.looks_after_index else []
    return "<br>".join(about)


def content_policy(style: str, script: str, *, images: bool = False) -> str:
    """The policy of a page: nothing is loaded, and no script runs but this one; `images` stand in the page itself."""
    policy = f"default-src 'none'; style-src '{_sha256(style)}'; script-src '{_sha256(script)}'"
    return f"{policy}; img-src data:" if images else policy


def _sha256(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _legend() -> str:
    shapes = (("inpatient", "■"), ("emergency", "▲"), ("outpatient", "●"), ("other", "◆"), ("evidence", "●"))
    marks = (f'<span><b class="{name}">{shape}</b> {name}</span>' for name, shape in shapes)
    return f'<p class="legend" aria-label="Marks">{"".join(marks)}<span><b class="death">†</b> death</span></p>'


def _filters(groups: Iterable[tuple[str, str]], spec: CohortSpec) -> str:
    def options(entries) -> str:
        return "".join(f'<option value="{escape(id)}">{escape(text)}</option>' for id, text in entries)

    named = [(id, text if id in ("cases", "controls", "censored") else f"{id}: {text}") for id, text in groups]
    rules = [(rule.id, f"{rule.id}: {rule.description}") for rule in spec.rules]
    says = (("yes", "says yes"), ("no", "says no"))
    return (
        '<form class="filters" id="filters"><label>Group <select id="group"><option value="">all</option>'
        f'{options(named)}</select></label><label>Rule <select id="rule"><option value="">any</option>{options(rules)}'
        f'</select></label><label>and it <select id="says">{options(says)}</select></label>'
        '<button type="button" id="previous">← previous</button><button type="button" id="next">next →</button>'
        f'<output id="shown" aria-live="polite"></output></form>'
    )


def _article(chart: ReviewedChart, spec: CohortSpec) -> str:
    fired = " ".join(said.rule.id for said in chart.rules if said.says and " " not in said.rule.id)
    return (
        f'<article tabindex="-1" data-group="{escape(chart.group)}" data-yes="{escape(fired)}">'
        f'<h2>{escape(chart.name)}</h2><p class="outcome">{escape(chart.outcome)}</p>{_label(chart)}'
        f'<p class="soft">{escape(chart.person)}</p>{timeline(chart, _lanes(chart, spec))}'
        f"{_rules(chart, spec)}{_record(chart)}</article>"
    )


def _label(chart: ReviewedChart) -> str:
    """What the label rests on, and the encounter or the codes that make it 1."""
    if not chart.label_words:
        return ""
    items = "".join(_item(one, chart) for one in chart.label_evidence)
    return f"<p>Rests on: {escape(chart.label_words)}</p>{f'<ul>{items}</ul>' if items else ''}"


def _lanes(chart: ReviewedChart, spec: CohortSpec) -> list[Lane]:
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
    return [Lane(words, ", ".join(rules), evidence) for words, rules, evidence in lanes.values()]


def _rules(chart: ReviewedChart, spec: CohortSpec) -> str:
    rows, left = [], False
    for said in chart.rules:
        rule, beside = said.rule, " " in said.rule.id
        about = [rule.tag, *([f"{rule.among} alone"] if rule.among else [])]
        about += [] if rule.action == "leave" or beside else [rule.action.replace("_", " ")]
        head = (rule.id, rule.description, ", ".join(about))
        kind = "no" if not said.says else "there" if rule.action == "flag" else "yes"
        rows.append(_row(chart, head, kind, _evidence(said, chart, spec), left))
        left = left or rule.id == chart.group
    for id, text, applies in chart.own_lines:
        rows.append(_row(chart, (id, text, "for every cohort"), "yes" if applies else "no", "", left))
    return (
        '<details class="rules" open><summary>Rule by rule</summary><table><thead><tr><th>says</th><th>rule</th>'
        f"<th>evidence</th></tr></thead><tbody>{''.join(rows)}</tbody></table></details>"
    )


def _row(chart: ReviewedChart, head: tuple[str, str, str], kind: str, evidence: str, left: bool) -> str:
    id, text, about = (escape(part) for part in head)
    took = head[0] == chart.group
    note = '<b class="leaves">leaves here</b>' if took else ""
    return (
        f'<tr class="{"took" if took else "later" * left}" data-rule="{id}"><td><span class="{kind}">'
        f"{'no' if kind == 'no' else 'yes'}</span></td><td><b>{id}</b> <i>{about}</i> {note}<br>{text}</td>"
        f"<td>{evidence}</td></tr>"
    )


def _evidence(said: RuleSaid, chart: ReviewedChart, spec: CohortSpec) -> str:
    blocks = [f'<p class="soft">{joined(said)}</p>'] if joined(said) else []
    for part in said.parts:
        blocks.append(f"<p>{escape(asked(part, spec, skips=said.rule.action == 'skip_visit'))}</p>")
        items = [_item(one, chart) for one in part.evidence]
        if items:
            blocks.append(f"<ul>{''.join(items[:_SHOWN])}</ul>")
        if len(items) > _SHOWN:
            rest = "".join(items[_SHOWN:])
            blocks.append(f"<details><summary>{len(items) - _SHOWN} more</summary><ul>{rest}</ul></details>")
    return "".join(blocks)


def _item(entry: Entry, chart: ReviewedChart) -> str:
    code, words = entry_words(entry, chart)
    named = f"<code>{escape(code)}</code> " if code else ""
    kind = "dated after" if entry.is_after or entry.is_known_later else "dated"
    note = f" <small>{later(entry)}</small>" if entry.is_known_later else ""
    return f'<li class="{kind}"><span>{when(entry)}</span><div>{named}{escape(words)}{note}</div></li>'


def _record(chart: ReviewedChart) -> str:
    rows, loose = [], [one for one in chart.events if one.visit is None]
    for visit in chart.visits:
        own = [*visit.codes, *(one for one in chart.events if one.visit == visit.order)]
        head = f"{day_words(visit.day)}<br>{escape(visit.words)}{'<br><b>index</b>' * visit.is_index}"
        rows.append(_record_row(head, own, visit.day, visit.is_read is False, chart))
    if loose:
        rows.append(_record_row("of no encounter", loose, None, False, chart))
    return (
        f"<details><summary>Whole record: {len(chart.visits)} encounters, {len(chart.events)} drugs, results and"
        f' procedures</summary><table class="record"><tbody>{"".join(rows)}</tbody></table></details>'
    )


def _record_row(head: str, entries: list[Entry], at: int | None, after: bool, chart: ReviewedChart) -> str:
    items = []
    for one in entries:
        code, words = entry_words(one, chart)
        text = f"<code>{escape(code)}</code> {escape(words)}" if code else escape(words)
        if one.day != at:
            text += f" <small>{day_words(one.day)}</small>"
        if one.marks:
            text = f"<mark>{text}</mark> <small>{escape(', '.join(one.marks))}</small>"
        if one.is_known_later:
            items.append(f'<li class="after">{text} <small>{later(one)}</small></li>')
        else:
            items.append(f"<li>{text}</li>")
    kind = ' class="after"' if after else ""
    return f"<tr{kind}><td>{head}</td><td><ul>{''.join(items)}</ul></td></tr>"
