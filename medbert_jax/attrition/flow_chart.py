"""The flow chart of an attrition, like the paper's Fig. 1, as SVG that needs nothing beside itself."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from xml.sax.saxutils import escape

from medbert_jax.attrition.ledger import Ledger, levels_of, signed
from medbert_jax.attrition.steps import Attrition, Branches, Cell

SIZE, LEADING, PADDING, GAP, MARGIN = 13, 18, 10, 24, 20  # px
KEPT_WIDTH, LEFT_WIDTH, BRANCH_WIDTH = 300, 400, 175
LEFT_AT = MARGIN + KEPT_WIDTH + 40
GREY = "#767676"  # as far from white as from black: lines stand on light pages and on dark ones
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# Widths in em in the widest of the usual sans-serif faces, DejaVu Sans Bold.
_EMS = {
    **dict.fromkeys("ijlI.,:;'|!()[] ", 0.46),
    **dict.fromkeys("frt-/\"", 0.53),
    **dict.fromkeys("mwMWOQ%@−→≥≤<>=+–…", 1.1),
    **dict.fromkeys("ABCDEFGHJKLNPRSTUVXYZ", 0.84),
}  # fmt: skip
_EM = 0.72  # other letters and digits; those of wide scripts take 1.2


@dataclass(frozen=True)
class _Box:
    """A box by its upper left corner; lines of text, each with whether it is bold."""

    x: float
    y: float
    width: float
    lines: list[tuple[str, bool]]

    @property
    def bottom(self) -> float:
        return self.y + 2 * PADDING + LEADING * len(self.lines)

    @property
    def centre(self) -> float:
        return self.x + self.width / 2

    def svg(self) -> str:
        frame = f'x="{self.x:g}" y="{self.y:g}" width="{self.width:g}" height="{self.bottom - self.y:g}"'
        texts = (
            f'<text x="{self.x + PADDING:g}" y="{self.y + PADDING + LEADING * number + SIZE:g}"'
            f' font-weight="{700 if bold else 400}">{_xml(line)}</text>'
            for number, (line, bold) in enumerate(self.lines)
        )
        return "\n".join([f'<rect {frame} rx="3" fill="#fbfbfa" stroke="{GREY}"/>', *texts])


def flow_chart(ledgers: Sequence[Ledger], *, branches: Branches | None = None, share: bool = False) -> str:
    """An SVG document: what is kept downwards, who left to the right, the groups of those who stay at the bottom.

    A box of what is kept ends every step, and follows every rule that took patients where more is to come; rules that
    took nothing are named together.

    Args:
        ledgers: steps in order, each taking what the one before kept.
        branches: groups of what the last step kept, by name: the splits, or in each of them cases and controls.
        share: hide counts of 1 to 10, and those that would give them away (`Attrition.cells`).

    Raises:
        ValueError: steps or branches that do not add up.
    """
    attrition = Attrition(ledgers, branches or {})
    cells, groups = attrition.cells(share=share), attrition.groups()
    of_all = [counts for step in ledgers for counts in (step.came, step.kept)]
    counted = [level for level in levels_of(ledgers) if any(getattr(one, level) for one in of_all)] or ["patients"]

    def shown(count: Cell, left: bool) -> str:
        return count if isinstance(count, str) else signed(count) if left else f"{count:,}"

    def box(
        x: float, y: float, width: float, head: str, words: str, counts: Mapping[str, Cell], *, left: bool = False
    ) -> _Box:
        room = width - 2 * PADDING
        numbers = [
            f"{level} hidden" if count == "hidden" else f"{shown(count, left)} {level}"
            for level, count in counts.items()
            if count != ""
        ]
        # Patients in a line of their own, visits and codes after them.
        groups = [(head, True), (words, False), *((text, True) for text in numbers[:1])]
        groups.append((" · ".join(numbers[1:]), False))
        return _Box(x, y, width, [(line, bold) for text, bold in groups for line in wrap(text, room, bold=bold)])

    def kept(y: float, number: int, head: str, title: str = "") -> _Box:
        remain = {level: cells[level][1][number] for level in counted}
        return box(MARGIN, y, KEPT_WIDTH, head, title, remain)

    main, side, number = [kept(MARGIN, 0, "In", ledgers[0].title)], [], 0
    for step in ledgers:
        left = {
            line: {level: cells[level][0][number + place] for level in counted if getattr(line.left, level)}
            for place, line in enumerate(step.lines)
        }
        busy, y = [line for line in step.lines if left[line]], main[-1].bottom + GAP
        for line in busy:
            side.append(box(LEFT_AT, y, LEFT_WIDTH, "", f"{line.text} ({line.tag})", left[line], left=True))
            y = side[-1].bottom + GAP
            if (line.left.patients or line.left.predictions) and line is not busy[-1]:
                main.append(kept(y, number + step.lines.index(line) + 1, "Kept"))
                y = main[-1].bottom + GAP
        if idle := [line.text for line in step.lines if not left[line]]:
            side.append(box(LEFT_AT, y, LEFT_WIDTH, "", f"Took nothing: {'; '.join(idle)}", {}))
            y = side[-1].bottom + GAP
        number += len(step.lines)
        main.append(kept(y, number, "Kept", step.title))

    strokes = [_arrow(one.centre, one.bottom, one.centre, two.y) for one, two in pairwise(main)]
    strokes += [_arrow(main[0].centre, (out.y + out.bottom) / 2, out.x, (out.y + out.bottom) / 2) for out in side]
    smallest = groups[-1][1].stop if groups else 0  # branches that fall into no others: they share the width
    width = max(LEFT_AT + LEFT_WIDTH if side else main[-1].x + KEPT_WIDTH, smallest * (BRANCH_WIDTH + GAP))
    pitch = (width - MARGIN + GAP) / max(smallest, 1)
    ends: dict[tuple[str, ...], _Box] = {(): main[-1]}
    for depth in (0, 1):
        forks = [names for names in ends if len(names) == depth]
        y = max(ends[names].bottom for names in forks) + 2 * GAP if forks else 0
        for number, (names, inside) in enumerate(groups):
            if len(names) == depth + 1:
                counts = {level: cells[level][2][number] for level in counted}
                x = MARGIN + inside.start * pitch
                ends[names] = box(x, y, len(inside) * pitch - GAP, names[-1], "", counts)
        for fork in forks:
            if below := [ends[names] for names in ends if len(names) == depth + 1 and names[:-1] == fork]:
                start, bus = ends[fork], y - GAP
                centres = [start.centre, *(branch.centre for branch in below)]
                fork_line = f"M{start.centre:g} {start.bottom:g}V{bus:g}M{min(centres):g} {bus:g}H{max(centres):g}"
                strokes.append(f'<path d="{fork_line}"/>')
                strokes += [_arrow(branch.centre, bus, branch.centre, branch.y) for branch in below]
    bottom = max(item.bottom for item in (*side, *ends.values()))
    notes = []
    if share:
        text = "<11: from 1 to 10. Hidden: would give such a count away."
        notes = [
            f'<text x="{MARGIN}" y="{bottom + GAP + LEADING * line:g}" fill="{GREY}">{_xml(words)}</text>'
            for line, words in enumerate(wrap(text, width - MARGIN))
        ]
        bottom += GAP + LEADING * (len(notes) - 1)
    title = _xml(f"Attrition: {'; '.join(step.title for step in ledgers)}")
    size = f"{width + MARGIN:g}", f"{bottom + MARGIN:g}"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{size[0]}" height="{size[1]}" '
            f'viewBox="0 0 {size[0]} {size[1]}" font-family="system-ui, \'Segoe UI\', Helvetica, Arial, '
            f'\'DejaVu Sans\', sans-serif" font-size="{SIZE}" fill="#1c1c1c">',
            f"<title>{title}</title>",
            f'<g fill="none" stroke="{GREY}" stroke-width="1.5">',
            *strokes,
            "</g>",
            *(item.svg() for item in (*main, *side, *list(ends.values())[1:])),
            *notes,
            "</svg>\n",
        ]
    )


def text_width(text: str, *, bold: bool = False) -> float:
    """Width in px, rather too much than too little."""
    ems = sum(_EMS.get(letter, _EM if ord(letter) < 0x1100 else 1.2) for letter in text)
    return SIZE * ems * (1 if bold else 0.91)


def wrap(text: str, room: float, *, bold: bool = False) -> list[str]:
    """Lines no wider than `room` px; words that are wider are cut. No line for no text."""
    lines: list[str] = []
    for word in text.split():
        if lines and text_width(f"{lines[-1]} {word}", bold=bold) <= room:
            lines[-1] += f" {word}"
            continue
        lines.append("")
        for letter in word:
            if lines[-1] and text_width(lines[-1] + letter, bold=bold) > room:
                lines.append("")
            lines[-1] += letter
    return lines


def _arrow(x: float, y: float, to_x: float, to_y: float) -> str:
    """A line with a head, straight down or to the right."""
    head = f"M{to_x - 5:g} {to_y - 7:g}L{to_x:g} {to_y:g}L{to_x + 5:g} {to_y - 7:g}"
    if y == to_y:
        head = f"M{to_x - 7:g} {to_y - 5:g}L{to_x:g} {to_y:g}L{to_x - 7:g} {to_y + 5:g}"
    return f'<path d="M{x:g} {y:g}L{to_x:g} {to_y:g}{head}"/>'


def _xml(text: str) -> str:
    return escape(_NOT_XML.sub("�", text))
