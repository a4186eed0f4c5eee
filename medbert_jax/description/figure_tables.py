"""Tables of figures side by side, one column per dataset, and what of them is written as CSV and JSON."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass

from medbert_jax.evaluation.tables import MISSING
from medbert_jax.printed_tables import Table


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

    @property
    def printed(self) -> Table:
        """The table with its notes as a list."""
        return Table(
            title=self.title,
            columns=("", *self.columns),
            rows=tuple((row, *(figure.text for figure in figures)) for row, figures in self.rows),
            alignment="<" + ">" * len(self.columns),
            notes=tuple(f"- {note}" for note in self.notes),
        )


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
