"""Example timelines: who is chosen, what is told of them, and what never is."""

import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from made_datasets import Drawn, write_drawn

from medbert_jax.data.vocabulary import UNK
from medbert_jax.description.chart_timeline import timeline
from medbert_jax.description.descriptives import describe_dataset
from medbert_jax.description.timeline_page import timeline_page
from medbert_jax.description.timelines import PERCENTILES, chart_text, choose_patients, example_charts

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


def test_a_chart_as_text(cohort):
    first, second, third = example_charts(cohort, describe_dataset(cohort))
    assert chart_text(first) == (
        "patient 1: sex unknown, age unknown; label 0; 1 code (percentile 5) in 1 visit\n"
        "  visit 1\n"
        "    + ICD10CM/E11.9  Type 2"
    )
    assert chart_text(second) == (
        "patient 2: male, 54 years; label 1; 3 codes (percentile 50) in 2 visits over 412 days\n"
        "  day 0\n"
        "    + ICD9CM/250.00  Diabetes\n"
        "  day 412, 1 day\n"
        "    + LOCAL/<b>&\n"
        "    = ICD9CM/250.00  Diabetes\n"
        "  day 500: index"
    )
    text = chart_text(third)
    assert text.startswith("patient 3: female, over 89 years; label 0; 29 codes (percentile 75) in 15 visits over 420")
    days = [int(day) for day in re.findall(r"^  day (\d+)(?:,.*)?$", text, re.MULTILINE)]
    assert days == [0, 30, 60, 90, 120, 150, 270, 300, 330, 360, 390, 420] and "  … 3 more visits …" in text


def test_who_is_censored_has_no_label_and_a_code_outside_of_the_vocabulary_is_called_so(tmp_path):
    visits = [(0, 20_000, 0, [ICD9, UNK]), (412, 20_412, 1, [UNK, ICD9])]
    directory = write_drawn(
        tmp_path / "hf" / "1.0.0", {"train": [Drawn(visits, event=-1)]}, kind="cohort", codes=CODES, titles=TITLES
    )
    (chart,) = example_charts(directory, describe_dataset(directory))
    assert chart_text(chart) == (
        "patient 1: sex unknown, 54 years; censored, label unknown; 4 codes (percentile 5) in 2 visits over 412 days\n"
        "  day 0\n"
        "    + ICD9CM/250.00  Diabetes\n"
        "    + <UNK>  a code that is not in the vocabulary\n"
        "  day 412, 1 day\n"
        "    + <UNK>  a code that is not in the vocabulary\n"
        "    = ICD9CM/250.00  Diabetes"
    )


def test_the_page_needs_nothing_beside_itself_and_names_nobody(cohort):
    about = describe_dataset(cohort)
    charts = example_charts(cohort, about)
    page = timeline_page([("hf <cohort>", charts)])
    text = page + "".join(map(chart_text, charts))
    # No id, no date (the prediction time of all is in 2009), nobody of the test split, no other resource.
    assert not re.search(r"secret|2009|1234567|\b\d{4}-\d\d-\d\d|src=|href=|url\(|@import", text)
    assert sum(len(visit.codes) for visit in charts[-1].visits) == 29
    assert "hf &lt;cohort&gt;" in page and "LOCAL/&lt;b&gt;&amp;" in page and "<b>" not in page
    assert "Records of single patients" in page and page.count('<div class="timeline by-code">') == 3
    body = re.search(r"<body>.*</body>", page, re.DOTALL)[0]
    ElementTree.fromstring(body.replace("<details open>", "<details>"))  # well-formed


def test_the_svg_draws_days_to_scale(cohort):
    undated, second, _ = example_charts(cohort, describe_dataset(cohort))
    drawn = ElementTree.fromstring(timeline(second, by_code=True))
    dots = [(dot.get("cx"), dot.get("class")) for dot in drawn.iter("circle")]
    # 3 % at day 0, 97 % at day 500, the index.
    assert dots == [("3.00%", "new"), ("80.46%", "new"), ("80.46%", "again")]
    assert {line.get("x1") for line in drawn.iter("line") if line.get("class") == "index"} == {"97.00%"}
    (stay,) = (rect for rect in drawn.iter("rect") if rect.get("class") == "stay")
    assert (stay.get("x"), stay.get("width")) == ("80.46%", "0.19%")
    texts = [text.text for text in drawn.iter("text")]
    assert texts == ["index, day 500", "0", "100", "200", "300", "400", "500", "days from the first encounter"]
    drawn = ElementTree.fromstring(timeline(undated, by_code=True))
    assert [text.text for text in drawn.iter("text")] == ["1", "encounters; not all days are known"]


def test_an_index_by_day_is_not_drawn_where_visits_stand_by_number(cohort):
    _, second, _ = example_charts(cohort, describe_dataset(cohort))
    visits = (replace(second.visits[0], day=None), second.visits[1])
    undated = replace(second, visits=visits)
    assert "day 500: index" in chart_text(undated) and "  visit 1\n" in chart_text(undated)
    drawn = timeline(undated, by_code=True)
    assert 'class="index"' not in drawn and "encounters; not all days are known" in drawn and "stay" not in drawn


def test_a_column_of_dots_ends_in_the_number_of_those_left_out(tmp_path):
    people = [Drawn([(0, 9000, 0, [ICD9] * codes)]) for codes in (14, 16)]
    directory = write_drawn(tmp_path / "many" / "1.0.0", {"train": people}, codes=CODES, titles=TITLES)
    for chart, more in zip(example_charts(directory, describe_dataset(directory)), ([], ["+2"]), strict=True):
        drawn = ElementTree.fromstring(timeline(chart, by_code=True))
        assert len([*drawn.iter("circle")]) == 14
        assert [text.text for text in drawn.iter("text") if text.text.startswith("+")] == more
