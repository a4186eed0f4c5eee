"""Tables of figures side by side, one column per dataset: markdown, CSV, JSON, terminal."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from medbert_jax.evaluation.tables import MISSING

_WIDEST_ROW = 44  # characters of a row's name before it takes another line


@dataclass(frozen=True)
class Figure:
    """One cell: how it is printed, and the number that is printed, no more exact than that."""

    text: str
    value: float | int | None = None


UNKNOWN, HIDDEN, FEW = Figure(MISSING), Figure("hidden"), Figure("<11")
"""What nobody knows; what would name few patients, or give them away; 1 to 10."""


def number(value: float | None, decimals: int = 0, *, unit: str = "") -> Figure:
    """A figure with thousands separated, as "1,234.5 %"; None is unknown."""
    if value is None:
        return UNKNOWN
    text = f"{value:z,.{decimals}f}"
    plain = float(text.replace(",", ""))
    return Figure(text.replace("-", "−") + (f" {unit}" if unit else ""), plain if decimals else int(plain))


@dataclass(frozen=True)
class FigureTable:
    """Rows of figures; `rows` are (what it is, one figure per column)."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Figure, ...]], ...]
    notes: tuple[str, ...] = ()


def figures_to_markdown(tables: Sequence[FigureTable]) -> str:
    """GitHub markdown of the tables, one under the other."""
    blocks = []
    for table in tables:
        lines = [["", *map(_cell, table.columns)], ["---", *["---:"] * len(table.columns)]]
        lines += [[_cell(row), *(_cell(figure.text) for figure in figures)] for row, figures in table.rows]
        rows = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        notes = "".join(f"\n- {note}" for note in table.notes)
        blocks.append(f"### {table.title}\n\n{rows}\n{notes}\n" if notes else f"### {table.title}\n\n{rows}\n")
    return "\n".join(blocks)


def figures_to_csv(tables: Sequence[FigureTable]) -> str:
    """One row per figure: table, row, column, value (empty where there is none), text."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["table", "row", "column", "value", "text"])
    for table in tables:
        for row, figures in table.rows:
            for column, figure in zip(table.columns, figures, strict=True):
                writer.writerow([table.title, row, column, figure.value, figure.text])
    return out.getvalue()


def figures_to_json(tables: Sequence[FigureTable], about: dict) -> str:
    """The tables and what they are about; a value is null where there is none, and its text says why."""
    record = about | {
        "tables": [
            {
                "title": table.title,
                "rows": {
                    row: {
                        column: {"value": figure.value, "text": figure.text}
                        for column, figure in zip(table.columns, figures, strict=True)
                    }
                    for row, figures in table.rows
                },
                "notes": table.notes,
            }
            for table in tables
        ]
    }
    return json.dumps(record, indent=1, ensure_ascii=False) + "\n"


def print_figures(tables: Sequence[FigureTable], console: Console | None = None) -> None:
    """Print the tables to the terminal."""
    console = console or Console()
    for table in tables:
        # Text and not str: names are shown as they are, never read as console markup.
        rendered = Table(title=Text(table.title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        rendered.add_column("", min_width=min(max(len(row) for row, _ in table.rows), _WIDEST_ROW))
        for place, column in enumerate(table.columns):
            widest = max(map(len, [*column.split(), *(figures[place].text for _, figures in table.rows)]))
            rendered.add_column(Text(column), justify="right", min_width=widest)
        for row, figures in table.rows:
            rendered.add_row(Text(row), *(Text(figure.text) for figure in figures))
        # A table is never cut, however narrow the terminal.
        wide = console.options.update(width=10_000)
        least = Measurement.get(console, wide, rendered).minimum
        console.print(rendered, width=max(console.width, least), crop=False, no_wrap=least > console.width)
        for note in table.notes:
            console.print(Text(f"- {note}", "dim"))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
