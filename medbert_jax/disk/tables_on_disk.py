"""Tables are read from the very file that is named: polars takes `[ ] ? *` and `~` in a path for a pattern.

`omop[1]/person.parquet` would be read from `omop1/person.parquet`. Nothing else in the package gives polars a
path to read.
"""

import os

import polars as pl


def read_parquet(path, columns: list[str] | None = None) -> pl.DataFrame:
    """A Parquet file's columns, or those named."""
    return pl.read_parquet(_literal(path), columns=columns, glob=False, hive_partitioning=False)


def scan_parquet(*paths) -> pl.LazyFrame:
    """The rows of Parquet files, one after the other, to be read when they are collected."""
    return pl.scan_parquet([_literal(path) for path in paths], glob=False, hive_partitioning=False)


def parquet_schema(path) -> dict[str, pl.DataType]:
    """Column → type of a Parquet file."""
    with open(path, "rb") as file:
        return pl.read_parquet_schema(file)


def parquet_metadata(path) -> dict[str, str]:
    """What a Parquet file says of itself."""
    with open(path, "rb") as file:
        return pl.read_parquet_metadata(file)


def scan_arrow(path) -> pl.LazyFrame:
    """The rows of an Arrow file, to be read when they are collected."""
    return pl.scan_ipc(_literal(path), glob=False, hive_partitioning=False)


def _literal(path) -> str:
    return os.path.abspath(path)  # which no longer begins with `~`
