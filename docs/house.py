"""The house in one picture, from the imports: rooms in the order of the data's way, a dot for who imports from whom.

    python docs/house.py

Writes docs/house.svg. Order and imports are those of tests/test_layers.py, which forbids a dot above the diagonal.
"""

import ast
import sys
import textwrap
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from test_layers import ORDER, imported_modules  # noqa: E402

PICTURE = ROOT / "docs" / "house.svg"
BANDS = {"checked_fields": "for all", "ehr": "tables", "cohorts": "patients", "models": "learning",
         "evaluation": "results", "run_pretrain": "commands"}  # fmt: skip
"""The first room of a band → what its rooms are about."""
COLOURS = ("#5f6b7a", "#1f6f8b", "#3a7d44", "#8a5a00", "#8c3b3b", "#5b4b8a")
_ROW, _CELL, _BOX, _LEFT, _TOP, _TEXT = 50, 19, 344, 26, 132, "font-family='Helvetica, Arial, sans-serif'"


def rooms() -> dict[str, list[Path]]:
    """Room → its files, in the order in which the data go; a room that only the test's order names is left out."""
    package = ROOT / "medbert_jax"
    found = {name: sorted((package / name).rglob("*.py")) or [package / f"{name}.py"] for name in ORDER}
    found = {name: files for name, files in found.items() if files[0].exists()}
    builders = {"tfds_builders": sorted((ROOT / "tfds_builders").rglob("*.py"))}
    place = list(found).index("data") + 1  # they write what data/ reads
    found = dict(list(found.items())[:place]) | builders | dict(list(found.items())[place:])
    return found | {
        "run_pretrain": [ROOT / "run_pretrain.py"],
        "run_finetune": [ROOT / "run_finetune.py"],
        "commands": [package / f"{name}.py" for name in ("commands", "study_command", "cli", "classifier")],
        "configs": sorted((ROOT / "configs").glob("*.py")),
    }


def imports(house: dict[str, list[Path]]) -> set[tuple[str, str]]:
    """(room, another room that a file of it imports from), however deep in the file the import stands."""
    found = set()
    for room, files in house.items():
        for file in files:
            path = file.relative_to(ROOT).as_posix()
            for module in imported_modules(path, file.read_text(encoding="utf-8")):
                parts = module.removeprefix("medbert_jax.").split(".")
                other = "commands" if parts[0] in ("classifier", "cli", "study_command") else parts[0]
                if other in house and other != room:
                    found.add((room, other))
    return found


def words(files: list[Path]) -> str:
    """The first line of the room's docstring: that of its __init__.py, where it is a folder."""
    file = next((file for file in files if file.name == "__init__.py"), files[0])
    line = (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").split("\n")[0]
    return line.removesuffix(".")


def lines(files: list[Path]) -> str:
    """How many lines the files have, to the nearest hundred, so that not every change makes another picture."""
    count = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)
    return f"{round(count, -2):,}" if count >= 100 else "< 100"


def label(room: str, files: list[Path]) -> str:
    """What the room is called on disk."""
    if room == "commands":
        return "cli.py, commands.py"
    return f"{room}/" if len(files) > 1 else f"{room}.py"


def draw() -> str:
    """The picture as SVG."""
    house = rooms()
    edges, names = imports(house), list(house)
    matrix = _LEFT + _BOX + 14
    width, height = matrix + _CELL * len(names) + 30, _TOP + _ROW * len(names) + 46
    out = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}' height='{height}'"
        f" {_TEXT} role='img' aria-label='Rooms of medbert_jax and who imports from whom'>",
        f"<rect width='{width}' height='{height}' fill='#ffffff'/>",
        f"<text x='{_LEFT}' y='30' font-size='17' font-weight='bold' fill='#1b1f24'>medbert_jax</text>",
    ]
    legend = ("Top to bottom: the way of the data. A dot: the", "room of this row imports from that of the column,",
              "always one further up. Right: lines of code.")  # fmt: skip
    for number, line in enumerate(legend):
        out.append(f"<text x='{_LEFT}' y='{52 + 16 * number}' font-size='12' fill='#444c56'>{line}</text>")
    band = -1
    for row, (room, files) in enumerate(house.items()):
        band += room in BANDS
        colour, top, middle = COLOURS[band], _TOP + _ROW * row, _TOP + _ROW * row + _ROW // 2 - 2
        if room in BANDS:
            rows = next((n for n, later in enumerate(names[row + 1 :], 1) if later in BANDS), len(names) - row)
            out.append(_band(BANDS[room], colour, top, rows))
        out += _room(label(room, files), words(files), lines(files), colour, top)
        x = matrix + _CELL * row + _CELL // 2
        out.append(
            f"<text transform='translate({x + 4} {_TOP - 8}) rotate(-60)' font-size='11' fill='{colour}'>"
            f"{escape(label(room, files).removesuffix('/'))}</text>"
        )
        out.append(
            f"<line x1='{matrix}' y1='{middle}' x2='{x}' y2='{middle}' stroke='#d0d7de'/>"
            f"<line x1='{x}' y1='{_TOP - 4}' x2='{x}' y2='{height - 42}' stroke='#eef1f4'/>"
            f"<rect x='{x - 5}' y='{middle - 5}' width='10' height='10' rx='2' fill='{colour}' fill-opacity='0.25'/>"
        )
        for column, other in enumerate(names):
            if (room, other) in edges:
                x = matrix + _CELL * column + _CELL // 2
                out.append(f"<circle cx='{x}' cy='{middle}' r='4.5' fill='{colour}'/>")
    total = lines([file for files in house.values() for file in files])
    out.append(f"<text x='{_LEFT}' y='{height - 16}' font-size='12' fill='#444c56'>{total} lines in all</text>")
    return "\n".join([*out, "</svg>", ""])


def _band(name: str, colour: str, top: int, rows: int) -> str:
    """The name of a band, standing along its rooms."""
    middle = top + _ROW * rows // 2
    return (
        f"<rect x='4' y='{top}' width='16' height='{_ROW * rows - 5}' rx='3' fill='{colour}'/>"
        f"<text transform='translate(16 {middle - 2}) rotate(-90)' font-size='11' text-anchor='middle'"
        f" fill='#ffffff'>{name}</text>"
    )


def _room(name: str, said: str, count: str, colour: str, top: int) -> list[str]:
    """The box of a room: what it is called, what it is for, how long it is."""
    out = [
        f"<rect x='{_LEFT}' y='{top}' width='{_BOX}' height='{_ROW - 5}' rx='4' fill='{colour}' fill-opacity='0.08'"
        f" stroke='{colour}' stroke-opacity='0.5'/>",
        f"<text x='{_LEFT + 8}' y='{top + 14}' font-size='12' font-weight='bold' fill='{colour}'>{escape(name)}</text>",
        f"<text x='{_LEFT + _BOX - 8}' y='{top + 14}' font-size='11' text-anchor='end' fill='#1b1f24'>"
        f"{escape(count)}</text>",
    ]
    for number, line in enumerate(textwrap.wrap(said, 66)):
        y = top + 27 + 12 * number
        out.append(f"<text x='{_LEFT + 8}' y='{y}' font-size='10.5' fill='#444c56'>{escape(line)}</text>")
    return out


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
    print(PICTURE)
