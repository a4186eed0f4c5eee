"""The predictions of one or several models, put beside the patients that they are of."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from medbert_jax.disk.whole_files import sha256_of
from medbert_jax.evaluation.evaluated_patients import EvaluatedPatients
from medbert_jax.evaluation.predictions import read_predictions
from medbert_jax.evaluation.results import read_run


@dataclass(frozen=True, eq=False)
class ComparedModel:
    """A model's probabilities for the rows of the patients."""

    name: str
    replicates: tuple[np.ndarray, ...]
    """One (n,) for each training of it; NaN of the censored, where they were not predicted."""
    files: tuple[tuple[str, str], ...] = ()
    """Name and sha256 of each file."""

    @property
    def ensemble(self) -> "ComparedModel":
        """The mean probability of the replicates, as one model."""
        name = f"{self.name}, ensemble of {len(self.replicates)}"
        return ComparedModel(name, (np.mean(self.replicates, axis=0),), self.files)


def read_models(
    paths: Sequence[str | Path], patients: EvaluatedPatients, names: Sequence[str] = ()
) -> list[ComparedModel]:
    """The models of predictions files (MEDS schema), in the order of the files.

    Files of a run in a results folder are called after its backbone, head and training size, others after the file;
    `names` are given in their place, one for each file. Files of one name are replicates of one model.

    Raises ValueError where a patient is not predicted, is predicted twice, or has another label there.
    """
    if names and len(names) != len(paths):
        raise ValueError(f"names must be one for each predictions file: got {len(names)} for {len(paths)}; give all")
    called = list(names) or _names([Path(path) for path in paths])
    of_model: dict[str, list[tuple[np.ndarray, tuple[str, str]]]] = {}
    for name, path in zip(called, paths, strict=True):
        read = aligned(Path(path), patients)
        of_model.setdefault(name, []).append((read, (Path(path).name, sha256_of(path))))
    return [
        ComparedModel(name, tuple(read for read, _ in parts), tuple(file for _, file in parts))
        for name, parts in of_model.items()
    ]


def aligned(path: Path, patients: EvaluatedPatients) -> np.ndarray:
    """The probabilities (n,) of a predictions file in the order of the patients."""
    frame = read_predictions(path).frame.select(
        pl.col("subject_id").cast(pl.String),
        pl.col("prediction_time").cast(pl.Int64),
        pl.col("boolean_value").cast(pl.Int8).alias("said"),
        pl.col("predicted_boolean_probability").alias("probability"),
    )
    key = ["subject_id", "prediction_time"]
    wanted = pl.DataFrame({"subject_id": patients.subject, "prediction_time": patients.time, "label": patients.label})
    repeated = int(frame.select(key).is_duplicated().sum())
    joined = wanted.join(frame.unique(key), on=key, how="left", maintain_order="left")
    known = pl.col("label") >= 0
    missing = joined.filter(known, pl.col("probability").is_null()).height
    differ = joined.filter(known, pl.col("said") != pl.col("label")).height
    unfit = joined.filter(~pl.col("probability").is_between(0, 1)).height
    faults = [f"{repeated} rows of the same subject and time"] if repeated else []
    asked = "predictions missing" if patients.is_clustered else "patients not predicted"
    faults += [f"{missing} of {int(patients.known.sum())} {asked}"] if missing else []
    faults += [f"{differ} with another label than the cohort's"] if differ else []
    faults += [f"{unfit} probabilities outside [0, 1] or NaN"] if unfit else []
    if faults:
        raise ValueError(
            f"predictions must be one probability for each test patient of {patients.name}, at the cohort's prediction"
            f" times: got {', '.join(faults)} in {path.name}; pass the predictions of this cohort"
        )
    return joined["probability"].fill_null(float("nan")).to_numpy()


def _names(paths: Sequence[Path]) -> list[str]:
    """After the run where there is one: its backbone and head, and its size where sizes differ."""
    runs = [_run_of(path) for path in paths]
    sizes = {run[1] for run in runs if run}
    of_runs = [run and (run[0] if len(sizes) == 1 else f"{run[0]} {run[1]}") for run in runs]
    return [of_run or path.stem for of_run, path in zip(of_runs, paths, strict=True)]


def _run_of(path: Path) -> tuple[str, str] | None:
    """What a run's predictions in RESULTS/predictions/ are called, and the training size."""
    results = path.absolute().parent.parent / path.name
    if path.absolute().parent.name != "predictions" or not results.is_file():
        return None
    (backbone, head, size), *_ = read_run(results).select("backbone", "head", "train_size_name").rows()
    return f"{backbone} {head}".replace("_", " "), size
