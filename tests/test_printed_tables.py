"""The one printer: nothing is lost or broken, in files at any width, on terminals that are too narrow, in markdown."""

import os
import pty
import re
import subprocess
import sys

import pytest

from medbert_jax.printed_tables import Table, print_tables, table_text, to_markdown

LONG = "a rule in words " * 30 + "its end"
TABLE = Table(
    title="a title [bold]that is longer than what stands under it",
    columns=("", "of us all", "n"),
    rows=(("[red]one|two", "1,234", "7"), ("three\nlines", "−5", "8")),
    alignment="<>>",
    notes=("- a note",),
    bold=frozenset({(1, 1)}),
)


def test_lines_of_text_by_hand():
    assert table_text(TABLE).splitlines() == [
        "a title [bold]that is longer than what stands under it",
        "              of us all  n",
        "──────────────────────────",
        "[red]one|two      1,234  7",
        "three lines          −5  8",
        "- a note",
    ]


def test_markdown_by_hand():
    assert to_markdown([TABLE, TABLE]) == "\n".join(
        [
            "### a title [bold]that is longer than what stands under it\n",
            "|  | of us all | n |",
            "| --- | ---: | ---: |",
            "| [red]one\\|two | 1,234 | 7 |",
            "| three lines | **−5** | 8 |\n",
            "- a note\n",
        ]
        * 2
    )


def test_what_stands_under_a_row_follows_it_and_no_rows_are_no_table():
    table = Table("", ("n", "what"), (("1", "x"), ("22", "y")), "><", below=("under x", "under y"), notes=("end",))
    assert table_text(table).splitlines() == [" n  what", "────────", " 1  x", "under x", "22  y", "under y", "end"]
    assert plain(table_text(table, terminal=3))[-5:] == [" 1  x", "under x", "22  y", "under y", "end"]
    assert table_text(Table("", ("n",), (), "<", notes=("nothing found",))) == "nothing found"


@pytest.mark.parametrize("columns", ["20", "500"])
def test_a_file_gets_whole_lines_at_any_width(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("FORCE_COLOR", "1")
    print_tables([Table("t", ("", "n"), ((LONG, "1"),), "<>", notes=(LONG,), bold=frozenset({(0, 0)}))] * 2)
    lines = capsys.readouterr().out.splitlines()
    assert lines == (["t", " " * len(LONG) + "  n", "─" * (len(LONG) + 3), LONG + "  1", LONG, ""] * 2)[:-1]


def test_a_terminal_that_is_too_narrow_breaks_heads_and_notes_and_no_row():
    table = Table(
        "t", ("", "two words", "n"), ((LONG, "1", "5"), ("wide 漢字", "2", "6")), "<>>", notes=("a note " * 9,)
    )
    text = plain(table_text(table, terminal=30))
    assert text[1:5] == [
        f"{'':{len(LONG)}}    two",
        f"{'':{len(LONG)}}  words  n",
        "─" * (len(LONG) + 10),
        LONG + "      1  5",
    ]
    assert text[5] == f"wide 漢字{'':{len(LONG) - 9}}      2  6"
    assert len(text) == 9 and max(map(len, text[6:])) <= 30
    assert plain(table_text(table, terminal=len(LONG) + 14))[1].endswith("  two words  n")


def plain(text: str) -> list[str]:
    """The lines without the codes for bold and dim."""
    return [line.rstrip() for line in re.sub(r"\x1b\[\d*m", "", text).splitlines()]


def test_bold_is_for_terminals():
    code = (
        "from medbert_jax.printed_tables import Table, print_tables;"
        "print_tables([Table('t', ('n',), (('7',),), '<', bold=frozenset({(0, 0)}))])"
    )
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm"}
    subprocess.run([sys.executable, "-c", code], stdout=theirs, stderr=subprocess.PIPE, env=environment, check=True)
    os.close(theirs)
    assert b"\x1b[1m7\x1b[0m" in os.read(ours, 10_000)
    os.close(ours)
    piped = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment, check=True)
    assert piped.stdout.decode().splitlines() == ["t", "n", "─", "7"]
