"""Days that stand for "unknown": told by what they are, or by how many come on them."""

from collections import Counter
from datetime import date, timedelta

import pytest

from medbert_jax.quality.default_days import default_days

START = date(2011, 1, 1)


def usual(per_day=3, days=1000):
    """First visits that become fewer, as those of a source that begins on a day do."""
    return Counter({START + timedelta(days=n): 1 + per_day * (days - n) // days for n in range(days)})


def test_the_first_days_of_a_source_are_none():
    assert default_days(usual()) == {}
    assert default_days(usual(per_day=60, days=300)) == {}


@pytest.mark.parametrize("day", [date(1970, 1, 1), date(1900, 1, 1), date(1753, 1, 1)])
def test_a_day_from_which_programs_count_is_one_whoever_has_it(day):
    assert default_days(usual() + Counter({day: 1})) == {day: 1}


@pytest.mark.parametrize("day", [date(2001, 1, 1), date(2012, 6, 15)])
def test_any_other_is_one_by_its_share_among_its_neighbours(day):
    many = usual() + Counter({day: 400})
    assert default_days(many) == {day: many[day]}
    assert default_days(usual() + Counter({day: 10})) == {}


def test_a_small_source_that_begins_on_one_day_is_not_named_for_ten():
    assert default_days(Counter({START: 10})) == {}
