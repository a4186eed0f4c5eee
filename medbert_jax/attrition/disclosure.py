"""What may be shown to others: small counts and the percentages that tell them, ages, names that hold digits."""

import re
from collections.abc import Sequence

SMALLEST = 11
"""Counts of 1 to 10 name too few; 0 names nobody and is shown."""
OLDEST_SHOWN = 89
"""Years; older people are few enough to be known by their age."""


def hidden_cells(parts: Sequence[int], groups: Sequence[int]) -> tuple[set[int], set[int]]:
    """Parts of one total, taken off it one after the other: which parts and which remainders to hide.

    Every part of 1 to 10 is hidden, together with a bigger one (of its own group where it can, then the nearest), more
    where that is too little, and all remainders between them. Where all parts are too little, all cells are hidden.

    Whoever sees the other cells, which parts are small, and knows this function, finds every combination of 1 to 10
    in the small parts possible. For parts are put together by place alone, and published is only the sum of a set, once
    it is more than 10 for each small part and 11 for each bigger one: whatever the small ones are, the bigger one that
    came last makes up for it and stays bigger. That an earlier, smaller set was not enough tells no small part either:
    with 11 for each bigger part it never is.

    Args:
        parts: counts whose sum is the total.
        groups: which parts stand together, one number per part.

    Returns:
        Numbers of the hidden parts, and of the hidden remainders (n: what is there once n parts are off; 0: the total).
    """
    small = [part for part, count in enumerate(parts) if 0 < count < SMALLEST]
    free = {part for part, count in enumerate(parts) if count >= SMALLEST}

    def nearest(part: int) -> int | None:
        return min(free, key=lambda other: (groups[other] != groups[part], abs(other - part), other), default=None)

    served: dict[int | None, set[int]] = {}  # small parts by the bigger one that they hide behind
    for part in small:
        served.setdefault(nearest(part), set()).add(part)
    hidden, remainders = set(), set()
    for part in small:
        if part in hidden:
            continue
        together: set[int] = set()
        while sum(parts[one] for one in together) <= sum(
            SMALLEST if parts[one] >= SMALLEST else SMALLEST - 1 for one in together
        ):
            partner = nearest(part)
            if partner is None:
                return {part for part, count in enumerate(parts) if count}, set(range(len(parts) + 1))
            free.remove(partner)
            together |= {partner} | served.get(partner, set())
        hidden |= together
        remainders |= set(range(min(together) + 1, max(together) + 1))
    return hidden, remainders


def hidden_shares(parts: Sequence[int], *, decimals: int) -> tuple[set[int], bool]:
    """Parts of one total that are published as percentages of it, beside the total: which parts to hide.

    Every part of 1 to 10 is hidden, and its bigger partners as `hidden_cells` says; but a lone partner is shown where
    its percentage prints the same whatever from 1 to 10 the small parts are: 5 of a million are not told by "100.0 %".
    Whether it does follows from what is public anyway, so that showing it tells nothing to who knows this rule.

    Args:
        parts: counts whose sum is the total.
        decimals: of the percentages.

    Returns:
        Numbers of the hidden parts, and whether the total must be hidden as well.
    """
    small, total = {part for part, count in enumerate(parts) if 0 < count < SMALLEST}, sum(parts)
    hidden, remainders = hidden_cells(parts, [0] * len(parts))
    if 0 in remainders:
        return hidden, True
    if len(partners := hidden - small) == 1:
        together = sum(parts[part] for part in hidden)
        counts = range(together - (SMALLEST - 1) * len(small), together - len(small) + 1)
        if len({f"{100 * count / total:.{decimals}f}" for count in counts}) == 1:
            return hidden - partners, False
    return hidden, False


def refuse_predictions(several: bool) -> None:
    """Raise ValueError where what is to be shared counts predictions, of which a patient may have `several`."""
    if several:
        raise ValueError(
            "counts that are shared must be of patients: got predictions, several of a patient, of which 11 may be of"
            " one; share a cohort that was made with --labels first, last or random"
        )


def masked(name: str) -> str:
    """A file's or column's name that the project did not give: its digits may be a patient's id or a date."""
    return re.sub(r"\d", "#", name)
