"""A chart's own words: days, stays, ages and persons."""

import pytest

from medbert_jax.description.chart import Chart, Visit, age_words, day_words, person_words


def visit(day, stay, type=None) -> Visit:
    return Visit(order=2, day=day, stay=stay, type=type, codes=())


@pytest.mark.parametrize(
    ("day", "stay", "heading", "words"),
    [
        (412, 3, "day 412, 3 days", "inpatient, 3 days"),
        (1024, 1, "day 1,024, 1 day", "inpatient, 1 day"),
        (-12, 0, "day −12", "inpatient, 0 days"),
        (None, None, "visit 2", "inpatient"),
        (None, -1, "visit 2", "inpatient, discharged 1 day before the admission"),
    ],
)
def test_a_visit_in_words(day, stay, heading, words):
    assert (visit(day, stay).heading, visit(day, stay, "inpatient").words) == (heading, words)
    assert visit(day, stay).words == words.replace("inpatient", "type unknown")


def test_days_and_persons_in_words():
    assert (day_words(None), day_words(-1234)) == ("day unknown", "day −1,234")
    assert [age_words(years) for years in (None, 0, 89, 90)] == ["age unknown", "0 years", "89 years", "over 89 years"]
    assert person_words(None, 61) == "sex unknown, 61 years" and person_words("female", None) == "female, age unknown"


def test_the_axis_is_days_only_where_every_visit_has_one():
    def chart(*days) -> Chart:
        return Chart(person="", outcome="", visits=tuple(visit(day, 0) for day in days), annotations=())

    assert chart(0, 3).by_day and not chart(0, None, 3).by_day
