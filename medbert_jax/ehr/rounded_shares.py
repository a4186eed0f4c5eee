"""Percentages in figures meant for sharing: which parts of a total to hide, given how they are rounded."""

from collections.abc import Sequence

from medbert_jax.ehr.disclosure import SMALLEST, hidden_cells


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
