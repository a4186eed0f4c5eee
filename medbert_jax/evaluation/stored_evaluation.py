"""An evaluation as it is stored: a folder of two tables and what has to be known beside their numbers."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import polars as pl

from medbert_jax.disk.replaced_folder import replaced
from medbert_jax.disk.seals import SUMS, check_files, check_seal, sealed
from medbert_jax.disk.stored_json import check_form, read_object
from medbert_jax.disk.tables_on_disk import read_parquet
from medbert_jax.disk.versions import refuse_newer
from medbert_jax.disk.whole_files import canonical_json, sha256_of, whole_file, write_whole

VERSION = 1
ABOUT, FIGURES, CURVES = "evaluation.json", "figures.parquet", "curves.parquet"
OURS = re.compile(r"evaluation\.json|figures\.parquet|curves\.parquet")
_AGAIN = "delete the folder and evaluate again"

FIGURE_SCHEMA = {
    "kind": pl.String,  # figure, difference of models, difference of groups, bound
    "model": pl.String,
    "reference": pl.String,  # of a difference: the other model, or the other group
    "stratum": pl.String,  # "everyone", or GROUP: LEVEL
    "metric": pl.String,
    "at": pl.Float64,  # the risk or the specificity it is taken at; null: neither
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "how": pl.String,  # how the interval was made, or the test
    "n": pl.Int64,  # rows with a known label
    "cases": pl.Int64,
    "p": pl.Float64,
    "p_holm": pl.Float64,
    "family": pl.String,  # of tests that Holm adjusts together
}
"""Column → dtype of the figures; null is what does not exist."""

CURVE_SCHEMA = {
    "model": pl.String,
    "stratum": pl.String,
    "curve": pl.String,
    "x": pl.Float64,
    "y": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "n": pl.Int64,  # rows that the point stands for
}
"""Column → dtype of the points of curves, see `curves.curve_rows`."""


class _Design(TypedDict):
    sampling: str
    estimand: str
    horizon_days: int | None
    refused: str


class _Model(TypedDict):
    name: str
    replicates: int
    files: list[tuple[str, str]]


class About(TypedDict):
    """What evaluation.json says."""

    version: int
    cohort: str
    dataset_hash: str
    split: str
    design: _Design
    counts: dict[str, int]
    weighted: bool
    resampled: str
    models: list[_Model]
    reference: str
    risks: list[float]
    specificities: list[float]
    draws: int
    seed: int
    confidence: float
    said: list[str]
    sha256: dict[str, str]
    own_sha256: str


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What was found, and what has to be known beside it."""

    about: dict[str, Any]
    """`About`, without what is known once it is written."""
    figures: pl.DataFrame
    """Of FIGURE_SCHEMA."""
    curves: pl.DataFrame
    """Of CURVE_SCHEMA."""

    @property
    def is_clustered(self) -> bool:
        """Whether a patient has several rows; False where counts are hidden."""
        counts = self.about["counts"]
        return bool(counts) and counts["rows"] != counts["subjects"]


def write_evaluation(evaluation: Evaluation, folder: str | Path) -> Path:
    """Write the three files, in place of an earlier evaluation's; equal evaluations are equal bytes."""
    Path(folder).parent.mkdir(parents=True, exist_ok=True)
    with replaced(folder, OURS) as new:
        for name, frame in ((FIGURES, evaluation.figures), (CURVES, evaluation.curves)):
            with whole_file(new / name) as partial:
                frame.write_parquet(partial)
        sums = {name: sha256_of(new / name) for name in (FIGURES, CURVES)}
        write_whole(new / ABOUT, canonical_json(sealed({"version": VERSION, **evaluation.about, SUMS: sums})))
    return Path(folder)


def read_evaluation(folder: str | Path) -> Evaluation:
    """The evaluation of a folder. ValueError or OSError where it is none, damaged, changed, or of a newer version."""
    path = Path(folder) / ABOUT
    about = read_object(path, cure=_AGAIN)
    refuse_newer(str(path), about.get("version"), VERSION)
    check_form(about, About, path, cure=_AGAIN)
    check_seal(path, about, _AGAIN)
    check_files(path, about, [FIGURES, CURVES], _AGAIN)
    frames = []
    for name, schema in ((FIGURES, FIGURE_SCHEMA), (CURVES, CURVE_SCHEMA)):
        try:
            frame = read_parquet(path.with_name(name))
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
            raise ValueError(
                f"an evaluation's tables must be readable Parquet: got {name}, unreadable; {_AGAIN}"
            ) from error
        if dict(frame.schema) != schema:
            raise ValueError(
                f"an evaluation's tables must have their columns: got others in {path.with_name(name)}; {_AGAIN}"
            )
        frames.append(frame)
    return Evaluation({key: about[key] for key in about if key not in (SUMS, "own_sha256", "version")}, *frames)
