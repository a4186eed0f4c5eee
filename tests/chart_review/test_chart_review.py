"""The page of a chart review: nothing identifies, nothing is loaded, all is text; and what a terminal says."""

import csv
import functools
import re
from html.parser import HTMLParser

import polars as pl
import pytest
from drawn_patients import person, tables_of, visit

from medbert_jax.chart_review import charts
from medbert_jax.chart_review import page as chart_review
from medbert_jax.chart_review import text as chart_text
from medbert_jax.chart_review.chosen_patients import draw_charts
from medbert_jax.chart_review.page import KEY, PAGE, review_page, write_review
from medbert_jax.cohorts.loading import load_spec
from medbert_jax.description import chart_timeline
from medbert_jax.ehr.tables import write_tables

INJECTED = '<script>alert("x")</script>&<b onload=x>'
PEOPLE = {
    "MRN-case": person(
        visit("2010-01-05", "250.00 401.9"), visit("2011-02-01", "250.02"), visit("2012-03-01", "428.0", 4),
        visit("2012-05-01", "428.0"), born="1915-06-15",
        drugs=[(1, f"metformin / {INJECTED}"), ("2012-03-02", "furosemide"), ("2012-04-02", INJECTED)],
        results=[("2012-03-01", "30934-4", 900.0, INJECTED), ("2012-03-01", "30934-4", 901.5, "pg/mL")],
    ),
    "MRN-control": person(visit("2010-01-05", "250.00"), visit("2011-04-01", "401.9 250.00"),
                          visit("2013-06-01", "V70.0"), drugs=[(2, "insulin")], died="2014-01-01"),
    "MRN-early": person(visit("2010-01-05", "250.00 428.0"), visit("2011-02-01", "250.02 428.0"),
                        drugs=[(1, "insulin")]),
    "MRN-undated": person(visit(None, "250.00"), visit("2011-02-01", "250.02")),
    "MRN-none": person(visit("2010-01-05", "401.9", discharge=None)),
}  # fmt: skip


@pytest.fixture(scope="module")
def ehr(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reviewed") / "ehr"
    write_tables(tables_of(PEOPLE), folder, shards=2)
    return folder


@pytest.fixture(autouse=True)
def few_titles(monkeypatch):
    """Reading the titles of ICD-10-CM takes seconds."""
    monkeypatch.setattr(charts, "titles", lambda codes: [f"title of {code} {INJECTED}" for code in codes])


@functools.cache
def drawn_from(ehr, name: str) -> list:
    return [chart for _, chart in draw_charts(ehr, load_spec(name), 5, workers=1)]


def page_of(ehr, name="dhf") -> str:
    return review_page(drawn_from(ehr, name), load_spec(name))


class Elements(HTMLParser):
    def __init__(self, page: str):
        super().__init__()
        self.tags, self.texts, self.attributes, self.open = [], [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


@pytest.mark.parametrize("name", ["dhf", "dhf-landmark", "dhf-matched"])
def test_the_page_tells_nobody_and_no_date(ehr, name):
    page = page_of(ehr, name)
    assert "<article" in page
    assert "MRN" not in page
    visible = "\n".join(Elements(page).texts)
    assert not re.search(r"\b(19|20)\d\d\b", visible)
    assert not re.search(r"\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}", visible)


def test_whoever_is_very_old_has_no_age(ehr):
    text = " ".join(Elements(page_of(ehr)).texts)
    assert "over 89 years at the first encounter" in text and "94 years" not in text


def test_the_page_loads_nothing_and_all_that_sources_say_stays_text(ehr):
    page = page_of(ehr)
    elements = Elements(page)
    assert elements.open == []
    assert elements.tags.count("script") == 1 and "onload" not in dict(elements.attributes)
    assert not {name for name, _ in elements.attributes} & {"src", "href", "style", "onclick"}
    text = "".join(elements.texts)
    assert f"title of ICD9CM/428.0 {INJECTED}" in text
    assert f"metformin / {INJECTED}" in text and f"900 {INJECTED}" in text
    assert "http" not in page.replace("http-equiv", "").replace("medbert", "")
    policy = next(value for name, value in elements.attributes if name == "content" and "default-src" in value)
    style, script = (re.search(f"<{tag}>(.*?)</{tag}>", page, re.S)[1] for tag in ("style", "script"))
    assert policy == (
        f"default-src 'none'; style-src '{chart_review._sha256(style)}'; script-src '{chart_review._sha256(script)}'"
    )


@pytest.mark.parametrize("drawing", [chart_review, chart_timeline])
def test_text_that_is_not_escaped_would_be_found(ehr, monkeypatch, drawing):
    monkeypatch.setattr(chart_timeline, "day_words", lambda day: f"<b onload=x>{day}")
    test_the_page_loads_nothing_and_all_that_sources_say_stays_text(ehr)
    monkeypatch.setattr(drawing, "escape", lambda text: text)
    with pytest.raises(AssertionError):
        test_the_page_loads_nothing_and_all_that_sources_say_stays_text(ehr)


def article(page: str, name: str) -> str:
    return next(one for one in page.split("<article")[1:] if f"<h2>{name}</h2>" in one)


def test_a_case_is_drawn_with_its_cut_and_its_evidence(ehr):
    case = article(page_of(ehr), "case 1")
    assert 'data-group="cases" data-yes=""' in case
    assert "Label 1; 2 of 4 encounters are in the input that ends at day 0" in case
    # First visit at 3 %, last at 97 %, of 786 + 61 days; the index and the end of the input are day 0.
    x = 3 + 94 * 786 / 847
    assert f'<line class="cut" x1="{x:.2f}%"' in case and f'<line class="index" x1="{x:.2f}%"' in case
    assert f'<rect class="beyond" x="{x:.2f}%" width="{100 - x:.2f}%"' in case
    encounters = case.split("4 encounters: ")[1].split("</svg></div>")[0]
    assert re.findall(r'<g class="(\w+)"><title>(day [^:]+)', encounters) == [
        ("read", "day −786"), ("read", "day −394"), ("after", "day 0"), ("after", "day 61"),
    ]  # fmt: skip
    assert '<rect class="stay"' in encounters
    row = case.split('data-rule="hf_unverified"')[1].split("</tr>")[0]
    assert "none of these:" in row and "901.5 pg/mL" in row and "furosemide" in row and "900" not in row
    record = case.split('class="record"')[1]
    assert re.search(
        r"<mark>furosemide</mark> <small>hf_unverified</small>", record.replace(" <small>day 1</small>", "")
    )
    assert "death, day 214" in article(page_of(ehr), "control 1")


def test_who_left_is_shown_where_he_left(ehr):
    page = page_of(ehr)
    early = article(page, "hf_too_early 1")
    assert 'data-group="hf_too_early" data-yes="hf_too_early hf_unverified"' in early
    assert early.count("leaves here") == 1
    assert 'class="took" data-rule="hf_too_early"' in early and 'class="later" data-rule="hf_unverified"' in early
    assert '<option value="hf_too_early">' in page
    undated = article(page, "incorrect_times 1")
    assert "encounters; not all days are known" in undated


def test_review_is_written_beside_the_dataset_with_a_key_of_its_own(ehr, tmp_path, monkeypatch):
    from medbert_jax.ehr.tables import read_source

    spec, source = load_spec("dhf").to_dict(), {"content_hash": read_source(ehr).content_hash}
    metadata = {"cohort": spec, "source": source}
    monkeypatch.setattr(chart_review, "read_metadata", lambda directory: metadata)
    pl.DataFrame({"patient_id": ["MRN-case"]}).write_parquet(tmp_path / "cohort.parquet")
    paths = write_review(ehr, tmp_path, 3, workers=1)
    assert paths == (tmp_path / PAGE, tmp_path / KEY)
    rows = list(csv.reader((tmp_path / KEY).read_text("utf-8").splitlines()))
    assert rows[:2] == [["name", "patient_id"], ["case 1", "MRN-case"]]
    assert ["control 1", "MRN-control"] not in rows and ["hf_too_early 1", "MRN-early"] in rows
    page = (tmp_path / PAGE).read_text("utf-8")
    assert page.count("<article") == len(rows) - 1 and KEY in page and "must not leave the site" in page
    metadata["source"] = {"content_hash": "other"}
    with pytest.raises(ValueError, match="reviewed on the EHR tables that it was made of"):
        write_review(ehr, tmp_path, 3)
    metadata.update(source=source, cohort={"name": "labels", "labels_sha256": "0"})
    with pytest.raises(ValueError, match="which has labels and no rules"):
        write_review(ehr, tmp_path, 3)
    metadata["cohort"] = spec
    with pytest.raises(ValueError, match="1 patient or more of each group: got 0"):
        write_review(ehr, tmp_path, 0)


def test_why_is_told_rule_by_rule(ehr, tmp_path):
    said = chart_text.explain_patient(ehr, "dhf", "MRN-early")
    lines = said.splitlines()
    assert lines[0].startswith("dhf: Leaves under hf_too_early: First heart failure less than 30 days")
    (place,) = [number for number, line in enumerate(lines) if line.startswith("yes hf_too_early")]
    assert lines[place].endswith("[paper, leave, cases alone]  ← leaves here")
    assert (
        "Days to: Heart failure, since the first of: Type 2 diabetes: 0; asks for fewer than 30 (met)"
        in lines[place + 1]
    )
    assert "day 0  ICD9CM/428.0  title of ICD9CM/428.0" in lines[place + 2]
    assert not re.search(r"\b20\d\d\b|MRN", said)
    assert "2 of 4 encounters" in chart_text.explain_patient(ehr, "dhf", "MRN-case")
    with pytest.raises(ValueError, match="got one that is not in"):
        chart_text.explain_patient(ehr, "dhf", "MRN-stranger")
    with pytest.raises(ValueError, match="holds no rules"):
        chart_text.explain_patient(ehr, str(tmp_path), "MRN-case")
    gap = chart_text.explain_patient(ehr, "paca", "MRN-control", gap_days=30)
    assert "the input that ends at day −29" in gap


def test_a_source_without_dates_goes_by_encounters(tmp_path):
    from made_ehr import made_tables

    write_tables(made_tables(60, seed=2, dates=False), tmp_path / "ehr")
    page = page_of(tmp_path / "ehr", "hf-later")
    assert "encounters; not all days are known" in page and "days from" not in page
    assert "input ends, after encounter" in page
