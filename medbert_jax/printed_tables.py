"""A table as it is printed: lines of text for terminals, files and pipes, and GitHub markdown."""

import io
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass

_WIDEST = 100_000
"""Characters; no line of text is as long."""


def take_any_terminal() -> None:
    """Let a terminal that is not UTF-8 show replacement characters: what was made is not lost to a word about it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a notebook's takes everything
            stream.reconfigure(errors="replace")


@dataclass(frozen=True)
class Table:
    """Rows of cells under their columns' names; all of it is text and shown as it is."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    alignment: str
    """< (left) or > (right) for every column."""
    notes: tuple[str, ...] = ()
    bold: frozenset[tuple[int, int]] = frozenset()
    """(row, column) of the cells that stand out."""
    below: tuple[str, ...] = ()
    """In lines of text, what stands under each row; empty: nothing."""


def table_text(table: Table, *, terminal: int | None = None) -> str:
    """The table in lines of text: title, columns, rows, notes; empty titles are left out, and columns without a row.

    As wide as it needs, or for a terminal of that many characters: there heads and notes take several lines and bold
    cells are bold. A row is always one line, however narrow the terminal.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    console = Console(file=io.StringIO(), width=_WIDEST, force_terminal=terminal is not None)
    # Text and not str: what a source says is shown as it is, never read as console markup.
    rows = [
        [Text(_line(cell), "bold" if (number, place) in table.bold else "") for place, cell in enumerate(row)]
        for number, row in enumerate(table.rows)
    ]

    def lines(*what: Grid | Text, width: int | None = None) -> list[str]:
        with console.capture() as captured:
            console.print(*what, sep="\n", width=width)
        return [line.rstrip() for line in captured.get().splitlines()] if what else []

    def grid(break_heads: bool) -> Grid:
        drawn = Grid(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
        for place, (head, side) in enumerate(zip(table.columns, table.alignment, strict=True)):
            least = max(map(len, head.split()), default=0)
            width = max(least, *(row[place].cell_len for row in rows)) if break_heads else None
            drawn.add_column(Text(head), justify="right" if side == ">" else "left", width=width)
        for row in rows:
            drawn.add_row(*row)
        return drawn

    whole = grid(break_heads=False)
    fits = terminal is None or console.measure(whole).maximum <= terminal
    drawn = lines(whole if fits else grid(break_heads=True)) if rows else []
    for number, words in reversed([*enumerate(table.below, start=len(drawn) - len(rows) + 1)]):
        drawn.insert(number, words)
    title = [Text(table.title, "bold")] if table.title else []
    notes = [Text(note, "dim") for note in table.notes]
    return "\n".join([*lines(*title, width=terminal), *drawn, *lines(*notes, width=terminal)])


def print_tables(tables: Sequence[Table]) -> None:
    """Print the tables, an empty line between them; what is no terminal gets them as wide as they are."""
    terminal = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    print(*(table_text(table, terminal=terminal) for table in tables), sep="\n\n")


def to_markdown(tables: Sequence[Table]) -> str:
    """GitHub markdown of the tables, one under the other; bold cells are bold."""
    return "\n".join(map(_markdown, tables))


def _markdown(table: Table) -> str:
    rows = [
        [f"**{cell}**" if (number, place) in table.bold else cell for place, cell in enumerate(row)]
        for number, row in enumerate(table.rows)
    ]
    cells = [[_line(cell).replace("|", "\\|") for cell in row] for row in (table.columns, *rows)]
    cells.insert(1, ["---:" if side == ">" else "---" for side in table.alignment])
    lines = "\n".join(f"| {' | '.join(row)} |" for row in cells)
    notes = "\n".join(table.notes)
    return f"### {table.title}\n\n{lines}\n" + (f"\n{notes}\n" if notes else "")


def _line(cell: str) -> str:
    return cell.replace("\n", " ")
