"""Steps in a row, each of which takes what the one before kept, and the groups that the last one's fall into."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from medbert_jax.attrition.disclosure import SMALLEST, hidden_cells, refuse_predictions
from medbert_jax.attrition.ledger import Counts, Ledger, levels_of

Cell = int | str
Branches = Mapping[str, Counts | Mapping[str, Counts]]
"""Groups by name; one that falls into further groups has these in place of its counts."""


@dataclass(frozen=True)
class Attrition:
    """Steps in a row, each taking what the one before kept, and the groups that the last one's fall into.

    Raises ValueError where a step takes something else than was kept, or the groups don't add up to what was kept. A
    level that no group counts is not compared.
    """

    steps: Sequence[Ledger]
    branches: Branches = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.steps:
            raise ValueError("an attrition needs at least one ledger: got none; give the ledgers in order")
        handed = [
            (f'"{one.title}" keeps and "{two.title}" takes', asdict(one.kept), asdict(two.came))
            for one, two in zip(self.steps, self.steps[1:], strict=False)
        ]
        together = asdict(sum(self._ends(), Counts()))
        kept = {level: count for level, count in asdict(self.steps[-1].kept).items() if together[level]}
        handed.append((f'"{self.steps[-1].title}" keeps and {", ".join(self.branches)} are', kept, together))
        if off := [
            f"{what} {count:,} and {there[level]:,} {level}"
            for what, known, there in handed
            for level, count in known.items()
            if count != there[level]
        ]:
            raise ValueError(
                f"each step must take what the one before kept, difference 0: got {'; '.join(off)}; "
                "give the ledgers of one run, in order"
            )

    def groups(self) -> list[tuple[tuple[str, ...], range]]:
        """Every branch: its name after that of the branch that it is of, and which of the smallest branches are its."""
        found, start = [], 0
        for name, inside in self.branches.items():
            below = [] if isinstance(inside, Counts) else list(inside)
            found.append(((name,), range(start, start + max(len(below), 1))))
            found += [((name, other), range(place, place + 1)) for place, other in enumerate(below, start)]
            start = found[-1][1].stop
        return found

    def _ends(self) -> list[Counts]:
        nested = ([one] if isinstance(one, Counts) else [*one.values()] or [Counts()] for one in self.branches.values())
        return [counts for several in nested for counts in several]

    def cells(self, *, share: bool = False) -> dict[str, tuple[list[Cell], list[Cell], list[Cell]]]:
        """Counts as they are to be read, by level: what left at each line, what remains, the branches.

        Lines go on through the steps; remainder n is what is there after n of them, remainder 0 what came in. Branches
        are those of `groups`; they read "" where none counts a level. With `share`, counts of 1 to 10 read "<11", and
        those that would give them away "hidden" (`hidden_cells`); the files of one run are safe together when all are
        made with the same steps and branches.

        Raises ValueError where predictions are to be shared: how few patients they are of, their number does not say.
        """
        refuse_predictions(share and "predictions" in levels_of(self.steps))
        lines = [(number, line.left) for number, step in enumerate(self.steps) for line in step.lines]
        branches, cells = self.groups(), {}
        for level in levels_of(self.steps):
            left = [getattr(counts, level) for _, counts in lines]
            ends = [getattr(counts, level) for counts in self._ends()]
            came, kept = getattr(self.steps[0].came, level), getattr(self.steps[-1].kept, level)
            remainders = [came - sum(left[:number]) for number in range(len(left) + 1)]
            parts, covered = [*left, *(ends if any(ends) else [kept])], set()
            if share:
                near = [number for number, _ in lines] + [-1] * (len(parts) - len(left))
                for place, (_, inside) in enumerate(branches if any(ends) else []):
                    if len(inside) > 1:
                        near[len(left) + inside.start : len(left) + inside.stop] = [-2 - place] * len(inside)
                marked, covered = hidden_cells(parts, near)
                parts = [
                    "<11" if 0 < count < SMALLEST else "hidden" if part in marked else count
                    for part, count in enumerate(parts)
                ]
            remain = ["hidden" if number in covered else count for number, count in enumerate(remainders)]
            shown = [""] * len(branches)
            if any(ends):
                for place, (_, inside) in enumerate(branches):
                    of = range(len(left) + inside.start, len(left) + inside.stop)
                    # The sum follows from the remainders at its two ends, or from its parts.
                    secret = covered & {of.start, of.stop} and any(isinstance(parts[part], str) for part in of)
                    shown[place] = "hidden" if secret else sum(ends[inside.start : inside.stop])
                    if len(of) == 1:
                        shown[place] = parts[of.start]
            else:
                remain[-1] = parts[-1]
            cells[level] = parts[: len(left)], remain, shown
        return cells

    def to_csv(self, *, share: bool = False) -> str:
        """One row per rule and per branch: step, rule, text, tag, then what came, left and is kept at each level.

        A branch has its name as text and only what is kept, "train: cases" where it is of another. For `share` see
        `cells`.
        """
        cells, out, moves = self.cells(share=share).values(), io.StringIO(), ("came", "left", "kept")
        writer = csv.writer(out, lineterminator="\n")
        columns = (f"{level}_{move}" for level in levels_of(self.steps) for move in moves)
        writer.writerow(["step", "rule", "text", "tag", *columns])
        for number, (title, line) in enumerate((step.title, line) for step in self.steps for line in step.lines):
            counts = (cell for left, remain, _ in cells for cell in (remain[number], left[number], remain[number + 1]))
            writer.writerow([title, line.rule, line.text, line.tag, *counts])
        for number, (names, _) in enumerate(self.groups()):
            counts = (cell for _, _, ends in cells for cell in ("", "", ends[number]))
            writer.writerow([self.steps[-1].title, "branch", ": ".join(names), "", *counts])
        return out.getvalue()
