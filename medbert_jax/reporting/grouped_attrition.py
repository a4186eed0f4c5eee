"""An attrition with so few lines that its flow chart fits a printed page: neighbouring rules are put together."""

import itertools

from medbert_jax.attrition.ledger import Counts, Ledger, LedgerLine
from medbert_jax.attrition.steps import Attrition

MOST = 8
"""Lines of all steps that took patients."""


def grouped(attrition: Attrition, most: int = MOST) -> Attrition:
    """The attrition with at most so many lines that took patients: neighbours that took fewest are put together.

    What took nothing joins no group. Counts add up as before.
    """
    steps = [list(step.lines) for step in attrition.steps]
    while sum(_busy(line) for lines in steps for line in lines) > most:
        pairs = [
            (sum(_took(lines[place]) for place in (one, two)), number, one, two)
            for number, lines in enumerate(steps)
            for one, two in _neighbours(lines)
        ]
        if not pairs:
            break
        _, number, one, two = min(pairs)
        lines = steps[number]
        lines[one : two + 1] = [
            *(line for line in lines[one : two + 1] if not _busy(line)),
            _joined(lines[one], lines[two]),
        ]
    return Attrition(
        [Ledger(step.title, step.came, lines) for step, lines in zip(attrition.steps, steps, strict=True)],
        attrition.branches,
    )


def _busy(line: LedgerLine) -> bool:
    return line.left != Counts()


def _took(line: LedgerLine) -> int:
    """Patients, or predictions where they are counted: each of these is of one patient."""
    return max(line.left.patients, line.left.predictions)


def _neighbours(lines: list[LedgerLine]) -> list[tuple[int, int]]:
    """Places of lines that took something, with nothing but idle ones between; what came is put together with none."""
    busy = [place for place, line in enumerate(lines) if _busy(line)]
    return [pair for pair in itertools.pairwise(busy) if all(lines[place].left.predictions >= 0 for place in pair)]


def _joined(one: LedgerLine, two: LedgerLine) -> LedgerLine:
    tag = one.tag if one.tag == two.tag else "ours"
    return LedgerLine(f"{one.rule}+{two.rule}", f"{one.text}; {two.text}", tag, one.left + two.left)
