"""The test patients of a cohort as they lie beside predictions: labels, weights and sets, without what they have.

With them a folder of results is all that tables, intervals and paired differences of its runs ask for.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
import polars as pl

from medbert_jax.data.metadata import Source, read_metadata
from medbert_jax.disk.stored_json import check_form, parse_object
from medbert_jax.disk.tables_on_disk import parquet_metadata, read_parquet
from medbert_jax.disk.versions import number_of, refuse_newer
from medbert_jax.disk.whole_files import whole_file
from medbert_jax.evaluation.design import Design
from medbert_jax.evaluation.evaluated_patients import EvaluatedPatients, read_evaluated
from medbert_jax.evaluation.results import rows_sha256

FOLDER = "test_patients"
"""Below the results."""
VERSION = 1
_SCHEMA = {
    "subject": pl.String,
    "time": pl.Int64,
    "label": pl.Int8,
    "weight": pl.Float64,
    "set": pl.String,
}
_AGAIN = "delete it and file the cohort again (medbert tables RESULTS OUT --cohorts DATA_DIR/disease_cohort/NAME/1.0.0)"


class _Facts(TypedDict):
    name: str
    dataset_hash: str
    design: Design
    source: Source
    training_patients: int
    training_cases: int


@dataclass(frozen=True, eq=False)
class FiledPatients:
    """The test patients of a cohort dataset, and what has to be known of it beside them."""

    patients: EvaluatedPatients
    """Without groups."""
    source: Source
    """What the dataset says of where its records are from."""
    training_patients: int
    training_cases: int
    """Of the whole training split."""

    @property
    def is_simulated(self) -> bool:
        """Whether no patient of it is real."""
        return self.source.get("format") == "simulated"


def file_test_patients(results: str | Path, dataset: str | Path, *, cache_dir: str = "") -> Path | None:
    """Write the test patients of a cohort dataset to RESULTS/test_patients/DATASET_HASH.parquet, unless they are there.

    Returns the file; None of a dataset that an earlier version made, without its table of patients. `cache_dir` as in
    `open_token_store`. Raises ValueError where the dataset is damaged.
    """
    metadata = read_metadata(dataset)
    path = Path(results) / FOLDER / f"{metadata['dataset_hash']}.parquet"
    if path.is_file():
        return path
    try:
        patients = read_evaluated(dataset, cache_dir=cache_dir)
    except FileNotFoundError:
        return None
    counts = metadata["split"]["counts"], metadata.get("cases", {})
    training = (int(of.get("train", 0)) for of in counts)
    write_filed(path, FiledPatients(patients, metadata.get("source", {}), *training))
    return path


def write_filed(path: Path, filed: FiledPatients) -> None:
    """Write one file; equal patients are equal bytes."""
    of = filed.patients
    sets = [None] * len(of.subject) if of.sets is None else [str(one) for one in of.sets.tolist()]
    columns = (of.subject.tolist(), of.time, of.label, of.weight, sets)
    frame = pl.DataFrame(dict(zip(_SCHEMA, columns, strict=True)), schema=_SCHEMA)
    said: dict[str, object] = {
        "name": of.name,
        "dataset_hash": of.dataset_hash,
        "design": asdict(of.design),
        "source": filed.source,
    }
    said |= {"training_patients": filed.training_patients, "training_cases": filed.training_cases}
    told = {"version": str(VERSION), "about": json.dumps(said, sort_keys=True), "rows_sha256": rows_sha256(frame)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        frame.write_parquet(partial, metadata=told)


def read_filed(path: str | Path) -> FiledPatients:
    """Raises ValueError where the file is unreadable, changed, of a newer version or of another dataset's name."""
    path = Path(path)
    try:
        frame, told = read_parquet(path), parquet_metadata(path)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise ValueError(f"test patients must be readable Parquet: got {path}, unreadable; {_AGAIN}") from error
    refuse_newer(str(path), number_of(told.get("version", "")), VERSION)
    if dict(frame.schema) != _SCHEMA or told.get("rows_sha256") != rows_sha256(frame):
        raise ValueError(f"test patients must be as they were filed: got {path}, changed since; {_AGAIN}")
    try:
        about = parse_object(told.get("about", ""))
    except ValueError as fault:
        raise ValueError(f"test patients must say of whom they are: got {fault} in {path}; {_AGAIN}") from None
    check_form(about, _Facts, path, cure=_AGAIN)
    if about["dataset_hash"] != path.stem:
        raise ValueError(
            f"test patients must lie in DATASET_HASH.parquet: got {path.name} with those of"
            f" {about['dataset_hash']}; {_AGAIN}"
        )
    patients = EvaluatedPatients(
        about["name"],
        about["dataset_hash"],
        Design(**about["design"]),
        frame["subject"].to_numpy().astype(np.str_),
        frame["time"].to_numpy(),
        frame["label"].to_numpy(),
        frame["weight"].to_numpy(),
        None if frame["set"].null_count() else frame["set"].to_numpy().astype(np.str_),
    )
    return FiledPatients(patients, about["source"], about["training_patients"], about["training_cases"])
