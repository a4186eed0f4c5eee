"""The page in a real browser, from disk: it says nothing on the console, asks for nothing, and every control works."""

from dataclasses import replace

import pytest
from chromium import BROWSER, browser
from reporting.made_report import MODEL, made_cohort, made_figures

from medbert_jax.cohorts.loading import load_spec
from medbert_jax.reporting.report import write_report

HOSTILE = "<img src=x onerror=alert(1)></script><script>alert(2)</script>\"'&`"
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def tab():
    with browser() as page:
        yield page


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    spec = replace(load_spec("dhf"), title=f"Heart failure {HOSTILE}", description=HOSTILE)
    cohorts = [made_cohort(HOSTILE, spec=spec), made_cohort("second", evaluation=None, missing="predictions are gone")]
    with pytest.MonkeyPatch.context() as patch:
        figures = {cohorts[0].experiment: made_figures()}
        patch.setattr("medbert_jax.reporting.report._figures", lambda cohort, _: figures[cohort.experiment])
        return write_report(cohorts, tmp_path_factory.mktemp("report") / "page")


@pytest.fixture
def page(tab, written):
    tab.said.clear(), tab.asked.clear()
    tab.open(written.as_uri())
    return tab


def outputs(page) -> dict[str, str]:
    return page.run(
        "Object.fromEntries([...document.forms[0].querySelectorAll('output')]"
        ".map((one) => [one.dataset.out, one.value]))"
    )


def test_it_says_nothing_and_asks_for_nothing(page, written):
    assert page.said == []
    assert page.asked[0] == written.as_uri() and all(address.startswith("data:") for address in page.asked[1:])
    assert page.run("[...document.images].every((one) => one.complete && one.naturalWidth > 0)")
    assert page.run("document.images.length") == 9  # seven figures, two flows
    assert page.run("fetch('https://example.org').then(() => 'open', () => 'closed')") == "closed"


def test_hostile_titles_are_text(page):
    assert page.said == []  # no dialog
    assert page.run("document.title") == f"Report: {HOSTILE}, second"
    assert page.run("document.querySelectorAll('script').length") == 2
    assert page.run("document.querySelectorAll('img[onerror], [src=x]').length") == 0
    assert HOSTILE in page.run("document.querySelector('.question').textContent")


def test_every_control_does_what_it_says(page):
    controls = "select, input, summary, a[href], button, [contenteditable]"
    kinds = page.run(f"[...document.querySelectorAll('{controls}')].map((one) => one.localName)")
    assert {kind: kinds.count(kind) for kind in kinds} == {"a": 2, "select": 1, "input": 1, "summary": 15}
    assert page.run("document.querySelectorAll('details').length") == 15
    before = outputs(page)
    assert before["risk"] == "10.0 %" and int(before["flagged"]) == int(before["caught"]) + int(before["false"])
    page.run(
        "{ const one = document.forms[0].querySelector('input'); one.value = Number(one.value) + 20;"
        " one.dispatchEvent(new Event('input', { bubbles: true })); }"
    )
    after = outputs(page)
    assert after["risk"] == "30.0 %" and int(after["flagged"]) < int(before["flagged"])
    counts = sum(int(after[name]) for name in ("caught", "false", "missed", "spared"))
    assert abs(counts - 1000) <= 2
    widths = page.run(
        "[...document.forms[0].querySelectorAll('.bar i')].map((one) => one.getBoundingClientRect().width)"
    )
    assert min(widths) > 0
    page.run(
        "{ const one = document.forms[0].querySelector('select'); one.selectedIndex = 1;"
        " one.dispatchEvent(new Event('input', { bubbles: true })); }"
    )
    other = outputs(page)
    assert other["risk"] == "30.0 %" and other["flagged"] != after["flagged"]
    opened = page.run(
        "[...document.querySelectorAll('summary')].map((one) => {"
        " const before = one.parentElement.getBoundingClientRect().height; one.click();"
        " return one.parentElement.open && one.parentElement.getBoundingClientRect().height > before; })"
    )
    assert opened == [True] * 15
    assert page.run("[...document.querySelectorAll('a')].map((one) => { one.click(); return location.hash; })") == [
        f"#{name}" for name in page.run("[...document.querySelectorAll('section')].map((one) => one.id)")
    ]
    assert page.said == []


def test_a_point_of_the_slider_is_that_of_the_evaluation(page):
    curves = made_cohort().evaluation.curves.filter(model=MODEL, x=0.1)
    of = dict(curves.select("curve", "y").iter_rows())
    said = outputs(page)
    assert said["sensitivity"] == f"{100 * of['sensitivity']:.1f} %" and said["ppv"] == f"{100 * of['ppv']:.1f} %"
    assert said["flagged"] == f"{1000 * of['flagged']:.0f}"
    assert said["missed"] == f"{1000 * (1 - of['flagged']) * (1 - of['npv']):.0f}"


@pytest.mark.parametrize("width", [390, 1400])
def test_it_is_no_wider_than_the_window(page, width):
    page.resize(width)
    assert page.run("document.documentElement.scrollWidth") <= width


def test_what_is_folded_is_printed(page, tmp_path):
    folded = "document.querySelectorAll('details:not([open])').length"
    assert page.run(folded) == 15
    page.run("dispatchEvent(new Event('beforeprint'))")
    assert page.run(folded) == 0
    page.run("dispatchEvent(new Event('afterprint'))")
    assert page.run(folded) == 15
    page.pdf(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
