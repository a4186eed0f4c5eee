"""What a source calls codes and no pattern of its reader knows: all of them in a file, the most frequent in a line."""

import csv
import io
from pathlib import Path

import polars as pl

from medbert_jax.attrition.disclosure import SMALLEST, masked
from medbert_jax.disk.whole_files import write_whole

UNKNOWN_CODES_FILE = "unknown_codes.csv"
_NAMED = 8
"""Of which the line tells."""


def write_unknown_codes(parts: list[pl.DataFrame], directory: Path) -> str:
    """Write the codes of all shards (code, rows, patients, description), the most frequent first; return what to tell.

    "" where there are none, and nothing is written. A code may be anything that stands in the source: the line names
    those of 11 patients or more, with # for digits, so that many may be one.
    """
    codes = pl.concat(parts).group_by("code").agg(pl.col("rows", "patients").sum(), pl.col("description").min())
    if codes.is_empty():
        return ""
    codes = codes.select("code", "rows", "patients", "description").sort("rows", "code", descending=[True, False])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(codes.columns)
    writer.writerows(codes.rows())
    write_whole(directory / UNKNOWN_CODES_FILE, text.getvalue())
    shown = codes.filter(pl.col("patients") >= SMALLEST)
    shown = shown.with_columns(pl.col("code").map_elements(masked, return_dtype=pl.String))
    shown = shown.group_by("code").agg(pl.col("rows").sum()).sort("rows", "code", descending=[True, False])
    named = ", ".join(f"{code} {rows:,}" for code, rows in shown.head(_NAMED).iter_rows())
    return (
        f"codes that no pattern knows: {codes['rows'].sum():,} rows of {codes.height:,} codes, all of them in"
        f" {UNKNOWN_CODES_FILE}{'; the most frequent: ' * bool(named)}{named}"
    )
