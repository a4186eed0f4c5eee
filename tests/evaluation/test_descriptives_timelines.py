"""Example timelines: who is chosen, what is told of them, and what never is."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from made_datasets import Drawn, write_drawn

from medbert_jax.evaluation.descriptives import describe_dataset
from medbert_jax.evaluation.timeline_page import timeline_page, timeline_svg
from medbert_jax.evaluation.timelines import PERCENTILES, choose_patients, example_timelines, timeline_text

CODES = ("ICD9CM/250.00", "ICD10CM/E11.9", "LOCAL/<b>&")
TITLES = ("Diabetes", "Type 2", "")
ICD9, E11, LOCAL = 16, 17, 18
LONG = [(30 * n, 33_000 + 30 * n, n % 3, [ICD9, E11] if n else [E11]) for n in range(15)]


@pytest.fixture
def cohort(tmp_path):
    patients = [
        Drawn([(0, 20_000, 0, [ICD9]), (412, 20_412, 1, [LOCAL, ICD9])], sex=2, event=1, index_day=500, id="secret-1"),
        Drawn(LONG, sex=1, index_day=430, id="secret-2"),
        Drawn([(-1, -1, -1, [E11])], id="secret-3"),
    ]
    held_out = [Drawn([(0, 1, 1, [E11] * 99)], id="secret-4")]
    splits = {"train": patients, "test": held_out}
    return write_drawn(tmp_path / "hf" / "1.0.0", splits, kind="cohort", codes=CODES, titles=TITLES)


def test_patients_stand_at_the_stated_percentiles_and_the_seed_draws_among_equals():
    lengths = np.repeat([3, 5, 9, 40], [400, 300, 200, 100])
    np.random.default_rng(1).shuffle(lengths)
    chosen = choose_patients(lengths, PERCENTILES, seed=0)
    assert {percent: int(lengths[patient]) for percent, patient in chosen.items()} == {
        5: 3,
        25: 3,
        50: 5,
        75: 9,
        95: 40,
    }
    assert choose_patients(lengths, PERCENTILES, seed=0) == chosen
    others = [choose_patients(lengths, PERCENTILES, seed) for seed in range(1, 9)]
    assert len({one[50] for one in others}) > 4
    assert choose_patients(np.array([7, 2]), PERCENTILES, seed=3) == {5: 1, 75: 0}  # one row per patient


def test_a_timeline_as_text(cohort):
    first, second, third = example_timelines(cohort, describe_dataset(cohort))
    assert timeline_text(first) == (
        "patient 1: sex unknown, age unknown; label 0; 1 code (percentile 5) in 1 visit\n"
        "  visit 1\n"
        "    + ICD10CM/E11.9  Type 2"
    )
    assert timeline_text(second) == (
        "patient 2: male, 54 years; label 1; 3 codes (percentile 50) in 2 visits over 412 days\n"
        "  day 0\n"
        "    + ICD9CM/250.00  Diabetes\n"
        "  day 412, 1 day\n"
        "    + LOCAL/<b>&\n"
        "    = ICD9CM/250.00  Diabetes\n"
        "  day 500: index"
    )
    text = timeline_text(third)
    assert text.startswith("patient 3: female, over 89 years; label 0; 29 codes (percentile 75) in 15 visits over 420")
    days = [int(day) for day in re.findall(r"^  day (\d+)(?:,.*)?$", text, re.MULTILINE)]
    assert days == [0, 30, 60, 90, 120, 150, 270, 300, 330, 360, 390, 420] and "  … 3 more visits …" in text


def test_the_page_needs_nothing_beside_itself_and_names_nobody(cohort):
    about = describe_dataset(cohort)
    timelines = example_timelines(cohort, about)
    page = timeline_page([("hf <cohort>", timelines)])
    text = page + "".join(map(timeline_text, timelines))
    # No id, no date (the prediction time of all is in 2009), nobody of the test split, no other resource.
    assert not re.search(r"secret|2009|1234567|\b\d{4}-\d\d-\d\d|src=|href=|url\(|@import", text)
    assert timelines[-1].codes == 29
    assert "hf &lt;cohort&gt;" in page and "LOCAL/&lt;b&gt;&amp;" in page and "<b>" not in page
    assert "Records of single patients" in page and page.count("<svg") == 3
    body = re.search(r"<body>.*</body>", page, re.DOTALL)[0]
    ElementTree.fromstring(body.replace("<details open>", "<details>"))  # well-formed


def test_the_svg_draws_days_to_scale(cohort):
    undated, second, _ = example_timelines(cohort, describe_dataset(cohort))
    svg = ElementTree.fromstring(timeline_svg(second))
    dots = [(float(dot.get("cx")), dot.get("class")) for dot in svg.iter("circle")]
    # 16 px at day 0, 936 px at day 500, the index.
    assert dots == [(16.0, "new"), (774.1, "new"), (774.1, "again")]
    index = next(path.get("d") for path in svg.iter("path") if path.get("class") == "index")
    assert index.startswith("M936.0 4V")
    ticks = [text.text for text in svg.iter("text")]
    assert ticks == ["0", "100", "200", "300", "400", "500", "day", "index"]
    svg = ElementTree.fromstring(timeline_svg(undated))
    assert [text.text for text in svg.iter("text")] == ["1", "visit (no days known)"]
