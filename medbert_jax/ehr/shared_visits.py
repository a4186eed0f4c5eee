"""Visits whose id another patient has too, counted over all shards, in memory that does not grow with the source."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from medbert_jax.disk.tables_on_disk import read_parquet, scan_parquet

UNIQUE_VISITS = ("omop", "mimic-iv", "diabetes130")
"""Formats in which the id of a visit is unique in the whole source, by their documentation."""
IDS_AT_ONCE = 5_000_000
"""Ids whose hashes are in memory at once."""


def count_shared_visits(directory, files: Sequence[str], *, once: bool = False) -> Counter[str]:
    """Visits with an id that a visit of another patient has too, by file, of files of the table of visits.

    `once` says that no patient has a visit twice. Ids are compared by a hash of 64 bits; with more than `IDS_AT_ONCE`
    of them the files are read several times.
    """
    paths = [Path(directory) / file for file in files]
    rows = sum(scan_parquet(path).select(pl.len()).collect().item() for path in paths)
    rounds, shared = -(-rows // IDS_AT_ONCE), Counter()
    for number in range(rounds):
        parts = []
        for place, path in enumerate(paths):
            visits = read_parquet(path, columns=["visit_id"] if once else ["patient_id", "visit_id"]).drop_nulls()
            hashes = (visits if once else visits.unique())["visit_id"].cast(pl.String).hash()
            parts.append(
                hashes.filter(hashes % rounds == number).to_frame("id").with_columns(place=pl.lit(place, pl.UInt32))
            )
        found = pl.concat(parts).filter(pl.col("id").is_duplicated())
        shared.update({files[place]: count for place, count in found["place"].value_counts().iter_rows()})
    return shared
