"""Shares of a total that may be published: nobody can compute a count of 1 to 10 from them."""

import itertools

import numpy as np
import pytest

from medbert_jax.attrition.disclosure import hidden_shares


@pytest.mark.parametrize(
    ("parts", "decimals", "expected"),
    [
        ([500, 4, 300], 1, ({0, 1}, False)),  # 62.2 % and 37.3 % of 804 leave 4: a partner must go
        ([600_000, 5, 400_000], 1, ({1}, False)),  # 60.0 % and 40.0 % of 1,000,005 leave anything up to 1,000
        ([600_000, 5, 400_000], 4, ({0, 1}, False)),  # with four decimals they leave 4 to 6
        ([5000, 12, 0, 3000], 1, (set(), False)),
        ([5, 8], 1, ({0, 1}, True)),  # nobody is big enough: not even the total
        ([24, 5], 1, ({0, 1}, False)),
        ([11, 5], 1, ({0, 1}, True)),
        ([20_001, 9], 1, ({1}, False)),  # any of 1 to 10 prints 100.0 %
        ([19_990, 9], 1, ({0, 1}, False)),
        ([0, 0, 0], 1, (set(), False)),
        ([40, 0], 1, (set(), False)),
    ],
)
def test_literal_parts(parts, decimals, expected):
    assert hidden_shares(parts, decimals=decimals) == expected


def possible(parts: list[int], hidden: set[int], decimals: int, part: int) -> set[int]:
    """Counts that a part which reads <11 may have, for a reader of the total and of the percentages that are left.

    By trying: a visible part is any count that prints alike, a hidden partner anything from 11 on.
    """
    total = sum(parts)
    sums = {0}
    for other, count in enumerate(parts):
        if other == part:
            continue
        if other not in hidden:
            printed = f"{100 * count / total:.{decimals}f}"
            may = [c for c in range(total + 1) if not 0 < c < 11 and f"{100 * c / total:.{decimals}f}" == printed]
        else:
            may = range(1, 11) if 0 < count < 11 else range(11, total + 1)
        sums = {one + c for one, c in itertools.product(sums, may) if one + c <= total}
    return {count for count in range(1, 11) if total - count in sums}


def test_every_hidden_count_stays_anything_from_1_to_10():
    random, checked, alone = np.random.default_rng(2), 0, 0
    for _ in range(120):
        sizes = random.choice([0, 4, 12, 900, 3000, 30_000], size=random.integers(2, 4))
        parts = [int(random.integers(size // 2, size + 1)) for size in sizes]
        small = {part for part, count in enumerate(parts) if 0 < count < 11}
        hidden, total_hidden = hidden_shares(parts, decimals=1)
        assert small <= hidden
        if total_hidden:
            continue
        for part in small:
            assert possible(parts, hidden, 1, part) == set(range(1, 11)), parts
            checked += 1
        alone += small == hidden != set()
    assert checked > 40 and alone > 5
    # Planted faults: the small one alone hidden, and rounding taken for wider than it is.
    assert possible([500, 4, 300], {1}, 1, 1) == {4}
    assert possible([3000, 4, 3000], {1}, 2, 1) == {4}


@pytest.mark.parametrize("decimals", [0, 1])
@pytest.mark.parametrize(("total", "third"), [(60, range(61)), (130, range(131)), (2500, (0, 3)), (4000, (0, 7))])
def test_who_knows_the_rule_too_finds_every_count_possible(total, third, decimals):
    """All tables of one total (and second part): those that print alike hold all of 1 to 10 in each small part."""
    found: dict[tuple, list[set[int]]] = {}
    for one, two in itertools.product(range(total + 1), third):
        if one + two > total:
            continue
        parts = [one, two, total - one - two]
        hidden, total_hidden = hidden_shares(parts, decimals=decimals)
        seen = tuple(
            "<11" if 0 < count < 11 else "hidden" if part in hidden else f"{100 * count / total:.{decimals}f}"
            for part, count in enumerate(parts)
        )
        if not total_hidden:
            values = found.setdefault(seen, [set(), set(), set()])
            for part, count in enumerate(parts):
                values[part].add(count)
    free = [part for part in range(3) if part != 1 or len(third) > 2]
    small = [values[part] for seen, values in found.items() for part in free if seen[part] == "<11"]
    assert small and all(values == set(range(1, 11)) for values in small)
