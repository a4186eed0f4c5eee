"""Small counts in figures meant for sharing: which cells to hide so that none of them follows from the others."""

from collections.abc import Sequence

SMALLEST = 11
"""Counts of 1 to 10 name too few; 0 names nobody and is shown."""


def hidden_cells(parts: Sequence[int], groups: Sequence[int]) -> tuple[set[int], set[int]]:
    """Parts of one total, taken off it one after the other: which parts and which remainders to hide.

    Every part of 1 to 10 is hidden, together with a bigger one (of its own group where it can, then the nearest) and
    all remainders between the two. What stays visible tells the sum of the hidden parts only, and leaves each small
    one everything from 1 to 10. Where no part is big enough for that, all cells are hidden.

    Args:
        parts: counts whose sum is the total.
        groups: which parts stand together, one number per part.

    Returns:
        Numbers of the hidden parts, and of the hidden remainders (n: what is there once n parts are off; 0: the total).
    """
    small = [part for part, count in enumerate(parts) if 0 < count < SMALLEST]
    spread = SMALLEST - 2  # between 1 and 10: by so much may a hidden partner be smaller than it is
    room = {part: count - SMALLEST for part, count in enumerate(parts)}
    hidden, remainders = set(small), set()
    for part in small:
        partners = [other for other in room if room[other] >= spread]
        if not partners:
            return {part for part, count in enumerate(parts) if count}, set(range(len(parts) + 1))
        partner = min(partners, key=lambda other: (groups[other] != groups[part], abs(other - part), other))
        room[partner] -= spread
        hidden.add(partner)
        remainders |= set(range(min(part, partner) + 1, max(part, partner) + 1))
    return hidden, remainders
