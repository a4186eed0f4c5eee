"""A file of patients who are asked for."""

from pathlib import Path

import polars as pl

from medbert_jax.disk.tables_on_disk import read_parquet

_NAMES = ("subject_id", "patient_id")


def read_patients(path: str | Path) -> list[str]:
    """The ids of a file, as text: one a line, or the column subject_id or patient_id of a Parquet file.

    Raises ValueError where it holds none, OSError where it cannot be opened.
    """
    path = Path(path)
    if path.suffix == ".parquet":
        try:
            frame = read_parquet(path)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as fault:
            raise ValueError(
                f"a file of patients must be text or readable Parquet: got {path} ({type(fault).__name__}); write it"
                " again"
            ) from None
        name = next((name for name in _NAMES if name in frame.columns), None)
        ids = frame[name].cast(pl.String).drop_nulls().to_list() if name else []
    else:
        ids = [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip() not in ("", *_NAMES)]
    if not ids:
        raise ValueError(
            f"a file of patients must hold ids, one a line, or in the column {' or '.join(_NAMES)}: got none in {path};"
            " give one that has some"
        )
    return ids
