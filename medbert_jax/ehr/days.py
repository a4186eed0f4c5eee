"""Days that programs write where they know none."""

from datetime import date

import polars as pl

DEFAULT_DAYS = (
    date(1, 1, 1),
    date(1601, 1, 1),  # Windows
    date(1753, 1, 1),  # SQL Server
    date(1899, 12, 30),  # spreadsheets
    date(1899, 12, 31),
    date(1900, 1, 1),
    date(1904, 1, 1),
    date(1970, 1, 1),  # Unix
)
"""The days from which programs count."""


def stands_for_never(day: pl.Expr) -> pl.Expr:
    """Whether a day is one of those that are written for "no end": the turns of centuries to come, pandas' last day.

    A shifted calendar has such days too: ask whether the span that ends there can be one.
    """
    year, turn = day.dt.year(), day.dt.to_string("%m-%d")
    last, first = (turn == "12-31") & (year % 100 == 99), (turn == "01-01") & (year % 100 == 0)
    return ((year >= 2099) & (last | first)) | (day == date(2262, 4, 11))
