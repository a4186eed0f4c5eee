"""A results folder in little room, to be kept with the tables that were made of it.

Rows are in one file, probabilities in one for each dataset, a column for each run. Nothing is rounded.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TypedDict

import numpy as np
import polars as pl

from medbert_jax.disk.replaced_folder import replaced
from medbert_jax.disk.seals import SUMS, check_files, check_seal, sealed
from medbert_jax.disk.stored_json import read_object
from medbert_jax.disk.tables_on_disk import parquet_schema, read_parquet
from medbert_jax.disk.versions import refuse_newer
from medbert_jax.disk.whole_files import canonical_json, sha256_of, whole_file, write_whole
from medbert_jax.evaluation.compared_models import aligned
from medbert_jax.evaluation.filed_patients import FOLDER, FiledPatients, read_filed, write_filed
from medbert_jax.evaluation.results import read_results

ABOUT, ROWS, PROBABILITIES = "kept.json", "results.parquet", "probabilities"
VERSION = 1
_OURS = re.compile(rf"kept\.json|results\.parquet|({PROBABILITIES}|{FOLDER})/\w+\.parquet")
_AGAIN = "keep the results again (medbert tables RESULTS OUT --keep FOLDER)"


class _About(TypedDict):
    version: int
    begun: int
    sha256: dict[str, str]


def is_kept(folder: Path) -> bool:
    """Whether a folder is one that `keep_results` wrote."""
    return (folder / ABOUT).is_file()


def keep_results(folder: Path, out: Path) -> Path:
    """Write the results of a folder, in place of what was kept in `out` before; equal results are equal bytes.

    Runs without predictions, and datasets whose test patients are not filed, keep their rows alone.
    """
    results = read_rows(folder).sort("run_id", "split", "metric")
    with replaced(out, _OURS) as new:
        with whole_file(new / ROWS) as partial:
            results.write_parquet(partial, compression_level=19)
        (new / PROBABILITIES).mkdir()
        for dataset_hash in sorted(set(results["dataset_hash"])):
            if (path := folder / FOLDER / f"{dataset_hash}.parquet").is_file():
                filed = read_filed(path)
                write_filed(new / FOLDER / path.name, filed)
                runs = sorted(set(results.filter(dataset_hash=dataset_hash)["run_id"]))
                of_runs = pl.DataFrame({run: _exact(of) for run, of in probabilities_of(folder, filed, runs).items()})
                with whole_file(new / PROBABILITIES / path.name) as partial:
                    of_runs.write_parquet(partial, compression_level=19)
        files = sorted(path.relative_to(new).as_posix() for path in new.rglob("*.parquet"))
        sums = {name: sha256_of(new / name) for name in files}
        write_whole(new / ABOUT, canonical_json(sealed({"version": VERSION, "begun": begun_runs(folder), SUMS: sums})))
    return out


def read_rows(folder: Path) -> pl.DataFrame:
    """The rows of a results folder, or of one that is kept, all of whose files are compared with their sums.

    ValueError where one is damaged.
    """
    if not is_kept(folder):
        return read_results(folder)
    path = folder / ABOUT
    about = read_object(path, _About, cure=_AGAIN)
    refuse_newer(str(path), about["version"], VERSION)
    check_seal(path, about, _AGAIN)
    if missing := [name for name in about[SUMS] if not (folder / name).is_file()]:
        raise ValueError(f"kept results must be whole: got none of {', '.join(missing)} in {folder}; {_AGAIN}")
    check_files(path, about, about[SUMS], _AGAIN)
    return read_parquet(folder / ROWS)


def begun_runs(folder: Path) -> int:
    """Runs of a results folder that were begun and are not filed."""
    if is_kept(folder):
        return read_object(folder / ABOUT, _About, cure=_AGAIN)["begun"]
    return sum(1 for path in (folder / "unfinished").glob("*") if path.is_dir())


def probabilities_of(folder: Path, filed: FiledPatients, runs: Iterable[str]) -> dict[str, np.ndarray]:
    """Run → (n,) in the order of the filed patients; of runs that have predictions."""
    if not is_kept(folder):
        files = {run: folder / "predictions" / f"{run}.parquet" for run in runs}
        return {run: aligned(path, filed.patients) for run, path in files.items() if path.is_file()}
    path = folder / PROBABILITIES / f"{filed.patients.dataset_hash}.parquet"
    there = parquet_schema(path)
    frame = read_parquet(path, [run for run in runs if run in there])
    return {run: frame[run].cast(pl.Float64).to_numpy() for run in frame.columns}


def _exact(probabilities: np.ndarray) -> pl.Series:
    """In half the room where that loses nothing, as of what a model computes in float32."""
    narrow = probabilities.astype(np.float32)
    return pl.Series(
        narrow if np.array_equal(narrow.astype(np.float64), probabilities, equal_nan=True) else probabilities
    )
